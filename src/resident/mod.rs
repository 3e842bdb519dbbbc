//! Resident engines, being built: so far a network's form between ONNX and a kernel, on the host alone.
//!
//! `lower` makes a [`Network`](network::Network) of a model or refuses it by name, [`reference`](mod@reference) computes it plainly,
//! [`program`] writes the kernel, [`budget`] counts what it needs of a GPU, [`stream`] parts what can be computed before the newest row is there from
//! what cannot.

pub mod budget;
pub mod artefact;
mod fuse;
mod lower;
pub mod network;
pub mod program;
pub mod reference;
pub mod stream;
pub mod turn;

pub use lower::lower;
