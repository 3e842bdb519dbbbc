//! session.h: one backend, warmed up, and its ring of slots.

use std::ffi::{c_char, c_void};

use tickrt::backend::ort::OrtBackend;
use tickrt::onnx::Model;
use tickrt::{Session, SessionConfig};

use crate::argument::{Place, given, string};
use crate::calls::{self, Answer, Caller, Output, TicketParts, backend_number, on};
use crate::config::or_default;
use crate::engine::CEngine;
use crate::error::{MaybeError, c_string, discard, guard};

/// `tickrt_session`.
pub type CSession = Caller<Session>;

/// `session.h`: starts a session on an engine.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_session_new(
    engine: Option<&CEngine>,
    config: Option<&SessionConfig>,
    session: Place<'_, Box<CSession>>,
) -> MaybeError {
    guard(|| {
        let (engine, place) = (given(engine, "engine")?, given(session, "session")?);
        place.write(started(engine.engine.session(&or_default(config))?));
        Ok(())
    })
}

/// `session.h`: starts a session on ONNX Runtime's CPU provider.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tickrt_session_new_ort_cpu(
    onnx: *const c_char,
    config: Option<&SessionConfig>,
    session: Place<'_, Box<CSession>>,
) -> MaybeError {
    let start = |onnx: &str, config: &SessionConfig| {
        Session::start(Box::new(OrtBackend::cpu(&Model::read(onnx)?, config)?), config)
    };
    // SAFETY: the header's contract.
    unsafe { start_on(onnx, "onnx", config, session, start) }
}

/// `session.h`: starts a session on a resident engine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tickrt_session_new_resident(
    engine: *const c_char,
    config: Option<&SessionConfig>,
    session: Place<'_, Box<CSession>>,
) -> MaybeError {
    // SAFETY: the header's contract.
    unsafe { start_on(engine, "engine", config, session, |engine, config| Session::load_resident(engine, config)) }
}

/// What `start` makes of the file at `path`, the argument `what`.
///
/// # Safety
/// As for [`string`].
unsafe fn start_on(
    path: *const c_char,
    what: &str,
    config: Option<&SessionConfig>,
    session: Place<'_, Box<CSession>>,
    start: impl FnOnce(&str, &SessionConfig) -> tickrt::Result<Session>,
) -> MaybeError {
    guard(|| {
        // SAFETY: the caller's contract.
        let path = unsafe { string(path, what) }?;
        let (place, config) = (given(session, "session")?, or_default(config));
        place.write(started(start(path, &config)?));
        Ok(())
    })
}

/// A session in C's hands; a Rust caller of its own makes one here as well.
#[must_use]
pub fn started(session: Session) -> Box<CSession> {
    let description = c_string(session.description());
    let mut caller = Caller::new(session);
    caller.texts.push(description);
    caller
}

/// `session.h`: frees it.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_session_free(session: Option<Box<CSession>>) {
    discard(session);
}

/// `session.h`: lends a slot.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_session_input(session: Option<&mut CSession>, shape: usize) -> MaybeError {
    calls::input(session, shape)
}

/// `session.h`: writes elements of the first input.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tickrt_session_write(
    session: Option<&mut CSession>,
    offset: usize,
    data: *const c_void,
    count: usize,
    data_type: i32,
) -> MaybeError {
    // SAFETY: the header's contract.
    unsafe { calls::write(session, offset, data, count, data_type) }
}

/// `session.h`: writes elements of a named input.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tickrt_session_write_named(
    session: Option<&mut CSession>,
    name: *const c_char,
    offset: usize,
    data: *const c_void,
    count: usize,
    data_type: i32,
) -> MaybeError {
    // SAFETY: the header's contract.
    unsafe { calls::write_named(session, name, offset, data, count, data_type) }
}

/// `session.h`: starts the call.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_session_submit(
    session: Option<&mut CSession>,
    tag: u64,
    ticket: Place<'_, TicketParts>,
) -> MaybeError {
    calls::submit(session, tag, ticket)
}

/// `session.h`: gives the lent slot back.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_session_cancel(session: Option<&mut CSession>) {
    calls::cancel(session);
}

/// `session.h`: keeps the newest row of a symbol.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tickrt_session_push(
    session: Option<&mut CSession>,
    symbol: u32,
    row: *const c_void,
    count: usize,
    data_type: i32,
) -> MaybeError {
    // SAFETY: the header's contract.
    unsafe { calls::push(session, symbol, row, count, data_type) }
}

/// `session.h`: forgets a symbol's rows.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_session_reset(session: Option<&mut CSession>, symbol: u32) -> MaybeError {
    calls::reset(session, symbol)
}

/// `session.h`: the next call begins anew.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_session_reset_state(session: Option<&mut CSession>) -> MaybeError {
    on(session, |session| Ok(session.idle()?.reset_state()?))
}

/// `session.h`: a row is missing.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_session_gap(session: Option<&mut CSession>, symbol: u32) -> MaybeError {
    calls::gap(session, symbol)
}

/// `session.h`: starts a call on a symbol's window.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_session_submit_window(
    session: Option<&mut CSession>,
    symbol: u32,
    tag: u64,
    ticket: Place<'_, TicketParts>,
) -> MaybeError {
    calls::submit_window(session, symbol, tag, ticket)
}

/// `session.h`: takes the answer if it is there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tickrt_session_poll(
    session: Option<&mut CSession>,
    ticket: TicketParts,
    outputs: *const Output,
    count: usize,
    done: Place<'_, bool>,
    answer: Place<'_, Answer>,
) -> MaybeError {
    // SAFETY: the header's contract.
    unsafe { calls::poll(session, ticket, outputs, count, done, answer) }
}

/// `session.h`: waits for the answer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tickrt_session_wait(
    session: Option<&mut CSession>,
    ticket: TicketParts,
    outputs: *const Output,
    count: usize,
    answer: Place<'_, Answer>,
) -> MaybeError {
    // SAFETY: the header's contract.
    unsafe { calls::wait(session, ticket, None, outputs, count, answer) }
}

/// `session.h`: waits for the answer until a deadline.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tickrt_session_wait_until(
    session: Option<&mut CSession>,
    ticket: TicketParts,
    deadline_ns: u64,
    outputs: *const Output,
    count: usize,
    answer: Place<'_, Answer>,
) -> MaybeError {
    // SAFETY: the header's contract.
    unsafe { calls::wait(session, ticket, Some(deadline_ns), outputs, count, answer) }
}

/// `session.h`: gives a call up.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_session_give_up(session: Option<&mut CSession>, ticket: TicketParts) -> MaybeError {
    calls::give_up(session, ticket)
}

/// `session.h`: keeps an idle GPU warm.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_session_keep_warm(session: Option<&mut CSession>) -> MaybeError {
    calls::keep_warm(session)
}

/// `session.h`: takes back what was launched ahead.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_session_rest(session: Option<&mut CSession>) -> MaybeError {
    calls::rest(session)
}

/// `session.h`: which backend answers.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_session_backend(session: Option<&mut CSession>, backend: Place<'_, i32>) -> MaybeError {
    on(session, |session| {
        let place = given(backend, "backend")?;
        place.write(backend_number(session.idle()?.backend()));
        Ok(())
    })
}

/// `session.h`: library, version and device.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_session_description(session: Option<&CSession>) -> *const c_char {
    session.and_then(|session| session.texts.first()).map_or(c"".as_ptr(), |text| text.as_ptr())
}
