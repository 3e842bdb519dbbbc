//! The fuzz corpus on stable: every file of fuzz/corpus, cut anywhere, altered in every way that once hurt a reader, and spliced
//! with others. No panic, and no memory out of proportion to the bytes.
#![cfg(feature = "tool")]
mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::{Path, PathBuf};

use tickrt::untrusted;

/// Bytes that a reader may have at once: so much for each byte that it reads, and so much besides. A decoded ONNX node of
/// two bytes takes some hundred.
const PER_BYTE: usize = 512;
const BESIDES: usize = 1 << 20;
/// Larger files are altered in fewer places.
const PLACES: usize = 400;

thread_local! {
    static NOW: Cell<usize> = const { Cell::new(0) };
    static MOST: Cell<usize> = const { Cell::new(0) };
}

/// Counts what this thread has.
struct Counting;

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = NOW.try_with(|now| {
            now.set(now.get().wrapping_add(layout.size()));
            let _ = MOST.try_with(|most| most.set(most.get().max(now.get())));
        });
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        let _ = NOW.try_with(|now| now.set(now.get().saturating_sub(layout.size())));
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = common::root().join("fuzz/corpus").join(target);
    let mut files: Vec<PathBuf> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} holds a file", folder.display());
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

fn feed(target: fn(&[u8]), path: &Path, bytes: &[u8]) {
    NOW.set(0);
    MOST.set(0);
    target(bytes);
    let allowed = PER_BYTE * bytes.len() + BESIDES;
    assert!(MOST.get() <= allowed, "{}: {} bytes for {}", path.display(), MOST.get(), bytes.len());
}

/// Values at which sizes and signs turn.
const EDGES: [u8; 6] = [0, 1, 0x7f, 0x80, 0xfe, 0xff];

fn run(name: &str, target: fn(&[u8])) {
    let files = corpus(name);
    for (path, bytes) in &files {
        feed(target, path, bytes);
        let step = (bytes.len() / PLACES).max(1);
        for at in (0..bytes.len()).step_by(step) {
            feed(target, path, &bytes[..at]);
            let mut altered = bytes.clone();
            for edge in EDGES {
                altered[at] = edge;
                feed(target, path, &altered);
            }
            // A length of eight bytes, the largest there is.
            let end = (at + 8).min(bytes.len());
            altered[at..end].fill(0xff);
            feed(target, path, &altered);
        }
        for (_, other) in &files {
            let spliced = [&bytes[..bytes.len() / 2], &other[other.len() / 2..]].concat();
            feed(target, path, &spliced);
        }
    }
}

#[test]
fn sidecar_altered_anyhow_never_panics() {
    run("sidecar", untrusted::sidecar);
}

#[test]
fn plan_altered_anyhow_never_panics() {
    run("plan", untrusted::plan);
}

#[test]
fn onnx_altered_anyhow_never_panics() {
    run("onnx", untrusted::onnx);
}

#[test]
fn calibration_cache_altered_anyhow_never_panics() {
    run("calibration_cache", untrusted::calibration_cache);
}

#[test]
fn calibration_key_altered_anyhow_never_panics() {
    run("calibration_key", untrusted::calibration_key);
}

#[test]
fn npy_altered_anyhow_never_panics() {
    run("npy", untrusted::npy);
}

#[test]
fn signature_altered_anyhow_never_panics() {
    run("signature", untrusted::signature);
}

#[test]
fn resident_engine_altered_anyhow_never_panics() {
    run("resident", untrusted::resident);
}
