//! The journal: what it holds is what happened, however it ends.
mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{FakeBackend, Strings};
use tempfile::TempDir;
use tickrt::backend::Health;
use tickrt::journal::{JournalConfig, JournalReader, JournaledCall, Tail};
use tickrt::{BackendKind, ErrorKind, Predictor, SessionConfig, WindowConfig};

fn config() -> SessionConfig {
    SessionConfig { depth: 2, warm_up: 0, wait_limit: Duration::from_millis(20), ..SessionConfig::default() }
}

fn chain(config: &SessionConfig) -> (Predictor, Arc<Strings>) {
    let mut tensorrt = FakeBackend::new(BackendKind::TensorRt, 100.0, 8, config).with_health(Health::Running);
    if config.windows.is_some() {
        tensorrt = tensorrt.with_rings();
    }
    let strings = Arc::clone(&tensorrt.strings);
    let cpu = FakeBackend::new(BackendKind::OrtCpu, 0.0, 8, config);
    let chain = Predictor::builder().backend(Box::new(tensorrt)).backend(Box::new(cpu)).config(config.clone());
    (chain.build().unwrap(), strings)
}

fn file() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("calls");
    (folder, path)
}

fn ask(predictor: &mut Predictor, value: f32, tag: u64) -> tickrt::Result<tickrt::Answer> {
    let mut slot = predictor.input().unwrap().tag(tag);
    slot.write(0, &[value; 8]).unwrap();
    let ticket = slot.submit().unwrap();
    predictor.wait(ticket, &mut [0.0_f32])
}

fn read(path: &Path) -> (Vec<JournaledCall>, Result<Tail, ErrorKind>) {
    let mut reader = JournalReader::open(path).unwrap();
    let mut calls = Vec::new();
    loop {
        match reader.next_call() {
            Ok(Some(call)) => calls.push(call),
            Ok(None) => return (calls, Ok(reader.tail())),
            Err(error) => return (calls, Err(error.kind())),
        }
    }
}

/// A journal of calls with the tags `0..calls`.
fn journal_of(calls: u64) -> (TempDir, PathBuf) {
    let (folder, path) = file();
    let (mut predictor, _) = chain(&config());
    let journal = predictor.journal_to(&path, &JournalConfig::default()).unwrap();
    for tag in 0..calls {
        ask(&mut predictor, tag as f32, tag).unwrap();
    }
    assert_eq!(journal.finish().unwrap().calls, calls);
    (folder, path)
}

#[test]
fn calls_are_read_as_they_were_made() {
    let (_folder, path) = file();
    let (mut predictor, _) = chain(&config());
    let journal = predictor.journal_to(&path, &JournalConfig::default()).unwrap();
    let answer = ask(&mut predictor, 2.0, 11).unwrap();
    let refused = ask(&mut predictor, f32::NAN, 12).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::NonFiniteOutput { .. }));
    let written = journal.finish().unwrap();
    assert_eq!((written.calls, written.dropped), (2, 0));
    assert_eq!(written.bytes, std::fs::metadata(&path).unwrap().len());
    let (calls, tail) = read(&path);
    assert_eq!(tail, Ok(Tail::Whole));
    let [answered, refused] = &calls[..] else { panic!("two calls: {calls:?}") };
    assert_eq!((answered.tag, answered.sequence, &*answered.backend, answered.engine), (11, 1, "tensorrt", [100; 32]));
    assert_eq!((answered.failure.as_deref(), answered.latency), (None, answer.latency()));
    assert_eq!(answered.input, bytemuck::cast_slice::<f32, u8>(&[2.0; 8]));
    assert_eq!(answered.output, 116.0_f32.to_le_bytes());
    assert_eq!((refused.tag, refused.failure.as_deref(), refused.output.len()), (12, Some("non_finite_output"), 0));
    assert_eq!(refused.input.len(), 32);
}

#[test]
fn shapes_name_the_tensors() {
    let (_folder, path) = journal_of(1);
    let reader = JournalReader::open(&path).unwrap();
    let [shape] = reader.shapes() else { panic!("one shape") };
    assert_eq!((&*shape.inputs[0].name, shape.inputs[0].bytes(), shape.outputs[0].count), ("input", 32, 1));
}

