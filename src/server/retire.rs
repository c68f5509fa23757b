//! Close a server connection so that its place may be given to another one.

use std::time::Duration;

use crate::server::{Server, cancel};
use crate::wire::frontend;

/// How long a backend may take to notice that it is not wanted any more. Then its place is given
/// back although it may still run: a server that ignores cancels must not take the gate down.
const LIMIT: Duration = Duration::from_secs(30);

/// How long it is waited for all the same, by those who must know that nothing runs any more.
const WATCHED: Duration = Duration::from_secs(3600);

/// Waits until the backend of a connection that could not be closed in time is gone, for an hour.
pub async fn watch(server: &mut Server) {
    let clock = server.facts.clock.clone();
    // A line that breaks says as much as can be known.
    let _ = clock.timeout(WATCHED, server.connection.drain()).await;
}

/// Closes a connection. If the server may be at work (`busy`), the work is cancelled first and the
/// function returns when the backend is gone, so that the cluster's capacity is never exceeded.
/// Returns false if it had to give up waiting.
pub async fn retire(server: &mut Server, busy: bool) -> bool {
    let clock = server.facts.clock.clone();
    if !busy {
        frontend::put_terminate(&mut server.connection.output);
        let goodbye = async {
            let _ = server.connection.send().await;
            let _ = server.connection.shutdown().await;
            // The backend closes the connection when it is gone, not before.
            let _ = server.connection.drain().await;
        };
        return clock.timeout(LIMIT, goodbye).await.is_ok();
    }
    let gone = async {
        // Whether it arrives or not, the end of the stream below is what counts.
        let _ = cancel(&server.facts.cancel_target()).await;
        let _ = server.connection.shutdown().await;
        let _ = server.connection.drain().await;
    };
    clock.timeout(LIMIT, gone).await.is_ok()
}
