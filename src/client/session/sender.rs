//! Who sent a notification. A server names the process that ran NOTIFY, which clients know nothing
//! of: to them a session has the number in its cancel key.

use crate::wire::backend;
use crate::wire::frame::{self, HEADER_BYTES};

/// A NotificationResponse as the client is to see it; `None` if its sender is not known to be a
/// session of this gate, and the server's word stands. `user_of` says which session a server
/// process was used by last.
pub fn retold(body: &[u8], user_of: impl Fn(i32) -> Option<i32>) -> Option<Vec<u8>> {
    let (pid, rest) = body.split_first_chunk::<4>()?;
    let session = user_of(i32::from_be_bytes(*pid))?;
    let mut frame = Vec::new();
    backend::put_notification(&mut frame, session, rest);
    Some(frame)
}

/// The same for many, whole and one behind the other.
pub fn retold_all(mut frames: &[u8], user_of: impl Fn(i32) -> Option<i32>) -> Vec<u8> {
    let mut told = Vec::new();
    while let Ok(Some(header)) = frame::header(frames) {
        let Some((frame, rest)) = frames.split_at_checked(header.length) else { break };
        let body = frame.get(HEADER_BYTES..).unwrap_or_default();
        told.extend(retold(body, &user_of).unwrap_or_else(|| frame.to_vec()));
        frames = rest;
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_sender_is_told_by_its_sessions_number_and_others_by_the_servers() {
        let notification = |pid| {
            let mut frame = Vec::new();
            backend::put_notification(&mut frame, pid, b"c\0hello\0");
            frame
        };
        let user_of = |pid| (pid == 7).then_some(70);
        let told = retold_all(&[notification(7), notification(8)].concat(), user_of);
        assert_eq!(told, [notification(70), notification(8)].concat());
        assert_eq!(retold(b"abc", user_of), None);
    }
}
