//! Compiles the protocol definitions, without `protoc`.
//!
//! Writes to `OUT_DIR`: one Rust file a package, and `hearth.bin`, the encoded descriptor set that
//! reflection serves. The set leaves comments and positions out: they are two thirds of its size, and
//! whoever wants them has the files.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

const OWN: &str = "hearth/v1";
const THIRD_PARTY: &str = "third_party";

/// Served by reflection though nothing imports it: errors carry its messages.
const ERROR_DETAILS: &str = "third_party/google/rpc/error_details.proto";

/// Messages that hold secrets; `redact.rs` writes their `Debug` by hand.
const SECRET: [&str; 3] =
    [".hearth.v1.ExecVmRequest", ".hearth.v1.Identity", ".hearth.v1.IdentityFile"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let mut files = proto_files(Path::new(OWN))?;
    for file in files.iter().chain(&proto_files(Path::new(THIRD_PARTY))?) {
        println!("cargo::rerun-if-changed={}", file.display());
    }
    // A directory changes when a file is added to it or removed.
    println!("cargo::rerun-if-changed={OWN}");
    println!("cargo::rerun-if-changed={THIRD_PARTY}");
    files.push(PathBuf::from(ERROR_DETAILS));

    let mut compiler = protox::Compiler::new([Path::new(THIRD_PARTY), Path::new(".")])?;
    compiler.include_imports(true).open_files(&files)?;

    let out = PathBuf::from(env::var("OUT_DIR")?);
    compiler.include_source_info(false);
    fs::write(out.join("hearth.bin"), compiler.encode_file_descriptor_set())?;

    compiler.include_source_info(true);
    let mut config = tonic_prost_build::Config::new();
    config
        .enable_type_names()
        .type_name_domain(["."], "type.googleapis.com")
        .disable_comments([".google"]);
    tonic_prost_build::configure()
        // Ordered, so that equal requests encode to equal bytes.
        .btree_map(".hearth.v1")
        .bytes(".hearth.v1")
        // One set of types, whether an error travels in a status or in an operation.
        .extern_path(".google.rpc", "::tonic_types::pb")
        .skip_debug(SECRET)
        .codec_path("crate::MessageCodec")
        .compile_fds_with_config(compiler.file_descriptor_set(), config)?;
    Ok(())
}

/// Every `.proto` file below `directory`, sorted, so that two builds agree.
fn proto_files(directory: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(proto_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
