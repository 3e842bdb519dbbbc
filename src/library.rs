//! Finding and opening a TensorRT library.
//!
//! Nothing of TensorRT is linked, unless the feature `tensorrt-static` is on and its archives were found (LINKING.md): then that
//! one comes first for its flavour. The build compiles one shim for each header set that it finds (see [`Flavour`]),
//! and at run time the one whose library is there is used, so the same binary also runs where there is none.

mod survey;

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use once_cell::sync::Lazy;
use serde::{Deserialize, Serialize};

use crate::bridge::ffi;
use crate::error::{Error, ErrorKind, Result};
use crate::logging;
use crate::native;
use crate::trust::Trust;

pub use self::survey::{Place, Surveyed};

/// Where a TensorRT installation lies: `$TENSORRT_ROOT/lib` is searched first.
const TENSORRT_ROOT: &str = "TENSORRT_ROOT";
/// Where `scripts/setup` put its parts: `$TICKRT_SDK/lib/tensorrt-rtx` is searched next.
const TICKRT_SDK: &str = "TICKRT_SDK";
/// Flavours and paths, separated by commas: `trt10,/opt/tensorrt-8.6,rtx`. Flavours are tried in this order and no others are;
/// paths, of libraries or of folders, are searched before everything else.
const TICKRT_TENSORRT: &str = "TICKRT_TENSORRT";
/// `error`, `warning`, `info` or `verbose`: which of TensorRT's lines are printed to stderr. Unset: none.
const TICKRT_LOG: &str = "TICKRT_LOG";

/// A family of TensorRT versions that share one ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavour {
    /// TensorRT 8.6.
    Trt8,
    /// TensorRT 10.
    Trt10,
    /// TensorRT 11.
    Trt11,
    /// TensorRT-RTX 1: builds plans with no GPU, runs on GeForce and RTX GPUs alone.
    Rtx,
}

impl Flavour {
    /// Every flavour there is, in the order in which [`Library::open_any`] tries them: a TensorRT before
    /// TensorRT-RTX, which knows fewer GPUs; the newest first.
    pub const ALL: [Self; 4] = [Self::Trt11, Self::Trt10, Self::Trt8, Self::Rtx];

    /// Those whose headers were there when this crate was compiled, in the order of [`Self::ALL`].
    #[must_use]
    pub fn compiled_in() -> &'static [Self] {
        static COMPILED: Lazy<Vec<Flavour>> =
            Lazy::new(|| Flavour::ALL.into_iter().filter(|flavour| flavour.headers().is_some()).collect());
        &COMPILED
    }

    /// The version of the headers that it was compiled against, if it was.
    #[must_use]
    pub fn headers(self) -> Option<Version> {
        ffi::compiled_flavours()
            .into_iter()
            .find(|compiled| Self::from(compiled.flavour) == self)
            .map(|compiled| compiled.headers.into())
    }

    /// Its name: `trt8`, `trt10`, `trt11`, `rtx`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trt8 => "trt8",
            Self::Trt10 => "trt10",
            Self::Trt11 => "trt11",
            Self::Rtx => "rtx",
        }
    }

    /// The file name of its library, as the dynamic linker knows it.
    #[must_use]
    pub const fn soname(self) -> &'static str {
        match self {
            Self::Trt8 => "libnvinfer.so.8",
            Self::Trt10 => "libnvinfer.so.10",
            Self::Trt11 => "libnvinfer.so.11",
            Self::Rtx => "libtensorrt_rtx.so.1",
        }
    }

    /// Whether it can build a plan on a machine that has no GPU.
    #[must_use]
    pub const fn builds_without_gpu(self) -> bool {
        matches!(self, Self::Rtx)
    }

    /// Whether networks are always strongly typed: FP16 is casts in the model, INT8 is Q/DQ nodes in it.
    #[must_use]
    pub const fn is_strongly_typed(self) -> bool {
        matches!(self, Self::Trt11 | Self::Rtx)
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Trt8 => "TensorRT 8",
            Self::Trt10 => "TensorRT 10",
            Self::Trt11 => "TensorRT 11",
            Self::Rtx => "TensorRT-RTX",
        })
    }
}

impl FromStr for Flavour {
    type Err = Error;

    /// Reads a [`name`](Self::name), or the bare major `8`, `10`, `11`.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "trt8" | "8" => Ok(Self::Trt8),
            "trt10" | "10" => Ok(Self::Trt10),
            "trt11" | "11" => Ok(Self::Trt11),
            "rtx" => Ok(Self::Rtx),
            _ => Err(Error::new(ErrorKind::InvalidArgument, "read a TensorRT flavour")
                .expected("trt8, trt10, trt11 or rtx")
                .got(format!("`{text}`"))),
        }
    }
}

