//! [`Tenant::seat`]: where a tenant has its data and as whom, to see whether that is another one.

use std::sync::Arc;

use aws_lc_rs::digest;

use crate::catalog::Tenant;

/// Goes into every hash, so that another rule can be told from this one.
const RULE: &[u8] = b"tenantgate seat v1";

impl Tenant {
    /// Where it and its roles have their data, and as whom, as a hash that is the same in every
    /// process. Of two tenants that were held against each other neither can come upon the other's
    /// data as long as both have the seat they had then. Hosts are no part of it: clusters move as
    /// a whole, and those of the settings file come before all rows.
    pub fn seat(self: &Arc<Self>) -> String {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(RULE);
        let mut put = |word: Option<&str>| {
            let length = word.map_or(u64::MAX, |word| word.len() as u64);
            hash.update(&length.to_be_bytes());
            hash.update(word.unwrap_or_default().as_bytes());
        };
        for face in self.faces() {
            let conninfo = &face.route.conninfo;
            put(Some(face.isolation.name()));
            put(Some(if face.may_share_login() { "shared" } else { "" }));
            put(Some(&face.route.cluster.name));
            put(Some(&conninfo.dbname));
            put(Some(&conninfo.user));
            put(face.context.value("search_path"));
            put(face.context.value("role"));
        }
        hash.finish().as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}
