//! Windows whose newest row arrives last: what can be computed before it is there, and what cannot.
//!
//! An answer is that of the full window from a zero state (`window` semantics); only the order changes. Of an LSTM all steps
//! but the last are computed ahead, and of the last one the part of the state, so that one product with the row remains;
//! of a convolution all places that do not reach the newest row. What has another structure remains whole. Both parts
//! together give the network's own bits, because nothing is summed in another order.
//!
//! Of recurrent layers each row goes through all windows that have begun, as soon as it is there ([`roll`]): the next window is
//! then one step behind.
//!
//! Where calls carry state (`stateful` semantics) the state that the call before left stands in place of the steps ahead.

mod carry;
mod rolling;
mod rules;
mod state;

use self::carry::Splitter;
pub use self::rolling::{Layer, Rolling, roll};
pub use self::state::{Carried, State, carry_state};
use super::fuse::{drop_unread, drop_values};
use super::network::{Along, Network};
use crate::error::{Error, ErrorKind, Result};

/// A network in two parts.
#[derive(Debug, Clone)]
pub struct Split {
    /// Its input is the window without its newest row. Its outputs are what [`remaining`](Self::remaining) takes.
    pub ahead: Network,
    /// Its inputs are the newest row, the network's further inputs if it has any, and the outputs of
    /// [`ahead`](Self::ahead); its outputs are the network's.
    pub remaining: Network,
}

/// Parts a network whose input `input` is a window, its rows along dimension `axis` (dimensions of one not counted), the
/// newest one last. Further inputs arrive with the newest row.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] if there is no such input or dimension.
pub fn split(network: &Network, input: usize, axis: usize) -> Result<Split> {
    let shape = network.inputs.get(input).map(|&id| &network.value(id).shape);
    let Some(shape) = shape.filter(|shape| axis < shape.len()) else {
        return Err(Error::new(ErrorKind::InvalidArgument, "part a network at its newest row")
            .expected(format!("dimension {axis} of input {input}"))
            .got(format!("{shape:?}")));
    };
    let mut splitter = Splitter::new(network, input, Along::new(shape, axis));
    for stage in &network.stages {
        splitter.stage(stage);
    }
    let mut split = splitter.finish();
    for part in [&mut split.ahead, &mut split.remaining] {
        drop_unread(part);
        drop_values(part);
    }
    Ok(split)
}
