//! Sockets that take over a pod's connections, and where each of those was meant to go.
//!
//! Every worker has sockets of its own on the same ports (`SO_REUSEPORT`): the kernel spreads connections, and no worker
//! wakes another. IPv4 and IPv6 are separate sockets, because the original destination of a redirected connection can
//! be read from a socket of its own family only.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

const BACKLOG: i32 = 4096;

/// A connection of the pod, and where it was meant to go.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: TcpStream,
    /// Who opened it.
    pub peer: SocketAddr,
    /// The address it was opened to, before the redirect.
    pub dialled: SocketAddr,
}

/// Listeners of one worker for one direction.
#[derive(Debug)]
pub struct Listener {
    v4: TcpListener,
    /// Absent where the kernel has no IPv6.
    v6: Option<TcpListener>,
    port: u16,
}

impl Listener {
    /// Binds a port on every address.
    ///
    /// # Errors
    /// When the port is taken by something that is not this proxy, or the system refuses.
    pub fn bind(port: u16) -> io::Result<Self> {
        let v4 = bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
        let v6 = match bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))) {
            Ok(listener) => Some(listener),
            Err(error) if no_ipv6(&error) => None,
            Err(error) => return Err(error),
        };
        Ok(Self { v4, v6, port })
    }

    /// The next connection. One whose original destination is this very listener was dialled directly; it is dropped,
    /// for passing it on would come back here for ever.
    ///
    /// # Errors
    /// When the system is out of something; the caller waits a little and goes on.
    pub async fn accept(&self) -> io::Result<Accepted> {
        loop {
            let (stream, peer) = match &self.v6 {
                Some(v6) => tokio::select! {
                    accepted = self.v4.accept() => accepted?,
                    accepted = v6.accept() => accepted?,
                },
                None => self.v4.accept().await?,
            };
            match original_destination(&stream) {
                Ok(dialled) if dialled.port() != self.port => {
                    // Without it small answers wait for the ACK of the one before.
                    let _ = stream.set_nodelay(true);
                    return Ok(Accepted {
                        stream,
                        peer,
                        dialled,
                    });
                }
                Ok(_) | Err(_) => {
                    tracing::debug!(%peer, port = self.port, "dropped a connection that was not redirected here");
                }
            }
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn no_ipv6(error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    const EADDRNOTAVAIL: i32 = 99;
    matches!(error.raw_os_error(), Some(EAFNOSUPPORT | EADDRNOTAVAIL))
}

/// Where a redirected connection was meant to go, as the kernel's connection tracking remembers it.
fn original_destination(stream: &TcpStream) -> io::Result<SocketAddr> {
    let socket = SockRef::from(stream);
    let original = if stream.local_addr()?.is_ipv4() {
        socket.original_dst_v4()
    } else {
        socket.original_dst_v6()
    };
    original?
        .as_socket()
        .ok_or_else(|| io::Error::other("the original destination is no IP address"))
}
