//! The gRPC contracts of Lighter, package `lighter.v1`: generated code and its codec, nothing else.
//! In: the .proto files. Out: messages, clients, servers, the descriptor set, the list of methods.
//! Never: converts to or from the model; that is the work of the crates that use both.

mod codec;

/// Messages, clients and servers of package `lighter.v1`.
pub mod v1 {
    #![allow(clippy::all, clippy::pedantic, clippy::restriction, unreachable_pub)]
    tonic::include_proto!("lighter.v1");
}

/// The compiled descriptor set, for gRPC reflection and the compatibility test.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/lighter.v1.binpb"));

mod methods {
    include!(concat!(env!("OUT_DIR"), "/methods.rs"));
}
pub use methods::Method;
