//! A chain with rolling windows: replays the NASDAQ's test days row by row and asks for a class after each.
//!
//! `cargo run --release --example chain -- [models/toy_cnn.engine]`
//!
//! Runs on any machine: without a GPU the chain says why, and ONNX Runtime answers from the CPU. Needs the ONNX model and
//! the windows of `models/`; the engine, if there is one, is built by `tickrt build`.

use std::time::{Duration, Instant};

use tickrt::{ErrorKind, Normalization, Predictor, Result, SessionConfig, WindowConfig};

const CLASSES: [&str; 3] = ["uptrend", "downtrend", "range"];
const ROW: usize = 8;
const SYMBOL: u32 = 17;

fn main() -> Result<()> {
    let config = SessionConfig {
        normalizations: Some(vec![Normalization::read("models/toy_cnn.normalization.json")?]),
        windows: Some(WindowConfig::new(4000, ROW)),
        ..SessionConfig::default()
    };
    let mut chain = Predictor::builder();
    if let Some(engine) = std::env::args().nth(1) {
        chain = chain.tensorrt(engine);
    }
    let mut predictor = chain.ort_cuda("models/toy_cnn.onnx").ort_cpu("models/toy_cnn.onnx").config(config).build()?;
    println!("{} answers", predictor.active());
    for passed in predictor.passed_over() {
        println!("{} does not: {}", passed.backend, passed.reason);
    }

    let (mut counts, mut scores) = ([0; 3], [0.0_f32; 3]);
    let mut slowest = Duration::ZERO;
    for row in rows().chunks_exact(ROW) {
        predictor.push(SYMBOL, row)?;
        let ticket = match predictor.submit_window(SYMBOL) {
            Ok(ticket) => ticket,
            // The first 31 days.
            Err(error) if matches!(error.kind(), ErrorKind::WindowNotFull { .. }) => continue,
            Err(error) => return Err(error),
        };
        // ... other work ...
        let answer = predictor.wait_until(ticket, Instant::now() + Duration::from_millis(5), &mut scores)?;
        slowest = slowest.max(answer.latency());
        let class = (0..3).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap_or(0);
        counts[class] += 1;
    }
    for (class, count) in CLASSES.iter().zip(counts) {
        println!("{class:<10} {count:>5}");
    }
    println!("slowest answer {slowest:?}");
    Ok(())
}

/// The days one by one: the first window whole, then the last row of each that follows.
fn rows() -> Vec<f32> {
    let bytes = std::fs::read("models/data/nasdaq_windows.npy").expect("run it in the repository");
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let values: Vec<f32> = bytes[header..].chunks_exact(4).map(bytemuck::pod_read_unaligned).collect();
    let (first, later) = values.split_at(32 * ROW);
    first.iter().chain(later.chunks_exact(32 * ROW).flat_map(|window| &window[31 * ROW..])).copied().collect()
}
