//! `tickrt run`: samples in, answers out, and who gave them.

mod parity;
mod stream;

use std::path::PathBuf;

use tickrt::SessionConfig;
use tickrt::backend::Signature;
use tickrt::data::{Array, Feed};
use tickrt::journal::{Journal, JournalConfig, WhenFull};

use crate::answers::{self, Answers};
use crate::args::NamedFile;
use crate::chain::{self, ChainArgs};
use crate::exit::{Failure, Outcome};
use crate::table;

const EXAMPLE: &str = "\
Example:
  tickrt run --engine models/toy_cnn.engine --onnx models/toy_cnn.onnx \\
      --chain tensorrt,ort-cuda,ort-cpu \\
      --input models/data/nasdaq_windows.npy \\
      --labels models/data/nasdaq_labels.npy --output scores.npy

  tickrt run --onnx models/mlp_dynamic.onnx --parity=64 \\
      --normalization models/mlp_dynamic.normalization.json \\
      --input models/data/nasdaq_windows.npy

  tickrt run --engine models/mlp.engine --stream --input years.npy \\
      --output scores.npy

Without --chain: tensorrt for --engine, then ort-cuda and ort-cpu for --onnx.
A file that is damaged ends the run; a GPU or library that is missing moves the chain on, and the reason is \
printed.";

/// Ask a network about samples: one at a time, through a chain of backends
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    #[command(flatten)]
    chain: ChainArgs,
    /// Samples for an input, one or many along axis 0: .npy, or raw elements in the input's type. NAME:FILE where there
    /// are several inputs
    #[arg(long, visible_alias = "loadInputs", value_name = "FILE", required = true, value_delimiter = ',')]
    input: Vec<NamedFile>,
    /// Where the answers go, as .npy. NAME:FILE for an output other than the first
    #[arg(long, value_name = "FILE")]
    output: Vec<NamedFile>,
    /// The right classes, as .npy of integers: prints how many answers are right
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Compute the samples in batches as well, the largest of the engine's profiles or so many, and compare bits and
    /// decisions; ends with 1 if a decision differs
    #[arg(long, value_name = "BATCH", num_args = 0..=1, default_missing_value = "0", require_equals = true, conflicts_with = "shapes")]
    parity: Option<u32>,
    /// For data larger than memory: read piece by piece, computed in the largest batches on every GPU, written to --output
    /// as it comes. What is killed goes on where it was when the same command is given again. --device counts where there is
    /// one GPU alone
    #[arg(long, conflicts_with_all = ["labels", "parity", "journal", "metrics"])]
    stream: bool,
    /// Samples a call of --stream, where the network leaves that open; the largest of the engine's profiles without
    #[arg(long, value_name = "N", requires = "stream", conflicts_with = "shapes", value_parser = clap::value_parser!(u32).range(1..))]
    batch: Option<u32>,
    /// Serve metrics for Prometheus at this address while it runs, as 127.0.0.1:9464
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<String>,
    /// Keep every call in this new file: see `tickrt journal`
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
}

/// Runs it.
pub fn main(args: &Args) -> Outcome {
    if args.stream {
        return stream::main(args);
    }
    let kinds = args.chain.kinds()?;
    let mut config = args.chain.config()?;
    if args.parity.is_some() {
        // The live path: one sample a call, whatever the engine was tuned for.
        let signature = args.chain.predictor(&kinds, &config)?.session().signature().clone();
        config = SessionConfig { shapes: vec![parity::shapes(&signature, 1)?], ..config };
    }
    let mut predictor = args.chain.predictor(&kinds, &config)?;
    let watched = vec![("run".to_owned(), predictor.counters())];
    let _metrics = chain::serve_metrics(args.metrics.as_deref(), watched, args.chain.device)?;
    let signature = predictor.session().signature().clone();
    let arrays = answers::read_arrays(&args.input, &signature)?;
    let feed = Feed::new(&signature, arrays.clone())?;
    let outputs = outputs(args, &signature)?;
    let labels = args.labels.as_ref().map(Array::read_npy).transpose()?;
    // Nothing is to be left out of a journal of samples that can wait.
    let kept = JournalConfig { when_full: WhenFull::Block, ..JournalConfig::default() };
    let journal = args.journal.as_ref().map(|file| predictor.journal_to(file, &kept)).transpose()?;
    let answers = answers::answer(&mut predictor, &feed)?;
    let journaled = journal.map(Journal::finish).transpose()?;
    // Before anything is printed: a run that cannot keep its answers has no answers.
    for (file, &number) in args.output.iter().zip(&outputs) {
        answers.outputs[number].write_npy(&file.path)?;
    }
    let mut facts = answers::who_answers(&predictor);
    let normalizations = config.normalizations.clone().unwrap_or_default();
    if normalizations.is_empty() {
        facts.push(("normalisation", "none".to_owned()));
    }
    facts.extend(normalizations.iter().map(|it| ("normalisation", format!("of {}, from {}", it.input, it.input_type))));
    if answers.answered.len() > 1 {
        let shares = answers.answered.iter().map(|(kind, count)| format!("{kind} {count}"));
        facts.push(("answered", shares.collect::<Vec<_>>().join(", ")));
    }
    facts.push(("calls", feed.calls().to_string()));
    facts.push(("latency", answers::latency_line(&answers.latencies)));
    facts.extend(classes(&answers.outputs[0], labels.as_ref(), &[])?.facts);
    for (file, &number) in args.output.iter().zip(&outputs) {
        let shape = answers.outputs[number].shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
        let name = &signature.outputs[number].name;
        facts.push(("wrote", format!("{name} {shape} to {}", file.path.display())));
    }
    if let (Some(file), Some(written)) = (&args.journal, journaled) {
        facts.push(("journal", format!("{} calls in {}", written.calls, file.display())));
    }
    table::facts(facts);
    if args.output.is_empty() {
        print_some(&answers, &signature);
    }
    if args.parity.is_some() {
        let kind = predictor.active();
        let batch = parity::largest_batch(&args.chain, kind, args.parity)?;
        let batched = SessionConfig { shapes: vec![parity::shapes(&signature, batch)?], ..config };
        parity::check(&args.chain, kind, &batched, batch, &arrays, &answers)?;
    }
    Ok(())
}

