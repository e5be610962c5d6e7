//! The architecture test: what ARCHITECTURE.md, STYLE.md and deny.toml say, as machines check it.
//! In: the files of the checkout and `cargo metadata`. Out: failures that name file, line and rule.
//! Owns: short lists of exceptions, each argued and each failing when it is no longer needed.
//! Never: builds anything, or reads outside the checkout.

// A test binary: `pub` says what a module offers to the others.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod tidy {
    pub mod boundaries;
    pub mod dependencies;
    pub mod documents;
    pub mod files;
    pub mod licences;
    pub mod packages;
    pub mod source;
    pub mod tree;
    pub mod words;
}
