//! Clients behind a load balancer: from its addresses every connection begins with a PROXY header,
//! and nobody else's does.

use std::io;

use tokio::io::AsyncReadExt;

use crate::net::{Peer, Socket};
use crate::wire::proxy::{self, SIGNATURE, Source, V1_BYTES_MAX, V1_START};

/// Reads the header, to the exact byte, of a connection from a balancer's address: who is behind
/// it. Whoever is, is not on this machine, whatever the header says; a header that names nobody
/// (UNKNOWN, LOCAL) does not make the balancer the client.
pub async fn peer(socket: &mut Socket, balancer: Peer) -> io::Result<Peer> {
    let Peer::Tcp(_) = balancer else { return Ok(balancer) };
    let source = header(socket).await?.ok_or_else(|| {
        let what = "a balancer's address sent no PROXY header";
        io::Error::new(io::ErrorKind::InvalidData, what)
    })?;
    Ok(Peer::Proxied(source))
}

async fn header(socket: &mut Socket) -> io::Result<Option<Source>> {
    let mut first = [0; SIGNATURE.len()];
    socket.read_exact(&mut first).await?;
    if first == *SIGNATURE {
        let mut start = [0; 4];
        socket.read_exact(&mut start).await?;
        let Some(length) = proxy::v2_length(start) else { return Ok(None) };
        let mut rest = vec![0; length];
        socket.read_exact(&mut rest).await?;
        return Ok(proxy::v2(start, &rest));
    }
    if !first.starts_with(V1_START) {
        return Ok(None);
    }
    let mut line = first.to_vec();
    while line.len() < V1_BYTES_MAX {
        // Byte by byte, so that none of the client's is taken.
        line.push(socket.read_u8().await?);
        if let Some(line) = line.strip_suffix(b"\r\n") {
            return Ok(proxy::v1(line));
        }
    }
    Ok(None)
}
