//! What both daemons need to be looked into: numbers in Prometheus' text form, spans sent by OTLP,
//! and a small HTTP/1.1 server for what is asked over HTTP.
//! In: counts, durations, finished spans, requests. Out: text, exports, answers.
//! Owns: the series of a daemon, the queue of spans, the connections of a listener.
//! Never: blocks or slows down what it measures; knows tasks, nodes or clusters.

pub mod http;
pub mod metrics;
pub mod trace;
