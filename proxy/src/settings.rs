//! The proxy's settings. This is the only file that reads the environment: flags win over the environment, the
//! environment over the settings file, the file over defaults. A bad value is an error that names it, and no start.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use crate::interception::InitArgs;
use crate::probes::Probes;

/// The command line of `hauberk-proxy`.
#[derive(Debug, Parser)]
#[command(
    name = "hauberk-proxy",
    version,
    about = "Hauberk's data plane: one small proxy beside every pod"
)]
#[command(args_override_self = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the pod's traffic.
    Run(Box<Settings>),
    /// Redirect the pod's connections to the proxy, or stop doing so.
    Init(InitArgs),
    /// Return when the proxy of this pod is ready.
    Wait(WaitArgs),
}

/// The options of `hauberk-proxy wait`.
#[derive(Debug, Clone, Args)]
#[command(args_override_self = true)]
pub struct WaitArgs {
    /// How long the proxy may take to be ready.
    #[arg(long, default_value = "60s", value_parser = api::parse_time, value_name = "TIME")]
    pub timeout: Duration,
    /// Address of the admin server.
    #[arg(long, env = "HAUBERK_ADMIN", default_value_t = default_admin())]
    pub admin: SocketAddr,
}

/// Settings of a running proxy.
#[derive(Debug, Clone, Args)]
#[command(args_override_self = true)]
pub struct Settings {
    /// File with one `HAUBERK_NAME=value` a line; the environment and flags win over it.
    #[arg(long, env = "HAUBERK_SETTINGS", value_name = "FILE")]
    pub settings: Option<PathBuf>,
    /// `https://host:port` of the operator.
    #[arg(long, env = "HAUBERK_OPERATOR", value_name = "URL")]
    pub operator: String,
    /// PEM file with the roots that the operator is verified against.
    #[arg(long, env = "HAUBERK_OPERATOR_ROOTS", value_name = "FILE")]
    pub operator_roots: PathBuf,
    /// File with the token that proves this workload; read anew for each use.
    #[arg(long, env = "HAUBERK_TOKEN_FILE", value_name = "FILE")]
    pub token_file: PathBuf,
    /// Trust domain of the mesh.
    #[arg(long, env = "HAUBERK_TRUST_DOMAIN", default_value = api::names::TRUST_DOMAIN)]
    pub trust_domain: String,
    /// Namespace of the pod.
    #[arg(long, env = "HAUBERK_NAMESPACE")]
    pub namespace: String,
    /// Name of the pod.
    #[arg(long, env = "HAUBERK_POD")]
    pub pod: String,
    /// Service account of the pod.
    #[arg(long, env = "HAUBERK_SERVICE_ACCOUNT")]
    pub service_account: String,
    /// Addresses of the pod, separated by commas.
    #[arg(long, env = "HAUBERK_POD_IPS", value_delimiter = ',', value_name = "IP,…")]
    pub pod_ips: Vec<IpAddr>,
    /// Worker threads, 1 to 64.
    #[arg(long, env = "HAUBERK_WORKERS", default_value_t = default_workers(), value_parser = parse_workers)]
    pub workers: usize,
    /// Filter of the log, as in `info,proxy::outbound=debug`.
    #[arg(long, env = "HAUBERK_LOG", default_value = "info")]
    pub log: String,
    /// Form of the log.
    #[arg(long, env = "HAUBERK_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// The access log.
    #[arg(long, env = "HAUBERK_ACCESS_LOG", default_value = "off")]
    pub access_log: AccessLog,
    /// Port of the outbound listener.
    #[arg(long, env = "HAUBERK_OUTBOUND_PORT", default_value_t = api::names::OUTBOUND_PORT)]
    pub outbound_port: u16,
    /// Port of the inbound listener.
    #[arg(long, env = "HAUBERK_INBOUND_PORT", default_value_t = api::names::INBOUND_PORT)]
    pub inbound_port: u16,
    /// Address of the admin server.
    #[arg(long, env = "HAUBERK_ADMIN", default_value_t = default_admin())]
    pub admin: SocketAddr,
    /// Mark put on the proxy's own connections, where its traffic cannot be told by user.
    #[arg(long, env = "HAUBERK_SOCKET_MARK", value_name = "NUMBER")]
    pub socket_mark: Option<u32>,
    /// Connections that may be open at once.
    #[arg(
        long,
        env = "HAUBERK_MAX_CONNECTIONS",
        default_value_t = 100_000,
        value_name = "COUNT"
    )]
    pub max_connections: u32,
    /// How long the operator may take to say what stands behind an address.
    #[arg(long, env = "HAUBERK_DISCOVERY_TIMEOUT", default_value = "5s", value_parser = api::parse_time, value_name = "TIME")]
    pub discovery_timeout: Duration,
    /// What happens to a connection when it does not say so in time.
    #[arg(long, env = "HAUBERK_ON_DISCOVERY_TIMEOUT", default_value = "refuse")]
    pub on_discovery_timeout: OnDiscoveryTimeout,
    /// A destination without a connection for this long is given up.
    #[arg(long, env = "HAUBERK_DESTINATION_IDLE", default_value = "10m", value_parser = api::parse_time, value_name = "TIME")]
    pub destination_idle: Duration,
    /// How long a connection's first bytes may take before it counts as opaque.
    #[arg(long, env = "HAUBERK_DETECT_TIMEOUT", default_value = "10s", value_parser = api::parse_time, value_name = "TIME")]
    pub detect_timeout: Duration,
    /// The application's probes that the admin server carries out under `/probe/`, as JSON.
    #[arg(long, env = "HAUBERK_PROBES", default_value = "{}", value_name = "JSON")]
    pub probes: Probes,
    /// After SIGTERM, how long connections to the pod are still accepted.
    #[arg(long, env = "HAUBERK_DRAIN_DELAY", default_value = "5s", value_parser = api::parse_time, value_name = "TIME")]
    pub drain_delay: Duration,
    /// After that, how long open connections may go on, and the application may open new ones.
    #[arg(long, env = "HAUBERK_DRAIN_TIMEOUT", default_value = "20s", value_parser = api::parse_time, value_name = "TIME")]
    pub drain_timeout: Duration,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines of words.
    Text,
    /// One JSON object a line.
    Json,
}

