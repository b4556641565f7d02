//! Connecting to an endpoint: TCP, and in it mutual TLS with the identity expected there, or what a server outside the mesh
//! wants.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use api::{Keepalive, MeshProtocol, SpiffeId};
use socket2::SockRef;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};

use super::way::{Secured, Way};
use super::{Upstream, Wire, through};
use crate::config::snapshot::{Cluster, Endpoint};
use crate::error::Error;
use crate::io::Io;
use crate::originate::Offer;

/// What there is between TCP and what the application says.
#[derive(Debug)]
pub enum Over {
    /// Nothing.
    Plain,
    /// Mutual TLS of the mesh.
    Mesh(MeshProtocol),
    /// What a server outside the mesh wants, and what is spoken in it.
    Outside(Rc<Way>, Offer),
}

impl Upstream {
    /// What a wire has between TCP and its requests.
    ///
    /// # Errors
    /// When connections are not made that way any more.
    pub(super) fn over(&self, wire: Wire, endpoint: &Endpoint) -> Result<Over, Error> {
        Ok(match wire {
            Wire::Http1 | Wire::Http2 => Over::Plain,
            Wire::Mesh(protocol) => Over::Mesh(protocol),
            Wire::Outside(outside) => {
                let way = self.ways.get(outside).ok_or(Error::NotSent {
                    endpoint: endpoint.spec.address,
                })?;
                Over::Outside(way, outside.offer)
            }
        })
    }

    /// A new connection to an endpoint of a cluster, within the cluster's connect timeout.
    ///
    /// # Errors
    /// When TCP or TLS fail, or take too long.
    pub async fn connect(&self, cluster: &Cluster, endpoint: &Endpoint, over: Over) -> Result<Io, Error> {
        let address = endpoint.spec.address;
        let connecting = async {
            let tcp = self.dial(address, cluster.spec.keepalive).await?;
            match (over, &endpoint.spec.identity) {
                (Over::Plain, _) => Ok(Io::from(tcp)),
                (Over::Mesh(protocol), Some(identity)) => self.secure(tcp, identity, address, protocol).await,
                (Over::Mesh(_), None) => Err(Error::NotMeshed { endpoint: address }),
                (Over::Outside(way, offer), _) => begin(tcp, &way, offer, address).await,
            }
        };
        tokio::time::timeout(cluster.spec.connect_timeout, connecting)
            .await
            .unwrap_or(Err(Error::ConnectTimeout { endpoint: address }))
    }

    /// The same for a connection without visible requests, which a cluster may want to lead on through a tunnel.
    ///
    /// # Errors
    /// As [`Upstream::connect`], and when there is no tunnel within as long again.
    pub async fn connect_through(
        &self,
        cluster: &Cluster,
        endpoint: &Endpoint,
        over: Over,
    ) -> Result<Io, Error> {
        let io = self.connect(cluster, endpoint, over).await?;
        let Some(tunnel) = &cluster.spec.tunnel else {
            return Ok(io);
        };
        let endpoint = endpoint.spec.address;
        let opening = Box::pin(through::open(io, tunnel, endpoint));
        tokio::time::timeout(cluster.spec.connect_timeout, opening)
            .await
            .unwrap_or(Err(Error::ConnectTimeout { endpoint }))
    }

    async fn secure(
        &self,
        tcp: TcpStream,
        identity: &SpiffeId,
        address: SocketAddr,
        protocol: MeshProtocol,
    ) -> Result<Io, Error> {
        let tls = self
            .identity
            .connect(Io::from(tcp), identity, address, protocol)
            .await?;
        Ok(Io::from(tls))
    }

    /// A plain TCP connection, marked as the proxy's own.
    ///
    /// # Errors
    /// When the system refuses it.
    pub async fn dial(&self, address: SocketAddr, keepalive: Option<Keepalive>) -> Result<TcpStream, Error> {
        let failed = |source: io::Error| Error::Connect {
            endpoint: address,
            source: Arc::new(source),
        };
        let socket = socket(address, self.socket_mark).map_err(failed)?;
        if let Some(keepalive) = keepalive {
            set_keepalive(&socket, keepalive).map_err(failed)?;
        }
        socket.connect(address).await.map_err(failed)
    }
}

/// Does what a server outside the mesh wants at the beginning.
async fn begin(mut tcp: TcpStream, way: &Way, offer: Offer, address: SocketAddr) -> Result<Io, Error> {
    let Way { announcement, tls } = way;
    if let Some(announcement) = announcement {
        let written = tcp.write_all(&announcement.bytes()).await;
        written.map_err(|source| Error::Connect {
            endpoint: address,
            source: Arc::new(source),
        })?;
    }
    let io = Io::from(tcp);
    match tls {
        Some(Secured {
            settings,
            name,
            named,
        }) => {
            let tls = settings
                .connect(io, (name.clone(), *named), offer, address)
                .await?;
            Ok(Io::from(tls))
        }
        None => Ok(io),
    }
}

/// A plain TCP connection outside the pool, marked as the proxy's own.
///
/// # Errors
/// When the system refuses it.
pub(crate) async fn dial(address: SocketAddr, mark: Option<u32>) -> io::Result<TcpStream> {
    socket(address, mark)?.connect(address).await
}

fn socket(address: SocketAddr, mark: Option<u32>) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    if let Some(mark) = mark {
        SockRef::from(&socket).set_mark(mark)?;
    }
    socket.set_nodelay(true)?;
    Ok(socket)
}

fn set_keepalive(socket: &TcpSocket, keepalive: Keepalive) -> io::Result<()> {
    let Keepalive {
        probes,
        time,
        interval,
    } = keepalive;
    let mut params = socket2::TcpKeepalive::new();
    if let Some(probes) = probes {
        params = params.with_retries(probes.get());
    }
    if let Some(time) = time {
        params = params.with_time(time);
    }
    if let Some(interval) = interval {
        params = params.with_interval(interval);
    }
    SockRef::from(socket).set_tcp_keepalive(&params)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;

    #[test]
    fn keepalive_is_set_as_the_policy_says() {
        let socket = TcpSocket::new_v4().unwrap();
        let system = SockRef::from(&socket).tcp_keepalive_time().unwrap();
        let keepalive = Keepalive {
            probes: NonZeroU32::new(4),
            time: None,
            interval: Some(Duration::from_secs(6)),
        };
        set_keepalive(&socket, keepalive).unwrap();
        let set = SockRef::from(&socket);
        assert!(set.keepalive().unwrap());
        assert_eq!(set.tcp_keepalive_retries().unwrap(), 4);
        assert_eq!(set.tcp_keepalive_interval().unwrap(), Duration::from_secs(6));
        assert_eq!(
            set.tcp_keepalive_time().unwrap(),
            system,
            "what is left out stays"
        );
    }
}
