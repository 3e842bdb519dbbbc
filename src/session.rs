//! The hot path, top to bottom: lend a slot, write the input, submit, spin on the flag, read the answer.
//!
//! After start nothing here allocates, locks, logs or calls C++, and every loop has a bound. What happens before is in
//! `session/start.rs`; graphs launched ahead and a GPU kept warm are in `session/ahead.rs`; what a chain of sessions needs
//! of each other is in `session/handover.rs`; what is told of calls that have ended is in `session/observe.rs`.

mod ahead;
mod handover;
mod observe;
mod start;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use self::ahead::Ahead;
pub(crate) use self::handover::AskedInput;
pub(crate) use self::observe::Observers;
use crate::backend::{Backend, BackendKind, CallShape, Health, Signature, SlotMemory};
use crate::completion::{Done, Status, Unit, in_band};
use crate::config::WaitStrategy;
use crate::error::{Error, ErrorKind, Result};
use crate::fork;
use crate::nvtx;
use crate::resident::program::BEGINS_ANEW;
use crate::tensor::{DataType, Element};
use crate::window::{Moment, Windows};

/// How long [`WaitStrategy::SpinThenYield`] spins.
const SPIN_BEFORE_YIELDING: Duration = Duration::from_micros(100);
/// How long [`WaitStrategy::Block`] sleeps between looks.
const SLEEP: Duration = Duration::from_micros(50);

/// One backend, warmed up, and its ring of slots. One thread at a time uses it (`&mut self`); it may move between
/// threads (`nvinfer1::IExecutionContext` has the same rule, without the compiler's help).
///
/// ```no_run
/// # fn main() -> tickrt::Result<()> {
/// let mut session = tickrt::Session::load("models/toy_cnn.engine")?;
/// let mut scores = [0.0_f32; 3];
/// session.infer(&[0.0_f32; 256], &mut scores)?;
/// # Ok(()) }
/// ```
pub struct Session {
    /// The ring, and behind it the slot to keep the device warm with.
    slots: Box<[Slot]>,
    depth: usize,
    /// By shape: units of an answer in band.
    words: Box<[usize]>,
    /// By slot and input: how many elements from the front have been written for the next call.
    written: Box<[usize]>,
    next: usize,
    sequence: u64,
    id: u32,
    windows: Option<Windows>,
    /// Whose window the device's last call was on, if it was on one that the device keeps.
    device_symbol: Option<u32>,
    /// Whether the device carries state from call to call, and whether the next call begins anew.
    carries_state: bool,
    begins_anew: bool,
    /// The graph that waits on the device for the next call.
    ahead: Option<Ahead>,
    launches_ahead: bool,
    /// Whether an input is to be refused that the device does not refuse.
    looks_at_input: bool,
    wait_limit: Duration,
    wait_strategy: WaitStrategy,
    check_finite: bool,
    output_range: Option<[f32; 2]>,
    observers: Observers,
    /// Of the process that started it.
    generation: u32,
    backend: Box<dyn Backend>,
}

/// A call on its way. Give it to [`Session::poll`], [`Session::wait`] or [`Session::wait_until`] of the session that
/// issued it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    session: u32,
    slot: u32,
    sequence: u64,
}

impl Ticket {
    /// The ticket as two numbers, for a caller of another language to keep.
    #[inline]
    #[must_use]
    pub fn to_parts(self) -> [u64; 2] {
        [u64::from(self.session) << 32 | u64::from(self.slot), self.sequence]
    }

    /// The ticket of [`to_parts`](Self::to_parts). Any other numbers make one that every session calls stale.
    #[inline]
    #[must_use]
    pub fn from_parts([place, sequence]: [u64; 2]) -> Self {
        Self { session: (place >> 32) as u32, slot: place as u32, sequence }
    }
}

/// Where an answer came from, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// What the caller gave to [`InputSlot::tag`]; 0 if nothing.
    pub tag: u64,
    /// The call's number in its session, from 1.
    pub sequence: u64,
    /// Which backend computed it.
    pub backend: BackendKind,
    /// SHA-256 of the plan or ONNX model that computed it.
    pub engine: [u8; 32],
    /// When the call was submitted.
    pub submitted: Instant,
    /// When the answer was seen.
    pub done: Instant,
}

impl Answer {
    /// From submission to answer.
    #[must_use]
    pub fn latency(&self) -> Duration {
        self.done - self.submitted
    }
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    state: SlotState,
    shape: usize,
    /// Units of its answer, where that comes in band.
    words: usize,
    tag: u64,
    submitted: Instant,
    /// The window that was asked, so that another backend can answer in this one's place.
    moment: Option<Moment>,
    /// The last call whose answer came in band and was taken, and its units. A device that takes calls in order has written none since then
    /// but those of later calls.
    taken: Option<(u64, usize)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SlotState {
    Free,
    /// The call of this number is in flight, or its answer not yet collected.
    Asked(u64),
    /// Its deadline was missed: free again once the late answer is in.
    GivenUp(u64),
    /// Given up, and another backend has answered in its place.
    Discarded(u64),
    /// The device says that it will not come: free, but its input is still there for another backend.
    Failed(u64),
}

/// What a call keeps when another backend answers it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    tag: u64,
    submitted: Instant,
}

