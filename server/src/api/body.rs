//! What is asked for, as JSON.

use std::fmt;
use std::marker::PhantomData;

use axum::extract::{FromRequest, Request};
use http::{StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Api;
use super::problem::Problem;

/// A body that was read and understood.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Api> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        if !is_json(&request) {
            let reason = "the body has to be JSON, and Content-Type to say so: application/json";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "NOT_JSON", reason));
        }
        let max = api.0.config.max_body_bytes;
        let read = Limited::new(request.into_body(), max).collect();
        let read = tokio::time::timeout(api.0.gateway.limits.idle_timeout, read).await;
        let body = match read {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                let reason = format!("a body of more than {max} bytes, which is `api.max_body_bytes`");
                return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "TOO_LARGE", reason));
            }
            Ok(Err(_)) => return Err(malformed("the body broke off")),
            Err(_) => {
                let reason = "the body did not come in time";
                return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "TIMEOUT", reason));
            }
        };
        parse(&body).map(Self)
    }
}

fn is_json(request: &Request) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

/// Says what is wrong, and where. First whether it is JSON at all: what is missed in it is another mistake.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let text = std::str::from_utf8(body).map_err(malformed)?;
    serde_json::from_str::<IgnoredAny>(text).map_err(malformed)?;
    let mut json = serde_json::Deserializer::from_str(text);
    let mut track = serde_path_to_error::Track::new();
    object(serde_path_to_error::Deserializer::new(&mut json, &mut track))
        .map_err(|error| Problem::invalid(track.path().to_string(), without_place(&error)))
}

/// What stands between braces: left to itself, serde takes a list of its fields for it.
pub(super) fn object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct Object<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }

    deserializer.deserialize_map(Object(PhantomData))
}

fn malformed(error: impl ToString) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "MALFORMED", format!("not JSON: {}", error.to_string()))
}

/// Lines and columns are of no use where the path says it.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(what, _)| what.to_owned())
}

/// A field that may be left out, and is not `null`.
pub(super) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::super::commands::Batch;
    use super::*;

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (body, status, at, reason) in [
            (&b""[..], 400, None, "not JSON: EOF while parsing a value at line 1 column 0"),
            (b"{\"commands\":[{]}", 400, None, "not JSON: key must be a string at line 1 column 15"),
            (b"\"\xff\"", 400, None, "not JSON: invalid utf-8 sequence of 1 bytes from index 1"),
            (b"{\"commands\":[{\"info\":{}}]} x", 400, None, "not JSON: trailing characters at line 1 column 28"),
            (b"{\"commands\":[{}]}", 422, Some("commands[0]"), "expected value"),
            (b"[]", 422, Some("."), "invalid type: sequence, expected an object"),
            (
                b"{\"commands\":[{\"info\":[]}]}",
                422,
                Some("commands[0].info"),
                "invalid type: sequence, expected an object",
            ),
            (b"{\"commands\":7}", 422, Some("commands"), "invalid type: integer `7`, expected a sequence"),
            (
                b"{\"commands\":[{\"info\":{}},{\"publish\":{\"channel\":\"a\\n\",\"text\":\"x\"}}]}",
                422,
                Some("commands[1].publish.channel"),
                "not a name of a channel: it takes 1 to 255 bytes, without control characters",
            ),
            (
                b"{\"commands\":[{\"publish\":{\"channel\":\"a\",\"text\":null}}]}",
                422,
                Some("commands[0].publish.text"),
                "invalid type: null, expected a string",
            ),
        ] {
            let problem = parse::<Batch>(body).err().expect("it is wrong");
            let found = (problem.status, problem.at.as_deref(), &*problem.reason);
            assert_eq!(found, (status, at, reason), "{}", String::from_utf8_lossy(body));
        }
    }
}
