//! `tickrt journal`: what a journal holds.

use std::path::{Path, PathBuf};

use serde_json::json;
use tickrt::data::{Array, Values};
use tickrt::journal::{JournalReader, JournaledCall, JournaledShape, JournaledTensor, Tail};
use tickrt::stats::Latencies;

use crate::answers;
use crate::exit::{self, Failure, Outcome};
use crate::table::{self, Table, hex};

const EXAMPLE: &str = "\
Example:
  tickrt journal calls.tickrt --calls 20
  tickrt journal calls.tickrt --json | jq 'select(.failure != null)'
  tickrt journal calls.tickrt --export answered/

A journal is kept by `tickrt run --journal FILE` or Predictor::journal_to.
Ends with 2 if the file is damaged before its end, after what could be read; a torn tail is told and is no error.";

/// List the calls of a journal, or export them
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// The journal
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How many of the last calls are listed
    #[arg(long, value_name = "N", default_value_t = 10)]
    calls: usize,
    /// Print every call as a line of JSON, without its tensors
    #[arg(long)]
    json: bool,
    /// Write the inputs and outputs of the calls that were answered into this folder, an .npy each
    #[arg(long, value_name = "FOLDER", conflicts_with = "json")]
    export: Option<PathBuf>,
    /// Of which announced shape the exported calls are
    #[arg(long, value_name = "N", default_value_t = 0, requires = "export")]
    shape: usize,
}

/// Runs it.
pub fn main(args: &Args) -> Outcome {
    let mut journal = JournalReader::open(&args.file)?;
    if args.json {
        return each(&mut journal, |call| {
            println!("{}", line(call));
            Ok(())
        });
    }
    let mut seen = Seen::new(args.calls);
    let mut exported = args.export.as_ref().map(|_| Exported::new(&journal, args.shape)).transpose()?;
    let read = each(&mut journal, |call| {
        seen.add(call);
        exported.as_mut().map_or(Ok(()), |exported| exported.add(call))
    });
    seen.print(&journal);
    if let (Some(exported), Some(folder)) = (exported, &args.export) {
        exported.write(folder)?;
    }
    read
}

/// Every call, and a word about a torn tail.
fn each(journal: &mut JournalReader, mut take: impl FnMut(&JournaledCall) -> Outcome) -> Outcome {
    while let Some(call) = journal.next_call()? {
        take(&call)?;
    }
    if let Tail::Torn { bytes } = journal.tail() {
        exit::note(format!(
            "the last {bytes} bytes are the beginning of a call: it was being written when the end came"
        ));
    }
    Ok(())
}

fn line(call: &JournaledCall) -> serde_json::Value {
    json!({
        "tag": call.tag,
        "sequence": call.sequence,
        "submitted_unix_ns": call.submitted_unix_ns,
        "latency_ns": u64::try_from(call.latency.as_nanos()).unwrap_or(u64::MAX),
        "backend": call.backend,
        "engine": hex(&call.engine),
        "failure": call.failure,
        "shape": call.shape,
        "dropped": call.dropped,
        "input_bytes": call.input.len(),
        "output_bytes": call.output.len(),
    })
}

/// What is printed.
struct Seen {
    latencies: Latencies,
    failures: u64,
    calls: u64,
    dropped: u64,
    /// The last few, tensors aside.
    last: std::collections::VecDeque<JournaledCall>,
    keep: usize,
}

impl Seen {
    fn new(keep: usize) -> Self {
        Self { latencies: Latencies::new(), failures: 0, calls: 0, dropped: 0, last: [].into(), keep }
    }

    fn add(&mut self, call: &JournaledCall) {
        self.calls += 1;
        self.dropped = call.dropped;
        match call.failure {
            None => self.latencies.record(call.latency),
            Some(_) => self.failures += 1,
        }
        self.last.push_back(JournaledCall { input: Vec::new(), output: Vec::new(), ..call.clone() });
        if self.last.len() > self.keep {
            self.last.pop_front();
        }
    }

