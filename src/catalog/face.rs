//! [`Face`]: as what a credential lets its bearer in. A tenant has one face for each of its roles,
//! with a login, and so with server connections, of its own; and one that writes nothing.

use std::sync::Arc;

use crate::catalog::{Holds, Tenant, TenantState};
use crate::isolation::Context;

/// As what a credential lets its bearer in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Face {
    /// One of the tenant's roles; without it the tenant's default.
    pub role: Option<Box<str>>,
    /// Nothing may be written.
    pub read_only: bool,
}

impl Tenant {
    /// The tenant as a credential sees it; `None` if it has no such role. A credential that names
    /// no role gets the tenant's `default_role`; without one, where there are roles, the least:
    /// the tenant's own login, read-only.
    ///
    /// While the tenant is `read_only` nobody writes, and who would have the default role has the
    /// `read_only_role`, if there is one: no other role may get more by it than it has.
    pub fn seen_by(self: &Arc<Self>, face: &Face) -> Option<Arc<Self>> {
        self.seen(face, self.state == TenantState::ReadOnly)
    }

    /// The same with what the console says besides.
    pub fn seen_under(self: &Arc<Self>, face: &Face, holds: &Holds) -> Option<Arc<Self>> {
        self.seen(face, self.state == TenantState::ReadOnly || holds.read_only.covers(self))
    }

    fn seen(self: &Arc<Self>, face: &Face, read_only: bool) -> Option<Arc<Self>> {
        let default = self.default_role.as_deref();
        let named = face.role.as_deref().or(default);
        let reader = self.read_only_role.as_deref().filter(|_| read_only && named == default);
        let seen = match reader.or(named) {
            Some(role) => self.roles.get(role)?,
            None => self,
        };
        let least = named.is_none() && !self.roles.is_empty();
        Some(match least || face.read_only || read_only {
            true => seen.without_writes(),
            false => Arc::clone(seen),
        })
    }

    /// The tenant and all its roles, each with the way to its servers.
    pub fn faces(self: &Arc<Self>) -> impl Iterator<Item = &Arc<Self>> {
        std::iter::once(self).chain(self.roles.values())
    }

    /// The same tenant with `default_transaction_read_only`, which it cannot change. Made when it
    /// is first asked for, since most tenants never need it.
    fn without_writes(self: &Arc<Self>) -> Arc<Self> {
        if self.is_read_only() {
            return Arc::clone(self);
        }
        if let Some(known) = self.read_only_face.load_full() {
            return known;
        }
        let made = Arc::new(self.copy(Arc::new(self.context.without_writes()), self.version));
        // Two doors may ask at once: sessions share servers only if they share the context.
        self.read_only_face.compare_and_swap(&None::<Arc<Self>>, Some(made));
        self.read_only_face.load_full().unwrap_or_else(|| Arc::clone(self))
    }

    /// Whether servers are bound to this face of a tenant as to that one.
    pub fn binds_as(&self, other: &Self) -> bool {
        self.context == other.context && self.route.conninfo == other.route.conninfo
    }

    /// Whether it is bound so that it does not write.
    pub fn is_read_only(&self) -> bool {
        self.context.owns(Context::READ_ONLY)
    }
}
