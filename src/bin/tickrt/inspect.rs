//! `tickrt inspect`: what an engine or a model is, without a GPU as far as that goes.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tickrt::onnx::Model;
use tickrt::resident::Artefact;
use tickrt::{Engine, IoMode, OptimizationProfile, Plan, TensorInfo, format_shape};

use crate::exit::{Failure, Outcome};
use crate::table::{self, Table};

const EXAMPLE: &str = "\
Example:
  tickrt inspect models/toy_cnn.engine
  tickrt inspect models/toy_cnn.onnx --json

Layers and activation memory are known to TensorRT alone, which tells them of an engine that it has loaded: on a machine \
without its GPU they are left out, with the reason. Build with --profilingVerbosity=detailed to see more of them.";

/// Show tensors, profiles, layers, memory and versions of an engine or a model
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// An engine or an .onnx file
    #[arg(value_name = "FILE", required_unless_present_any = ["engine", "onnx"])]
    file: Option<PathBuf>,
    /// The engine
    #[arg(long, visible_alias = "loadEngine", value_name = "FILE", conflicts_with_all = ["file", "onnx"])]
    engine: Option<PathBuf>,
    /// The model
    #[arg(long, value_name = "FILE", conflicts_with_all = ["file", "engine"])]
    onnx: Option<PathBuf>,
    /// List a model's nodes, as --keep-fp32 names them
    #[arg(long)]
    nodes: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Look at an engine that has no sidecar, such as trtexec's, and let TensorRT load it
    #[arg(long, alias = "allow_unverified")]
    allow_unverified: bool,
    /// Which GPU, in CUDA's order
    #[arg(long, value_name = "N", default_value_t = 0)]
    device: usize,
}

/// Runs it.
pub fn main(args: &Args) -> Outcome {
    let is_model = |path: &Path| path.extension().is_some_and(|extension| extension == "onnx");
    match (&args.file, &args.engine, &args.onnx) {
        (Some(path), _, _) if is_model(path) => model(path, args),
        (_, _, Some(path)) => model(path, args),
        (Some(path), _, _) | (_, Some(path), _) if Artefact::is_at(path) => resident(path, args),
        (Some(path), _, _) | (_, Some(path), _) => engine(path, args),
        _ => Err(Failure::usage("name an engine or an .onnx file")),
    }
}

fn model(path: &Path, args: &Args) -> Outcome {
    let model = Model::read(path)?;
    let sha256: String = model.sha256().iter().map(|byte| format!("{byte:02x}")).collect();
    if args.json {
        println!(
            "{:#}",
            json!({
                "onnx": path, "bytes": model.bytes().len(), "sha256": sha256, "opset": model.opset(),
                "nodes": model.node_count(), "operators": model.operators(), "tensors": model.tensors(),
                "external_files": model.external_files(),
            })
        );
        return Ok(());
    }
    println!("{}", path.display());
    let mut facts = vec![
        ("bytes", model.bytes().len().to_string()),
        ("sha256", sha256),
        ("opset", model.opset().to_string()),
        ("nodes", model.node_count().to_string()),
    ];
    facts.extend(model.external_files().iter().map(|file| ("weights in", file.display().to_string())));
    table::facts(facts);
    print_tensors(model.tensors());
    println!("\noperators");
    let mut operators = Table::new(&["operator", ">nodes"]);
    for (operator, nodes) in model.operators() {
        operators.row([operator.to_owned(), nodes.to_string()]);
    }
    operators.print();
    if args.nodes {
        println!("\nnodes");
        let mut nodes = Table::new(&["node", "operator"]);
        for (name, operator) in model.nodes() {
            nodes.row([name, operator.to_owned()]);
        }
        nodes.print();
    }
    Ok(())
}

fn resident(path: &Path, args: &Args) -> Outcome {
    let artefact = Artefact::read(path)?;
    let facts = artefact.facts();
    if args.json {
        println!(
            "{:#}",
            json!({
                "resident": path, "bytes": artefact.file_bytes(), "sha256": table::hex(&artefact.sha256()),
                "code_bytes": artefact.cubin().len(), "sidecar": facts, "rebuild": artefact.rebuild_command(),
            })
        );
        return Ok(());
    }
    println!("{}", path.display());
    let lines = [
        (
            "resident engine",
            format!("{} bytes, {} of them machine code", artefact.file_bytes(), artefact.cubin().len()),
        ),
        ("sha256", table::hex(&artefact.sha256())),
    ];
    table::facts(lines.into_iter().chain(facts.lines()));
    print_tensors(&facts.tensors());
    println!("\nstages");
    let mut stages = Table::new(&[">number", "what it computes"]);
    facts.stages.iter().enumerate().for_each(|(number, stage)| stages.row([number.to_string(), stage.clone()]));
    stages.print();
    Ok(())
}

