//! What the example serves: its page, the browser client, and `POST /ask`.

use std::sync::Arc;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::json;
use throughline::Hub;

use crate::answers::{Answers, AskError};

/// Scripts and connections only of this server, on any of its ports: what a model writes is text, and stays it.
const POLICY: &str = "default-src 'self'; connect-src 'self' https: ws: wss:; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";

/// Told to who is turned away, in seconds: answers take that long.
const RETRY_AFTER_S: &str = "10";

pub(crate) fn routes(answers: Arc<Answers>) -> Router {
    let script = async || ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], include_str!("page.js"));
    Router::new()
        .route("/", get(async || ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(include_str!("page.html")))))
        .route("/page.js", get(script))
        .route("/ask", post(ask))
        .with_state(answers)
        .merge(throughline::demo::client())
}

#[derive(Debug, Deserialize)]
struct Question {
    prompt: String,
}

/// Answers 201 with where the answer can be read, before it has begun. That it takes JSON only keeps forms of other sites out.
async fn ask(
    State(answers): State<Arc<Answers>>,
    Extension(hub): Extension<Hub>,
    question: Result<Json<Question>, JsonRejection>,
) -> Response {
    let Json(Question { prompt }) = match question {
        Ok(question) => question,
        Err(error) => return refused(error.status(), &error.body_text()).into_response(),
    };
    match answers.ask(&hub, prompt).await {
        Ok(asked) => (StatusCode::CREATED, Json(asked)).into_response(),
        Err(error @ (AskError::Empty | AskError::TooLong)) => {
            refused(StatusCode::UNPROCESSABLE_ENTITY, &error.to_string()).into_response()
        }
        Err(error @ AskError::Busy) => retry_after(StatusCode::TOO_MANY_REQUESTS, &error.to_string()).into_response(),
        Err(error @ (AskError::Stopping | AskError::Unpublished(_))) => {
            retry_after(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()).into_response()
        }
    }
}

fn retry_after(status: StatusCode, error: &str) -> ([(HeaderName, &'static str); 1], impl IntoResponse) {
    ([(header::RETRY_AFTER, RETRY_AFTER_S)], refused(status, error))
}

fn refused(status: StatusCode, error: &str) -> impl IntoResponse {
    (status, Json(json!({ "error": error })))
}
