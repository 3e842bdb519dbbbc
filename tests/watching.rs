//! What watches a predictor beside its calls: counters, metrics over HTTP, known answers, Xids.
#![cfg(feature = "metrics")]
mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{FakeBackend, Strings};
use tickrt::backend::Health;
use tickrt::{BackendKind, Checked, ErrorKind, KnownAnswer, Metrics, Predictor, SessionConfig};

fn config() -> SessionConfig {
    SessionConfig { depth: 2, warm_up: 0, wait_limit: Duration::from_millis(20), ..SessionConfig::default() }
}

/// TensorRT that answers with 100 more, and ONNX Runtime's CPU, which answers with `cpu` more.
fn chain(cpu: f32) -> (Predictor, Arc<Strings>) {
    let tensorrt = FakeBackend::new(BackendKind::TensorRt, 100.0, 8, &config()).with_health(Health::Running);
    let strings = Arc::clone(&tensorrt.strings);
    let cpu = FakeBackend::new(BackendKind::OrtCpu, cpu, 8, &config());
    let chain = Predictor::builder().backend(Box::new(tensorrt)).backend(Box::new(cpu)).config(config());
    (chain.build().unwrap(), strings)
}

fn infer(predictor: &mut Predictor, value: f32) -> (f32, BackendKind) {
    let mut out = [0.0_f32];
    let answer = predictor.infer(&[value; 8], &mut out).unwrap();
    (out[0], answer.backend)
}

