//! Whether a tenant could live where a route leads, tried in every way but with a client: a server
//! is connected, its login and its level are checked, it is bound to the tenant, that is read back,
//! and there is a table for it.

use std::rc::Rc;
use std::sync::Arc;

use crate::catalog::Tenant;
use crate::net::{Buffers, Clock};
use crate::pool::plan;
use crate::server::{Failed, Settings, connect, retire};

/// Tries the route of a tenant and those of its roles, one after the other, with one connection
/// beside the cluster's capacity: whoever calls bounds how many such there are. What comes back is
/// for the operator.
///
/// # Errors
///
/// The server cannot be reached or is not fit, or could not be bound; or the tenant has no table
/// there, as in an empty database of the same name.
pub async fn verify(tenant: &Arc<Tenant>, buffers: &Buffers, clock: &Clock) -> Result<(), String> {
    let mut found = false;
    for face in tenant.faces() {
        let (conninfo, limit) = (&face.route.conninfo, face.route.cluster.scrub_timeout);
        let place = |error: &dyn std::fmt::Display| {
            let (dbname, login) = (&conninfo.dbname, &conninfo.user);
            format!("database \"{dbname}\" as \"{login}\": {error}")
        };
        let clean = connect(&plan(face), buffers, clock).await.map_err(|error| place(&error))?;
        let bound = clean.bind(&face.context, &Rc::new(Settings::default()), limit).await;
        let (mut server, error) = match bound {
            Ok(mut bound) => {
                let tables = bound.has_tables(limit).await;
                found |= tables.as_ref().is_ok_and(|found| *found);
                (bound.into_server(), tables.err().map(|error| place(&error)))
            }
            Err(failed) => {
                let Failed { error, server } = *failed;
                (server, Some(place(&error)))
            }
        };
        retire(&mut server, error.is_some()).await;
        error.map_or(Ok(()), Err)?;
    }
    match found {
        true => Ok(()),
        false => {
            let (dbname, login) = (&tenant.route.conninfo.dbname, &tenant.route.conninfo.user);
            Err(format!("database \"{dbname}\" as \"{login}\": the tenant has no table there"))
        }
    }
}
