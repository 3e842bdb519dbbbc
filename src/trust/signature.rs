//! A signature file: which files, with which bytes, belong together, and who says so.
//!
//! ```text
//! tickrt signature 1
//! 3f5b... toy_cnn.engine
//! 90aa... toy_cnn.engine.json
//! key 6c1d...
//! signature 7e02...
//! ```
//!
//! Signed is every byte before the last line. Names are those of files in the signature's own folder: a plan that is renamed,
//! or put beside another one's sidecar, is not what was signed. The folder itself is not signed, so that artefacts can be
//! installed anywhere: two engines of one file name in two folders can be exchanged for each other, signatures and all. Give
//! each model's engine a name of its own, or hold [`Sidecar::onnx_sha256`](crate::Sidecar), which is signed, against the model
//! that is meant.

use std::path::{Component, Path, PathBuf};

use super::key::{PublicKey, SecretKey, unhex};
use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::plan::{digest, hex};

const FIRST_LINE: &str = "tickrt signature 1";
/// More than any artefact has parts; a longer file is not read further.
const MOST_BYTES: usize = 64 << 10;

/// The files of one artefact, signed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    parts: Vec<([u8; 32], String)>,
    key: PublicKey,
    signature: [u8; 64],
}

impl Signature {
    /// Where the signature of `artefact` lies: `x.engine.sig` for `x.engine`.
    #[must_use]
    pub fn path(artefact: impl AsRef<Path>) -> PathBuf {
        files::with_ending(artefact.as_ref(), ".sig")
    }

    /// Signs `artefact` together with `also`, all in one folder or below it.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] for a file that cannot be read, [`ErrorKind::InvalidArgument`] for one in another folder.
    pub fn make(key: &SecretKey, artefact: &Path, also: &[PathBuf]) -> Result<Self> {
        let mut parts = Vec::new();
        for path in std::iter::once(artefact).chain(also.iter().map(|path| &**path)) {
            let name = name_of(path, artefact)?;
            let bytes = files::read(path, || format!("sign {}", path.display()))?;
            parts.push((digest(&bytes), name));
        }
        parts.sort_by(|one, other| one.1.cmp(&other.1));
        parts.dedup();
        let mut made = Self { parts, key: key.public(), signature: [0; 64] };
        made.signature = key.sign(made.message().as_bytes());
        Ok(made)
    }

