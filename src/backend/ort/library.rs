//! Finding and loading the ONNX Runtime library, once a process.

use std::env;
use std::ffi::{CStr, CString, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use once_cell::sync::OnceCell;
use ort::sys::{OrtApi, OrtApiBase};

use crate::error::{Error, ErrorKind, Result};
use crate::trust::Trust;

/// Names the library; then no other is looked for.
const ORT_DYLIB_PATH: &str = "ORT_DYLIB_PATH";
/// Where `scripts/setup` put its parts: the library is `$TICKRT_SDK/lib/onnxruntime/libonnxruntime.so`.
const TICKRT_SDK: &str = "TICKRT_SDK";
/// The oldest ONNX Runtime that has the functions used here: 1.22. In step with the feature `api-22` of `ort`.
const OLDEST: u32 = ort::MINOR_VERSION;

const LOAD: &str = "load ONNX Runtime";

/// The ONNX Runtime library of this process.
///
/// There is one, and it stays loaded: it keeps threads and state that outlive any handle of ours.
#[derive(Debug)]
pub struct OnnxRuntime {
    version: String,
    path: PathBuf,
    pub(super) api: &'static OrtApi,
}

impl OnnxRuntime {
    /// Loads the library, or returns the one loaded before.
    ///
    /// Looked for in this order: `explicit`, `$ORT_DYLIB_PATH` (if one of these names a library, it is that or none),
    /// `$TICKRT_SDK/lib/onnxruntime`, then `libonnxruntime.so` and `libonnxruntime.so.1` where the dynamic linker looks.
    /// ONNX Runtime's telemetry is off. With the feature `ort-static`, and the archive there when this was compiled
    /// (LINKING.md), it is the one that is linked in, and no other may be named.
    ///
    /// # Errors
    /// [`ErrorKind::OnnxRuntimeMissing`] with every place tried and what the loader said there;
    /// [`ErrorKind::OnnxRuntimeTooOld`]; [`ErrorKind::Unsupported`] if it is not the library that this process has loaded
    /// before, here or through `ort` itself; [`ErrorKind::Untrusted`] for that, and for a library that was not named, where
    /// signatures are [enforced](crate::trust).
    pub fn load(explicit: Option<&Path>) -> Result<&'static Self> {
        static RUNTIME: OnceCell<OnnxRuntime> = OnceCell::new();
        #[cfg(tickrt_linked_ort)]
        return linked::refuse_others(explicit).and_then(|()| RUNTIME.get_or_try_init(linked::load));
        #[cfg(not(tickrt_linked_ort))]
        Self::load_from(&RUNTIME, explicit)
    }

    #[cfg_attr(tickrt_linked_ort, allow(dead_code, reason = "what is linked in is not looked for"))]
    fn load_from(runtime: &'static OnceCell<Self>, explicit: Option<&Path>) -> Result<&'static Self> {
        let explicit = match Trust::enforced() {
            Some(trust) => Some(trusted(trust, explicit)?),
            None => explicit,
        };
        let named = explicit.map(|path| probe(path).map_err(|fault| failure(vec![fault]))).transpose()?;
        let wanted = named.as_ref().map(|found| found.path.clone());
        let runtime = runtime.get_or_try_init(|| named.map_or_else(search, Ok)?.load())?;
        match wanted {
            Some(wanted) if wanted != runtime.path => Err(Error::new(ErrorKind::Unsupported, LOAD)
                .expected(format!("{}, which this process has loaded already", runtime.path.display()))
                .got(wanted.display().to_string())
                .advice("name the library before anything else uses ONNX Runtime: there is one a process")),
            _ => Ok(runtime),
        }
    }

    /// Its version: `1.31.1`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The file it was loaded from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it was built with the execution provider `name`: `CUDAExecutionProvider`.
    #[must_use]
    pub fn has_provider(&self, name: &str) -> bool {
        let (mut names, mut count) = (std::ptr::null_mut::<*mut c_char>(), 0);
        // SAFETY: both pointers are valid for writing; the list is read within its count and given back once.
        unsafe {
            if super::raw::check((self.api.GetAvailableProviders)(&mut names, &mut count)).is_err() {
                return false;
            }
            let list = std::slice::from_raw_parts(names, usize::try_from(count).unwrap_or(0));
            let found = list.iter().any(|&one| CStr::from_ptr(one).to_bytes() == name.as_bytes());
            let _ = super::raw::check((self.api.ReleaseAvailableProviders)(names, count));
            found
        }
    }
}

/// ONNX Runtime as a part of this program.
#[cfg(tickrt_linked_ort)]
mod linked {
    use super::*;

    unsafe extern "C" {
        fn OrtGetApiBase() -> *const OrtApiBase;
    }

    /// Each time: not only the first caller may name another.
    pub(super) fn refuse_others(explicit: Option<&Path>) -> Result<()> {
        let named = env::var_os(ORT_DYLIB_PATH).filter(|path| !path.is_empty()).map(PathBuf::from);
        if let Some(named) = explicit.map(Path::to_path_buf).or(named) {
            return Err(Error::new(ErrorKind::Unsupported, LOAD)
                .expected("the ONNX Runtime that is linked in")
                .got(named.display().to_string())
                .advice(format!("name none, here and in ${ORT_DYLIB_PATH}, or build without the feature ort-static")));
        }
        Ok(())
    }

    pub(super) fn load() -> Result<OnnxRuntime> {
        // SAFETY: linked in; it takes nothing and returns what is static in it, or null.
        let Some(base) = (unsafe { OrtGetApiBase().as_ref() }) else {
            return Err(failure(vec![Fault::other(Path::new("linked in"), "OrtGetApiBase returned null")]));
        };
        // SAFETY: static, like all that it returns: a string, and the functions of the version asked for, or null.
        let (version, api) = unsafe {
            let version = CStr::from_ptr((base.GetVersionString)()).to_string_lossy().into_owned();
            (version, (base.GetApi)(OLDEST).as_ref())
        };
        let Some(api) = api else {
            let said = format!("version {version}");
            return Err(failure(vec![Fault { too_old: true, ..Fault::other(Path::new("linked in"), said) }]));
        };
        let path = file_of(api.CreateEnv as *const c_void).unwrap_or_else(|| "linked in".into());
        // SAFETY: functions of the version asked for, which the copy has and no more.
        if !ort::set_api(unsafe { std::ptr::read(api) }) && !is_of(ort::api(), api) {
            return Err(another(file_of(ort::api().CreateEnv as *const c_void).as_deref(), &path));
        }
        // False if the program has an environment of its own already: then that one stays.
        ort::init().with_name("tickrt").with_telemetry(false).commit();
        Ok(OnnxRuntime { version, path, api: ort::api() })
    }

    fn is_of(used: &OrtApi, linked: &OrtApi) -> bool {
        std::ptr::fn_addr_eq(used.CreateEnv, linked.CreateEnv)
    }
}

/// The library that may be opened where signatures are enforced.
#[cfg_attr(tickrt_linked_ort, allow(dead_code, reason = "what is linked in is not looked for"))]
fn trusted<'a>(trust: &'a Trust, explicit: Option<&'a Path>) -> Result<&'a Path> {
    let path = explicit.or_else(|| trust.libraries_named("libonnxruntime.so").next()).ok_or_else(|| {
        Error::new(ErrorKind::OnnxRuntimeMissing, LOAD)
            .expected("a libonnxruntime.so among the libraries that were named when signatures were enforced")
            .got("none")
    })?;
    trust.check_library(path)?;
    Ok(path)
}

/// A library that can be used.
#[derive(Debug)]
struct Found {
    version: String,
    path: PathBuf,
}

impl Found {
    fn load(self) -> Result<OnnxRuntime> {
        // Never by way of ort's own search, which panics where there is nothing to find.
        let environment =
            ort::init_from(&self.path).map_err(|error| failure(vec![Fault::other(&self.path, error.to_string())]))?;
        // `ort` keeps the first library of the process, and takes no other without a word.
        let api = ort::api();
        let used = file_of(api.CreateEnv as *const c_void);
        let used = used.map(|path| path.canonicalize().unwrap_or(path));
        if used.as_deref() != Some(&*self.path) {
            return Err(another(used.as_deref(), &self.path));
        }
        // False if the program has an environment of its own already: then that one stays.
        environment.with_name("tickrt").with_telemetry(false).commit();
        Ok(OnnxRuntime { version: self.version, path: self.path, api })
    }
}

/// The program has given `ort` a library of its own, and that is not the one that was checked here.
fn another(used: Option<&Path>, wanted: &Path) -> Error {
    let kind = if Trust::enforced().is_some() { ErrorKind::Untrusted } else { ErrorKind::Unsupported };
    let used = used.map_or_else(|| "one of no file".to_owned(), |path| path.display().to_string());
    Error::new(kind, LOAD)
        .expected(wanted.display().to_string())
        .got(format!("{used}, which this program uses through `ort` already"))
        .advice("name that library here, or load ONNX Runtime here first: there is one a process")
}

/// The file that a function was loaded from.
fn file_of(function: *const c_void) -> Option<PathBuf> {
    // SAFETY: all zeros is a valid Dl_info.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is valid for writing; the name it is given lives as long as the library, which is open.
    unsafe {
        if libc::dladdr(function, &mut info) == 0 || info.dli_fname.is_null() {
            return None;
        }
        Some(PathBuf::from(std::ffi::OsStr::from_bytes(CStr::from_ptr(info.dli_fname).to_bytes())))
    }
}

/// Why a library was passed over.
#[derive(Debug)]
struct Fault {
    /// The environment variable that named it, if one did.
    variable: &'static str,
    place: String,
    said: String,
    too_old: bool,
}

impl Fault {
    /// The loader often begins with the place itself.
    fn line(&self) -> String {
        let said = self.said.strip_prefix(&self.place).map_or(&*self.said, |rest| rest.trim_start_matches([':', ' ']));
        format!("{}{}: {said}", self.variable, self.place)
    }

    fn other(path: &Path, said: impl Into<String>) -> Self {
        Self { variable: "", place: path.display().to_string(), said: said.into(), too_old: false }
    }
}

#[cfg_attr(tickrt_linked_ort, allow(dead_code, reason = "what is linked in is not looked for"))]
fn search() -> Result<Found> {
    if let Some(path) = env::var_os(ORT_DYLIB_PATH).filter(|path| !path.is_empty()) {
        return probe(Path::new(&path)).map_err(|mut fault| {
            fault.variable = "$ORT_DYLIB_PATH: ";
            failure(vec![fault])
        });
    }
    let sdk = env::var_os(TICKRT_SDK).map(|sdk| PathBuf::from(sdk).join("lib/onnxruntime/libonnxruntime.so"));
    let mut faults = Vec::new();
    for path in sdk.into_iter().chain(["libonnxruntime.so".into(), "libonnxruntime.so.1".into()]) {
        match probe(&path) {
            Ok(found) => return Ok(found),
            Err(fault) => faults.push(fault),
        }
    }
    Err(failure(faults))
}

fn failure(faults: Vec<Fault>) -> Error {
    let too_old = faults.iter().find(|fault| fault.too_old);
    let (kind, got) = match too_old {
        Some(fault) => (ErrorKind::OnnxRuntimeTooOld, fault.said.clone()),
        None => (ErrorKind::OnnxRuntimeMissing, "none that can be loaded".to_owned()),
    };
    Error::new(kind, LOAD)
        .expected(format!("ONNX Runtime 1.{OLDEST} or newer"))
        .got(got)
        .advice(
            "run scripts/setup and set TICKRT_SDK to the .sdk folder that it filled (. scripts/env), or install it and \
             name libonnxruntime.so in ORT_DYLIB_PATH",
        )
        .log(faults.iter().map(Fault::line).collect())
}

/// Opens the library and asks its version, before `ort`, which is not to be asked twice, sees it.
#[cfg_attr(tickrt_linked_ort, allow(dead_code, reason = "what is linked in is not looked for"))]
fn probe(path: &Path) -> Result<Found, Fault> {
    let fault = |said: String| Fault::other(path, said);
    if path.is_dir() {
        return Err(fault("a directory".to_owned()));
    }
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|error| fault(error.to_string()))?;
    let handle = Handle::open(&name).map_err(fault)?;
    let entry =
        handle.symbol(c"OrtGetApiBase").ok_or_else(|| fault("no ONNX Runtime: it lacks OrtGetApiBase".into()))?;
    // SAFETY: in every library that has this function it has this type (onnxruntime_c_api.h).
    let base = unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> *const OrtApiBase>(entry)() };
    if base.is_null() {
        return Err(fault("OrtGetApiBase returned null".to_owned()));
    }
    // SAFETY: not null, and static in the library; its layout has not changed since the first version.
    let (version, api) = unsafe {
        let version = ((*base).GetVersionString)();
        (CStr::from_ptr(version).to_string_lossy().into_owned(), ((*base).GetApi)(OLDEST))
    };
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if api.is_null() || found < (1, OLDEST) {
        let said = format!("version {version} ({})", path.display());
        return Err(Fault { too_old: true, ..fault(said) });
    }
    let path = file_of(entry).unwrap_or_else(|| path.to_path_buf());
    handle.keep();
    Ok(Found { version, path: path.canonicalize().unwrap_or(path) })
}

