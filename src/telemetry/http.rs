//! `GET /metrics`, `/live`, `/ready`, and the page. Knows nothing of tenants: with a [`Scrape`] the
//! gate is asked to bring their series up to date, the page is asked for with a [`Look`].

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

use crate::telemetry::status::Look;
use crate::telemetry::{Board, HttpSettings, Renderer, page, process};

/// Visitors at the same time. A scraper or two and an orchestrator's probes need a handful.
const VISITS_MAX: usize = 32;

/// Longest life of a connection, whatever it does: kept-alive ones are opened anew.
const VISIT_TIME: Duration = Duration::from_secs(60);

/// Longest wait for the tenants' series; well below a scraper's usual 10 s.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long answers that are under way at the stop may take.
const STOP_TIME: Duration = Duration::from_secs(5);

/// The content type of the text exposition format.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Has the gate book on the board what tenants did so far.
#[derive(Debug)]
pub struct Scrape(pub oneshot::Sender<()>);

/// What the endpoint is handed.
#[derive(Clone, Debug)]
pub struct HttpEnv {
    pub renderer: Renderer,
    pub board: Arc<Mutex<Board>>,
    /// Whether the gate takes clients: what `/ready` answers.
    pub ready: Arc<AtomicBool>,
    pub scrape: mpsc::Sender<Scrape>,
    pub looks: mpsc::Sender<Look>,
}

/// Opens the listening socket, so that a taken address is an error at the start of the gate.
pub fn listen(settings: &HttpSettings) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(settings.address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves until `stop`, then lets answers under way end.
pub async fn serve(
    listener: std::net::TcpListener,
    env: HttpEnv,
    stop: CancellationToken,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let door = Door { listener, places: Arc::new(Semaphore::new(VISITS_MAX)) };
    let routes = Router::new()
        .route("/", get(page::page))
        .route("/status.json", get(page::json))
        .route("/metrics", get(metrics))
        .route("/live", get(live))
        .route("/ready", get(ready))
        .with_state(env);
    let stopping = stop.clone();
    let serving = axum::serve(door, routes)
        .with_graceful_shutdown(async move { stopping.cancelled().await })
        .into_future();
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(STOP_TIME).await;
    };
    tokio::select! {
        served = serving => served,
        () = overdue => Ok(()),
    }
}

