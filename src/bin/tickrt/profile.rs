//! `tickrt profile`: what each layer of an engine takes.

use std::path::{Path, PathBuf};

use serde_json::json;
use tickrt::backend::tensorrt::LayerTimes;
use tickrt::{Device, Engine};

use crate::chain::ChainArgs;
use crate::exit::{Failure, Outcome};
use crate::table::{self, Table};

const EXAMPLE: &str = "\
Example:
  tickrt profile --engine models/mlp.engine --trace mlp.json

Needs the GPU that the engine was built for. Layers are timed one by one, outside of a CUDA graph: they take longer than in a
session. Build with --profilingVerbosity detailed for all that TensorRT knows of their names.
Open the trace in https://ui.perfetto.dev or chrome://tracing.";

/// Time every layer of an engine
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    #[command(flatten)]
    chain: ChainArgs,
    /// How many calls are timed
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    calls: u32,
    /// How many layers are printed, the slowest first; 0 for all
    #[arg(long, value_name = "N", default_value_t = 30)]
    top: usize,
    /// Write the first calls as a trace for Perfetto
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

/// Runs it.
pub fn main(args: &Args) -> Outcome {
    let plan = args.chain.plan()?;
    let config = args.chain.config()?;
    let engine = Engine::from_plan(&plan, args.chain.device)?;
    let layers = engine.profile_layers(&config, args.calls as usize)?;
    if let Some(file) = &args.trace {
        write(file, &layers)?;
    }
    let gpu = Device::open(args.chain.device)?.name().to_owned();
    let all: f64 = layers.iter().map(mean).sum();
    table::facts([
        ("engine", format!("{} layers, {} on {gpu}", layers.len(), engine.library_version())),
        ("calls", args.calls.to_string()),
        ("layers", format!("{all:.1} µs a call, timed one by one")),
    ]);
    print(&layers, args.top);
    if let Some(file) = &args.trace {
        println!("  trace in {}", file.display());
    }
    Ok(())
}

fn mean(layer: &LayerTimes) -> f64 {
    layer.us.iter().sum::<f64>() / layer.us.len().max(1) as f64
}

/// The slowest first.
fn by_time(layers: &[LayerTimes]) -> Vec<&LayerTimes> {
    let mut sorted: Vec<&LayerTimes> = layers.iter().collect();
    sorted.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
    sorted
}

fn print(layers: &[LayerTimes], top: usize) {
    let all: f64 = layers.iter().map(mean).sum();
    let shown = if top == 0 { layers.len() } else { top };
    let mut table = Table::new(&[">share", ">mean µs", ">min", ">max", "layer"]);
    for layer in by_time(layers).into_iter().take(shown) {
        let lowest = layer.us.iter().copied().fold(f64::INFINITY, f64::min);
        let highest = layer.us.iter().copied().fold(0.0, f64::max);
        let share = format!("{:.1} %", 100.0 * mean(layer) / all.max(f64::MIN_POSITIVE));
        table.row([
            share,
            format!("{:.2}", mean(layer)),
            format!("{lowest:.2}"),
            format!("{highest:.2}"),
            layer.name.clone(),
        ]);
    }
    table.print();
    if layers.len() > shown {
        println!("  and {} faster ones: --top 0 shows all", layers.len() - shown);
    }
}

/// Chrome's trace events, one call after the other. TensorRT tells how long a layer took and not when it began: the layers of a
/// call stand side by side without what lay between them.
fn trace(layers: &[LayerTimes]) -> serde_json::Value {
    const CALLS: usize = 50;
    let calls = layers.first().map_or(0, |layer| layer.us.len()).min(CALLS);
    let name = |kind: &str, thread: u32, name: &str| json!({"name": kind, "ph": "M", "pid": 1, "tid": thread, "args": {"name": name}});
    let mut events = vec![
        name("process_name", 0, "tickrt profile"),
        name("thread_name", 1, "calls"),
        name("thread_name", 2, "layers"),
    ];
    let mut now = 0.0;
    for call in 0..calls {
        let begin = now;
        for layer in layers {
            let us = layer.us[call];
            events
                .push(json!({"name": layer.name, "cat": "layer", "ph": "X", "pid": 1, "tid": 2, "ts": now, "dur": us}));
            now += us;
        }
        events.push(json!({"name": format!("call {call}"), "cat": "call", "ph": "X", "pid": 1, "tid": 1, "ts": begin, "dur": now - begin}));
    }
    json!({"displayTimeUnit": "ns", "traceEvents": events})
}

fn write(file: &Path, layers: &[LayerTimes]) -> Outcome {
    std::fs::write(file, trace(layers).to_string())
        .map_err(|error| Failure::usage(format!("write the trace {}: {error}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers() -> Vec<LayerTimes> {
        let layer = |name: &str, us: [f64; 2]| LayerTimes { name: name.to_owned(), us: us.into() };
        vec![layer("conv", [1.0, 2.0]), layer("softmax", [4.0, 6.0])]
    }

    #[test]
    fn slowest_layer_comes_first() {
        let layers = layers();
        let names: Vec<&str> = by_time(&layers).iter().map(|layer| layer.name.as_str()).collect();
        assert_eq!(names, ["softmax", "conv"]);
        assert_eq!(mean(&layers[1]), 5.0);
    }

    #[test]
    fn trace_has_every_layer_of_every_call_side_by_side() {
        let trace = trace(&layers());
        let events = trace["traceEvents"].as_array().unwrap();
        let times = |category: &str| {
            let of = events.iter().filter(|event| event["cat"] == category);
            of.map(|event| (event["ts"].as_f64().unwrap(), event["dur"].as_f64().unwrap())).collect::<Vec<_>>()
        };
        assert_eq!(times("layer"), [(0.0, 1.0), (1.0, 4.0), (5.0, 2.0), (7.0, 6.0)]);
        assert_eq!(times("call"), [(0.0, 5.0), (5.0, 8.0)]);
    }
}
