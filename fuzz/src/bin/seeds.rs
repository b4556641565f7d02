//! Writes every target's seeds into a folder, a folder each, for libFuzzer to begin with. `scripts/fuzz.sh` calls it.

use std::io;
use std::path::PathBuf;

fn main() -> io::Result<()> {
    let usage = || io::Error::new(io::ErrorKind::InvalidInput, "usage: seeds FOLDER");
    let folder: PathBuf = std::env::args_os().nth(1).ok_or_else(usage)?.into();
    for target in fuzz::TARGETS {
        let folder = folder.join(target.name);
        std::fs::create_dir_all(&folder)?;
        for (number, seed) in fuzz::seeds(target.name).iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}
