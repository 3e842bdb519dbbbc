//! predictor.h: the chain TensorRT, ONNX Runtime CUDA, ONNX Runtime CPU.

use std::ffi::{c_char, c_void};

use tickrt::{Predictor, PredictorBuilder, SessionConfig};

use crate::argument::{Place, given, invalid, string};
use crate::calls::{self, Answer, Caller, Output, TicketParts, backend_number, on};
use crate::engine::CEngine;
use crate::error::{MaybeError, c_string, discard, guard};

/// `tickrt_chain`: the entries, in the order in which they are tried.
#[derive(Default)]
pub struct Chain {
    builder: PredictorBuilder,
}

/// `tickrt_predictor`.
pub type CPredictor = Caller<Predictor>;

/// `predictor.h`: an empty chain.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_chain_new() -> Box<Chain> {
    Box::default()
}

/// `predictor.h`: frees it.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_chain_free(chain: Option<Box<Chain>>) {
    discard(chain);
}

/// # Safety
/// `path` is a string of C's.
unsafe fn add_path(
    chain: Option<&mut Chain>,
    path: *const c_char,
    entry: impl FnOnce(PredictorBuilder, &str) -> PredictorBuilder,
) -> MaybeError {
    guard(|| {
        // SAFETY: the caller's contract. Before the chain is taken apart: an error leaves it as it was.
        let path = unsafe { string(path, "path") }?;
        let chain = given(chain, "chain")?;
        chain.builder = entry(std::mem::take(&mut chain.builder), path);
        Ok(())
    })
}

/// `predictor.h`: adds a plan with its sidecar.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tickrt_chain_add_tensorrt(chain: Option<&mut Chain>, path: *const c_char) -> MaybeError {
    // SAFETY: the header's contract.
    unsafe { add_path(chain, path, |builder, path| builder.tensorrt(path)) }
}

/// `predictor.h`: adds a resident engine with its sidecar.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tickrt_chain_add_resident(chain: Option<&mut Chain>, path: *const c_char) -> MaybeError {
    // SAFETY: the header's contract.
    unsafe { add_path(chain, path, |builder, path| builder.resident(path)) }
}

/// `predictor.h`: adds an engine that is loaded already.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_chain_add_engine(chain: Option<&mut Chain>, engine: Option<&CEngine>) -> MaybeError {
    guard(|| {
        let (chain, engine) = (given(chain, "chain")?, given(engine, "engine")?);
        chain.builder = std::mem::take(&mut chain.builder).engine(&engine.engine);
        Ok(())
    })
}

/// `predictor.h`: adds a model on ONNX Runtime's CUDA provider.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tickrt_chain_add_ort_cuda(chain: Option<&mut Chain>, path: *const c_char) -> MaybeError {
    // SAFETY: the header's contract.
    unsafe { add_path(chain, path, |builder, path| builder.ort_cuda(path)) }
}

/// `predictor.h`: adds a model on ONNX Runtime's CPU provider.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tickrt_chain_add_ort_cpu(chain: Option<&mut Chain>, path: *const c_char) -> MaybeError {
    // SAFETY: the header's contract.
    unsafe { add_path(chain, path, |builder, path| builder.ort_cpu(path)) }
}

/// `predictor.h`: lets the entries run different ONNX models.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_chain_allow_different_models(chain: Option<&mut Chain>) -> MaybeError {
    guard(|| {
        let chain = given(chain, "chain")?;
        chain.builder = std::mem::take(&mut chain.builder).allow_different_models();
        Ok(())
    })
}

/// `predictor.h`: lets version-compatible plans run their host code.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_chain_allow_host_code(chain: Option<&mut Chain>) -> MaybeError {
    guard(|| {
        let chain = given(chain, "chain")?;
        chain.builder = std::mem::take(&mut chain.builder).allow_host_code();
        Ok(())
    })
}

/// `predictor.h`: passes over what signatures forbid.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_chain_pass_over_untrusted(chain: Option<&mut Chain>) -> MaybeError {
    guard(|| {
        let chain = given(chain, "chain")?;
        chain.builder = std::mem::take(&mut chain.builder).pass_over_untrusted();
        Ok(())
    })
}

/// `predictor.h`: starts every entry. The chain is used up, whatever comes of it.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_predictor_new(
    chain: Option<Box<Chain>>,
    config: Option<&SessionConfig>,
    predictor: Place<'_, Box<CPredictor>>,
) -> MaybeError {
    guard(|| {
        let (mut builder, place) = (given(chain, "chain")?.builder, given(predictor, "predictor")?);
        if let Some(config) = config {
            builder = builder.config(config.clone());
        }
        place.write(Caller::new(builder.build()?));
        Ok(())
    })
}

/// `predictor.h`: frees it.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_predictor_free(predictor: Option<Box<CPredictor>>) {
    discard(predictor);
}

/// `predictor.h`: lends a slot.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_predictor_input(predictor: Option<&mut CPredictor>, shape: usize) -> MaybeError {
    calls::input(predictor, shape)
}

/// `predictor.h`: writes elements of the first input.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tickrt_predictor_write(
    predictor: Option<&mut CPredictor>,
    offset: usize,
    data: *const c_void,
    count: usize,
    data_type: i32,
) -> MaybeError {
    // SAFETY: the header's contract.
    unsafe { calls::write(predictor, offset, data, count, data_type) }
}

/// `predictor.h`: writes elements of a named input.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tickrt_predictor_write_named(
    predictor: Option<&mut CPredictor>,
    name: *const c_char,
    offset: usize,
    data: *const c_void,
    count: usize,
    data_type: i32,
) -> MaybeError {
    // SAFETY: the header's contract.
    unsafe { calls::write_named(predictor, name, offset, data, count, data_type) }
}

