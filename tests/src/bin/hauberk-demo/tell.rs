//! What the demo prints: a line a claim, with the figure it was held against, and a line that moves while it measures.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use tokio::time::Instant;

/// Prints, and remembers whether every claim held.
#[derive(Debug)]
pub(crate) struct Teller {
    begun: Instant,
    held: usize,
    broken: Vec<String>,
    story: usize,
    moving: bool,
}

/// Stories in the demo.
const STORIES: usize = 6;

impl Teller {
    pub(crate) fn new() -> Self {
        Self {
            begun: Instant::now(),
            held: 0,
            broken: Vec::new(),
            story: 0,
            moving: false,
        }
    }

    /// Begins the next story.
    pub(crate) fn story(&mut self, title: &str) {
        self.story += 1;
        self.clear();
        println!("\n[{}/{STORIES}] {title}", self.story);
    }

    /// Says what is being done; the next line takes its place on a terminal.
    pub(crate) fn step(&mut self, doing: &str) {
        self.clear();
        if std::io::stdout().is_terminal() {
            print!("      … {doing}");
            let _ = std::io::stdout().flush();
            self.moving = true;
        }
    }

    /// Waits, showing how far it is.
    pub(crate) async fn wait(&mut self, doing: &str, time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time {
            self.step(&format!(
                "{doing} {:.0} of {:.0} s",
                begun.elapsed().as_secs_f64(),
                time.as_secs_f64()
            ));
            tokio::time::sleep((time - begun.elapsed()).min(Duration::from_millis(200))).await;
        }
    }

    /// A fact that is no claim.
    pub(crate) fn note(&mut self, text: &str) {
        self.clear();
        println!("      {text}");
    }

    /// A claim, what was measured, and whether it holds.
    pub(crate) fn claim(&mut self, holds: bool, claim: &str, measured: &str) {
        self.clear();
        println!("  {} {claim}: {measured}", if holds { "ok  " } else { "FAIL" });
        if holds {
            self.held += 1;
        } else {
            self.broken.push(format!("[{}] {claim}: {measured}", self.story));
        }
    }

    pub(crate) fn all_held(&self) -> bool {
        self.broken.is_empty() && self.held > 0
    }

    pub(crate) fn summary(&mut self) {
        self.clear();
        println!();
        for broken in &self.broken {
            println!("FAIL {broken}");
        }
        println!(
            "{} of {} claims held, in {:.0} s",
            self.held,
            self.held + self.broken.len(),
            self.begun.elapsed().as_secs_f64()
        );
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.moving) {
            print!("\r\x1b[2K");
        }
    }
}