// ---- One call with one tensor in and one out.

impl Session {
    /// Computes one call from beginning to end: `input` is the only input, `output` takes the first output.
    ///
    /// # Errors
    /// Those of [`input`](Self::input), [`InputSlot::write`], [`InputSlot::submit`] and [`wait`](Self::wait).
    #[inline]
    pub fn infer<T: Element, U: Element>(&mut self, input: &[T], output: &mut [U]) -> Result<Answer> {
        let mut slot = self.input()?;
        slot.write(0, input)?;
        let ticket = slot.submit()?;
        let answer = self.wait(ticket, output);
        if answer.is_err() {
            // Nobody else has the ticket; most errors have ended the call already.
            let _ = self.give_up(ticket);
        }
        answer
    }

    // ---- 1. Lend a slot.

    /// Lends a free slot of the ring, for the first announced shape.
    ///
    /// # Errors
    /// [`ErrorKind::Full`] if every slot is in flight or not yet collected.
    #[inline]
    pub fn input(&mut self) -> Result<InputSlot<'_>> {
        self.input_for(0)
    }

    /// Lends a free slot of the ring, for the shape announced as number `shape`.
    ///
    /// # Errors
    /// As [`input`](Self::input), and [`ErrorKind::Shape`] if no such shape was announced.
    #[inline]
    pub fn input_for(&mut self, shape: usize) -> Result<InputSlot<'_>> {
        if fork::since(self.generation) {
            return Err(ErrorKind::Forked.into());
        }
        if shape >= self.backend.signature().shapes.len() {
            return Err(ErrorKind::Shape.into());
        }
        let Some(index) = self.free_slot() else {
            return Err(self.failed(ErrorKind::Full { depth: self.depth }.into()));
        };
        let inputs = self.inputs();
        self.written[index * inputs..(index + 1) * inputs].fill(0);
        Ok(self.attach(Draft { index, shape, tag: 0 }))
    }

    #[inline]
    fn free_slot(&mut self) -> Option<usize> {
        if let Some(ahead) = self.ahead {
            return Some(ahead.slot);
        }
        if self.backend.takes_calls_in_order() {
            // Call n lies in slot (n - 1) % depth.
            let index = (self.sequence % self.depth as u64) as usize;
            return self.is_free(index).then_some(index);
        }
        for _ in 0..self.depth {
            let index = self.next;
            self.next = if index + 1 == self.depth { 0 } else { index + 1 };
            if self.is_free(index) {
                return Some(index);
            }
        }
        None
    }

    #[inline]
    pub(crate) fn attach(&mut self, draft: Draft) -> InputSlot<'_> {
        InputSlot { session: self, draft }
    }

    #[inline]
    fn is_free(&mut self, index: usize) -> bool {
        match self.slots[index].state {
            SlotState::Free | SlotState::Failed(_) => true,
            SlotState::Asked(_) => false,
            SlotState::GivenUp(sequence) | SlotState::Discarded(sequence) => {
                let late = self.finished(index, sequence).is_some();
                if late {
                    self.slots[index].state = SlotState::Free;
                }
                late
            }
        }
    }
}

// ---- 2. Write the input.

/// A slot's input memory, lent to the caller. Dropped without [`submit`](Self::submit) it goes back to the ring.
pub struct InputSlot<'session> {
    session: &'session mut Session,
    draft: Draft,
}

/// A call that is being written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draft {
    index: usize,
    shape: usize,
    tag: u64,
}

impl Draft {
    pub(crate) fn tagged(self, tag: u64) -> Self {
        Self { tag, ..self }
    }
}