/// An open library, closed again when dropped.
struct Handle(*mut c_void);

impl Handle {
    fn open(name: &CStr) -> Result<Self, String> {
        // SAFETY: a valid string; the library's constructors are trusted, as the caller asked for this library.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL) };
        if !handle.is_null() {
            return Ok(Self(handle));
        }
        // SAFETY: after a failed dlopen on this thread it is null or a string that is valid until the next call.
        let said = unsafe { libc::dlerror().as_ref().map(|said| CStr::from_ptr(said).to_string_lossy().into_owned()) };
        Err(said.unwrap_or_else(|| "the loader gave no reason".to_owned()))
    }

    fn symbol(&self, name: &CStr) -> Option<*mut c_void> {
        // SAFETY: an open handle and a valid string.
        let symbol = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        (!symbol.is_null()).then_some(symbol)
    }

    /// Leaves the library open for good.
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: opened once, closed once; nothing of the library is used afterwards.
        unsafe { libc::dlclose(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Compiles a library from C.
    fn stand_in(directory: &Path, code: &str) -> PathBuf {
        let (source, library) = (directory.join("a.c"), directory.join("liba.so"));
        std::fs::write(&source, code).unwrap();
        let status = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status().unwrap();
        assert!(status.success());
        library
    }

    fn c_compiler_is_there() -> bool {
        Command::new("cc").arg("--version").output().is_ok_and(|output| output.status.success())
    }

    #[test]
    fn load_of_missing_library_says_what_was_tried() {
        let error = OnnxRuntime::load(Some(Path::new("/nowhere/libonnxruntime.so"))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OnnxRuntimeMissing);
        let text = error.to_string();
        assert!(text.contains("expected ONNX Runtime 1.22 or newer, got none"), "{text}");
        assert!(text.contains("/nowhere/libonnxruntime.so: ") && text.contains("No such file"), "{text}");
        assert!(OnnxRuntime::load(Some(Path::new("/tmp"))).unwrap_err().to_string().contains("a directory"));
    }

    #[test]
    fn load_of_old_library_says_both_versions() {
        if !c_compiler_is_there() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let library = stand_in(
            directory.path(),
            "static const char* version(void) { return \"1.10.0\"; }
             static const void* api(unsigned version) { (void)version; return 0; }
             static const struct { const void* (*api)(unsigned); const char* (*version)(void); } base = {api, version};
             const void* OrtGetApiBase(void) { return &base; }",
        );
        let error = OnnxRuntime::load(Some(&library)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OnnxRuntimeTooOld);
        assert!(error.to_string().contains("expected ONNX Runtime 1.22 or newer, got version 1.10.0"), "{error}");
    }

    #[test]
    fn load_of_other_library_says_it_is_none() {
        if !c_compiler_is_there() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        for (code, words) in [
            ("int unrelated;", "it lacks OrtGetApiBase"),
            ("void* OrtGetApiBase(void) { return 0; }", "OrtGetApiBase returned null"),
        ] {
            let error = OnnxRuntime::load(Some(&stand_in(directory.path(), code))).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::OnnxRuntimeMissing);
            assert!(error.to_string().contains(words), "{error}");
        }
        let text = directory.path().join("text.so");
        std::fs::write(&text, "no library").unwrap();
        let error = OnnxRuntime::load(Some(&text)).unwrap_err();
        assert!(error.to_string().contains("text.so"), "{error}");
    }
}
