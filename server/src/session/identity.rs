//! Who is behind a session.

use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

/// Who is behind a session: what [`authenticate`](crate::Builder::authenticate) found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Identity {
    /// The user, if known. A session is resumed by nobody else: `authenticate` is asked about every link, and must find the same user.
    pub user: Option<String>,
    /// Whatever else the application wants to remember about him.
    pub claims: serde_json::Value,
    /// When what he has authenticated with ends; `None`: never. The session ends then, with `UNAUTHORIZED`, unless its client has shown something newer
    /// (SPEC section 12).
    pub expires: Option<SystemTime>,
    /// What others may know of him: members of a channel are told it where presence is allowed. `null` says nothing.
    pub info: serde_json::Value,
}

impl Identity {
    /// Nobody in particular.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// To be kept for as long as a session: all those who are nobody in particular are one.
    pub(crate) fn into_shared(self) -> Arc<Self> {
        static ANONYMOUS: LazyLock<Arc<Identity>> = LazyLock::new(Arc::default);
        if self == **ANONYMOUS { Arc::clone(&ANONYMOUS) } else { Arc::new(self) }
    }

    /// A user by name or id.
    pub fn user(user: impl Into<String>) -> Self {
        Self { user: Some(user.into()), ..Self::default() }
    }
}
