//! Where a resident engine's time goes, of one that was built with --stamps: mean cycles a call by stage.

use std::time::Duration;

use super::path::Path;
use crate::table::Table;

/// How long a turn may take to end that was told to: its sums are there then.
const ENDING: Duration = Duration::from_millis(20);

/// Takes down what its turns have added up to, so that warm-up is not in the means.
pub fn begin(path: &mut Path) {
    if has_stamps(path) {
        std::thread::sleep(ENDING);
        path.sums_before = path.session.turns().unwrap_or_default();
    }
}

/// Prints the table, of an engine that has it.
pub fn print(path: &Path) {
    let Some(facts) = path.facts.as_ref().filter(|_| has_stamps(path)) else { return };
    std::thread::sleep(ENDING);
    let sums = path.session.turns().unwrap_or_default().since(&path.sums_before);
    let parts = facts.parts();
    println!(
        "\n{}: mean cycles a call of {} calls in {} turns, of which {} found their first call waiting and {} were stopped",
        path.way.name(),
        sums.calls,
        sums.turns,
        sums.met,
        sums.stopped
    );
    let mut table = Table::new(&[">cycles", "stage"]);
    parts.before.iter().for_each(|stage| table.row(["before", stage]));
    parts.within.iter().take(1).for_each(|stage| table.row(["0", stage]));
    let means = parts.mean_cycles(&sums);
    means.iter().for_each(|(stage, cycles)| table.row([format!("{cycles:.0}"), stage.clone()]));
    parts.after.iter().for_each(|stage| table.row(["after", stage]));
    let total: f64 = means.iter().map(|(_, cycles)| cycles).sum();
    table.row([format!("{total:.0}"), "from the input's arrival to the last stage's end".to_owned()]);
    table.print();
}

fn has_stamps(path: &Path) -> bool {
    path.facts.as_ref().is_some_and(|facts| facts.stamps)
}
