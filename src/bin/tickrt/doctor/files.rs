//! The engine and the model: whole, of one another, and for this machine.

use std::path::Path;

use tickrt::onnx::Model;
use tickrt::{Device, Library, Plan, Preference, Target};

use super::finding::Finding;

const AREA: &str = "file";

/// Those that were named.
pub fn look(engine: Option<&Path>, onnx: Option<&Path>, device: usize) -> Vec<Finding> {
    let plan = engine.map(Plan::read);
    let model = onnx.map(Model::read);
    let mut findings = Vec::new();
    if let Some(plan) = &plan {
        findings.push(match plan {
            Ok(plan) => fits(plan, device),
            Err(error) => Finding::wrong(AREA, "engine", error.to_string()).fix("build it again: `tickrt build`"),
        });
    }
    if let Some(model) = &model {
        findings.push(match model {
            Ok(model) => Finding::ok(AREA, "model", format!("{} nodes, opset {}", model.node_count(), model.opset())),
            Err(error) => Finding::wrong(AREA, "model", error.to_string()).fix("export it again"),
        });
    }
    if let (Some(Ok(plan)), Some(Ok(model))) = (&plan, &model) {
        findings.extend(of_one_another(plan, model));
    }
    findings
}

/// Against the library that it needs and the GPU, each as far as it is there.
fn fits(plan: &Plan, device: usize) -> Finding {
    const WHAT: &str = "engine";
    let gpu = Device::open(device).ok();
    let checked = Library::open_any(&Preference::Flavour(plan.flavour())).and_then(|library| {
        plan.check(&Target {
            flavour: library.flavour(),
            version: library.version(),
            compute_capability: gpu.as_ref().map(|gpu| gpu.compute_capability()),
            gpu_name: gpu.as_ref().map(|gpu| gpu.name().to_owned()),
        })
    });
    match (checked, &gpu) {
        (Err(error), _) => Finding::wrong(AREA, WHAT, error.to_string()).fix(format!("run {}", plan.rebuild_command())),
        (Ok(()), None) => Finding::ok(AREA, WHAT, format!("whole, for {}; no GPU to hold it against", plan.version())),
        (Ok(()), Some(gpu)) => Finding::ok(AREA, WHAT, format!("whole, for {} and {}", plan.version(), gpu.name())),
    }
}

fn of_one_another(plan: &Plan, model: &Model) -> Option<Finding> {
    const WHAT: &str = "engine and model";
    let built_from = plan.sidecar()?.onnx_sha256.as_ref()?;
    let here: String = model.sha256().iter().map(|byte| format!("{byte:02x}")).collect();
    if *built_from == here {
        return Some(Finding::ok(AREA, WHAT, "the engine was built from this model"));
    }
    let seen = format!("the engine was built from sha256 {built_from}, the model is {here}");
    let advice = "build the engine from this model, or name the model that it was built from";
    Some(Finding::wrong(AREA, WHAT, seen).expected("one model").fix(advice))
}
