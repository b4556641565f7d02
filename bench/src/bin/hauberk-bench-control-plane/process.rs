//! What processes cost, as the kernel tells it.

use std::fs;

use anyhow::Context as _;

/// Memory of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub(crate) struct Memory {
    /// Resident now.
    pub(crate) resident_mib: f64,
    /// The most that was resident.
    pub(crate) peak_mib: f64,
}

/// Memory of a process.
pub(crate) fn memory(pid: u32) -> anyhow::Result<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).context("the process has ended")?;
    let mib = |field: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kib.map(|kib| kib / 1024.0)
            .with_context(|| format!("/proc/{pid}/status has no {field}"))
    };
    Ok(Memory {
        resident_mib: mib("VmRSS:")?,
        peak_mib: mib("VmHWM:")?,
    })
}
