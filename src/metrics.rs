//! What is counted, as Prometheus reads it: over HTTP, from threads of its own that touch nothing of the hot path but the
//! words that it has counted into.

mod gpu;
mod text;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::counters::Counters;
use crate::error::{Error, ErrorKind, Result};
use crate::nvml::Gpu;
use crate::{files, thread};

/// Serves `/metrics` in the OpenMetrics text format until it is dropped: every watched session's calls, latencies,
/// failures, fallbacks and active backend, and what NVML says of the GPU.
///
/// A second thread waits for the GPU's critical events and [raises](Counters::raise_xid) an Xid that ends the GPU with
/// everyone who is watched. Neither thread runs on the core to which the calling thread is pinned.
///
/// ```no_run
/// # fn main() -> tickrt::Result<()> {
/// let mut predictor = tickrt::Predictor::builder().tensorrt("models/toy_cnn.engine").build()?;
/// let metrics = tickrt::Metrics::serve("127.0.0.1:9464", vec![("nasdaq".to_owned(), predictor.counters())], 0)?;
/// println!("http://{}/metrics", metrics.address());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Metrics {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    why_no_gpu: Option<String>,
}

/// A name for the label `session`, and what is counted.
type Watched = (String, Arc<Counters>);

/// How long the threads sleep before they look whether they are to end.
const LOOK: Duration = Duration::from_millis(100);
/// How long a client may take over its request, and over taking the answer.
const PATIENCE: Duration = Duration::from_secs(1);

impl Metrics {
    /// Serves on `address`, as `127.0.0.1:9464` (the port that OpenTelemetry's exporters use; 0 takes any that is free).
    /// `watched` names each session or predictor; `device` is a GPU in CUDA's order.
    ///
    /// Whoever can reach the address can read the counts: there is no password. Where NVML is missing the GPU is left out.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if the address is none or two names are the same; [`ErrorKind::Io`] if the port is in
    /// use or may not be taken.
    pub fn serve(address: &str, watched: Vec<Watched>, device: usize) -> Result<Self> {
        check_names(&watched)?;
        let listener = listen(address)?;
        let taken = listener.local_addr().and_then(|taken| listener.set_nonblocking(true).map(|()| taken));
        let taken = taken.map_err(|error| refused(address, &error))?;
        let (gpu, why_no_gpu) = match Gpu::open(device) {
            Ok(gpu) => (Some(Arc::new(gpu)), None),
            Err(why) => (None, Some(why)),
        };
        let stop = Arc::new(AtomicBool::new(false));
        // From here on whatever fails ends the threads that there are.
        let mut metrics = Self { address: taken, stop: Arc::clone(&stop), threads: Vec::new(), why_no_gpu };
        if let Some(gpu) = gpu.clone() {
            let (stop, counters) =
                (Arc::clone(&stop), watched.iter().map(|(_, counters)| Arc::clone(counters)).collect());
            metrics.threads.push(start("tickrt-xid", move || watch(&gpu, &stop, counters))?);
        }
        metrics.threads.push(start("tickrt-metrics", move || answer_all(&listener, &stop, &watched, gpu.as_deref()))?);
        Ok(metrics)
    }

    /// Where it serves.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Why nothing is told of the GPU, and its Xids are not seen; `None` if they are.
    #[must_use]
    pub fn why_no_gpu(&self) -> Option<&str> {
        self.why_no_gpu.as_deref()
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn check_names(watched: &[Watched]) -> Result<()> {
    for (place, (name, _)) in watched.iter().enumerate() {
        if watched[..place].iter().any(|(other, _)| other == name) {
            return Err(Error::new(ErrorKind::InvalidArgument, "serve metrics")
                .expected("a name of its own for each session")
                .got(format!("`{name}` twice")));
        }
    }
    Ok(())
}

fn listen(address: &str) -> Result<TcpListener> {
    let found = address.to_socket_addrs().map_err(|error| {
        Error::new(ErrorKind::InvalidArgument, "serve metrics")
            .expected("an address and a port, as 127.0.0.1:9464")
            .got(format!("`{address}`: {}", files::plain(&error)))
    })?;
    let found: Vec<SocketAddr> = found.collect();
    TcpListener::bind(&found[..]).map_err(|error| refused(address, &error))
}

fn refused(address: &str, error: &std::io::Error) -> Error {
    let advice = match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "another program listens there, see `ss -ltnp`; name another port, or 0 for any"
        }
        std::io::ErrorKind::PermissionDenied => "ports below 1024 are for root; name another",
        std::io::ErrorKind::AddrNotAvailable => "this machine has no such address; 0.0.0.0 takes all it has",
        _ => "",
    };
    Error::new(ErrorKind::Io, format!("serve metrics on {address}")).got(files::plain(error)).advice(advice)
}

