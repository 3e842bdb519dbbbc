//! Every model of the zoo through every path that is there: `cargo bench --bench latency`. Builds what engines are missing
//! in `target/latency/`, runs `tickrt bench` on each model, and leaves the records and plots there, too.
//!
//! `cargo bench --bench latency -- --duration 2 --paths tickrt,ort-cuda` passes the flags on to `tickrt bench`.

use std::path::Path;
use std::process::{Command, ExitCode};

/// With the samples that it is measured on; random ones without.
const MODELS: [(&str, Option<&str>); 9] = [
    ("mlp", Some("nasdaq_windows")),
    ("cnn_small", Some("nasdaq_images32")),
    ("cnn_large", Some("nasdaq_images128")),
    ("toy_cnn", Some("nasdaq_windows")),
    ("lstm", Some("nasdaq_windows")),
    ("lstm_s", None),
    ("lstm_m", None),
    ("mlp_384", None),
    ("deeplob", None),
];

fn main() -> ExitCode {
    // cargo adds `--bench`.
    let flags: Vec<String> = std::env::args().skip(1).filter(|flag| flag != "--bench").collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/latency");
    std::fs::create_dir_all(&folder).expect("a folder under target");
    let mut failed = Vec::new();
    for (name, input) in MODELS {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        let onnx = models.join(format!("{name}.onnx"));
        if !onnx.exists() {
            println!("{name} is left out: {} is generated, see models/README.md", onnx.display());
            continue;
        }
        println!("\n{name}");
        let engine = folder.join(format!("{name}.engine"));
        let normalization = models.join(format!("{name}.normalization.json"));
        let normalization = normalization.exists().then(|| format!("--normalization={}", normalization.display()));
        if !engine.exists() {
            let built = tickrt("build", &onnx, Some(&engine)).args(&normalization).status();
            if !built.expect("the tool starts").success() {
                println!("  without an engine");
            }
        }
        let mut bench = tickrt("bench", &onnx, Some(engine.as_path()).filter(|engine| engine.exists()));
        if !engine.exists() {
            bench.args(&normalization);
        }
        bench.args(input.map(|input| format!("--input={}", models.join(format!("data/{input}.npy")).display())));
        bench.arg(format!("--jsonl={}", folder.join("latency.jsonl").display()));
        bench.arg(format!("--plot={}", folder.join(format!("{name}.png")).display())).args(&flags);
        if !bench.status().expect("the tool starts").success() {
            failed.push(name);
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("failed: {}", failed.join(", "));
    ExitCode::FAILURE
}

fn tickrt(command: &str, onnx: &Path, engine: Option<&Path>) -> Command {
    let mut tickrt = Command::new(env!("CARGO_BIN_EXE_tickrt"));
    tickrt.arg(command).arg("--onnx").arg(onnx);
    if let Some(engine) = engine {
        tickrt.arg("--engine").arg(engine);
    }
    tickrt
}
