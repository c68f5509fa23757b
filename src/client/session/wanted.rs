//! What a session asks a pool for, and what its client hears when there is none.

use std::time::Instant;

use crate::budget::{Amount, Over};
use crate::client::talk::Talk;
use crate::error::{Budget, Error};
use crate::pool::{AcquireError, Outage, Want, Why};

pub(in crate::client) fn want(talk: &Talk) -> Want<'_> {
    let (tenant, account, settings) = (&talk.tenant, &talk.account, &talk.now);
    let (session, since, binding) = (talk.id, talk.patience.since, &talk.shared.binding);
    Want { tenant, account, session, settings, since, binding }
}

/// What the client is told when there is no lease; the cause was logged where it happened.
pub(super) fn refused(error: AcquireError, talk: &Talk) -> Error {
    let cluster = talk.tenant.route.cluster.name.clone();
    match error {
        AcquireError::Capped(waited) if talk.account.is_penalised(&talk.limits()) => {
            // It has one server because it is over another budget: that is what it is told.
            match talk.account.overdrawn(&talk.tenant.limits, talk.env.epoch.elapsed()) {
                Some(over) => talk.refusal(&over),
                None => Error::NoServerInTime { waited },
            }
        }
        AcquireError::Capped(_) => {
            let used = Amount::Count(talk.account.servers_taken().into());
            talk.refusal(&Over { budget: Budget::Servers, used, retry_after: None })
        }
        AcquireError::Timeout(waited) => Error::NoServerInTime { waited },
        AcquireError::Lost => Error::ClusterUnreachable { cluster, retry: None },
        AcquireError::Outage(Outage { why, next }) => {
            let retry = next.checked_duration_since(Instant::now());
            match why {
                Why::Down => Error::ClusterUnreachable { cluster, retry },
                Why::Role => Error::ClusterRole(cluster),
                Why::Login => Error::ClusterLogin(cluster),
                Why::Unfit => Error::ClusterRefused(cluster),
            }
        }
        AcquireError::Unverified => Error::ContextUnverified,
        AcquireError::Bind(read) => {
            let what = read.message.into();
            match read.sqlstate.as_str() {
                "42501" => Error::SettingDenied { what },
                "42602" | "42704" => Error::UnknownSetting { what },
                "55P02" => Error::FixedSetting { what },
                _ => Error::InvalidSetting { what },
            }
        }
    }
}