/// The access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AccessLog {
    /// None.
    Off,
    /// One line of words a request.
    Text,
    /// One JSON object a request.
    Json,
}

/// What happens to a connection when the operator does not say in time what stands behind its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnDiscoveryTimeout {
    /// It is refused: it may have needed mutual TLS.
    Refuse,
    /// It is passed on as it is, without mutual TLS.
    Passthrough,
}

fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get().min(2))
}

fn default_admin() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, api::names::ADMIN_PORT))
}

fn parse_workers(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=64) => Ok(n),
        _ => Err("use a number from 1 to 64".into()),
    }
}

impl Cli {
    /// Reads the command line, the environment and the settings file.
    ///
    /// # Errors
    /// When the settings file cannot be read or names something unknown. Bad flags end the process with a message.
    pub fn read() -> anyhow::Result<Self> {
        let args: Vec<OsString> = std::env::args_os().collect();
        let args = match settings_file(&args) {
            Some(file) => with_file(args, &file)?,
            None => args,
        };
        let matches = Self::command().get_matches_from(args);
        Ok(Self::from_arg_matches(&matches)?)
    }
}

fn settings_file(args: &[OsString]) -> Option<PathBuf> {
    let mut args = args.iter().filter_map(|a| a.to_str());
    while let Some(arg) = args.next() {
        if arg == "--settings" {
            return args.next().map(PathBuf::from);
        }
        if let Some(file) = arg.strip_prefix("--settings=") {
            return Some(PathBuf::from(file));
        }
    }
    std::env::var_os("HAUBERK_SETTINGS").map(PathBuf::from)
}

