//! What an authority holds at one moment: its roots, the user's intermediate if there is one, and which of them signs.
//! Put together by the homes of `store`; read by `authority` and by `rotate`. Pure.

use std::fmt;
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;

use super::issuer::UserIssuer;
use super::signer::Signer;
use super::store::StoreError;

/// Which key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signs {
    /// The root of this number, made here.
    Root(u32),
    /// The user's intermediate.
    Issuer,
}

impl Signs {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            "issuer" => Some(Self::Issuer),
            number => number.parse().ok().map(Self::Root),
        }
    }
}

/// As it is kept.
impl fmt::Display for Signs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root(number) => write!(f, "{number}"),
            Self::Issuer => f.write_str("issuer"),
        }
    }
}

/// What an authority holds.
#[derive(Debug)]
pub(crate) struct Keys {
    /// Roots made here, with their numbers, oldest first.
    pub(crate) roots: Vec<(u32, Signer)>,
    pub(crate) issuer: Option<UserIssuer>,
    pub(crate) signs: Signs,
    /// When the one that signs was chosen; `None` when that was not kept.
    pub(crate) since: Option<SystemTime>,
    /// What is wrong with an intermediate that does not sign yet.
    pub(crate) problem: Option<String>,
}

/// What a home found, to be put together.
pub(crate) struct Found<'a> {
    pub(crate) roots: Vec<(u32, Signer)>,
    pub(crate) issuer: Result<Option<UserIssuer>, StoreError>,
    pub(crate) signs: Signs,
    pub(crate) since: Option<SystemTime>,
    /// Where it is written who signs, for messages.
    pub(crate) signer_at: &'a str,
    /// Where the user's intermediate would be, for messages.
    pub(crate) issuer_at: &'a str,
    /// What to do when something is missing.
    pub(crate) restore: &'a str,
}

impl Keys {
    /// Puts together what was found: the one that signs must be there.
    pub(crate) fn new(found: Found<'_>) -> Result<Self, StoreError> {
        let broken = |problem: String| StoreError::Broken {
            place: found.signer_at.to_owned(),
            problem,
        };
        let (issuer, problem) = match (found.issuer, found.signs) {
            (Ok(Some(issuer)), _) => (Some(issuer), None),
            (Ok(None), Signs::Root(_)) => (None, None),
            (Ok(None), Signs::Issuer) => {
                let at = found.issuer_at;
                return Err(broken(format!(
                    "says that the intermediate in {at} signs, but there is none: put it back"
                )));
            }
            (Err(error), Signs::Root(_)) => (None, Some(error.to_string())),
            (Err(error), Signs::Issuer) => return Err(error),
        };
        if let Signs::Root(number) = found.signs
            && !found.roots.iter().any(|(n, _)| *n == number)
        {
            let restore = found.restore;
            return Err(broken(format!(
                "names the root {number}, which is not there: {restore}"
            )));
        }
        Ok(Self {
            roots: found.roots,
            issuer,
            signs: found.signs,
            since: found.since,
            problem,
        })
    }

    /// The one that signs.
    pub(crate) fn signer(&self) -> &Signer {
        let root = |number| {
            self.roots
                .iter()
                .find(|(n, _)| *n == number)
                .map(|(_, root)| root)
        };
        match self.signs {
            Signs::Root(number) => root(number),
            Signs::Issuer => self.issuer.as_ref().map(|issuer| &issuer.signer),
        }
        .expect("the one that signs is there, as `new` has seen")
    }

    /// Every root to trust: those made here, oldest first, and the user's.
    pub(crate) fn trusted(&self) -> Vec<CertificateDer<'static>> {
        let made = self.roots.iter().map(|(_, root)| &root.der);
        let brought = self.issuer.iter().flat_map(|issuer| &issuer.roots);
        let mut trusted: Vec<CertificateDer<'static>> = Vec::new();
        for root in made.chain(brought) {
            if !trusted.contains(root) {
                trusted.push(root.clone());
            }
        }
        trusted
    }
}

/// Certificates as PEM, one after another.
pub(crate) fn pem<'a>(certificates: impl IntoIterator<Item = &'a [u8]>) -> String {
    use base64::Engine as _;
    let mut text = String::new();
    for der in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        let mut rest = body.as_str();
        while !rest.is_empty() {
            let (line, more) = rest.split_at(rest.len().min(64));
            text.push_str(line);
            text.push('\n');
            rest = more;
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}
