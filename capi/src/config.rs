//! config.h: what a session or a predictor is made for.

use std::ffi::c_char;
use std::time::Duration;

use tickrt::{GapPolicy, Normalization, SessionConfig, Shapes, WaitStrategy, WindowConfig};

use crate::argument::{elements, given, invalid, string};
use crate::error::{Fault, MaybeError, discard, guard};

/// `config.h`: the defaults.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_config_new() -> Box<SessionConfig> {
    Box::default()
}

/// `config.h`: frees it.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_config_free(config: Option<Box<SessionConfig>>) {
    discard(config);
}

/// The configuration of C's, or the defaults for NULL.
pub(crate) fn or_default(config: Option<&SessionConfig>) -> SessionConfig {
    config.cloned().unwrap_or_default()
}

fn set(config: Option<&mut SessionConfig>, what: impl FnOnce(&mut SessionConfig) -> Result<(), Fault>) -> MaybeError {
    guard(|| what(given(config, "config")?))
}

/// `config.h`: slots in the ring.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_config_set_depth(config: Option<&mut SessionConfig>, slots: usize) -> MaybeError {
    set(config, |config| {
        config.depth = slots;
        Ok(())
    })
}

/// `config.h`: rolling windows.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_config_set_windows(
    config: Option<&mut SessionConfig>,
    symbols: u32,
    row: usize,
    on_gap: i32,
) -> MaybeError {
    set(config, |config| {
        let on_gap = match on_gap {
            0 => GapPolicy::Refill,
            1 => GapPolicy::HoldLast,
            _ => return Err(invalid("on_gap", "one of tickrt_gap_policy", on_gap.to_string())),
        };
        config.windows = Some(WindowConfig { symbols, row, on_gap });
        Ok(())
    })
}

/// `config.h`: adds a normalisation, which is copied.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_config_add_normalization(
    config: Option<&mut SessionConfig>,
    normalization: Option<&Normalization>,
) -> MaybeError {
    set(config, |config| {
        let normalization = given(normalization, "normalization")?.clone();
        config.normalizations.get_or_insert_default().push(normalization);
        Ok(())
    })
}

/// `config.h`: no normalisation, whatever the plan's sidecar says.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_config_set_no_normalization(config: Option<&mut SessionConfig>) -> MaybeError {
    set(config, |config| {
        config.normalizations = Some(Vec::new());
        Ok(())
    })
}

/// `config.h`: announces a shape of one input.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tickrt_config_set_shape(
    config: Option<&mut SessionConfig>,
    shape: usize,
    input: *const c_char,
    dimensions: *const i64,
    count: usize,
) -> MaybeError {
    set(config, |config| {
        // SAFETY: the header's contract.
        let (input, dimensions) = unsafe { (string(input, "input")?, elements(dimensions.cast(), count)?) };
        if shape > config.shapes.len() {
            return Err(invalid("shape", &format!("0..={}", config.shapes.len()), shape.to_string()));
        }
        if shape == config.shapes.len() {
            config.shapes.push(Shapes::new());
        }
        config.shapes[shape].insert(input.to_owned(), dimensions.to_vec());
        Ok(())
    })
}

/// `config.h`: the longest wait.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_config_set_wait_limit_ns(config: Option<&mut SessionConfig>, limit_ns: u64) -> MaybeError {
    set(config, |config| {
        config.wait_limit = Duration::from_nanos(limit_ns);
        Ok(())
    })
}

/// `config.h`: how a waiting thread spends its time.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_config_set_wait_strategy(config: Option<&mut SessionConfig>, strategy: i32) -> MaybeError {
    set(config, |config| {
        config.wait_strategy = match strategy {
            0 => WaitStrategy::Spin,
            1 => WaitStrategy::SpinPause,
            2 => WaitStrategy::SpinThenYield,
            3 => WaitStrategy::Block,
            _ => return Err(invalid("strategy", "one of tickrt_wait_strategy", strategy.to_string())),
        };
        Ok(())
    })
}

/// `config.h`: launches ahead; 0 turns it off.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_config_set_launch_ahead_ns(config: Option<&mut SessionConfig>, for_ns: u64) -> MaybeError {
    set(config, |config| {
        config.launch_ahead = Some(Duration::from_nanos(for_ns)).filter(|time| !time.is_zero());
        Ok(())
    })
}

/// `config.h`: a resident engine's turn.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_config_set_resident_turn_ns(config: Option<&mut SessionConfig>, turn_ns: u64) -> MaybeError {
    set(config, |config| {
        config.resident.turn = Duration::from_nanos(turn_ns);
        Ok(())
    })
}

/// `config.h`: whether a resident engine starts beside another process.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_config_set_resident_share_gpu(
    config: Option<&mut SessionConfig>,
    share_gpu: bool,
) -> MaybeError {
    set(config, |config| {
        config.resident.share_gpu = share_gpu;
        Ok(())
    })
}

/// `config.h`: whether calls of a resident engine go through the GPU's BAR1.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_config_set_resident_bar1(config: Option<&mut SessionConfig>, bar1: bool) -> MaybeError {
    set(config, |config| {
        config.resident.bar1 = bar1;
        Ok(())
    })
}

/// `config.h`: how often a resident engine is asked what is known.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_config_set_resident_known_answer_ns(
    config: Option<&mut SessionConfig>,
    every_ns: u64,
) -> MaybeError {
    set(config, |config| {
        config.resident.known_answer_every = Duration::from_nanos(every_ns);
        Ok(())
    })
}

/// `config.h`: calls made at start.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_config_set_warm_up(config: Option<&mut SessionConfig>, calls: usize) -> MaybeError {
    set(config, |config| {
        config.warm_up = calls;
        Ok(())
    })
}

/// `config.h`: which GPU.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_config_set_device(config: Option<&mut SessionConfig>, device: usize) -> MaybeError {
    set(config, |config| {
        config.device = device;
        Ok(())
    })
}

/// `config.h`: ONNX Runtime's threads.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_config_set_cpu_threads(config: Option<&mut SessionConfig>, threads: usize) -> MaybeError {
    set(config, |config| {
        config.cpu_threads = threads;
        Ok(())
    })
}

/// `config.h`: whether outputs are checked for NaN.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_config_set_check_finite(config: Option<&mut SessionConfig>, check: bool) -> MaybeError {
    set(config, |config| {
        config.check_finite = check;
        Ok(())
    })
}

/// `config.h`: the range of outputs.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_config_set_output_range(
    config: Option<&mut SessionConfig>,
    lowest: f32,
    highest: f32,
) -> MaybeError {
    set(config, |config| {
        config.output_range = Some([lowest, highest]);
        Ok(())
    })
}
