//! Puts a proxy into a pod: a pure function from the pod as its author wrote it to the pod as it runs in the mesh. The
//! operator's webhook and the command `hauberk inject` both call it.
//!
//! [`decide()`] says whether a pod gets a proxy and why not, [`inject`] makes the pod with the proxy, [`patch()`] the change
//! between the two, and [`manifest()`] does all that to the text of a file. Nothing here does I/O, and what cannot be
//! honoured is refused with the field and the remedy.

mod annotations;
mod config;
mod container;
mod decide;
pub mod manifest;
mod parts;
mod patch;
mod pod;
mod probes;
mod quantity;
mod values;
mod warn;

pub use annotations::{ANNOTATIONS, Annotation};
pub use api::Invalid;
pub use config::{AccessLog, Amounts, Config, LogFormat, PullPolicy, Resources};
pub use decide::{Decision, Reason, decide};
pub use manifest::{ManifestError, Note, manifest};
pub use patch::patch;
pub use pod::inject;
pub use probes::{Header, ProbeKind, Target};
pub use quantity::Quantity;
pub use values::{LogFilter, Time};
pub use warn::warnings;
