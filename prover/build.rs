//! Tells the linker where this crate's tests find libz3, and tells whoever links a program with this crate
//! (`DEP_SERIATIM_PROVER_LIBRARY_PATH` in its build script).

use std::env;

const LIBRARY_PATH: &str = "Z3_LIBRARY_PATH_OVERRIDE";

fn main() {
    println!("cargo:rerun-if-env-changed={LIBRARY_PATH}");
    if let Ok(path) = env::var(LIBRARY_PATH) {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{path}");
        println!("cargo:LIBRARY_PATH={path}");
    }
}
