//! Who is behind a session.

use std::time::SystemTime;

/// Who is behind a session: what [`authenticate`](crate::Builder::authenticate) found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Identity {
    /// The user, if known. A session is resumed by nobody else: `authenticate` is asked about every link, and must find the same user.
    pub user: Option<String>,
    /// Whatever else the application wants to remember about him.
    pub claims: serde_json::Value,
    /// When what he authenticated with ends (SPEC section 12). `None`: never.
    pub expires: Option<SystemTime>,
    /// What others see of him in presence: any JSON.
    pub info: serde_json::Value,
}

impl Identity {
    /// Nobody in particular.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// A user by name or id.
    pub fn user(user: impl Into<String>) -> Self {
        Self { user: Some(user.into()), ..Self::default() }
    }
}
