//! A build's progress on stderr, and its end by Ctrl-C.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::sync::LazyLock;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tickrt::{Builder, BuiltPlan, Calibration, CancelToken, Library, Progress, Result};

/// Runs `build` with a bar on a terminal, with a line a phase elsewhere. Ctrl-C ends it; a second one ends the process.
pub fn watch(
    library: &Library,
    quiet: bool,
    calibration: Option<Calibration>,
    build: impl FnOnce(&mut Builder) -> Result<BuiltPlan>,
) -> Result<BuiltPlan> {
    let token = catch_ctrl_c();
    let mut shown = match (quiet, std::io::stderr().is_terminal()) {
        (true, _) => Shown::Nothing,
        (_, true) => Shown::Bar(bar()),
        (_, false) => Shown::Lines(BTreeSet::new()),
    };
    let bar = if let Shown::Bar(bar) = &shown { bar.clone() } else { ProgressBar::hidden() };
    let mut builder = Builder::new(library).cancel_token(token).progress(move |progress| {
        shown.show(progress);
        ControlFlow::Continue(())
    });
    if let Some(calibration) = calibration {
        builder = builder.calibration(calibration);
    }
    let built = build(&mut builder);
    bar.finish_and_clear();
    built
}

/// From here on Ctrl-C does not end the process but pulls the token: no file of a build is left half written. A second
/// one ends the process.
pub fn catch_ctrl_c() -> &'static CancelToken {
    static TOKEN: LazyLock<CancelToken> = LazyLock::new(|| {
        let token = CancelToken::new();
        let pulled = token.clone();
        // Nobody else in this process sets a handler.
        let _ = ctrlc::set_handler(move || {
            if pulled.is_cancelled() {
                std::process::exit(130);
            }
            pulled.cancel();
            eprintln!("stopping the build; once more to end at once");
        });
        token
    });
    &TOKEN
}

enum Shown {
    Nothing,
    Bar(ProgressBar),
    /// The phases that have had their line.
    Lines(BTreeSet<String>),
}

impl Shown {
    fn show(&mut self, progress: &Progress<'_>) {
        match self {
            Self::Nothing => {}
            Self::Bar(bar) => {
                if progress.parent.is_none() || progress.steps > 1 {
                    bar.set_length(progress.steps.into());
                    bar.set_position(progress.step.into());
                }
                bar.set_message(progress.phase.to_owned());
            }
            // A phase inside a phase may come a thousand times.
            Self::Lines(said) => {
                if progress.parent.is_none() && said.insert(progress.phase.to_owned()) {
                    eprintln!("building: {}", progress.phase);
                }
            }
        }
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{spinner} {elapsed:>4} [{bar:30}] {pos}/{len} {wide_msg}");
    bar.set_style(style.expect("a template that indicatif takes").progress_chars("=> "));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