impl InputSlot<'_> {
    /// Writes elements of the first input, from place `offset` on, in the type that the normalisation takes. Pieces go
    /// from front to back; they may overlap, and leave no hole.
    ///
    /// # Errors
    /// [`ErrorKind::WrongType`], [`ErrorKind::WrongLength`].
    #[inline]
    pub fn write<T: Element>(&mut self, offset: usize, data: &[T]) -> Result<()> {
        self.write_input(0, offset, data)
    }

    /// Writes elements of the input `name`.
    ///
    /// # Errors
    /// As [`write`](Self::write), and [`ErrorKind::UnknownTensor`].
    pub fn write_named<T: Element>(&mut self, name: &str, offset: usize, data: &[T]) -> Result<()> {
        let inputs = &self.session.backend.signature().inputs;
        let input = inputs.iter().position(|input| input.name == name).ok_or(ErrorKind::UnknownTensor)?;
        self.write_input(input, offset, data)
    }

    #[inline]
    fn write_input<T: Element>(&mut self, input: usize, offset: usize, data: &[T]) -> Result<()> {
        let into = self.slice(input)?;
        let end = offset.checked_add(data.len()).filter(|&end| end <= into.len());
        let Some(end) = end else {
            return Err(ErrorKind::WrongLength { expected: into.len(), got: offset.saturating_add(data.len()) }.into());
        };
        into[offset..end].copy_from_slice(data);
        let written = self.written(input);
        if offset <= *written {
            *written = end.max(*written);
        }
        Ok(())
    }

    #[inline]
    fn written(&mut self, input: usize) -> &mut usize {
        let inputs = self.session.inputs();
        &mut self.session.written[self.draft.index * inputs + input]
    }

    /// The first input's memory itself, to write in place: one copy less. `None` if `T` is not its type. Whoever asks
    /// for it is trusted to have written all of it.
    #[inline]
    pub fn as_mut_slice<T: Element>(&mut self) -> Option<&mut [T]> {
        *self.written(0) = self.slice::<T>(0).ok()?.len();
        self.slice(0).ok()
    }

    #[inline]
    fn slice<T: Element>(&mut self, input: usize) -> Result<&mut [T]> {
        let normalizer = &self.session.backend.signature().shapes[self.draft.shape].inputs[input];
        if !normalizer.input_type.is_handed_over_as(T::TYPE) {
            return Err(ErrorKind::WrongType { expected: normalizer.input_type, got: T::TYPE }.into());
        }
        let region = &self.session.backend.slots()[self.draft.index].inputs[input];
        // SAFETY: the backend's contract: the region is valid, aligned to 64 and large enough for every announced shape.
        // Nothing else touches it: the slot is free, and the session is borrowed. Any bytes make a `T`, which is Pod.
        Ok(unsafe { std::slice::from_raw_parts_mut(region.start.as_ptr().cast::<T>(), normalizer.count) })
    }

    /// A number of the caller's that comes back with the answer.
    #[inline]
    #[must_use]
    pub fn tag(mut self, tag: u64) -> Self {
        self.draft.tag = tag;
        self
    }

    // ---- 3. Submit.

    /// Starts the call and returns at once; ONNX Runtime computes in here.
    ///
    /// # Errors
    /// [`ErrorKind::WrongLength`] if less than the whole input was written; those of the backend. The slot is free
    /// again after an error, unless the device is lost.
    #[inline]
    pub fn submit(self) -> Result<Ticket> {
        let Draft { index, shape, tag } = self.draft;
        // What was not written would be another call's.
        let inputs = &self.session.backend.signature().shapes[shape].inputs;
        for (input, &got) in inputs.iter().zip(&self.session.written[index * inputs.len()..]) {
            if got < input.count {
                return Err(ErrorKind::WrongLength { expected: input.count, got }.into());
            }
        }
        self.session.launch(index, shape, Origin { tag, submitted: Instant::now() }, None)
    }

    /// Lets go of the session, to be attached again.
    #[inline]
    pub(crate) fn detach(self) -> Draft {
        self.draft
    }
}

impl Session {
    /// Keeps the newest row of `symbol`, in the type that the normalisation takes. Copies it on the host; it goes to the
    /// device with the symbol's next call.
    ///
    /// # Errors
    /// [`ErrorKind::NoWindows`], [`ErrorKind::UnknownSymbol`], [`ErrorKind::WrongType`], [`ErrorKind::WrongLength`], and
    /// [`ErrorKind::NonFiniteInput`] where the normalisation refuses NaN. A row that was refused is not in the window:
    /// push a better one or call [`gap`](Self::gap).
    #[inline]
    pub fn push<T: Element>(&mut self, symbol: u32, row: &[T]) -> Result<()> {
        self.windows_mut()?.push(symbol, T::TYPE, bytemuck::cast_slice(row))
    }

    /// Forgets the rows of `symbol`: its window must fill anew.
    ///
    /// # Errors
    /// [`ErrorKind::NoWindows`], [`ErrorKind::UnknownSymbol`].
    pub fn reset(&mut self, symbol: u32) -> Result<()> {
        self.windows_mut()?.reset(symbol)
    }

    /// Has the next call begin anew: the state before it is the network's initial one. So it is at the start of a session. Of a resident
    /// engine with [`Semantics::Stateful`](crate::resident::Semantics::Stateful), each of whose calls is one step of its stream: also one
    /// whose answer nobody waited for, or that missed its deadline, but not one that was refused. Calls in flight keep the state that
    /// they have; the call that begins anew is computed twice and takes that much longer. NaN that the normalisation lets pass stays in
    /// the state until then.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a session whose calls know nothing of each other.
    pub fn reset_state(&mut self) -> Result<()> {
        if !self.carries_state {
            return Err(Error::new(ErrorKind::InvalidArgument, "reset a session's state")
                .expected("a resident engine that was built with --semantics stateful")
                .got(self.description().to_owned())
                .advice("nothing is carried from call to call here: leave it out, or call `reset` for a window"));
        }
        self.begins_anew = true;
        Ok(())
    }

    /// Whether calls carry state, as those of a resident engine with
    /// [`Semantics::Stateful`](crate::resident::Semantics::Stateful) do.
    #[must_use]
    pub fn carries_state(&self) -> bool {
        self.carries_state
    }

