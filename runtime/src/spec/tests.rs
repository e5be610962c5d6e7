//! The spec as a pure function.
