//! `tickrt sign`: says that an engine, with its sidecar and what else runs with it, may run in production.

use std::path::PathBuf;

use tickrt::onnx::Model;
use tickrt::resident::Artefact;
use tickrt::trust::{SecretKey, Signature};
use tickrt::{Plan, Sidecar};

use crate::exit::{Failure, Outcome};
use crate::table;

const EXAMPLE: &str = "\
Example:
  tickrt sign --key trading.key models/toy_cnn.engine
  tickrt sign --key trading.key models/toy_cnn.onnx

Writes models/toy_cnn.engine.sig. An engine is signed together with its sidecar, a model with the files that its weights \
lie in; --also adds others of the same folder. What was signed before is signed anew.";

/// Sign an engine or a model, for a production that loads nothing else
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// The secret key that `tickrt keygen` made
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The engine or ONNX model
    #[arg(value_name = "FILE")]
    artefact: PathBuf,
    /// What else runs with it, in the same folder or below: may be given again
    #[arg(long, value_name = "FILE")]
    also: Vec<PathBuf>,
}

/// Runs it.
pub fn main(args: &Args) -> Outcome {
    let key = SecretKey::read(&args.key)?;
    let mut also = args.also.clone();
    also.extend(parts(&args.artefact)?);
    let signature = Signature::make(&key, &args.artefact, &also)?;
    signature.write(&args.artefact)?;
    table::facts(signature.names().map(|name| ("signed", name.to_owned())).chain([
        ("by", key.public().to_string()),
        ("signature", Signature::path(&args.artefact).display().to_string()),
    ]));
    Ok(())
}

/// What belongs to an artefact of its own accord. Only what is whole is signed.
fn parts(artefact: &std::path::Path) -> Outcome<Vec<PathBuf>> {
    if artefact.extension().is_some_and(|ending| ending == "onnx") {
        return Ok(Model::read(artefact)?.external_files().to_vec());
    }
    if Artefact::is_at(artefact) {
        Artefact::read(artefact)?;
        return Ok(vec![Artefact::sidecar_path(artefact)]);
    }
    Plan::read_unverified(artefact)?;
    if Sidecar::beside(artefact)?.is_none() {
        return Err(Failure::usage(format!(
            "sign {}: expected its sidecar {}, got none; build the engine with `tickrt build`",
            artefact.display(),
            Plan::sidecar_path(artefact).display()
        )));
    }
    Ok(vec![Plan::sidecar_path(artefact)])
}
