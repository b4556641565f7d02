//! Tests on a real Kubernetes, in the order in which they run. `make e2e` calls it; `cargo test` does not.
//!
//! Without `KUBECONFIG` it brings a cluster up on this machine, which takes root and half a minute.

mod ground;
mod mesh;

use tests::cluster;

fn main() {
    cluster::enter();
    let mut trials = Vec::new();
    trials.extend(ground::trials());
    trials.extend(mesh::trials());
    cluster::run(trials);
}
