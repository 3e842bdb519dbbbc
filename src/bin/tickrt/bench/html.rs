//! The report as one page that needs nothing beside it: tables and plots, for light and dark screens.

use std::fmt::Write;
use std::path::Path as File;

use tickrt::stats::Record;

use super::path::{Path, Way};
use super::report::us;
use super::{check, plot, report};
use crate::exit::{Failure, Outcome};

const STYLE: &str = "\
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --faint: #59636e; --line: #d4d9df; --row: #f5f7f9; \
--p50: #2563a8; --p99: #c2570c; --max: #8a8f98; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e4e7eb; --faint: #9aa4af; --line: #343a42; \
--row: #1c2026; --p50: #6aa9e9; --p99: #f0a05a; --max: #7d8590; } }
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; \
max-width: 1120px; padding: 24px; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 32px 0 8px; }
p, figcaption, footer { color: var(--faint); margin: 4px 0 12px; }
.wide { overflow-x: auto; } figure { margin: 20px 0 0; } svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: 4px 9px; text-align: left; border-bottom: 1px solid var(--line); }
th { color: var(--faint); font-weight: 600; } td.n, th.n { text-align: right; }
tbody tr:nth-child(even) { background: var(--row); }
td.wrap { white-space: normal; overflow-wrap: anywhere; }";

/// Writes it to `file`.
pub fn write(file: &File, paths: &[Path], missing: &[(Way, String)], reference: &str, records: &[Record]) -> Outcome {
    let page = page(paths, missing, reference, records)?;
    std::fs::write(file, page).map_err(|error| Failure::usage(format!("write {}: {error}", file.display())))?;
    println!("\n  the report is {}", file.display());
    Ok(())
}

fn page(paths: &[Path], missing: &[(Way, String)], reference: &str, records: &[Record]) -> Outcome<String> {
    let title = escaped(&report::title(records));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>tickrt bench: {title}</title>\n\
         <style>\n{STYLE}\n</style>\n</head>\n<body>\n<h1>{title}</h1>\n\
         <p>Latency in µs, host to host. Answers compared with {}.</p>\n",
        escaped(reference)
    );
    let Parts { calls, paused, together, open } = Parts::of(records);
    latencies(&mut page, "Call after call", &calls);
    page += "<figure>\n";
    page += &bars(&calls);
    page += "<figcaption>From the median to the longest call, on a log axis: the dots are p50 and p99.</figcaption>\n\
             </figure>\n<h2>The tail</h2>\n<figure>\n";
    page += &themed(&plot::svg(paths, "")?);
    page +=
        "<figcaption>Percentiles on a log axis, so that the tail is as wide as it matters.</figcaption>\n</figure>\n";
    latencies(&mut page, "The first call after a pause", &paused);
    latencies(&mut page, "Sessions together", &together);
    latencies(&mut page, "Open loop", &open);
    what_was_measured(&mut page, paths, missing, records);
    page += "</body>\n</html>\n";
    Ok(page)
}

/// The records by what was done, each in one place.
struct Parts<'a> {
    calls: Vec<&'a Record>,
    paused: Vec<&'a Record>,
    together: Vec<&'a Record>,
    open: Vec<&'a Record>,
}

impl<'a> Parts<'a> {
    fn of(records: &'a [Record]) -> Self {
        let calls = check::call_after_call(records);
        let (open, closed): (Vec<_>, Vec<_>) = records.iter().partition(|record| record.load == "open");
        let (paused, on): (Vec<_>, Vec<_>) = closed.into_iter().partition(|record| check::is_after_a_pause(record));
        let together = on.into_iter().filter(|&record| !calls.iter().any(|&call| std::ptr::eq(call, record)));
        Self { together: together.collect(), calls, paused, open }
    }
}

fn latencies(page: &mut String, heading: &str, records: &[&Record]) {
    if records.is_empty() {
        return;
    }
    let mut head =
        vec!["path", "precision", ">threads", ">sessions", ">pause ms", ">calls", ">p50", ">p95", ">p99", ">p99.9"];
    head.extend([">p99.99", ">max", ">samples/s", ">device MB"]);
    let rows = records.iter().map(|it| {
        let mut row = vec![it.path.clone(), it.precision.clone()];
        row.extend([it.threads, it.sessions, it.idle_ms, it.calls].map(|number| number.to_string()));
        row.extend([it.p50_us, it.p95_us, it.p99_us, it.p999_us, it.p9999_us, it.max_us].map(us));
        row.extend([format!("{:.0}", it.inferences_per_s), format!("{:.1}", it.device_mb)]);
        row
    });
    let _ = writeln!(page, "<h2>{heading}</h2>");
    table(page, &head, rows);
}

fn what_was_measured(page: &mut String, paths: &[Path], missing: &[(Way, String)], records: &[Record]) {
    page.push_str("<h2>What was measured, and where</h2>\n");
    let described = paths.iter().map(|path| {
        let graph = path.session.why_no_graph().filter(|_| path.way.kind().on_gpu());
        let graph = graph.map_or_else(String::new, |why| format!("; without a CUDA graph: {why}"));
        vec![path.way.name().to_owned(), format!("{}{graph}", path.session.description())]
    });
    let left_out = missing.iter().map(|(way, why)| vec![way.name().to_owned(), format!("not measured: {why}")]);
    table(page, &["path", "~on"], described.chain(left_out));
    let Some(first) = records.first() else { return };
    let facts = [
        ("model", format!("{}, SHA-256 {}", first.model, first.model_sha256)),
        ("GPU", format!("{}, driver {}", first.gpu, first.driver)),
        ("run", first.run_id.clone()),
        ("commit", first.commit.clone()),
    ];
    page.push_str("<p></p>\n");
    table(page, &["", "~"], facts.into_iter().map(|(name, value)| vec![name.to_owned(), value]));
}

