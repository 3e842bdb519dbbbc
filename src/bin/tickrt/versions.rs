//! `tickrt versions`: what is compiled in, what is found here and where, what will be used and why.

use serde_json::json;
use tickrt::backend::ort::OnnxRuntime;
use tickrt::resident::nvrtc::Nvrtc;
use tickrt::{Device, Library, Surveyed};

use crate::exit::Outcome;
use crate::table::{self, Table};

const EXAMPLE: &str = "\
Example:
  tickrt versions
  TICKRT_TENSORRT=trt8,rtx tickrt versions
  TICKRT_TENSORRT=/opt/tensorrt-8.6 tickrt versions --json

Ends with 0 whatever is there.";

/// See which libraries are compiled in, found and used
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub fn main(args: &Args) -> Outcome {
    let (survey, preferred) = (Library::survey(), Library::preferred());
    let (runtime, gpu) = (OnnxRuntime::load(None), Device::open(0));
    if args.json {
        println!("{:#}", as_json(&survey, &preferred, &runtime, &gpu));
        return Ok(());
    }
    let mut table = Table::new(&["flavour", "headers", "library", "file, or why not"]);
    for one in &survey {
        let headers = one.headers.map_or_else(|| "not compiled in".to_owned(), |version| version.number());
        let (version, file) = match one.usable() {
            Some((version, path)) => (version.number(), path.display().to_string()),
            None => ("none".to_owned(), reason(one)),
        };
        table.row([one.flavour.name().to_owned(), headers, version, file]);
    }
    table.print();
    println!();
    let used = match &preferred {
        Ok(library) => format!("{} ({}): {}", library.version(), library.path().display(), why(&survey, library)),
        Err(error) => format!("none: {error}"),
    };
    let runtime = match &runtime {
        Ok(runtime) => format!("{} ({})", runtime.version(), runtime.path().display()),
        Err(error) => format!("none: {error}"),
    };
    let gpu = match &gpu {
        Ok(gpu) => gpu.name().to_owned(),
        Err(error) => format!("none: {error}"),
    };
    let nvrtc = match Nvrtc::open() {
        Ok(nvrtc) => format!("{}.{} ({})", nvrtc.version().0, nvrtc.version().1, nvrtc.path()),
        Err(_) => "none: without it `tickrt build --resident` compiles nothing".to_owned(),
    };
    table::facts([
        ("tickrt", env!("CARGO_PKG_VERSION").to_owned()),
        ("uses", used),
        ("onnx runtime", runtime),
        ("nvrtc", nvrtc),
        ("gpu", gpu),
    ]);
    Ok(())
}

/// Why a flavour is not usable, at its last place: there the dynamic linker had its say.
fn reason(one: &Surveyed) -> String {
    one.places.last().and_then(|place| place.found.as_ref().err()).map_or_else(String::new, Clone::clone)
}

fn why(survey: &[Surveyed], library: &Library) -> String {
    let order = std::env::var("TICKRT_TENSORRT").ok().filter(|order| !order.is_empty());
    if let Some(order) = order {
        return format!("the first of TICKRT_TENSORRT={order} that opens");
    }
    let before: Vec<&str> =
        survey.iter().take_while(|one| one.flavour != library.flavour()).map(|one| one.flavour.name()).collect();
    match &before[..] {
        [] => "the first in order".to_owned(),
        before => format!("the first in order that opens, after {}", before.join(", ")),
    }
}

fn as_json(
    survey: &[Surveyed],
    preferred: &tickrt::Result<Library>,
    runtime: &tickrt::Result<&'static OnnxRuntime>,
    gpu: &tickrt::Result<std::sync::Arc<Device>>,
) -> serde_json::Value {
    let flavours = survey.iter().map(|one| {
        let places = one.places.iter().map(|place| match &place.found {
            Ok((version, path)) => json!({ "name": place.name, "version": version.number(), "path": path }),
            Err(reason) => json!({ "name": place.name, "reason": reason }),
        });
        let headers = one.headers.map(tickrt::Version::number);
        json!({ "flavour": one.flavour, "headers": headers, "places": places.collect::<Vec<_>>() })
    });
    let uses = preferred.as_ref().map_or_else(
        |error| json!({ "reason": error.to_string() }),
        |library| json!({ "flavour": library.flavour(), "version": library.version().number(), "path": library.path() }),
    );
    json!({
        "tickrt": env!("CARGO_PKG_VERSION"),
        "flavours": flavours.collect::<Vec<_>>(),
        "uses": uses,
        "onnxruntime": runtime.as_ref().ok().map(|runtime| json!({ "version": runtime.version(), "path": runtime.path() })),
        "gpu": gpu.as_ref().ok().map(|gpu| gpu.name()),
    })
}
