//! `tickrt run --stream`: datasets larger than memory, in the largest batches, on every GPU at once, to be taken up again
//! after whatever ended it.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use tickrt::backend::Signature;
use tickrt::data::{ArrayFile, ArrayWriter, Values};
use tickrt::{BackendKind, DataType, Device, Error, ErrorKind, Predictor, SessionConfig, Ticket};

use super::{Args, outputs, parity};
use crate::answers;
use crate::exit::{self, Failure, Outcome};
use crate::table;

/// How often the resume file is written: how much work is lost at most.
const SAVE: Duration = Duration::from_secs(1);
/// How often is looked whether there is something to save or to show.
const LOOK: Duration = Duration::from_millis(20);

/// Runs it.
pub fn main(args: &Args) -> Outcome {
    let Some(first) = args.output.first() else {
        return Err(Failure::usage("--stream: name where the answers go with --output FILE"));
    };
    let started = Instant::now();
    let (mut workers, config, batch) = start(args)?;
    let signature = workers[0].session().signature().clone();
    let mut job = Job::new(args, &signature, batch)?;
    job.name_outputs(args, &signature)?;
    let resume = Resume::of(&workers[0], &config, &job)?;
    let files = Files::new(&first.path);
    let before = files.before(&resume)?;
    if before > 0 {
        job.open_outputs(true).map_err(|error| files.without_answers(&error))?;
        exit::note(format!("goes on after sample {before} of {}", job.samples));
    } else {
        job.open_outputs(false).inspect_err(|_| job.clear())?;
    }
    let start_time = started.elapsed();
    let ran = run(&mut workers, &job, before / batch, &files, &resume);
    let answered = ran.inspect_err(|_| files.keep_or_clear(&job))?;
    job.finish()?;
    files.remove();
    tell(&workers, &job, before, &answered, [start_time, started.elapsed() - start_time]);
    Ok(())
}

/// A predictor for each GPU, or one on the CPU; what they are made for; samples a call.
fn start(args: &Args) -> Outcome<(Vec<Predictor>, SessionConfig, usize)> {
    let (kinds, mut config) = (args.chain.kinds()?, args.chain.config()?);
    let probe = args.chain.predictor(&kinds, &config)?;
    let batch = batch(args, &probe, &mut config)?;
    let gpus = if probe.active().on_gpu() { Device::count().unwrap_or(1).max(1) } else { 1 };
    let active = probe.active();
    drop(probe);
    let mut workers: Vec<Predictor> = Vec::new();
    let devices: Vec<usize> = if gpus > 1 { (0..gpus).collect() } else { vec![args.chain.device] };
    for device in devices {
        let config = SessionConfig { device, ..config.clone() };
        match args.chain.predictor(&kinds, &config) {
            Ok(worker) if worker.active() == active => workers.push(worker),
            // Another backend has other last bits.
            Ok(worker) => {
                let why = worker.passed_over().first().map(|passed| passed.reason.to_string()).unwrap_or_default();
                exit::note(format!("GPU {device} is left out: {} would answer there; {why}", worker.active()));
            }
            Err(failure) => exit::note(format!("GPU {device} is left out: {failure}")),
        }
    }
    if workers.is_empty() {
        return Err(Failure::environment(format!(
            "no GPU can answer in batches of {batch}; see the notes, or give --batch"
        )));
    }
    Ok((workers, config, batch))
}

/// Samples a call, announced in `config` where the network leaves that open.
fn batch(args: &Args, probe: &Predictor, config: &mut SessionConfig) -> Outcome<usize> {
    let signature = probe.session().signature();
    let own = signature.inputs[0].shape.first().copied().unwrap_or(1);
    if own < 0 && config.shapes.is_empty() {
        let largest = parity::largest_batch(&args.chain, probe.active(), args.batch)?;
        config.shapes = vec![parity::shapes(signature, largest)?];
        return Ok(usize::try_from(largest).unwrap_or(1).max(1));
    }
    let announced = config.shapes.first().and_then(|shapes| shapes.values().next()?.first().copied());
    let fixed = usize::try_from(announced.unwrap_or(own)).unwrap_or(1).max(1);
    match args.batch {
        Some(asked) if asked as usize != fixed => Err(Failure::usage(format!(
            "--batch {asked}: this network takes {fixed} samples a call and no other number"
        ))),
        _ => Ok(fixed),
    }
}

/// What is to be computed, from where to where.
struct Job {
    inputs: Vec<Input>,
    outputs: Vec<Output>,
    samples: usize,
    batch: usize,
}

