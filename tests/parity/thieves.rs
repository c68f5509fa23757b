//! Sessions that take every server of a gate between two requests of somebody else.

use crate::harness::messages::query;
use crate::harness::wire::Wire;
use crate::parity::player::Side;

/// As many as the gate has servers.
pub struct Thieves {
    wires: Vec<Wire>,
    /// How often they had them all.
    pub thefts: usize,
}

impl Thieves {
    /// Logs in with settings of their own, so that a server that changes hands is bound again.
    pub async fn new(side: &Side, count: usize) -> Self {
        let mut wires = Vec::new();
        for number in 0..count {
            let name = format!("thief {number}");
            let more = [("application_name", name.as_str()), ("TimeZone", "Asia/Tokyo")];
            let more =
                [&more[..], &[("DateStyle", "German"), ("extra_float_digits", "-3")]].concat();
            let Side { port, user, dbname, password, .. } = side;
            let login = crate::harness::wire::Login { user, dbname, password, more: &more };
            wires.push(Wire::login(*port, &login).await);
        }
        Self { wires, thefts: 0 }
    }

    /// Takes all servers at the same time and gives them back.
    pub async fn steal(&mut self) {
        for (sql, tag) in [("BEGIN", "T"), ("COMMIT", "I")] {
            for wire in &mut self.wires {
                wire.send(query(sql)).await;
            }
            for wire in &mut self.wires {
                let said = crate::harness::messages::transcript(&wire.until_ready().await);
                assert_eq!(said, format!("C({sql}) Z({tag})"));
            }
        }
        self.thefts += 1;
    }
}
