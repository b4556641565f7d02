//! What the operator is told: the only place that reads the environment. Four layers, the later one wins: the table's
//! defaults, the file (`--settings`, YAML), the environment (`HAUBERK_…`), flags. Every value remembers where it came
//! from, so that a wrong one is refused by name before anything starts. Called once, by `main`.

mod table;
mod value;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command as Clap};

use crate::authority::AuthoritySettings;
use table::{CommandName, Setting, TABLE};
use value::SourceName;

/// What the binary is asked to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Run the operator.
    Run(Box<Run>),
    /// Print a join token.
    Token(Token),
    /// Show the status of a running operator.
    Status(Status),
    /// Take the next step of a root's rotation.
    RotateRoot(RotateRoot),
}

/// Settings of `run`.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Where objects come from, and with that where the operator keeps its own state.
    pub source: SourceSettings,
    /// Settings of the authority.
    pub authority: AuthoritySettings,
    /// Address on which proxies are served.
    pub listen: SocketAddr,
    /// Address of health, metrics and status.
    pub admin: SocketAddr,
    /// Filter of the log.
    pub log: String,
    /// Form of the log.
    pub log_format: Format,
}

/// Where objects come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceSettings {
    /// A folder of YAML files.
    Directory {
        /// The folder whose objects are watched.
        config_dir: PathBuf,
        /// Where roots and keys are kept.
        state_dir: PathBuf,
    },
    /// The API server of the cluster that the operator runs in, or that KUBECONFIG names. Roots and keys are kept there.
    Kubernetes(Box<KubernetesSettings>),
}

/// Settings of the operator in a Kubernetes cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesSettings {
    /// Name of the operator's pod: its identity in the election of the replica that writes.
    pub pod: String,
    /// Namespace of the operator's pod.
    pub namespace: String,
    /// Address on which the API server's webhooks are answered.
    pub webhook: SocketAddr,
    /// What injected proxies are like.
    pub injection: inject::Config,
}

/// Settings of `rotate-root`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotateRoot {
    /// Where the roots are.
    pub keys: KeysAt,
    /// Settings of the authority.
    pub authority: AuthoritySettings,
}

/// Where the authority's roots and keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeysAt {
    /// In this directory.
    Directory(PathBuf),
    /// In the Secret of the cluster that the process runs in, or that KUBECONFIG names.
    Kubernetes,
}

/// Settings of `token`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Where the key is kept.
    pub state_dir: PathBuf,
    /// Namespace of the pod.
    pub namespace: String,
    /// Service account of the pod.
    pub service_account: String,
    /// Name of the pod.
    pub pod: String,
    /// How long the token is good.
    pub lifetime: Duration,
}

/// Settings of `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Address of the operator's admin server.
    pub admin: SocketAddr,
    /// Form of the answer.
    pub output: Format,
}

/// For people or for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    Default,
    File(PathBuf),
    Environment(String),
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the default"),
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Environment(name) => write!(f, "the environment's {name}"),
            Self::Flag => f.write_str("the flag"),
        }
    }
}

/// Why the binary does not start.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Not a command line of this binary; or help was asked for.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// A value that cannot be used.
    #[error("{name}: {value:?} (from {origin}) {problem}")]
    Value {
        /// Name of the setting.
        name: &'static str,
        /// What was said.
        value: String,
        /// Where.
        origin: String,
        /// What is wrong, and the remedy.
        problem: String,
    },
    /// Something must be said.
    #[error("{name}: must be set, with --{name}, with {env}, or with `{name}` in the settings file: {help}")]
    Missing {
        /// Name of the setting.
        name: &'static str,
        /// Its name in the environment.
        env: String,
        /// What it is for.
        help: &'static str,
    },
    /// The settings file cannot be used.
    #[error("settings file {path}: {problem}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and the remedy.
        problem: String,
    },
}

/// Reads the command line, the environment and the settings file.
///
/// # Errors
/// When a value is missing or cannot be used, with its name, where it came from and the remedy.
pub fn read() -> Result<Command, SettingsError> {
    read_from(std::env::args_os(), |name| std::env::var(name).ok())
}

