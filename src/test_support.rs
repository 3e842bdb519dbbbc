//! What the unit tests of several rooms share.

use std::path::PathBuf;

use crate::error::{ErrorKind, Result};

/// The repository, or what of it was carried to the machine that tests.
pub(crate) fn root() -> PathBuf {
    ["TICKRT_TEST_ROOT", "CARGO_MANIFEST_DIR"].into_iter().find_map(std::env::var_os).expect("run by cargo").into()
}

/// That `result` is an error of that kind whose text has these words.
#[track_caller]
pub(crate) fn assert_refused<T>(result: Result<T>, kind: ErrorKind, words: &[&str]) {
    let error = result.err().expect("an error");
    assert_eq!(error.kind(), kind, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "`{word}` is not in: {error}");
    }
}
