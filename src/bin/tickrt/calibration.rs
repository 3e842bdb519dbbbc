//! The flags that say what INT8 is calibrated with, and the calibration that they ask for.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};
use tickrt::onnx::Model;
use tickrt::{Calibration, CalibrationMethod, Normalization, Shapes, read_files};

use crate::args::NamedFile;
use crate::exit::{self, Failure, Outcome};

/// Flags of calibration.
#[derive(clap::Args, Debug, Clone, Default)]
pub struct CalibrationArgs {
    /// Samples for INT8, as the caller hands them over: .npy, .npz, a folder of .npy, or raw; NAME:FILE for one of several inputs
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    pub calib: Vec<NamedFile>,
    /// The ranges that were found, read if they are of this model, data and method, and else written
    #[arg(long = "calib-cache", alias = "calib_cache", value_name = "FILE")]
    pub calib_cache: Option<PathBuf>,
    /// At most so many batches
    #[arg(long = "calib-batches", alias = "calib_batches", value_name = "N")]
    pub calib_batches: Option<usize>,
    /// Samples a batch, where the model's batch is dynamic; 1 without
    #[arg(long = "calib-batch", alias = "calib_batch", value_name = "N")]
    pub calib_batch: Option<usize>,
}

impl CalibrationArgs {
    /// Whether there is something to calibrate with.
    pub fn is_given(&self) -> bool {
        !self.calib.is_empty() || self.calib_cache.is_some()
    }

    /// The calibration by `method`; none if nothing was named.
    pub fn open(
        &self,
        model: &Model,
        normalizations: &[Normalization],
        method: CalibrationMethod,
        device: usize,
        quiet: bool,
    ) -> Outcome<Option<Calibration>> {
        if !self.is_given() {
            return Ok(None);
        }
        let shapes = self.shapes(model)?;
        let mut calibration =
            Calibration::new(method).normalizations(normalizations.to_vec()).shapes(shapes.clone()).device(device);
        if let Some(cache) = &self.calib_cache {
            calibration = calibration.cache_file(cache);
        }
        if let Some(most) = self.calib_batches {
            calibration = calibration.most_batches(most);
        }
        if !self.calib.is_empty() {
            let files: Vec<_> = self.calib.iter().map(|file| (file.name.clone(), file.path.clone())).collect();
            let samples = read_files(model, normalizations, &shapes, &files)?;
            if samples.left_over() > 0 {
                exit::note(format!(
                    "{} samples of the calibration data do not fill a batch and are left out",
                    samples.left_over()
                ));
            }
            calibration = calibration.source(samples);
        }
        Ok(Some(if quiet { calibration } else { calibration.progress(shown()) }))
    }

    /// Of the inputs whose batch is dynamic.
    fn shapes(&self, model: &Model) -> Outcome<Shapes> {
        let Some(batch) = self.calib_batch else { return Ok(Shapes::new()) };
        let mut shapes = Shapes::new();
        for input in model.inputs() {
            match input.shape.split_first() {
                Some((-1, rest)) if batch > 0 && rest.iter().all(|&size| size >= 0) => {
                    let batch = i64::try_from(batch).unwrap_or(i64::MAX);
                    shapes.insert(input.name.clone(), [&[batch], rest].concat());
                }
                _ => {
                    return Err(Failure::usage(format!(
                        "--calib-batch {batch}: expected inputs whose first dimension alone is dynamic, got `{}` of {}",
                        input.name,
                        tickrt::format_shape(&input.shape)
                    )));
                }
            }
        }
        Ok(shapes)
    }
}

/// A bar on a terminal, one line elsewhere.
fn shown() -> impl FnMut(usize, Option<usize>) + Send {
    let style = ProgressStyle::with_template("{spinner} {elapsed:>4} [{bar:30}] {pos}/{len} calibrating");
    let bar = ProgressBar::new(0);
    bar.set_style(style.expect("a template that indicatif takes").progress_chars("=> "));
    let terminal = std::io::stderr().is_terminal();
    move |done, all| {
        if terminal {
            bar.set_length(all.unwrap_or(done) as u64);
            bar.set_position(done as u64);
            if all == Some(done) {
                bar.finish_and_clear();
            }
        } else if done == 1 {
            eprintln!(
                "calibrating: {}",
                all.map_or_else(|| "until the data ends".to_owned(), |all| format!("{all} batches"))
            );
        }
    }
}