struct Input {
    name: Option<String>,
    path: PathBuf,
    file: ArrayFile,
    /// Elements a sample.
    count: usize,
}

struct Output {
    /// In the network's order.
    number: usize,
    name: String,
    /// Elements a sample.
    count: usize,
    shape: Vec<usize>,
    data_type: DataType,
    writer: Option<ArrayWriter>,
    temporary: PathBuf,
    /// As it was named.
    path: PathBuf,
    /// What is replaced in the end.
    target: PathBuf,
}

impl Job {
    fn new(args: &Args, signature: &Signature, batch: usize) -> Outcome<Self> {
        let several = signature.inputs.len() > 1;
        let mut inputs = Vec::new();
        for (tensor, normalizer) in signature.inputs.iter().zip(&signature.shapes[0].inputs) {
            let named = |file: &&crate::args::NamedFile| match &file.name {
                Some(name) => *name == tensor.name,
                None => !several,
            };
            let mut files = args.input.iter().filter(named);
            let (Some(file), None) = (files.next(), files.next()) else {
                return Err(Failure::usage(format!("--stream: give one --input {}:FILE for each input", tensor.name)));
            };
            let count = normalizer.count() / batch;
            let name = several.then(|| tensor.name.clone());
            inputs.push(Input::open(name, &file.path, normalizer.input_type(), count)?);
        }
        if args.input.len() > inputs.len() {
            return Err(Failure::usage(format!(
                "--stream: {} inputs are given, the network has {}",
                args.input.len(),
                inputs.len()
            )));
        }
        let samples = inputs[0].samples();
        if let Some(other) = inputs.iter().find(|input| input.samples() != samples) {
            return Err(Failure::usage(format!(
                "expected {samples} samples for every input, got {} in {}",
                other.samples(),
                other.path.display()
            )));
        }
        Ok(Self { inputs, outputs: Vec::new(), samples, batch })
    }

    fn name_outputs(&mut self, args: &Args, signature: &Signature) -> Outcome {
        for (file, number) in args.output.iter().zip(outputs(args, signature)?) {
            let of = &signature.shapes[0].outputs[number];
            let name = &signature.outputs[number].name;
            let rest: Vec<usize> = of.shape.iter().skip(1).filter_map(|&size| usize::try_from(size).ok()).collect();
            if of.shape.first().copied() != i64::try_from(self.batch).ok() {
                return Err(Failure::usage(format!(
                    "--stream: output `{name}` is {}: its first dimension is not that of the {} samples of a call",
                    tickrt::format_shape(&of.shape),
                    self.batch
                )));
            }
            answers::empty(of)?;
            let target = target(&file.path)?;
            self.outputs.push(Output {
                number,
                name: name.clone(),
                count: of.count / self.batch,
                shape: [&[self.samples], &rest[..]].concat(),
                data_type: of.data_type,
                writer: None,
                temporary: beside(&target, "part"),
                path: file.path.clone(),
                target,
            });
        }
        Ok(())
    }

    /// New ones, or those of the run that this one goes on with.
    fn open_outputs(&mut self, keep: bool) -> tickrt::Result<()> {
        for output in &mut self.outputs {
            output.writer = Some(ArrayWriter::open(&output.temporary, &output.shape, output.data_type, keep)?);
        }
        Ok(())
    }

    /// Nothing is left of a run that has done nothing.
    fn clear(&self) {
        for output in &self.outputs {
            let _ = std::fs::remove_file(&output.temporary);
        }
    }

    fn chunks(&self) -> usize {
        self.samples.div_ceil(self.batch)
    }

    /// The samples of a chunk.
    fn range(&self, chunk: usize) -> std::ops::Range<usize> {
        chunk * self.batch..((chunk + 1) * self.batch).min(self.samples)
    }

    /// Every input of a chunk; the last chunk is filled up with its last sample.
    fn read(&self, chunk: usize) -> Outcome<Vec<Values>> {
        let samples = self.range(chunk);
        let read = self.inputs.iter().map(|input| {
            let size = input.count * input.file.data_type().size();
            let mut bytes = vec![0; size * self.batch];
            let (real, filling) = bytes.split_at_mut(size * samples.len());
            input.file.read_at(samples.start * input.count, real)?;
            let last = &real[real.len() - size..];
            filling.chunks_exact_mut(size).for_each(|sample| sample.copy_from_slice(last));
            Ok(Values::from_bytes(input.file.data_type(), &bytes).expect("whole elements of a type that the file has"))
        });
        read.collect()
    }

