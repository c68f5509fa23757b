//! Holds one dialog with whoever is at a port, and writes down all that is said.

use std::collections::BTreeMap;

use crate::harness::messages::Frame;
use crate::harness::wire::{Login, Wire};
use crate::parity::script::{Act, Script};
use crate::parity::spell::Speller;
use crate::parity::thieves::Thieves;

/// With whom, and as whom.
#[derive(Clone, Debug)]
pub struct Side {
    pub port: u16,
    pub user: String,
    pub dbname: String,
    pub password: String,
    /// In front of the script's own `options`: the context that the gate would bind.
    pub options: String,
}

/// One session of the dialog.
struct Talk {
    wire: Wire,
    /// What goes out with the next write.
    buffer: Vec<u8>,
    /// ReadyForQuery that are still to come.
    due: usize,
    /// Messages put since the last Sync or Flush, each of which is answered.
    unanswered: usize,
    /// After an error nothing is answered until the next Sync.
    skipped: bool,
    /// Outside a transaction, with nothing on its way.
    idle: bool,
}

/// A dialog under way.
pub struct Player<'side> {
    side: &'side Side,
    talks: BTreeMap<char, Talk>,
    speller: Speller,
    lines: Vec<String>,
    /// SQLSTATEs of all errors.
    errors: Vec<String>,
}

/// What was said, line by line, and the SQLSTATEs of the errors among it.
pub struct Transcript {
    pub lines: Vec<String>,
    pub errors: Vec<String>,
    /// Whether it came to its end.
    pub ended: bool,
}

/// Plays a script. Between requests, while all its sessions are idle, `thieves` use the servers.
pub async fn play(side: &Side, script: &Script, mut thieves: Option<&mut Thieves>) -> Transcript {
    let (talks, speller) = (BTreeMap::new(), Speller::default());
    let mut player = Player { side, talks, speller, lines: Vec::new(), errors: Vec::new() };
    let mut pinned = false;
    for step in &script.steps {
        match step.act {
            Act::Pinned => pinned = true,
            Act::Free => pinned = false,
            _ => {
                let idle = player.talks.values().all(|talk| talk.idle);
                if let Some(thieves) = thieves.as_deref_mut().filter(|_| idle && !pinned) {
                    thieves.steal().await;
                }
                player.step(step.session, &step.line, &step.act).await;
            }
        }
    }
    Transcript { lines: player.lines, errors: player.errors, ended: true }
}

impl Player<'_> {
    async fn step(&mut self, session: char, line: &str, act: &Act) {
        if let Act::Start(parameters) = act {
            return self.open(session, parameters, line).await;
        }
        if !self.talks.contains_key(&session) {
            self.open(session, &[], "").await;
        }
        self.lines.push(line.replace('\n', "⏎"));
        let Some(mut talk) = self.talks.remove(&session) else {
            return self.lines.push("  not connected".to_owned());
        };
        let frames = talk.act(act).await;
        self.tell(&frames);
        self.talks.insert(session, talk);
    }

    /// Logs in. How that is asked for is another matter on each side.
    async fn open(&mut self, session: char, more: &[(String, String)], line: &str) {
        let mut options = self.side.options.clone();
        let mut parameters = vec![("application_name", "parity")];
        for (name, value) in more {
            match name.as_str() {
                "options" => options = format!("{options} {value}").trim().to_owned(),
                name => {
                    parameters.retain(|(known, _)| *known != name);
                    parameters.push((name, value));
                }
            }
        }
        if !options.is_empty() {
            parameters.push(("options", &options));
        }
        let Side { port, user, dbname, password, .. } = self.side;
        let mut wire = Wire::connect(*port).await;
        let login = Login { user, dbname, password, more: &parameters };
        let frames = wire.authenticate(&login).await;
        self.speller.pids.insert(wire.pid, session);
        let said = frames.into_iter().filter(|it| it.tag != b'R').map(Some);
        self.lines.push(if line.is_empty() { "start" } else { line }.to_owned());
        self.tell(&said.collect::<Vec<_>>());
        let talk = Talk::new(wire);
        self.talks.insert(session, talk);
    }

    fn tell(&mut self, frames: &[Option<Frame>]) {
        for frame in frames {
            let Some(frame) = frame else {
                self.lines.push("  closed".to_owned());
                continue;
            };
            self.lines.push(format!("  {}", self.speller.spell(frame)));
            if frame.tag == b'E' {
                self.errors.extend(frame.field('C'));
            }
        }
    }
}

