//! `tickrt deploy`: train, export, build, validate, bench, and only then move into place.

mod config;
mod gates;
mod manifest;
mod store;
mod triton;

use std::path::{Path, PathBuf};
use std::process::Command;

use tickrt::Sidecar;

use self::config::{Config, Target};
use self::manifest::{Deployed, Manifest};
use self::store::Store;
use crate::exit::{Failure, Outcome};
use crate::table;

const EXAMPLE: &str = "\
Example:
  tickrt deploy --config deploy.toml
  tickrt deploy --config deploy.toml --rollback
  tickrt deploy --config deploy.toml --target triton

deploy.toml, paths from the folder that it lies in:
  name = \"toy_cnn\"
  store = \"/srv/engines\"        # gets toy_cnn/current and toy_cnn/versions
  keep = 3                      # versions; 3 without
  train = \"python train.py\"     # optional, as is export
  export = \"python export.py --output toy_cnn.onnx\"
  onnx = \"toy_cnn.onnx\"
  normalization = [\"toy_cnn.normalization.json\"]

  [[target]]                    # one for each engine
  name = \"fp32\"
  build = [\"--noTF32\"]          # flags of `tickrt build`

  [accuracy]                    # of `tickrt validate`
  input = \"windows.npy\"
  atol = 1e-3
  rtol = 1e-3
  optional = false              # whether it may stay unmeasured

  [latency]                     # of `tickrt bench`
  p99_us = 100
  duration = \"5s\"

  [triton]                      # optional, of --target triton
  instances = 1                 # of each engine, on each GPU
  gpus = []                     # all
  cpu_instances = 1             # of the ONNX model
  warmup = 100                  # calls
  max_queue_delay_us = 0        # for engines of a dynamic batch

A gate that cannot be measured, for want of a GPU, say, ends with 3 unless it is optional; one that is missed with 1. Nothing \
has moved then. Programs load what STORE/NAME/current/manifest.json names; with --target triton, \
`tritonserver --model-repository=STORE/NAME/current/triton` serves each engine as NAME_TARGET and the ONNX model as NAME_cpu.";

/// Train, export, build, check and put an engine into place, or go back to the one before
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// What to deploy, where to, and what it must come up to
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Go back to the version before the current one
    #[arg(long)]
    rollback: bool,
    /// Whom for: programs that use tickrt, or NVIDIA's Triton Inference Server as well
    #[arg(long, value_enum, default_value_t = For::Tickrt, conflicts_with = "rollback")]
    target: For,
}

/// Who loads the engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum For {
    /// A program that uses tickrt
    Tickrt,
    /// Triton, too: the version has a model repository in it
    Triton,
}

/// Runs it.
pub fn main(args: &Args) -> Outcome {
    let config = Config::read(&args.config)?;
    let store = Store::lock(&config.store, &config.name)?;
    if args.rollback {
        let (from, to) = store.roll_back()?;
        println!("  {} answers again, {from} no longer; running programs pick it up as they do a new one", to);
        return Ok(());
    }
    for (what, command) in [("train", &config.train), ("export", &config.export)] {
        if let Some(command) = command {
            run_shell(what, command, &config.folder)?;
        }
    }
    // Dropped before it is moved into place, it is removed: whatever fails below leaves nothing.
    let staging = store.stage()?;
    let mut manifest = Manifest::new(&config.name, &config.onnx, staging.path())?;
    let mut sidecars = Vec::new();
    for target in &config.targets {
        let engine = staging.path().join(format!("{}.engine", target.name));
        let sidecar = build(&config, target, &manifest, &engine)?;
        if args.target == For::Triton {
            triton::check(&target.name, &sidecar)?;
        }
        manifest.engines.push(hold(&config, target, &engine)?);
        sidecars.push(sidecar);
    }
    if args.target == For::Triton {
        triton::write(&config.triton, staging.number(), staging.path(), &manifest, &sidecars)?;
    }
    manifest.write(staging.path())?;
    let version = staging.move_into_place(&manifest)?;
    let removed = store.keep(config.keep)?;
    let current = store.current();
    let mut facts = vec![("deployed", version), ("current", current.display().to_string())];
    facts.extend(manifest.engines.iter().map(|engine| ("engine", engine.to_string())));
    facts.extend(removed.into_iter().map(|old| ("removed", old)));
    table::facts(facts);
    Ok(())
}

/// Builds one target. From the model where it lies, for the sidecar names it; it must still be what was copied into the version.
fn build(config: &Config, target: &Target, manifest: &Manifest, engine: &Path) -> Outcome<Sidecar> {
    let onnx = &config.onnx;
    println!("\n== build {}", target.name);
    let mut build = tool()?;
    build.arg("build").arg("--onnx").arg(onnx).arg("--engine").arg(engine);
    config.normalization.iter().for_each(|file| {
        build.arg("--normalization").arg(file);
    });
    build.args(&target.build);
    match run(&mut build)? {
        0 => {}
        code => return Err(failed(code, format!("build {}", target.name))),
    }
    let changed = |file: &Path, sha256: &str| {
        Failure::usage(format!(
            "build {}: expected {} to stay as it was, with sha256 {sha256}, got another file; nothing was deployed",
            target.name,
            file.display()
        ))
    };
    let sha256 = &manifest.model_sha256;
    let sidecar = Sidecar::beside(engine)?.filter(|sidecar| sidecar.onnx_sha256.as_ref() == Some(sha256));
    let beside = onnx.parent().unwrap_or(Path::new(""));
    if let Some(file) = manifest.other_weights(beside)? {
        return Err(changed(&beside.join(file), &manifest.weights[file]));
    }
    sidecar.ok_or_else(|| changed(onnx, sha256))
}

/// Holds an engine against the gates.
fn hold(config: &Config, target: &Target, engine: &Path) -> Outcome<Deployed> {
    let accuracy = config.accuracy.as_ref();
    let accuracy = accuracy.map(|gate| gates::accuracy(gate, &target.name, engine, &config.onnx)).transpose()?;
    let latency = config.latency.as_ref().map(|gate| gates::latency(gate, &target.name, engine)).transpose()?;
    Deployed::new(&target.name, engine, accuracy, latency)
}

/// This binary, for another subcommand: each ends with a code, and leaves no state in this process.
fn tool() -> Outcome<Command> {
    let tool = std::env::current_exe().map_err(|error| Failure::environment(format!("find tickrt itself: {error}")))?;
    Ok(Command::new(tool))
}

/// Runs it with our own outputs, and says how it ended.
fn run(command: &mut Command) -> Outcome<u8> {
    let status = command
        .status()
        .map_err(|error| Failure::environment(format!("run {}: {error}", command.get_program().to_string_lossy())))?;
    // Ended by a signal: Ctrl-C reaches the whole group.
    Ok(status.code().map_or(130, |code| u8::try_from(code).unwrap_or(1)))
}

fn run_shell(what: &str, command: &str, folder: &Path) -> Outcome {
    println!("\n== {what}: {command}");
    match run(Command::new("sh").arg("-c").arg(command).current_dir(folder))? {
        0 => Ok(()),
        code => Err(Failure::check(format!("{what}: `{command}` ended with {code}; nothing was deployed"))),
    }
}

/// With the code of the step that failed.
fn failed(code: u8, what: String) -> Failure {
    Failure::with_code(code, format!("{what}: see above; nothing was deployed"))
}