/// `predictor.h`: starts the call.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_predictor_submit(
    predictor: Option<&mut CPredictor>,
    tag: u64,
    ticket: Place<'_, TicketParts>,
) -> MaybeError {
    calls::submit(predictor, tag, ticket)
}

/// `predictor.h`: gives the lent slot back.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_predictor_cancel(predictor: Option<&mut CPredictor>) {
    calls::cancel(predictor);
}

/// `predictor.h`: keeps the newest row of a symbol.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tickrt_predictor_push(
    predictor: Option<&mut CPredictor>,
    symbol: u32,
    row: *const c_void,
    count: usize,
    data_type: i32,
) -> MaybeError {
    // SAFETY: the header's contract.
    unsafe { calls::push(predictor, symbol, row, count, data_type) }
}

/// `predictor.h`: forgets a symbol's rows.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_predictor_reset(predictor: Option<&mut CPredictor>, symbol: u32) -> MaybeError {
    calls::reset(predictor, symbol)
}

/// `predictor.h`: a row is missing.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_predictor_gap(predictor: Option<&mut CPredictor>, symbol: u32) -> MaybeError {
    calls::gap(predictor, symbol)
}

/// `predictor.h`: starts a call on a symbol's window.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_predictor_submit_window(
    predictor: Option<&mut CPredictor>,
    symbol: u32,
    tag: u64,
    ticket: Place<'_, TicketParts>,
) -> MaybeError {
    calls::submit_window(predictor, symbol, tag, ticket)
}

/// `predictor.h`: takes the answer if it is there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tickrt_predictor_poll(
    predictor: Option<&mut CPredictor>,
    ticket: TicketParts,
    outputs: *const Output,
    count: usize,
    done: Place<'_, bool>,
    answer: Place<'_, Answer>,
) -> MaybeError {
    // SAFETY: the header's contract.
    unsafe { calls::poll(predictor, ticket, outputs, count, done, answer) }
}

/// `predictor.h`: waits for the answer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tickrt_predictor_wait(
    predictor: Option<&mut CPredictor>,
    ticket: TicketParts,
    outputs: *const Output,
    count: usize,
    answer: Place<'_, Answer>,
) -> MaybeError {
    // SAFETY: the header's contract.
    unsafe { calls::wait(predictor, ticket, None, outputs, count, answer) }
}

/// `predictor.h`: waits for the answer until a deadline.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tickrt_predictor_wait_until(
    predictor: Option<&mut CPredictor>,
    ticket: TicketParts,
    deadline_ns: u64,
    outputs: *const Output,
    count: usize,
    answer: Place<'_, Answer>,
) -> MaybeError {
    // SAFETY: the header's contract.
    unsafe { calls::wait(predictor, ticket, Some(deadline_ns), outputs, count, answer) }
}

/// `predictor.h`: gives a call up.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_predictor_give_up(predictor: Option<&mut CPredictor>, ticket: TicketParts) -> MaybeError {
    calls::give_up(predictor, ticket)
}

/// `predictor.h`: keeps an idle GPU warm.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_predictor_keep_warm(predictor: Option<&mut CPredictor>) -> MaybeError {
    calls::keep_warm(predictor)
}

/// `predictor.h`: takes back what was launched ahead.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_predictor_rest(predictor: Option<&mut CPredictor>) -> MaybeError {
    calls::rest(predictor)
}

/// `predictor.h`: which backend answers now.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_predictor_active(predictor: Option<&mut CPredictor>, backend: Place<'_, i32>) -> MaybeError {
    on(predictor, |predictor| {
        let place = given(backend, "backend")?;
        place.write(backend_number(predictor.idle()?.active()));
        Ok(())
    })
}

/// `predictor.h`: how many backends do not answer.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_predictor_passed_over_count(
    predictor: Option<&mut CPredictor>,
    count: Place<'_, usize>,
) -> MaybeError {
    on(predictor, |predictor| {
        let place = given(count, "count")?;
        place.write(predictor.idle()?.passed_over().len());
        Ok(())
    })
}

/// `predictor.h`: a backend that does not answer, and why.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_predictor_passed_over(
    predictor: Option<&mut CPredictor>,
    index: usize,
    passed: Place<'_, PassedOver>,
) -> MaybeError {
    on(predictor, |predictor| {
        let place = given(passed, "passed")?;
        let known = predictor.texts.len();
        let all = predictor.idle()?.passed_over();
        let Some(one) = all.get(index) else {
            return Err(invalid("index", &format!("less than {}", all.len()), index.to_string()));
        };
        let (backend, restart_helps) = (backend_number(one.backend), one.restart_helps);
        // Entries are only ever added: a text that was given out stays where it is.
        let new: Vec<_> = all[known..].iter().map(|one| c_string(one.reason.to_string())).collect();
        predictor.texts.extend(new);
        place.write(PassedOver { reason: predictor.texts[index].as_ptr(), backend, restart_helps });
        Ok(())
    })
}

/// `tickrt_passed_over` in predictor.h.
#[repr(C)]
#[derive(Debug)]
pub struct PassedOver {
    reason: *const c_char,
    backend: i32,
    restart_helps: bool,
}

/// `predictor.h`: goes back to the first backend that still can.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_predictor_rearm(predictor: Option<&mut CPredictor>) -> MaybeError {
    on(predictor, |predictor| {
        predictor.idle()?.rearm()?;
        Ok(())
    })
}

/// A predictor in C's hands, for a Rust caller of its own.
#[must_use]
pub fn handed_over(predictor: Predictor) -> Box<CPredictor> {
    Caller::new(predictor)
}
