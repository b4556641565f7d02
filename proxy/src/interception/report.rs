//! What `hauberk-proxy init` tells: the report of a run that did what it should, or the error and its remedy.
//!
//! Returned by [`super::run`] to `main`, which prints it. The texts are for whoever looks at the log of an init
//! container that does not succeed, so each says what was seen and what to do.

use std::{fmt, io, net::SocketAddr};

use super::{Backend, probe::Verified};

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The rules stand and were verified.
    Installed {
        /// The tool that wrote them.
        backend: &'static str,
        /// How the outbound redirect was verified: IPv4, then IPv6 if there is any.
        outbound: Vec<Verified>,
        /// Why failed connections of the proxy are kept by the kernel as long as any, if they are.
        kept: Option<String>,
    },
    /// These were removed.
    Removed(Vec<String>),
    /// The rules that would have been written.
    DryRun(String),
}

/// Why nothing was done. Rules of the failed attempt have been taken back.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's text says what it is")]
pub enum InterceptionError {
    #[error(
        "--outbound-port {outbound}, --inbound-port {inbound} and --admin-port {admin} must be three different ports"
    )]
    PortsCollide { outbound: u16, inbound: u16, admin: u16 },

    #[error(
        "init runs as user {uid}, whose traffic is to be left alone, so the redirect cannot be verified: \
         run init as another user (root), or set --proxy-uid to the user the proxy will have"
    )]
    RunsAsProxy { uid: u32 },

    #[error(
        "user {uid} does not exist in this user namespace, so the proxy cannot run as it: set --proxy-uid to one that \
         does, or tell the proxy's traffic apart with --exclude-mark"
    )]
    NoSuchUser { uid: u32 },

    #[error(
        "neither nft nor iptables is installed: add the package nftables (or iptables) to the image that runs \
         `hauberk-proxy init`"
    )]
    NoTool,

    #[error("{program} is not installed: add its package to the image, or use --backend auto")]
    NotInstalled { program: String },

    #[error(
        "`{command}` was not permitted ({said}): give the init container the capability CAP_NET_ADMIN and run it as \
         root, with NET_RAW too if only iptables-legacy is there"
    )]
    NotPermitted { command: String, said: String },

    #[error(
        "`{command}` could not take its lock ({said}): make /run writable in the init container (an emptyDir is \
         enough), or use an image with nft, which needs no lock"
    )]
    LockUnavailable { command: String, said: String },

    #[error(
        "`{command}` failed because this node's kernel lacks something that it needs ({said}): load nf_tables, nft_chain_nat \
         and nft_redir on the node, or, for iptables-legacy, iptable_nat (ip6table_nat) and xt_REDIRECT; an init \
         container may not load kernel modules itself"
    )]
    KernelLacks { command: String, said: String },

    #[error("`{command}` failed: {said}")]
    CommandFailed { command: String, said: String },

    #[error("{program} did not end within {seconds} s and was killed")]
    TimedOut { program: String, seconds: u64 },

    #[error("{backend} accepted the rules, but reading them back gives something else: {difference}")]
    RulesDiffer {
        backend: &'static str,
        difference: String,
    },

    #[error("port {port}, where the proxy will accept connections, cannot be opened: {error}")]
    ProbeListen { port: u16, error: io::Error },

    #[error(
        "the rules are in place but do not work: dialled {target}, expected it at the proxy's own port; {seen}. \
         Look for other NAT rules in this pod (`nft list ruleset`, `iptables-save`) and for missing kernel modules \
         (nft_redir, xt_REDIRECT, nf_conntrack) on the node"
    )]
    NotRedirected { target: SocketAddr, seen: String },

    #[error("no way to set up the redirect worked: {}", Numbered(.0))]
    NothingWorked(Vec<InterceptionError>),
}

impl InterceptionError {
    /// Of a failed [`super::nft::forget_failed`]: what is missing, since its remedy is not that of a failed redirect.
    pub(super) fn told_of_timeouts(self) -> String {
        match self {
            Self::KernelLacks { said, .. } => format!(
                "this node's kernel cannot set the timeouts of single connections ({said}): load nft_ct, and use one \
                 with CONFIG_NF_CONNTRACK_TIMEOUT"
            ),
            other => other.to_string(),
        }
    }

