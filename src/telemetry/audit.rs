//! The audit: one line of JSON for each login, each refusal with its true reason, each tenant a
//! session acts for, each session whose credential ended, each change of a tenant's state or route
//! and each order of the console. Written by a thread of its own, so that
//! a slow disk holds up nobody; what could not be written is counted and told in the log.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime};

use humantime_serde::re::humantime::format_rfc3339_millis;
use metrics::Counter;
use serde::{Deserialize, Serialize};

/// Events that wait for the disk; more than a second's worth of logins.
const WAITING_MAX: usize = 8192;

/// Longest text in an event, in characters: names come from outside.
const TEXT_MAX: usize = 256;

/// How long the end of the process waits for the last lines.
const FLUSH: Duration = Duration::from_secs(2);

/// What `[audit]` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSettings {
    /// Lines are appended to it; it is opened anew at each reload, so that it can be rotated.
    pub file: PathBuf,
    /// Whether logins are refused while the file cannot be written; default no.
    pub required: bool,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A client logged in.
    Login,
    /// A credential was denied; `reason` is the true one, which the client never hears.
    Refusal,
    /// A session of a service chose a tenant, or was refused it.
    ActFor,
    /// A session ended because its credential or its tenant did.
    Revocation,
    /// A tenant's state or route is another; `reason` says from what to what, and who said so.
    State,
    /// An order of the console, with what came of it.
    Console,
}

/// One event. Holds names and reasons, never a secret.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    event: What,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Event {
    /// An event that names nobody yet.
    pub fn new(event: What) -> Self {
        let (tenant, credential, user, database) = (None, None, None, None);
        Self { event, tenant, credential, user, database, peer: None, session: None, reason: None }
    }

    /// The tenant it is about.
    pub fn tenant(self, tenant: &str) -> Self {
        Self { tenant: Some(short(tenant)), ..self }
    }

    /// The credential as logs call it, such as `token k3f9aaaabbbb`.
    pub fn credential(self, credential: &str) -> Self {
        Self { credential: Some(short(credential)), ..self }
    }

    /// The user name and database of the start-up packet.
    pub fn login(self, user: &str, database: &str) -> Self {
        Self { user: Some(short(user)), database: Some(short(database)), ..self }
    }

    /// The client's address.
    pub fn peer(self, peer: &impl ToString) -> Self {
        Self { peer: Some(peer.to_string()), ..self }
    }

    /// The session's number, as in the log and the console.
    pub fn session(self, session: u64) -> Self {
        Self { session: Some(session), ..self }
    }

    /// Why.
    pub fn reason(self, reason: &str) -> Self {
        Self { reason: Some(short(reason)), ..self }
    }
}

fn short(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

/// The handle events are given to. Cheap to clone; without `[audit]` it does nothing.
#[derive(Clone, Debug, Default)]
pub struct Audit(Option<Arc<Desk>>);

#[derive(Debug)]
struct Desk {
    post: SyncSender<Post>,
    lost: Counter,
    required: bool,
    /// The last write failed.
    failing: Arc<AtomicBool>,
    /// Lines that wait to be written.
    waiting: Arc<AtomicUsize>,
}

enum Post {
    Line(String),
    Reopen,
    /// Answered when everything before it is written.
    Flush(std::sync::mpsc::Sender<()>),
}

/// A line of the file: the time, then the event.
#[derive(Serialize)]
struct Line<'event> {
    time: String,
    #[serde(flatten)]
    event: &'event Event,
}

impl Audit {
    /// Opens the file and starts the thread that writes to it. `lost` counts what could not be
    /// written.
    ///
    /// # Errors
    ///
    /// The file cannot be opened.
    pub fn start(settings: &AuditSettings, lost: Counter) -> io::Result<Self> {
        let file = open(&settings.file)?;
        let (post, posts) = sync_channel(WAITING_MAX);
        let failing = Arc::new(AtomicBool::new(false));
        let (path, lost_there) = (settings.file.clone(), lost.clone());
        let waiting = Arc::new(AtomicUsize::new(0));
        let writer = Writer {
            path,
            file: Some(file),
            lost: lost_there,
            failing: failing.clone(),
            waiting: waiting.clone(),
        };
        thread::Builder::new().name("audit".to_owned()).spawn(move || writer.work(&posts))?;
        let required = settings.required;
        Ok(Self(Some(Arc::new(Desk { post, lost, required, failing, waiting }))))
    }

