//! Launching a call's graph before the call comes, and keeping an idle device warm.
//!
//! With [`SessionConfig::launch_ahead`](crate::SessionConfig::launch_ahead), each submission is followed by the launch of
//! the next free slot's graph. It waits on the device, in its first kernel, for the number of the next call; `submit` then
//! writes that number, behind the input or, of a small one, beside each word of it. A graph that has waited too long says
//! so ([`Status::EXPIRED`]) and computes nothing: its call is launched as without. A call whose number came just when the
//! graph gave up is launched again, by whoever waits for it.

use std::time::Instant;

use super::{Session, SlotState};
use crate::completion::Status;
use crate::error::{ErrorKind, Result};
use crate::fork;

/// A graph that waits on the device for its call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ahead {
    pub(super) slot: usize,
    pub(super) sequence: u64,
}

impl Session {
    /// Launches the next call's graph, where that is asked for and a slot is free.
    #[inline]
    pub(super) fn launch_ahead(&mut self) {
        if !self.launches_ahead || self.ahead.is_some() {
            return;
        }
        let Some(slot) = self.free_slot() else { return };
        let sequence = self.sequence + 1;
        // What goes wrong here goes wrong again in the next `submit`, which has somebody to tell.
        self.prepare(slot, 0, sequence);
        if self.backend.launch(slot, 0).is_ok() {
            self.ahead = Some(Ahead { slot, sequence });
        }
    }

    /// Whether it is known to have given up. It may give up after this, too.
    #[inline]
    pub(super) fn has_expired(&self, ahead: Ahead) -> bool {
        self.finished(ahead.slot, ahead.sequence).is_some_and(|status| status.is(Status::EXPIRED))
    }

    /// Lets a graph that waits run on what lies in its slot. Nobody will want the answer.
    #[cold]
    pub(super) fn let_go(&mut self, ahead: Ahead) {
        // SAFETY: the backend's contract: the header is valid, and nothing reads this field before the call begins.
        unsafe { (*self.backend.slots()[ahead.slot].header.as_ptr()).window = 0 };
        self.ring(ahead.slot, ahead.sequence);
        self.slots[ahead.slot].submitted = Instant::now();
        self.slots[ahead.slot].state = SlotState::Discarded(ahead.sequence);
        self.sequence = ahead.sequence;
    }

    /// The launch ahead of this call gave up when the call came: launches it again, its input being there.
    #[cold]
    pub(super) fn launch_again(&mut self, index: usize, sequence: u64) -> Result<()> {
        // The next call's graph is before this one in the stream.
        if let Some(ahead) = self.ahead.take() {
            self.let_go(ahead);
        }
        // Or the slot would seem to be free while its second launch is on its way.
        self.forget(index, sequence);
        if let Err(error) = self.backend.launch(index, self.slots[index].shape) {
            self.slots[index].state = SlotState::Failed(sequence);
            return Err(error);
        }
        self.launch_ahead();
        Ok(())
    }

    /// From here on, if the backend does. Warm-up has been launched slot by slot.
    pub(super) fn begin_launching_ahead(&mut self) {
        // Which shape the next call will have must be known.
        self.launches_ahead = self.backend.launches_ahead() && self.backend.signature().shapes.len() == 1;
        self.launch_ahead();
    }

    /// For the caller's idle loop: keeps the GPU's clocks up and the caches warm, so that a call after a pause is no slower
    /// than one of many. Returns at once. Does nothing while an earlier one still runs, while calls are in flight, or on a
    /// backend that computes on the CPU.
    ///
    /// Replays the graph on a slot of its own, whose answer nobody sees: a call submitted just then waits for it, as long as
    /// one call takes. With [`launch_ahead`](crate::SessionConfig::launch_ahead) it launches ahead again where that has
    /// given up, which delays nothing. A resident engine is warm until it was told to [`rest`](Self::rest), and waits for calls
    /// again after this.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn keep_warm(&mut self) -> Result<()> {
        if fork::since(self.generation) {
            return Err(ErrorKind::Forked.into());
        }
        if self.backend.takes_calls_in_order() {
            return self.backend.wake();
        }
        if self.launches_ahead {
            if self.ahead.is_some_and(|ahead| self.has_expired(ahead)) {
                self.ahead = None;
            }
            self.launch_ahead();
            return Ok(());
        }
        let Some(warm) = self.slots.get(self.depth) else { return Ok(()) };
        let last = if let SlotState::Asked(last) = warm.state { last } else { 0 };
        if (0..=self.depth).any(|index| self.runs(index)) {
            return Ok(());
        }
        self.replay(last + 1)
    }

    /// Ends what was launched ahead and what a resident engine has on the GPU, so that nothing of this session keeps it busy
    /// or holds up what waits for the whole device. Returns at once: what is there ends with its calls, a resident engine that has
    /// a call in every slot with its turn. The next call, or [`keep_warm`](Self::keep_warm), begins again.
    pub fn rest(&mut self) {
        if fork::since(self.generation) {
            // The device's side is the parent's.
            return;
        }
        if self.backend.takes_calls_in_order() {
            let next = (self.sequence % self.depth as u64) as usize;
            self.backend.rest(self.sequence + 1, !self.runs(next));
        }
        if let Some(ahead) = self.ahead.take() {
            self.let_go(ahead);
        }
    }

    /// Whether the slot's call has not come back.
    fn runs(&self, index: usize) -> bool {
        match self.slots[index].state {
            SlotState::Asked(sequence) | SlotState::GivenUp(sequence) | SlotState::Discarded(sequence) => {
                self.finished(index, sequence).is_none()
            }
            SlotState::Free | SlotState::Failed(_) => false,
        }
    }

    /// Replays the graph on the slot behind the ring, which numbers its calls by itself.
    fn replay(&mut self, sequence: u64) -> Result<()> {
        let slot = self.depth;
        self.prepare(slot, 0, sequence);
        self.ring(slot, sequence);
        self.backend.launch(slot, 0)?;
        self.slots[slot].state = SlotState::Asked(sequence);
        Ok(())
    }
}

/// A graph that waits would be waited for.
impl Drop for Session {
    fn drop(&mut self) {
        if fork::since(self.generation) {
            // The device's side is the parent's: it is leaked here, and no driver is called.
            self.quarantine();
            return;
        }
        self.rest();
    }
}
