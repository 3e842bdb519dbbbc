//! What an engine must come up to before it is deployed.

use std::path::Path;

use tickrt::stats::Record;

use super::config::{Accuracy, Latency};
use super::{failed, run, tool};
use crate::exit::{self, Failure, Outcome};

/// How a gate ended; one that was missed ends the deployment instead.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// It was held.
    Held {
        /// In words.
        measured: String,
    },
    /// This machine could not measure it, and it is optional.
    NotMeasured,
}

impl std::fmt::Display for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Held { measured } => f.write_str(measured),
            Self::NotMeasured => f.write_str("not measured"),
        }
    }
}

/// The environment lacks something, as `exit` has it. A device that fails is no such thing: the engine may be why.
const CANNOT: u8 = 3;

/// Compares the engine's answers with ONNX Runtime's on the CPU.
pub fn accuracy(gate: &Accuracy, target: &str, engine: &Path, onnx: &Path) -> Outcome<Gate> {
    println!("\n== accuracy of {target}");
    let (atol, rtol) = (gate.atol.to_string(), gate.rtol.to_string());
    let mut validate = tool()?;
    validate.arg("validate").arg("--engine").arg(engine).arg("--onnx").arg(onnx);
    validate.args(["--atol", &atol, "--rtol", &rtol]);
    if let Some(input) = &gate.input {
        validate.arg("--input").arg(input);
    }
    match run(&mut validate)? {
        0 => Ok(Gate::Held { measured: format!("answers within atol {atol}, rtol {rtol}") }),
        CANNOT => cannot(gate.optional, "accuracy", target),
        code => Err(failed(code, format!("accuracy of {target}"))),
    }
}

/// Measures the engine's calls.
pub fn latency(gate: &Latency, target: &str, engine: &Path) -> Outcome<Gate> {
    println!("\n== latency of {target}");
    let file = engine.with_extension("bench.json");
    let mut bench = tool()?;
    bench.arg("bench").arg("--engine").arg(engine).args(["--paths", "tickrt", "--duration", &gate.duration]);
    bench.arg("--json").arg(&file);
    match run(&mut bench)? {
        0 => {}
        CANNOT => {
            // Tried before anything is measured, it may be there, and empty.
            let _ = std::fs::remove_file(&file);
            return cannot(gate.optional, "latency", target);
        }
        code => return Err(failed(code, format!("latency of {target}"))),
    }
    let text =
        std::fs::read_to_string(&file).map_err(|error| Failure::usage(format!("read {}: {error}", file.display())))?;
    let records: Vec<Record> =
        serde_json::from_str(&text).map_err(|error| Failure::usage(format!("read {}: {error}", file.display())))?;
    let Some(record) = records.first() else { return cannot(gate.optional, "latency", target) };
    judge(gate, target, record.p50_us, record.p99_us)
}

fn judge(gate: &Latency, target: &str, p50_us: f64, p99_us: f64) -> Outcome<Gate> {
    if p99_us <= gate.p99_us {
        return Ok(Gate::Held { measured: format!("p50 {p50_us:.1} µs, p99 {p99_us:.1} µs") });
    }
    Err(Failure::check(format!(
        "latency of {target}: expected p99 of {} µs at most, got {p99_us:.1}; nothing was deployed",
        gate.p99_us
    )))
}

fn cannot(optional: bool, what: &str, target: &str) -> Outcome<Gate> {
    if optional {
        exit::note(format!("{what} of {target} was not measured, and is optional"));
        return Ok(Gate::NotMeasured);
    }
    Err(Failure::environment(format!(
        "{what} of {target}: this machine cannot measure it, see above; deploy where a GPU is, or say `optional = true` \
         under [{what}]; nothing was deployed"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_up_to_the_limit_is_held_and_beyond_it_missed() {
        let gate = Latency { p99_us: 50.0, duration: "1s".into(), optional: true };
        assert!(matches!(judge(&gate, "fp32", 20.0, 50.0), Ok(Gate::Held { .. })));
        let missed = judge(&gate, "fp32", 20.0, 50.1).unwrap_err();
        assert!(missed.to_string().contains("expected p99 of 50 µs at most, got 50.1"), "{missed}");
    }
}
