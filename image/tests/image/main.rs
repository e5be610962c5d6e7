//! Tests of the image store against registries that fail, real registries, and the kernel.
//! In: images made here. Out: what the store made of them, seen with plain system calls and tools.
//! Need root and Debian's docker-registry, skopeo, umoci, util-linux and e2fsprogs;
//! what is missing fails the test.
//! Never: reach beyond loopback; every mount is in a mount namespace of the test's own thread.

// Every function here is a test's, also those that are not marked as one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod archive;
mod behaviour;
mod cleanup;
mod crash;
mod faults;
mod fixture;
mod mounts;
mod peers;
mod pull;
mod registry;
