//! Plans: serialised engines, and the sidecar file that says what each was built from and for.
//!
//! TensorRT answers a plan of another version, another GPU or with damaged bytes by a null pointer and a line of log,
//! and has crashed on some. So nothing is handed to it before the checks here have passed: [`Plan::read`] makes sure
//! that the bytes are those that were written, [`Plan::check`] that they fit the library and the GPU at hand.
//!
//! ```no_run
//! use tickrt::{Plan, Target};
//! # fn target() -> Target { unimplemented!() }
//!
//! let plan = Plan::read("models/toy_cnn.engine")?;
//! plan.check(&target())?;
//! # Ok::<(), tickrt::Error>(())
//! ```

mod header;
mod sidecar;

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

pub(crate) use self::header::foreign_file;
pub use self::sidecar::{Gpu, Sidecar};
use crate::builder::HardwareCompatibility;
use crate::error::{Error, ErrorKind, Result};
use crate::files::{self, Staged};
use crate::library::{Flavour, Version};
use crate::trust::Trust;

/// Files longer than this are not read: no engine is.
const LARGEST: u64 = 64 << 30;

/// The bytes of a serialised engine and what is known of them.
#[derive(Debug, Clone)]
pub struct Plan {
    bytes: Vec<u8>,
    sidecar: Option<Sidecar>,
    sha256: [u8; 32],
    path: Option<PathBuf>,
    /// What was read is what was signed.
    signed: bool,
    host_code: bool,
}

/// What a plan is to run on, for [`Plan::check`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The library's flavour.
    pub flavour: Flavour,
    /// The library's version.
    pub version: Version,
    /// The GPU's compute capability, major and minor. None where there is no GPU: then it is not checked.
    pub compute_capability: Option<(u32, u32)>,
    /// The GPU's name, for the error's text.
    pub gpu_name: Option<String>,
}

impl Plan {
    /// A plan fresh from the builder. Its hash and length are put into the sidecar here.
    ///
    /// # Errors
    /// [`ErrorKind::NotAPlan`] if the bytes do not begin as a plan does.
    pub fn new(bytes: Vec<u8>, mut sidecar: Sidecar) -> Result<Self> {
        header::read(&bytes).map_err(|fault| fault.into_error("keep the built plan".to_owned(), String::new()))?;
        let sha256 = digest(&bytes);
        sidecar.plan_sha256 = hex(&sha256);
        sidecar.plan_bytes = bytes.len() as u64;
        Ok(Self { bytes, sidecar: Some(sidecar), sha256, path: None, signed: false, host_code: false })
    }

    /// A plan that lies in memory and has no sidecar: only its header vouches for it.
    ///
    /// # Errors
    /// [`ErrorKind::NotAPlan`], [`ErrorKind::PlanTruncated`].
    pub fn unverified(bytes: Vec<u8>) -> Result<Self> {
        header::read(&bytes)
            .map_err(|fault| fault.into_error("take a plan from memory".to_owned(), rebuild(None, None)))?;
        let sha256 = digest(&bytes);
        Ok(Self { bytes, sidecar: None, sha256, path: None, signed: false, host_code: false })
    }

    /// Where the sidecar of the plan at `path` lies: `x.engine.json` for `x.engine`.
    #[must_use]
    pub fn sidecar_path(path: impl AsRef<Path>) -> PathBuf {
        files::with_ending(path.as_ref(), ".json")
    }

