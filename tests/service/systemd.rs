//! Under a service manager: what it is told and when, sockets it hands over, and a restart that no
//! client notices. The manager is played by the test, with systemd's own protocols.

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tenantgate::demo::free_port;
use tokio::net::UnixDatagram;
use tokio::time::timeout;

use super::open_folder;
use crate::harness::gate::Gate;
use crate::harness::messages::{Frame, transcript};
use crate::harness::tenants::{Estate, Tenant, Tweaks};
use crate::harness::wire::{Login, Wire};
use crate::harness::{PATIENCE, eventually};

/// What systemd is to a service.
struct Manager {
    folder: TempDir,
    socket: UnixDatagram,
    /// As NOTIFY_SOCKET has it.
    name: String,
}

/// Sockets for a service, at most two, and their names.
#[derive(Default)]
struct Sockets {
    fds: Vec<OwnedFd>,
    names: &'static str,
}

impl Manager {
    fn new() -> Self {
        let folder = open_folder();
        let path = folder.path().join("notify");
        let name = path.to_str().unwrap().to_owned();
        Self { folder, socket: UnixDatagram::bind(path).unwrap(), name }
    }

    /// The command as systemd would run it. Descriptors come as the shell's standard input and
    /// output and leave it as 3 and 4.
    fn start(&self, command: &Command, sockets: Sockets, watchdog: Option<Duration>) -> Command {
        const SCRIPT: &str = r#"
            export LISTEN_PID=$$ WATCHDOG_PID=$$
            exec 3<&0 4<&1 </dev/null >/dev/null
            exec "$@""#;
        let mut shell = Command::new("sh");
        shell.args(["-c", SCRIPT, "sh"]).arg(command.get_program()).args(command.get_args());
        shell.env("NOTIFY_SOCKET", &self.name);
        if let Some(watchdog) = watchdog {
            shell.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        }
        shell.stdin(Stdio::null()).stdout(Stdio::null());
        shell.env("LISTEN_FDS", sockets.fds.len().to_string());
        shell.env("LISTEN_FDNAMES", sockets.names);
        let mut fds = sockets.fds.into_iter();
        if let Some(fd) = fds.next() {
            shell.stdin(fd);
        }
        if let Some(fd) = fds.next() {
            shell.stdout(fd);
        }
        shell
    }

    /// Waits for a message that has this line, or one that starts so.
    async fn hears(&self, line: &str) -> String {
        let mut bytes = [0; 4096];
        loop {
            let heard = timeout(PATIENCE, self.socket.recv(&mut bytes)).await;
            let count = heard.unwrap_or_else(|_| panic!("never heard {line}")).unwrap();
            let text = std::str::from_utf8(&bytes[..count]).unwrap();
            if text.lines().any(|told| told.starts_with(line)) {
                return text.to_owned();
            }
        }
    }
}

async fn log_in(mut wire: Wire, tenant: &Tenant) -> (Wire, Vec<Frame>) {
    let login = Login { user: "app", dbname: &tenant.dbname, password: &tenant.token, more: &[] };
    let frames = wire.authenticate(&login).await;
    (wire, frames)
}

/// Connects, logs in, asks and hangs up, as a short-lived program does.
async fn visit(port: u16, tenant: &Tenant) -> String {
    let (mut wire, frames) = log_in(Wire::connect(port).await, tenant).await;
    match transcript(&frames) {
        told if told.ends_with("Z(I)") => wire.query("SELECT count(*) FROM notes").await,
        told => told,
    }
}

const SERVED: &str = "T D(3) C(SELECT 1) Z(I)";

#[tokio::test]
async fn the_manager_hears_of_start_reload_and_stop_and_that_the_workers_answer() {
    let (estate, manager) = (Estate::new().await, Manager::new());
    let settings = estate.settings(&Tweaks::default());
    let watchdog = Some(Duration::from_millis(600));
    let mut gate = Gate::launched(&settings, |it| manager.start(&it, Sockets::default(), watchdog));
    manager.hears("READY=1").await;
    // Ready means ready: nobody has to try twice.
    assert_eq!(visit(gate.port, &estate.acme).await, SERVED);
    let _client = gate.wire(&estate.stark).await;
    manager.hears("STATUS=1 clients, 5 tenants").await;
    for _ in 0..3 {
        manager.hears("WATCHDOG=1").await;
    }
    let before = monotonic_micros();
    for broken in ["", "broken"] {
        gate.write_settings(&format!("{settings}{broken}"));
        gate.reload();
        let told = manager.hears("RELOADING=1").await;
        let micros = told.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
        let micros: u64 = micros.parse().unwrap();
        assert!((before..=monotonic_micros()).contains(&micros), "{before} {micros}");
        manager.hears("READY=1").await;
    }
    gate.terminate();
    let told = manager.hears("STOPPING=1").await;
    // drain_timeout is 30 s, and a little more for goodbyes.
    assert!(told.contains("\nEXTEND_TIMEOUT_USEC=40000000\n"), "{told}");
    assert_eq!(gate.exit().await.code(), Some(0));
}