    /// Says that a row of `symbol` is missing; [`GapPolicy`](crate::GapPolicy) says what follows.
    ///
    /// # Errors
    /// [`ErrorKind::NoWindows`], [`ErrorKind::UnknownSymbol`].
    pub fn gap(&mut self, symbol: u32) -> Result<()> {
        self.windows_mut()?.gap(symbol)
    }

    /// Starts a call on the window of `symbol` as it is now, and returns at once; ONNX Runtime computes in here.
    ///
    /// # Errors
    /// [`ErrorKind::WindowNotFull`], [`ErrorKind::UnknownSymbol`], [`ErrorKind::NoWindows`], [`ErrorKind::Full`], and
    /// those of the backend.
    #[inline]
    pub fn submit_window(&mut self, symbol: u32) -> Result<Ticket> {
        self.submit_window_tagged(symbol, 0)
    }

    /// As [`submit_window`](Self::submit_window), with a number of the caller's that comes back with the answer.
    ///
    /// # Errors
    /// As [`submit_window`](Self::submit_window).
    #[inline]
    pub fn submit_window_tagged(&mut self, symbol: u32, tag: u64) -> Result<Ticket> {
        let moment = self.windows()?.now(symbol)?;
        self.submit_moment(moment, Origin { tag, submitted: Instant::now() })
    }

    /// Starts a call on a window as it was; the window must not have moved on by more than its own length.
    pub(crate) fn submit_moment(&mut self, moment: Moment, origin: Origin) -> Result<Ticket> {
        let index = self.input()?.draft.index;
        let windows = self.windows.as_ref().ok_or(ErrorKind::NoWindows)?;
        // A call launched ahead may turn out void and be launched again behind the next one, which must not count on its
        // rows: then each call brings its whole window.
        let device_rings = self.backend.keeps_windows() && !self.launches_ahead;
        let newest = if device_rings { windows.to_send(moment) } else { windows.rows() as u32 };
        let memory = &self.backend.slots()[index];
        // A device that keeps one window takes one row more of it, or another one whole.
        let goes_on = newest == 1 && self.device_symbol == Some(moment.symbol);
        let newest = if memory.newest_row.is_some() && !goes_on { windows.rows() as u32 } else { newest };
        let bytes = self.backend.signature().shapes[0].inputs[0].input_bytes();
        // SAFETY: as in `InputSlot::slice`.
        let input = unsafe { std::slice::from_raw_parts_mut(memory.inputs[0].start.as_ptr(), bytes) };
        if !windows.lay_out(moment, newest, input) {
            return Err(ErrorKind::Unavailable.into());
        }
        let header = memory.header.as_ptr();
        // SAFETY: the backend's contract: the header is valid, and of a free slot the device reads `sequence` alone.
        unsafe {
            (*header).window = u32::from(device_rings);
            (*header).symbol = moment.symbol;
            (*header).new_rows = newest;
            (*header).oldest = moment.oldest(windows.rows());
        }
        let ticket = self.launch(index, 0, origin, Some(moment))?;
        if device_rings {
            self.windows_mut()?.sent(moment);
            self.device_symbol = Some(moment.symbol);
        }
        Ok(ticket)
    }

