//! What session.h and predictor.h have in common: lending, writing, submitting, collecting, rolling windows.

use std::ffi::{CString, c_char, c_void};
use std::ptr::NonNull;

use tickrt::{BackendKind, Element, ErrorKind, InputSlot, Outputs, Predictor, PredictorSlot, Session, Ticket};

use crate::argument::{Place, destination, elements, given, invalid, string, with_type};
use crate::clock;
use crate::error::{Fault, MaybeError, run};

type Result<T, E = tickrt::Error> = std::result::Result<T, E>;

/// `tickrt_ticket` in types.h.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct TicketParts {
    parts: [u64; 2],
}

/// `tickrt_answer` in types.h.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// The caller's number.
    pub tag: u64,
    /// The call's number in its session.
    pub sequence: u64,
    /// When it was submitted, on the clock of clock.h.
    pub submitted_ns: u64,
    /// When its answer was seen.
    pub done_ns: u64,
    /// SHA-256 of what answered.
    pub engine: [u8; 32],
    /// One of `tickrt_backend`.
    pub backend: i32,
}

/// `tickrt_output` in types.h: which output goes where.
#[repr(C)]
#[derive(Debug)]
pub struct Output {
    index: usize,
    data: *mut c_void,
    count: usize,
    data_type: i32,
}

impl Output {
    /// Output number `index` to `count` elements at `data`.
    #[must_use]
    pub fn new(index: usize, data: *mut c_void, count: usize, data_type: tickrt::DataType) -> Self {
        Self { index, data, count, data_type: data_type as i32 }
    }
}

impl From<&tickrt::Answer> for Answer {
    // Always: it is written where C wants it, not copied there.
    #[inline(always)]
    fn from(answer: &tickrt::Answer) -> Self {
        Self {
            tag: answer.tag,
            sequence: answer.sequence,
            submitted_ns: clock::nanoseconds(answer.submitted),
            done_ns: clock::nanoseconds(answer.done),
            engine: answer.engine,
            backend: backend_number(answer.backend),
        }
    }
}

/// The numbers of `tickrt_backend` in types.h.
pub(crate) fn backend_number(kind: BackendKind) -> i32 {
    match kind {
        BackendKind::TensorRt => 0,
        BackendKind::OrtCuda => 1,
        BackendKind::OrtCpu => 2,
        BackendKind::Custom => 3,
        BackendKind::Resident => 4,
    }
}

