//! Resident engines, up to the file: from a network to a kernel that stays on the GPU. What runs it is `backend/resident.rs`.
//!
//! `lower` makes a [`Network`](network::Network) of a model or refuses it by name, [`reference`](mod@reference) computes it plainly,
//! [`stream`] parts what can be computed before the newest row is there from what cannot, [`budget`] counts what it needs of a
//! GPU, [`program`] writes the kernel, [`nvrtc`] compiles it, [`artefact`] keeps it, and [`turn`] is what it is handed.

pub mod artefact;
pub mod budget;
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
pub use program::Asks;
pub use semantics::Semantics;
