//! Where objects come from. A source says what changed; `state::World::apply` takes it from there, whichever source it
//! was.

pub mod directory;
pub mod folder;

use crds::{Object, ObjectKey};

/// One object that is new or different, or is gone.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The object is now so.
    Set(Object),
    /// The object is gone.
    Remove(ObjectKey),
}