async fn metrics(State(env): State<HttpEnv>) -> Response {
    bring_up_to_date(&env.scrape).await;
    let rendered = tokio::task::spawn_blocking(move || {
        let mut text = env.renderer.render();
        process::render(&mut text);
        text.push_str(&env.board.lock().render());
        text
    });
    match rendered.await {
        Ok(text) => ([(header::CONTENT_TYPE, EXPOSITION)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Old figures are better than no metrics at all: a gate that does not answer is just when somebody
/// looks at the rest.
async fn bring_up_to_date(scrape: &mpsc::Sender<Scrape>) {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        scrape.send(Scrape(reply)).await.ok()?;
        answer.await.ok()
    };
    if !matches!(tokio::time::timeout(SCRAPE_TIMEOUT, asked).await, Ok(Some(()))) {
        tracing::warn!("metrics are served with old series of tenants: no answer in time");
    }
}

async fn live() -> &'static str {
    "live\n"
}

async fn ready(State(env): State<HttpEnv>) -> (StatusCode, &'static str) {
    if env.ready.load(Ordering::Relaxed) {
        return (StatusCode::OK, "ready\n");
    }
    (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
}

/// Lets in at most [`VISITS_MAX`] connections; others wait in the kernel's queue.
struct Door {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Listener for Door {
    type Io = Visit;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Visit, SocketAddr) {
        // The semaphore is never closed, so there is always a place in the end.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        let deadline = Box::pin(tokio::time::sleep(VISIT_TIME));
        (Visit { stream, deadline, _place: place }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that takes a place and ends after [`VISIT_TIME`], also if it never sends a whole
/// request: the HTTP library has no such limit of its own.
struct Visit {
    stream: TcpStream,
    deadline: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Visit {
    fn in_time(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.deadline.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Visit {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.in_time(context)?;
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Visit {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.in_time(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinHandle;

    use super::*;
    use crate::telemetry::{Metrics, TenantRow};

    struct Endpoint {
        address: SocketAddr,
        ready: Arc<AtomicBool>,
        scrapes: mpsc::Receiver<Scrape>,
        board: Arc<Mutex<Board>>,
        stop: CancellationToken,
        serving: JoinHandle<io::Result<()>>,
    }

    fn start() -> Endpoint {
        let settings = HttpSettings::new(([127, 0, 0, 1], 0).into());
        let listener = listen(&settings).unwrap();
        let address = listener.local_addr().unwrap();
        let ready = Arc::new(AtomicBool::new(false));
        let (scrape, scrapes) = mpsc::channel(1);
        let (metrics, renderer) = Metrics::new();
        metrics.logins.increment(7);
        let board = Arc::new(Mutex::new(Board::new(20, &[])));
        let (looks, _) = mpsc::channel(1);
        let (ours, env_ready) = (board.clone(), Arc::clone(&ready));
        let env = HttpEnv { renderer, board, ready: env_ready, scrape, looks };
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, env, stop.clone()));
        Endpoint { address, ready, scrapes, board: ours, stop, serving }
    }

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn probes_answer_and_other_paths_are_not_found() {
        let endpoint = start();
        assert!(ask(endpoint.address, "/live").await.starts_with("HTTP/1.1 200"));
        assert!(ask(endpoint.address, "/ready").await.starts_with("HTTP/1.1 503"));
        endpoint.ready.store(true, Ordering::Relaxed);
        assert!(ask(endpoint.address, "/ready").await.starts_with("HTTP/1.1 200"));
        assert!(ask(endpoint.address, "/nothing").await.starts_with("HTTP/1.1 404"));
        // Nobody there to look for the page.
        assert!(ask(endpoint.address, "/").await.starts_with("HTTP/1.1 503"));
        endpoint.stop.cancel();
        endpoint.serving.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn metrics_carry_the_process_and_the_tenants() {
        let mut endpoint = start();
        let asking = tokio::spawn(ask(endpoint.address, "/metrics"));
        let Scrape(reply) = endpoint.scrapes.recv().await.unwrap();
        let row = TenantRow { tenant: "acme".into(), requests: 5, ..TenantRow::default() };
        endpoint.board.lock().book(&[row]);
        reply.send(()).unwrap();
        let answer = asking.await.unwrap();
        assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
        assert!(answer.contains("tenantgate_logins_total 7\n"), "{answer}");
        assert!(answer.contains("tenantgate_tenant_requests_total{tenant=\"acme\"} 5\n"));
    }

    #[tokio::test]
    async fn metrics_are_served_when_the_gate_does_not_answer() {
        let mut endpoint = start();
        endpoint.scrapes.close();
        let answer = ask(endpoint.address, "/metrics").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("tenantgate_logins_total"));
    }

    #[tokio::test]
    async fn a_connection_that_sends_nothing_does_not_hold_up_the_stop() {
        let endpoint = start();
        let _silent = TcpStream::connect(endpoint.address).await.unwrap();
        assert!(ask(endpoint.address, "/live").await.contains("live"));
        endpoint.stop.cancel();
        let stopped = tokio::time::timeout(STOP_TIME / 2, endpoint.serving).await;
        stopped.expect("stops without waiting for it").unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_visit_ends_at_its_deadline_whatever_is_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let deadline = Box::pin(tokio::time::sleep(Duration::from_millis(50)));
        let mut visit = Visit { stream, deadline, _place: None };
        peer.write_all(b"G").await.unwrap();
        assert_eq!(visit.read_u8().await.unwrap(), b'G');
        assert_eq!(visit.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(visit.write_u8(0).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