#[test]
fn window_is_kept_whole_though_only_its_newest_row_was_handed_over() {
    let (_folder, path) = file();
    let config = SessionConfig { windows: Some(WindowConfig::new(1, 2)), ..config() };
    let (mut predictor, _) = chain(&config);
    let journal = predictor.journal_to(&path, &JournalConfig::default()).unwrap();
    for row in 0..5 {
        predictor.push(0, &[row as f32, 0.5]).unwrap();
        if row >= 3 {
            let ticket = predictor.submit_window(0).unwrap();
            predictor.wait(ticket, &mut [0.0_f32]).unwrap();
        }
    }
    journal.finish().unwrap();
    let (calls, _) = read(&path);
    let windows: Vec<&[f32]> = calls.iter().map(|call| bytemuck::cast_slice(&call.input)).collect();
    assert_eq!(windows, [[0.0, 0.5, 1.0, 0.5, 2.0, 0.5, 3.0, 0.5], [1.0, 0.5, 2.0, 0.5, 3.0, 0.5, 4.0, 0.5]]);
}

#[test]
fn call_that_was_rescued_is_there_as_it_failed_and_as_it_was_answered() {
    let (_folder, path) = file();
    let (mut predictor, strings) = chain(&config());
    let journal = predictor.journal_to(&path, &JournalConfig::default()).unwrap();
    strings.hold.store(true, Ordering::SeqCst);
    ask(&mut predictor, 1.0, 5).unwrap();
    journal.finish().unwrap();
    let told: Vec<_> = read(&path).0.into_iter().map(|call| (call.tag, call.backend, call.failure)).collect();
    let missed = Some("deadline_missed".to_owned());
    assert_eq!(told, [(5, "tensorrt".to_owned(), missed), (5, "ort-cpu".to_owned(), None)]);
}

#[test]
fn successor_goes_on_with_the_journal() {
    let (_folder, path) = file();
    let (mut predictor, _) = chain(&config());
    let journal = predictor.journal_to(&path, &JournalConfig::default()).unwrap();
    ask(&mut predictor, 1.0, 1).unwrap();
    predictor.swap(chain(&config()).0).unwrap();
    ask(&mut predictor, 1.0, 2).unwrap();
    journal.finish().unwrap();
    assert_eq!(read(&path).0.iter().map(|call| call.tag).collect::<Vec<_>>(), [1, 2]);
    ask(&mut predictor, 1.0, 3).unwrap();
}

#[test]
fn file_cut_anywhere_gives_the_calls_before_the_cut() {
    let (_folder, path) = journal_of(3);
    let whole = std::fs::read(&path).unwrap();
    let record = 96 + 32 + 4 + 4;
    let header = whole.len() - 3 * record;
    for length in header..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        let (calls, tail) = read(&path);
        let (full, rest) = ((length - header) / record, (length - header) % record);
        assert_eq!(calls.len(), full, "cut after {length} bytes");
        let expected = if rest == 0 { Tail::Whole } else { Tail::Torn { bytes: rest as u64 } };
        assert_eq!(tail, Ok(expected), "cut after {length} bytes");
    }
    for length in 0..header {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert_eq!(JournalReader::open(&path).unwrap_err().kind(), ErrorKind::InvalidArgument, "{length} bytes");
    }
}

#[test]
fn bit_that_flipped_anywhere_is_seen() {
    let (_folder, path) = journal_of(3);
    let whole = std::fs::read(&path).unwrap();
    let expected = read(&path).0;
    let record = 96 + 32 + 4 + 4;
    for at in whole.len() - 3 * record..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&path, &bytes).unwrap();
        let (calls, tail) = read(&path);
        let before = 3 - (whole.len() - at).div_ceil(record);
        assert_eq!(calls, expected[..before], "byte {at}");
        assert_ne!(tail, Ok(Tail::Whole), "byte {at}");
        if before < 2 {
            // A length that reaches beyond the end looks like a torn tail.
            let length = at - (whole.len() - (3 - before) * record);
            assert!((4..8).contains(&length) || tail == Err(ErrorKind::InvalidArgument), "byte {at}: {tail:?}");
        }
    }
    for at in 0..whole.len() - 3 * record {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(JournalReader::open(&path).unwrap_err().kind(), ErrorKind::InvalidArgument, "byte {at}");
    }
}

#[test]
fn zeros_at_the_end_are_a_torn_tail() {
    let (_folder, path) = journal_of(2);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend([0; 5000]);
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(read(&path), (read(&path).0, Ok(Tail::Torn { bytes: 5000 })));
    assert_eq!(read(&path).0.len(), 2);
}

#[test]
fn file_that_is_there_is_not_written_over() {
    let (_folder, path) = journal_of(1);
    let (mut predictor, _) = chain(&config());
    let error = predictor.journal_to(&path, &JournalConfig::default()).unwrap_err();
    assert!(error.to_string().contains("never written over"), "{error}");
    let error = predictor.journal_to(path.join("x"), &JournalConfig::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(read(&path).0.len(), 1);
}
