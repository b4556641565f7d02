//! TLS towards a destination.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// TLS towards a destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientTls {
    /// Which TLS; DISABLE when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<TlsMode>,
    /// A file with the client's certificate, in the proxy's container; for MUTUAL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<String>,
    /// A file with the client's key, in the proxy's container; for MUTUAL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<String>,
    /// A file with the certificates to trust, in the proxy's container; those of its system when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_certificates: Option<String>,
    /// A Secret with certificate, key and trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_name: Option<String>,
    /// Names the server's certificate may carry (DNS, URI, address); the name it is asked for when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subject_alt_names: Vec<String>,
    /// The name to ask for; the host of the request when absent, or the service where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// Whether the server's certificate goes unchecked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insecure_skip_verify: Option<bool>,
    /// A file with revoked certificates, in the proxy's container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_crl: Option<String>,
}

/// Which TLS is spoken towards a destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TlsMode {
    /// None.
    #[default]
    Disable,
    /// TLS to a server outside the mesh.
    Simple,
    /// Mutual TLS with own certificates.
    Mutual,
    /// Mutual TLS with the mesh's certificates.
    IstioMutual,
}
