//! Compiles the .proto files without protoc, keeps their descriptor set for reflection and for the
//! compatibility test, and writes the list of all methods, so that a table of permissions over it
//! can be exhaustive at compile time.

use prost::Message;
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

const FILES: [&str; 8] = [
    "lighter/v1/types.proto",
    "lighter/v1/image.proto",
    "lighter/v1/stream.proto",
    "lighter/v1/placement.proto",
    "lighter/v1/service.proto",
    "lighter/v1/lighter.proto",
    "lighter/v1/node.proto",
    "lighter/v1/agent.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    println!("cargo:rerun-if-changed={}", root.display());
    let descriptors = protox::compile(FILES.map(|file| root.join(file)), [&root])?;
    std::fs::write(out.join("lighter.v1.binpb"), descriptors.encode_to_vec())?;
    write_methods(&descriptors, &out.join("methods.rs"))?;
    tonic_prost_build::configure()
        .build_transport(true)
        .codec_path("crate::codec::SmallCodec")
        .compile_fds(descriptors)?;
    Ok(())
}

/// One enum variant for each method of each service: `LighterRunTask`, `NodeSession`, …
fn write_methods(descriptors: &prost_types::FileDescriptorSet, path: &Path) -> Result<(), Box<dyn Error>> {
    let (mut variants, mut paths, mut all) = (String::new(), String::new(), String::new());
    for file in &descriptors.file {
        for service in &file.service {
            for method in &service.method {
                let variant = format!("{}{}", service.name(), method.name());
                let full = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                writeln!(variants, "    /// `{full}`\n    {variant},")?;
                writeln!(paths, "            Self::{variant} => {full:?},")?;
                writeln!(all, "        Self::{variant},")?;
            }
        }
    }
    let text = format!(
        "/// Every method of every service of lighter.v1.\n\
         #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]\n\
         pub enum Method {{\n{variants}}}\n\n\
         impl Method {{\n    /// Every method, in the order of the .proto files.\n    \
         pub const ALL: &'static [Self] = &[\n{all}    ];\n\n    \
         /// The HTTP/2 path of the method.\n    pub fn path(self) -> &'static str {{\n        \
         match self {{\n{paths}        }}\n    }}\n}}\n"
    );
    std::fs::write(path, text)?;
    Ok(())
}
