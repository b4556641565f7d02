//! A compiler for tests of the push: resources are texts that a test sets, so that what arrives shows what was sent.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use api::{Body, Kind, Resource, ResourceName};

use super::Compiler;
use crate::compile::{Aspects, Compiled};
use crate::state::SourceObject;
use crate::state::{Dependency, Proxy, Touched};

/// What a test makes the compiler give.
#[derive(Debug, Clone, Default)]
pub(crate) struct Texts {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    texts: HashMap<String, (i64, String)>,
    labels: BTreeMap<String, String>,
    compiled: usize,
}

impl Texts {
    /// Sets the text of a name; gives what that touches.
    pub(crate) fn set(&self, name: &str, text: &str) -> Touched {
        let mut inner = self.inner.lock().unwrap();
        let slot = inner.texts.entry(name.to_owned()).or_default();
        *slot = (slot.0 + 1, text.to_owned());
        Touched::from([Dependency::Service("shop".to_owned(), name.to_owned())])
    }

    /// Sets a label of every pod; gives what that touches for one of them.
    pub(crate) fn label(&self, value: &str, pod: &str) -> Touched {
        let labels = BTreeMap::from([("version".to_owned(), value.to_owned())]);
        self.inner.lock().unwrap().labels = labels;
        Touched::from([Dependency::Pod("shop".to_owned(), pod.to_owned())])
    }

    /// How often something was compiled.
    pub(crate) fn compiled(&self) -> usize {
        self.inner.lock().unwrap().compiled
    }

    /// A compiler that gives the texts: as the reason of an absence, which needs no fields that the tests do not look at.
    /// The text `panic` panics, `large` is larger than a message may be, `labels` shows the proxy's labels.
    pub(crate) fn compiler(&self) -> Compiler {
        let compile = self.clone();
        let describe = self.clone();
        Compiler {
            compile: Box::new(move |_, proxy, name| compile.compile(proxy, name)),
            describe: Box::new(move |_, namespace, pod, service_account| Proxy {
                namespace: namespace.to_owned(),
                pod: pod.to_owned(),
                service_account: service_account.to_owned(),
                labels: describe.inner.lock().unwrap().labels.clone(),
                zone: String::new(),
            }),
        }
    }

    fn compile(&self, proxy: &Proxy, name: &ResourceName) -> Compiled {
        let (generation, text) = {
            let mut inner = self.inner.lock().unwrap();
            inner.compiled += 1;
            inner.texts.get(&name.name).cloned().unwrap_or_default()
        };
        let aspects = match (name.kind, text.as_str()) {
            (Kind::Inbound, _) => Aspects::ALL,
            (_, "labels") => Aspects {
                labels: true,
                ..Aspects::NONE
            },
            _ => Aspects::NONE,
        };
        let text = match text.as_str() {
            "panic" => panic!("a compiler that cannot bear this object"),
            "large" => "x".repeat(api::limits::MAX_MESSAGE_SIZE),
            "labels" if aspects.pod => format!("{:?} of {:?}", proxy.labels, proxy.pod),
            "labels" => format!("{:?}", proxy.labels),
            _ => text,
        };
        Compiled {
            resource: Resource::new(name.clone(), Body::Absent(text)),
            aspects,
            depends: vec![Dependency::Service("shop".to_owned(), name.name.clone())],
            sources: vec![SourceObject {
                kind: "VirtualService".to_owned(),
                namespace: "shop".to_owned(),
                name: name.name.clone(),
                generation,
            }],
        }
    }
}
