//! Who is behind a session.

/// Who is behind a session: what [`authenticate`](crate::Builder::authenticate) found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Identity {
    /// The user, if known. A session is resumed by nobody else: `authenticate` is asked about every link, and must find the same user.
    pub user: Option<String>,
    /// Whatever else the application wants to remember about him.
    pub claims: serde_json::Value,
}

impl Identity {
    /// Nobody in particular.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// A user by name or id.
    pub fn user(user: impl Into<String>) -> Self {
        Self { user: Some(user.into()), claims: serde_json::Value::Null }
    }
}