    fn sync(&self) -> Outcome {
        for writer in self.outputs.iter().filter_map(|output| output.writer.as_ref()) {
            writer.sync()?;
        }
        Ok(())
    }

    /// Gives the files their names.
    fn finish(&mut self) -> Outcome {
        self.sync()?;
        for output in &mut self.outputs {
            output.writer = None;
            std::fs::rename(&output.temporary, &output.target)
                .map_err(|error| Failure::usage(format!("write {}: {error}", output.path.display())))?;
        }
        Ok(())
    }
}

impl Input {
    fn open(name: Option<String>, path: &Path, wants: DataType, count: usize) -> Outcome<Self> {
        let npy = path.extension().is_some_and(|extension| extension == "npy");
        let file = if npy { ArrayFile::open_npy(path)? } else { ArrayFile::open_raw(path, wants, count)? };
        let has = file.data_type();
        if !wants.is_handed_over_as(has) {
            return Err(Failure::usage(format!(
                "{}: expected elements of {wants}, got {has}; convert the array",
                path.display()
            )));
        }
        // In this order: of an array of nothing the other dimensions may be of any size.
        let fits = || file.shape().iter().skip(1).product::<usize>() == count || file.count() == count;
        if file.count() == 0 || !fits() {
            return Err(Failure::usage(format!(
                "{}: expected samples of {count} elements along axis 0, got an array of {:?}",
                path.display(),
                file.shape()
            )));
        }
        Ok(Self { name, path: path.to_path_buf(), file, count })
    }

    fn samples(&self) -> usize {
        self.file.count() / self.count
    }
}

/// What a run must have in common with the one that it goes on with, and how far that came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Resume {
    backend: BackendKind,
    engine: String,
    batch: usize,
    normalizations: serde_json::Value,
    /// Path, bytes, nanoseconds of the last change.
    inputs: Vec<(PathBuf, u64, u128)>,
    /// Name and path.
    outputs: Vec<(String, PathBuf)>,
    /// So many from the front are done.
    samples_done: usize,
}

impl Resume {
    fn of(worker: &Predictor, config: &SessionConfig, job: &Job) -> Outcome<Self> {
        let inputs = job.inputs.iter().map(|input| {
            let about = std::fs::metadata(&input.path)?;
            let changed = about.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            Ok((input.path.clone(), about.len(), changed.as_nanos()))
        });
        let inputs = inputs.collect::<std::io::Result<_>>();
        Ok(Self {
            backend: worker.active(),
            engine: worker.session().engine().iter().map(|byte| format!("{byte:02x}")).collect(),
            batch: job.batch,
            normalizations: serde_json::to_value(&config.normalizations).expect("numbers and strings"),
            inputs: inputs.map_err(|error| Failure::usage(format!("look at the input: {error}")))?,
            outputs: job.outputs.iter().map(|output| (output.name.clone(), output.path.clone())).collect(),
            samples_done: 0,
        })
    }

    /// What is not as it was.
    fn difference(&self, before: &Self) -> Option<&'static str> {
        [
            ("the engine or model", self.engine != before.engine),
            ("the backend", self.backend != before.backend),
            ("the batch", self.batch != before.batch),
            ("the normalisation", self.normalizations != before.normalizations),
            ("the input", self.inputs != before.inputs),
            ("the output", self.outputs != before.outputs),
        ]
        .into_iter()
        .find_map(|(name, differs)| differs.then_some(name))
    }
}

/// The resume file.
struct Files {
    resume: PathBuf,
}

impl Files {
    fn new(output: &Path) -> Self {
        Self { resume: beside(output, "resume") }
    }

