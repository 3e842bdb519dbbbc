//! `tickrt verify`: would production load this?

use std::path::PathBuf;

use tickrt::trust::{PublicKey, Signature};

use crate::exit::{Failure, Outcome};
use crate::table;

const EXAMPLE: &str = "\
Example:
  tickrt verify --key trading.pub models/toy_cnn.engine

Ends with 0 if the signature beside the file is one of these keys' and every signed file is as it was, with 1 otherwise.";

/// Check the signature of an engine or a model
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// A public key that is trusted; may be given again
    #[arg(long, value_name = "FILE", required = true)]
    key: Vec<PathBuf>,
    /// The engine or ONNX model
    #[arg(value_name = "FILE")]
    artefact: PathBuf,
}

/// Runs it.
pub fn main(args: &Args) -> Outcome {
    let keys = args.key.iter().map(PublicKey::read).collect::<tickrt::Result<Vec<_>>>()?;
    let refused = |error: tickrt::Error| Failure::check(error.to_string());
    let signature = Signature::beside(&args.artefact).map_err(refused)?;
    signature.check_files(&args.artefact, &keys).map_err(refused)?;
    table::facts(
        signature.names().map(|name| ("signed", name.to_owned())).chain([("by", signature.key().to_string())]),
    );
    Ok(())
}
