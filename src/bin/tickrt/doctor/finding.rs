//! One row of the page: what was seen, what was expected, and what to do.

use serde::Serialize;

use crate::table::Table;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and would be faster or steadier otherwise.
    Tune,
    /// It does not work.
    Wrong,
    /// The machine does not tell.
    Unknown,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// `host`, `gpu`, `library`, `file` or `measured`.
    pub area: &'static str,
    /// The thing.
    pub what: &'static str,
    /// How bad it is.
    pub verdict: Verdict,
    /// What was seen.
    pub seen: String,
    /// What would be best.
    pub expected: String,
    /// What to do about it; empty where nothing is to be done.
    pub fix: String,
}

impl Finding {
    /// It is `seen`, and that is well.
    pub fn ok(area: &'static str, what: &'static str, seen: impl Into<String>) -> Self {
        let (expected, fix) = (String::new(), String::new());
        Self { area, what, verdict: Verdict::Ok, seen: seen.into(), expected, fix }
    }

    /// It could be better.
    pub fn tune(area: &'static str, what: &'static str, seen: impl Into<String>) -> Self {
        Self { verdict: Verdict::Tune, ..Self::ok(area, what, seen) }
    }

    /// It does not work.
    pub fn wrong(area: &'static str, what: &'static str, seen: impl Into<String>) -> Self {
        Self { verdict: Verdict::Wrong, ..Self::ok(area, what, seen) }
    }

    /// It cannot be seen, because of `seen`.
    pub fn unknown(area: &'static str, what: &'static str, seen: impl Into<String>) -> Self {
        Self { verdict: Verdict::Unknown, ..Self::ok(area, what, seen) }
    }

    /// What would be best.
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = expected.into();
        self
    }

    /// What to do about it.
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }
}

/// The page: a table of all, then a line for each fix, the worst first.
pub fn print(findings: &[Finding]) {
    let mut table = Table::new(&["", "what", "verdict", "seen"]);
    let mut area = "";
    for finding in findings {
        let shown = if finding.area == area { "" } else { finding.area };
        area = finding.area;
        // Native libraries tell stories of several lines.
        let seen = finding.seen.lines().next().unwrap_or_default().to_owned();
        table.row([shown.to_owned(), finding.what.to_owned(), word(finding.verdict).to_owned(), seen]);
    }
    table.print();
    for (verdict, title) in [(Verdict::Wrong, "wrong"), (Verdict::Tune, "to be tuned")] {
        let of_it: Vec<&Finding> = findings.iter().filter(|finding| finding.verdict == verdict).collect();
        if of_it.is_empty() {
            continue;
        }
        println!("\n{title}");
        for finding in of_it {
            let expected = Some(&finding.expected).filter(|text| !text.is_empty());
            let expected = expected.map(|text| format!(" expected {text};")).unwrap_or_default();
            println!("  {}:{expected} {}", finding.what, finding.fix);
        }
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Tune => "tune",
        Verdict::Wrong => "WRONG",
        Verdict::Unknown => "unknown",
    }
}