fn engine(path: &Path, args: &Args) -> Outcome {
    let plan = if args.allow_unverified { Plan::read_unverified(path)? } else { Plan::read(path)? };
    let loaded = Engine::from_plan(&plan, args.device);
    if args.json {
        println!("{:#}", engine_json(path, &plan, &loaded));
        return Ok(());
    }
    println!("{}", path.display());
    // Profiles have a table of their own.
    table::facts(plan.facts().into_iter().filter(|(name, _)| *name != "profile"));
    let tensors =
        loaded.as_ref().map(Engine::tensors).ok().or_else(|| plan.sidecar().map(|sidecar| &sidecar.tensors[..]));
    print_tensors(tensors.unwrap_or_default());
    print_profiles(plan.sidecar().map_or(&[], |sidecar| &sidecar.profiles));
    match &loaded {
        Ok(engine) => print_loaded(engine),
        Err(error) => println!("\nlayers, memory\n  not known here: {error}"),
    }
    Ok(())
}

fn engine_json(path: &Path, plan: &Plan, loaded: &tickrt::Result<Engine>) -> Value {
    let layers = |engine: &Engine| serde_json::from_str(&engine.layers_json()).unwrap_or(Value::Null);
    let sha256: String = plan.sha256().iter().map(|byte| format!("{byte:02x}")).collect();
    let mut object = json!({
        "engine": path, "bytes": plan.bytes().len(), "sha256": sha256,
        "flavour": plan.flavour(), "version": plan.version().number(), "sidecar": plan.sidecar(),
        "tensors": plan.sidecar().map(|sidecar| &sidecar.tensors), "rebuild": plan.rebuild_command(),
        "layers": null, "layer_count": null, "activation_bytes": null, "not_loaded": null,
    });
    match loaded {
        Ok(engine) => {
            object["tensors"] = json!(engine.tensors());
            object["layers"] = layers(engine);
            object["layer_count"] = engine.layer_count().into();
            object["activation_bytes"] = engine.activation_bytes().into();
        }
        Err(error) => object["not_loaded"] = error.to_string().into(),
    }
    object
}

fn print_tensors(tensors: &[TensorInfo]) {
    if tensors.is_empty() {
        return;
    }
    println!("\ntensors");
    let mut table = Table::new(&["mode", "name", "type", "shape", ">elements"]);
    for tensor in tensors {
        let mode = if tensor.mode == IoMode::Input { "input" } else { "output" };
        let elements = tensor.elements().map_or_else(|| "dynamic".to_owned(), |elements| elements.to_string());
        table.row([
            mode.to_owned(),
            tensor.name.clone(),
            tensor.data_type.to_string(),
            format_shape(&tensor.shape),
            elements,
        ]);
    }
    table.print();
}

fn print_profiles(profiles: &[OptimizationProfile]) {
    if profiles.is_empty() {
        return;
    }
    println!("\nprofiles");
    let mut table = Table::new(&[">number", "input", "min", "opt", "max"]);
    for (number, profile) in profiles.iter().enumerate() {
        for (name, range) in &profile.shapes {
            let [min, opt, max] = [&range.min, &range.opt, &range.max].map(|shape| format_shape(shape));
            table.row([number.to_string(), name.clone(), min, opt, max]);
        }
    }
    table.print();
}

fn print_loaded(engine: &Engine) {
    println!("\nmemory");
    table::facts([
        ("activations", format!("{} a session", table::bytes(engine.activation_bytes()))),
        ("gpu", engine.device().name().to_owned()),
    ]);
    println!("\nlayers");
    let layers: Value = serde_json::from_str(&engine.layers_json()).unwrap_or(Value::Null);
    // TensorRT 8 gives an object with a list, names alone or objects in it.
    let layers = layers.get("Layers").unwrap_or(&layers).as_array().cloned().unwrap_or_default();
    if layers.is_empty() {
        println!("  {}, of which TensorRT tells nothing more", engine.layer_count());
        return;
    }
    let mut table = Table::new(&[">number", "name", "type", "tactic"]);
    for (number, layer) in layers.iter().enumerate() {
        let text = |key: &str| layer.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let name = layer.as_str().map_or_else(|| text("Name"), str::to_owned);
        table.row([number.to_string(), name, text("LayerType"), text("TacticName")]);
    }
    table.print();
}