    /// Reads a plan and its sidecar, and makes sure that the bytes are those that were written.
    ///
    /// # Errors
    /// [`ErrorKind::Io`]; [`ErrorKind::PlanUnverified`] without a sidecar; [`ErrorKind::SidecarDamaged`];
    /// [`ErrorKind::NotAPlan`], [`ErrorKind::PlanTruncated`], [`ErrorKind::PlanAltered`]. Each with the command that
    /// rebuilds the plan.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        Self::read_file(path.as_ref(), false)
    }

    /// Reads a plan that may have no sidecar, because trtexec or another program built it. Then its own header is all
    /// that is checked; only load what you trust, since TensorRT runs code from it. A sidecar that is there counts as
    /// in [`read`](Self::read).
    ///
    /// # Errors
    /// As [`read`](Self::read), but for [`ErrorKind::PlanUnverified`].
    pub fn read_unverified(path: impl AsRef<Path>) -> Result<Self> {
        Self::read_file(path.as_ref(), true)
    }

    fn read_file(path: &Path, allow_unverified: bool) -> Result<Self> {
        let operation = || format!("read the plan {}", path.display());
        let sidecar_path = Self::sidecar_path(path);
        let bytes = match read_bytes(path, operation) {
            Ok(bytes) => bytes,
            // A sidecar alone still knows how to make the plan.
            Err(error) if !path.exists() => {
                let sidecar = Sidecar::read(&sidecar_path, path).ok().flatten().map(|(sidecar, _)| sidecar);
                return Err(error.advice(format!("check the path, or {}", rebuild(sidecar.as_ref(), Some(path)))));
            }
            Err(error) => return Err(error),
        };
        if header::begins_as_resident(&bytes) {
            // Its sidecar is another one, too.
            return Err(header::not_a_plan(&bytes).into_error(operation(), String::new()));
        }
        let sha256 = digest(&bytes);
        let sidecar = Sidecar::read(&sidecar_path, path)?;
        let enforced = Trust::enforced();
        if let Some(trust) = enforced {
            let found = sidecar.as_ref().map(|(_, sha256)| (sidecar_path.clone(), *sha256));
            trust.check(path, &[(path.to_path_buf(), sha256)].into_iter().chain(found).collect::<Vec<_>>())?;
            // A plan of another program has no sidecar, and may be signed as it is.
            if sidecar.is_none() {
                trust.check_never_was(path, &sidecar_path)?;
            }
        }
        let signed = enforced.is_some();
        let sidecar = sidecar.map(|(sidecar, _)| sidecar);
        if let Some(sidecar) = &sidecar {
            integrity(&bytes, &sha256, sidecar)
                .and_then(|()| header::read(&bytes).map(drop))
                .map_err(|fault| fault.into_error(operation(), rebuild(Some(sidecar), Some(path))))?;
        } else {
            header::read(&bytes).map_err(|fault| fault.into_error(operation(), rebuild(None, Some(path))))?;
            if !allow_unverified {
                return Err(Error::new(ErrorKind::PlanUnverified, operation())
                    .expected(format!("its sidecar {}", sidecar_path.display()))
                    .got("none")
                    .advice(format!(
                        "{}, or, if you trust the file, load it with Engine::load_unverified or --allow-unverified",
                        rebuild(None, Some(path))
                    )));
            }
        }
        Ok(Self { bytes, sidecar, sha256, path: Some(path.to_path_buf()), signed, host_code: false })
    }

    /// Lets TensorRT run the host code that a version-compatible plan carries: a whole library of machine code, which no
    /// check here can see into. Without it such a plan is refused.
    #[must_use]
    pub fn allow_host_code(mut self) -> Self {
        self.host_code = true;
        self
    }

    /// Whether TensorRT may run the plan's host code.
    ///
    /// # Errors
    /// [`ErrorKind::Untrusted`] for a plan that carries some without the caller's permission, and for one that was not read
    /// from a signed file while signatures are enforced.
    pub(crate) fn check_trust(&self) -> Result<bool> {
        if !self.signed {
            crate::trust::refuse_in_production(
                &self.operation(),
                "sign it with `tickrt sign`, and load it by its path",
            )?;
        }
        let carries = self.sidecar.as_ref().is_some_and(|sidecar| sidecar.version_compatible);
        if carries && !self.host_code {
            return Err(Error::new(ErrorKind::Untrusted, self.operation())
                .expected("a plan without code for the host, or permission to run it")
                .got("a version-compatible plan, which carries some")
                .advice(
                    "if you trust who built it: Plan::read(..)?.allow_host_code() and Engine::from_plan, or \
                     --allow-host-code; else build it without --versionCompatible",
                ));
        }
        Ok(carries)
    }

    /// Writes the plan and its sidecar. A crash or a failure at any moment leaves what was there before, or a pair
    /// that [`read`](Self::read) refuses; never a plan that passes for what it is not.
    ///
    /// # Errors
    /// [`ErrorKind::Io`]: nothing is left behind then. [`ErrorKind::PlanUnverified`] for a plan without a sidecar.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let Some(sidecar) = &self.sidecar else {
            return Err(Error::new(ErrorKind::PlanUnverified, format!("write the plan {}", path.display()))
                .expected("a plan that tickrt built")
                .got("one without a sidecar")
                .advice("copy its file instead"));
        };
        let sidecar_path = Self::sidecar_path(path);
        files::write_with_sidecar(path, &self.bytes, &sidecar_path, sidecar.to_json().as_bytes())
    }

    /// Whether a plan could be written at `path`, before hours are spent on building it. Leaves nothing behind.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub fn check_writable(path: impl AsRef<Path>) -> Result<()> {
        Staged::write(path.as_ref(), b"").map(drop)
    }

    /// Whether the plan can run on `target`, by its sidecar or, without one, by its header (which does not know the
    /// GPU). TensorRT is not asked.
    ///
    /// # Errors
    /// [`ErrorKind::PlanVersion`], [`ErrorKind::PlanGpu`], with the command that rebuilds the plan.
    pub fn check(&self, target: &Target) -> Result<()> {
        self.check_version(target)?;
        self.check_gpu(target)
    }

    fn check_version(&self, target: &Target) -> Result<()> {
        let (flavour, version) = (self.flavour(), self.version());
        let compatible = self.sidecar.as_ref().is_some_and(|sidecar| sidecar.version_compatible);
        if same_product(flavour, target.flavour) && version == target.version
            || compatible && runs_on_newer(version, target.version)
        {
            return Ok(());
        }
        let wanted = if compatible { format!("{version} or what may follow it") } else { version.to_string() };
        Err(Error::new(ErrorKind::PlanVersion, self.operation())
            .expected(wanted)
            .got(target.version.to_string())
            .advice(format!("{}, or install {version}", self.rebuild())))
    }

    fn check_gpu(&self, target: &Target) -> Result<()> {
        let (Some((major, minor)), Some(sidecar)) = (target.compute_capability, &self.sidecar) else { return Ok(()) };
        let here = major * 10 + minor;
        let built_on = sidecar.gpu.as_ref().map(|gpu| gpu.compute_capability);
        let (fits, wanted) = if sidecar.hardware_compatibility == HardwareCompatibility::AmperePlus {
            (here >= 80, "compute capability 8.0 or newer".to_owned())
        } else if !sidecar.compute_capabilities.is_empty() {
            let list: Vec<String> = sidecar.compute_capabilities.iter().map(|&one| dotted(one)).collect();
            (sidecar.compute_capabilities.contains(&here), format!("compute capability {}", list.join(", ")))
        } else if let (Some(gpu), Some(built_on)) = (&sidecar.gpu, built_on) {
            (here == built_on, format!("compute capability {} ({})", dotted(built_on), gpu.name))
        } else {
            // Built without a GPU and without a list: there is nothing to hold against this one.
            return Ok(());
        };
        if fits {
            return Ok(());
        }
        let name = target.gpu_name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        Err(Error::new(ErrorKind::PlanGpu, self.operation())
            .expected(wanted)
            .got(format!("{}{name}", dotted(here)))
            .advice(format!("{} on the machine with this GPU", self.rebuild())))
    }

    /// The bytes for `deserializeCudaEngine`.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the plan was built from and for; none for a plan of another program.
    #[must_use]
    pub fn sidecar(&self) -> Option<&Sidecar> {
        self.sidecar.as_ref()
    }

    /// SHA-256 of the bytes.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// The file it was read from.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The version of TensorRT that built it: the sidecar's word, or else the header's.
    #[must_use]
    pub fn version(&self) -> Version {
        self.sidecar.as_ref().map_or_else(|| self.header().version, |sidecar| sidecar.version)
    }

    /// The flavour of TensorRT that it needs: the sidecar's word, or else the header's.
    #[must_use]
    pub fn flavour(&self) -> Flavour {
        self.sidecar.as_ref().map_or_else(|| self.header().flavour, |sidecar| sidecar.flavour)
    }

    /// The command that builds this plan again: `tickrt build --onnx ... --engine ...`.
    #[must_use]
    pub fn rebuild_command(&self) -> String {
        rebuild_command(self.sidecar.as_ref(), self.path.as_deref())
    }

    /// What is known of the plan, as names and values for people.
    #[must_use]
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = vec![
            ("built by", self.version().to_string()),
            ("bytes", self.bytes.len().to_string()),
            ("sha256", hex(&self.sha256)),
        ];
        match &self.sidecar {
            Some(sidecar) => sidecar.add_facts(&mut facts),
            None => facts.push(("sidecar", "none: only the plan's own header was checked".to_owned())),
        }
        facts
    }

    /// Always there: no constructor lets a plan through whose header cannot be read.
    fn header(&self) -> header::Header {
        header::read(&self.bytes).expect("the header was read when the plan was made")
    }

    fn operation(&self) -> String {
        match &self.path {
            Some(path) => format!("load the plan {}", path.display()),
            None => "load the plan".to_owned(),
        }
    }

    fn rebuild(&self) -> String {
        rebuild(self.sidecar.as_ref(), self.path.as_deref())
    }
}