    /// Starts a call on a window that another session keeps, laid out whole: for a backend without rings of its own.
    pub(crate) fn submit_window_of(&mut self, other: &Self, moment: Moment, origin: Origin) -> Result<Ticket> {
        let index = self.input()?.draft.index;
        let windows = other.windows()?;
        let bytes = self.backend.signature().shapes[0].inputs[0].input_bytes();
        let start = self.backend.slots()[index].inputs[0].start;
        // SAFETY: as in `InputSlot::slice`.
        let input = unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), bytes) };
        if !windows.lay_out(moment, windows.rows() as u32, input) {
            return Err(ErrorKind::Unavailable.into());
        }
        self.launch(index, 0, origin, None)
    }

    #[inline]
    fn launch(&mut self, index: usize, shape: usize, origin: Origin, moment: Option<Moment>) -> Result<Ticket> {
        let _range = nvtx::range(c"tickrt submit");
        if self.carries_state && self.looks_at_input {
            // Behind the call it would be too late: what is refused would have entered the state.
            self.slots[index].shape = shape;
            if self.is_input_bad(index) {
                return Err(ErrorKind::NonFiniteInput.into());
            }
        }
        if moment.is_none() {
            // SAFETY: the backend's contract: the header is valid, and nothing reads it before the call begins.
            unsafe { (*self.backend.slots()[index].header.as_ptr()).window = 0 };
            self.device_symbol = None;
        }
        if self.carries_state {
            let first = if std::mem::take(&mut self.begins_anew) { BEGINS_ANEW } else { 1 };
            let header = self.backend.slots()[index].header.as_ptr();
            // SAFETY: as above.
            unsafe { ((*header).window, (*header).new_rows) = (1, first) };
        }
        let sequence = match self.ahead.take() {
            Some(ahead) if ahead.slot == index && !self.has_expired(ahead) => {
                self.ring(index, ahead.sequence);
                ahead.sequence
            }
            ahead => {
                if let Some(ahead) = ahead.filter(|ahead| ahead.slot != index) {
                    self.let_go(ahead);
                }
                let sequence = self.sequence + 1;
                // Spent even if the launch fails: the header has it.
                self.sequence = sequence;
                self.prepare(index, shape, sequence);
                self.ring(index, sequence);
                self.backend.launch(index, shape).map_err(|error| self.failed(error))?;
                sequence
            }
        };
        self.sequence = sequence;
        let Origin { tag, submitted } = origin;
        let (state, words, taken) = (SlotState::Asked(sequence), self.words[shape], self.slots[index].taken);
        self.slots[index] = Slot { state, shape, words, tag, submitted, moment, taken };
        self.launch_ahead();
        Ok(Ticket { session: self.id, slot: index as u32, sequence })
    }

    /// Puts the call's number beside each word of its input, where that goes in band, and behind it: who sees it sees the input.
    #[inline]
    fn ring(&self, index: usize, sequence: u64) {
        let slot = &self.backend.slots()[index];
        if let (Some(units), Some(row_bytes)) = (slot.input_units, slot.newest_row) {
            let (start, bytes) = (slot.inputs[0].start, self.backend.signature().shapes[0].inputs[0].input_bytes());
            let words = row_bytes / 4;
            // SAFETY: the backend's contract: both regions are valid, apart and aligned, a row is whole words, and there are
            // an even number of units for it behind two more. The session alone writes the header.
            let (words, units, header) = unsafe {
                let newest = start.as_ptr().add(bytes - row_bytes).cast::<u32>();
                let units = std::slice::from_raw_parts(units.as_ptr(), 2 + words.next_multiple_of(2));
                (std::slice::from_raw_parts(newest, words), units, &*slot.header.as_ptr())
            };
            let rows = if header.window == 1 { header.new_rows } else { (bytes / row_bytes) as u32 };
            in_band::send_row(rows, words, units, sequence);
        } else if let Some(units) = slot.input_units {
            let words = self.backend.signature().shapes[0].inputs[0].input_words();
            // SAFETY: the backend's contract: both regions are valid, apart and aligned, the units even in number; regions
            // are whole lines, so that the last word may reach beyond the input.
            let (words, units) = unsafe {
                let words = std::slice::from_raw_parts(slot.inputs[0].start.as_ptr().cast::<u32>(), words);
                (words, std::slice::from_raw_parts(units.as_ptr(), words.len().next_multiple_of(2)))
            };
            in_band::send(words, units, sequence);
        }
        let header = slot.header.as_ptr();
        // SAFETY: the backend's contract: the header is valid; of a launch ahead the device reads this field meanwhile, and
        // therefore it is atomic. Release pairs with the acquire in kernels/normalize.cuh.
        unsafe { AtomicU64::from_ptr(&raw mut (*header).sequence) }.store(sequence, Ordering::Release);
    }

    /// Makes a slot ready for call `sequence`: nothing in it looks like its answer.
    #[inline]
    fn prepare(&mut self, index: usize, shape: usize, sequence: u64) {
        let words = self.words[shape];
        self.slots[index].words = words;
        // A graph launched ahead that expires writes the number that comes next.
        let in_order = self.backend.takes_calls_in_order();
        let is_taken = |(taken, of): (u64, usize)| in_order && of >= words && sequence - taken < in_band::NUMBERS;
        let seen = match self.backend.slots()[index].done {
            Done::Flag(_) => self.finished(index, sequence).is_some(),
            // Looking at all units takes a hundred nanoseconds where they are a hundred, and mostly it is known.
            Done::InBand(_) if self.slots[index].taken.is_some_and(is_taken) => false,
            Done::InBand(_) => in_band::any(self.units(index), sequence),
        };
        if seen {
            self.forget(index, sequence);
        }
        // SAFETY: the backend's contract: the header is valid, and nothing reads it before the launch.
        unsafe { (*self.backend.slots()[index].header.as_ptr()).awaited = sequence };
    }

    // ---- 4. Spin on the flag.

    /// Takes the answer if it is there: the first output goes to `output`. Returns at once.
    ///
    /// # Errors
    /// [`ErrorKind::StaleTicket`], and those of [`wait`](Self::wait), whose limit counts from the submission here.
    #[inline]
    pub fn poll<T: Element>(&mut self, ticket: Ticket, output: &mut [T]) -> Result<Option<Answer>> {
        self.poll_into(ticket, |outputs| outputs.copy(0, output))
    }

    /// Waits for the answer, for [`SessionConfig::wait_limit`](crate::SessionConfig::wait_limit) at most: the first output goes to `output`.
    ///
    /// # Errors
    /// [`ErrorKind::StaleTicket`], [`ErrorKind::WrongLength`], [`ErrorKind::WrongType`], [`ErrorKind::NonFiniteInput`],
    /// [`ErrorKind::NonFiniteOutput`], [`ErrorKind::OutOfRange`], [`ErrorKind::DeadlineMissed`] if the device still
    /// computes after the limit, or the device's own error. After a wrong length or type the answer can be asked for
    /// again.
    #[inline]
    pub fn wait<T: Element>(&mut self, ticket: Ticket, output: &mut [T]) -> Result<Answer> {
        self.wait_into(ticket, |outputs| outputs.copy(0, output))
    }

    /// Waits for the answer until `deadline`.
    ///
    /// # Errors
    /// As [`wait`](Self::wait). After [`ErrorKind::DeadlineMissed`] the session stays usable: the late answer is
    /// discarded, and its slot stays out of the ring until it has come.
    #[inline]
    pub fn wait_until<T: Element>(&mut self, ticket: Ticket, deadline: Instant, output: &mut [T]) -> Result<Answer> {
        self.wait_until_into(ticket, deadline, |outputs| outputs.copy(0, output))
    }

    /// As [`poll`](Self::poll), for several outputs: `read` takes what it wants of them.
    ///
    /// # Errors
    /// As [`poll`](Self::poll), and those of `read`.
    #[inline]
    pub fn poll_into(
        &mut self,
        ticket: Ticket,
        read: impl FnOnce(&Outputs<'_>) -> Result<()>,
    ) -> Result<Option<Answer>> {
        let index = self.asked(ticket)?;
        match self.look(index, ticket.sequence)? {
            Some(status) => self.collect(index, ticket.sequence, status, read).map(Some),
            None if self.slots[index].submitted.elapsed() > self.wait_limit => {
                let status = self.explain_silence(index, ticket.sequence)?;
                self.collect(index, ticket.sequence, status, read).map(Some)
            }
            None => Ok(None),
        }
    }

    /// As [`wait`](Self::wait), for several outputs: `read` takes what it wants of them.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), and those of `read`.
    #[inline]
    pub fn wait_into(&mut self, ticket: Ticket, read: impl FnOnce(&Outputs<'_>) -> Result<()>) -> Result<Answer> {
        let _range = nvtx::range(c"tickrt wait");
        let index = self.asked(ticket)?;
        let status = match self.spin(index, ticket.sequence, after(self.wait_limit))? {
            Some(status) => status,
            None => self.explain_silence(index, ticket.sequence)?,
        };
        self.collect(index, ticket.sequence, status, read)
    }

    /// As [`wait_until`](Self::wait_until), for several outputs: `read` takes what it wants of them.
    ///
    /// # Errors
    /// As [`wait_until`](Self::wait_until), and those of `read`.
    #[inline]
    pub fn wait_until_into(
        &mut self,
        ticket: Ticket,
        deadline: Instant,
        read: impl FnOnce(&Outputs<'_>) -> Result<()>,
    ) -> Result<Answer> {
        let _range = nvtx::range(c"tickrt wait");
        let index = self.asked(ticket)?;
        match self.spin(index, ticket.sequence, deadline)? {
            Some(status) => self.collect(index, ticket.sequence, status, read),
            None => {
                self.slots[index].state = SlotState::GivenUp(ticket.sequence);
                Err(self.lost(index, ticket.sequence, ErrorKind::DeadlineMissed.into()))
            }
        }
    }

    /// Gives the call up: its answer will be discarded, and its slot goes back to the ring when it has come.
    ///
    /// # Errors
    /// [`ErrorKind::StaleTicket`].
    pub fn give_up(&mut self, ticket: Ticket) -> Result<()> {
        let index = self.asked(ticket)?;
        self.slots[index].state = SlotState::GivenUp(ticket.sequence);
        Ok(())
    }

    /// Waits for the answer until `until` without taking it or giving it up. Whether it is there.
    #[inline]
    pub(crate) fn is_done_by(&mut self, ticket: Ticket, until: Instant) -> Result<bool> {
        let index = self.asked(ticket)?;
        Ok(self.spin(index, ticket.sequence, until)?.is_some())
    }

    #[inline]
    fn spin(&mut self, index: usize, sequence: u64, deadline: Instant) -> Result<Option<Status>> {
        // The clock costs as much as many looks at the flag.
        const LOOKS_A_CLOCK: u32 = 32;
        loop {
            for _ in 0..LOOKS_A_CLOCK {
                if let Some(status) = self.look(index, sequence)? {
                    return Ok(Some(status));
                }
                if self.wait_strategy != WaitStrategy::Spin {
                    std::hint::spin_loop();
                }
            }
            let now = Instant::now();
            if now >= deadline {
                return self.look(index, sequence);
            }
            match self.wait_strategy {
                WaitStrategy::Spin | WaitStrategy::SpinPause => {}
                WaitStrategy::SpinThenYield => {
                    if now.duration_since(self.slots[index].submitted) > SPIN_BEFORE_YIELDING {
                        std::thread::yield_now();
                    }
                }
                WaitStrategy::Block => std::thread::sleep(SLEEP.min(deadline - now)),
            }
        }
    }

    /// The call's status if its answer is there.
    #[inline]
    fn look(&mut self, index: usize, sequence: u64) -> Result<Option<Status>> {
        match self.finished(index, sequence) {
            Some(status) if status.is(Status::EXPIRED) => self.launch_again(index, sequence).map(|()| None),
            status => Ok(status),
        }
    }

    #[inline]
    fn finished(&self, index: usize, sequence: u64) -> Option<Status> {
        match self.backend.slots()[index].done {
            // SAFETY: the backend's contract: the flag is valid as long as the backend.
            Done::Flag(flag) => unsafe { flag.as_ref() }.finished(sequence),
            Done::InBand(_) => in_band::finished(self.units(index), sequence),
        }
    }

    /// Takes back what looks like the answer of a call that is yet to begin: of one that has expired, or, in band, of one
    /// 2²⁴ calls ago.
    #[cold]
    fn forget(&mut self, index: usize, sequence: u64) {
        // What is written instead is the number of no call that is near.
        self.slots[index].taken = None;
        match self.backend.slots()[index].done {
            // SAFETY: as in `finished`; the slot is free, and nobody else writes it.
            Done::Flag(flag) => unsafe { flag.as_ref() }.publish(!sequence, Status::default()),
            Done::InBand(_) => in_band::forget(self.units(index), sequence),
        }
    }

    /// The units of a slot whose answers come in band.
    #[inline]
    fn units(&self, index: usize) -> &[Unit] {
        let words = self.slots[index].words;
        match self.backend.slots()[index].done {
            // SAFETY: the backend's contract: there is a unit for each word of the largest shape.
            Done::InBand(units) => unsafe { std::slice::from_raw_parts(units.as_ptr(), words) },
            Done::Flag(_) => &[],
        }
    }

    // ---- 5. Read the answer.

    // Always: an answer is a hundred bytes, and each time it is handed on as a whole costs 5 ns.
    #[inline(always)]
    fn collect(
        &mut self,
        index: usize,
        sequence: u64,
        status: Status,
        read: impl FnOnce(&Outputs<'_>) -> Result<()>,
    ) -> Result<Answer> {
        let done = Instant::now();
        let slot = self.slots[index];
        self.slots[index].state = SlotState::Free;
        // Rows of a window were looked at when they were pushed.
        let looks = self.looks_at_input && slot.moment.is_none();
        if status.is(Status::NON_FINITE_INPUT) || looks && self.is_input_bad(index) {
            return Err(self.lost(index, sequence, ErrorKind::NonFiniteInput.into()));
        }
        self.unpack(index, sequence);
        let signature = self.backend.signature();
        let outputs = Outputs { signature, shape: &signature.shapes[slot.shape], memory: &self.backend.slots()[index] };
        if let Err(error) = outputs.check(self.check_finite, self.output_range) {
            return Err(self.lost(index, sequence, error));
        }
        if let Err(error) = read(&outputs) {
            use ErrorKind::{UnknownTensor, WrongLength, WrongType};
            if matches!(error.kind(), WrongLength { .. } | WrongType { .. } | UnknownTensor) {
                // The caller asked wrongly: the answer is still there for him to ask again.
                self.slots[index].state = SlotState::Asked(sequence);
                return Err(error);
            }
            return Err(self.lost(index, sequence, error));
        }
        let (backend, engine) = (self.backend.kind(), self.backend.engine_id());
        let answer = Answer { tag: slot.tag, sequence, backend, engine, submitted: slot.submitted, done };
        self.ended(index, sequence, Ok(&answer));
        Ok(answer)
    }

    /// Whether the normalisation refuses what lies in the slot: looked at when the answer is there.
    fn is_input_bad(&self, index: usize) -> bool {
        let inputs = &self.backend.signature().shapes[self.slots[index].shape].inputs;
        inputs.iter().zip(&self.backend.slots()[index].inputs).any(|(normalizer, region)| {
            // SAFETY: the backend's contract: valid, aligned and large enough; nobody writes it before the slot is free.
            let input = unsafe { std::slice::from_raw_parts(region.start.as_ptr(), normalizer.input_bytes()) };
            normalizer.refuses(input)
        })
    }

    /// Moves an answer in band to the slot's outputs.
    #[inline]
    fn unpack(&mut self, index: usize, sequence: u64) {
        if self.units(index).is_empty() {
            return;
        }
        self.slots[index].taken = Some((sequence, self.slots[index].words));
        let mut units = self.units(index);
        let shape = &self.backend.signature().shapes[self.slots[index].shape];
        for (output, region) in shape.outputs.iter().zip(&self.backend.slots()[index].outputs) {
            let (these, rest) = units.split_at(output.count);
            // SAFETY: the backend's contract: valid, aligned, large enough, and in band written by nobody else.
            in_band::unpack(these, unsafe {
                std::slice::from_raw_parts_mut(region.start.as_ptr().cast(), output.count)
            });
            units = rest;
        }
    }

    #[inline]
    fn asked(&self, ticket: Ticket) -> Result<usize> {
        if fork::since(self.generation) {
            return Err(ErrorKind::Forked.into());
        }
        let index = ticket.slot as usize;
        let asked = ticket.session == self.id
            && self.slots.get(index).is_some_and(|slot| slot.state == SlotState::Asked(ticket.sequence));
        if asked { Ok(index) } else { Err(ErrorKind::StaleTicket.into()) }
    }
}

/// The outputs of one answer, while they lie in their slot.
#[derive(Clone, Copy)]
pub struct Outputs<'session> {
    signature: &'session Signature,
    shape: &'session CallShape,
    memory: &'session SlotMemory,
}

impl<'session> Outputs<'session> {
    /// Copies output number `output`.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownTensor`], [`ErrorKind::WrongType`], [`ErrorKind::WrongLength`].
    #[inline]
    pub fn copy<T: Element>(&self, output: usize, into: &mut [T]) -> Result<()> {
        let from = self.slice::<T>(output)?;
        if from.len() != into.len() {
            return Err(ErrorKind::WrongLength { expected: from.len(), got: into.len() }.into());
        }
        into.copy_from_slice(from);
        Ok(())
    }

    /// The output `name`.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownTensor`], [`ErrorKind::WrongType`].
    pub fn named<T: Element>(&self, name: &str) -> Result<&'session [T]> {
        let outputs = &self.signature.outputs;
        self.slice(outputs.iter().position(|output| output.name == name).ok_or(ErrorKind::UnknownTensor)?)
    }

    /// Output number `output`, where it lies.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownTensor`], [`ErrorKind::WrongType`].
    #[inline]
    pub fn slice<T: Element>(&self, output: usize) -> Result<&'session [T]> {
        let shape = self.shape.outputs.get(output).ok_or(ErrorKind::UnknownTensor)?;
        if !shape.data_type.is_handed_over_as(T::TYPE) {
            return Err(ErrorKind::WrongType { expected: shape.data_type, got: T::TYPE }.into());
        }
        // SAFETY: the backend's contract: valid, aligned, large enough, and complete now that the flag shows the call.
        Ok(unsafe { std::slice::from_raw_parts(self.memory.outputs[output].start.as_ptr().cast::<T>(), shape.count) })
    }

    #[inline]
    fn check(&self, finite: bool, range: Option<[f32; 2]>) -> Result<()> {
        for (output, shape) in self.shape.outputs.iter().enumerate() {
            match shape.data_type {
                DataType::F32 => check_values(self.slice::<f32>(output)?, finite, range)?,
                DataType::F64 => check_values(self.slice::<f64>(output)?, finite, range)?,
                _ => {}
            }
        }
        Ok(())
    }
}

