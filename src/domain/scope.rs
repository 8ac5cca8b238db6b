//! Scopes: what the token of a service may be used for.

/// One permission of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Charge messages of any user: consume, reserve, commit, release, extend.
    Consume,
    /// Read any user's quota.
    Read,
    /// Change membership levels.
    Admin,
    /// Give and void grants.
    Grant,
    /// Run the resetter.
    Reset,
}

impl Scope {
    /// The name in the configuration and in error messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Consume => "consume",
            Self::Read => "read",
            Self::Admin => "admin",
            Self::Grant => "grant",
            Self::Reset => "reset",
        }
    }
}