    /// One error out of those of all attempts. What is simply not installed is of interest only if nothing is.
    pub(super) fn of_attempts(choice: Backend, failures: Vec<Self>) -> Self {
        let missing = |error: &Self| matches!(error, Self::NotInstalled { .. } | Self::NoTool);
        let mut tried: Vec<Self> = Vec::new();
        for error in failures.into_iter().filter(|error| !missing(error)) {
            match error {
                Self::NothingWorked(inner) => tried.extend(inner),
                other => tried.push(other),
            }
        }
        match (tried.len(), choice) {
            (0, Backend::Auto) => Self::NoTool,
            (0, Backend::Nft) => Self::NotInstalled {
                program: "nft".to_owned(),
            },
            (0, Backend::Iptables) => Self::NotInstalled {
                program: "iptables".to_owned(),
            },
            (1, _) => tried.remove(0),
            _ => Self::NothingWorked(tried),
        }
    }
}

/// `(1) … (2) …`
struct Numbered<'a>(&'a [InterceptionError]);

impl fmt::Display for Numbered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            write!(f, "{}({}) {error}", if index == 0 { "" } else { " " }, index + 1)?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installed {
                backend,
                outbound,
                kept,
            } => {
                write!(
                    f,
                    "TCP is redirected to the proxy by {backend}; inbound: verified by reading the rules back"
                )?;
                for (family, verified) in ["IPv4", "IPv6"].into_iter().zip(outbound) {
                    write!(f, "; outbound {family}: {verified}")?;
                }
                if let Some(why) = kept {
                    write!(
                        f,
                        "; warning: {why}; so a call that reuses the port of a connection which the proxy failed to \
                         open in the last two minutes, to the same address, passes by the proxy"
                    )?;
                }
                Ok(())
            }
            Self::Removed(removed) if removed.is_empty() => f.write_str("there were no rules to remove"),
            Self::Removed(removed) => write!(f, "removed {}", removed.join(", ")),
            Self::DryRun(rules) => f.write_str(rules),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(said: &str) -> InterceptionError {
        InterceptionError::CommandFailed {
            command: "nft -f -".to_owned(),
            said: said.to_owned(),
        }
    }

    fn missing(program: &str) -> InterceptionError {
        InterceptionError::NotInstalled {
            program: program.to_owned(),
        }
    }

    #[test]
    fn without_any_tool_the_package_is_named_in_one_line() {
        let error = InterceptionError::of_attempts(Backend::Auto, vec![missing("nft"), missing("iptables")]);
        assert!(matches!(error, InterceptionError::NoTool));
        assert!(
            error.to_string().contains("nftables") && !error.to_string().contains('\n'),
            "{error}"
        );
    }

    #[test]
    fn the_only_tool_that_was_tried_speaks_for_itself() {
        let error =
            InterceptionError::of_attempts(Backend::Auto, vec![failed("no NAT"), missing("iptables")]);
        assert_eq!(error.to_string(), "`nft -f -` failed: no NAT");
    }

    #[test]
    fn the_report_says_what_it_means_that_failed_connections_are_kept() {
        let report = |kept: Option<&str>| Report::Installed {
            backend: "nft",
            outbound: Vec::new(),
            kept: kept.map(str::to_owned),
        };
        assert!(!report(None).to_string().contains("warning"));
        let told = report(Some("no ct timeouts")).to_string();
        assert!(
            told.contains("warning: no ct timeouts; so") && told.contains("passes by the proxy"),
            "{told}"
        );
    }

    #[test]
    fn several_failures_are_all_told() {
        let inner = InterceptionError::NothingWorked(vec![failed("b"), failed("c")]);
        let error = InterceptionError::of_attempts(Backend::Auto, vec![failed("a"), inner]).to_string();
        for part in [
            "(1) `nft -f -` failed: a",
            "(2) `nft -f -` failed: b",
            "(3) `nft -f -` failed: c",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }
}
