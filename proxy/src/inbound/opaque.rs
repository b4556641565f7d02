//! Bytes for the pod's application, relayed as they are.

use std::sync::Arc;

use api::Protocol;

use super::{Connection, local};
use crate::io::Io;
use crate::record::Direction;
use crate::tcp::{self, RelayCounters, RelayOptions};

/// Serves one connection to the application, to its end. `application` is its side, when it had to be opened before.
pub async fn serve(connection: &Connection, io: Io, application: Option<Io>) {
    connection.taken();
    let recorder = &connection.worker.recorder;
    let mut record = recorder.start(
        Direction::Inbound,
        Protocol::Tcp,
        connection.peer,
        connection.dialled,
    );
    record.peer.clone_from(&connection.identity);
    record.inbound = Some(Arc::clone(&connection.metrics));
    let application = match application {
        Some(application) => Ok(application),
        // Boxed, for it is over long before the relay is.
        None => Box::pin(local::dial(connection)).await.map(Io::from),
    };
    match application {
        // How long a stream may be idle is the caller's to say; both proxies and the application notice its end.
        Ok(application) => {
            let counters = RelayCounters::default();
            record.relayed(tcp::relay(io, application, RelayOptions::default(), &counters).await);
        }
        Err(error) => {
            io.abort();
            record.fail(error);
        }
    }
}
