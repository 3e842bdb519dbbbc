//! NVRTC, NVIDIA's compiler as a library: opened where an artefact is built, and never where one runs.
//!
//! Of its functions, those that make a CUBIN of a source that includes nothing. CUDA 11.1 and later have them.

mod library;
mod search;

use std::ffi::CString;

use self::library::{Functions, Program};
use crate::error::{Error, ErrorKind, Result};

/// The lines of a log that an error keeps.
const LOG_LINES: usize = 40;

/// A library of NVRTC.
#[derive(Debug)]
pub struct Nvrtc {
    functions: Functions,
    version: (u32, u32),
    path: String,
}

/// What it makes of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// An ELF file of machine code for one compute capability.
    pub cubin: Vec<u8>,
    /// Registers of a thread, if ptxas tells.
    pub registers: Option<u32>,
    /// Bytes of registers that a thread has to keep in memory, stores and loads, if ptxas tells.
    pub spilled_bytes: Option<u32>,
}

impl Nvrtc {
    /// Opens the library that `$TICKRT_NVRTC` names, a file or the folder that it lies in, and no other; without it the first
    /// that opens of `$TICKRT_SDK/lib/nvrtc`, `$CUDA_HOME/lib64`, `/usr/local/cuda/lib64` and where the dynamic linker looks, in
    /// each the newest of CUDA 13, 12 and 11.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] with every place tried and why it was passed over; [`ErrorKind::Untrusted`] where signatures
    /// are [enforced](crate::trust): nothing is built there.
    pub fn open() -> Result<Self> {
        crate::trust::refuse_in_production("open NVRTC", "build and sign the resident engine elsewhere")?;
        search::open()
    }

    /// The CUDA that it is of: 13.0.
    #[must_use]
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// Where it was found; its bare name if the dynamic linker found it.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Compiles CUDA C++ that includes nothing, for this compute capability alone (90 is 9.0).
    ///
    /// # Errors
    /// [`ErrorKind::Build`] with the compiler's own lines; [`ErrorKind::Unsupported`] for a compute capability that this
    /// version does not know.
    pub fn compile(&self, source: &str, compute_capability: u32) -> Result<Compiled> {
        let operation = || format!("compile with {}", self.shown());
        let source = CString::new(source)
            .map_err(|_| Error::new(ErrorKind::InvalidArgument, operation()).got("a source with a zero byte in it"))?;
        let options = options(compute_capability);
        let program = Program::new(&self.functions, &source)
            .map_err(|said| Error::new(ErrorKind::Build, operation()).got(said))?;
        let compiled = program.compile(&options);
        let log = program.log();
        if let Err(said) = compiled {
            return Err(self.failure(&operation(), &options, &said, &log));
        }
        let cubin = program.cubin().map_err(|said| Error::new(ErrorKind::Build, operation()).got(said))?;
        Ok(Compiled {
            cubin,
            registers: number_before(&log, " registers"),
            spilled_bytes: number_before(&log, " bytes spill stores")
                .zip(number_before(&log, " bytes spill loads"))
                .map(|(stores, loads)| stores + loads),
        })
    }

    fn failure(&self, operation: &str, options: &[CString], said: &str, log: &str) -> Error {
        let lines: Vec<String> = log.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
        let shown = lines.iter().take(LOG_LINES).cloned().collect();
        let architecture = options[0].to_string_lossy();
        if said.contains("INVALID_OPTION") {
            return Error::new(ErrorKind::Unsupported, operation)
                .expected(format!("a compiler that knows {architecture}"))
                .got(format!("{} that does not", self.shown()))
                .advice("name a newer libnvrtc in $TICKRT_NVRTC, or another --compute-capability")
                .log(shown);
        }
        if log.contains("libnvrtc-builtins") {
            return Error::new(ErrorKind::Unsupported, operation)
                .expected("libnvrtc-builtins beside it")
                .got(said)
                .advice("install all of NVRTC, or name another in $TICKRT_NVRTC")
                .log(shown);
        }
        Error::new(ErrorKind::Build, operation)
            .got(format!("{said}, with {architecture}"))
            .advice("tickrt itself wrote the source: please report it with the lines below and the model")
            .log(shown)
    }

    fn shown(&self) -> String {
        format!("NVRTC {}.{} ({})", self.version.0, self.version.1, self.path)
    }
}

/// What the source needs. Its `a` binds the code to one compute capability, which an artefact is bound to anyway. Functions that
/// say nothing of where they run are the device's. ptxas tells of registers when it is asked to talk.
fn options(compute_capability: u32) -> Vec<CString> {
    let accelerated = if compute_capability >= 90 { "a" } else { "" };
    [
        format!("--gpu-architecture=sm_{compute_capability}{accelerated}"),
        "--std=c++17".to_owned(),
        "--device-as-default-execution-space".to_owned(),
        "--ptxas-options=-v".to_owned(),
        // For compute-sanitizer and profilers: no other instructions, a bigger file.
        "--generate-line-info".to_owned(),
        // Loops over nothing, where a network has none of it.
        "--disable-warnings".to_owned(),
    ]
    .map(|option| CString::new(option).expect("no zero byte"))
    .to_vec()
}

/// `Used 32 registers`: the number before these words, where they first come.
fn number_before(log: &str, words: &str) -> Option<u32> {
    log[..log.find(words)?].rsplit(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_ptxas_words() {
        let log = "ptxas info    : Function properties for k\n\
                   ptxas         .     0 bytes stack frame, 16 bytes spill stores, 24 bytes spill loads\n\
                   ptxas info    : Used 128 registers, used 1 barriers\n";
        assert_eq!(number_before(log, " registers"), Some(128));
        assert_eq!(number_before(log, " bytes spill stores"), Some(16));
        assert_eq!(number_before(log, " bytes spill loads"), Some(24));
        assert_eq!(number_before("", " registers"), None);
        assert_eq!(number_before("Used registers", " registers"), None);
    }
}
