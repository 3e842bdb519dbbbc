//! What a scrape costs the calls: the same calls in turns, uncounted, counted, and counted while a client scrapes all the
//! time, with the far tail of each.
//!
//! `cargo run --release --example scrapes -- [SECONDS_EACH] [models/toy_cnn.engine]`
//!
//! Without an engine, or without a GPU, ONNX Runtime answers from the CPU. The calling thread is pinned to the last core that
//! it may use; a machine on which others compute shows their tail and not this one's.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tickrt::stats::Latencies;
use tickrt::{Metrics, Normalization, Predictor, Result, SessionConfig};

/// Each kind of call this many times, in turns, so that what drifts is no difference.
const TURNS: u32 = 10;
/// Prometheus scrapes every 15 s by default; this is to be seen in seconds.
const PAUSE: Duration = Duration::from_millis(10);

fn main() -> Result<()> {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(5.0);
    // Before the pin: what is started now stays where it likes.
    let (mut plain, mut counted) = (predictor()?, predictor()?);
    let metrics = Metrics::serve("127.0.0.1:0", vec![("counted".to_owned(), counted.counters())], 0)?;
    let scraper = Scraper::start(metrics.address());
    if let Some(&core) = tickrt::thread::allowed_cores().last() {
        tickrt::thread::pin(core)?;
    }
    println!("{} answers; {PAUSE:?} between scrapes", plain.active());

    let mut seen = [Latencies::new(), Latencies::new(), Latencies::new()];
    let turn = Duration::from_secs_f64(seconds / f64::from(TURNS));
    for _ in 0..TURNS {
        call_for(turn, &mut plain, &mut seen[0])?;
        call_for(turn, &mut counted, &mut seen[1])?;
        scraper.go.store(true, Ordering::Relaxed);
        call_for(turn, &mut counted, &mut seen[2])?;
        scraper.go.store(false, Ordering::Relaxed);
    }
    println!("{:>24} {:>9} {:>8} {:>8} {:>8} {:>9} {:>9}", "µs", "calls", "p50", "p99", "p99.9", "p99.999", "max");
    for (name, latencies) in ["uncounted", "counted", "counted and scraped"].iter().zip(&seen) {
        let [p50, p99, p999, p99999] = [0.5, 0.99, 0.999, 0.99999].map(|share| latencies.quantile_us(share));
        let (calls, max) = (latencies.calls(), latencies.max_us());
        println!("{name:>24} {calls:>9} {p50:>8.2} {p99:>8.2} {p999:>8.2} {p99999:>9.2} {max:>9.2}");
    }
    println!("{} scrapes of {} bytes", scraper.scrapes.load(Ordering::Relaxed), scraper.bytes.load(Ordering::Relaxed));
    Ok(())
}

fn predictor() -> Result<Predictor> {
    let normalization = Normalization::read("models/toy_cnn.normalization.json")?;
    let config = SessionConfig { normalizations: Some(vec![normalization]), ..SessionConfig::default() };
    let chain = Predictor::builder().config(config);
    let chain = match std::env::args().nth(2) {
        Some(engine) => chain.tensorrt(engine),
        None => chain,
    };
    chain.ort_cpu("models/toy_cnn.onnx").build()
}

fn call_for(duration: Duration, predictor: &mut Predictor, latencies: &mut Latencies) -> Result<()> {
    let (input, mut output) = ([0.5_f32; 256], [0.0_f32; 3]);
    let end = Instant::now() + duration;
    loop {
        let started = Instant::now();
        if started >= end {
            return Ok(());
        }
        predictor.infer(&input, &mut output)?;
        latencies.record(started.elapsed());
    }
}

/// A client on a thread of its own.
struct Scraper {
    go: Arc<AtomicBool>,
    scrapes: Arc<AtomicU64>,
    /// Of the last scrape.
    bytes: Arc<AtomicU64>,
}

impl Scraper {
    fn start(address: SocketAddr) -> Self {
        let scraper = Self { go: Arc::default(), scrapes: Arc::default(), bytes: Arc::default() };
        let (go, scrapes, bytes) = (scraper.go.clone(), scraper.scrapes.clone(), scraper.bytes.clone());
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(PAUSE);
                if go.load(Ordering::Relaxed)
                    && let Ok(count) = scrape(address)
                {
                    scrapes.fetch_add(1, Ordering::Relaxed);
                    bytes.store(count, Ordering::Relaxed);
                }
            }
        });
        scraper
    }
}

fn scrape(address: SocketAddr) -> std::io::Result<u64> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).map(|count| count as u64)
}
