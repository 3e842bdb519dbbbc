//! The tool as its users see it: exit codes, messages, files, and what is printed.
//!
//! `TICKRT_BIN` names the binary on a machine other than the one that compiled it, `TICKRT_TEST_ROOT` the repository.
#![cfg(feature = "tool")]

mod answers;
mod builds;
mod deploys;
mod engines;
mod environment;
#[path = "../common/onnx.rs"]
mod onnx;
mod precision;
mod residents;
mod signing;
mod streaming;
mod support;
mod versions;
mod watching;
