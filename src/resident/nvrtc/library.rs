//! The library's functions, and a program as a value that ends with its scope.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::path::Path;
use std::ptr;

use libloading::Library;

type Handle = *mut c_void;
/// `nvrtcResult`; 0 is success.
type Status = c_int;

/// Those that are needed, as nvrtc.h has them.
#[derive(Debug)]
pub(super) struct Functions {
    version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status,
    error_string: unsafe extern "C" fn(Status) -> *const c_char,
    create: unsafe extern "C" fn(
        *mut Handle,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> Status,
    destroy: unsafe extern "C" fn(*mut Handle) -> Status,
    compile: unsafe extern "C" fn(Handle, c_int, *const *const c_char) -> Status,
    log_size: unsafe extern "C" fn(Handle, *mut usize) -> Status,
    log: unsafe extern "C" fn(Handle, *mut c_char) -> Status,
    cubin_size: unsafe extern "C" fn(Handle, *mut usize) -> Status,
    cubin: unsafe extern "C" fn(Handle, *mut c_char) -> Status,
    // Last: the functions above are in it.
    _builtins: Option<Library>,
    _library: Library,
}

impl Functions {
    /// Opens a library, by its path or a name that the dynamic linker finds; its functions and its version, or why not.
    pub(super) fn open(path: &Path) -> Result<(Self, (u32, u32)), String> {
        // SAFETY: NVRTC's initialisers ask for nothing; which library is opened is the caller's own choice, by its environment.
        let library = unsafe { Library::new(path) }.map_err(|error| said(&error))?;
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: nvrtc.h gives the function this type, unchanged since CUDA 11.1.
                *unsafe { library.get(concat!($name, "\0")) }
                    .map_err(|_| concat!("it has no ", $name, ": NVRTC of CUDA 11.1 or newer has").to_owned())?
            };
        }
        let mut functions = Self {
            version: function!("nvrtcVersion"),
            error_string: function!("nvrtcGetErrorString"),
            create: function!("nvrtcCreateProgram"),
            destroy: function!("nvrtcDestroyProgram"),
            compile: function!("nvrtcCompileProgram"),
            log_size: function!("nvrtcGetProgramLogSize"),
            log: function!("nvrtcGetProgramLog"),
            cubin_size: function!("nvrtcGetCUBINSize"),
            cubin: function!("nvrtcGetCUBIN"),
            _builtins: None,
            _library: library,
        };
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both are valid for writing.
        functions.check(unsafe { (functions.version)(&mut major, &mut minor) })?;
        functions._builtins = open_builtins(path, (major, minor));
        Ok((functions, (u32::try_from(major).unwrap_or(0), u32::try_from(minor).unwrap_or(0))))
    }

    fn check(&self, status: Status) -> Result<(), String> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: takes any number; what it returns is static.
        let name = unsafe { (self.error_string)(status) };
        if name.is_null() {
            return Err(format!("status {status}"));
        }
        // SAFETY: a string with its zero byte, as nvrtc.h says.
        Err(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
    }
}

/// NVRTC opens its other half by name alone, and finds it only where the dynamic linker looks, or when it is open.
fn open_builtins(path: &Path, (major, minor): (c_int, c_int)) -> Option<Library> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty())?;
    // SAFETY: a part of NVRTC, from the folder of what was opened.
    unsafe { Library::new(folder.join(format!("libnvrtc-builtins.so.{major}.{minor}"))) }.ok()
}

/// The linker's words.
fn said(error: &libloading::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => error.to_string(),
    }
}

/// A source on its way to a CUBIN.
pub(super) struct Program<'of> {
    functions: &'of Functions,
    handle: Handle,
    /// It may keep pointers into the source.
    _source: PhantomData<&'of CStr>,
}

impl<'of> Program<'of> {
    pub(super) fn new(functions: &'of Functions, source: &'of CStr) -> Result<Self, String> {
        let mut handle = ptr::null_mut();
        let name = c"/tickrt/resident.cu".as_ptr();
        // SAFETY: the handle is valid for writing, the strings end with a zero byte and outlive the program; no headers.
        let status = unsafe { (functions.create)(&mut handle, source.as_ptr(), name, 0, ptr::null(), ptr::null()) };
        functions.check(status)?;
        Ok(Self { functions, handle, _source: PhantomData })
    }

    pub(super) fn compile(&self, options: &[CString]) -> Result<(), String> {
        let options: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        // SAFETY: as many strings as it is told, alive during the call.
        self.functions.check(unsafe { (self.functions.compile)(self.handle, options.len() as c_int, options.as_ptr()) })
    }

    /// What the compiler said, if anything.
    pub(super) fn log(&self) -> String {
        let bytes = self.bytes(self.functions.log_size, self.functions.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()
    }

    pub(super) fn cubin(&self) -> Result<Vec<u8>, String> {
        self.bytes(self.functions.cubin_size, self.functions.cubin)
    }

    fn bytes(
        &self,
        size: unsafe extern "C" fn(Handle, *mut usize) -> Status,
        copy: unsafe extern "C" fn(Handle, *mut c_char) -> Status,
    ) -> Result<Vec<u8>, String> {
        let mut length = 0;
        // SAFETY: valid for writing.
        self.functions.check(unsafe { size(self.handle, &mut length) })?;
        let mut bytes = vec![0_u8; length];
        // SAFETY: valid for writing as many bytes as the library has just said.
        self.functions.check(unsafe { copy(self.handle, bytes.as_mut_ptr().cast()) })?;
        Ok(bytes)
    }
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        // SAFETY: made in `new`, destroyed once.
        unsafe { (self.functions.destroy)(&mut self.handle) };
    }
}
