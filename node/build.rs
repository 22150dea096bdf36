//! Tells the linker where the tests find libz3: some of them prove.

use std::env;

const LIBRARY_PATH: &str = "Z3_LIBRARY_PATH_OVERRIDE";

fn main() {
    println!("cargo:rerun-if-env-changed={LIBRARY_PATH}");
    if let Ok(path) = env::var(LIBRARY_PATH) {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{path}");
    }
}