    /// How many samples are done already.
    fn before(&self, now: &Resume) -> Outcome<usize> {
        let shown = self.resume.display();
        let text = match std::fs::read(&self.resume) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(Failure::usage(format!("read the resume file {shown}: {error}"))),
        };
        let before: Resume = serde_json::from_slice(&text).map_err(|error| {
            Failure::usage(format!("read the resume file {shown}: {error}; remove it to begin anew"))
        })?;
        match now.difference(&before) {
            Some(what) => Err(Failure::usage(format!(
                "{shown} is of another run: {what} is not as it was; run as before to go on, or remove it to begin anew"
            ))),
            None => Ok(before.samples_done),
        }
    }

    /// All of it or nothing.
    fn save(&self, resume: &Resume) -> Outcome {
        let temporary = beside(&self.resume, "tmp");
        let text = serde_json::to_vec_pretty(resume).expect("numbers and strings");
        let written = std::fs::write(&temporary, text).and_then(|()| std::fs::rename(&temporary, &self.resume));
        written.map_err(|error| Failure::usage(format!("write the resume file {}: {error}", self.resume.display())))
    }

    /// After a failure: what is done is kept for the next run; where nothing is, nothing is left.
    fn keep_or_clear(&self, job: &Job) {
        if self.resume.exists() {
            return exit::note(format!(
                "what is done is kept, see {}: the same command goes on",
                self.resume.display()
            ));
        }
        job.clear();
    }

    /// The answers that it speaks of are gone, or others.
    fn without_answers(&self, error: &Error) -> Failure {
        Failure::usage(format!("{error}; {} says how far it is: remove that to begin anew", self.resume.display()))
    }

    fn remove(&self) {
        let _ = std::fs::remove_file(&self.resume);
    }
}

