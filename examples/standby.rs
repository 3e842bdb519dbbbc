//! A process that takes over when another dies, as after a sticky GPU fault, which ends every CUDA user of its process and of
//! no other: how long the caller waits then.
//!
//! `cargo run --release --example standby -- [KILLS] [models/toy_cnn.engine]`
//!
//! The caller hands each call to the active one of two processes through shared memory. Both are started and warmed up; the
//! second sleeps. Every so often the active one is killed at any moment (`kill -9`). The caller sees that it is gone, hands the
//! same call to the second, and starts a new one to stand by. A process whose GPU is lost ends itself, which looks the same.
//! On a machine with several GPUs the one that stands by belongs on another GPU (`SessionConfig::device`).

use std::os::fd::RawFd;
use std::process::{Child, Command, ExitCode};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tickrt::{Normalization, Predictor, Result, SessionConfig};

const INPUTS: usize = 256;
const OUTPUTS: usize = 3;
/// Between calls.
const PAUSE: Duration = Duration::from_micros(500);
/// A process that has not answered by then is as good as dead.
const DEADLINE: Duration = Duration::from_millis(50);
/// How long a process is asked before it is killed.
const LIFE: Duration = Duration::from_millis(300);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match &arguments[..] {
        [word, descriptor, engine @ ..] if word == "serve" => serve(descriptor, engine.first()),
        _ => call(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// What caller and server share. Zeros are its beginning.
#[repr(C)]
struct Mailbox {
    /// 1 once the server is warm.
    ready: AtomicU32,
    /// 1 once calls are meant for this server, which then looks for them all the time.
    active: AtomicU32,
    /// The number of the newest call; its release shows the input.
    asked: AtomicU64,
    /// The number of the newest answer; its release shows the output.
    answered: AtomicU64,
    /// Elements as bits: two processes share them.
    input: [AtomicU32; INPUTS],
    output: [AtomicU32; OUTPUTS],
}

fn map(descriptor: RawFd) -> &'static Mailbox {
    const PROTECTION: libc::c_int = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a file of the mailbox's size, mapped for the rest of the process; it is atomics, for which any bits will do.
    unsafe {
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        let start = libc::mmap(std::ptr::null_mut(), size_of::<Mailbox>(), PROTECTION, flags, descriptor, 0);
        assert!(start != libc::MAP_FAILED, "map the mailbox: {}", std::io::Error::last_os_error());
        &*start.cast::<Mailbox>()
    }
}

// ---- The server.

fn serve(descriptor: &str, engine: Option<&String>) -> Result<()> {
    // SAFETY: asks that this process ends with the one that started it.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let mailbox = map(descriptor.parse().expect("a descriptor's number"));
    let normalization = Normalization::read("models/toy_cnn.normalization.json")?;
    let config = SessionConfig { normalizations: Some(vec![normalization]), ..SessionConfig::default() };
    let chain = Predictor::builder().config(config);
    let chain = match engine {
        Some(engine) => chain.tensorrt(engine),
        None => chain,
    };
    let mut predictor = chain.ort_cpu("models/toy_cnn.onnx").build()?;
    mailbox.ready.store(1, Ordering::Release);
    let (mut last, mut input, mut output) = (0, [0.0_f32; INPUTS], [0.0_f32; OUTPUTS]);
    loop {
        let asked = mailbox.asked.load(Ordering::Acquire);
        if asked == last {
            // Standing by it leaves the core to the active one, and keeps its GPU warm.
            if mailbox.active.load(Ordering::Relaxed) == 0 {
                predictor.keep_warm()?;
                std::thread::sleep(Duration::from_micros(200));
            } else {
                std::thread::yield_now();
            }
            continue;
        }
        input.iter_mut().zip(&mailbox.input).for_each(|(to, from)| *to = f32::from_bits(from.load(Ordering::Relaxed)));
        predictor.infer(&input, &mut output)?;
        output.iter().zip(&mailbox.output).for_each(|(from, to)| to.store(from.to_bits(), Ordering::Relaxed));
        mailbox.answered.store(asked, Ordering::Release);
        last = asked;
        // The CPU has answered this call; the next one is for a process whose GPU works.
        if let Some(lost) = predictor.passed_over().iter().find(|passed| passed.reason.is_sticky()) {
            return Err(lost.reason.clone());
        }
    }
}

// ---- The caller.

struct Server {
    process: Child,
    mailbox: &'static Mailbox,
}

impl Server {
    fn start(engine: Option<&String>) -> Self {
        // SAFETY: a name, and no flags: the child inherits the descriptor. Its size is the mailbox's from here on.
        let descriptor = unsafe {
            let descriptor = libc::memfd_create(c"tickrt-mailbox".as_ptr(), 0);
            let sized = libc::ftruncate(descriptor, size_of::<Mailbox>() as libc::off_t);
            assert!(descriptor >= 0 && sized == 0, "make the mailbox: {}", std::io::Error::last_os_error());
            descriptor
        };
        let own = std::env::current_exe().expect("a process knows its program");
        let process = Command::new(own).arg("serve").arg(descriptor.to_string()).args(engine).spawn();
        let process = process.expect("the program that runs starts");
        let mailbox = map(descriptor);
        // SAFETY: the mapping stays; the child has its own copy of the descriptor.
        unsafe { libc::close(descriptor) };
        Self { process, mailbox }
    }

    fn is_ready(&self) -> bool {
        self.mailbox.ready.load(Ordering::Acquire) == 1
    }

    fn wait_until_ready(&mut self) -> Duration {
        let started = Instant::now();
        while !self.is_ready() {
            assert!(self.is_alive(), "a server ended before it was ready");
            std::thread::sleep(Duration::from_millis(1));
        }
        started.elapsed()
    }

    fn is_alive(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    fn ask(&self, number: u64, input: &[f32; INPUTS]) {
        self.mailbox.active.store(1, Ordering::Relaxed);
        input.iter().zip(&self.mailbox.input).for_each(|(from, to)| to.store(from.to_bits(), Ordering::Relaxed));
        self.mailbox.asked.store(number, Ordering::Release);
    }

    /// Whether the answer came; `false` if the process is gone or too late.
    fn answers(&mut self, number: u64, output: &mut [f32; OUTPUTS]) -> bool {
        let asked = Instant::now();
        loop {
            for _ in 0..1000 {
                if self.mailbox.answered.load(Ordering::Acquire) == number {
                    let from = self.mailbox.output.iter().map(|bits| f32::from_bits(bits.load(Ordering::Relaxed)));
                    output.iter_mut().zip(from).for_each(|(to, value)| *to = value);
                    return true;
                }
                std::thread::yield_now();
            }
            // Costs a system call: not before an answer is late.
            if !self.is_alive() || asked.elapsed() > DEADLINE {
                return false;
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn call(arguments: &[String]) -> Result<()> {
    let kills: usize = arguments.first().and_then(|text| text.parse().ok()).unwrap_or(10);
    let engine = arguments.get(1);
    let (mut active, mut standby) = (Server::start(engine), Server::start(engine));
    let started = active.wait_until_ready().max(standby.wait_until_ready());
    println!("two processes are ready after {:.0} ms", started.as_secs_f64() * 1e3);

    let (mut number, mut ordinary, mut gaps) = (0_u64, Vec::new(), Vec::new());
    let (input, mut expected) = ([0.5_f32; INPUTS], None);
    for _ in 0..kills {
        standby.wait_until_ready();
        let killer = kill_after(&active, LIFE);
        loop {
            number += 1;
            let (asked, mut output) = (Instant::now(), [0.0; OUTPUTS]);
            active.ask(number, &input);
            let died = !active.answers(number, &mut output);
            if died {
                // Standing by is over: the same call goes to the one that is warm.
                std::mem::swap(&mut active, &mut standby);
                active.ask(number, &input);
                assert!(active.answers(number, &mut output), "both processes are gone");
            }
            let took = asked.elapsed();
            assert_eq!(*expected.get_or_insert(output), output, "every answer is the same");
            if died {
                gaps.push(took);
                break;
            }
            ordinary.push(took);
            std::thread::sleep(PAUSE);
        }
        killer.join().expect("it sleeps and kills");
        standby = Server::start(engine);
    }
    tell("calls", &mut ordinary);
    tell("calls whose process died", &mut gaps);
    println!("{number} calls, every one answered; {kills} processes killed");
    Ok(())
}

/// As a fault would: at any moment.
fn kill_after(server: &Server, life: Duration) -> std::thread::JoinHandle<()> {
    let process = server.process.id() as libc::pid_t;
    // SAFETY: plain numbers; the process has not been waited for, so that the number is its own.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) };
    assert!(descriptor >= 0, "open the process: {}", std::io::Error::last_os_error());
    std::thread::spawn(move || {
        std::thread::sleep(life);
        // SAFETY: the descriptor is this process's whatever becomes of its number; no further information goes along.
        unsafe {
            let nothing = std::ptr::null::<libc::siginfo_t>();
            libc::syscall(libc::SYS_pidfd_send_signal, descriptor, libc::SIGKILL, nothing, 0);
            libc::close(descriptor as libc::c_int);
        }
    })
}

fn tell(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at =
        |share: f64| times.get(((times.len().max(1) - 1) as f64 * share) as usize).map_or(0.0, Duration::as_secs_f64);
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| at(share) * 1e6);
    println!("{what:>26}: {:>6}, p50 {p50:.1}, p99 {p99:.1}, max {max:.1} µs", times.len());
}