fn request(address: SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn scrape(address: SocketAddr) -> String {
    let text = request(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("Content-Type: application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    body.to_owned()
}

fn serve(predictor: &mut Predictor) -> Metrics {
    Metrics::serve("127.0.0.1:0", vec![("one".to_owned(), predictor.counters())], 0).unwrap()
}

#[test]
fn scrape_tells_calls_failures_fallbacks_and_who_answers() {
    let (mut predictor, _) = chain(0.0);
    let metrics = serve(&mut predictor);
    let has = |line: &str| {
        let body = scrape(metrics.address());
        assert!(body.contains(&format!("\n{line}\n")), "`{line}` is not in {body}");
    };
    has("tickrt_active{session=\"one\",backend=\"tensorrt\",engine=\"6464646464646464\"} 1");
    for _ in 0..3 {
        infer(&mut predictor, 1.0);
    }
    has("tickrt_call_duration_seconds_count{session=\"one\",backend=\"tensorrt\"} 3");
    predictor.infer(&[f32::NAN; 8], &mut [0.0_f32]).unwrap_err();
    has("tickrt_failures_total{session=\"one\",reason=\"non_finite_output\"} 1");
    predictor.counters().raise_xid(79);
    assert_eq!(infer(&mut predictor, 1.0), (8.0, BackendKind::OrtCpu));
    has("tickrt_fallbacks_total{session=\"one\",reason=\"xid\"} 1");
    has("tickrt_active{session=\"one\",backend=\"ort-cpu\",engine=\"0000000000000000\"} 1");
    has("tickrt_call_duration_seconds_count{session=\"one\",backend=\"ort-cpu\"} 1");
    has("tickrt_xid{session=\"one\"} 79");
}

#[test]
fn successor_goes_on_with_the_same_counts() {
    let (mut predictor, _) = chain(0.0);
    let counters = predictor.counters();
    infer(&mut predictor, 1.0);
    predictor.swap(chain(0.0).0).unwrap();
    infer(&mut predictor, 1.0);
    assert_eq!(counters.calls(), 2);
}

#[test]
fn call_that_is_rescued_is_a_failure_and_an_answer() {
    let (mut predictor, strings) = chain(0.0);
    let counters = predictor.counters();
    strings.hold.store(true, Ordering::SeqCst);
    assert_eq!(infer(&mut predictor, 1.0).1, BackendKind::OrtCpu);
    assert_eq!((counters.calls(), counters.failures()), (1, 1));
    assert_eq!(counters.active_backend(), BackendKind::OrtCpu);
}

#[test]
fn what_is_no_scrape_is_refused_and_the_next_one_is_answered() {
    let (mut predictor, _) = chain(0.0);
    let metrics = serve(&mut predictor);
    for (head, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
        ("POST /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
        ("hello\r\n\r\n", "400 Bad Request"),
    ] {
        let text = request(metrics.address(), head);
        assert!(text.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{head}: {text}");
    }
    // One that goes away in the middle, and one that says nothing.
    TcpStream::connect(metrics.address()).unwrap().write_all(b"GET /met").unwrap();
    let _silent = TcpStream::connect(metrics.address()).unwrap();
    scrape(metrics.address());
}

#[test]
fn port_in_use_and_address_that_is_none_say_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = Metrics::serve(&taken.local_addr().unwrap().to_string(), Vec::new(), 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("another program listens there"), "{error}");
    let error = Metrics::serve("9464", Vec::new(), 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("as 127.0.0.1:9464"), "{error}");
    let (mut one, _) = chain(0.0);
    let twice = vec![("a".to_owned(), one.counters()), ("a".to_owned(), one.counters())];
    assert!(Metrics::serve("127.0.0.1:0", twice, 0).unwrap_err().to_string().contains("`a` twice"));
}

#[test]
fn port_is_free_again_after_the_last_scrape() {
    let (mut predictor, _) = chain(0.0);
    let metrics = serve(&mut predictor);
    let address = metrics.address();
    scrape(address);
    drop(metrics);
    assert!(TcpStream::connect(address).is_err());
}

fn known(expected: f32) -> KnownAnswer {
    KnownAnswer::new(&[1.0_f32; 8], &[expected], [1e-3, 0.0]).every(Duration::ZERO)
}

#[test]
fn right_answer_changes_nothing_and_is_asked_when_it_is_time() {
    let (mut predictor, strings) = chain(0.0);
    assert_eq!(predictor.ask_known_answer().unwrap(), Checked::NotNow, "nothing is known");
    predictor.set_known_answer(Some(known(108.0).every(Duration::from_secs(3600)))).unwrap();
    assert_eq!(predictor.ask_known_answer().unwrap(), Checked::Right);
    assert_eq!(predictor.ask_known_answer().unwrap(), Checked::NotNow, "an hour has not passed");
    assert_eq!(strings.launches.load(Ordering::SeqCst), 1);
    assert!(predictor.passed_over().is_empty());
}

#[test]
fn wrong_answer_latches_the_fallback_until_it_is_rearmed() {
    let (mut predictor, _) = chain(0.0);
    predictor.set_known_answer(Some(known(8.0))).unwrap();
    let error = predictor.ask_known_answer().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongAnswer);
    assert!(error.to_string().contains("expected 8 in element 0, got 108"), "{error}");
    assert_eq!(infer(&mut predictor, 1.0), (8.0, BackendKind::OrtCpu));
    assert_eq!(predictor.passed_over()[0].reason.kind(), ErrorKind::WrongAnswer);
    assert_eq!(predictor.ask_known_answer().unwrap(), Checked::Right, "the CPU is asked, too");
    assert_eq!(predictor.active(), BackendKind::OrtCpu, "latched");
    assert_eq!(predictor.rearm().unwrap(), BackendKind::TensorRt);
    assert_eq!(infer(&mut predictor, 1.0).1, BackendKind::TensorRt);
    assert!(predictor.ask_known_answer().is_err(), "and is asked again");
}

#[test]
fn call_in_flight_on_a_backend_that_answers_wrongly_is_answered_by_the_next() {
    let (mut predictor, _) = chain(0.0);
    predictor.set_known_answer(Some(known(8.0))).unwrap();
    let mut slot = predictor.input().unwrap().tag(7);
    slot.write(0, &[2.0_f32; 8]).unwrap();
    let ticket = slot.submit().unwrap();
    predictor.ask_known_answer().unwrap_err();
    let mut out = [0.0_f32];
    let answer = predictor.wait(ticket, &mut out).unwrap();
    assert_eq!((out[0], answer.backend, answer.tag), (16.0, BackendKind::OrtCpu, 7));
}

#[test]
fn full_ring_puts_the_question_off() {
    let (mut predictor, _) = chain(0.0);
    predictor.set_known_answer(Some(known(108.0))).unwrap();
    let mut tickets = Vec::new();
    while let Ok(mut slot) = predictor.input() {
        slot.write(0, &[2.0_f32; 8]).unwrap();
        tickets.push(slot.submit().unwrap());
    }
    assert_eq!(predictor.ask_known_answer().unwrap(), Checked::NotNow);
    for ticket in tickets {
        predictor.wait(ticket, &mut [0.0_f32]).unwrap();
    }
    assert_eq!(predictor.ask_known_answer().unwrap(), Checked::Right);
}

#[test]
fn question_that_does_not_fit_is_refused() {
    let (mut predictor, _) = chain(0.0);
    for known in [
        KnownAnswer::new(&[1.0_f32; 7], &[1.0], [0.0; 2]),
        KnownAnswer::new(&[1.0_f64; 4], &[1.0], [0.0; 2]),
        KnownAnswer::new(&[1.0_f32; 8], &[1.0, 2.0], [0.0; 2]),
        KnownAnswer::new(&[1.0_f32; 8], &[f32::NAN], [0.0; 2]),
        KnownAnswer::new(&[1.0_f32; 8], &[1.0], [-1.0, 0.0]),
    ] {
        assert_eq!(predictor.set_known_answer(Some(known)).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}

#[test]
fn xid_quarantines_the_gpu_and_nothing_but_a_restart_brings_it_back() {
    let (mut predictor, strings) = chain(0.0);
    predictor.counters().raise_xid(79);
    assert_eq!(infer(&mut predictor, 1.0), (8.0, BackendKind::OrtCpu));
    assert!(strings.quarantined.load(Ordering::SeqCst));
    assert_eq!(predictor.rearm().unwrap_err().kind(), ErrorKind::Xid { number: 79 });
    assert_eq!(infer(&mut predictor, 2.0), (16.0, BackendKind::OrtCpu));
}