    /// Writes it beside its artefact.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub fn write(&self, artefact: &Path) -> Result<()> {
        let text = format!("{}signature {}\n", self.message(), hex(&self.signature));
        files::write_atomically(&Self::path(artefact), text.as_bytes())
    }

    /// Reads the one beside `artefact`.
    ///
    /// # Errors
    /// [`ErrorKind::Untrusted`] if there is none, or none that can be read.
    pub fn beside(artefact: &Path) -> Result<Self> {
        let path = Self::path(artefact);
        let refused = |got: String| {
            untrusted(artefact).expected(format!("a signature in {}", path.display())).got(got).advice(SIGN_IT)
        };
        let bytes = files::read_at_most(&path, MOST_BYTES + 1, String::new)
            .map_err(|_| refused("none that can be read".to_owned()))?;
        let got = || match bytes.len() {
            more if more > MOST_BYTES => format!("more than {MOST_BYTES} bytes"),
            bytes => format!("{bytes} bytes that are no signature"),
        };
        Self::parse(&bytes).ok_or_else(|| refused(got()))
    }

    /// Reads its text; none if it is not that, to the last byte.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes.get(..bytes.len().min(MOST_BYTES + 1))?).ok()?;
        if text.len() > MOST_BYTES {
            return None;
        }
        let mut lines = text.strip_suffix('\n')?.split('\n');
        if lines.next()? != FIRST_LINE {
            return None;
        }
        let signature = unhex(lines.next_back()?.strip_prefix("signature ")?)?;
        let key = PublicKey::from_bytes(&unhex(lines.next_back()?.strip_prefix("key ")?)?).ok()?;
        let part = |line: &str| {
            let (hash, name) = line.split_once(' ')?;
            Some((unhex(hash)?, name.to_owned()))
        };
        let parts = lines.map(part).collect::<Option<Vec<_>>>()?;
        let parsed = Self { parts, key, signature };
        // One text for one meaning.
        (format!("{}signature {}\n", parsed.message(), hex(&parsed.signature)).as_bytes() == bytes).then_some(parsed)
    }

    /// Makes sure that one of `keys` has signed, and that every file that was signed is there as it was.
    ///
    /// # Errors
    /// [`ErrorKind::Untrusted`], [`ErrorKind::Io`] for a file that cannot be read.
    pub fn check_files(&self, artefact: &Path, keys: &[PublicKey]) -> Result<()> {
        // Nothing is opened that an untrue signature names, and nothing in another folder.
        self.check(artefact, keys, &[])?;
        let folder = artefact.parent().unwrap_or(Path::new(""));
        let hashed = self.names().map(|name| {
            if !Path::new(name).components().all(|part| matches!(part, Component::Normal(_))) {
                return Err(untrusted(artefact).expected("names of files in its folder").got(name));
            }
            let path = folder.join(name);
            let bytes = files::read(&path, || format!("check the signed file {}", path.display()))?;
            Ok((path, digest(&bytes)))
        });
        let parts = hashed.collect::<Result<Vec<_>>>()?;
        self.check(artefact, keys, &parts)?;
        // The artefact itself must be among them.
        let bytes = files::read(artefact, || format!("check the signed file {}", artefact.display()))?;
        self.check(artefact, keys, &[(artefact.to_path_buf(), digest(&bytes))])
    }

    /// Who has signed, if the signature is true.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// The names of the files that were signed together.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().map(|(_, name)| &**name)
    }

    /// Makes sure that one of `keys` has signed, and that `parts`, files with the hashes of what was read of them, are
    /// what was signed.
    ///
    /// # Errors
    /// [`ErrorKind::Untrusted`].
    pub fn check(&self, artefact: &Path, keys: &[PublicKey], parts: &[(PathBuf, [u8; 32])]) -> Result<()> {
        if !keys.contains(&self.key) {
            let trusted: Vec<String> = keys.iter().map(PublicKey::to_string).collect();
            return Err(untrusted(artefact)
                .expected(format!("a signature of {}", trusted.join(" or ")))
                .got(format!("one of {}", self.key))
                .advice(SIGN_IT));
        }
        if !self.key.verifies(self.message().as_bytes(), &self.signature) {
            return Err(untrusted(artefact)
                .expected(format!("a true signature of {}", self.key))
                .got("one that is not his, or of other files")
                .advice(SIGN_IT));
        }
        for (path, sha256) in parts {
            let name = name_of(path, artefact)?;
            let signed = self.parts.iter().find(|(_, known)| *known == name);
            let wrong = match signed {
                Some((signed, _)) if signed == sha256 => continue,
                Some((signed, _)) => (format!("{name} with sha256 {}", hex(signed)), hex(sha256)),
                None => (format!("one of the files that were signed: {:?}", self.names().collect::<Vec<_>>()), name),
            };
            return Err(untrusted(artefact).expected(wrong.0).got(wrong.1).advice(SIGN_IT));
        }
        Ok(())
    }

    /// Every byte that is signed.
    fn message(&self) -> String {
        let parts: String = self.parts.iter().map(|(hash, name)| format!("{} {name}\n", hex(hash))).collect();
        format!("{FIRST_LINE}\n{parts}key {}\n", self.key)
    }
}

const SIGN_IT: &str = "sign it where it was built: `tickrt sign`";

fn untrusted(artefact: &Path) -> Error {
    Error::new(ErrorKind::Untrusted, format!("trust {}", artefact.display()))
}

/// A file's name as the signature of `artefact` has it: from its folder on.
fn name_of(path: &Path, artefact: &Path) -> Result<String> {
    let folder = artefact.parent().unwrap_or(Path::new(""));
    let inside = path.strip_prefix(folder).ok().filter(|inside| {
        let plain = inside.components().all(|part| matches!(part, Component::Normal(_)));
        plain && !inside.as_os_str().is_empty()
    });
    let name = inside.and_then(Path::to_str).filter(|name| !name.contains(['\n', '\r']));
    name.map(str::to_owned).ok_or_else(|| {
        Error::new(ErrorKind::InvalidArgument, format!("sign {}", artefact.display()))
            .expected(format!("files in {} or below it", folder.display()))
            .got(path.display().to_string())
    })
}
