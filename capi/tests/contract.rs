//! What error.h and the other headers promise of every function: NULL is an error, outputs are written only on success,
//! a lent slot comes first.

use std::ffi::{CStr, CString, c_void};
use std::mem::MaybeUninit;
use std::ptr::null;

use tickrt_capi::*;

const F32: i32 = 0;
const F64: i32 = 3;

/// The error's code; its message must have all of `parts`.
#[track_caller]
fn code(error: MaybeError, parts: &[&str]) -> i32 {
    let Some(error) = error else { return 0 };
    // SAFETY: the message lives as long as the error.
    let message = unsafe { CStr::from_ptr(tickrt_error_message(Some(&error))) }.to_str().unwrap().to_owned();
    let code = tickrt_error_code(Some(&error));
    tickrt_error_free(Some(error));
    parts.iter().for_each(|part| assert!(message.contains(part), "`{part}` is not in: {message}"));
    code
}

#[track_caller]
fn fine(error: MaybeError) {
    if let Some(error) = &error {
        // SAFETY: the message lives as long as the error.
        panic!("{:?}", unsafe { CStr::from_ptr(tickrt_error_message(Some(error))) });
    }
}

fn number(name: &str) -> i32 {
    CODES.iter().find(|(known, _)| *known == name).unwrap().1
}