/// The clock systemd compares the beginning of a reload with.
fn monotonic_micros() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec * 1_000_000 + now.tv_nsec / 1_000).unwrap()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_abstract_notify_socket_is_reached_and_a_wrong_one_is_no_reason_to_fail() {
    use std::os::linux::net::SocketAddrExt;
    let (estate, mut manager) = (Estate::new().await, Manager::new());
    let settings = estate.settings(&Tweaks::default());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&estate.acme.id).unwrap();
    let socket = std::os::unix::net::UnixDatagram::bind_addr(&address).unwrap();
    socket.set_nonblocking(true).unwrap();
    manager.socket = UnixDatagram::from_std(socket).unwrap();
    manager.name = format!("@{}", estate.acme.id);
    let _gate = Gate::launched(&settings, |it| manager.start(&it, Sockets::default(), None));
    manager.hears("READY=1").await;
    manager.name = "/nowhere/notify".to_owned();
    let gate = Gate::launched(&settings, |it| manager.start(&it, Sockets::default(), None));
    gate.logs("cannot reach NOTIFY_SOCKET").await;
    gate.is_ready().await;
}

/// Settings with TCP on this port and a Unix socket in this folder.
fn settings(estate: &Estate, port: u16, folder: &Path) -> String {
    let more = format!("[[listen]]\nunix = \"{}\"\nport = 6432\n", folder.display());
    // Two doors share the sockets.
    let text = estate.settings(&Tweaks { gate: "doors = 2", more: &more, ..Tweaks::default() });
    text.replace("$PORT", &port.to_string())
}

fn listeners(folder: &Path) -> (TcpListener, UnixListener) {
    let tcp = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    (tcp, UnixListener::bind(folder.join(".s.PGSQL.6432")).unwrap())
}

fn sockets(tcp: &TcpListener, unix: &UnixListener) -> Sockets {
    let fds = vec![unix.try_clone().unwrap().into(), tcp.try_clone().unwrap().into()];
    Sockets { fds, names: "tenantgate:tenantgate" }
}

#[tokio::test]
async fn sockets_of_the_manager_are_served_and_stay_its_own() {
    let (estate, manager) = (Estate::new().await, Manager::new());
    let (tcp, unix) = listeners(manager.folder.path());
    let port = tcp.local_addr().unwrap().port();
    let settings = settings(&estate, port, manager.folder.path());
    let mut gate = Gate::launched(&settings, |it| manager.start(&it, sockets(&tcp, &unix), None));
    manager.hears("READY=1").await;
    assert_eq!(visit(port, &estate.globex).await, SERVED);
    let path = manager.folder.path().join(".s.PGSQL.6432");
    let (mut wire, _) = log_in(Wire::connect_unix(&path).await, &estate.acme).await;
    assert_eq!(wire.query("SELECT count(*) FROM notes").await, SERVED);
    assert!(!manager.folder.path().join(".s.PGSQL.6432.lock").exists());
    gate.terminate();
    assert_eq!(gate.exit().await.code(), Some(0));
    assert!(path.exists(), "whoever made it removes it");
}

