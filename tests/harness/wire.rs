//! A protocol client that sends any bytes and reads frames, over TCP, a Unix socket or TLS, every
//! read with a deadline. It logs in to PostgreSQL (SCRAM) and to the gate (token as password).

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::harness::PATIENCE;
use crate::harness::messages::{self, Frame, transcript};

trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Socket for T {}

/// A connection to PostgreSQL, to the gate, or to anything that claims to be one.
pub struct Wire {
    socket: Box<dyn Socket>,
    /// ParameterStatus as last told.
    pub parameters: BTreeMap<String, String>,
    /// From BackendKeyData.
    pub pid: i32,
    /// From BackendKeyData: the first four bytes, which is all of it in protocol 3.0.
    pub secret: i32,
    /// All of it.
    pub key: Vec<u8>,
    /// Whether the socket was told to reset the connection when it is closed.
    pub resets: bool,
}

/// Who logs in, and to what.
#[derive(Clone, Debug)]
pub struct Login<'login> {
    pub user: &'login str,
    pub dbname: &'login str,
    pub password: &'login str,
    /// Further start-up parameters.
    pub more: &'login [(&'login str, &'login str)],
}

impl Wire {
    /// Connects to a port of 127.0.0.1 and sends nothing yet.
    pub async fn connect(port: u16) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", port)).await.expect("port accepts");
        socket.set_nodelay(true).unwrap();
        Self::over(socket)
    }

    /// Connects to a Unix socket and sends nothing yet.
    pub async fn connect_unix(path: &Path) -> Self {
        Self::over(UnixStream::connect(path).await.expect("socket accepts"))
    }

    /// Connects, asks for TLS, shakes hands as `name`.
    pub async fn connect_tls(port: u16, config: Arc<ClientConfig>, name: &str) -> io::Result<Self> {
        let mut plain = Self::connect(port).await;
        plain.send(messages::ssl_request()).await;
        assert_eq!(plain.byte().await, b'S', "the other side has TLS");
        plain.handshake(config, name).await
    }

    /// Turns the connection into a TLS one, without asking first.
    pub async fn handshake(self, config: Arc<ClientConfig>, name: &str) -> io::Result<Self> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let shaking = TlsConnector::from(config).connect(name, self.socket);
        Ok(Self::over(timeout(PATIENCE, shaking).await.expect("handshake ends")?))
    }

    /// Connects to a port and logs in; panics with the answer if that is refused.
    pub async fn login(port: u16, login: &Login<'_>) -> Self {
        let mut wire = Self::connect(port).await;
        let frames = wire.authenticate(login).await;
        assert!(wire.pid != 0 || ended_ready(&frames), "login refused: {frames:?}");
        wire
    }

    /// Sends the start-up packet and answers what is asked (cleartext or SCRAM) until
    /// ReadyForQuery, an error, or the end of the connection. Returns what came.
    pub async fn authenticate(&mut self, login: &Login<'_>) -> Vec<Frame> {
        self.authenticate_as(0, login).await
    }

    /// As [`Wire::authenticate`], with another minor version of protocol 3.
    pub async fn authenticate_as(&mut self, minor: u16, login: &Login<'_>) -> Vec<Frame> {
        let first = [("user", login.user), ("database", login.dbname)];
        let parameters = [&first[..], login.more].concat();
        self.send(messages::startup_version(3, minor, &parameters)).await;
        let mut scram = ScramSha256::new(login.password.as_bytes(), ChannelBinding::unsupported());
        let mut frames = Vec::new();
        while let Some(frame) = self.maybe_frame().await {
            let ended = matches!(frame.tag, b'Z' | b'E');
            if frame.tag == b'R' {
                self.answer(&frame, login.password, &mut scram).await;
            }
            frames.push(frame);
            if ended {
                break;
            }
        }
        frames
    }

    async fn answer(&mut self, frame: &Frame, password: &str, scram: &mut ScramSha256) {
        let (kind, rest) = frame.body.split_at(4);
        match u32::from_be_bytes(kind.try_into().unwrap()) {
            0 => {}
            3 => self.send(messages::password(password)).await,
            10 => {
                let first = scram.message();
                let length = u32::try_from(first.len()).unwrap().to_be_bytes();
                let body = [b"SCRAM-SHA-256\0", &length[..], first].concat();
                self.send(messages::frame(b'p', &body)).await;
            }
            11 => {
                scram.update(rest).expect("server's SCRAM challenge is right");
                self.send(messages::frame(b'p', scram.message())).await;
            }
            12 => scram.finish(rest).expect("server proves itself"),
            other => panic!("authentication request {other} is new to this client"),
        }
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.expect("connection takes bytes");
    }

    /// Sends bytes to somebody who may have hung up.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let writing = async {
            self.socket.write_all(bytes.as_ref()).await?;
            self.socket.flush().await
        };
        timeout(PATIENCE, writing).await.expect("connection takes bytes in time")
    }

    /// Ends this side's half of the connection; the other may go on speaking.
    pub async fn half_close(&mut self) -> io::Result<()> {
        self.socket.shutdown().await
    }

    /// One byte, as in the answer to SSLRequest.
    pub async fn byte(&mut self) -> u8 {
        let reading = self.socket.read_u8();
        timeout(PATIENCE, reading).await.expect("a byte in time").expect("a byte")
    }

    /// The next frame; panics if the connection ends.
    pub async fn frame(&mut self) -> Frame {
        self.maybe_frame().await.expect("a frame, not the end of the connection")
    }

    /// The next frame, or `None` if the connection has ended.
    pub async fn maybe_frame(&mut self) -> Option<Frame> {
        let frame = timeout(PATIENCE, self.read()).await.expect("a frame in time").ok()?;
        match frame.tag {
            b'S' => {
                let mut texts = frame.texts().into_iter();
                self.parameters.extend(texts.next().zip(texts.next()));
            }
            b'K' => {
                self.pid = i32::from_be_bytes(frame.body[..4].try_into().unwrap());
                self.secret = i32::from_be_bytes(frame.body[4..8].try_into().unwrap());
                self.key = frame.body[4..].to_vec();
            }
            _ => {}
        }
        Some(frame)
    }

    /// Frames up to and with ReadyForQuery, or to the end of the connection.
    pub async fn until_ready(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.maybe_frame().await {
            frames.push(frame);
            if ended_ready(&frames) {
                break;
            }
        }
        frames
    }

    /// Sends, then the frames up to ReadyForQuery in the notation of `messages`.
    pub async fn ask(&mut self, bytes: impl AsRef<[u8]>) -> String {
        self.send(bytes).await;
        transcript(&self.until_ready().await)
    }

    /// A simple query in the notation.
    pub async fn query(&mut self, sql: &str) -> String {
        self.ask(messages::query(sql)).await
    }

    /// Waits for the end of the connection; an error if bytes came, or if TLS was cut off.
    pub async fn ends(&mut self) -> io::Result<()> {
        match timeout(PATIENCE, self.socket.read(&mut [0])).await.expect("an end in time")? {
            0 => Ok(()),
            _ => Err(io::Error::other("a byte came")),
        }
    }

    /// Frames to the end of the connection, in the notation.
    pub async fn until_closed(&mut self) -> String {
        let mut frames = Vec::new();
        while let Some(frame) = self.maybe_frame().await {
            frames.push(frame);
        }
        transcript(&frames)
    }

    async fn read(&mut self) -> io::Result<Frame> {
        let tag = self.socket.read_u8().await?;
        let length = usize::try_from(self.socket.read_u32().await?).unwrap();
        assert!((4..1 << 30).contains(&length), "frame {} of length {length}", char::from(tag));
        let mut body = vec![0; length - 4];
        self.socket.read_exact(&mut body).await?;
        Ok(Frame { tag, body })
    }

    /// Takes a connected socket and sends nothing yet.
    pub fn over(socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let parameters = BTreeMap::new();
        let (socket, key) = (Box::new(socket), Vec::new());
        Self { socket, parameters, pid: 0, secret: 0, key, resets: false }
    }
}

/// Sends a CancelRequest on a connection of its own, and waits until it is closed.
pub async fn cancel(port: u16, pid: i32, secret: i32) {
    cancel_with(port, pid, &secret.to_be_bytes()).await;
}

/// As [`cancel`], with a secret of any length.
pub async fn cancel_with(port: u16, pid: i32, secret: &[u8]) {
    let mut wire = Wire::connect(port).await;
    wire.send(messages::cancel_request_with(pid, secret)).await;
    assert_eq!(wire.until_closed().await, "");
}

fn ended_ready(frames: &[Frame]) -> bool {
    frames.last().is_some_and(|frame| frame.tag == b'Z')
}
