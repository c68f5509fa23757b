//! The protocol against the PostgreSQL manual, chapter 55: the same script straight to a server and
//! through the gate must give the same transcript, texts of errors included.

mod calls;
mod copy;
mod copy_early;
mod direct_tls;
mod extended;
mod large;
mod minor;
mod pins;
mod prepared;
mod settings;
mod settings_of_every_kind;
mod simple;
mod stand_ins;
mod startup;
mod tls;
mod unclosed;

use crate::harness::cluster::shared;
use crate::harness::gate::Gate;
use crate::harness::messages::{self, Frame};
use crate::harness::tenants::{Estate, LOGIN_PASSWORD, Tweaks};
use crate::harness::wire::{Login, Wire};

/// One thing a script does.
#[derive(Clone)]
enum Step {
    Send(Vec<u8>),
    /// Reads up to and with this many ReadyForQuery.
    Ready(usize),
    /// Reads so many frames.
    Frames(usize),
    /// Reads to the end of the connection.
    Closed,
}

use Step::{Closed, Frames, Ready, Send};

/// Scripts by name, and what a server says to each, without what stands in brackets and braces.
type Table = Vec<(&'static str, Vec<Step>, &'static str)>;

/// A query sent and answered.
fn ask(sql: &str) -> [Step; 2] {
    [Send(messages::query(sql)), Ready(1)]
}

/// Bytes sent, and so many ReadyForQuery read.
fn flight(bytes: impl Into<Vec<u8>>, ready: usize) -> [Step; 2] {
    [Send(bytes.into()), Ready(ready)]
}

/// Queries asked one after the other.
fn queries(all: &[&str]) -> Vec<Step> {
    all.iter().flat_map(|sql| ask(sql)).collect()
}

/// A gate, and the way around it.
struct Both {
    estate: Estate,
    gate: Gate,
}

impl Both {
    async fn new() -> Self {
        let estate = Estate::new().await;
        // One server: whatever a script leaves behind meets the next one.
        let tweaks = Tweaks { capacity: 1, ..Tweaks::default() };
        let gate = Gate::start(&estate.settings(&tweaks)).await;
        Self { estate, gate }
    }

    /// Straight to the server, as the login of schema tenant `stark` with its path.
    async fn direct(&self, more: &[(&str, &str)]) -> Wire {
        let id = &self.estate.stark.id;
        let options = format!("-c search_path={id}");
        let more = [&[("options", options.as_str())], more].concat();
        let user = format!("tg_{id}");
        let login = Login { user: &user, dbname: "app", password: LOGIN_PASSWORD, more: &more };
        Wire::login(shared().await.port(), &login).await
    }

    /// The same tenant through the gate.
    async fn gated(&self, more: &[(&str, &str)]) -> Wire {
        let password = &self.estate.stark.token;
        let login = Login { user: "app", dbname: "app", password, more };
        Wire::login(self.gate.port, &login).await
    }

    /// Plays one script both ways. Returns what both said.
    async fn same(&self, name: &str, script: &[Step]) -> String {
        self.same_with(name, &[], script).await
    }

    /// As [`Both::same`], with start-up parameters.
    async fn same_with(&self, name: &str, more: &[(&str, &str)], script: &[Step]) -> String {
        let direct = play(&mut self.direct(more).await, script).await;
        let gated = play(&mut self.gated(more).await, script).await;
        assert_eq!(gated, direct, "{name}: the gate (left) and the server (right) differ");
        direct
    }

    /// As [`Both::same`] for a table of scripts; the server must have said what the table says.
    async fn table(&self, rows: &[(&str, Vec<Step>, &str)]) {
        self.compare(rows, false).await;
    }

    /// As [`Both::table`], and once more while another tenant uses the server in between.
    async fn moving_table(&self, rows: &[(&str, Vec<Step>, &str)]) {
        self.compare(rows, true).await;
    }

    async fn compare(&self, rows: &[(&str, Vec<Step>, &str)], moving: bool) {
        let mut wrong = Vec::new();
        for (name, script, wanted) in rows {
            let direct = play(&mut self.direct(&[]).await, script).await;
            let gated = play(&mut self.gated(&[]).await, script).await;
            let moved = match moving {
                true => self.play_moving(&mut self.gated(&[]).await, script).await,
                false => gated.clone(),
            };
            if moved != direct {
                wrong.push(format!("{name}\n  moved: {moved}\n server: {direct}"));
            }
            if gated != direct {
                wrong.push(format!("{name}\n   gate: {gated}\n server: {direct}"));
            } else if brief(&direct) != *wanted {
                wrong.push(format!("{name}\n wanted: {wanted}\n server: {direct}"));
            }
        }
        assert!(wrong.is_empty(), "{} scripts:\n{}", wrong.len(), wrong.join("\n"));
    }
}

impl Both {
    /// Runs a script while another tenant uses the one server after each of its transactions, so
    /// that every one of them finds a server that was scrubbed.
    async fn play_moving(&self, wire: &mut Wire, script: &[Step]) -> String {
        let mut other = self.gate.wire(&self.estate.globex).await;
        let mut said = Vec::new();
        let mut sent = 0;
        for step in script {
            let part = play(wire, std::slice::from_ref(step)).await;
            match step {
                Send(_) => sent += 1,
                Ready(_) | Frames(_) | Closed => sent = 0,
            }
            if sent == 0 && part.ends_with("Z(I)") {
                assert_eq!(other.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
            }
            said.push(part);
        }
        said.retain(|part| !part.is_empty());
        said.join(" ")
    }
}

/// Runs a script. Error texts are written out, unlike in the harness's notation.
async fn play(wire: &mut Wire, script: &[Step]) -> String {
    let mut frames = Vec::new();
    for step in script {
        match step {
            Send(bytes) => wire.send(bytes).await,
            Ready(count) => {
                for _ in 0..*count {
                    frames.extend(wire.until_ready().await);
                }
            }
            Frames(count) => {
                for _ in 0..*count {
                    frames.extend(wire.maybe_frame().await);
                }
            }
            Closed => {
                while let Some(frame) = wire.maybe_frame().await {
                    frames.push(frame);
                }
            }
        }
    }
    frames.iter().map(spelled).collect::<Vec<_>>().join(" ")
}

/// A frame in the notation; errors and notices with everything but their place in the source.
fn spelled(frame: &Frame) -> String {
    match frame.tag {
        b'E' | b'N' => {
            let fields = frame.body.split(|byte| *byte == 0).filter(|it| !it.is_empty());
            let told = fields.filter(|it| !b"FLR".contains(&it[0]));
            let told = told.map(|field| String::from_utf8_lossy(field).into_owned());
            format!("{frame}{{{}}}", told.collect::<Vec<_>>().join("|"))
        }
        b'D' if frame.body.len() > 200 => format!("D[{} bytes]", frame.body.len()),
        // Names and types of columns must be the same too.
        b'T' | b't' => format!("{frame}[{}]", frame.body.escape_ascii()),
        _ => frame.to_string(),
    }
}

/// What was spelled, without what stands in brackets and braces.
fn brief(spelled: &str) -> String {
    let mut out = String::new();
    let mut depth = 0;
    for letter in spelled.chars() {
        match letter {
            '{' | '[' => depth += 1,
            '}' | ']' if depth > 0 => depth -= 1,
            _ if depth == 0 => out.push(letter),
            _ => {}
        }
    }
    out
}
