//! Compiles the protos without `protoc`, and keeps their descriptors for gRPC reflection.

use std::{env, error::Error, fs, path::PathBuf};

const PROTOS: &[&str] = &[
    "sightline/consistency/v1/consistency.proto",
    "sightline/order/v1/order.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(PROTOS)?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(
        out.join("descriptors.bin"),
        compiler.encode_file_descriptor_set(),
    )?;
    tonic_prost_build::configure().compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