#[tokio::test]
async fn a_socket_is_known_by_its_name_and_one_that_fits_nothing_is_an_error() {
    let (estate, manager) = (Estate::new().await, Manager::new());
    let (tcp, unix) = listeners(manager.folder.path());
    let (port, other) = (tcp.local_addr().unwrap().port(), free_port().unwrap());
    // Another address in the settings, but the socket's name.
    let tls = "tls = \"disable\"\n";
    let named = settings(&estate, other, manager.folder.path()).replacen(
        tls,
        &format!("{tls}systemd = \"front\"\n"),
        1,
    );
    let front = || Sockets { names: "tenantgate:front", ..sockets(&tcp, &unix) };
    let gate = Gate::launched(&named, |it| manager.start(&it, front(), None));
    manager.hears("READY=1").await;
    assert_eq!(visit(port, &estate.globex).await, SERVED);
    drop(gate);

    let settings = settings(&estate, other, manager.folder.path());
    let mut gate = Gate::launched(&settings, |it| manager.start(&it, front(), None));
    assert_eq!(gate.exit().await.code(), Some(1));
    gate.logs(&format!("inherited socket 127.0.0.1:{port} (front) fits no [[listen]]")).await;
    gate.logs("hint: write a [[listen]] with this address, or one with systemd = \"front\"").await;

    // Not a listening socket, as with Accept=yes.
    let (connected, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let one = Sockets { fds: vec![connected.into()], names: "front" };
    let mut gate = Gate::launched(&settings, |it| manager.start(&it, one, None));
    assert_eq!(gate.exit().await.code(), Some(1));
    gate.logs("a socket unit needs Accept=no").await;
}

/// Visits again and again. Counts those who were served, and those who were told that the gate is
/// going; everything else is a failure.
async fn keep_visiting(
    port: u16,
    tenant: Tenant,
    enough: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
) -> usize {
    let mut told = 0;
    while !enough.load(Ordering::Relaxed) {
        match visit(port, &tenant).await {
            answer if answer == SERVED => drop(served.fetch_add(1, Ordering::Relaxed)),
            answer if answer.ends_with("E(57P01)") => told += 1,
            answer => panic!("a client was refused: {answer:?}"),
        }
    }
    told
}

#[tokio::test]
async fn a_restart_on_the_same_socket_refuses_nobody() {
    let (estate, manager) = (Estate::new().await, Manager::new());
    let (tcp, unix) = listeners(manager.folder.path());
    let port = tcp.local_addr().unwrap().port();
    let settings = settings(&estate, port, manager.folder.path());
    let start = || Gate::launched(&settings, |it| manager.start(&it, sockets(&tcp, &unix), None));
    let mut gate = start();
    manager.hears("READY=1").await;
    let (enough, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let visitors: Vec<_> = (0..6)
        .map(|_| keep_visiting(port, estate.stark.clone(), enough.clone(), served.clone()))
        .map(tokio::spawn)
        .collect();
    let more = async |count: usize| {
        let wanted = served.load(Ordering::Relaxed) + count;
        let enough = async || (served.load(Ordering::Relaxed) >= wanted).then_some(());
        eventually("visitors are served", enough).await;
    };
    more(30).await;
    gate.terminate();
    assert_eq!(gate.exit().await.code(), Some(0));
    // Nobody is there now. Whoever comes waits for the next one.
    let waiting = tokio::spawn({
        let tenant = estate.acme.clone();
        async move { visit(port, &tenant).await }
    });
    let _next = start();
    manager.hears("READY=1").await;
    more(30).await;
    assert_eq!(waiting.await.unwrap(), SERVED);
    enough.store(true, Ordering::Relaxed);
    for visitor in visitors {
        // At most the one visit that was going on at the stop.
        let told = visitor.await;
        let told =
            told.unwrap_or_else(|error| panic!("{error}; the gate that ended: {}", gate.log()));
        assert!(told <= 1);
    }
}

/// The units as they stand, with the program of this build in the place of the installed one.
fn units() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/systemd");
    for name in ["tenantgate.service", "tenantgate.socket"] {
        let unit = fs::read_to_string(from.join(name)).unwrap();
        let unit = unit.replace("/usr/local/bin/tenantgate", env!("CARGO_BIN_EXE_tenantgate"));
        fs::write(folder.path().join(name), unit).unwrap();
    }
    folder
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let folder = units();
    let path = |name: &str| folder.path().join(name);
    let analyze = |arguments: &[&str], units: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        command.args(arguments).args(units.iter().map(|unit| path(unit)));
        let output = command.output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        Some((output.status.success(), String::from_utf8(text).unwrap()))
    };
    let verify = ["verify", "--man=no"];
    let Some(said) = analyze(&verify, &["tenantgate.service", "tenantgate.socket"]) else {
        eprintln!("skipped: there is no systemd-analyze");
        return;
    };
    assert_eq!(said, (true, String::new()));
    let broken = fs::read_to_string(path("tenantgate.service")).unwrap();
    fs::write(path("broken.service"), broken.replace("Type=notify\n", "Type=notified\n")).unwrap();
    assert!(analyze(&verify, &["broken.service"]).unwrap().1.contains("notified"));
    let (safe, said) = analyze(
        &["security", "--offline=yes", "--no-pager", "--threshold=15"],
        &["tenantgate.service"],
    )
    .unwrap();
    assert!(safe, "{said}");
}

#[test]
fn the_socket_unit_has_the_addresses_that_its_comment_names() {
    let text = fs::read_to_string(units().path().join("tenantgate.socket")).unwrap();
    let listen: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("ListenStream=")).collect();
    let toml: String = text
        .lines()
        .filter_map(|line| line.strip_prefix("#   "))
        .map(|line| {
            let more = if line.starts_with("address") { "tls = \"disable\"\n" } else { "" };
            format!("[[listen]]\n{line}\n{more}")
        })
        .collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), toml).unwrap();
    let config = tenantgate::config::load(file.path()).unwrap();
    let ours: Vec<String> = config.listen.iter().map(|it| it.address.to_string()).collect();
    assert_eq!(listen, ours);
}