fn read_from(
    args: impl IntoIterator<Item = OsString>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Command, SettingsError> {
    let matches = command_line().try_get_matches_from(args)?;
    let (name, matches) = matches.subcommand().expect("clap insists on a command");
    let command = CommandName::ALL
        .into_iter()
        .find(|c| c.as_str() == name)
        .expect("clap knows only these commands");
    let values = Values {
        values: layers(command, matches, &env)?,
    };
    match command {
        CommandName::Run => run(&values).map(|run| Command::Run(Box::new(run))),
        CommandName::Token => Ok(Command::Token(Token {
            state_dir: values.get("state-dir", value::path)?,
            namespace: values.get("namespace", value::name)?,
            service_account: values.get("service-account", value::name)?,
            pod: values.get("pod", value::name)?,
            lifetime: values.get("lifetime", value::token_lifetime)?,
        })),
        CommandName::Status => Ok(Command::Status(Status {
            admin: values.get("admin", value::address)?,
            output: values.get("output", value::format)?,
        })),
        CommandName::RotateRoot => Ok(Command::RotateRoot(RotateRoot {
            keys: match values.get("source", value::source)? {
                SourceName::Kubernetes => KeysAt::Kubernetes,
                SourceName::Directory => KeysAt::Directory(values.get("state-dir", value::path)?),
            },
            authority: authority(&values)?,
        })),
    }
}

fn run(values: &Values) -> Result<Run, SettingsError> {
    let source = match values.get("source", value::source)? {
        SourceName::Directory => {
            for name in ["webhook", "injection"] {
                values.refuse(name, "is used by the source `kubernetes` only: remove it")?;
            }
            SourceSettings::Directory {
                config_dir: values.get("config-dir", value::path)?,
                state_dir: values.get("state-dir", value::path)?,
            }
        }
        SourceName::Kubernetes => {
            values.refuse("config-dir", "is read by the source `directory` only: remove it")?;
            values.refuse(
                "state-dir",
                "is used by the source `directory` only, for with `kubernetes` roots and keys are in a Secret: remove it",
            )?;
            SourceSettings::Kubernetes(Box::new(KubernetesSettings {
                pod: values.get("pod", value::name)?,
                namespace: values.get("namespace", value::name)?,
                webhook: values.get("webhook", value::address)?,
                injection: values.get("injection", value::injection)?,
            }))
        }
    };
    Ok(Run {
        source,
        authority: authority(values)?,
        listen: values.get("listen", value::address)?,
        admin: values.get("admin", value::address)?,
        log: values.get("log", value::log)?,
        log_format: values.get("log-format", value::format)?,
    })
}

fn authority(values: &Values) -> Result<AuthoritySettings, SettingsError> {
    Ok(AuthoritySettings {
        trust_domain: values.get("trust-domain", value::trust_domain)?,
        lifetime: values.get("certificate-lifetime", value::certificate_lifetime)?,
    })
}

fn command_line() -> Clap {
    let mut app = Clap::new("hauberk-control-plane")
        .about("Hauberk's operator")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true);
    for command in CommandName::ALL {
        let mut sub = Clap::new(command.as_str()).about(command.about()).arg(
            Arg::new("settings")
                .long("settings")
                .value_name("FILE")
                .action(ArgAction::Set)
                .help("A YAML file with any of these settings; the environment (HAUBERK_SETTINGS) can name it too"),
        );
        for setting in of(command) {
            let mut help = format!("{} [env: {}]", setting.help, setting.env());
            if let Some(default) = setting.default {
                help.push_str(&format!(" [default: {default}]"));
            }
            sub = sub.arg(
                Arg::new(setting.name)
                    .long(setting.name)
                    .value_name(setting.value)
                    .action(ArgAction::Set)
                    .help(help),
            );
        }
        if command == CommandName::Status {
            sub = sub.arg(
                Arg::new("json")
                    .long("json")
                    .action(ArgAction::SetTrue)
                    .conflicts_with("output")
                    .help("The same as --output json"),
            );
        }
        app = app.subcommand(sub);
    }
    app
}