/// A session or a predictor: their calls are the same.
pub trait Calls: 'static {
    type Slot<'a>: Slot;
    fn input(&mut self, shape: usize) -> Result<Self::Slot<'_>>;
    fn push<T: Element>(&mut self, symbol: u32, row: &[T]) -> Result<()>;
    fn reset(&mut self, symbol: u32) -> Result<()>;
    fn gap(&mut self, symbol: u32) -> Result<()>;
    fn submit_window(&mut self, symbol: u32, tag: u64) -> Result<Ticket>;
    fn give_up(&mut self, ticket: Ticket) -> Result<()>;
    fn poll(&mut self, ticket: Ticket, read: impl FnMut(&Outputs<'_>) -> Result<()>) -> Result<Option<tickrt::Answer>>;
    fn wait(&mut self, ticket: Ticket, read: impl FnMut(&Outputs<'_>) -> Result<()>) -> Result<tickrt::Answer>;
    fn wait_until(
        &mut self,
        ticket: Ticket,
        deadline_ns: u64,
        read: impl FnMut(&Outputs<'_>) -> Result<()>,
    ) -> Result<tickrt::Answer>;
    fn keep_warm(&mut self) -> Result<()>;
    fn rest(&mut self);
}

/// A slot that was lent.
pub trait Slot: Sized {
    fn write<T: Element>(&mut self, offset: usize, data: &[T]) -> Result<()>;
    fn write_named<T: Element>(&mut self, name: &str, offset: usize, data: &[T]) -> Result<()>;
    fn submit(self, tag: u64) -> Result<Ticket>;
}

macro_rules! calls {
    ($calls:ty, $slot:ident) => {
        impl Calls for $calls {
            type Slot<'a> = $slot<'a>;
            #[inline]
            fn input(&mut self, shape: usize) -> Result<Self::Slot<'_>> {
                self.input_for(shape)
            }
            #[inline]
            fn push<T: Element>(&mut self, symbol: u32, row: &[T]) -> Result<()> {
                self.push(symbol, row)
            }
            fn reset(&mut self, symbol: u32) -> Result<()> {
                self.reset(symbol)
            }
            fn gap(&mut self, symbol: u32) -> Result<()> {
                self.gap(symbol)
            }
            #[inline]
            fn submit_window(&mut self, symbol: u32, tag: u64) -> Result<Ticket> {
                self.submit_window_tagged(symbol, tag)
            }
            fn give_up(&mut self, ticket: Ticket) -> Result<()> {
                self.give_up(ticket)
            }
            #[inline]
            fn poll(
                &mut self,
                ticket: Ticket,
                read: impl FnMut(&Outputs<'_>) -> Result<()>,
            ) -> Result<Option<tickrt::Answer>> {
                self.poll_into(ticket, read)
            }
            #[inline]
            fn wait(&mut self, ticket: Ticket, read: impl FnMut(&Outputs<'_>) -> Result<()>) -> Result<tickrt::Answer> {
                self.wait_into(ticket, read)
            }
            #[inline]
            fn wait_until(
                &mut self,
                ticket: Ticket,
                deadline_ns: u64,
                read: impl FnMut(&Outputs<'_>) -> Result<()>,
            ) -> Result<tickrt::Answer> {
                self.wait_until_into(ticket, clock::instant(deadline_ns), read)
            }
            fn keep_warm(&mut self) -> Result<()> {
                self.keep_warm()
            }
            fn rest(&mut self) {
                self.rest();
            }
        }

        impl Slot for $slot<'_> {
            #[inline]
            fn write<T: Element>(&mut self, offset: usize, data: &[T]) -> Result<()> {
                self.write(offset, data)
            }
            fn write_named<T: Element>(&mut self, name: &str, offset: usize, data: &[T]) -> Result<()> {
                self.write_named(name, offset, data)
            }
            #[inline]
            fn submit(self, tag: u64) -> Result<Ticket> {
                self.tag(tag).submit()
            }
        }
    };
}
calls!(Session, InputSlot);
calls!(Predictor, PredictorSlot);

/// A session or predictor in C's hands, with the slot that it has lent, if it has.
pub struct Caller<C: Calls> {
    /// Before what it borrows from.
    slot: Option<C::Slot<'static>>,
    /// Behind a raw pointer, so that nothing claims it as its own while a slot is lent.
    calls: NonNull<C>,
    /// A panic has left it in the middle of something.
    broken: bool,
    /// Strings that C was given and that live as long as this.
    pub(crate) texts: Vec<CString>,
}

// SAFETY: `calls` is owned and is `Send`, and so is the slot, which is a reference to it.
unsafe impl<C: Calls + Send> Send for Caller<C> {}

impl<C: Calls> Drop for Caller<C> {
    fn drop(&mut self) {
        self.slot = None;
        // SAFETY: from `Box::leak` in `new`, and nothing borrows from it any more.
        drop(unsafe { Box::from_raw(self.calls.as_ptr()) });
    }
}

impl<C: Calls> Caller<C> {
    pub(crate) fn new(calls: C) -> Box<Self> {
        let calls = NonNull::from(Box::leak(Box::new(calls)));
        Box::new(Self { slot: None, calls, broken: false, texts: Vec::new() })
    }

    /// What is called, unless a slot is lent: as in Rust, the slot comes first.
    #[inline]
    pub(crate) fn idle(&mut self) -> Result<&mut C, Fault> {
        if self.slot.is_some() {
            return Err(slot_is_lent());
        }
        // SAFETY: valid as long as `self`, and nothing borrows from it: no slot is lent.
        Ok(unsafe { self.calls.as_mut() })
    }

    #[inline]
    fn lend(&mut self, shape: usize) -> Result<(), Fault> {
        self.idle()?;
        // SAFETY: valid until `drop`, which lets go of the slot first. `idle` keeps everything else away from it.
        let calls: &'static mut C = unsafe { &mut *self.calls.as_ptr() };
        self.slot = Some(calls.input(shape)?);
        Ok(())
    }

    #[inline]
    fn lent(&mut self) -> Result<&mut C::Slot<'static>, Fault> {
        self.slot.as_mut().ok_or_else(no_slot)
    }
}

#[cold]
fn slot_is_lent() -> Fault {
    invalid("session", "a call that leaves the lent slot alone", "a slot that was lent and is not yet submitted")
}

#[cold]
fn no_slot() -> Fault {
    invalid("session", "a lent slot: call input first", "none")
}

/// Runs `body` on a handle of C's.
#[inline]
pub(crate) fn on<C: Calls>(
    caller: Option<&mut Caller<C>>,
    body: impl FnOnce(&mut Caller<C>) -> Result<(), Fault>,
) -> MaybeError {
    let Some(caller) = caller else { return run(|| Err(invalid("session", "a handle", "NULL"))).0 };
    if caller.broken {
        return run(|| Err(Fault::Broken)).0;
    }
    let (error, panicked) = run(|| body(caller));
    caller.broken |= panicked;
    error
}

#[inline]
pub(crate) fn input<C: Calls>(caller: Option<&mut Caller<C>>, shape: usize) -> MaybeError {
    on(caller, |caller| caller.lend(shape))
}

/// # Safety
/// `data` points to `count` elements of the type.
#[inline]
pub(crate) unsafe fn write<C: Calls>(
    caller: Option<&mut Caller<C>>,
    offset: usize,
    data: *const c_void,
    count: usize,
    data_type: i32,
) -> MaybeError {
    on(caller, |caller| {
        let slot = caller.lent()?;
        // SAFETY: the caller's contract.
        with_type!(data_type, T => slot.write::<T>(offset, unsafe { elements(data, count) }?))?;
        Ok(())
    })
}

/// # Safety
/// `data` points to `count` elements of the type, `name` is a string of C's.
pub(crate) unsafe fn write_named<C: Calls>(
    caller: Option<&mut Caller<C>>,
    name: *const c_char,
    offset: usize,
    data: *const c_void,
    count: usize,
    data_type: i32,
) -> MaybeError {
    on(caller, |caller| {
        let slot = caller.lent()?;
        // SAFETY: the caller's contract.
        let name = unsafe { string(name, "name") }?;
        // SAFETY: the caller's contract.
        with_type!(data_type, T => slot.write_named::<T>(name, offset, unsafe { elements(data, count) }?))?;
        Ok(())
    })
}

#[inline]
pub(crate) fn submit<C: Calls>(caller: Option<&mut Caller<C>>, tag: u64, ticket: Place<'_, TicketParts>) -> MaybeError {
    on(caller, |caller| {
        // Whatever comes of it, the slot is lent no longer.
        let slot = caller.slot.take().ok_or_else(no_slot)?;
        let place = given(ticket, "ticket")?;
        place.write(TicketParts { parts: slot.submit(tag)?.to_parts() });
        Ok(())
    })
}

pub(crate) fn cancel<C: Calls>(caller: Option<&mut Caller<C>>) {
    if let Some(caller) = caller {
        caller.slot = None;
    }
}

/// # Safety
/// `row` points to `count` elements of the type.
#[inline]
pub(crate) unsafe fn push<C: Calls>(
    caller: Option<&mut Caller<C>>,
    symbol: u32,
    row: *const c_void,
    count: usize,
    data_type: i32,
) -> MaybeError {
    on(caller, |caller| {
        let calls = caller.idle()?;
        // SAFETY: the caller's contract.
        with_type!(data_type, T => calls.push::<T>(symbol, unsafe { elements(row, count) }?))?;
        Ok(())
    })
}

pub(crate) fn reset<C: Calls>(caller: Option<&mut Caller<C>>, symbol: u32) -> MaybeError {
    on(caller, |caller| Ok(caller.idle()?.reset(symbol)?))
}

pub(crate) fn gap<C: Calls>(caller: Option<&mut Caller<C>>, symbol: u32) -> MaybeError {
    on(caller, |caller| Ok(caller.idle()?.gap(symbol)?))
}

#[inline]
pub(crate) fn submit_window<C: Calls>(
    caller: Option<&mut Caller<C>>,
    symbol: u32,
    tag: u64,
    ticket: Place<'_, TicketParts>,
) -> MaybeError {
    on(caller, |caller| {
        let place = given(ticket, "ticket")?;
        place.write(TicketParts { parts: caller.idle()?.submit_window(symbol, tag)?.to_parts() });
        Ok(())
    })
}

pub(crate) fn give_up<C: Calls>(caller: Option<&mut Caller<C>>, ticket: TicketParts) -> MaybeError {
    on(caller, |caller| Ok(caller.idle()?.give_up(Ticket::from_parts(ticket.parts))?))
}

/// # Safety
/// As [`wanted`] and [`copy_all`].
#[inline]
pub(crate) unsafe fn poll<C: Calls>(
    caller: Option<&mut Caller<C>>,
    ticket: TicketParts,
    outputs: *const Output,
    count: usize,
    done: Place<'_, bool>,
    answer: Place<'_, Answer>,
) -> MaybeError {
    on(caller, |caller| {
        let done = given(done, "done")?;
        // SAFETY: the caller's contract.
        let outputs = unsafe { wanted(outputs, count) }?;
        // SAFETY: the caller's contract.
        let read = |from: &Outputs<'_>| unsafe { copy_all(from, outputs) }.map_err(unwrapped);
        let answered = caller.idle()?.poll(Ticket::from_parts(ticket.parts), read)?;
        done.write(answered.is_some());
        if let (Some(answered), Some(place)) = (&answered, answer) {
            place.write(answered.into());
        }
        Ok(())
    })
}

/// # Safety
/// As [`wanted`] and [`copy_all`].
#[inline]
pub(crate) unsafe fn wait<C: Calls>(
    caller: Option<&mut Caller<C>>,
    ticket: TicketParts,
    deadline_ns: Option<u64>,
    outputs: *const Output,
    count: usize,
    answer: Place<'_, Answer>,
) -> MaybeError {
    on(caller, |caller| {
        // SAFETY: the caller's contract.
        let outputs = unsafe { wanted(outputs, count) }?;
        // SAFETY: the caller's contract.
        let read = |from: &Outputs<'_>| unsafe { copy_all(from, outputs) }.map_err(unwrapped);
        let (calls, ticket) = (caller.idle()?, Ticket::from_parts(ticket.parts));
        let answered = match deadline_ns {
            Some(deadline_ns) => calls.wait_until(ticket, deadline_ns, read),
            None => calls.wait(ticket, read),
        }?;
        if let Some(place) = answer {
            place.write((&answered).into());
        }
        Ok(())
    })
}

/// The outputs that are wanted, each with a place that can be written.
///
/// # Safety
/// `outputs` points to `count` of them, or is null.
#[inline]
unsafe fn wanted<'a>(outputs: *const Output, count: usize) -> Result<&'a [Output], Fault> {
    if outputs.is_null() && count > 0 {
        return Err(invalid("outputs", "a pointer", "NULL"));
    }
    // SAFETY: the caller's contract.
    let outputs = if count == 0 { &[] } else { unsafe { std::slice::from_raw_parts(outputs, count) } };
    for output in outputs {
        with_type!(output.data_type, T => destination::<T>(output.data, output.count).map(drop))?;
    }
    Ok(outputs)
}

/// Copies every output that is wanted, or none.
///
/// # Safety
/// Each one's `data` points to room for its `count` elements.
#[inline]
unsafe fn copy_all(from: &Outputs<'_>, outputs: &[Output]) -> Result<(), Fault> {
    for write in [false, true] {
        for output in outputs {
            with_type!(output.data_type, T => {
                let values = from.slice::<T>(output.index)?;
                if values.len() != output.count {
                    return Err(ErrorKind::WrongLength { expected: values.len(), got: output.count }.into());
                }
                if write {
                    // SAFETY: the caller's contract: room for as many elements as `values` has, outside our memory.
                    unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), output.data.cast(), values.len()) };
                }
            });
        }
    }
    Ok(())
}

/// The error of a `read`, which is the session's to hand on.
fn unwrapped(fault: Fault) -> tickrt::Error {
    match fault {
        Fault::Error(error) => error,
        Fault::Panic(_) | Fault::Broken => ErrorKind::InvalidArgument.into(),
    }
}

pub(crate) fn keep_warm<C: Calls>(caller: Option<&mut Caller<C>>) -> MaybeError {
    on(caller, |caller| Ok(caller.idle()?.keep_warm()?))
}

pub(crate) fn rest<C: Calls>(caller: Option<&mut Caller<C>>) -> MaybeError {
    on(caller, |caller| {
        caller.idle()?.rest();
        Ok(())
    })
}
