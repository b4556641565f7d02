//! The status as this replica knows it: its own world, and the proxies that are connected to it.

use std::sync::Arc;

use tokio::sync::watch;

use super::{ObjectFacts, Status, board};
use crate::admin::SourceReport;
use crate::push::HubHandle;
use crate::state::World;

/// Where this replica's status is made from.
#[derive(Debug, Clone)]
pub struct Local {
    /// Proxies and what they have.
    pub hub: HubHandle,
    /// The source.
    pub source: watch::Receiver<SourceReport>,
}

impl Local {
    /// The status now; `None` when the operator is stopping.
    pub async fn status(&self) -> Option<Status> {
        let view = self.hub.view().await?;
        let source = self.source.borrow().clone();
        let objects = source.world.objects().map(ObjectFacts::from).collect();
        Some(board(objects, source.problems, source.unreadable, view))
    }

    /// Whether everything has been read once.
    pub(super) fn loaded(&self) -> bool {
        self.source.borrow().loaded
    }

    /// The newest world.
    pub(super) fn world(&self) -> Arc<World> {
        self.source.borrow().world.clone()
    }

    /// Whether the status may be another than when this was asked last.
    pub(super) fn has_changed(&mut self, seen: &mut Option<u64>) -> bool {
        let hub = self.hub.changes();
        let source = self.source.has_changed().unwrap_or(false);
        self.source.mark_unchanged();
        seen.replace(hub) != Some(hub) || source
    }
}
