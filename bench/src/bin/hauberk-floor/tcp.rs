//! Opaque bytes in both directions, each end passed on.

use tokio::io::copy_bidirectional_with_sizes;

use crate::tls::Io;

/// The size of the buffer in each direction: as large as TLS records get, four times.
const BUFFER: usize = 64 * 1024;

pub(crate) async fn relay(mut downstream: Io, mut upstream: Io) -> anyhow::Result<()> {
    copy_bidirectional_with_sizes(&mut downstream, &mut upstream, BUFFER, BUFFER).await?;
    Ok(())
}
