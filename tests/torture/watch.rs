//! The observer: no client may be sent another tenant's mark, a cancel key that is not its own, or
//! a notification, in any byte of any kind of message.

use std::collections::HashSet;
use std::sync::Mutex;

use crate::harness::messages::Frame;

/// What every mark begins with. All of a tenant's names and data carry its mark.
const MARK: &str = "canary";

/// A mark is so many bytes long.
const MARK_BYTES: usize = MARK.len() + 3;

/// The mark of a tenant; also its id.
pub fn mark(tenant: usize) -> String {
    format!("{MARK}{tenant:02x}z")
}

/// Every cancel key the gate has given out.
#[derive(Debug)]
pub struct Keys(Mutex<Given>);

#[derive(Debug)]
struct Given {
    keys: HashSet<[u8; 8]>,
    /// Whether a key begins with these two bytes, so that most bytes need no look at the set.
    begun: Vec<bool>,
}

impl Default for Keys {
    fn default() -> Self {
        Self(Mutex::new(Given { keys: HashSet::new(), begun: vec![false; 1 << 16] }))
    }
}

impl Keys {
    /// Looks at a message to the tenant with this mark. An error says what it must not have seen.
    pub fn look(&self, own: &str, frame: &Frame) -> Result<(), String> {
        if frame.tag == b'A' {
            return Err(format!("a notification: {frame:?}"));
        }
        if let Some(found) = foreign_mark(own, &frame.body) {
            return Err(format!("{own} saw {found} in {frame:?}"));
        }
        let mut given = self.0.lock().unwrap();
        if frame.tag == b'K' {
            let key: [u8; 8] = frame.body.as_slice().try_into().map_err(|_| "a strange key")?;
            given.begun[usize::from(u16::from_be_bytes([key[0], key[1]]))] = true;
            return given.keys.insert(key).then_some(()).ok_or("a key given twice".to_owned());
        }
        match given.is_in(&frame.body) {
            true => Err(format!("{own} saw a cancel key in {frame:?}")),
            false => Ok(()),
        }
    }
}

impl Given {
    fn is_in(&self, bytes: &[u8]) -> bool {
        bytes.windows(8).any(|window| {
            self.begun[usize::from(u16::from_be_bytes([window[0], window[1]]))]
                && self.keys.contains(window)
        })
    }
}

/// The first mark in these bytes that is not this tenant's.
pub fn foreign_mark(own: &str, bytes: &[u8]) -> Option<String> {
    let found = memchr::memmem::find_iter(bytes, MARK).map(|at| {
        let end = (at + MARK_BYTES).min(bytes.len());
        &bytes[at..end]
    });
    let mut foreign = found.filter(|found| *found != own.as_bytes());
    foreign.next().map(|found| found.escape_ascii().to_string())
}

#[test]
fn the_observer_sees_foreign_marks_keys_and_notifications_wherever_they_are() {
    let keys = Keys::default();
    let frame = |tag, body: &[u8]| Frame { tag, body: body.to_vec() };
    let (own, other) = (mark(1), mark(16));
    let key = [1, 2, 3, 4, 5, 6, 7, 8];
    assert_eq!(keys.look(&own, &frame(b'K', &key)), Ok(()));
    assert!(keys.look(&own, &frame(b'K', &key)).is_err());
    for tag in *b"DEdNSTCv" {
        assert!(keys.look(&own, &frame(tag, &[b"x\0", &key[..], b"y"].concat())).is_err());
        assert!(keys.look(&own, &frame(tag, &[b"x\0", other.as_bytes()].concat())).is_err());
        assert!(keys.look(&own, &frame(tag, b"cut short: canary1")).is_err());
        assert_eq!(keys.look(&own, &frame(tag, &[own.as_bytes(), b"1"].concat())), Ok(()));
    }
    assert!(keys.look(&own, &frame(b'A', b"")).is_err());
}
