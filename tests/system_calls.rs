//! The hot path makes no system call: a thread's calls are counted by a seccomp filter that asks a supervisor about each.
//! (`Instant::now` makes none where the kernel lends its clock to the process, as Linux does on x86-64.)
mod common;
#[allow(dead_code)]
#[path = "common/engines.rs"]
mod engines;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

use common::{FakeBackend, model, npy};
use tickrt::journal::JournalConfig;
use tickrt::{BackendKind, Engine, Session, SessionConfig, WaitStrategy, WindowConfig};

/// Runs `work` on a thread of its own: how often it made which system call. `None`, and a word about it, where the kernel
/// lends no such filter.
fn counted(work: impl FnOnce() + Send + 'static) -> Option<BTreeMap<i32, u64>> {
    const NONE: i32 = -1;
    const REFUSED: i32 = -2;
    let (listener, done) = (Arc::new(AtomicI32::new(NONE)), Arc::new(AtomicBool::new(false)));
    let worker = std::thread::spawn({
        let (listener, done) = (Arc::clone(&listener), Arc::clone(&done));
        move || {
            // From here on each call waits for the supervisor, which must know of the filter first: by memory alone.
            listener.store(install().unwrap_or(REFUSED), Ordering::SeqCst);
            if listener.load(Ordering::SeqCst) == REFUSED {
                return;
            }
            work();
            done.store(true, Ordering::SeqCst);
        }
    });
    while listener.load(Ordering::SeqCst) == NONE {
        std::thread::yield_now();
    }
    let descriptor = listener.load(Ordering::SeqCst);
    let counts = (descriptor != REFUSED).then(|| supervise(descriptor, &done));
    worker.join().unwrap();
    if counts.is_none() {
        assert!(std::env::var_os("TICKRT_REQUIRE_SDK").is_none(), "this kernel lends no seccomp filter");
        eprintln!("skipped: this kernel lends no seccomp filter");
    }
    counts
}

/// A filter on the calling thread that notifies of every system call.
fn install() -> Option<i32> {
    let mut program = [libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: libc::SECCOMP_RET_USER_NOTIF,
    }];
    let filter = libc::sock_fprog { len: 1, filter: program.as_mut_ptr() };
    // SAFETY: the program lives until the call returns; the kernel copies it.
    unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            return None;
        }
        let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
        let descriptor = libc::syscall(libc::SYS_seccomp, mode, flags, &raw const filter);
        i32::try_from(descriptor).ok().filter(|&descriptor| descriptor >= 0)
    }
}

/// Lets every call pass until the thread is gone; counts those before `done`.
fn supervise(listener: i32, done: &AtomicBool) -> BTreeMap<i32, u64> {
    let mut counts = BTreeMap::new();
    loop {
        let mut poll = libc::pollfd { fd: listener, events: libc::POLLIN, revents: 0 };
        // SAFETY: one descriptor; the structures are the kernel's, plain numbers.
        unsafe {
            libc::poll(&raw mut poll, 1, 10_000);
            if poll.revents & libc::POLLIN == 0 {
                libc::close(listener);
                assert!(poll.revents & libc::POLLHUP != 0, "the thread hangs");
                return counts;
            }
            let mut notice: libc::seccomp_notif = std::mem::zeroed();
            if libc::ioctl(listener, libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut notice) != 0 {
                continue;
            }
            if !done.load(Ordering::SeqCst) {
                *counts.entry(notice.data.nr).or_insert(0) += 1;
            }
            let mut answer: libc::seccomp_notif_resp = std::mem::zeroed();
            answer.id = notice.id;
            answer.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
            libc::ioctl(listener, libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer);
        }
    }
}

/// Everything that a thread does after start.
fn hot_path(session: &mut Session, data: &[f32], output: &mut [f32], calls: usize) {
    let (elements, rows) = (session.signature().shapes[0].inputs[0].count(), session.window_rows().unwrap());
    for (call, window) in data.chunks_exact(elements).take(calls).enumerate() {
        session.infer(window, output).unwrap();
        session.push(1, &window[..8]).unwrap();
        let mut slot = session.input().unwrap().tag(call as u64);
        slot.write(0, window).unwrap();
        let ticket = slot.submit().unwrap();
        while session.poll(ticket, output).unwrap().is_none() {}
        if call >= rows {
            let ticket = session.submit_window(1).unwrap();
            session.wait_until(ticket, Instant::now() + Duration::from_secs(1), output).unwrap();
        }
        session.keep_warm().unwrap();
        // Errors, too.
        assert!(session.input().unwrap().write(1, window).is_err());
        assert!(session.wait(ticket, output).is_err());
    }
    session.rest();
}

