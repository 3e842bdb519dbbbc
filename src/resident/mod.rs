//! Resident engines, being built: so far a network's form between ONNX and a kernel, on the host alone.
//!
//! `lower` makes a [`Network`](network::Network) of a model or refuses it by name, [`reference`](mod@reference) computes it plainly,
//! [`program`] writes the kernel, [`artefact`] compiles and keeps it, [`budget`] counts what it needs of a GPU, [`stream`] parts what can be computed before the newest row is there from
//! what cannot.

pub mod artefact;
pub mod budget;
pub mod artefact;
mod fuse;
mod lower;
pub mod network;
pub mod nvrtc;
pub mod program;
pub mod reference;
mod semantics;
pub mod stream;
pub mod turn;

pub use artefact::{Artefact, ArtefactOptions};
pub use lower::lower;
pub use semantics::Semantics;
