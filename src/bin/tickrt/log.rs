//! `-v`, `-vv`, `-vvv`: what is said while it is done, on stderr.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};

use tickrt::LogLevel;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

static VERBOSE: AtomicBool = AtomicBool::new(false);

/// Once, before anything is done. Without a `-v` nothing is said, and `TICKRT_LOG` is heeded as ever.
pub fn prepare(verbosity: u8) {
    let (ours, native, others) = match verbosity {
        0 => return,
        1 => (LevelFilter::INFO, LogLevel::Info, LevelFilter::OFF),
        2 => (LevelFilter::DEBUG, LogLevel::Verbose, LevelFilter::OFF),
        _ => (LevelFilter::TRACE, LogLevel::Verbose, LevelFilter::TRACE),
    };
    VERBOSE.store(verbosity > 1, Ordering::Relaxed);
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let targets = Targets::new().with_target("tickrt", ours).with_target("tensorrt", ours).with_default(others);
    tracing_subscriber::registry().with(lines).with(targets).init();
    tickrt::set_log_level(native);
}

/// Whether all that TensorRT says is wanted.
pub fn is_verbose() -> bool {
    VERBOSE.load(Ordering::Relaxed)
}
