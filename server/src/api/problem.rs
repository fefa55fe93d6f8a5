//! What a back end is told when something was not done.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use crate::hub::{HistoryError, PublishError, ReadError, SubscribeError};

/// What a client is told to wait before it tries again: it is somebody's work to mend what is wrong.
const RETRY_SECONDS: u64 = 5;

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// The status, in HTTP's numbers. Of a whole answer it is the answer's own.
    #[schema(minimum = 400, maximum = 599)]
    pub(crate) status: u16,
    /// What it is, for a program.
    pub(crate) name: &'static str,
    /// What it is, for a person.
    pub(crate) reason: String,
    /// Where in the body it is, such as `commands[3].publish.channel`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) at: Option<String>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, name: &'static str, reason: impl Into<String>) -> Self {
        Self { status: status.as_u16(), name, reason: reason.into(), at: None }
    }

    /// The body is JSON, and not what is asked for.
    pub(super) fn invalid(at: impl Into<String>, reason: impl Into<String>) -> Self {
        let problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "INVALID", reason);
        Self { at: Some(at.into()), ..problem }
    }

    /// The same, in a part of the body.
    pub(super) fn below(self, part: &str) -> Self {
        let at = self.at.map_or(part.to_owned(), |at| format!("{part}.{at}"));
        Self { at: Some(at), ..self }
    }

    fn unavailable(reason: String) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", reason)
    }

    pub(super) fn failed() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", "the server has a mistake: its log says more")
    }

    fn wrong_kind(reason: String) -> Self {
        Self::new(StatusCode::CONFLICT, "WRONG_KIND", reason)
    }

    fn too_many(reason: String) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "TOO_MANY_CHANNELS", reason)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, [(header::CACHE_CONTROL, "no-store")], Json(self)).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_SECONDS));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        let reason = error.to_string();
        match error {
            PublishError::BadChannel => Self::invalid("channel", reason),
            PublishError::Reserved => Self::new(StatusCode::FORBIDDEN, "RESERVED", reason),
            PublishError::BadKey(_) => Self::invalid("key", reason),
            PublishError::WrongKind(_) => Self::wrong_kind(reason),
            PublishError::TooLarge { .. } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "TOO_LARGE", reason),
            PublishError::TooManyKeys => Self::new(StatusCode::CONFLICT, "TOO_MANY_KEYS", reason),
            PublishError::Full => Self::new(StatusCode::CONFLICT, "FULL", reason),
            PublishError::TooManyChannels => Self::too_many(reason),
            PublishError::Unavailable(_) => Self::unavailable(reason),
        }
    }
}

impl From<HistoryError> for Problem {
    fn from(error: HistoryError) -> Self {
        let reason = error.to_string();
        match error {
            HistoryError::BadChannel => Self::invalid("channel", reason),
            HistoryError::WrongKind(_) => Self::wrong_kind(reason),
            HistoryError::NoPresence => Self::new(StatusCode::CONFLICT, "NO_PRESENCE", reason),
            HistoryError::Unavailable(_) => Self::unavailable(reason),
        }
    }
}

impl From<SubscribeError> for Problem {
    fn from(error: SubscribeError) -> Self {
        let reason = error.to_string();
        match error {
            SubscribeError::BadChannel => Self::invalid("channel", reason),
            SubscribeError::TooMany => Self::new(StatusCode::CONFLICT, "TOO_MANY", reason),
            SubscribeError::TooManyChannels => Self::too_many(reason),
            SubscribeError::Unavailable(_) => Self::unavailable(reason),
            SubscribeError::Ended => Self::new(StatusCode::CONFLICT, "ENDED", reason),
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        let reason = error.to_string();
        match error {
            ReadError::BadChannel => Self::invalid("channel", reason),
            ReadError::WrongKind => Self::wrong_kind(reason),
            ReadError::TooManyChannels => Self::too_many(reason),
            ReadError::Unavailable => Self::unavailable(reason),
        }
    }
}