    /// Whether events go anywhere.
    pub fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Writes an event. Never waits.
    pub fn record(&self, event: &Event) {
        let Some(desk) = &self.0 else { return };
        let time = format_rfc3339_millis(SystemTime::now()).to_string();
        // Names and numbers alone: they can always be written as JSON.
        let Ok(mut line) = serde_json::to_string(&Line { time, event }) else { return };
        line.push('\n');
        let choice = event.event == What::ActFor;
        if choice && desk.waiting.load(Ordering::Relaxed) > WAITING_MAX / 2 {
            // As many choices as a session likes must not keep others from logging in.
            desk.lost.increment(1);
            return;
        }
        desk.waiting.fetch_add(1, Ordering::Relaxed);
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            desk.post.try_send(Post::Line(line))
        {
            desk.lost.increment(1);
            desk.waiting.fetch_sub(1, Ordering::Relaxed);
            if !choice && !desk.failing.swap(true, Ordering::Relaxed) {
                tracing::error!("audit events come faster than they can be written: some are lost");
            }
        }
    }

    /// Whether a login may be let in as far as the audit is concerned.
    pub fn lets_in(&self) -> bool {
        let Some(desk) = &self.0 else { return true };
        !desk.required || !desk.failing.load(Ordering::Relaxed)
    }

    /// Opens the file anew: it may have been moved away.
    pub fn reopen(&self) {
        if let Some(desk) = &self.0 {
            // A full line means that the thread has other troubles; it opens the file then anyway.
            let _ = desk.post.try_send(Post::Reopen);
        }
    }

    /// Waits a moment until everything is written.
    pub fn flush(&self) {
        let Some(desk) = &self.0 else { return };
        let (done, written) = channel();
        if desk.post.try_send(Post::Flush(done)).is_ok() {
            // Whatever comes of it, the process ends.
            let _ = written.recv_timeout(FLUSH);
        }
    }
}

struct Writer {
    path: PathBuf,
    file: Option<File>,
    lost: Counter,
    failing: Arc<AtomicBool>,
    waiting: Arc<AtomicUsize>,
}

impl Writer {
    fn work(mut self, posts: &Receiver<Post>) {
        while let Ok(post) = posts.recv() {
            match post {
                Post::Line(line) => {
                    self.waiting.fetch_sub(1, Ordering::Relaxed);
                    self.put(&line);
                }
                Post::Reopen => self.file = None,
                Post::Flush(done) => drop(done.send(())),
            }
        }
    }

    fn put(&mut self, line: &str) {
        match self.write(line) {
            Ok(()) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::warn!("audit events are written again");
                }
            }
            Err(error) => {
                self.file = None;
                self.lost.increment(1);
                if !self.failing.swap(true, Ordering::Relaxed) {
                    let path = self.path.display();
                    tracing::error!(%error, %path, "cannot write audit events: they are lost");
                }
            }
        }
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => open(&self.path)?,
        };
        // One write for each line, so that no reader meets half of one.
        file.write_all(line.as_bytes())?;
        self.file = Some(file);
        Ok(())
    }
}

pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::Value;

    use super::*;

    fn lines(path: &Path) -> Vec<Value> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn each_event_is_a_line_and_a_file_that_was_moved_away_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let settings = AuditSettings { file: path("audit.jsonl"), required: true };
        let audit = Audit::start(&settings, Counter::noop()).unwrap();
        audit.record(&Event::new(What::Login).tenant("acme").session(7).peer(&"127.0.0.1:5"));
        let long = "\n\"".repeat(1000);
        audit.record(&Event::new(What::Refusal).login(&long, "app").reason("wrong token"));
        audit.flush();
        let written = lines(&settings.file);
        let [login, refusal] = written.as_slice() else { panic!("{written:?}") };
        assert_eq!((&login["event"], &login["tenant"]), (&"login".into(), &"acme".into()));
        assert_eq!((&login["session"], &login["peer"]), (&7.into(), &"127.0.0.1:5".into()));
        assert!(login["time"].as_str().unwrap().ends_with('Z') && login.get("reason").is_none());
        assert_eq!(refusal["user"].as_str().unwrap().len(), TEXT_MAX);
        fs::rename(&settings.file, path("audit.1")).unwrap();
        audit.reopen();
        audit.record(&Event::new(What::Revocation).reason("credential_expired"));
        audit.flush();
        assert_eq!((lines(&path("audit.1")).len(), lines(&settings.file).len()), (2, 1));
        assert!(audit.lets_in());
    }

    #[test]
    fn events_that_cannot_be_written_close_the_gate_only_where_they_must_be() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        for required in [true, false] {
            fs::create_dir(&inner).unwrap();
            let settings = AuditSettings { file: inner.join("audit.jsonl"), required };
            let audit = Audit::start(&settings, Counter::noop()).unwrap();
            fs::remove_dir_all(&inner).unwrap();
            audit.reopen();
            audit.record(&Event::new(What::Login));
            audit.flush();
            assert_eq!(audit.lets_in(), !required);
            fs::create_dir(&inner).unwrap();
            audit.record(&Event::new(What::Login));
            audit.flush();
            assert!(audit.lets_in());
            fs::remove_dir_all(&inner).unwrap();
        }
        let none = AuditSettings { file: inner.join("audit.jsonl"), required: false };
        assert!(Audit::start(&none, Counter::noop()).is_err());
        assert!(Audit::default().lets_in());
    }
}
