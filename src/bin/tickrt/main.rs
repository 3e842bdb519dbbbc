//! `tickrt`: builds engines, runs, checks, measures and explains them.
//!
//! One file a subcommand; what they share lies in `answers` (asking a chain), `args` (values of flags), `calibration` (what
//! INT8 is calibrated with), `chain` (who answers), `exit` (how a run ends), `progress` (a build's bar and Ctrl-C) and `table`
//! (what is printed).

mod answers;
mod args;
mod bench;
mod build;
mod calibration;
mod chain;
mod demo;
mod deploy;
mod doctor;
mod exit;
mod inspect;
mod journal;
mod keygen;
mod log;
mod profile;
mod progress;
mod run;
mod sign;
mod smoke;
mod table;
mod validate;
mod verify;
mod versions;

use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};

/// TensorRT at batch 1 with the lowest, steadiest latency: builds engines from ONNX models, runs and checks them.
///
/// Flags have trtexec's names where it has one; --max-workspace and --max_workspace are the same.
#[derive(Parser)]
#[command(name = "tickrt", version, after_help = exit::HELP, propagate_version = true)]
struct Cli {
    /// Say on stderr what is done, and what TensorRT has to say: -v, -vv all of it, -vvv what libraries say as well
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Build(build::Args),
    Run(run::Args),
    Validate(validate::Args),
    Bench(bench::Args),
    Inspect(inspect::Args),
    Smoke(smoke::Args),
    Deploy(deploy::Args),
    Doctor(doctor::Args),
    Demo(demo::Args),
    Journal(journal::Args),
    Keygen(keygen::Args),
    Profile(profile::Args),
    Sign(sign::Args),
    Verify(verify::Args),
    Versions(versions::Args),
}

fn main() -> ExitCode {
    exit::prepare();
    let cli = Cli::parse();
    log::prepare(cli.verbose);
    let result = match cli.command {
        Command::Build(args) => build::main(&args),
        Command::Run(args) => run::main(&args),
        Command::Validate(args) => validate::main(&args),
        Command::Bench(args) => bench::main(&args),
        Command::Inspect(args) => inspect::main(&args),
        Command::Smoke(args) => smoke::main(&args),
        Command::Deploy(args) => deploy::main(&args),
        Command::Doctor(args) => doctor::main(&args),
        Command::Demo(args) => demo::main(&args),
        Command::Journal(args) => journal::main(&args),
        Command::Keygen(args) => keygen::main(&args),
        Command::Profile(args) => profile::main(&args),
        Command::Sign(args) => sign::main(&args),
        Command::Verify(args) => verify::main(&args),
        Command::Versions(args) => versions::main(&args),
    };
    exit::code(result)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn flags_of_every_subcommand_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
