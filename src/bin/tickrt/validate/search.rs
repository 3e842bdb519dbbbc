//! Which nodes to keep in FP32 so that a precision loses no more than it may: how much each loses alone, then the worst
//! kept one after the other.

use super::candidate::Bench;
use super::table::{self, Found, Row};
use crate::exit::{Failure, Outcome};
use crate::table::Table;

/// Searches for each precision that failed, and prints the flags that pass.
pub fn run(bench: &mut Bench<'_>, failed: &[(Row, f64)], most: f64, kept: &[String]) -> Outcome {
    let mut without = Vec::new();
    for (row, drop) in failed {
        if row.found.is_none() {
            without.push((row.clone(), *drop));
            continue;
        }
        match one(bench, row, most, kept)? {
            Some(flags) => println!("\n{} passes with:\n  {flags}", row.candidate),
            None => without.push((row.clone(), *drop)),
        }
    }
    if without.is_empty() { Ok(()) } else { Err(Failure::check(table::why_failed(&without, most))) }
}

/// The flags with which the row's candidate passes, if there are any.
fn one(bench: &mut Bench<'_>, row: &Row, most: f64, kept: &[String]) -> Outcome<Option<String>> {
    let nodes = heavy_nodes(bench, kept);
    let reference = bench.reference_score;
    let mut sensitivities = Vec::new();
    for node in &nodes {
        // This one alone in the lower precision: all others are kept.
        let others: Vec<String> = nodes.iter().chain(kept).filter(|other| *other != node).cloned().collect();
        let alone = bench.row(&row.candidate, &others)?;
        let Some(found) = alone.found else { continue };
        sensitivities.push((node.clone(), table::loss(&found, reference), found.mean_error));
    }
    // Few samples change their class for one node: the mean error tells the rest apart.
    let worse = |(_, loss, error): &(String, f64, f64)| (*loss, *error);
    sensitivities.sort_by(|a, b| worse(b).0.total_cmp(&worse(a).0).then(worse(b).1.total_cmp(&worse(a).1)));
    println!("\n{}: each node alone", row.candidate);
    let mut printed = Table::new(&["node", ">loses", ">mean error"]);
    for (node, loss, error) in &sensitivities {
        printed.row([node.clone(), format!("{:.2} %", 100.0 * loss), format!("{error:.2e}")]);
    }
    printed.print();
    let mut keep = kept.to_vec();
    // The last one that is left would leave nothing in the lower precision.
    for (node, ..) in sensitivities.iter().take(sensitivities.len().saturating_sub(1)) {
        keep.push(node.clone());
        let tried = bench.row(&row.candidate, &keep)?;
        if tried.found.as_ref().is_some_and(|found: &Found| table::loss(found, reference) <= most) {
            let method = row.candidate.method.map_or_else(String::new, |method| format!(" --calib-method={method}"));
            let mode = if row.by == "qdq" { " --int8-mode=qdq" } else { "" };
            return Ok(Some(format!("{}{method}{mode} --keep-fp32 {}", row.candidate.kind.flags(), keep.join(" "))));
        }
    }
    Ok(None)
}

/// Nodes that multiply by weights: the ones that precision is about.
fn heavy_nodes(bench: &Bench<'_>, kept: &[String]) -> Vec<String> {
    let heavy =
        |operator: &str| matches!(operator, "Conv" | "ConvTranspose" | "Gemm" | "MatMul" | "LSTM" | "GRU" | "RNN");
    let nodes = bench.model.nodes().into_iter().filter(|(_, operator)| heavy(operator)).map(|(name, _)| name);
    nodes.filter(|name| !kept.contains(name)).collect()
}
