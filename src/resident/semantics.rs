//! What an answer is of.

use serde::{Deserialize, Serialize};

/// Of which rows an answer is, and what a call hands over for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Semantics {
    /// An answer of the input that the call hands over, all of it.
    #[default]
    Whole,
    /// The answer of the full window from a zero state, of which a call hands over the newest row alone.
    Window,
    /// State is carried on the device; each call is one new step.
    Stateful,
}
