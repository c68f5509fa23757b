//! `tenantgate health`: asks a running gate over its own HTTP address, for container engines that
//! run a command and have no curl.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::Failure;
use crate::config::Config;

/// An answer takes microseconds; who waits longer has to be told.
const PATIENCE: Duration = Duration::from_secs(3);

/// Longer than any answer to these paths.
const ANSWER_BYTES_MAX: u64 = 4096;

/// Asks `/live` or `/ready`; anything but 200 is a failure.
pub(super) fn ask(config: &Config, ready: bool) -> Result<String, Failure> {
    let Some(http) = &config.http else {
        let message = "the settings have no [http], so there is nobody to ask";
        return Err(Failure::Usage(message.to_owned()));
    };
    let path = if ready { "/ready" } else { "/live" };
    let address = reachable(http.address);
    Ok(get(address, path).with_context(|| format!("http://{address}{path}"))?)
}

/// A gate that listens everywhere listens on this machine too.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).trim().to_owned();
    if !answer.starts_with("HTTP/1.1 200 ") {
        bail!("{}", if body.is_empty() { "no answer" } else { &body });
    }
    Ok(body)
}
