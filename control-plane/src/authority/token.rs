//! Join tokens: with one a proxy proves which workload it is, before it has a certificate. Minted by the `token` command,
//! verified on every call. A token is `hbk1.<claims>.<mac>`: compact JSON and its HMAC-SHA256, each in
//! base64url without padding. Nothing here reads a clock or a file: time and key are given.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::verify::Claims;

const PREFIX: &str = "hbk1";
/// More than any token this build makes; longer ones are refused unread.
const MAX_LEN: usize = 4096;
/// Bytes of a key.
pub(crate) const KEY_LEN: usize = 32;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    /// Namespace of the pod.
    ns: String,
    /// Service account of the pod.
    sa: String,
    /// Name of the pod.
    pod: String,
    /// When the token ends, in Unix seconds.
    exp: u64,
}

/// Why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not of the form of a token.
    #[error("the join token is malformed: {0}; make one with `hauberk-control-plane token`")]
    Malformed(&'static str),
    /// Made by another key, or changed.
    #[error(
        "the join token's signature does not verify: it was made with another state directory's key, or altered"
    )]
    Signature,
    /// Its time is over.
    #[error("the join token expired {ago} s ago: make a new one with `hauberk-control-plane token`")]
    Expired {
        /// Seconds since it ended.
        ago: u64,
    },
}

/// The key that makes and verifies tokens.
pub struct TokenKey(hmac::Key);

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(elided)")
    }
}

impl TokenKey {
    /// A key of the given secret.
    #[must_use]
    pub fn new(secret: &[u8; KEY_LEN]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// Makes a token that lives `lifetime` from `now`.
    #[must_use]
    pub fn mint(
        &self,
        namespace: &str,
        service_account: &str,
        pod: &str,
        now: SystemTime,
        lifetime: Duration,
    ) -> String {
        let payload = Payload {
            ns: namespace.to_owned(),
            sa: service_account.to_owned(),
            pod: pod.to_owned(),
            exp: unix(now).saturating_add(lifetime.as_secs()),
        };
        let json = serde_json::to_vec(&payload).expect("strings and a number always serialize");
        let signed = format!("{PREFIX}.{}", URL_SAFE_NO_PAD.encode(json));
        let mac = hmac::sign(&self.0, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac))
    }

    /// Reads a token. The signature is checked first, in constant time: nothing of an unsigned token is interpreted.
    ///
    /// # Errors
    /// When it is malformed, signed by another key, or over.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Claims, TokenError> {
        if token.len() > MAX_LEN {
            return Err(TokenError::Malformed("it is longer than 4096 bytes"));
        }
        let (signed, mac) = token
            .rsplit_once('.')
            .ok_or(TokenError::Malformed("it does not have three parts"))?;
        let payload = signed
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.strip_prefix('.'))
            .ok_or(TokenError::Malformed("it does not begin with hbk1."))?;
        let mac = URL_SAFE_NO_PAD
            .decode(mac)
            .map_err(|_| TokenError::Malformed("its signature is not base64url"))?;
        hmac::verify(&self.0, signed.as_bytes(), &mac).map_err(|_| TokenError::Signature)?;

        let json = URL_SAFE_NO_PAD
            .decode(payload)
            .map_err(|_| TokenError::Malformed("its claims are not base64url"))?;
        let payload: Payload = serde_json::from_slice(&json)
            .map_err(|_| TokenError::Malformed("its claims are not those of this version"))?;
        let Payload { ns, sa, pod, exp } = payload;
        match unix(now).checked_sub(exp) {
            Some(ago) => Err(TokenError::Expired { ago }),
            None => Ok(Claims {
                namespace: ns,
                service_account: sa,
                pod,
            }),
        }
    }
}

pub(crate) fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: SystemTime = UNIX_EPOCH;

    fn key() -> TokenKey {
        TokenKey::new(&[7; KEY_LEN])
    }

    fn token() -> String {
        key().mint("shop", "reviews", "reviews-v1-0", NOW, Duration::from_secs(60))
    }

    #[test]
    fn claims_come_back_until_the_token_ends() {
        let at = |s| NOW + Duration::from_secs(s);
        let claims = key().verify(&token(), at(59)).unwrap();
        assert_eq!(
            (
                claims.namespace.as_str(),
                claims.service_account.as_str(),
                claims.pod.as_str()
            ),
            ("shop", "reviews", "reviews-v1-0")
        );
        assert_eq!(
            key().verify(&token(), at(60)),
            Err(TokenError::Expired { ago: 0 })
        );
        assert_eq!(
            key().verify(&token(), at(65)),
            Err(TokenError::Expired { ago: 5 })
        );
    }

    #[test]
    fn each_way_to_be_wrong_has_its_own_reason() {
        let other = TokenKey::new(&[8; KEY_LEN]);
        assert_eq!(other.verify(&token(), NOW), Err(TokenError::Signature));
        for bad in [
            "",
            "x",
            "hbk1",
            "hbk1.a",
            "hbk2.e30.AAAA",
            "a.b.c",
            "hbk1.e30.%%%",
        ] {
            assert!(
                matches!(key().verify(bad, NOW), Err(TokenError::Malformed(_))),
                "{bad}"
            );
        }
        let long = "x".repeat(MAX_LEN + 1);
        assert!(matches!(key().verify(&long, NOW), Err(TokenError::Malformed(_))));
    }

    #[test]
    fn a_signed_payload_of_another_shape_is_malformed() {
        let signed = format!("{PREFIX}.{}", URL_SAFE_NO_PAD.encode(br#"{"ns":"a"}"#));
        let mac = hmac::sign(&key().0, signed.as_bytes());
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac));
        assert!(matches!(key().verify(&token, NOW), Err(TokenError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn any_text_is_refused_without_a_panic(text in ".{0,200}") {
            prop_assert!(key().verify(&text, NOW).is_err());
        }

        #[test]
        fn a_token_with_one_character_changed_is_refused(at in 0usize..1000, to in any::<char>()) {
            let token = token();
            let mut chars: Vec<char> = token.chars().collect();
            let at = at % chars.len();
            prop_assume!(chars[at] != to);
            chars[at] = to;
            let changed: String = chars.into_iter().collect();
            prop_assert!(key().verify(&changed, NOW).is_err());
        }

        #[test]
        fn any_names_survive(ns in ".{1,40}", sa in ".{1,40}", pod in ".{1,40}") {
            let token = key().mint(&ns, &sa, &pod, NOW, Duration::from_secs(1));
            let claims = key().verify(&token, NOW).unwrap();
            prop_assert_eq!((claims.namespace, claims.service_account, claims.pod), (ns, sa, pod));
        }
    }
}
