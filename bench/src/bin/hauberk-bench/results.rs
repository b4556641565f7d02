//! All that one run found, and the file it is kept in.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use crate::cell::Row;
use crate::peer::Peer;
use crate::scenario::Scenario;

/// A run.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) rounds: u16,
    pub(crate) seconds: f64,
    pub(crate) peers: Vec<Peer>,
    pub(crate) scenarios: Vec<Found>,
}

/// What a scenario found.
#[derive(Debug, Serialize)]
pub(crate) struct Found {
    #[serde(serialize_with = "name")]
    pub(crate) scenario: Scenario,
    pub(crate) what: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) rows: Vec<Row>,
}

/// Where it was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) processors: usize,
    pub(crate) kernel: String,
}

fn name<S: serde::Serializer>(scenario: &Scenario, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(scenario.name())
}

impl Machine {
    pub(crate) fn this() -> Machine {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        Machine {
            processor: model(&cpuinfo).unwrap_or("unknown").to_owned(),
            processors: cpuinfo
                .lines()
                .filter(|line| line.starts_with("processor"))
                .count(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

fn model(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim())
}

impl Results {
    pub(crate) fn new(peers: Vec<Peer>, rounds: u16, measure: Duration) -> Results {
        Results {
            machine: Machine::this(),
            rounds,
            seconds: measure.as_secs_f64(),
            peers,
            scenarios: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, scenario: Scenario, rows: Vec<Row>) {
        self.scenarios.push(Found {
            scenario,
            what: scenario.what(),
            unit: scenario.unit(),
            rows,
        });
    }

    /// The rows of a scenario; none when it did not run.
    pub(crate) fn rows(&self, scenario: Scenario) -> &[Row] {
        let found = self.scenarios.iter().find(|found| found.scenario == scenario);
        found.map_or(&[], |found| &found.rows)
    }

    /// Writes `results.json` and `plot.svg`.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let json = serde_json::to_string_pretty(self)?;
        for (file, text) in [("results.json", json), ("plot.svg", crate::plot::of(self))] {
            let path = folder.join(file);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_named_as_the_kernel_names_it() {
        assert_eq!(
            model("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n"),
            Some("Some CPU @ 2 GHz")
        );
        assert_eq!(model("processor: 0\n"), None);
    }

    #[test]
    fn json_names_scenarios_and_peers_as_the_command_line_does() {
        let mut results = Results::new(vec![Peer::Haproxy], 3, Duration::from_secs(2));
        results.add(Scenario::Http1Mtls, Vec::new());
        let json = serde_json::to_value(&results).unwrap();
        assert_eq!(json["peers"][0], "haproxy");
        assert_eq!(json["scenarios"][0]["scenario"], "http1-mtls");
    }
}