fn of(command: CommandName) -> impl Iterator<Item = &'static Setting> {
    TABLE.iter().filter(move |s| s.commands.contains(&command))
}

/// What each layer says, the later one over the earlier.
fn layers(
    command: CommandName,
    matches: &ArgMatches,
    env: &impl Fn(&str) -> Option<String>,
) -> Result<BTreeMap<&'static str, (String, Origin)>, SettingsError> {
    let mut values = BTreeMap::new();
    for setting in of(command) {
        if let Some(default) = setting.default {
            values.insert(setting.name, (default.to_owned(), Origin::Default));
        }
    }
    // What every Rust program is told by, below what Hauberk is told by.
    if let (true, Some(filter)) = (command == CommandName::Run, env("RUST_LOG")) {
        values.insert("log", (filter, Origin::Environment("RUST_LOG".to_owned())));
    }
    let file = matches
        .get_one::<String>("settings")
        .cloned()
        .or_else(|| env("HAUBERK_SETTINGS"));
    if let Some(path) = file.map(PathBuf::from) {
        for (name, text) in file_values(&path)? {
            if of(command).any(|s| s.name == name) {
                values.insert(name, (text, Origin::File(path.clone())));
            }
        }
    }
    for setting in of(command) {
        if let Some(text) = env(&setting.env()) {
            values.insert(setting.name, (text, Origin::Environment(setting.env())));
        }
        if let Some(text) = matches.get_one::<String>(setting.name) {
            values.insert(setting.name, (text.clone(), Origin::Flag));
        }
    }
    if command == CommandName::Status && matches.get_flag("json") {
        values.insert("output", ("json".to_owned(), Origin::Flag));
    }
    Ok(values)
}

/// The settings file: a flat mapping. A key that is in no table is refused; one of another command is that command's.
fn file_values(path: &PathBuf) -> Result<Vec<(&'static str, String)>, SettingsError> {
    let wrong = |problem: String| SettingsError::File {
        path: path.clone(),
        problem,
    };
    let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    let parsed: BTreeMap<String, serde_json::Value> =
        serde_saphyr::from_str(&text).map_err(|e| wrong(e.to_string()))?;
    let mut values = Vec::new();
    for (key, value) in parsed {
        let setting = TABLE.iter().find(|s| s.name == key).ok_or_else(|| {
            let known: Vec<_> = TABLE.iter().map(|s| s.name).collect();
            wrong(format!("{key:?} is no setting; there are: {}", known.join(", ")))
        })?;
        let text = match value {
            serde_json::Value::String(text) => text,
            serde_json::Value::Number(number) => number.to_string(),
            serde_json::Value::Bool(flag) => flag.to_string(),
            _ => return Err(wrong(format!("{key}: must be one value"))),
        };
        values.push((setting.name, text));
    }
    Ok(values)
}

struct Values {
    values: BTreeMap<&'static str, (String, Origin)>,
}

impl Values {
    /// Refuses a setting that would have no effect.
    fn refuse(&self, name: &'static str, problem: &str) -> Result<(), SettingsError> {
        match self.values.get(name) {
            // A file may serve several commands, and so both sources.
            None | Some((_, Origin::Default | Origin::File(_))) => Ok(()),
            Some((value, origin)) => Err(SettingsError::Value {
                name,
                value: value.clone(),
                origin: origin.to_string(),
                problem: problem.to_owned(),
            }),
        }
    }

    fn get<T>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, SettingsError> {
        let Some((text, origin)) = self.values.get(name) else {
            let setting = TABLE
                .iter()
                .find(|s| s.name == name)
                .expect("only settings of the table are read");
            return Err(SettingsError::Missing {
                name,
                env: setting.env(),
                help: setting.help,
            });
        };
        parse(text).map_err(|problem| SettingsError::Value {
            name,
            value: text.clone(),
            origin: origin.to_string(),
            problem,
        })
    }
}

#[cfg(test)]
mod tests;
