//! Loads a plan, sends it the same kind of call again and again, and prints how long that takes, host to host.
//!
//! `cargo run --release --example latency -- models/mlp.engine [CALLS]`

use std::time::Instant;

use tickrt::{Engine, SessionConfig};

fn main() -> tickrt::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap_or_else(|| "models/mlp.engine".into());
    let calls = arguments.next().and_then(|calls| calls.parse().ok()).unwrap_or(50_000);

    let engine = Engine::load(&path)?;
    let mut session = engine.session(&SessionConfig { normalizations: Some(vec![]), ..SessionConfig::default() })?;
    let shape = session.signature().shapes[0].clone();
    let mut input = vec![0.0_f32; shape.inputs[0].count()];
    let mut output = vec![0.0_f32; shape.outputs[0].count];
    let mut times = Vec::with_capacity(calls);
    for call in 0..calls {
        let place = call % input.len();
        let started = Instant::now();
        input[place] += 0.01;
        session.infer(&input, &mut output)?;
        times.push(started.elapsed().as_nanos() as f64 / 1000.0);
    }
    times.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "{path}: {} layers, p50 {:.1} p95 {:.1} p99 {:.1} p99.9 {:.1} max {:.1} us over {calls} calls, graph {}, {:.1} MiB",
        engine.layer_count(),
        at(0.5),
        at(0.95),
        at(0.99),
        at(0.999),
        at(1.0),
        session.is_graph(),
        session.device_memory() as f64 / f64::from(1 << 20),
    );
    Ok(())
}
