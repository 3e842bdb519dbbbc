//! After start a session allocates nothing: counted by an allocator of our own, on the calling thread.
mod common;
#[path = "common/engines.rs"]
mod engines;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

use common::{model, normalization, npy};
use tickrt::journal::JournalConfig;
use tickrt::{Engine, ErrorKind, Session, SessionConfig, WindowConfig};

struct Counting;

thread_local! { static ALLOCATIONS: Cell<usize> = const { Cell::new(0) }; }

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // During thread teardown there is no counter any more, and nothing to count.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

fn config() -> SessionConfig {
    SessionConfig {
        normalizations: Some(vec![normalization("toy_cnn")]),
        windows: Some(WindowConfig::new(4, 8)),
        ..SessionConfig::default()
    }
}

fn check(session: &mut Session) {
    let data = npy::<f32>(model("data/nasdaq_windows.npy")).0;
    let mut out = [0.0_f32; 3];
    let mut spoilt = data[..256].to_vec();
    spoilt[0] = f32::NAN;
    session.counters();
    let folder = tempfile::tempdir().unwrap();
    let journal = session.journal_to(folder.path().join("calls"), &JournalConfig::default()).unwrap();
    let count = allocations(|| {
        for window in data.chunks_exact(256).take(500) {
            session.infer(window, &mut out).unwrap();
        }
        for row in data.chunks_exact(8).take(500) {
            session.push(1, row).unwrap();
            match session.submit_window(1) {
                Ok(ticket) => {
                    let deadline = Instant::now() + Duration::from_secs(1);
                    session.wait_until(ticket, deadline, &mut out).unwrap();
                }
                // Errors of the data plane, too.
                Err(error) => assert!(matches!(error.kind(), ErrorKind::WindowNotFull { .. })),
            }
        }
        assert!(session.infer(&spoilt, &mut out).is_err());
        assert!(session.infer(&data[..255], &mut out).is_err());
        assert!(session.submit_window(9).is_err());
        while let Ok(mut slot) = session.input() {
            slot.write(0, &data[..256]).unwrap();
            slot.submit().unwrap();
        }
    });
    assert_eq!(count, 0, "{} allocated", session.description());
    let written = journal.finish().unwrap();
    assert!(written.calls > 900 && written.dropped == 0, "{written:?}");
    // The counter counts.
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}

#[test]
fn session_on_onnx_runtime_allocates_nothing_of_ours() {
    check(&mut engines::reference("toy_cnn", &config()));
}

#[test]
fn session_on_tensorrt_allocates_nothing() {
    if common::tensorrt().is_none() {
        return;
    }
    let engine = Engine::load(engines::plan("toy_cnn")).unwrap();
    check(&mut engine.session(&config()).unwrap());
    let launch_ahead = Some(Duration::from_millis(20));
    check(&mut engine.session(&SessionConfig { launch_ahead, ..config() }).unwrap());
}