/// The file that is replaced at `path`: of a symbolic link what it points at. A rename would put a file in the place of anything,
/// for root in that of /dev/null.
fn target(path: &Path) -> Outcome<PathBuf> {
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    match std::fs::metadata(&target).map(|found| (found.is_file(), found.is_dir())) {
        Ok((false, is_dir)) => Err(Error::new(ErrorKind::Io, format!("write {}", path.display()))
            .expected("a regular file")
            .got(if is_dir { "a directory" } else { "a device, FIFO or socket" })
            .advice("name a file")
            .into()),
        _ => Ok(target),
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

/// The chunks that are done: all before `first`, and some behind it.
struct Done {
    first: usize,
    beyond: BTreeSet<usize>,
}

impl Done {
    fn add(&mut self, chunk: usize) {
        self.beyond.insert(chunk);
        while self.beyond.remove(&self.first) {
            self.first += 1;
        }
    }
}

/// What the workers share.
struct Shared<'job> {
    job: &'job Job,
    next: AtomicUsize,
    done: Mutex<Done>,
    /// Somebody has failed.
    stop: AtomicBool,
    /// Calls by place of the worker and by backend.
    answered: Mutex<Vec<(BackendKind, usize)>>,
}

fn run(
    workers: &mut [Predictor],
    job: &Job,
    first: usize,
    files: &Files,
    resume: &Resume,
) -> Outcome<Vec<(BackendKind, usize)>> {
    let shared = Shared {
        job,
        next: AtomicUsize::new(first),
        done: Mutex::new(Done { first, beyond: BTreeSet::new() }),
        stop: AtomicBool::new(false),
        answered: Mutex::default(),
    };
    let worked = std::thread::scope(|scope| {
        let threads: Vec<_> = workers.iter_mut().map(|worker| scope.spawn(|| work(worker, &shared))).collect();
        let mut kept = keep(&shared, files, resume, || threads.iter().all(std::thread::ScopedJoinHandle::is_finished));
        for thread in threads {
            let worked = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            kept = kept.and(worked);
        }
        kept
    });
    worked?;
    Ok(shared.answered.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Shows and saves how far it is until all have ended.
fn keep(shared: &Shared<'_>, files: &Files, resume: &Resume, all_ended: impl Fn() -> bool) -> Outcome {
    let progress = Progress::new(shared.job.samples);
    let (mut saved, mut next) = (0, Instant::now());
    loop {
        // Asked first: what was done before is seen below.
        let last = all_ended();
        let chunk = shared.done.lock().unwrap_or_else(PoisonError::into_inner).first;
        let samples_done = (chunk * shared.job.batch).min(shared.job.samples);
        progress.show(samples_done);
        if samples_done > saved && (last || Instant::now() >= next) {
            // The answers first: the file must not promise what is not there.
            let kept = shared.job.sync().and_then(|()| files.save(&Resume { samples_done, ..resume.clone() }));
            if kept.is_err() {
                shared.stop.store(true, Ordering::Relaxed);
                return kept;
            }
            (saved, next) = (samples_done, Instant::now() + SAVE);
        }
        if last {
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
}

fn work(worker: &mut Predictor, shared: &Shared<'_>) -> Outcome {
    let worked = chunks(worker, shared);
    if worked.is_err() {
        shared.stop.store(true, Ordering::Relaxed);
    }
    worked
}

/// One chunk is read while the one before is computed.
fn chunks(worker: &mut Predictor, shared: &Shared<'_>) -> Outcome {
    let mut in_flight: Option<(usize, Ticket)> = None;
    while !shared.stop.load(Ordering::Relaxed) {
        let chunk = shared.next.fetch_add(1, Ordering::Relaxed);
        let begun = if chunk < shared.job.chunks() { Some((chunk, submit(worker, shared.job, chunk)?)) } else { None };
        if let Some((chunk, ticket)) = std::mem::replace(&mut in_flight, begun) {
            collect(worker, shared, chunk, ticket)?;
        }
        if in_flight.is_none() {
            break;
        }
    }
    Ok(())
}

fn submit(worker: &mut Predictor, job: &Job, chunk: usize) -> Outcome<Ticket> {
    let values = job.read(chunk)?;
    let mut slot = worker.input()?;
    for (input, values) in job.inputs.iter().zip(&values) {
        values.write_to(0..values.len(), &mut slot, input.name.as_deref())?;
    }
    slot.submit().map_err(|error| about(job, chunk, &error))
}

fn collect(worker: &mut Predictor, shared: &Shared<'_>, chunk: usize, ticket: Ticket) -> Outcome {
    let (job, samples) = (shared.job, shared.job.range(chunk));
    let shapes = worker.session().signature().shapes[0].outputs.clone();
    let mut values =
        job.outputs.iter().map(|output| answers::empty(&shapes[output.number])).collect::<Outcome<Vec<_>>>()?;
    let answer = worker.wait_into(ticket, |outputs| {
        job.outputs.iter().zip(&mut values).try_for_each(|(output, values)| values.extend_from(outputs, output.number))
    });
    let answer = answer.map_err(|error| about(job, chunk, &error))?;
    for (output, values) in job.outputs.iter().zip(&values) {
        let real = values.slice(0..samples.len() * output.count);
        if let Some(writer) = &output.writer {
            writer.write_at(samples.start * output.count, &real)?;
        }
    }
    shared.done.lock().unwrap_or_else(PoisonError::into_inner).add(chunk);
    let mut answered = shared.answered.lock().unwrap_or_else(PoisonError::into_inner);
    match answered.iter_mut().find(|(kind, _)| *kind == answer.backend) {
        Some((_, calls)) => *calls += 1,
        None => answered.push((answer.backend, 1)),
    }
    Ok(())
}

fn about(job: &Job, chunk: usize, error: &Error) -> Failure {
    let samples = job.range(chunk);
    let what = format!("answer samples {} to {} of 0..{}", samples.start, samples.end - 1, job.samples);
    Error::new(error.kind(), what).got(error.to_string()).into()
}

fn tell(
    workers: &[Predictor],
    job: &Job,
    before: usize,
    answered: &[(BackendKind, usize)],
    [start, took]: [Duration; 2],
) {
    let mut facts = answers::who_answers(&workers[0]);
    if answered.len() > 1 {
        let shares = answered.iter().map(|(kind, calls)| format!("{kind} {calls} calls"));
        facts.push(("answered", shares.collect::<Vec<_>>().join(", ")));
    }
    let fresh = job.samples - before;
    let rate = fresh as f64 / took.as_secs_f64().max(1e-9);
    facts.push(("samples", format!("{}, {before} of them before, in batches of {}", job.samples, job.batch)));
    facts.push(("workers", workers.len().to_string()));
    facts.push((
        "took",
        format!("{:.1} s, {rate:.0} samples/s; {:.1} s to start", took.as_secs_f64(), start.as_secs_f64()),
    ));
    for output in &job.outputs {
        let shape = output.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
        facts.push(("wrote", format!("{shape} to {}", output.path.display())));
    }
    table::facts(facts);
}

/// A bar on a terminal, elsewhere a line every ten per cent.
struct Progress {
    bar: Option<ProgressBar>,
    samples: usize,
    told: std::cell::Cell<usize>,
}

impl Progress {
    fn new(samples: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(samples as u64);
            let style = ProgressStyle::with_template("[{bar:40}] {pos}/{len} samples, {per_sec}, {eta} left");
            bar.set_style(style.expect("a template that indicatif takes").progress_chars("=> "));
            bar
        });
        Self { bar, samples, told: std::cell::Cell::new(0) }
    }

    fn show(&self, done: usize) {
        let tenths = done * 10 / self.samples.max(1);
        match &self.bar {
            Some(bar) if done < self.samples => bar.set_position(done as u64),
            Some(bar) => bar.finish_and_clear(),
            None if tenths > self.told.replace(tenths) => eprintln!("{done} of {} samples", self.samples),
            None => {}
        }
    }
}
