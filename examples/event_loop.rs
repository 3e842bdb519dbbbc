//! An event loop: reads ticks from a file, pushes each row into its symbol's rolling window, submits without blocking,
//! polls between other work, and acts within a deadline.
//!
//! `cargo run --release --example event_loop -- MODEL.onnx NORMALIZATION.json TICKS [ENGINE]`
//!
//! TICKS has a line a tick: the symbol's number and 8 features. With ENGINE, a plan that `tickrt build` made of the same
//! model, TensorRT answers; ONNX Runtime stands behind it. `capi/examples/` has the same in C and C++.

use std::time::{Duration, Instant};

use tickrt::{Answer, ErrorKind, Normalization, Predictor, Result, SessionConfig, Ticket, WindowConfig};

const SYMBOLS: u32 = 64;
const FEATURES: usize = 8;
const DEADLINE: Duration = Duration::from_millis(5);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, normalization, ticks, engine @ ..] = &arguments[..] else {
        eprintln!("usage: event_loop MODEL.onnx NORMALIZATION.json TICKS [ENGINE]");
        std::process::exit(2);
    };
    let config = SessionConfig {
        normalizations: Some(vec![Normalization::read(normalization)?]),
        windows: Some(WindowConfig::new(SYMBOLS, FEATURES)),
        ..SessionConfig::default()
    };
    let chain = engine.iter().fold(Predictor::builder(), |chain, engine| chain.tensorrt(engine));
    let predictor = chain.ort_cpu(model).config(config).build()?;
    for passed in predictor.passed_over() {
        eprintln!("passed over: {} ({})", passed.backend, passed.reason);
    }

    let ticks = std::fs::read_to_string(ticks).expect("the file of ticks can be read");
    let mut event_loop = EventLoop::new(predictor);
    for line in ticks.lines() {
        let mut numbers = line.split_whitespace();
        let symbol = numbers.next().and_then(|symbol| symbol.parse().ok()).expect("a tick begins with its symbol");
        let row: Vec<f32> = numbers.map(|feature| feature.parse().expect("a feature is a number")).collect();
        event_loop.on_tick(symbol, &row)?;
        // What a loop does besides comes here; the answer is looked at in between.
        event_loop.poll()?;
    }
    while event_loop.in_flight.is_some() {
        event_loop.poll()?;
    }
    let [up, down, range] = event_loop.acted;
    println!("acted {up} {down} {range} late {}", event_loop.late);
    eprintln!("slowest {:?}", event_loop.slowest);
    Ok(())
}

struct EventLoop {
    predictor: Predictor,
    in_flight: Option<(Ticket, Instant)>,
    scores: [f32; 3],
    acted: [u64; 3],
    late: u64,
    slowest: Duration,
}

impl EventLoop {
    fn new(predictor: Predictor) -> Self {
        Self { predictor, in_flight: None, scores: [0.0; 3], acted: [0; 3], late: 0, slowest: Duration::ZERO }
    }

    fn on_tick(&mut self, symbol: u32, row: &[f32]) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        self.predictor.push(symbol, row)?;
        if let Some((ticket, deadline)) = self.in_flight.take() {
            // One question at a time: the tick that came meanwhile finds the last answer first.
            self.settle(ticket, deadline)?;
        }
        match self.predictor.submit_window(symbol) {
            Ok(ticket) => self.in_flight = Some((ticket, deadline)),
            Err(error) if matches!(error.kind(), ErrorKind::WindowNotFull { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Returns at once.
    fn poll(&mut self) -> Result<()> {
        let Some((ticket, deadline)) = self.in_flight else { return Ok(()) };
        if Instant::now() >= deadline {
            self.in_flight = None;
            return self.settle(ticket, deadline);
        }
        if let Some(answer) = self.predictor.poll(ticket, &mut self.scores)? {
            self.in_flight = None;
            self.act(&answer);
        }
        Ok(())
    }

    /// Until the deadline, and no longer.
    fn settle(&mut self, ticket: Ticket, deadline: Instant) -> Result<()> {
        match self.predictor.wait_until(ticket, deadline, &mut self.scores) {
            Ok(answer) => self.act(&answer),
            Err(error) if matches!(error.kind(), ErrorKind::DeadlineMissed | ErrorKind::Unavailable) => self.late += 1,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn act(&mut self, answer: &Answer) {
        self.slowest = self.slowest.max(answer.latency());
        let best = (1..3).fold(0, |best, class| if self.scores[class] > self.scores[best] { class } else { best });
        self.acted[best] += 1;
    }
}
