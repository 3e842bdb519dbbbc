//! What this program is linked with, and that it works: for tests/static_link.rs.

use tickrt::backend::ort::OnnxRuntime;
use tickrt::{Builder, BuilderConfig, Library, OptimizationProfile, Preference};

fn main() {
    for surveyed in Library::survey() {
        for place in surveyed.places.iter().filter(|place| place.name == "(linked in)") {
            println!(
                "{} {} {:?}",
                surveyed.flavour,
                place.name,
                place.found.as_ref().map(|(version, _)| version.number())
            );
        }
    }
    match Library::open_any(&Preference::Any) {
        Ok(library) => {
            println!("tensorrt {} of {}", library.version(), library.path().display());
            let built = Builder::new(&library).build_smoke_network(&BuilderConfig::new());
            println!("smoke {:?}", built.map(|built| built.bytes.len()));
            let profile = OptimizationProfile::new().tensor("input", &[1, 4], &[1, 4], &[2, 4]);
            let config = BuilderConfig::new().profile(profile);
            let parsed = Builder::new(&library).build_file(std::env::args().nth(1).unwrap(), &config);
            println!("parsed {:?}", parsed.map(|built| built.bytes.len()));
        }
        Err(error) => println!("no tensorrt: {error}"),
    }
    match OnnxRuntime::load(None) {
        Ok(runtime) => {
            println!("onnxruntime {} of {}", runtime.version(), runtime.path().display());
            println!(
                "has {} {}",
                runtime.has_provider("StandInProvider"),
                runtime.has_provider("CUDAExecutionProvider")
            );
        }
        Err(error) => println!("no onnxruntime: {error}"),
    }
    // The second to ask may name another one no more than the first.
    if let Err(error) = OnnxRuntime::load(Some("/other/libonnxruntime.so".as_ref())) {
        println!("another onnxruntime: {error}");
    }
}