/// Puts the file's values before the flags, where flags win over them, unless the environment has the name. The file is
/// one for all commands, each of which takes what it knows.
fn with_file(args: Vec<OsString>, file: &PathBuf) -> anyhow::Result<Vec<OsString>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("settings file {}", file.display()))?;
    let run = <Settings as Args>::augment_args(clap::Command::new("run"));
    let command = args.get(1).and_then(|name| name.to_str()).unwrap_or_default();
    let program = Cli::command();
    let command = program.find_subcommand(command);
    let mut before = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at = || format!("{}:{}", file.display(), number + 1);
        let Some((name, value)) = line.split_once('=') else {
            bail!("{}: expected HAUBERK_NAME=value, found {line:?}", at());
        };
        let (name, value) = (name.trim(), value.trim());
        let Some(flag) = run
            .get_arguments()
            .find(|a| a.get_env() == Some(name.as_ref()))
            .and_then(|a| a.get_long())
        else {
            bail!(
                "{}: {name} is not a setting; `hauberk-proxy run --help` lists them",
                at()
            );
        };
        let taken = command.is_some_and(|c| c.get_arguments().any(|a| a.get_env() == Some(name.as_ref())));
        if taken && std::env::var_os(name).is_none() {
            before.push(OsString::from(format!("--{flag}={value}")));
        }
    }
    let mut all = args;
    let flags = all.split_off(all.len().min(2));
    all.extend(before);
    all.extend(flags);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDED: &str = "HAUBERK_OPERATOR=https://op:15010\nHAUBERK_OPERATOR_ROOTS=/r\nHAUBERK_TOKEN_FILE=/t\n\
                          HAUBERK_NAMESPACE=shop\nHAUBERK_POD=web-0\nHAUBERK_SERVICE_ACCOUNT=web\n";

    fn read(file: &str, flags: &[&str]) -> anyhow::Result<Settings> {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), file).unwrap();
        let args = ["hauberk-proxy", "run"]
            .iter()
            .chain(flags)
            .map(OsString::from)
            .collect();
        let args = with_file(args, &path.path().to_path_buf())?;
        match Cli::try_parse_from(args)?.command {
            Command::Run(settings) => Ok(*settings),
            Command::Init(_) | Command::Wait(_) => unreachable!("the arguments say run"),
        }
    }

    #[test]
    fn waiting_takes_the_admin_address_from_the_file_of_the_proxy() {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), format!("{NEEDED}HAUBERK_ADMIN=127.0.0.1:1502\n")).unwrap();
        for (words, admin, timeout) in [
            (["wait", "--timeout=7s"], "127.0.0.1:1502", 7),
            (["wait", "--admin=10.1.0.5:9"], "10.1.0.5:9", 60),
        ] {
            let args = ["hauberk-proxy"]
                .into_iter()
                .chain(words)
                .map(OsString::from)
                .collect();
            let args = with_file(args, &path.path().to_path_buf()).unwrap();
            let Command::Wait(wait) = Cli::try_parse_from(args).unwrap().command else {
                unreachable!("the arguments say wait")
            };
            assert_eq!(wait.admin.to_string(), admin);
            assert_eq!(wait.timeout, Duration::from_secs(timeout));
        }
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let file = format!("# a comment\n{NEEDED}\nHAUBERK_DRAIN_DELAY=7s\nHAUBERK_WORKERS=3\n");
        let settings = read(&file, &["--workers", "1"]).unwrap();
        assert_eq!(
            (settings.workers, settings.drain_delay),
            (1, Duration::from_secs(7))
        );
        assert_eq!(settings.drain_timeout, Duration::from_secs(20));
    }

    #[test]
    fn bad_values_are_named() {
        let error = read(&format!("{NEEDED}HAUBERK_COLOUR=red\n"), &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(":7") && error.contains("HAUBERK_COLOUR"),
            "{error}"
        );
        let error = read(NEEDED, &["--drain-delay", "soon"]).unwrap_err().to_string();
        assert!(
            error.contains("--drain-delay") && error.contains("250ms"),
            "{error}"
        );
        assert!(
            read(NEEDED, &["--workers", "0"])
                .unwrap_err()
                .to_string()
                .contains("1 to 64")
        );
        let probes = format!("{NEEDED}HAUBERK_PROBES={{\"web/ready\": {{}}}}\n");
        let error = read(&probes, &[]).unwrap_err().to_string();
        assert!(
            error.contains("--probes") && error.contains("web/ready") && error.contains("liveness"),
            "{error}"
        );
        assert!(
            read("nonsense", &[])
                .unwrap_err()
                .to_string()
                .contains("HAUBERK_NAME=value")
        );
    }

    /// The guide's table is what the program reads; `UPDATE=1 cargo test -p proxy guide` rewrites it.
    #[test]
    fn the_guide_lists_every_setting() {
        let mut table = String::from(
            "# Settings of the proxy\n\nFlags of `hauberk-proxy run` win over the environment, the environment over the file \
             that `--settings` names (one\n`HAUBERK_NAME=value` a line), the file over defaults. A bad value is named, and the \
             proxy does not start. `hauberk-proxy\ninit --help` lists the flags of the redirect.\n\n\
             | Flag | Environment | Default | Meaning |\n|---|---|---|---|\n",
        );
        let run = <Settings as Args>::augment_args(clap::Command::new("run"));
        for arg in run.get_arguments() {
            let (Some(flag), Some(env)) = (arg.get_long(), arg.get_env()) else {
                continue;
            };
            let default: Vec<_> = arg
                .get_default_values()
                .iter()
                .filter_map(|v| v.to_str())
                .collect();
            // What the machine decides is no default to write down.
            let default = if flag == "workers" {
                "cores, 2 at most".to_owned()
            } else {
                default.join(",")
            };
            let values: Vec<_> = arg
                .get_possible_values()
                .iter()
                .map(|v| format!("`{}`", v.get_name()))
                .collect();
            let values = if values.is_empty() {
                String::new()
            } else {
                format!(" One of {}.", values.join(", "))
            };
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let env = env.to_str().unwrap_or_default();
            table.push_str(&format!(
                "| `--{flag}` | `{env}` | {default} | {help}.{values} |\n"
            ));
        }
        let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guide/proxy-settings.md");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(guide, &table).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(guide).unwrap_or_default(),
            table,
            "run `UPDATE=1 cargo test -p proxy guide`"
        );
    }
}
