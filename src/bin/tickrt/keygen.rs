//! `tickrt keygen`: a pair of keys, to sign with and to check with.

use std::path::PathBuf;

use tickrt::trust::SecretKey;

use crate::exit::{Failure, Outcome};
use crate::table;

const EXAMPLE: &str = "\
Example:
  tickrt keygen trading

Writes trading.key, which signs and stays where engines are built, and trading.pub, which goes to where they run. A key that \
is there is not overwritten.";

/// Make a pair of keys to sign engines with
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// The files' name without .key and .pub
    #[arg(value_name = "NAME")]
    name: PathBuf,
}

/// Runs it.
pub fn main(args: &Args) -> Outcome {
    let [secret, public] = [".key", ".pub"].map(|ending| {
        let mut name = args.name.clone().into_os_string();
        name.push(ending);
        PathBuf::from(name)
    });
    // Before the secret is made: a public key alone is one whose secret lies elsewhere, and others may check with it.
    if public.symlink_metadata().is_ok() {
        return Err(Failure::usage(format!(
            "{} is there already: name a file that is not there yet, or move it away",
            public.display()
        )));
    }
    let key = SecretKey::generate()?;
    key.write(&secret)?;
    key.public().write(&public)?;
    table::facts([
        ("secret key", secret.display().to_string()),
        ("public key", public.display().to_string()),
        ("is", key.public().to_string()),
    ]);
    Ok(())
}
