//! Resident engines, being built: so far a network's form between ONNX and a kernel, on the host alone.
//!
//! `lower` makes a [`Network`](network::Network) of a model or refuses it by name, [`reference`](mod@reference) computes it plainly,
//! [`program`] writes the kernel, [`budget`] counts what it needs of a GPU, [`stream`] parts what can be computed before the newest row is there from
//! what cannot.

pub mod budget;
mod fuse;
mod lower;
pub mod network;
pub mod program;
pub mod reference;
pub mod semantics;
pub mod stream;

pub use lower::lower;
pub use semantics::Semantics;