/// A thread that stays out of the way of the calling one, for that one spins.
fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let callers = thread::allowed_cores();
    let run = move || {
        thread::step_back(&callers);
        work();
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(|error| {
        Error::new(ErrorKind::Io, "start a thread for metrics")
            .got(files::plain(&error))
            .advice("raise the limit of processes: ulimit -u")
    })
}

fn watch(gpu: &Gpu, stop: &AtomicBool, watched: Vec<Arc<Counters>>) {
    gpu.watch(LOOK, stop, |xid| {
        if gpu::ends_the_gpu(xid) {
            watched.iter().for_each(|counters| counters.raise_xid(xid));
        }
    });
}

fn answer_all(listener: &TcpListener, stop: &AtomicBool, watched: &[Watched], gpu: Option<&Gpu>) {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            // A client that goes away in the middle is its own loss.
            Ok((stream, _)) => drop(answer(stream, || text::write(watched, gpu.map(Gpu::state).as_ref()))),
            Err(_) => wait_for_a_client(listener),
        }
    }
}

fn wait_for_a_client(listener: &TcpListener) {
    let mut ready = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one descriptor, open as long as `listener` is borrowed.
    let found = unsafe { libc::poll(&raw mut ready, 1, LOOK.as_millis() as libc::c_int) };
    if found > 0 && ready.revents & libc::POLLIN == 0 {
        // An error that poll tells at once, again and again.
        std::thread::sleep(LOOK);
    }
}

fn answer(mut stream: TcpStream, body: impl FnOnce() -> String) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = read_head(&mut stream)?;
    let (status, kind, body) = match respond_to(&request) {
        Respond::Metrics => ("200 OK", text::CONTENT_TYPE, body()),
        Respond::Refuse(status, why) => (status, "text/plain; charset=utf-8", format!("{why}\n")),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    if !request.starts_with("HEAD ") {
        stream.write_all(body.as_bytes())?;
    }
    stream.flush()
}

/// The request's lines up to the empty one; what is too long or no text ends there and is refused.
fn read_head(stream: &mut TcpStream) -> std::io::Result<String> {
    const LONGEST: usize = 8 << 10;
    let end = std::time::Instant::now() + PATIENCE;
    let (mut head, mut piece) = (Vec::new(), [0; 1024]);
    while head.len() < LONGEST && std::time::Instant::now() < end {
        let count = stream.read(&mut piece)?;
        head.extend_from_slice(&piece[..count]);
        if count == 0 || head.windows(4).any(|four| four == b"\r\n\r\n") {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

enum Respond {
    Metrics,
    Refuse(&'static str, &'static str),
}

fn respond_to(head: &str) -> Respond {
    let mut words = head.lines().next().unwrap_or("").split(' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    if !head.contains("\r\n\r\n") || !version.is_some_and(|version| version.starts_with("HTTP/1.")) {
        return Respond::Refuse("400 Bad Request", "this is no HTTP/1 request of at most 8 KiB");
    }
    let path = target.and_then(|target| target.split('?').next());
    match (method, path) {
        (Some("GET" | "HEAD"), Some("/metrics")) => Respond::Metrics,
        (Some("GET" | "HEAD"), _) => Respond::Refuse("404 Not Found", "there is /metrics and nothing else"),
        _ => Respond::Refuse("405 Method Not Allowed", "only GET and HEAD"),
    }
}