    fn print(&self, journal: &JournalReader) {
        table::facts([
            ("written by", format!("tickrt {}", journal.written_by())),
            ("calls", format!("{}, {} of them not answered", self.calls, self.failures)),
            ("left out", format!("{} calls that found the ring full", self.dropped)),
            ("latency", answers::latency_line(&self.latencies)),
        ]);
        if self.last.is_empty() {
            return;
        }
        let mut table = Table::new(&[">tag", ">call", ">s", ">µs", "backend", "engine", "outcome"]);
        for call in &self.last {
            let since = call.submitted_unix_ns.saturating_sub(journal.started_unix_ns());
            table.row([
                call.tag.to_string(),
                call.sequence.to_string(),
                format!("{:.6}", since as f64 / 1e9),
                format!("{:.1}", call.latency.as_secs_f64() * 1e6),
                call.backend.clone(),
                hex(&call.engine[..4]),
                call.failure.clone().unwrap_or_else(|| "answered".to_owned()),
            ]);
        }
        table.print();
    }
}

/// The tensors of the answered calls of one shape.
struct Exported {
    shape: JournaledShape,
    number: usize,
    inputs: Vec<Vec<u8>>,
    outputs: Vec<Vec<u8>>,
    calls: usize,
    without_input: usize,
}

impl Exported {
    fn new(journal: &JournalReader, number: usize) -> Outcome<Self> {
        let shapes = journal.shapes();
        let shape = shapes.get(number).cloned().ok_or_else(|| {
            Failure::usage(format!(
                "--shape: expected one of 0..{}, the shapes that were announced, got {number}",
                shapes.len()
            ))
        })?;
        let (inputs, outputs) = (vec![Vec::new(); shape.inputs.len()], vec![Vec::new(); shape.outputs.len()]);
        Ok(Self { shape, number, inputs, outputs, calls: 0, without_input: 0 })
    }

    fn add(&mut self, call: &JournaledCall) -> Outcome {
        if call.failure.is_some() || call.shape != self.number {
            return Ok(());
        }
        if call.input.is_empty() {
            self.without_input += 1;
            return Ok(());
        }
        self.calls += 1;
        split(&self.shape.inputs, &call.input, &mut self.inputs);
        split(&self.shape.outputs, &call.output, &mut self.outputs);
        Ok(())
    }

    fn write(&self, folder: &Path) -> Outcome {
        if self.calls == 0 {
            return Err(Failure::usage("nothing to export: no call of this shape was answered"));
        }
        std::fs::create_dir_all(folder)
            .map_err(|error| Failure::usage(format!("make the folder {}: {error}", folder.display())))?;
        let tensors = self.shape.inputs.iter().zip(&self.inputs).chain(self.shape.outputs.iter().zip(&self.outputs));
        let files = file_names(tensors.clone().map(|(tensor, _)| &*tensor.name));
        for ((tensor, bytes), file) in tensors.zip(files) {
            let values = Values::from_bytes(tensor.data_type, bytes).ok_or_else(|| {
                Failure::environment(format!("an .npy cannot hold `{}`, which is {}", tensor.name, tensor.data_type))
            })?;
            let file = folder.join(file);
            Array::new(&[self.calls, tensor.count], values)?.write_npy(&file)?;
            println!("  wrote {} {}x{} to {}", tensor.name, self.calls, tensor.count, file.display());
        }
        if self.without_input > 0 {
            exit::note(format!("{} calls are left out: their windows had moved on", self.without_input));
        }
        Ok(())
    }
}

/// A file for each tensor, of its name as far as a file can have that, and of one that no other has.
fn file_names<'a>(tensors: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut files: Vec<String> = Vec::new();
    for name in tensors {
        let plain = name.replace(['/', ':'], "_");
        let again = (2..).map(|number| format!("{plain}-{number}.npy"));
        let mut all = std::iter::once(format!("{plain}.npy")).chain(again);
        files.push(all.find(|file| !files.contains(file)).expect("there are more numbers than tensors"));
    }
    files
}

/// A record's tensors, each added to its own.
fn split(tensors: &[JournaledTensor], mut bytes: &[u8], into: &mut [Vec<u8>]) {
    for (tensor, into) in tensors.iter().zip(into) {
        let (these, rest) = bytes.split_at(tensor.bytes().min(bytes.len()));
        into.extend_from_slice(these);
        bytes = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_whose_names_differ_in_what_a_file_cannot_have_get_files_of_their_own() {
        let names = ["input", "a/b", "a:b", "a_b", "a_b-2"];
        let files = ["input.npy", "a_b.npy", "a_b-2.npy", "a_b-3.npy", "a_b-2-2.npy"];
        assert_eq!(file_names(names.into_iter()), files);
    }
}
