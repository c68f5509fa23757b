//! [`Target`]: which of several hosts will do, libpq's `target_session_attrs`.

/// What a host must be (PostgreSQL manual, 34.1.2). A server of version 14 or later reports at
/// login whether it is a standby and whether its transactions are read-only, so nothing is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    #[default]
    Any,
    /// No standby, and transactions may write by default.
    ReadWrite,
    /// A standby, or transactions may not write by default.
    ReadOnly,
    Primary,
    Standby,
    /// A standby; any host if none of them is one.
    PreferStandby,
}

impl Target {
    /// Every value by its name in a connection string.
    pub const ALL: [(&'static str, Self); 6] = [
        ("any", Self::Any),
        ("read-write", Self::ReadWrite),
        ("read-only", Self::ReadOnly),
        ("primary", Self::Primary),
        ("standby", Self::Standby),
        ("prefer-standby", Self::PreferStandby),
    ];

    /// What is looked for in one round over the hosts after the other.
    pub fn rounds(self) -> &'static [Self] {
        match self {
            Self::Any => &[Self::Any],
            Self::ReadWrite => &[Self::ReadWrite],
            Self::ReadOnly => &[Self::ReadOnly],
            Self::Primary => &[Self::Primary],
            Self::Standby => &[Self::Standby],
            Self::PreferStandby => &[Self::Standby, Self::Any],
        }
    }

    /// Whether a server that reports this of itself will do; `parameter` has the value of a
    /// parameter, if it was reported.
    ///
    /// # Errors
    ///
    /// What the server is instead, in libpq's words.
    pub fn accept<'told>(
        self,
        parameter: impl Fn(&str) -> Option<&'told str>,
    ) -> Result<(), &'static str> {
        if self == Self::Any {
            return Ok(());
        }
        let is_on = |name| match parameter(name) {
            Some("on") => Ok(true),
            Some("off") => Ok(false),
            _ => Err("server does not report whether it is a standby"),
        };
        let standby = is_on("in_hot_standby")?;
        let read_only = standby || is_on("default_transaction_read_only")?;
        match self {
            Self::ReadWrite if read_only => Err("session is read-only"),
            Self::ReadOnly if !read_only => Err("session is not read-only"),
            Self::Primary if standby => Err("server is in hot standby mode"),
            Self::Standby | Self::PreferStandby if !standby => {
                Err("server is not in hot standby mode")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_chosen_as_libpq_does() {
        // The primary, the primary that was set read-only, a standby.
        let servers = [("off", "off"), ("off", "on"), ("on", "off"), ("on", "on")];
        let taken = |target: Target| {
            servers.map(|(standby, read_only)| {
                let told = |name: &str| match name {
                    "in_hot_standby" => Some(standby),
                    "default_transaction_read_only" => Some(read_only),
                    _ => None,
                };
                target.accept(told).is_ok()
            })
        };
        assert_eq!(taken(Target::Any), [true; 4]);
        assert_eq!(taken(Target::ReadWrite), [true, false, false, false]);
        assert_eq!(taken(Target::ReadOnly), [false, true, true, true]);
        assert_eq!(taken(Target::Primary), [true, true, false, false]);
        assert_eq!(taken(Target::Standby), [false, false, true, true]);
        assert_eq!(taken(Target::PreferStandby), [false, false, true, true]);
        assert_eq!(Target::PreferStandby.rounds(), [Target::Standby, Target::Any]);
    }

    #[test]
    fn a_server_that_says_nothing_is_none_of_them() {
        for (_, target) in Target::ALL {
            assert_eq!(target.accept(|_| None).is_ok(), target == Target::Any);
            assert_eq!(target.accept(|_| Some("maybe")).is_ok(), target == Target::Any);
        }
    }
}
