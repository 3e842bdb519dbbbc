//! What may run in this process: plans are code, and so are models and libraries.
//!
//! **Development**, which is what a process starts with: a plan must be what its sidecar says, and
//! [`Plan::read_unverified`](crate::Plan::read_unverified) says explicitly that it need not.
//!
//! **Production** (`trust = signed`), from [`Trust::enforce`] to the end of the process:
//!
//! * a plan or an ONNX model loads only with an ed25519 [signature](Signature) of one of the given keys beside it, over
//!   the plan, its sidecar and everything else that runs with it;
//! * nothing is built here: plans come from where the secret key is;
//! * libraries are those that were named, by absolute path, and where a hash was given, with these bytes: TensorRT, ONNX
//!   Runtime, and for its CUDA provider `libonnxruntime_providers_shared.so` and `libonnxruntime_providers_cuda.so` beside it;
//! * a chain with something in it that is not so does not start ([`PredictorBuilder::build`](crate::PredictorBuilder::build)).
//!
//! ```no_run
//! # fn main() -> tickrt::Result<()> {
//! tickrt::trust::Trust::signed([tickrt::trust::PublicKey::read("trading.pub")?])
//!     .library("/opt/tensorrt/lib/libnvinfer.so.8", None)
//!     .library("/opt/onnxruntime/lib/libonnxruntime.so", None)
//!     .enforce()?;
//! let session = tickrt::Session::load("models/toy_cnn.engine")?; // with toy_cnn.engine.sig beside it
//! # Ok(()) }
//! ```
//!
//! What this does not do: an older plan of the same name that was signed as well is as good as the newer one, and so is one of
//! the same name from another folder ([`Signature`]); a library may open others of its own accord, by the linker's path (cuDNN
//! and cuBLAS, say); and who can write to the folders between check and use needs
//! no forged signature. They should be root's.

mod key;
mod signature;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub use self::key::{PublicKey, SecretKey};
pub use self::signature::Signature;
use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::onnx::Model;
use crate::plan::{digest, hex};

/// What is trusted in production. Built up, then [enforced](Self::enforce).
#[derive(Debug, Clone)]
pub struct Trust {
    keys: Vec<PublicKey>,
    libraries: Vec<PinnedLibrary>,
}

#[derive(Debug, Clone)]
struct PinnedLibrary {
    path: PathBuf,
    sha256: Option<[u8; 32]>,
}

/// Set once: nothing that runs later can loosen it.
static ENFORCED: OnceLock<Trust> = OnceLock::new();

impl Trust {
    /// Only what one of `keys` has signed.
    #[must_use]
    pub fn signed(keys: impl IntoIterator<Item = PublicKey>) -> Self {
        Self { keys: keys.into_iter().collect(), libraries: Vec::new() }
    }

    /// And this native library, a TensorRT or an ONNX Runtime, by its absolute path; with `sha256`, only with these bytes.
    #[must_use]
    pub fn library(mut self, path: impl Into<PathBuf>, sha256: Option<[u8; 32]>) -> Self {
        self.libraries.push(PinnedLibrary { path: path.into(), sha256 });
        self
    }

    /// From here on, for the whole process. To be called at start, before anything is loaded.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] without a key, for a library by a relative path, or when something is enforced already.
    pub fn enforce(self) -> Result<()> {
        let refused = || Error::new(ErrorKind::InvalidArgument, "enforce signatures");
        if self.keys.is_empty() {
            return Err(refused().expected("at least one public key").got("none"));
        }
        if let Some(library) = self.libraries.iter().find(|library| !library.path.is_absolute()) {
            return Err(refused().expected("libraries by absolute path").got(library.path.display().to_string()));
        }
        ENFORCED.set(self).map_err(|_| refused().got("they are enforced already").advice("call it once, at start"))
    }

    /// What is enforced; none in development.
    #[must_use]
    pub fn enforced() -> Option<&'static Self> {
        ENFORCED.get()
    }

    /// Makes sure that `parts`, files with the hashes of what was read of them, are what was signed for `artefact`.
    ///
    /// # Errors
    /// [`ErrorKind::Untrusted`].
    pub fn check(&self, artefact: &Path, parts: &[(PathBuf, [u8; 32])]) -> Result<()> {
        let signature = Signature::beside(artefact)?;
        signature.check(artefact, &self.keys, parts)
    }

    /// Makes sure that a file which is not there was not signed with the artefact: taking it away is a change as well.
    pub(crate) fn check_never_was(&self, artefact: &Path, part: &Path) -> Result<()> {
        let signature = Signature::beside(artefact)?;
        signature.check(artefact, &self.keys, &[])?;
        let name = part.file_name().unwrap_or_default();
        if signature.names().all(|signed| name != signed) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Untrusted, format!("check what belongs to {}", artefact.display()))
            .expected(format!("{}, which was signed with it", part.display()))
            .got("none")
            .advice("put back all that was signed"))
    }

    /// The libraries that may be opened and whose file is called `name`, or begins so.
    pub(crate) fn libraries_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Path> {
        let named = move |path: &Path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name));
        self.libraries.iter().map(|library| &*library.path).filter(move |path| named(path))
    }

    /// Makes sure that a library may be opened.
    pub(crate) fn check_library(&self, path: &Path) -> Result<()> {
        let refused = || {
            Error::new(ErrorKind::Untrusted, format!("open the library {}", path.display()))
                .advice("name it by its absolute path when signatures are enforced")
        };
        let Some(library) = self.libraries.iter().find(|library| library.path == path) else {
            let named: Vec<String> = self.libraries.iter().map(|library| library.path.display().to_string()).collect();
            return Err(refused()
                .expected(format!("one of those that were named: {}", named.join(", ")))
                .got("another"));
        };
        let Some(expected) = library.sha256 else { return Ok(()) };
        let bytes = files::read(path, || format!("open the library {}", path.display()))?;
        let got = digest(&bytes);
        if got == expected {
            return Ok(());
        }
        Err(refused()
            .expected(format!("sha256 {}", hex(&expected)))
            .got(hex(&got))
            .advice("install the pinned library"))
    }
}

/// Makes sure that a model, with the files that its weights lie in, is what was signed, where that is enforced.
pub(crate) fn check_model(model: &Model) -> Result<()> {
    let Some(trust) = Trust::enforced() else { return Ok(()) };
    let Some(path) = model.path() else {
        return refuse_in_production("run an ONNX model", "sign its file with `tickrt sign`, and read it by its path");
    };
    let mut parts = vec![(path.to_path_buf(), model.sha256())];
    if !model.external_files().is_empty() {
        // ONNX Runtime then reads the model by its path, too, and not what was read before.
        let bytes = files::read(path, || format!("read the model {}", path.display()))?;
        parts.push((path.to_path_buf(), digest(&bytes)));
    }
    for weights in model.external_files() {
        let bytes = files::read(weights, || format!("read the weights {}", weights.display()))?;
        parts.push((weights.clone(), digest(&bytes)));
    }
    trust.check(path, &parts)
}

/// Refuses what production mode has no place for.
pub(crate) fn refuse_in_production(operation: &str, instead: &str) -> Result<()> {
    if Trust::enforced().is_none() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Untrusted, operation)
        .expected("what was signed: this process enforces signatures")
        .got("what nobody has signed")
        .advice(instead))
}

#[cfg(test)]
mod tests;
