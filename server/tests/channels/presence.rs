//! Who is subscribed: as long as the subscription, and no longer.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use throughline::{Channel, Config, Identity, Transport};
use throughline_protocol::{ChannelCode, ChannelMessage};

use crate::client::Channels;
use crate::common::{Client, Opening, Place, Running, start, within};
use crate::on_every_transport;
use crate::replica::Replica;

on_every_transport! {
    members_come_and_go_with_their_subscriptions,
    a_member_stays_while_its_session_waits_and_goes_with_it,
}

fn config() -> Config {
    let mut config = crate::config();
    config.channels.namespaces.get_mut("room").unwrap().presence = true;
    config
}

async fn running(config: Config) -> Running {
    start(config, |builder| {
        builder.authenticate(|open| {
            let user = open.token.clone();
            async { Ok(Identity { user, info: json!({ "colour": "red" }), ..Identity::anonymous() }) }
        })
    })
    .await
}

async fn connect(place: &Place, transport: Transport, user: &str) -> Channels {
    let opening = Opening { token: Some(user.into()), marks: true, ..Opening::default() };
    Channels::over(Client::open(place, transport, &opening).await.expect("everybody may come"))
}

async fn subscribe(client: &Channels, channel: &str, about: &str) {
    let (channel, about) = (channel.into(), Some(about.into()));
    let request = client.ask(|request| ChannelMessage::Subscribe { request, channel, position: None, about });
    assert!(matches!(client.answer(request).await, ChannelMessage::Subscribed { .. }));
}

/// Users, and what they say of themselves.
fn members(replica: &Replica<'_>) -> Vec<(String, String)> {
    let member = |value: &throughline::Message| {
        let value: Value = serde_json::from_str(value.as_text().expect("a text")).expect("JSON");
        assert_eq!(value["info"], json!({ "colour": "red" }));
        let text = |name: &str| value[name].as_str().unwrap_or("nobody").to_owned();
        (text("user"), text("about"))
    };
    let mut members: Vec<_> = replica.values().values().map(member).collect();
    members.sort_unstable();
    members
}

async fn until_there_are(replica: &mut Replica<'_>, expected: &[(&str, &str)]) {
    let expected: Vec<_> = expected.iter().map(|(user, about)| ((*user).to_owned(), (*about).to_owned())).collect();
    replica.until(|replica| members(replica) == expected).await;
}

async fn members_come_and_go_with_their_subscriptions(transport: Transport) {
    let Running { server, place, .. } = &running(config()).await;
    let watcher = connect(place, transport, "watcher").await;
    let mut replica = Replica::subscribe(&watcher, "$presence:room:a").await;
    let (ann, bob) = (connect(place, transport, "ann").await, connect(place, Transport::WebSocket, "bob").await);
    subscribe(&ann, "room:a", "x=1").await;
    subscribe(&bob, "room:a", "x=2").await;
    until_there_are(&mut replica, &[("ann", "x=1"), ("bob", "x=2")]).await;
    let listed = server.hub().channel("room:a").presence().await.unwrap();
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().all(|member| member.id != ann.welcome.session.to_string()), "a session's id is not told");
    let keys: BTreeMap<_, _> = replica.values();
    assert!(listed.iter().all(|member| keys.contains_key(&member.id)));
    ann.unsubscribe("room:a").await.unwrap();
    until_there_are(&mut replica, &[("bob", "x=2")]).await;
    subscribe(&ann, "room:a", "again").await;
    until_there_are(&mut replica, &[("ann", "again"), ("bob", "x=2")]).await;
    bob.close(0, "bye");
    until_there_are(&mut replica, &[("ann", "again")]).await;
    let channel = "$presence:room:a";
    assert_eq!(ann.publish(channel, "x").await, Err(ChannelCode::NotAllowed));
    assert_eq!(ann.set(channel, "x", throughline::Message::from("x")).await, Err(ChannelCode::NotAllowed));
}

async fn a_member_stays_while_its_session_waits_and_goes_with_it(transport: Transport) {
    let mut config = config();
    config.limits.resume_window = Duration::from_millis(600);
    // A poll that is cut shows as silence only.
    config.limits.idle_timeout = Duration::from_secs(1);
    config.limits.heartbeat_interval = Duration::from_millis(300);
    config.limits.poll_hold = Duration::from_millis(300);
    let Running { server, place, .. } = &running(config).await;
    let ann = connect(place, transport, "ann").await;
    subscribe(&ann, "room:a", "").await;
    let room = server.hub().channel("room:a");
    let is = |room: Channel, count: usize| async move {
        while room.presence().await.unwrap().len() != count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within("a member", is(room.clone(), 1)).await;
    ann.cut().await;
    assert_eq!(room.presence().await.unwrap().len(), 1, "it may come back");
    within("the end of the session", is(room.clone(), 0)).await;
    assert_eq!(room.subscribers(), 0);
}
