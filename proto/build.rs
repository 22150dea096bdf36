//! Compiles the `.proto` files without protoc. The descriptor set is kept for server reflection.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["seriatim.proto"], ["proto"])?;
    let directory = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(directory.join("seriatim.descriptors"), descriptors.encode_to_vec())?;
    // payloads are shared, not copied
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
