//! The binary `seriatim`: roles and tools.

mod cli;
mod local;

use std::process::ExitCode;

use clap::Parser;
use tikv_jemallocator::Jemalloc;

/// RocksDB allocates from it too.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

const _: () = assert!(!flaws::COMPILED, "bugs can be planted in this build: it is for tests only");

fn main() -> ExitCode {
    node::telemetry::abort_on_panic();
    let cli = cli::Cli::parse();
    let runtime = match cli.runtime().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("seriatim: the runtime does not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(cli.run()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("seriatim: {error:#}");
            ExitCode::FAILURE
        }
    }
}
