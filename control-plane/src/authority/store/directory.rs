//! The state directory: roots, which of them signs, the key of join tokens, and the bundle for proxies to start from; and
//! the user's intermediate, which this module only reads. Called by `store`.
//!
//! ```text
//! state-dir/roots/<number>/{certificate.pem, key.pem}   a root; the directory appears whole or not at all
//! state-dir/issuer/{tls.crt, tls.key, ca.crt}           the user's intermediate, its key, and the roots to trust
//! state-dir/signer                                      the number of the root that signs, or `issuer`
//! state-dir/token.key                                   32 random bytes, base64
//! state-dir/roots.pem                                   every root's certificate, oldest first
//! ```
//!
//! Every file is written beside its place, flushed, and moved there, so that a crash leaves the old content or the new.
//! What is missing or does not fit is an error that names the file: this module never replaces a key it cannot read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::StoreError;
use crate::authority::issuer::{self, IssuerPem, UserIssuer};
use crate::authority::keys::{self, Found, Keys, Signs};
use crate::authority::root::{self, RootPem};
use crate::authority::rotate::Step;
use crate::authority::token::{KEY_LEN, TokenKey};

const ROOTS: &str = "roots";
const ISSUER: &str = "issuer";
const SIGNER: &str = "signer";
const TOKEN_KEY: &str = "token.key";
const BUNDLE: &str = "roots.pem";
const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "key.pem";

const RESTORE: &str = "restore it from a backup, or start with an empty state directory, which makes a new authority \
                       that every proxy must learn anew";

fn io(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |error| StoreError::Io { path, error }
}

fn broken(path: &Path, problem: impl Into<String>) -> StoreError {
    StoreError::Broken {
        place: path.display().to_string(),
        problem: problem.into(),
    }
}

/// Reads the keys; in an empty directory the user's intermediate signs, or else a first root is made.
pub(crate) fn open(dir: &Path, trust_domain: &str, now: SystemTime) -> Result<Keys, StoreError> {
    make_dir(dir)?;
    let new = numbers(dir)?.is_empty() && !dir.join(SIGNER).exists();
    if new && dir.join(BUNDLE).exists() {
        let problem = format!("is missing or empty, though there was a root before: {RESTORE}");
        return Err(broken(&dir.join(ROOTS), problem));
    }
    if new && issuer(dir, trust_domain, now)?.is_some() {
        set_signer(dir, Signs::Issuer)?;
    } else if new {
        add(dir, trust_domain, now)?;
    }
    let keys = load(dir, trust_domain, now)?;
    write_bundle(dir, &keys)?;
    Ok(keys)
}

/// Reads the keys as they are; none is an error.
pub(crate) fn load(dir: &Path, trust_domain: &str, now: SystemTime) -> Result<Keys, StoreError> {
    let mut roots = Vec::new();
    for number in numbers(dir)? {
        let path = dir.join(ROOTS).join(number.to_string());
        let pem = RootPem {
            certificate: read(&path.join(CERTIFICATE))?,
            key: read(&path.join(KEY))?,
        };
        let root = root::parse(&pem, trust_domain).map_err(|problem| broken(&path, problem))?;
        roots.push((number, root));
    }
    let path = dir.join(SIGNER);
    let signs = match fs::read_to_string(&path) {
        Ok(text) => Signs::parse(&text).ok_or_else(|| {
            let shown = text.trim();
            let problem =
                format!("names {shown:?}, which is neither a root's number nor `issuer`: {RESTORE}");
            broken(&path, problem)
        })?,
        // With one root there is no doubt, so a start that was cut short here goes on.
        Err(e) if e.kind() == io::ErrorKind::NotFound && roots.len() == 1 => {
            set_signer(dir, Signs::Root(roots[0].0))?;
            Signs::Root(roots[0].0)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound && !roots.is_empty() => {
            let problem = format!("is missing, and there are {} roots: {RESTORE}", roots.len());
            return Err(broken(&path, problem));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let problem =
                "is missing or empty: there is no authority yet; the operator makes one when it first starts";
            return Err(broken(&dir.join(ROOTS), problem));
        }
        Err(e) => return Err(io(&path)(e)),
    };
    if roots.is_empty() && signs != Signs::Issuer {
        let problem = format!("is missing or empty, though there was a root before: {RESTORE}");
        return Err(broken(&dir.join(ROOTS), problem));
    }
    Keys::new(Found {
        roots,
        issuer: issuer(dir, trust_domain, now),
        signs,
        since: Some(
            fs::metadata(&path)
                .and_then(|m| m.modified())
                .map_err(io(&path))?,
        ),
        signer_at: &path.display().to_string(),
        issuer_at: &dir.join(ISSUER).display().to_string(),
        restore: RESTORE,
    })
}

/// The user's intermediate; none where there is no such directory.
fn issuer(dir: &Path, trust_domain: &str, now: SystemTime) -> Result<Option<UserIssuer>, StoreError> {
    let path = dir.join(ISSUER);
    if !path.exists() {
        return Ok(None);
    }
    let pem = IssuerPem {
        certificate: read(&path.join(issuer::CERTIFICATE))?,
        key: read(&path.join(issuer::KEY))?,
        roots: read(&path.join(issuer::ROOTS))?,
    };
    let identity = crate::authority::operator(trust_domain).map_err(|e| broken(&path, e.to_string()))?;
    let issuer = UserIssuer::parse(&pem, &identity, now).map_err(|problem| broken(&path, problem))?;
    Ok(Some(issuer))
}

fn read(file: &Path) -> Result<String, StoreError> {
    fs::read_to_string(file).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => broken(file, format!("is missing: {RESTORE}")),
        _ => io(file)(e),
    })
}

