//! Every setting in one table: its name, default and meaning. The file's keys, the environment's names and the flags are
//! all made from it, and the user guide's table too.

/// A command of the operator's binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommandName {
    Run,
    Token,
    Status,
    RotateRoot,
}

impl CommandName {
    pub(crate) const ALL: [Self; 4] = [Self::Run, Self::Token, Self::Status, Self::RotateRoot];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Token => "token",
            Self::Status => "status",
            Self::RotateRoot => "rotate-root",
        }
    }

    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::Run => "Run the operator: watch the source, compile, and serve proxies",
            Self::Token => "Print a join token, with which a pod's proxy proves what it is",
            Self::Status => {
                "Show what a running operator thinks of each object, and which proxies have applied it"
            }
            Self::RotateRoot => {
                "Take the next step in replacing the root certificate: add, sign with it, drop the old one"
            }
        }
    }
}

/// One setting.
#[derive(Debug)]
pub(crate) struct Setting {
    /// Name of the flag and of the file's key.
    pub(crate) name: &'static str,
    /// Name of the value in help.
    pub(crate) value: &'static str,
    /// Value unless something else is said; `None` where something must be said.
    pub(crate) default: Option<&'static str>,
    /// What it is for.
    pub(crate) help: &'static str,
    /// The commands that read it.
    pub(crate) commands: &'static [CommandName],
}

impl Setting {
    /// The name in the environment: `HAUBERK_` and the name in capitals.
    pub(crate) fn env(&self) -> String {
        format!("HAUBERK_{}", self.name.to_uppercase().replace('-', "_"))
    }
}

use CommandName::{RotateRoot, Run, Status, Token};

const fn setting(
    name: &'static str,
    value: &'static str,
    default: Option<&'static str>,
    commands: &'static [CommandName],
    help: &'static str,
) -> Setting {
    Setting {
        name,
        value,
        default,
        help,
        commands,
    }
}

/// Every setting.
#[rustfmt::skip]
pub(crate) const TABLE: [Setting; 16] = [
    setting("source", "SOURCE", Some("directory"), &[Run, RotateRoot],
        "Where objects come from: `directory`, a folder of YAML files that is watched, or `kubernetes`, the API server of \
         the cluster around the operator, or the one that KUBECONFIG names; and with that where roots and keys are kept"),
    setting("config-dir", "DIR", None, &[Run],
        "The folder that the source `directory` watches; not used with `kubernetes`"),
    setting("state-dir", "DIR", None, &[Run, Token, RotateRoot],
        "Where roots and keys are kept; it must survive restarts, and only the operator may read it; not used with the \
         source `kubernetes`, which keeps them in a Secret"),
    setting("listen", "ADDRESS", Some("0.0.0.0:15010"), &[Run],
        "Address on which proxies are served"),
    setting("admin", "ADDRESS", Some("0.0.0.0:15020"), &[Run, Status],
        "Address of health, metrics and status: to serve them on, or (command status) to ask"),
    setting("webhook", "ADDRESS", Some("0.0.0.0:15017"), &[Run],
        "Address on which the API server's webhooks are answered, with the source `kubernetes`"),
    setting("trust-domain", "NAME", Some(api::names::TRUST_DOMAIN), &[Run, RotateRoot],
        "Trust domain of every identity"),
    setting("certificate-lifetime", "TIME", Some("24h"), &[Run, RotateRoot],
        "Lifetime of workloads' certificates, 10s to 8760h"),
    setting("injection", "FILE", Some(""), &[Run],
        "With the source `kubernetes`, a YAML file that says what injected proxies are like, as the chart writes it from its values under \
         `injection.proxy`; without it proxies are as the chart's defaults say"),
    setting("log", "LEVEL", Some("info"), &[Run],
        "What is logged: error, warn, info, debug, trace, or directives such as `info,control_plane::push=debug`; \
         RUST_LOG counts where this is not set"),
    setting("log-format", "FORMAT", Some("text"), &[Run],
        "`text`, or `json` with one object a line"),
    setting("namespace", "NAMESPACE", None, &[Run, Token],
        "Namespace of the pod: that of the token, or (command run, source `kubernetes`) the operator's own"),
    setting("service-account", "NAME", None, &[Token],
        "Service account of the pod"),
    setting("pod", "NAME", None, &[Run, Token],
        "Name of the pod: that of the token, or (command run, source `kubernetes`) the operator's own, by which the \
         replicas elect the one that writes"),
    setting("lifetime", "TIME", Some("24h"), &[Token],
        "How long the token is good, 1s to 87600h"),
    setting("output", "FORMAT", Some("text"), &[Status],
        "`text`, or `json`"),
];
