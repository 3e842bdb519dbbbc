//! Resident engines as files for `benches/probes/engine.cu`, which runs them on a GPU without the library: NAME.cu (the
//! source), NAME.bin (constants), NAME.in (inputs as words), NAME.out (the plain executor's answers) and run.sh.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use tickrt::onnx::Model;
use tickrt::resident::Semantics;
use tickrt::resident::budget::{Hardware, WeightType, count};
use tickrt::resident::lower;
use tickrt::resident::network::Network;
use tickrt::resident::program::{Options, Program, program_with};
use tickrt::{Result, Shapes};

use crate::random_network::{Random, computed};
use crate::{plain, untouched};

/// Of the reference, in all samples of a model: some seconds on a slow machine.
const MULTIPLY_ADDS: u64 = 1_000_000_000;

pub struct Dump {
    folder: PathBuf,
    script: String,
}

impl Dump {
    pub fn new(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let script = "#!/bin/sh\n\
            # Runs every engine of this folder: ./run.sh PATH_OF_ENGINE [CALLS [TURN_MS]]. Kernels are compiled where no\n\
            # NAME.cubin lies beside. Goes on after one that fails.\n\
            cd \"$(dirname \"$0\")\" || exit 1\n\
            engine=$1 calls=${2:-200000} turn=${3:-50}\n\
            run() {\n  \
              name=$1; shift\n  \
              [ -e \"$name.cubin\" ] || nvcc -cubin -arch=sm_90a -std=c++17 -o \"$name.cubin\" \"$name.cu\" || return\n  \
              timeout 20 \"$engine\" \"$name\" \"$@\" || echo \"$name: exit $?\"\n\
            }\n";
        Self { folder: folder.to_owned(), script: script.to_owned() }
    }

    /// The model answering whole inputs, under the name `name`; a line about it if no program can be written.
    pub fn whole(&mut self, name: &str, model: &Path, blocks: Option<u32>, threads: Option<u32>) {
        let Ok(model) = Model::read(model) else { return println!("{name}: no {}", model.display()) };
        let network = lower(&model, &Shapes::new()).unwrap();
        let normalizer = untouched(&network, &model);
        let options = Options { blocks, threads, stamps: true, ..Options::default() };
        let Some(program) = written(name, program_with(&network, &normalizer, Hardware::H100, options)) else { return };
        let inputs = network.value(network.inputs[0]).count();
        let mut random = Random(17);
        let samples = (0..samples(&network)).map(|_| random.floats(inputs, 1.0)).collect::<Vec<_>>();
        let answers: Vec<Vec<f32>> = samples.iter().map(|sample| plain(&network, sample)).collect();
        self.files(name, &program, &samples.concat(), &answers.concat());
        let Program { blocks, clusters, threads, shared_bytes, state_bytes, .. } = program;
        let blocks = blocks * clusters;
        let (words, answers) = (normalizer.input_bytes().div_ceil(4), answers[0].len());
        let calls = if count(&network).multiply_adds() < 2_000_000 { "$calls" } else { "$((calls / 10))" };
        let line = format!("{blocks} {threads} {shared_bytes} {words} {answers} {calls} $turn 0 {state_bytes}");
        self.line(name, &line);
    }

    /// The model answering streams of rows that come round again: sample `i` is row `i`, its answer that of the window that
    /// ends with it.
    pub fn window(&mut self, name: &str, model: &Path, blocks: Option<u32>, (weights, gap_us): (WeightType, u32)) {
        let Ok(model) = Model::read(model) else { return println!("{name}: no {}", model.display()) };
        let network = lower(&model, &Shapes::new()).unwrap();
        let normalizer = untouched(&network, &model);
        let options = Options { blocks, weights, stamps: true, semantics: Semantics::Window, ..Options::default() };
        let Some(program) = written(name, program_with(&network, &normalizer, Hardware::H100, options)) else { return };
        let steps = network.value(network.inputs[0]).shape[0];
        let row = normalizer.count() / steps;
        let count = samples(&network);
        let rows = Random(17).floats(count * row, 1.0);
        let window = |newest: usize| -> Vec<f32> {
            let places = (newest + count * steps + 1 - steps..).take(steps);
            places.flat_map(|place| &rows[place % count * row..][..row]).copied().collect()
        };
        let expected = computed(&network, weights);
        let answers: Vec<Vec<f32>> = (0..count).map(|newest| plain(&expected, &window(newest))).collect();
        self.files(name, &program, &rows, &answers.concat());
        let Program { blocks, clusters, threads, shared_bytes, state_bytes, .. } = program;
        let blocks = blocks * clusters;
        let answers = answers[0].len();
        // With time for what is computed ahead, and as fast as it goes.
        for (part, gap_us) in [(gap_us / 40, gap_us), (gap_us / 10, 0)] {
            let what = format!("{blocks} {threads} {shared_bytes} {row} {answers}");
            self.line(name, &format!("{what} $((calls / {part})) $turn {steps} {state_bytes} {gap_us}"));
        }
    }

    fn files(&self, name: &str, program: &Program, input: &[f32], answers: &[f32]) {
        let write =
            |ending: &str, bytes: &[u8]| std::fs::write(self.folder.join(name.to_owned() + ending), bytes).unwrap();
        write(".cu", program.source.as_bytes());
        write(".bin", &program.constants);
        write(".in", bytemuck::cast_slice(input));
        write(".out", bytemuck::cast_slice(answers));
        write(".notes", (program.notes.join("\n") + "\n").as_bytes());
        std::fs::write(self.folder.join("run.sh"), &self.script).unwrap();
    }

    fn line(&mut self, name: &str, arguments: &str) {
        let _ = writeln!(self.script, "run {name} {arguments}");
        std::fs::write(self.folder.join("run.sh"), &self.script).unwrap();
        println!("{name}: {arguments}");
    }
}

fn samples(network: &Network) -> usize {
    (MULTIPLY_ADDS / count(network).multiply_adds().max(1)).clamp(4, 256) as usize
}

fn written(name: &str, program: Result<Program>) -> Option<Program> {
    program.map_err(|error| println!("{name}: {error}")).ok()
}
