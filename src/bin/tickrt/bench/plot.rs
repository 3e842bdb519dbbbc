//! The distribution of every path's latency as a picture: percentiles on a log axis, so that the tail is as wide as it
//! matters.

use std::path::Path as File;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use super::path::Path;
use crate::exit::{Failure, Outcome};

/// What a picture can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Png,
    Svg,
}

fn format(file: &File) -> Outcome<Format> {
    match file.extension().and_then(|ending| ending.to_str()) {
        Some("png") => Ok(Format::Png),
        Some("svg") => Ok(Format::Svg),
        _ => Err(Failure::usage(format!("--plot {}: a picture ends in .png or .svg", file.display()))),
    }
}

/// Whether the file's name says what to draw.
pub fn check(file: &File) -> Outcome {
    format(file).map(|_| ())
}

const SIZE: (u32, u32) = (1100, 620);

/// Colours that are told apart on white and on black, in the paths' order.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0x33, 0x7f, 0xc9),
    RGBColor(0xe0, 0x52, 0x4f),
    RGBColor(0x2f, 0x9e, 0x5b),
    RGBColor(0xb0, 0x7d, 0x12),
    RGBColor(0x9b, 0x5f, 0xc7),
    RGBColor(0x1c, 0x9c, 0xa8),
    RGBColor(0xd4, 0x5f, 0xa0),
    RGBColor(0x84, 0x8b, 0x94),
];

/// Draws it as the text of an SVG.
pub fn svg(paths: &[Path], title: &str) -> Outcome<String> {
    let mut text = String::new();
    chart(paths, title, &SVGBackend::with_string(&mut text, SIZE).into_drawing_area())
        .map_err(|message| Failure::usage(format!("draw the report: {message}")))?;
    Ok(text)
}

/// Draws it.
pub fn draw(paths: &[Path], title: &str, file: &File) -> Outcome {
    let drawn = match format(file)? {
        Format::Png => chart(paths, title, &BitMapBackend::new(file, SIZE).into_drawing_area()),
        Format::Svg => chart(paths, title, &SVGBackend::new(file, SIZE).into_drawing_area()),
    };
    drawn.map_err(|message| Failure::usage(format!("draw {}: {message}", file.display())))
}

/// 1 in this many calls takes longer: the log axis. The last is the furthest that the calls tell.
fn shares(calls: u64) -> impl Iterator<Item = f64> {
    const STEPS: i32 = 160;
    let last = (calls.max(10) as f64).log10();
    (0..=STEPS).map(move |step| 10_f64.powf(last * f64::from(step) / f64::from(STEPS)))
}

/// `99.9 %` of 1 in 1000.
fn percentile(one_in: f64) -> String {
    let text = format!("{:.6}", 100.0 * (1.0 - 1.0 / one_in));
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

fn chart<Backend>(paths: &[Path], title: &str, area: &DrawingArea<Backend, Shift>) -> Result<(), String>
where
    Backend: DrawingBackend,
{
    const FONT: &[u8] = epaint_default_fonts::UBUNTU_LIGHT;
    let _ = register_font("sans-serif", FontStyle::Normal, FONT);
    let text = |error: DrawingAreaErrorKind<Backend::ErrorType>| error.to_string();
    let of = |path: &Path, one_in: f64| path.latencies.quantile_us(1.0 - 1.0 / one_in).max(1e-3);
    let lowest = paths.iter().map(|path| of(path, 1.0)).fold(f64::INFINITY, f64::min);
    let highest = paths.iter().map(|path| path.latencies.max_us()).fold(1e-3, f64::max);
    let calls = paths.iter().map(|path| path.latencies.calls()).max().unwrap_or(10);
    area.fill(&WHITE).map_err(text)?;
    let mut chart = ChartBuilder::on(area);
    if !title.is_empty() {
        chart.caption(title, ("sans-serif", 20));
    }
    let mut chart = chart
        .margin(14)
        // Half of the last label is beyond the axis.
        .margin_right(44)
        .x_label_area_size(46)
        .y_label_area_size(70)
        .build_cartesian_2d((1.0..calls.max(10) as f64).log_scale(), (lowest * 0.9..highest * 1.1).log_scale())
        .map_err(text)?;
    chart
        .configure_mesh()
        .x_desc("percentile of calls")
        .y_desc("latency in µs, host to host")
        .x_label_formatter(&|&one_in| percentile(one_in))
        .y_label_formatter(&|&us| if us < 10.0 { format!("{us:.1}") } else { format!("{us:.0}") })
        .label_style(("sans-serif", 15))
        .axis_desc_style(("sans-serif", 16))
        .light_line_style(BLACK.mix(0.06))
        .bold_line_style(BLACK.mix(0.18))
        .draw()
        .map_err(text)?;
    for (number, path) in paths.iter().enumerate() {
        let color = COLOURS[number % COLOURS.len()];
        let line = shares(path.latencies.calls()).map(|one_in| (one_in, of(path, one_in)));
        chart
            .draw_series(LineSeries::new(line, color.stroke_width(2)))
            .map_err(text)?
            .label(path.way.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], color.stroke_width(3)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 15))
        .draw()
        .map_err(text)?;
    area.present().map_err(text)
}