/// The number of the output that each file is for.
fn outputs(args: &Args, signature: &Signature) -> Outcome<Vec<usize>> {
    let whole = |file: &NamedFile| std::path::absolute(&file.path).unwrap_or_else(|_| file.path.clone());
    for (place, file) in args.output.iter().enumerate() {
        if args.output[..place].iter().any(|earlier| whole(earlier) == whole(file)) {
            let path = file.path.display();
            return Err(Failure::usage(format!("--output: {path} is named twice; give each output a file of its own")));
        }
    }
    args.output.iter().map(|file| output(file, signature)).collect()
}

fn output(file: &NamedFile, signature: &Signature) -> Outcome<usize> {
    let Some(name) = &file.name else { return Ok(0) };
    signature.outputs.iter().position(|output| output.name == *name).ok_or_else(|| {
        let names: Vec<&str> = signature.outputs.iter().map(|output| output.name.as_str()).collect();
        Failure::usage(format!("the network has no output `{name}`: its outputs are {}", names.join(", ")))
    })
}

/// What the classes of some answers are.
pub struct Classes {
    /// To print.
    pub facts: Vec<(&'static str, String)>,
    /// The share that is right, of 1; none without labels.
    pub accuracy: Option<f64>,
}

/// Counts the classes in an output with a row of scores a sample, and how many are `labels`.
pub fn classes(scores: &Array, labels: Option<&Array>, names: &[&str]) -> Outcome<Classes> {
    let samples = scores.shape[0];
    let count = scores.values.len() / samples.max(1);
    if count < 2 {
        let facts = labels.map(|_| ("accuracy", "none: an answer is a single number, no class".to_owned()));
        return Ok(Classes { facts: facts.into_iter().collect(), accuracy: None });
    }
    let answers: Vec<usize> =
        (0..samples).map(|sample| scores.values.argmax(sample * count..(sample + 1) * count)).collect();
    // Thousands of scores are no classes that anybody wants to see counted.
    let mut facts = Vec::new();
    if count <= 20 {
        let shares = (0..count).map(|class| {
            let answered = answers.iter().filter(|&&answer| answer == class).count();
            let name = names.get(class).map_or_else(|| class.to_string(), ToString::to_string);
            format!("{name}: {answered} ({})", table::percent(answered, samples))
        });
        facts.push(("classes", shares.collect::<Vec<_>>().join(", ")));
    }
    let Some(labels) = labels else { return Ok(Classes { facts, accuracy: None }) };
    if labels.values.len() != samples {
        return Err(Failure::usage(format!(
            "the labels: expected {samples}, one a sample, got {}",
            labels.values.len()
        )));
    }
    let right =
        answers.iter().enumerate().filter(|&(sample, &class)| labels.values.get(sample) == class as f64).count();
    facts.push(("accuracy", format!("{} ({right} of {samples})", table::percent(right, samples))));
    Ok(Classes { facts, accuracy: Some(right as f64 / samples.max(1) as f64) })
}

/// The first few answers of the first output.
fn print_some(answers: &Answers, signature: &Signature) {
    const SAMPLES: usize = 3;
    const ELEMENTS: usize = 8;
    let scores = &answers.outputs[0];
    let samples = scores.shape[0];
    let count = scores.values.len() / samples.max(1);
    println!("{}:", signature.outputs[0].name);
    for sample in 0..samples.min(SAMPLES) {
        let values =
            (0..count.min(ELEMENTS)).map(|element| format!("{:.6}", scores.values.get(sample * count + element)));
        let more = if count > ELEMENTS { " ..." } else { "" };
        println!("  {sample:>6}  {}{more}", values.collect::<Vec<_>>().join("  "));
    }
    if samples > SAMPLES {
        println!("  and {} more: --output FILE keeps them all", samples - SAMPLES);
    }
}
