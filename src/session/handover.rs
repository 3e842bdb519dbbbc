//! What a chain of sessions needs of each other: a call's input, to be answered elsewhere, and the windows, to be kept by
//! another.

use std::time::{Duration, Instant};

use super::{Draft, Origin, Session, SlotState, Ticket};
use crate::backend::{BackendKind, Health, SlotMemory};
use crate::error::{Error, ErrorKind, Result};
use crate::window::{Moment, Windows};

/// What a call was asked about.
pub(crate) enum AskedInput<'session> {
    Slot { memory: &'session SlotMemory, shape: usize },
    Window(Moment),
}

impl Session {
    /// The call's input as it was handed over, its tag and time: its own bytes, or the moment of its window.
    pub(crate) fn asked_input(&self, ticket: Ticket) -> Result<(AskedInput<'_>, Origin)> {
        use SlotState::{Asked, Failed, GivenUp};
        let index = ticket.slot as usize;
        let slot = self.slots.get(index).ok_or(ErrorKind::StaleTicket)?;
        let known = matches!(slot.state, Asked(s) | GivenUp(s) | Failed(s) if s == ticket.sequence);
        if !known || ticket.session != self.id {
            return Err(ErrorKind::StaleTicket.into());
        }
        let input = match slot.moment {
            Some(moment) => AskedInput::Window(moment),
            None => AskedInput::Slot { memory: &self.backend.slots()[index], shape: slot.shape },
        };
        Ok((input, Origin { tag: slot.tag, submitted: slot.submitted }))
    }

    /// The call was answered elsewhere. One that may still come keeps its slot until it has.
    pub(crate) fn answered_elsewhere(&mut self, ticket: Ticket) {
        let state = &mut self.slots[ticket.slot as usize].state;
        *state = match *state {
            SlotState::Asked(sequence) | SlotState::GivenUp(sequence) => SlotState::Discarded(sequence),
            SlotState::Failed(_) => SlotState::Free,
            other => other,
        };
    }

    /// As [`asked_input`](Self::asked_input), of a call that could not be started.
    pub(crate) fn drafted_input(&self, draft: Draft) -> (AskedInput<'_>, Origin) {
        let memory = &self.backend.slots()[draft.index];
        (AskedInput::Slot { memory, shape: draft.shape }, Origin { tag: draft.tag, submitted: Instant::now() })
    }

    pub(crate) fn engine_id(&self) -> [u8; 32] {
        self.backend.engine_id()
    }

    pub(crate) fn issued(&self, ticket: Ticket) -> bool {
        ticket.session == self.id
    }

    /// How long one call takes with the shape announced as number `shape`.
    pub(crate) fn time_one_call(&mut self, shape: usize) -> Result<Duration> {
        let index = self.input_for(shape)?.draft.index;
        self.try_slot(index, shape, self.wait_limit)
    }

    /// Whether a call that was given up has not come back for the limit of a wait.
    pub(crate) fn is_stuck(&self) -> bool {
        self.slots.iter().enumerate().any(|(index, slot)| match slot.state {
            SlotState::GivenUp(sequence) | SlotState::Discarded(sequence) => {
                slot.submitted.elapsed() > self.wait_limit && self.finished(index, sequence).is_none()
            }
            _ => false,
        })
    }

    /// Copies the inputs of another session's call into a slot of this one and starts it.
    pub(crate) fn submit_copy(&mut self, of: &SlotMemory, shape: usize, origin: Origin) -> Result<Ticket> {
        let index = self.input_for(shape)?.draft.index;
        let memory = &self.backend.slots()[index];
        for (normalizer, (from, to)) in
            self.backend.signature().shapes[shape].inputs.iter().zip(of.inputs.iter().zip(&memory.inputs))
        {
            let bytes = normalizer.input_bytes();
            assert!(bytes <= from.bytes && bytes <= to.bytes, "the chain's backends take the same inputs");
            // SAFETY: both backends' contract: regions are valid and do not overlap; this slot is free.
            unsafe { std::ptr::copy_nonoverlapping(from.start.as_ptr(), to.start.as_ptr(), bytes) };
        }
        self.launch(index, shape, origin, None)
    }

    /// Starts a call on the bytes of the one input, of the first announced shape.
    pub(crate) fn submit_bytes(&mut self, input: &[u8]) -> Result<Ticket> {
        let index = self.input()?.draft.index;
        let to = &self.backend.slots()[index].inputs[0];
        assert!(input.len() <= to.bytes, "who asks has looked at the input's size");
        // SAFETY: the backend's contract: the region is valid; this slot is free, and nothing of the caller's lies in it.
        unsafe { std::ptr::copy_nonoverlapping(input.as_ptr(), to.start.as_ptr(), input.len()) };
        self.launch(index, 0, Origin { tag: 0, submitted: Instant::now() }, None)
    }

    pub(crate) fn take_windows(&mut self) -> Option<Windows> {
        self.windows.take()
    }

    /// Takes over another session's windows: this device has seen none of the rows.
    pub(crate) fn put_windows(&mut self, windows: Option<Windows>) {
        self.windows = windows;
        if let Some(windows) = &mut self.windows {
            windows.unsent();
        }
    }

    /// Takes over another session's windows as [`put_windows`](Self::put_windows) does, and from the windows that this
    /// session had, which `spare` holds, what is refused and what a gap does.
    pub(crate) fn inherit_windows(&mut self, mut windows: Option<Windows>, spare: &Self) {
        if let (Some(windows), Some(own)) = (&mut windows, &spare.windows) {
            windows.follow_rules_of(own);
        }
        self.put_windows(windows);
    }

    /// Whether both keep windows of as many symbols and as long rows, or none.
    pub(crate) fn keeps_windows_like(&self, other: &Self) -> bool {
        match (&self.windows, &other.windows) {
            (Some(one), Some(other)) => one.has_layout_of(other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }

    /// Launches nothing ahead any more: another session answers from here on.
    pub(crate) fn leave(&mut self) {
        self.rest();
        self.launches_ahead = false;
    }

    /// Whether a call is in flight, or its answer not yet collected.
    pub(crate) fn has_calls(&self) -> bool {
        self.slots.iter().enumerate().any(|(index, slot)| match slot.state {
            SlotState::Free | SlotState::Failed(_) => false,
            // Nobody collects what keeps the device warm.
            SlotState::Asked(sequence) => index < self.depth || self.finished(index, sequence).is_none(),
            SlotState::GivenUp(sequence) | SlotState::Discarded(sequence) => self.finished(index, sequence).is_none(),
        })
    }

    /// Has a resident engine that was told to [`rest`](Self::rest) wait for calls again.
    pub(crate) fn wake(&mut self) -> Result<()> {
        self.backend.wake()
    }

    /// Why a resident engine's kernel is no more.
    pub(crate) fn resident_failure(&mut self) -> Option<Error> {
        match self.backend.kind() {
            BackendKind::Resident => match self.backend.health() {
                Health::Failed(error) => Some(error),
                _ => None,
            },
            _ => None,
        }
    }

    pub(crate) fn quarantine(&mut self) {
        self.backend.quarantine();
    }
}
