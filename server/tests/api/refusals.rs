//! What is not done, and why.

use http::HeaderMap;
use serde_json::json;

use crate::common::requests::headers;
use crate::common::{Running, start};
use crate::plain::{VERSIONS, Version, ask, get};
use crate::{KEY, call, config, refused, with_key};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_key_nothing_is_done() {
    let Running { server, place, .. } = &start(config(), |builder| builder).await;
    let body = r#"{"channel":"room:1","text":"x"}"#;
    for version in VERSIONS {
        for authorization in [None, Some("Bearer"), Some("Bearer "), Some("Bearer wrong"), Some(KEY), Some("Basic x")] {
            let mut all = headers(&[("content-type", "application/json")]);
            all.extend(authorization.map(|text| headers(&[("authorization", text)])).unwrap_or_default());
            let answer = ask(place, version, "POST", "/api/publish", all, body).await;
            assert_eq!(refused(answer).await, (401, "UNAUTHORIZED".into(), None), "{authorization:?}");
        }
        let mut twice = with_key();
        twice.append("authorization", format!("Bearer {KEY}").parse().unwrap());
        assert_eq!(refused(ask(place, version, "POST", "/api/publish", twice, body).await).await.0, 401);
    }
    assert_eq!(server.hub().channel("room:1").publish("x").await.unwrap().offset, 1);
    let mut second = with_key();
    second.insert("authorization", "bearer another-key-for-the-tests".parse().unwrap());
    assert_eq!(ask(place, Version::Http1, "POST", "/api/publish", second, body).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_keys_there_is_no_api() {
    let mut config = config();
    config.api.keys.clear();
    let Running { place, .. } = &start(config, |builder| builder).await;
    for path in ["/api/info", "/api/openapi.json", "/api/docs/"] {
        assert_eq!(get(place, Version::Http1, path).await.status, 404);
        assert_eq!(ask(place, Version::Http1, "POST", path, with_key(), "{}").await.status, 404);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_body_is_said_with_its_place() {
    let Running { place, .. } = &start(config(), |builder| builder).await;
    let name = "a".repeat(256);
    for version in VERSIONS {
        for (body, status, name, at) in [
            (String::new(), 400, "MALFORMED", None),
            ("{".into(), 400, "MALFORMED", None),
            ("{\"channel\":\"a\",\"text\":\"b\"}}".into(), 400, "MALFORMED", None),
            ("[]".into(), 422, "INVALID", Some(".")),
            ("{}".into(), 422, "INVALID", Some(".")),
            (json!({ "channel": 7, "text": "x" }).to_string(), 422, "INVALID", Some("channel")),
            (json!({ "channel": "", "text": "x" }).to_string(), 422, "INVALID", Some("channel")),
            (json!({ "channel": name, "text": "x" }).to_string(), 422, "INVALID", Some("channel")),
            (json!({ "channel": "a\u{7f}", "text": "x" }).to_string(), 422, "INVALID", Some("channel")),
            (json!({ "channel": "a" }).to_string(), 422, "INVALID", Some("text")),
            (json!({ "channel": "a", "text": "x", "base64": "" }).to_string(), 422, "INVALID", Some("text")),
            (json!({ "channel": "a", "base64": "AP8" }).to_string(), 422, "INVALID", Some("base64")),
            (json!({ "channel": "a", "text": "x", "more": 1 }).to_string(), 422, "INVALID", Some("more")),
            (
                json!({ "channel": "a", "text": "x", "idempotency_key": "" }).to_string(),
                422,
                "INVALID",
                Some("idempotency_key"),
            ),
            (json!({ "channel": "a", "text": "x".repeat(65_537) }).to_string(), 413, "TOO_LARGE", None),
            ("x".repeat(1_048_577), 413, "TOO_LARGE", None),
        ] {
            let answer = call(place, version, "publish", &body).await;
            let expected = (status, name.to_owned(), at.map(str::to_owned));
            assert_eq!(refused(answer).await, expected, "{version:?} {}", &body[..body.len().min(80)]);
        }
        for (limit, since) in [(0, "1-1"), (1_001, "1-1"), (1, "x"), (1, "")] {
            let answer =
                call(place, version, "history", json!({ "channel": "a", "limit": limit, "since": since })).await;
            let at = if since == "1-1" { "limit" } else { "since" };
            assert_eq!(refused(answer).await, (422, "INVALID".into(), Some(at.into())));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_command_is_has_an_answer_too() {
    let Running { place, .. } = &start(config(), |builder| builder).await;
    for version in VERSIONS {
        let plain = headers(&[("authorization", &format!("Bearer {KEY}"))]);
        let answer = ask(place, version, "POST", "/api/info", plain, "{}").await;
        assert_eq!(refused(answer).await, (415, "NOT_JSON".into(), None));
        assert_eq!(refused(call(place, version, "nothing", "{}").await).await, (404, "NOT_FOUND".into(), None));
        let answer = ask(place, version, "GET", "/api/info", with_key(), "").await;
        assert_eq!(answer.headers["allow"], "POST");
        assert_eq!(refused(answer).await, (405, "METHOD_NOT_ALLOWED".into(), None));
        let mut long = with_key();
        long.insert("idempotency-key", "k".repeat(256).parse().unwrap());
        let answer = ask(place, version, "POST", "/api/info", long, "{}").await;
        assert_eq!(refused(answer).await, (422, "INVALID".into(), Some("Idempotency-Key".into())));
    }
    let page = ask(place, Version::Http1, "GET", "/api/docs/", HeaderMap::new(), "").await;
    assert_eq!(page.status, 200, "it is for everybody to read");
}
