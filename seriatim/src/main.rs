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
    let ended = runtime.block_on(async {
        let ended = cli.run().await;
        // it waits for what this runtime does; a panic in it would have ended the process
        drop(tokio::task::spawn_blocking(node::telemetry::shut_down_traces).await);
        ended
    });
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprintln!("seriatim: {error:#}");
            ExitCode::FAILURE
        }
    }
}
