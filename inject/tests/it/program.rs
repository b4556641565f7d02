//! What injection writes and the proxy reads: flags and settings must be the proxy's own, and their values such as it
//! takes. The proxy's own command line is asked.

use clap::{Args, CommandFactory, Parser};
use k8s_openapi::api::core::v1::{Container, Pod};
use proxy::settings::{Cli, Command, Settings};

use crate::golden::cases;
use crate::restricted::ours;

fn named<'a>(pod: &'a Pod, name: &str) -> &'a Container {
    ours(pod).0.into_iter().find(|c| c.name == name).unwrap()
}

fn words(container: &Container) -> Vec<String> {
    let command = container.command.iter().flatten();
    command.chain(container.args.iter().flatten()).cloned().collect()
}

#[test]
fn the_redirect_takes_every_flag_it_is_given() {
    for case in cases() {
        let Some(pod) = case.injected() else { continue };
        let parsed = Cli::try_parse_from(words(named(&pod, "hauberk-init")))
            .unwrap()
            .command;
        let Command::Init(args) = parsed else {
            panic!("{}: not init", case.name);
        };
        assert!(!args.remove && !args.dry_run);
        let skipped = args.skip_inbound_ports.contains(8005);
        assert_eq!(skipped, case.name == "skipped-ports", "{}", case.name);
    }
}

#[test]
fn the_proxy_takes_every_setting_it_is_given() {
    let run = Settings::augment_args(clap::Command::new("run"));
    for case in cases() {
        let Some(pod) = case.injected() else { continue };
        let container = named(&pod, "hauberk-proxy");
        let mut line = words(container);
        for variable in container.env.iter().flatten() {
            let known = run
                .get_arguments()
                .find(|a| a.get_env().is_some_and(|env| env == variable.name.as_str()));
            let known = known.unwrap_or_else(|| panic!("{} is no setting of the proxy", variable.name));
            // What only the running pod knows.
            let value = variable
                .value
                .clone()
                .unwrap_or_else(|| match variable.name.as_str() {
                    "HAUBERK_POD_IPS" => "10.1.0.5,fd00::5".to_owned(),
                    _ => "name".to_owned(),
                });
            line.push(format!("--{}={value}", known.get_long().unwrap()));
        }
        let parsed = Cli::try_parse_from(&line).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        let Command::Run(settings) = parsed.command else {
            panic!("{}: not run", case.name);
        };
        if case.name == "annotations" {
            assert_eq!((settings.workers, settings.drain_timeout.as_secs()), (2, 60));
        }
    }
}

#[test]
fn the_hooks_that_it_runs_are_commands_of_the_proxy() {
    for case in cases() {
        let Some(pod) = case.injected() else { continue };
        let Some(lifecycle) = &named(&pod, "hauberk-proxy").lifecycle else {
            continue;
        };
        let exec = lifecycle.post_start.as_ref().unwrap().exec.as_ref().unwrap();
        let line = exec.command.as_ref().unwrap();
        assert_eq!(line[0], Cli::command().get_name());
        Cli::try_parse_from(line).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    }
}
