//! The command line. The environment's only say is KUBECONFIG, which the Kubernetes client reads as kubectl does.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "hauberk", version, about = "Looks after a Hauberk service mesh")]
pub(crate) struct Settings {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which cluster is asked.
#[derive(Debug, Args)]
pub(crate) struct Connection {
    /// The kubeconfig to use; otherwise the one that KUBECONFIG names, ~/.kube/config, or that of the pod around this
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context to use
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say whether the installation is healthy; exits with 1 when a check fails, 2 when nothing can be asked
    Check {
        /// Before installing: say whether the cluster is fit, and whether you may install
        #[arg(long)]
        pre: bool,
        /// For people or for programs
        #[arg(long, short, value_enum, default_value_t = Format::Text)]
        output: Format,
    },
    /// Turn manifests for Istio into ours, and say what differs; exits with 1 where something is refused, 3 where something
    /// means something else, 2 when a file cannot be read
    Convert {
        /// The manifests, or a folder of them; `-` is the standard input
        #[arg(long, short, value_name = "FILE")]
        file: PathBuf,
    },
    /// Say what would become of a request and why, by a folder of manifests or by a proxy; asks no cluster
    Explain(Box<crate::explain::Settings>),
    /// Put proxies into the pods of a file, as the operator would; asks no cluster
    Inject {
        /// The manifests, as YAML or JSON; `-` is the standard input
        #[arg(long, short, value_name = "FILE")]
        file: PathBuf,
        /// What proxies are like: `injection.yaml` of the ConfigMap hauberk-injection; otherwise the chart's defaults
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The proxy's image
        #[arg(long)]
        image: Option<String>,
        /// For a cluster with native sidecar containers, which are there since Kubernetes 1.29
        #[arg(long)]
        native: bool,
    },
    /// Show objects and proxies, over all operators; exits with 1 when one could not be asked
    Status {
        /// Only objects and proxies of this namespace
        #[arg(long, short)]
        namespace: Option<String>,
        /// For people or for programs
        #[arg(long, short, value_enum, default_value_t = Format::Text)]
        output: Format,
    },
}

/// For people or for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_the_connection_may_stand_anywhere() {
        Settings::command().debug_assert();
        let read = Settings::parse_from([
            "hauberk",
            "status",
            "-n",
            "shop",
            "--context",
            "test",
            "-o",
            "json",
        ]);
        assert_eq!(read.connection.context.as_deref(), Some("test"));
        let Command::Status { namespace, output } = read.command else {
            panic!("{read:?}")
        };
        assert_eq!((namespace.as_deref(), output), (Some("shop"), Format::Json));
    }
}