/// Carries out a step of a rotation.
pub(crate) fn take(dir: &Path, step: &Step, trust_domain: &str, now: SystemTime) -> Result<(), StoreError> {
    match step {
        Step::Added { root: _ } => {
            add(dir, trust_domain, now)?;
        }
        Step::Signs { signer } => set_signer(dir, *signer)?,
        Step::Dropped { roots } => {
            for root in roots {
                remove(dir, *root)?;
            }
        }
    }
    write_bundle(dir, &load(dir, trust_domain, now)?)
}

/// Adds a new root, which does not sign yet; gives its number.
pub(crate) fn add(dir: &Path, trust_domain: &str, now: SystemTime) -> Result<u32, StoreError> {
    let parent = dir.join(ROOTS);
    make_dir(&parent)?;
    let number = numbers(dir)?.last().map_or(1, |n| n + 1);
    let pem = root::create(trust_domain, now)?;
    let whole = parent.join(number.to_string());
    let draft = parent.join(format!(".{number}.{}", std::process::id()));
    if draft.exists() {
        fs::remove_dir_all(&draft).map_err(io(&draft))?;
    }
    make_dir(&draft)?;
    write(&draft.join(KEY), pem.key.as_bytes(), 0o600)?;
    write(&draft.join(CERTIFICATE), pem.certificate.as_bytes(), 0o644)?;
    match fs::rename(&draft, &whole) {
        // Another process was first: its root is as good.
        Err(_) if whole.exists() => fs::remove_dir_all(&draft).map_err(io(&draft))?,
        Err(e) => return Err(io(&whole)(e)),
        Ok(()) => flush_dir(&parent)?,
    }
    Ok(number)
}

/// Says who signs.
pub(crate) fn set_signer(dir: &Path, signs: Signs) -> Result<(), StoreError> {
    write(&dir.join(SIGNER), format!("{signs}\n").as_bytes(), 0o644)
}

/// Removes a root.
pub(crate) fn remove(dir: &Path, number: u32) -> Result<(), StoreError> {
    let whole = dir.join(ROOTS).join(number.to_string());
    let gone = dir
        .join(ROOTS)
        .join(format!(".{number}.removed.{}", std::process::id()));
    fs::rename(&whole, &gone).map_err(io(&whole))?;
    fs::remove_dir_all(&gone).map_err(io(&gone))
}

/// Writes the certificates that a proxy starts from.
pub(crate) fn write_bundle(dir: &Path, keys: &Keys) -> Result<(), StoreError> {
    let trusted = keys.trusted();
    let text = keys::pem(trusted.iter().map(AsRef::as_ref));
    let path = dir.join(BUNDLE);
    if fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    write(&path, text.as_bytes(), 0o644)
}

