//! Tests of the stream reader.
