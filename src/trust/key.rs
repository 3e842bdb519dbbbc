//! ed25519 keys and their files.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};

use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::plan::hex;

const PUBLIC: &str = "tickrt ed25519 public key ";
const SECRET: &str = "tickrt ed25519 secret key ";

/// What signatures are checked with. Its file is one line: `tickrt ed25519 public key` and 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

/// What is signed with. Its file is for its owner's eyes.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl PublicKey {
    /// Of its 32 bytes.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if they are no point of the curve, or a weak one.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self> {
        let key = VerifyingKey::from_bytes(bytes).ok().filter(|key| !key.is_weak());
        key.map(Self).ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, "take a public key")
                .expected("an ed25519 public key")
                .got(hex(bytes))
                .advice("make one with `tickrt keygen`")
        })
    }

    /// Reads its file.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], [`ErrorKind::InvalidArgument`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_bytes(&read(path.as_ref(), PUBLIC)?)
    }

    /// Writes its file.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        files::write_atomically(path.as_ref(), format!("{PUBLIC}{self}\n").as_bytes())
    }

    /// Its 32 bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// Strict: a signature has one form, and no key of small order passes.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(message, &ed25519_dalek::Signature::from_bytes(signature)).is_ok()
    }
}

impl fmt::Display for PublicKey {
    /// 64 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(self.0.as_bytes()))
    }
}

impl SecretKey {
    /// A new one, of the system's randomness.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if the system gives none.
    pub fn generate() -> Result<Self> {
        let mut seed = [0_u8; 32];
        // SAFETY: room for as many bytes as are said. Up to 256 bytes come whole.
        let got = unsafe { libc::getrandom(seed.as_mut_ptr().cast(), seed.len(), 0) };
        if usize::try_from(got) != Ok(seed.len()) {
            let why = std::io::Error::last_os_error().to_string();
            return Err(Error::new(ErrorKind::Io, "make a key").expected("32 random bytes of the system").got(why));
        }
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// Reads its file.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], [`ErrorKind::InvalidArgument`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        Ok(Self(SigningKey::from_bytes(&read(path.as_ref(), SECRET)?)))
    }

    /// Writes its file, which only its owner can read. One that is there is not overwritten: with a key, all that it has
    /// signed would have to be signed again.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let written = file.and_then(|mut file| {
            file.write_all(format!("{SECRET}{}\n", hex(self.0.as_bytes())).as_bytes())?;
            file.sync_all()
        });
        written.map_err(|error| {
            Error::new(ErrorKind::Io, format!("write the key {}", path.display()))
                .got(error.to_string())
                .advice("name a file that is not there yet, in a folder that can be written")
        })
    }

    /// What its signatures are checked with.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for SecretKey {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretKey").field("public", &self.public()).finish_non_exhaustive()
    }
}

fn read(path: &Path, begins: &str) -> Result<[u8; 32]> {
    let operation = || format!("read the key {}", path.display());
    let text = files::read(path, operation)?;
    let digits = std::str::from_utf8(&text).ok().and_then(|text| text.strip_prefix(begins)).map(str::trim_end);
    digits.and_then(unhex).ok_or_else(|| {
        // Not what was read: it may be a secret in the wrong place.
        Error::new(ErrorKind::InvalidArgument, operation())
            .expected(format!("one line, `{begins}` and 64 hexadecimal digits"))
            .got(format!("{} bytes of something else", text.len()))
            .advice("make one with `tickrt keygen`")
    })
}

/// The bytes of as many hexadecimal digits as make them, in lower case as they are written.
pub(super) fn unhex<const BYTES: usize>(digits: &str) -> Option<[u8; BYTES]> {
    let lower = |digit: &u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(digit);
    if digits.len() != 2 * BYTES || !digits.as_bytes().iter().all(lower) {
        return None;
    }
    let mut bytes = [0; BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}
