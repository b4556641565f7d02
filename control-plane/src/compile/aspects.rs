//! What of a proxy decides what it gets under a name. Proxies that agree in these aspects get the same, so `push` compiles
//! and keeps it once for all of them: most resources are the same for the whole mesh.

use crate::state::Proxy;

/// The aspects of a proxy that a resource may differ by. Told by world and name alone: it is the same whichever proxy the
/// resource was compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Aspects {
    /// Its namespace.
    pub namespace: bool,
    /// The labels of its pod.
    pub labels: bool,
    /// The zone of its pod.
    pub zone: bool,
    /// The very pod.
    pub pod: bool,
}

impl Aspects {
    /// Every proxy gets the same.
    pub const NONE: Self = Self {
        namespace: false,
        labels: false,
        zone: false,
        pod: false,
    };
    /// Every proxy gets its own.
    pub const ALL: Self = Self {
        namespace: true,
        labels: true,
        zone: true,
        pod: true,
    };

    /// A proxy with these aspects and nothing else: equal for proxies that get the same.
    #[must_use]
    pub fn of(self, proxy: &Proxy) -> Proxy {
        let Proxy {
            namespace,
            pod,
            service_account,
            labels,
            zone,
        } = proxy;
        let text = |counts, text: &String| if counts { text.clone() } else { String::new() };
        Proxy {
            namespace: text(self.namespace, namespace),
            pod: text(self.pod, pod),
            // It comes with the pod; nothing is compiled by it alone.
            service_account: text(self.pod, service_account),
            labels: if self.labels {
                labels.clone()
            } else {
                Default::default()
            },
            zone: text(self.zone, zone),
        }
    }
}
