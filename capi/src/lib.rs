//! tickrt for C and C++: what lies behind `include/tickrt/*.h`, where each function is documented.
//!
//! The rules that hold for all of them:
//!
//! * a function that can fail returns an owned error, null for success; outputs are written only on success;
//! * NULL where something is needed is an error, a panic is caught and is one, too;
//! * handles are opaque and belong to one thread at a time; freeing NULL does nothing;
//! * the data plane (`submit`, `poll`, `wait`, `push`) allocates nothing, as in Rust; an error in it takes the memory of
//!   the one that was freed before.
//!
//! References that may be null stand in the signatures as `Option<&T>`, owned pointers as `Option<Box<T>>`: Rust
//! guarantees that they are plain pointers to C.

// The contract is that of C, and the headers have it: pointers are valid, handles are those that were given out.
#![allow(clippy::missing_safety_doc)]

mod argument;
mod builder;
mod calls;
mod clock;
mod config;
mod engine;
mod error;
mod histogram;
mod normalization;
mod predictor;
mod session;
mod trust;
mod version;

pub use builder::*;
pub use clock::*;
pub use config::*;
pub use engine::*;
pub use error::*;
pub use histogram::*;
pub use normalization::*;
pub use predictor::*;
pub use session::*;
pub use trust::*;
pub use version::*;

pub use calls::{Answer, Output, TicketParts};