fn model(name: &str) -> CString {
    CString::new(format!("{}/../models/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// toy_cnn on ONNX Runtime's CPU, with windows; none where there is no ONNX Runtime.
fn session() -> Option<Box<CSession>> {
    let mut config = tickrt_config_new();
    let mut normalization = MaybeUninit::uninit();
    // SAFETY: a string that lives long enough.
    fine(unsafe { tickrt_normalization_read(model("toy_cnn.normalization.json").as_ptr(), Some(&mut normalization)) });
    // SAFETY: written, there was no error.
    let normalization = unsafe { normalization.assume_init() };
    fine(tickrt_config_add_normalization(Some(&mut config), Some(&normalization)));
    fine(tickrt_config_set_windows(Some(&mut config), 4, 8, 0));
    fine(tickrt_config_set_depth(Some(&mut config), 2));
    tickrt_normalization_free(Some(normalization));
    let mut session = MaybeUninit::uninit();
    // SAFETY: a string that lives long enough.
    let error =
        unsafe { tickrt_session_new_ort_cpu(model("toy_cnn.onnx").as_ptr(), Some(&config), Some(&mut session)) };
    tickrt_config_free(Some(config));
    if error.is_some() {
        assert!(std::env::var_os("TICKRT_REQUIRE_SDK").is_none());
        assert_eq!(code(error, &[]), number("TICKRT_ONNXRUNTIME_MISSING"));
        return None;
    }
    // SAFETY: written, there was no error.
    Some(unsafe { session.assume_init() })
}

fn submit(session: &mut CSession, input: &[f32]) -> TicketParts {
    fine(tickrt_session_input(Some(session), 0));
    // SAFETY: as many elements as are said.
    fine(unsafe { tickrt_session_write(Some(session), 0, input.as_ptr().cast(), input.len(), F32) });
    let mut ticket = MaybeUninit::uninit();
    fine(tickrt_session_submit(Some(session), 7, Some(&mut ticket)));
    // SAFETY: written, there was no error.
    unsafe { ticket.assume_init() }
}

#[test]
fn null_is_an_error_and_freeing_it_is_none() {
    let invalid = number("TICKRT_INVALID_ARGUMENT");
    // SAFETY: NULL, which is what this is about.
    unsafe {
        let mut engine = MaybeUninit::uninit();
        assert_eq!(code(tickrt_engine_load(null(), 0, Some(&mut engine)), &["`path`", "NULL"]), invalid);
        assert_eq!(code(tickrt_engine_load(c"x".as_ptr(), 0, None), &["`engine`", "NULL"]), invalid);
        assert_eq!(code(tickrt_session_push(None, 0, null(), 0, F32), &["NULL"]), invalid);
        let mut session = MaybeUninit::uninit();
        let resident = tickrt_session_new_resident(null(), None, Some(&mut session));
        assert_eq!(code(resident, &["`engine`", "NULL"]), invalid);
        let resident = tickrt_session_new_resident(c"none.resident".as_ptr(), None, Some(&mut session));
        assert_eq!(code(resident, &["none.resident"]), number("TICKRT_IO"));
        assert_eq!(code(tickrt_session_reset_state(None), &["NULL"]), invalid);
        assert_eq!(code(tickrt_builder_build(None, c"x".as_ptr(), c"y".as_ptr()), &["`builder`"]), invalid);
        assert_eq!(code(tickrt_chain_add_ort_cpu(None, c"x".as_ptr()), &["`chain`"]), invalid);
        assert_eq!(code(tickrt_chain_add_resident(None, c"x".as_ptr()), &["`chain`"]), invalid);
    }
    assert_eq!(code(tickrt_config_set_depth(None, 4), &["`config`"]), invalid);
    assert_eq!(code(tickrt_predictor_new(None, None, None), &["`chain`"]), invalid);
    assert_eq!(code(tickrt_histogram_new(None), &["`histogram`"]), invalid);
    tickrt_engine_free(None);
    tickrt_session_free(None);
    tickrt_predictor_free(None);
    tickrt_chain_free(None);
    tickrt_config_free(None);
    tickrt_builder_free(None);
    tickrt_normalization_free(None);
    tickrt_histogram_free(None);
    tickrt_session_cancel(None);
    assert_eq!(tickrt_engine_tensor_count(None), 0);
}

#[test]
fn session_without_state_says_so_when_it_is_to_be_reset() {
    let Some(mut session) = session() else { return };
    let error = tickrt_session_reset_state(Some(&mut session));
    assert_eq!(code(error, &["--semantics stateful"]), number("TICKRT_INVALID_ARGUMENT"));
    tickrt_session_free(Some(session));
}

#[test]
fn number_outside_an_enum_is_an_error_that_names_it() {
    let mut config = tickrt_config_new();
    let invalid = number("TICKRT_INVALID_ARGUMENT");
    assert_eq!(code(tickrt_config_set_wait_strategy(Some(&mut config), 9), &["tickrt_wait_strategy", "9"]), invalid);
    assert_eq!(code(tickrt_config_set_windows(Some(&mut config), 1, 1, -1), &["tickrt_gap_policy", "-1"]), invalid);
    let mut normalization = MaybeUninit::uninit();
    // SAFETY: a string that lives long enough.
    let made = unsafe { tickrt_normalization_new(c"input".as_ptr(), 77, Some(&mut normalization)) };
    assert_eq!(code(made, &["tickrt_type", "77"]), invalid);
    tickrt_config_free(Some(config));
}

#[test]
fn chain_without_a_backend_tells_every_reason() {
    let mut chain = tickrt_chain_new();
    // SAFETY: a string that lives long enough.
    fine(unsafe { tickrt_chain_add_ort_cpu(Some(&mut chain), c"/nowhere.onnx".as_ptr()) });
    let mut predictor = MaybeUninit::uninit();
    let error = tickrt_predictor_new(Some(chain), None, Some(&mut predictor));
    assert_eq!(code(error, &["ort-cpu", "/nowhere.onnx"]), number("TICKRT_NO_BACKEND"));
}

#[test]
fn chain_with_a_resident_engine_that_is_not_there_tells_where_it_looked() {
    let start = |config: Option<&tickrt::SessionConfig>| {
        let mut chain = tickrt_chain_new();
        // SAFETY: a string that lives long enough.
        fine(unsafe { tickrt_chain_add_resident(Some(&mut chain), c"/nowhere.resident".as_ptr()) });
        let mut predictor = MaybeUninit::uninit();
        code(tickrt_predictor_new(Some(chain), config, Some(&mut predictor)), &["/nowhere.resident"])
    };
    // As of a plan: without its sidecar nobody knows the normalisation.
    assert_eq!(start(None), number("TICKRT_INVALID_ARGUMENT"));
    let mut config = tickrt_config_new();
    fine(tickrt_config_set_no_normalization(Some(&mut config)));
    assert_eq!(start(Some(&config)), number("TICKRT_NO_BACKEND"));
    tickrt_config_free(Some(config));
}

#[test]
fn slot_that_is_lent_comes_first() {
    let Some(mut session) = session() else { return };
    let input = [1.0_f32; 256];
    let (ticket, invalid) = (submit(&mut session, &input), number("TICKRT_INVALID_ARGUMENT"));
    fine(tickrt_session_input(Some(&mut session), 0));
    assert_eq!(code(tickrt_session_input(Some(&mut session), 0), &["lent"]), invalid);
    assert_eq!(code(tickrt_session_give_up(Some(&mut session), ticket), &["lent"]), invalid);
    tickrt_session_cancel(Some(&mut session));
    // SAFETY: as many elements as are said.
    let write = unsafe { tickrt_session_write(Some(&mut session), 0, input.as_ptr().cast(), 256, F32) };
    assert_eq!(code(write, &["call input first"]), invalid);
    let mut none = MaybeUninit::uninit();
    assert_eq!(code(tickrt_session_submit(Some(&mut session), 0, Some(&mut none)), &["call input first"]), invalid);
    // Submitted without a place for the ticket, the slot is lent no longer.
    fine(tickrt_session_input(Some(&mut session), 0));
    assert_eq!(code(tickrt_session_submit(Some(&mut session), 0, None), &["`ticket`"]), invalid);
    fine(tickrt_session_give_up(Some(&mut session), ticket));
    // With a slot lent, freeing lets go of both.
    fine(tickrt_session_input(Some(&mut session), 0));
    tickrt_session_free(Some(session));
}

#[test]
fn outputs_are_written_all_or_none() {
    use tickrt::DataType;
    let Some(mut session) = session() else { return };
    let ticket = submit(&mut session, &[1.0; 256]);
    let mut scores = [-1.0_f32; 3];
    let (room, mut answer) = (&raw mut scores, MaybeUninit::<Answer>::uninit());
    let mut wait = |outputs: &[Output]| {
        // SAFETY: as many outputs as are said, with room for their elements.
        unsafe { tickrt_session_wait(Some(&mut session), ticket, outputs.as_ptr(), outputs.len(), Some(&mut answer)) }
    };
    let place = |index, data: *mut c_void, count, data_type| Output::new(index, data, count, data_type);
    let first = || place(0, room.cast(), 3, DataType::F32);
    for (second, expected) in [
        (place(0, room.cast(), 3, DataType::I32), "TICKRT_WRONG_TYPE"),
        (place(0, room.cast(), 2, DataType::F32), "TICKRT_WRONG_LENGTH"),
        (place(1, room.cast(), 3, DataType::F32), "TICKRT_UNKNOWN_TENSOR"),
        (place(0, std::ptr::null_mut(), 3, DataType::F32), "TICKRT_INVALID_ARGUMENT"),
        (place(0, room.wrapping_byte_add(1).cast(), 3, DataType::F32), "TICKRT_INVALID_ARGUMENT"),
    ] {
        assert_eq!(code(wait(&[first(), second]), &[]), number(expected), "{expected}");
        // SAFETY: `scores`, which nobody borrows.
        assert_eq!(unsafe { room.read() }, [-1.0; 3], "not a word written: {expected}");
    }
    fine(wait(&[first(), first()]));
    // SAFETY: written, there was no error.
    let (answer, scores) = unsafe { (answer.assume_init(), room.read()) };
    assert_eq!((answer.tag, answer.sequence > 0, answer.backend), (7, true, 2));
    assert!(answer.submitted_ns <= answer.done_ns && answer.done_ns <= tickrt_now_ns() + 1000);
    assert!(scores.iter().all(|score| score.is_finite()) && scores != [-1.0; 3], "{scores:?}");
    tickrt_session_free(Some(session));
}

#[test]
fn wrong_type_and_full_ring_are_codes_to_switch_on() {
    let Some(mut session) = session() else { return };
    fine(tickrt_session_input(Some(&mut session), 0));
    // SAFETY: as many elements as are said.
    let write = unsafe { tickrt_session_write(Some(&mut session), 0, [0.0_f64; 4].as_ptr().cast(), 4, F64) };
    assert_eq!(code(write, &["expected f32, got f64"]), number("TICKRT_WRONG_TYPE"));
    tickrt_session_cancel(Some(&mut session));
    let _tickets = [submit(&mut session, &[0.0; 256]), submit(&mut session, &[0.0; 256])];
    assert_eq!(code(tickrt_session_input(Some(&mut session), 0), &["all 2 slots"]), number("TICKRT_FULL"));
    let mut ticket = MaybeUninit::uninit();
    let window = tickrt_session_submit_window(Some(&mut session), 1, 0, Some(&mut ticket));
    assert_eq!(code(window, &["expected 32 rows, got 0"]), number("TICKRT_WINDOW_NOT_FULL"));
    tickrt_session_free(Some(session));
}

#[test]
fn histogram_tells_its_tail() {
    let mut made = MaybeUninit::uninit();
    fine(tickrt_histogram_new(Some(&mut made)));
    // SAFETY: written, there was no error.
    let mut histogram = unsafe { made.assume_init() };
    (1..=1000).for_each(|us| tickrt_histogram_record_ns(Some(&mut histogram), us * 1000));
    let mut p99 = MaybeUninit::uninit();
    fine(tickrt_histogram_quantile_ns(Some(&histogram), 0.99, Some(&mut p99)));
    // SAFETY: written, there was no error.
    let p99 = unsafe { p99.assume_init() };
    assert!((989_000..=992_000).contains(&p99), "{p99}");
    assert_eq!(tickrt_histogram_count(Some(&histogram)), 1000);
    let refused = tickrt_histogram_quantile_ns(Some(&histogram), 1.5, None);
    assert_eq!(code(refused, &["`latency_ns`"]), number("TICKRT_INVALID_ARGUMENT"));
    let one: *mut CHistogram = &raw mut *histogram;
    // SAFETY: a histogram, which is refused before it is touched.
    let itself = unsafe { tickrt_histogram_add(one, one) };
    assert_eq!(code(itself, &["another histogram"]), number("TICKRT_INVALID_ARGUMENT"));
    assert_eq!(tickrt_histogram_count(Some(&histogram)), 1000);
    tickrt_histogram_free(Some(histogram));
}
