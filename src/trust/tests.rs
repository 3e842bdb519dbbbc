use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

struct Artefact {
    folder: tempfile::TempDir,
    key: SecretKey,
}

impl Artefact {
    /// `x.engine` and its sidecar, signed.
    fn signed() -> Self {
        let made = Self { folder: tempfile::tempdir().unwrap(), key: SecretKey::generate().unwrap() };
        fs::write(made.plan(), b"plan").unwrap();
        fs::write(made.sidecar(), b"sidecar").unwrap();
        made.sign(&made.key);
        made
    }
    fn plan(&self) -> PathBuf {
        self.folder.path().join("x.engine")
    }
    fn sidecar(&self) -> PathBuf {
        self.folder.path().join("x.engine.json")
    }
    fn sign(&self, key: &SecretKey) {
        Signature::make(key, &self.plan(), &[self.sidecar()]).unwrap().write(&self.plan()).unwrap();
    }
    fn check(&self) -> Result<()> {
        let parts = [self.plan(), self.sidecar()].map(|path| {
            let hash = digest(&fs::read(&path).unwrap());
            (path, hash)
        });
        Trust::signed([self.key.public()]).check(&self.plan(), &parts)
    }
    #[track_caller]
    fn refused(&self, part: &str) {
        let error = self.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted);
        assert!(error.to_string().contains(part), "`{part}` is not in: {error}");
    }
}

#[test]
fn signed_artefact_is_trusted() {
    Artefact::signed().check().unwrap();
}

#[test]
fn artefact_without_a_signature_is_refused() {
    let artefact = Artefact::signed();
    fs::remove_file(Signature::path(artefact.plan())).unwrap();
    artefact.refused("tickrt sign");
}

#[test]
fn signature_that_never_ends_is_not_read_to_its_end() {
    let artefact = Artefact::signed();
    let path = Signature::path(artefact.plan());
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    artefact.refused("more than 65536 bytes");
}

#[test]
fn artefact_altered_in_any_part_is_refused() {
    let artefact = Artefact::signed();
    fs::write(artefact.sidecar(), b"sidecaR").unwrap();
    artefact.refused("x.engine.json with sha256");
    fs::write(artefact.sidecar(), b"sidecar").unwrap();
    fs::write(artefact.plan(), b"plaN").unwrap();
    artefact.refused("x.engine with sha256");
}

#[test]
fn artefact_signed_by_another_is_refused() {
    let artefact = Artefact::signed();
    artefact.sign(&SecretKey::generate().unwrap());
    artefact.refused(&artefact.key.public().to_string());
}

#[test]
fn signature_altered_in_any_byte_is_refused() {
    let artefact = Artefact::signed();
    let path = Signature::path(artefact.plan());
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut altered = whole.clone();
        // Another letter of the same kind, so that most lines still read as before.
        altered[at] = if altered[at] == b'1' { b'2' } else { b'1' };
        fs::write(&path, &altered).unwrap();
        assert_eq!(artefact.check().unwrap_err().kind(), ErrorKind::Untrusted, "byte {at}");
    }
    for length in 0..whole.len() {
        assert_eq!(Signature::parse(&whole[..length]), None, "{length} bytes");
    }
}

#[test]
fn plan_under_another_name_is_refused() {
    let artefact = Artefact::signed();
    let other = artefact.folder.path().join("y.engine");
    fs::copy(artefact.plan(), &other).unwrap();
    fs::copy(Signature::path(artefact.plan()), Signature::path(&other)).unwrap();
    let parts = [(other.clone(), digest(b"plan"))];
    let error = Trust::signed([artefact.key.public()]).check(&other, &parts).unwrap_err();
    assert!(error.to_string().contains("y.engine"), "{error}");
}

#[test]
fn file_of_another_folder_cannot_be_signed_along() {
    let artefact = Artefact::signed();
    for elsewhere in ["/etc/hostname".into(), artefact.folder.path().join("../x")] {
        let error = Signature::make(&artefact.key, &artefact.plan(), &[elsewhere]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
}

#[test]
fn keys_written_and_read_stay_the_same_and_secrets_stay_secret() {
    let folder = tempfile::tempdir().unwrap();
    let (secret, public) = (folder.path().join("a.key"), folder.path().join("a.pub"));
    let key = SecretKey::generate().unwrap();
    key.write(&secret).unwrap();
    key.public().write(&public).unwrap();
    assert_eq!(SecretKey::read(&secret).unwrap().public(), key.public());
    assert_eq!(PublicKey::read(&public).unwrap(), key.public());
    assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(key.write(&secret).is_err(), "never overwritten");
    let text = fs::read_to_string(&secret).unwrap();
    let digits = text.trim_end().rsplit(' ').next().unwrap();
    assert!(!format!("{key:?}").contains(digits));
    let error = PublicKey::read(&secret).unwrap_err().to_string();
    assert!(!error.contains(digits), "{error}");
    assert!(PublicKey::from_bytes(&[0; 32]).is_err(), "a weak key");
}

#[test]
fn trust_without_keys_or_with_a_relative_library_is_refused() {
    let key = SecretKey::generate().unwrap().public();
    assert_eq!(Trust::signed([]).enforce().unwrap_err().kind(), ErrorKind::InvalidArgument);
    let relative = Trust::signed([key]).library("libnvinfer.so.8", None).enforce().unwrap_err();
    assert!(relative.to_string().contains("absolute"), "{relative}");
    assert!(Trust::enforced().is_none());
}

#[test]
fn library_not_named_or_of_other_bytes_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let [named, pinned, other] = ["a.so", "b.so", "c.so"].map(|name| folder.path().join(name));
    for path in [&named, &pinned, &other] {
        fs::write(path, b"library").unwrap();
    }
    let key = SecretKey::generate().unwrap().public();
    let trust = Trust::signed([key]).library(&named, None).library(&pinned, Some(digest(b"library")));
    trust.check_library(&named).unwrap();
    trust.check_library(&pinned).unwrap();
    assert_eq!(trust.check_library(&other).unwrap_err().kind(), ErrorKind::Untrusted);
    fs::write(&pinned, b"Library").unwrap();
    assert_eq!(trust.check_library(&pinned).unwrap_err().kind(), ErrorKind::Untrusted);
}
