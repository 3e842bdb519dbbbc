//! What a call hands over, and what its answer is of.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a resident engine's answer is an answer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Semantics {
    /// Of the input that the call hands over, all of it; nothing is left of earlier calls.
    #[default]
    Whole,
    /// Of the full window, from a zero state: the same answer as [`Whole`](Self::Whole) gives to that window. Only its newest
    /// row is handed over; the others, or what was computed of them, are on the device.
    Window,
    /// Of every step since the last reset: state is carried on the device from call to call, and each call hands over one new
    /// step. Another answer than that of a window.
    Stateful,
}

impl Semantics {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Window => "window",
            Self::Stateful => "stateful",
        }
    }
}

impl fmt::Display for Semantics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
