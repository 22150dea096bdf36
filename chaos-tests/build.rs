//! Tells the linker where the tests find libz3, as the crate `prover` found it.

use std::env;

const LIBRARY_PATH: &str = "DEP_SERIATIM_PROVER_LIBRARY_PATH";

fn main() {
    println!("cargo:rerun-if-env-changed={LIBRARY_PATH}");
    if let Ok(path) = env::var(LIBRARY_PATH) {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{path}");
    }
}
