//! Who may not read, and what cannot be read: the reason is JSON.

use http::{HeaderMap, StatusCode};
use throughline::{Action, Denied, Identity, Rejection};

use crate::common::requests::headers;
use crate::common::{Place, Running, start};
use crate::config;
use crate::plain::{VERSIONS, Version, ask, get};

/// What a GET is answered, as status, name and reason.
async fn refused(place: &Place, version: Version, path: &str, headers: HeaderMap) -> (u16, String, String) {
    let answer = ask(place, version, "GET", path, headers, "").await;
    let status = answer.status.as_u16();
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.headers.contains_key("www-authenticate"), status == 401);
    let body = answer.json().await;
    assert!(body["code"].is_u64() && body["retry"].is_boolean(), "{body}");
    let field = |name: &str| body[name].as_str().unwrap().to_owned();
    (status, field("name"), field("reason"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_understood_is_answered_with_what_is_wrong() {
    let Running { place, .. } = &start(config(), |builder| builder).await;
    let long = "a".repeat(256);
    for version in VERSIONS {
        for (name, query, reason) in [
            ("", "", "not a name of a channel"),
            (&*long, "", "not a name of a channel"),
            ("room:%0A", "", "not a name of a channel"),
            ("room:%7F", "", "not a name of a channel"),
            ("%FF", "", "not a name of a channel"),
            ("%C3%28", "", "not a name of a channel"),
            ("room:1", "?since=x", "since"),
            ("room:1", "?since=1-", "since"),
            ("room:1", "?last_event_id=1-99999999999999999999", "since"),
            ("room:1", "?since=1-1&last_event_id=1-1", "last_event_id stands there twice"),
            ("room:1", "?limit=0", "limit"),
            ("room:1", "?limit=-1", "limit"),
            ("room:1", "?limit=%2B1", "limit"),
            ("room:1", "?limit=many", "limit"),
            ("room:1", "?wait=1.5", "wait"),
        ] {
            for route in ["events", "poll"] {
                let path = format!("/channels/{name}/{route}{query}");
                let (status, code, said) = refused(place, version, &path, HeaderMap::new()).await;
                assert_eq!((status, &*code), (400, "BAD_REQUEST"), "{path}");
                assert!(said.starts_with(reason), "{path}: {said}");
            }
        }
        let bad = headers(&[("last-event-id", "4711")]);
        assert_eq!(refused(place, version, "/channels/room:1/events", bad).await.0, 400);
        let longest = format!("room:{}", "ü".repeat(125));
        let path = longest.replace('ü', "%C3%BC");
        assert_eq!(get(place, version, &format!("/channels/{path}/poll")).await.status, StatusCode::OK, "255 bytes");
        assert_eq!(refused(place, version, &format!("/channels/{path}x/poll"), HeaderMap::new()).await.0, 400);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_application_decides_who_reads_what() {
    let Running { server, place, .. } = &start(config(), |builder| {
        builder
            .authenticate(|open| {
                let result = match open.token.as_deref() {
                    Some("ann") => Ok(Identity::user("ann")),
                    Some(_) => Err(Rejection::forbidden("you are known here")),
                    None => Err(Rejection::unauthorized("who are you?")),
                };
                async { result }
            })
            .authorize(|who, action| match action {
                Action::Subscribe { channel: "panic" } => panic!("as it should"),
                Action::Subscribe { channel } if who.user.as_deref() == Some(channel) => Ok(()),
                _ => Err(Denied::new("that is not yours")),
            })
    })
    .await;
    let ann = || headers(&[("authorization", "Bearer ann")]);
    server.hub().channel("ann").publish("hello").await.unwrap();
    for version in VERSIONS {
        for route in ["events", "poll"] {
            let path = |name: &str| format!("/channels/{name}/{route}");
            let said = refused(place, version, &path("ann"), HeaderMap::new()).await;
            assert_eq!(said, (401, "UNAUTHORIZED".into(), "who are you?".into()));
            let said = refused(place, version, &path("ann"), headers(&[("authorization", "Bearer bob")])).await;
            assert_eq!(said, (403, "FORBIDDEN".into(), "you are known here".into()));
            let said = refused(place, version, &path("bob"), ann()).await;
            assert_eq!(said, (403, "FORBIDDEN".into(), "that is not yours".into()));
            assert_eq!(refused(place, version, &path("panic"), ann()).await.0, 503);
        }
        let mut events = ask(place, version, "GET", "/channels/ann/events?since=1-1", ann(), "").await.events();
        assert_eq!(events.next().await.unwrap().kind, "skipped");
        assert_eq!(events.data("message").await, "hello");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_allowed_that_the_namespace_does_not_allow() {
    let Running { place, .. } = &start(config(), |builder| builder).await;
    for version in VERSIONS {
        for path in ["/channels/secret:1/events", "/channels/secret:1/poll"] {
            assert_eq!(refused(place, version, path, HeaderMap::new()).await.0, 403);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_other_origins_are_refused_unless_they_are_listed() {
    let mut config = config();
    config.origins = vec!["https://friend.test".into()];
    let Running { place, .. } = &start(config, |builder| builder).await;
    let path = "/channels/room:1/poll";
    let from = |origin: &str| headers(&[("origin", origin)]);
    for version in VERSIONS {
        assert_eq!(refused(place, version, path, from("https://evil.test")).await.0, 403);
        let answer = ask(place, version, "GET", path, from("https://friend.test"), "").await;
        assert_eq!(answer.headers["access-control-allow-origin"], "https://friend.test");
        let preflight = headers(&[
            ("origin", "https://friend.test"),
            ("access-control-request-method", "GET"),
            ("access-control-request-headers", "authorization,last-event-id"),
        ]);
        let answer = ask(place, version, "OPTIONS", path, preflight, "").await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.headers["access-control-allow-headers"].to_str().unwrap().contains("last-event-id"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_lies_where_the_configuration_says() {
    let mut moved = config();
    moved.http.base = Some("/a/b".into());
    let mut off = config();
    off.http.base = None;
    for (config, path, status) in [
        (moved.clone(), "/a/b/room:1/poll", StatusCode::OK),
        (moved, "/channels/room:1/poll", StatusCode::NOT_FOUND),
        (off, "/channels/room:1/poll", StatusCode::NOT_FOUND),
    ] {
        let Running { place, .. } = &start(config, |builder| builder).await;
        assert_eq!(get(place, Version::Http1, path).await.status, status);
    }
}
