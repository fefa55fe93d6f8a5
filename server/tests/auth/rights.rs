//! What a token allows with channels: nothing, unless it or the channel's namespace says so.

use serde_json::{Value, json};
use throughline::{Namespace, Transport};
use throughline_protocol::{ChannelCode, ChannelMessage};

use crate::client::Channels;
use crate::common::{Client, Opening, Running, echo};
use crate::issuer::Issuer;
use crate::on_every_transport;
use crate::{config, serve};

on_every_transport! {
    channels_are_closed_but_for_what_the_token_or_the_namespace_allows,
    history_and_presence_need_a_right_of_their_own,
}

async fn connect(running: &Running, transport: Transport, issuer: &Issuer, claims: &Value) -> Channels {
    let opening = Opening::with_token(&issuer.token(claims));
    Channels::over(Client::open(&running.place, transport, &opening).await.unwrap())
}

async fn channels_are_closed_but_for_what_the_token_or_the_namespace_allows(transport: Transport) {
    let issuer = Issuer::new();
    let mut config = config(&issuer);
    config.channels.namespaces = [("open".to_owned(), Namespace { subscribe: true, ..Namespace::default() })].into();
    let running = serve(config, echo).await;
    let nobody = connect(&running, transport, &issuer, &json!({})).await;
    assert!(nobody.subscribe("open:1", None).await.is_ok());
    for closed in ["room:1", "room", "$presence:room:1"] {
        assert_eq!(nobody.subscribe(closed, None).await, Err(ChannelCode::NotAllowed), "{closed}");
    }
    assert_eq!(nobody.publish("open:1", "x").await, Err(ChannelCode::NotAllowed));

    let channels = json!({ "room:*": ["subscribe", "publish"], "news": ["subscribe"], "open:2": ["publish"] });
    let member = connect(&running, transport, &issuer, &json!({ "channels": channels })).await;
    assert!(member.subscribe("room:1", None).await.is_ok() && member.subscribe("news", None).await.is_ok());
    assert!(member.publish("room:1", "x").await.is_ok() && member.publish("open:2", "x").await.is_ok());
    assert!(member.subscribe("open:2", None).await.is_ok());
    for (channel, may_subscribe) in [("news", true), ("open:1", true), ("room", false), ("newsroom", false)] {
        assert_eq!(member.publish(channel, "x").await, Err(ChannelCode::NotAllowed), "{channel}");
        if !may_subscribe {
            assert_eq!(member.subscribe(channel, None).await, Err(ChannelCode::NotAllowed), "{channel}");
        }
    }
}

async fn history_and_presence_need_a_right_of_their_own(transport: Transport) {
    let issuer = Issuer::new();
    let mut config = config(&issuer);
    config.channels.namespaces = [("room".to_owned(), Namespace { presence: true, ..Namespace::default() })].into();
    let running = serve(config, echo).await;
    for (right, may_subscribe, may_see_history, may_see_presence) in [
        ("subscribe", true, false, false),
        ("history", false, true, false),
        ("presence", false, false, true),
        ("publish", false, false, false),
    ] {
        let channels = json!({ "channels": { "room:*": [right] } });
        let client = connect(&running, transport, &issuer, &channels).await;
        let wanted = |is_allowed: bool| if is_allowed { Ok(()) } else { Err(ChannelCode::NotAllowed) };
        assert_eq!(client.subscribe("room:1", None).await.map(drop), wanted(may_subscribe), "{right}");
        let present = client.subscribe("$presence:room:1", None).await.map(drop);
        assert_eq!(present, wanted(may_see_presence), "{right}");
        let request = client.ask(|request| ChannelMessage::History {
            request,
            channel: "room:1".into(),
            after: None,
            newest: false,
            limit: 1,
        });
        match client.answer(request).await {
            ChannelMessage::Page { .. } => assert!(may_see_history, "{right}"),
            ChannelMessage::Failed { code, .. } => {
                assert!(!may_see_history && code == ChannelCode::NotAllowed as u64, "{right}");
            }
            other => panic!("{other:?}"),
        }
    }
}
