//! trust.h: what may run in this process.

use std::ffi::c_char;

use tickrt::trust::{PublicKey, Trust};

use crate::argument::{given, string};
use crate::error::{MaybeError, discard, guard};

/// `tickrt_trust`: keys and libraries, to be enforced.
#[derive(Debug, Default)]
pub struct CTrust {
    keys: Vec<PublicKey>,
    libraries: Vec<(String, Option<[u8; 32]>)>,
}

/// `trust.h`: nothing is trusted yet.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_trust_new() -> Box<CTrust> {
    Box::default()
}

/// `trust.h`: frees what was not enforced.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_trust_free(trust: Option<Box<CTrust>>) {
    discard(trust);
}

/// `trust.h`: trusts a public key.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_trust_add_key(trust: Option<&mut CTrust>, key: Option<&[u8; 32]>) -> MaybeError {
    guard(|| {
        given(trust, "trust")?.keys.push(PublicKey::from_bytes(given(key, "key")?)?);
        Ok(())
    })
}

/// `trust.h`: trusts the public key in a file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tickrt_trust_add_key_file(trust: Option<&mut CTrust>, path: *const c_char) -> MaybeError {
    guard(|| {
        // SAFETY: the header's contract.
        let path = unsafe { string(path, "path") }?;
        given(trust, "trust")?.keys.push(PublicKey::read(path)?);
        Ok(())
    })
}

/// `trust.h`: trusts a native library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tickrt_trust_add_library(
    trust: Option<&mut CTrust>,
    path: *const c_char,
    sha256: Option<&[u8; 32]>,
) -> MaybeError {
    guard(|| {
        // SAFETY: the header's contract.
        let path = unsafe { string(path, "path") }?;
        given(trust, "trust")?.libraries.push((path.to_owned(), sha256.copied()));
        Ok(())
    })
}

/// `trust.h`: from here on, for the whole process.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_trust_enforce(trust: Option<Box<CTrust>>) -> MaybeError {
    guard(|| {
        let CTrust { keys, libraries } = *given(trust, "trust")?;
        let signed = Trust::signed(keys);
        libraries.into_iter().fold(signed, |trust, (path, sha256)| trust.library(path, sha256)).enforce()?;
        Ok(())
    })
}
