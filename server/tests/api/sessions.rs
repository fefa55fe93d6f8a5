//! What back ends do with sessions.

use serde_json::{Value, json};
use throughline::{Identity, Transport};
use throughline_protocol::Origin;

use crate::common::{Client, Opening, Running, TRANSPORTS, start};
use crate::plain::{VERSIONS, Version};
use crate::{call, config, done, refused};

async fn running() -> Running {
    start(config(), |builder| {
        builder.authenticate(|open| {
            let identity = open.token.clone().map_or_else(Identity::anonymous, Identity::user);
            async { Ok(identity) }
        })
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_sessions_of_a_user_end_and_no_others() {
    let Running { place, .. } = &running().await;
    for version in VERSIONS {
        let mut anns = Vec::new();
        for transport in TRANSPORTS {
            anns.push(Client::open(place, transport, &Opening::with_token("ann")).await.unwrap());
        }
        let bob = Client::open(place, Transport::WebSocket, &Opening::with_token("bob")).await.unwrap();
        for client in anns.iter().chain([&bob]) {
            client.send("open").await.unwrap(); // so that the server has its first frame
        }
        // Until it has all of them: first frames are on their way.
        let disconnect = async |body: Value, count: u64| {
            let mut ended = 0;
            while ended < count {
                ended += done(place, version, "disconnect", body.clone()).await["sessions"].as_u64().unwrap();
            }
            assert_eq!(ended, count);
        };
        disconnect(json!({ "user": "ann", "code": 4_242, "reason": "enough" }), anns.len() as u64).await;
        for ann in &anns {
            let close = ann.closed().await;
            assert_eq!((close.code, close.origin, &*close.reason), (4_242, Origin::Application, "enough"));
        }
        let nobody = done(place, version, "disconnect", json!({ "user": "ann" })).await;
        assert_eq!(nobody["sessions"], 0);
        let id = bob.id().to_string();
        disconnect(json!({ "session": id }), 1).await;
        assert_eq!(bob.closed().await.code, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_or_a_session_is_wanted() {
    let Running { place, .. } = &running().await;
    for (body, at) in [
        (json!({}), "user"),
        (json!({ "user": "ann", "session": "AAAAAAAAAAAAAAAAAAAAAA" }), "user"),
        (json!({ "session": "short" }), "session"),
        (json!({ "user": "ann", "code": -1 }), "code"),
    ] {
        let answer = call(place, Version::Http1, "disconnect", body).await;
        assert_eq!(refused(answer).await, (422, "INVALID".into(), Some(at.into())));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_says_how_it_is() {
    let Running { place, .. } = &running().await;
    let client = Client::connect(place, Transport::Poll).await;
    let info = done(place, Version::Http3, "info", json!({})).await;
    let version = env!("CARGO_PKG_VERSION");
    let expected =
        json!({ "version": version, "sessions": 1, "going_away": false, "subscriptions": 0, "publications": 0 });
    assert_eq!(info, expected);
    drop(client);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_is_subscribed_and_unsubscribed() {
    let Running { server, place, .. } = &running().await;
    let session = async || {
        let client = Client::open(place, Transport::WebSocket, &Opening::with_token("ann")).await.unwrap();
        client.send("open").await.unwrap(); // so that the server has its first frame
        client
    };
    let clients = [session().await, session().await];
    let mut subscribed = 0;
    while subscribed < 2 {
        let body = json!({ "user": "ann", "channel": "secret:1" });
        let answer = done(place, Version::Http2, "subscribe", body).await;
        assert_eq!(answer["failed"], json!([]));
        subscribed = answer["sessions"].as_u64().unwrap();
    }
    let channel = server.hub().channel("secret:1");
    assert_eq!(channel.subscribers(), 2);
    let listed = done(place, Version::Http1, "channels", json!({ "prefix": "sec" })).await;
    assert_eq!(listed, json!({ "channels": [{ "name": "secret:1", "subscribers": 2 }] }));
    for query in [json!({ "prefix": "room" }), json!({ "after": "secret:1" })] {
        assert_eq!(done(place, Version::Http1, "channels", query).await, json!({ "channels": [] }));
    }
    let members = done(place, Version::Http1, "presence", json!({ "channel": "secret:1" })).await;
    let users: Vec<_> = members["members"].as_array().unwrap().iter().map(|member| &member["user"]).collect();
    assert_eq!(users, ["ann", "ann"]);
    let body = json!({ "session": clients[0].id().to_string(), "channel": "secret:1" });
    assert_eq!(done(place, Version::Http3, "unsubscribe", body).await["sessions"], 1);
    let left = async {
        while channel.subscribers() > 1 {
            tokio::task::yield_now().await;
        }
    };
    crate::common::within("the end of a subscription", left).await;
}