/// What is wrong with a file's bytes.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) kind: ErrorKind,
    pub(crate) expected: String,
    pub(crate) got: String,
    pub(crate) hint: &'static str,
}

impl Fault {
    pub(crate) fn into_error(self, operation: String, rebuild: String) -> Error {
        let separator = if self.hint.is_empty() || rebuild.is_empty() { "" } else { ", or " };
        Error::new(self.kind, operation)
            .expected(self.expected)
            .got(self.got)
            .advice(format!("{}{separator}{rebuild}", self.hint))
    }
}

/// Holds the bytes against what the sidecar says was written.
fn integrity(bytes: &[u8], sha256: &[u8; 32], sidecar: &Sidecar) -> Result<(), Fault> {
    let (wrote, has) = (sidecar.plan_bytes, bytes.len() as u64);
    if wrote != has && !header::begins_as_plan(bytes) {
        return Err(header::read(bytes).err().unwrap_or_else(|| header::not_a_plan(bytes)));
    }
    same_bytes((has, sha256), (wrote, &sidecar.plan_sha256))
}

/// Holds length and hash of what was read against those of what was written.
pub(crate) fn same_bytes((has, sha256): (u64, &[u8; 32]), (wrote, wrote_sha256): (u64, &str)) -> Result<(), Fault> {
    if has < wrote {
        return Err(Fault {
            kind: ErrorKind::PlanTruncated,
            expected: format!("{wrote} bytes"),
            got: format!("{has}"),
            hint: "copy the file again",
        });
    }
    if has > wrote || hex(sha256) != wrote_sha256 {
        let length = if has > wrote { format!(" of {has} bytes") } else { String::new() };
        return Err(Fault {
            kind: ErrorKind::PlanAltered,
            expected: format!("the {wrote} bytes that were built, sha256 {}", short(wrote_sha256)),
            got: format!("others{length}, sha256 {}", short(&hex(sha256))),
            hint: "copy file and sidecar together again",
        });
    }
    Ok(())
}