type Frames = Vec<Option<Frame>>;

impl Talk {
    fn new(wire: Wire) -> Self {
        let buffer = Vec::new();
        Self { wire, buffer, due: 0, unanswered: 0, skipped: false, idle: true }
    }

    async fn act(&mut self, act: &Act) -> Frames {
        match act {
            Act::Start(_) | Act::Pinned | Act::Free => Frames::new(),
            Act::Put(bytes) => {
                self.put(bytes);
                Frames::new()
            }
            Act::Ask(bytes, now) => {
                self.put(bytes);
                self.due += 1;
                (self.unanswered, self.skipped) = (0, false);
                if *now { self.until_ready().await } else { Frames::new() }
            }
            Act::CopyEnd(bytes) => {
                self.put(bytes);
                if self.due > 0 { self.until_ready().await } else { Frames::new() }
            }
            Act::Flush(bytes) => {
                self.put(bytes);
                self.send().await;
                self.answers().await
            }
            Act::Send => {
                self.send().await;
                Frames::new()
            }
            Act::Await(count) => {
                self.due = *count;
                self.until_ready().await
            }
            Act::Read(tag) => {
                self.send().await;
                self.until(|frame| frame.tag == *tag).await
            }
            Act::Closed(bytes) => {
                self.put(bytes);
                self.send().await;
                let frames = self.until(|_| false).await;
                self.idle = true;
                frames
            }
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        let answered = matches!(bytes.first(), Some(b'P' | b'B' | b'C' | b'D' | b'E'));
        self.unanswered += usize::from(answered);
        self.buffer.extend_from_slice(bytes);
        self.idle = false;
    }

    /// Somebody who hung up is found when reading.
    async fn send(&mut self) {
        let bytes = std::mem::take(&mut self.buffer);
        let _ = self.wire.try_send(bytes).await;
    }

    /// Reads up to and with the frame that is the last one, or to the end of the connection.
    async fn until(&mut self, mut last: impl FnMut(&Frame) -> bool) -> Frames {
        let mut frames = Frames::new();
        loop {
            let frame = self.wire.maybe_frame().await;
            let ended = frame.as_ref().is_none_or(&mut last);
            frames.push(frame);
            if ended {
                return frames;
            }
        }
    }

    /// Everything that is due; COPY data is asked for in between.
    async fn until_ready(&mut self) -> Frames {
        self.send().await;
        let mut due = self.due;
        let frames = self
            .until(|frame| {
                due -= usize::from(frame.tag == b'Z');
                due == 0 || matches!(frame.tag, b'G' | b'W')
            })
            .await;
        self.due = due;
        let ready = |frame: &Frame| frame.tag == b'Z' && frame.body == b"I";
        self.idle = due == 0 && frames.last().is_some_and(|it| it.as_ref().is_none_or(ready));
        frames
    }

    /// An answer to each message since the last Sync or Flush, or an error instead.
    async fn answers(&mut self) -> Frames {
        let mut unanswered = std::mem::take(&mut self.unanswered);
        if unanswered == 0 || self.skipped {
            return Frames::new();
        }
        let frames = self
            .until(|frame| {
                unanswered -= usize::from(b"123TnCIsG".contains(&frame.tag));
                unanswered == 0 || matches!(frame.tag, b'E' | b'G' | b'W')
            })
            .await;
        self.skipped = frames.iter().flatten().any(|frame| frame.tag == b'E');
        frames
    }
}
