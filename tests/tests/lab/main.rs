//! Tests that need pods. They run in private namespaces, one after another, each with a lab of its own.
//!
//! A module adds its tests by returning trials; `cargo test -p tests --test lab NAME` runs those whose name has NAME.

mod mesh;
mod pods;
mod testapp;
mod wire;

use tests::lab;

fn main() {
    lab::enter();
    if pods::probe() {
        return;
    }
    let mut trials = Vec::new();
    trials.extend(pods::trials());
    trials.extend(testapp::trials());
    trials.extend(wire::trials());
    trials.extend(mesh::trials());
    lab::run(trials);
}