/// Whether the flavours are one product, so that their versions can be compared.
fn same_product(one: Flavour, other: Flavour) -> bool {
    (one == Flavour::Rtx) == (other == Flavour::Rtx)
}

/// Whether a version-compatible plan of `built` runs on `here`: newer within its major, and one major further.
/// TensorRT-RTX has no such plans.
fn runs_on_newer(built: Version, here: Version) -> bool {
    let next_major = match built.major {
        8 => 10,
        10 => 11,
        _ => 0,
    };
    !built.is_rtx() && !here.is_rtx() && here >= built && (here.major == built.major || here.major == next_major)
}

fn read_bytes(path: &Path, operation: impl Fn() -> String) -> Result<Vec<u8>> {
    files::read_up_to(path, LARGEST, operation, (ErrorKind::NotAPlan, "a TensorRT plan"))
}

fn rebuild(sidecar: Option<&Sidecar>, path: Option<&Path>) -> String {
    format!("rebuild it with `{}`", rebuild_command(sidecar, path))
}

fn rebuild_command(sidecar: Option<&Sidecar>, path: Option<&Path>) -> String {
    let onnx = sidecar.and_then(|sidecar| sidecar.onnx_file.as_deref()).unwrap_or("MODEL.onnx");
    let engine = path.map_or_else(|| "MODEL.engine".to_owned(), |path| path.display().to_string());
    let mut command = format!("tickrt build --onnx {} --engine {}", quoted(onnx), quoted(&engine));
    for option in sidecar.iter().flat_map(|sidecar| &sidecar.options) {
        command.push(' ');
        command.push_str(&quoted(option));
    }
    command
}

/// As a shell takes it for one word.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_alphanumeric() || "-_./=:,+@%".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// 89 as 8.9.
pub(crate) fn dotted(compute_capability: u32) -> String {
    format!("{}.{}", compute_capability / 10, compute_capability % 10)
}

pub(crate) fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Bytes as hashes are written.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first letters of a hash: enough to tell two apart.
fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

#[cfg(test)]
mod tests;