#[test]
fn counter_counts() {
    let counts = counted(|| {
        for _ in 0..3 {
            // SAFETY: no arguments.
            unsafe { libc::syscall(libc::SYS_getppid) };
        }
    });
    let Some(counts) = counts else { return };
    assert_eq!(counts, BTreeMap::from([(libc::SYS_getppid as i32, 3)]));
}

#[test]
fn session_makes_no_system_call() {
    let data = npy::<f32>(model("data/nasdaq_windows.npy")).0;
    for in_band in [true, false] {
        for wait_strategy in [WaitStrategy::Spin, WaitStrategy::SpinPause] {
            let config =
                SessionConfig { windows: Some(WindowConfig::new(4, 8)), wait_strategy, ..SessionConfig::default() };
            let backend = FakeBackend::new(BackendKind::Custom, 0.0, 64, &config);
            let backend = if in_band { backend.in_band() } else { backend };
            let mut session = Session::start(Box::new(backend), &config).unwrap();
            session.counters();
            let folder = tempfile::tempdir().unwrap();
            let journal = session.journal_to(folder.path().join("calls"), &JournalConfig::default()).unwrap();
            let data = data.clone();
            let Some(counts) = counted(move || hot_path(&mut session, &data, &mut [0.0], 200)) else { return };
            assert!(counts.is_empty(), "in band {in_band}, {wait_strategy:?}: system calls by number {counts:?}");
            let written = journal.finish().unwrap();
            assert!(written.calls > 500 && written.dropped == 0, "{written:?}");
        }
    }
}

#[cfg(feature = "metrics")]
#[test]
fn predictor_that_is_scraped_makes_no_system_call() {
    use std::io::{Read, Write};
    let config = SessionConfig { warm_up: 0, ..SessionConfig::default() };
    let backend = FakeBackend::new(BackendKind::TensorRt, 1.0, 8, &config);
    let mut predictor = tickrt::Predictor::builder().backend(Box::new(backend)).config(config).build().unwrap();
    let known = tickrt::KnownAnswer::new(&[1.0_f32; 8], &[9.0], [1e-3, 0.0]).every(Duration::ZERO);
    predictor.set_known_answer(Some(known)).unwrap();
    let watched = vec![("one".to_owned(), predictor.counters())];
    let metrics = tickrt::Metrics::serve("127.0.0.1:0", watched, 0).unwrap();
    let (address, done) = (metrics.address(), Arc::new(AtomicBool::new(false)));
    let scraper = std::thread::spawn({
        let done = Arc::clone(&done);
        move || {
            let mut scrapes = 0;
            while scrapes == 0 || !done.load(Ordering::SeqCst) {
                let mut stream = std::net::TcpStream::connect(address).unwrap();
                stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
                let mut text = String::new();
                stream.read_to_string(&mut text).unwrap();
                assert!(text.ends_with("# EOF\n"), "{text}");
                scrapes += 1;
            }
        }
    });
    let counts = counted(move || {
        for _ in 0..20_000 {
            predictor.infer(&[1.0_f32; 8], &mut [0.0_f32]).unwrap();
            predictor.ask_known_answer().unwrap();
        }
    });
    done.store(true, Ordering::SeqCst);
    scraper.join().unwrap();
    let Some(counts) = counts else { return };
    assert!(counts.is_empty(), "system calls by number {counts:?}");
}

/// What libcuda does inside a launch is its own; it is told here. Beside other users of the GPU it yields now and then
/// (110 times in 3000 launches on an H100 that a dozen processes shared); it must not come to a call a launch.
#[test]
fn session_on_tensorrt_makes_no_system_call_a_call() {
    if common::tensorrt().is_none() {
        return;
    }
    const CALLS: usize = 1000;
    let data = npy::<f32>(model("data/nasdaq_windows.npy")).0;
    let engine = Engine::load(engines::plan("toy_cnn")).unwrap();
    for launch_ahead in [None, Some(Duration::from_millis(20))] {
        let windows = Some(WindowConfig::new(4, 8));
        let config = SessionConfig { windows, launch_ahead, ..SessionConfig::default() };
        let mut session = engine.session(&config).unwrap();
        let data = data.clone();
        let Some(counts) = counted(move || hot_path(&mut session, &data, &mut [0.0; 3], CALLS)) else { return };
        println!("{CALLS} rounds of three calls, launched ahead: {launch_ahead:?}; system calls by number: {counts:?}");
        let all: u64 = counts.values().sum();
        assert!(all < CALLS as u64, "{counts:?}");
    }
}