/// A version of TensorRT or TensorRT-RTX, as `getInferLibVersion` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// 8, 10, 11; 1 is TensorRT-RTX.
    pub major: u32,
    /// The second number.
    pub minor: u32,
    /// The third number.
    pub patch: u32,
}

impl Version {
    /// Whether it is TensorRT-RTX, which says major 1 of itself; TensorRT proper starts at 8 here.
    #[must_use]
    pub const fn is_rtx(self) -> bool {
        self.major < 8
    }

    /// The bare numbers: `8.6.1`.
    #[must_use]
    pub fn number(self) -> String {
        format!("{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl fmt::Display for Version {
    /// `TensorRT 8.6.1`, `TensorRT-RTX 1.7.1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let product = if self.is_rtx() { "TensorRT-RTX" } else { "TensorRT" };
        write!(f, "{product} {}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Which library [`Library::open_any`] is to take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Preference {
    /// What `$TICKRT_TENSORRT` says; without it the first of [`Flavour::ALL`] that is compiled in and installed.
    #[default]
    Any,
    /// One flavour, wherever it is installed.
    Flavour(Flavour),
    /// A library file, or a folder that holds one.
    Path(PathBuf),
    /// The first of these that can be opened.
    FirstOf(Vec<Preference>),
}

impl Preference {
    fn into_list(self) -> Vec<Self> {
        match self {
            Self::FirstOf(list) => list,
            one => vec![one],
        }
    }
}

impl FromStr for Preference {
    type Err = Error;

    /// Reads a flavour's [`name`](Flavour::name) or a path, or several separated by commas.
    fn from_str(text: &str) -> Result<Self> {
        let one = |text: &str| -> Result<Self> {
            if let Ok(flavour) = text.parse() {
                return Ok(Self::Flavour(flavour));
            }
            let path = PathBuf::from(text);
            if path.exists() || text.contains('/') {
                return Ok(Self::Path(path));
            }
            Err(Error::new(ErrorKind::InvalidArgument, "read which TensorRT to use")
                .expected("trt8, trt10, trt11, rtx, or a library or folder that is there")
                .got(format!("`{text}`")))
        };
        match text.split(',').map(one).collect::<Result<Vec<_>>>()? {
            mut list if list.len() == 1 => Ok(list.swap_remove(0)),
            list => Ok(Self::FirstOf(list)),
        }
    }
}

/// A library that was looked for and not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedLibrary {
    /// Which flavour.
    pub flavour: Flavour,
    /// Why: what was tried, where, and what dlopen said.
    pub reason: String,
}

/// An opened TensorRT library.
///
/// Clones share it. It stays loaded until the process ends: TensorRT keeps threads and thread-local state that
/// outlive any handle of ours.
#[derive(Clone)]
pub struct Library {
    inner: Arc<Inner>,
}

struct Inner {
    native: native::NativeLibrary,
    flavour: Flavour,
    version: Version,
    path: PathBuf,
    passed_over: Vec<SkippedLibrary>,
}

impl Library {
    /// Opens the library that `preference` names.
    ///
    /// Searched in this order: what is linked in (the feature `tensorrt-static`), the paths in `$TICKRT_TENSORRT`, `$TENSORRT_ROOT` (`lib`, `lib64`, `targets/x86_64-linux-gnu/lib`),
    /// `$TICKRT_SDK/lib/tensorrt-rtx`, then where the dynamic linker looks (`LD_LIBRARY_PATH`, the system).
    ///
    /// Where signatures are [enforced](crate::trust), only the libraries that were named there are opened.
    ///
    /// # Errors
    /// [`ErrorKind::TensorRtMissing`] with every place tried and what dlopen said there; [`ErrorKind::Untrusted`].
    pub fn open_any(preference: &Preference) -> Result<Self> {
        apply_log_variable();
        match preference {
            Preference::Any => match variable()? {
                Some(preference) => Self::open_any(&preference),
                None => open_first(Flavour::compiled_in()),
            },
            Preference::Flavour(flavour) => open_first(&[*flavour]),
            Preference::Path(path) => open_path(path),
            Preference::FirstOf(list) => open_first_of(list),
        }
    }

    /// Its flavour.
    #[must_use]
    pub fn flavour(&self) -> Flavour {
        self.inner.flavour
    }

    /// Its version, as the library itself tells it.
    #[must_use]
    pub fn version(&self) -> Version {
        self.inner.version
    }

    /// The file that it was loaded from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// The flavours that were looked for before this one, each with the reason it was not taken.
    #[must_use]
    pub fn skipped(&self) -> &[SkippedLibrary] {
        &self.inner.passed_over
    }

    pub(crate) fn native(&self) -> &native::NativeLibrary {
        &self.inner.native
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Library").field("version", &self.version()).field("path", &self.path()).finish()
    }
}

/// What `$TICKRT_TENSORRT` says.
fn variable() -> Result<Option<Preference>> {
    let text = env::var(TICKRT_TENSORRT).ok().filter(|text| !text.is_empty());
    let read =
        text.map(|text| text.parse::<Preference>().map_err(|error| error.and_advice("look at $TICKRT_TENSORRT")));
    read.transpose()
}

/// Tries each in turn; the error has every one's.
fn open_first_of(list: &[Preference]) -> Result<Library> {
    let mut lines = Vec::new();
    for preference in list {
        match Library::open_any(preference) {
            Ok(library) => return Ok(library),
            Err(error) => lines.extend(error.to_string().lines().map(|line| line.trim().to_owned())),
        }
    }
    Err(Error::new(ErrorKind::TensorRtMissing, "open a TensorRT library")
        .expected(format!("one of the {} that were named to open", list.len()))
        .got("none")
        .log(lines))
}

/// Tries each flavour in turn and keeps why it was passed over.
fn open_first(flavours: &[Flavour]) -> Result<Library> {
    let mut passed_over = Vec::new();
    for &flavour in flavours {
        match open_flavour(flavour) {
            Ok(opened) => return Ok(into_library(opened, passed_over)),
            Err(reason) => passed_over.push(SkippedLibrary { flavour, reason }),
        }
    }
    Err(missing(&passed_over))
}

fn open_flavour(flavour: Flavour) -> Result<native::Opened, String> {
    if flavour.headers().is_none() {
        return Err(not_compiled_in(flavour));
    }
    let mut reasons = Vec::new();
    for name in candidates(flavour) {
        match open_checked(&name) {
            Ok(opened) if opened.flavour == flavour => return Ok(opened),
            Ok(opened) => reasons.push(format!("{name} is {}, not {flavour}", opened.version)),
            Err(error) => reasons.push(error.to_string()),
        }
    }
    if reasons.is_empty() {
        reasons.push("signatures are enforced, and no such library was named".to_owned());
    }
    Err(reasons.join("; "))
}

fn not_compiled_in(flavour: Flavour) -> String {
    // No package registry has those of 8.
    let get = match flavour {
        Flavour::Trt8 => "set TICKRT_TRT8_INCLUDE to them",
        _ => "run scripts/setup",
    };
    format!(
        "the headers of {flavour} were not there when tickrt was compiled; {get}, or set {TENSORRT_ROOT}, and compile again"
    )
}

/// What stands for the TensorRT that is linked in, among the names that dlopen takes.
const LINKED: &str = "(linked in)";
/// Which flavour that is.
static LINKED_FLAVOUR: Lazy<Option<Flavour>> = Lazy::new(|| {
    let is_linked = native::NativeLibrary::is_linked();
    is_linked.then(native::NativeLibrary::linked)?.ok().map(|opened| opened.flavour)
});

/// Opens a library, if it may be. What is linked in is as trusted as the program.
fn open_checked(name: &str) -> Result<native::Opened> {
    if name == LINKED {
        return native::NativeLibrary::linked();
    }
    Trust::enforced().map_or(Ok(()), |trust| trust.check_library(Path::new(name)))?;
    native::NativeLibrary::open(name)
}

/// What to give to dlopen for a flavour, in order. A file that is not there is left out: the last entry, the bare
/// soname, always stays, so that dlopen has its say.
fn candidates(flavour: Flavour) -> Vec<String> {
    let linked = (*LINKED_FLAVOUR == Some(flavour)).then(|| LINKED.to_owned());
    if let Some(trust) = Trust::enforced() {
        let named = trust.libraries_named(flavour.soname()).map(|path| path.display().to_string());
        return linked.into_iter().chain(named).collect();
    }
    let mut folders = Vec::new();
    // A library that is named by its file is tried for every flavour: its own version tells which it is.
    let mut named = Vec::new();
    for preference in variable().ok().flatten().into_iter().flat_map(Preference::into_list) {
        match preference {
            Preference::Path(path) if path.is_dir() => folders.extend([path.clone(), path.join("lib")]),
            Preference::Path(path) => named.push(path),
            _ => {}
        }
    }
    if let Some(root) = env::var_os(TENSORRT_ROOT).filter(|root| !root.is_empty()) {
        let root = PathBuf::from(root);
        folders.extend(["lib", "lib64", "targets/x86_64-linux-gnu/lib"].map(|folder| root.join(folder)));
    }
    if let Some(sdk) = env::var_os(TICKRT_SDK).filter(|sdk| flavour == Flavour::Rtx && !sdk.is_empty()) {
        folders.push(PathBuf::from(sdk).join("lib/tensorrt-rtx"));
    }
    let files = named.into_iter().chain(folders.into_iter().map(|folder| folder.join(flavour.soname())));
    let files = files.filter(|file| file.exists());
    let looked_for = files.map(|file| file.display().to_string()).chain([flavour.soname().to_owned()]);
    linked.into_iter().chain(looked_for).collect()
}

fn open_path(path: &Path) -> Result<Library> {
    let open = |file: &Path| open_checked(&file.display().to_string());
    if !path.is_dir() {
        return Ok(into_library(open(path)?, Vec::new()));
    }
    let folders = [path.to_path_buf(), path.join("lib")];
    let mut files =
        Flavour::ALL.into_iter().flat_map(|flavour| folders.iter().map(move |folder| folder.join(flavour.soname())));
    match files.find(|file| file.exists()) {
        Some(file) => Ok(into_library(open(&file)?, Vec::new())),
        None => Err(Error::new(ErrorKind::TensorRtMissing, format!("open a TensorRT library in {}", path.display()))
            .expected(Flavour::ALL.map(Flavour::soname).join(" or "))
            .got("a folder without one")),
    }
}

fn into_library(opened: native::Opened, passed_over: Vec<SkippedLibrary>) -> Library {
    let native::Opened { native, flavour, version, path } = opened;
    Library { inner: Arc::new(Inner { native, flavour, version, path: path.into(), passed_over }) }
}

fn missing(passed_over: &[SkippedLibrary]) -> Error {
    let error = Error::new(ErrorKind::TensorRtMissing, "open a TensorRT library");
    if passed_over.is_empty() {
        return error
            .got("this build of tickrt has no TensorRT flavour compiled in")
            .advice("run scripts/setup, or set TENSORRT_ROOT, and compile again");
    }
    let lines = passed_over.iter().map(|SkippedLibrary { flavour, reason }| format!("{flavour}: {reason}")).collect();
    error
        .expected(passed_over.iter().map(|library| library.flavour.soname()).collect::<Vec<_>>().join(" or "))
        .got("none that could be opened")
        .advice(format!(
            "set {TENSORRT_ROOT} to a TensorRT installation, or run scripts/setup and set {TICKRT_SDK} to the .sdk \
             folder that it filled"
        ))
        .log(lines)
}

/// Which of TensorRT's own lines are printed to stderr, over and above being collected into errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// None. This is the default.
    Off,
    /// Errors.
    Error,
    /// And warnings.
    Warning,
    /// And information.
    Info,
    /// Everything.
    Verbose,
}

/// Passes TensorRT's lines up to `level` on from now on, as events of target `tensorrt` to the program's `tracing` subscriber,
/// with `engine` and `session` as fields, or to stderr where it has none; `TICKRT_LOG` does the same from outside, when the
/// first library is opened.
pub fn set_log_level(level: LogLevel) {
    Lazy::force(&LOG_VARIABLE);
    LOG_LEVEL.store(level as u8, Ordering::Relaxed);
    native::forward_log(level);
}

/// Relaxed suffices: nothing else is published through it, and a line more or less does not matter.
static LOG_LEVEL: AtomicU8 = AtomicU8::new(LogLevel::Off as u8);

/// Read once a process. A level set by the program afterwards wins.
static LOG_VARIABLE: Lazy<LogLevel> = Lazy::new(|| match env::var(TICKRT_LOG).as_deref() {
    Ok("error") => LogLevel::Error,
    Ok("warning") => LogLevel::Warning,
    Ok("info") => LogLevel::Info,
    Ok("verbose") => LogLevel::Verbose,
    _ => LogLevel::Off,
});

fn apply_log_variable() {
    if LOG_LEVEL.load(Ordering::Relaxed) == LogLevel::Off as u8 && *LOG_VARIABLE != LogLevel::Off {
        set_log_level(*LOG_VARIABLE);
    }
}

/// Passes on one line of TensorRT's: to the program's `tracing` subscriber, or to stderr where it has none. Called from
/// TensorRT's threads; a closed stderr must not unwind into them, nor what a subscriber does.
pub(crate) fn native_log_line(severity: ffi::Severity, line: &str) {
    if tracing::dispatcher::has_been_set() {
        let _ = std::panic::catch_unwind(|| logging::native(severity, line));
        return;
    }
    use std::io::Write as _;
    let word = match severity {
        ffi::Severity::Error => "error",
        ffi::Severity::Warning => "warning",
        ffi::Severity::Info => "info",
        _ => "verbose",
    };
    let _ = writeln!(std::io::stderr(), "tensorrt {word}: {line}");
}