/// `>` before a name sends its column to the right, `~` lets it wrap.
fn table(page: &mut String, head: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let class = |name: &str| match name.chars().next() {
        Some('>') => " class=\"n\"",
        Some('~') => " class=\"wrap\"",
        _ => "",
    };
    page.push_str("<div class=\"wide\"><table>\n");
    if head.iter().any(|name| !name.trim_matches('~').is_empty()) {
        let cells = head.iter().map(|name| format!("<th{}>{}</th>", class(name), name.trim_matches(['>', '~'])));
        let _ = writeln!(page, "<thead><tr>{}</tr></thead>", cells.collect::<String>());
    }
    page.push_str("<tbody>\n");
    for row in rows {
        let cells = head.iter().zip(&row).map(|(name, cell)| format!("<td{}>{}</td>", class(name), escaped(cell)));
        let _ = writeln!(page, "<tr>{}</tr>", cells.collect::<String>());
    }
    page.push_str("</tbody>\n</table></div>\n");
}

/// For each record a line from its median to its longest call.
fn bars(records: &[&Record]) -> String {
    const LEFT: f64 = 150.0;
    const RIGHT: f64 = 1080.0;
    const ROW: f64 = 34.0;
    let lowest = records.iter().map(|it| it.p50_us).fold(f64::INFINITY, f64::min).max(1e-3);
    let highest = records.iter().map(|it| it.max_us).fold(lowest * 2.0, f64::max);
    let (low, high) = ((lowest * 0.8).log10(), (highest * 1.25).log10());
    let x = |us: f64| LEFT + (RIGHT - LEFT) * (us.max(1e-3).log10() - low) / (high - low);
    let height = ROW * records.len() as f64 + 40.0;
    let mut svg = format!("<svg viewBox=\"0 0 1100 {height}\" role=\"img\" font-size=\"14\" fill=\"var(--ink)\">\n");
    for tick in ticks(low, high) {
        let (x, y) = (x(tick), height - 32.0);
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{y}\" stroke=\"var(--line)\"/>\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"var(--faint)\">{tick} µs</text>",
            y + 20.0
        );
    }
    for (number, it) in records.iter().enumerate() {
        let y = ROW * (number as f64 + 0.5);
        let [p50, p99, max] = [it.p50_us, it.p99_us, it.max_us].map(x);
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <line x1=\"{p50:.1}\" x2=\"{max:.1}\" y1=\"{y}\" y2=\"{y}\" stroke=\"var(--max)\" stroke-width=\"3\"/>\
             <circle cx=\"{p50:.1}\" cy=\"{y}\" r=\"6\" fill=\"var(--p50)\"><title>p50 {}</title></circle>\
             <circle cx=\"{p99:.1}\" cy=\"{y}\" r=\"6\" fill=\"var(--p99)\"><title>p99 {}</title></circle>",
            LEFT - 16.0,
            y + 5.0,
            escaped(&label(it)),
            us(it.p50_us),
            us(it.p99_us)
        );
    }
    svg + "</svg>\n"
}

/// A path by itself, as no other record of its kind is called.
fn label(record: &Record) -> String {
    match record.threads {
        1 => record.path.clone(),
        threads => format!("{}, {threads} threads", record.path),
    }
}

/// 1, 2 and 5 times the powers of ten between two logarithms.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let powers = low.floor() as i32..=high.ceil() as i32;
    let all = powers.flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * 10_f64.powi(power)));
    // Without what multiplying has left behind the last digit.
    let all = all.map(|tick| (tick * 1e6).round() / 1e6);
    all.filter(|tick| (low..=high).contains(&tick.log10())).collect()
}

/// A plot's white and black become the page's paper and ink.
fn themed(svg: &str) -> String {
    let svg = svg.replace("\"#FFFFFF\"", "\"var(--paper)\"").replace("\"#000000\"", "\"var(--ink)\"");
    // A size of its own would keep it from fitting the page.
    svg.replacen("<svg width=\"1100\" height=\"620\"", "<svg", 1)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_is_no_markup() {
        assert_eq!(escaped("<b a=\"1\">&"), "&lt;b a=&quot;1&quot;&gt;&amp;");
    }

    #[test]
    fn records_stand_where_they_belong() {
        let record = |path: &str, sessions: u64, idle_ms: u64, load: &str, p50_us: f64| Record {
            sessions,
            idle_ms,
            load: load.to_owned(),
            ..check::tests::record("1", path, p50_us, 2.0 * p50_us)
        };
        let records = [
            record("tickrt", 1, 0, "closed", 1.0),
            record("ort-cpu", 1, 0, "closed", 2.0),
            record("tickrt", 1, 100, "closed", 3.0),
            record("tickrt kept warm", 1, 0, "closed", 4.0),
            record("tickrt", 1, 0, "closed", 5.0),
            record("tickrt", 4, 0, "closed", 6.0),
            record("tickrt", 1, 0, "open", 7.0),
        ];
        let parts = Parts::of(&records);
        let p50 = |records: &[&Record]| records.iter().map(|record| record.p50_us).collect::<Vec<_>>();
        assert_eq!((p50(&parts.calls), p50(&parts.paused)), (vec![1.0, 2.0], vec![3.0, 4.0]));
        assert_eq!((p50(&parts.together), p50(&parts.open)), (vec![5.0, 6.0], vec![7.0]));
    }

    #[test]
    fn ticks_lie_within() {
        assert_eq!(ticks(0.5, 2.0), [5.0, 10.0, 20.0, 50.0, 100.0]);
    }
}