#[inline]
fn check_values<T: Copy + Into<f64>>(values: &[T], finite: bool, range: Option<[f32; 2]>) -> Result<()> {
    if finite && let Some(index) = first(values, |value| !value.is_finite()) {
        return Err(ErrorKind::NonFiniteOutput { index }.into());
    }
    if let Some([lowest, highest]) = range
        && let Some(index) = first(values, |value| !(f64::from(lowest)..=f64::from(highest)).contains(&value))
    {
        return Err(ErrorKind::OutOfRange { index }.into());
    }
    Ok(())
}

/// The first bad value. All are looked at, several at a time, before anybody asks which.
#[inline]
fn first<T: Copy + Into<f64>>(values: &[T], bad: impl Fn(f64) -> bool) -> Option<usize> {
    let any = values.iter().fold(false, |any, &value| any | bad(value.into()));
    if any { values.iter().position(|&value| bad(value.into())) } else { None }
}

// ---- Beside the steps.

impl Session {
    /// After the limit of a wait: asks the device what became of the call. It may have come meanwhile.
    #[cold]
    fn explain_silence(&mut self, index: usize, sequence: u64) -> Result<Status> {
        let health = self.backend.health();
        if let Some(status) = self.look(index, sequence)? {
            return Ok(status);
        }
        let (state, error) = match health {
            Health::Running => (SlotState::GivenUp(sequence), ErrorKind::DeadlineMissed.into()),
            Health::Failed(error) => (SlotState::Failed(sequence), error),
            Health::Idle => {
                let error = Error::new(ErrorKind::Execution, "wait for an answer")
                    .expected("the call's number in its slot's flag")
                    .got("an idle device that has not written it")
                    .advice("report it with the model: the publish kernel has not run");
                (SlotState::Failed(sequence), error)
            }
        };
        self.slots[index].state = state;
        Err(self.lost(index, sequence, error))
    }

    #[inline]
    fn inputs(&self) -> usize {
        self.backend.signature().inputs.len()
    }

    #[inline]
    fn windows(&self) -> Result<&Windows> {
        self.windows.as_ref().ok_or_else(|| ErrorKind::NoWindows.into())
    }

    #[inline]
    fn windows_mut(&mut self) -> Result<&mut Windows> {
        self.windows.as_mut().ok_or_else(|| ErrorKind::NoWindows.into())
    }
}

/// That much later, or so late that it makes no difference.
#[inline]
fn after(limit: Duration) -> Instant {
    const AGES: Duration = Duration::from_secs(1 << 31);
    let now = Instant::now();
    now.checked_add(limit).unwrap_or_else(|| now + AGES)
}
