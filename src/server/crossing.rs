//! [`Crossing`]: a clean server connection between two threads. It keeps its socket and its TLS
//! session; nothing is open on it, nothing is unread or unsent, and nobody is about to cancel it.

use std::io;
use std::rc::Rc;

use crate::net::{Buffers, Connection, Stream};
use crate::server::{Clean, Server, ServerFacts};

/// A clean server connection that belongs to no thread.
#[derive(Debug)]
pub struct Crossing {
    stream: Stream,
    facts: ServerFacts,
}

impl Clean {
    /// Takes it off this thread's runtime. Comes back, only good to be closed, if bytes are left on
    /// it or somebody still holds its facts: that may be a cancel on its way.
    pub fn depart(self) -> Result<Crossing, Box<Server>> {
        let Server { connection, facts } = self.into_server();
        let facts = match Rc::try_unwrap(facts) {
            Ok(facts) => facts,
            Err(facts) => return Err(Box::new(Server { connection, facts })),
        };
        match connection.depart() {
            Ok(stream) => Ok(Crossing { stream, facts }),
            Err(connection) => {
                Err(Box::new(Server { connection: *connection, facts: Rc::new(facts) }))
            }
        }
    }
}

impl Crossing {
    /// Registers it with the runtime of the thread that calls.
    ///
    /// # Errors
    ///
    /// The runtime does not take the socket; the connection is lost.
    pub fn arrive(self, buffers: &Buffers) -> io::Result<Clean> {
        let Self { mut stream, facts } = self;
        stream.attach()?;
        let connection = Connection::new(stream, buffers.clone());
        Ok(Clean::new(Server { connection, facts: Rc::new(facts) }))
    }
}