/// Reads the key of join tokens; makes it where there is none.
pub(crate) fn token_key(dir: &Path) -> Result<TokenKey, StoreError> {
    make_dir(dir)?;
    let path = dir.join(TOKEN_KEY);
    if !path.exists() {
        let secret: [u8; KEY_LEN] = rand::random();
        let draft = dir.join(format!(".{TOKEN_KEY}.{}", std::process::id()));
        write(&draft, STANDARD.encode(secret).as_bytes(), 0o600)?;
        // A link, unlike a rename, never replaces a key that another process put there meanwhile.
        let linked = fs::hard_link(&draft, &path);
        fs::remove_file(&draft).map_err(io(&draft))?;
        match linked {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(io(&path)(e)),
            _ => flush_dir(dir)?,
        }
    }
    let text = fs::read_to_string(&path).map_err(io(&path))?;
    let bytes = STANDARD.decode(text.trim()).unwrap_or_default();
    let secret: [u8; KEY_LEN] = bytes.try_into().map_err(|_| {
        let problem = "is not 32 bytes in base64: restore it from a backup, or remove it, which makes a new key and \
                       ends every join token made so far";
        broken(&path, problem)
    })?;
    Ok(TokenKey::new(&secret))
}

/// The numbers of the roots, in order. Drafts begin with a dot.
fn numbers(dir: &Path) -> Result<Vec<u32>, StoreError> {
    let path = dir.join(ROOTS);
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(io(&path)(e)),
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry.map_err(io(&path))?.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        let number = name.parse().map_err(|_| {
            broken(
                &path.join(name.as_ref()),
                "is not a root: directories here are named by number",
            )
        })?;
        numbers.push(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn make_dir(path: &Path) -> Result<(), StoreError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .map_err(io(path))
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), StoreError> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().expect("the callers' paths end in a name"));
    name.push(format!(".{}.new", std::process::id()));
    let draft = path.with_file_name(name);
    let put = || -> io::Result<()> {
        let _ = fs::remove_file(&draft);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&draft)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    put().map_err(io(path))?;
    flush_dir(path.parent().expect("the callers' paths have a parent"))
}

fn flush_dir(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(io(path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn an_empty_directory_becomes_an_authority_that_the_next_start_finds() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path(), "cluster.local", SystemTime::now()).unwrap();
        let second = open(dir.path(), "cluster.local", SystemTime::now()).unwrap();
        assert_eq!(first.signer().der, second.signer().der);
        assert_eq!(mode(&dir.path().join("roots/1/key.pem")), 0o600);
        let bundle = fs::read_to_string(dir.path().join(BUNDLE)).unwrap();
        let stored = fs::read_to_string(dir.path().join("roots/1/certificate.pem")).unwrap();
        assert_eq!(bundle.trim(), stored.trim());
    }

    #[test]
    fn a_start_cut_short_before_the_signer_was_named_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), "cluster.local", SystemTime::now()).unwrap();
        fs::remove_file(dir.path().join(SIGNER)).unwrap();
        fs::remove_file(dir.path().join(BUNDLE)).unwrap();
        fs::create_dir(dir.path().join("roots/.2.77")).unwrap();
        let keys = open(dir.path(), "cluster.local", SystemTime::now()).unwrap();
        assert_eq!(keys.signs, Signs::Root(1));
    }

    #[test]
    fn what_is_missing_or_does_not_fit_is_named_and_nothing_is_replaced() {
        type Harm = fn(&Path);
        let cases: [(Harm, &str); 5] = [
            (
                |d| fs::remove_file(d.join("roots/1/key.pem")).unwrap(),
                "roots/1/key.pem: is missing",
            ),
            (
                |d| fs::remove_dir_all(d.join("roots")).unwrap(),
                "roots: is missing or empty",
            ),
            (
                |d| fs::write(d.join("roots/1/certificate.pem"), "half").unwrap(),
                "roots/1: the certificate",
            ),
            (
                |d| fs::write(d.join("signer"), "7\n").unwrap(),
                "signer: names the root 7",
            ),
            (
                |d| fs::create_dir(d.join("roots/old")).unwrap(),
                "roots/old: is not a root",
            ),
        ];
        for (harm, says) in cases {
            let dir = tempfile::tempdir().unwrap();
            open(dir.path(), "cluster.local", SystemTime::now()).unwrap();
            harm(dir.path());
            let error = open(dir.path(), "cluster.local", SystemTime::now()).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn the_token_key_is_made_once_and_kept_from_others() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let token = token_key(dir.path())
            .unwrap()
            .mint("a", "b", "c", now, Duration::from_secs(9));
        assert!(token_key(dir.path()).unwrap().verify(&token, now).is_ok());
        assert_eq!(mode(&dir.path().join(TOKEN_KEY)), 0o600);
        fs::write(dir.path().join(TOKEN_KEY), "short").unwrap();
        assert!(
            token_key(dir.path())
                .unwrap_err()
                .to_string()
                .contains("32 bytes")
        );
    }
}
