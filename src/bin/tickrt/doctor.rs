//! `tickrt doctor`: looks at the machine, the libraries and the files, and says what to change. Reads only.

mod files;
mod finding;
mod gpu;
mod host;
mod jitter;
mod launch;
mod libraries;
mod root;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use self::finding::Verdict;
use self::root::Root;
use crate::bench;
use crate::exit::{Failure, Outcome};

const EXAMPLE: &str = "\
Example:
  tickrt doctor
  tickrt doctor --engine models/toy_cnn.engine --onnx models/toy_cnn.onnx
  tickrt doctor --json --duration 0

Verdicts: ok; tune (it works, and would be faster or steadier); wrong (it does not work); unknown (this machine does not \
tell). A setting that is `tune` on a shared or virtual machine may be out of your hands. Changes nothing. Ends with 1 if \
something is wrong.";

/// Look at this machine, and say why tickrt is slow or does not work, with a fix for each finding
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// An engine: does it fit this machine?
    #[arg(long, visible_alias = "loadEngine", value_name = "FILE")]
    engine: Option<PathBuf>,
    /// A model: can it be read?
    #[arg(long, value_name = "FILE")]
    onnx: Option<PathBuf>,
    /// How long to measure jitter and, with a GPU, the latency of calls: seconds; 0 measures nothing
    #[arg(long, value_name = "TIME", default_value = "5", value_parser = duration)]
    duration: Duration,
    /// What to compare with: the folder that holds a folder of .jsonl records for each GPU
    #[arg(long, value_name = "DIR", default_value = "benches/record")]
    records: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Which GPU, in CUDA's order
    #[arg(long, value_name = "N", default_value_t = 0)]
    device: usize,
}

fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" { Ok(Duration::ZERO) } else { bench::duration(text) }
}

/// Runs it.
pub fn main(args: &Args) -> Outcome {
    let root = Root::of_this_machine();
    let mut findings = host::look(&root);
    if tickrt::Device::driver_version().is_some() {
        // A sandbox may lend the GPU and hide the files that tell of it: the row of CUDA then says what there is.
        findings.retain(|finding| !(finding.what == "driver" && finding.seen.starts_with("none")));
    }
    findings.extend(gpu::look(args.device));
    findings.extend(libraries::look(args.device));
    findings.extend(files::look(args.engine.as_deref(), args.onnx.as_deref(), args.device));
    if !args.duration.is_zero() {
        // Each has half of the time where both can be measured.
        let share = if tickrt::Device::count().is_ok() { args.duration / 2 } else { args.duration };
        findings.push(jitter::finding(&jitter::measure(share)));
        findings.push(launch::look(args.engine.as_deref(), args.device, share, &args.records));
    }
    let wrong: Vec<&str> =
        findings.iter().filter(|finding| finding.verdict == Verdict::Wrong).map(|finding| finding.what).collect();
    if args.json {
        println!("{:#}", json!({ "wrong": wrong.len(), "findings": findings }));
    } else {
        finding::print(&findings);
    }
    if wrong.is_empty() { Ok(()) } else { Err(Failure::check(format!("wrong here: {}", wrong.join(", ")))) }
}
