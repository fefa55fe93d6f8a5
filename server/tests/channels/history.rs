//! What a client asks a history for, without a subscription.

use throughline::{Position, Transport};
use throughline_protocol::{ChannelCode, ChannelMessage};

use crate::client::{Channels, failure};
use crate::common::{Running, start};
use crate::{config, on_every_transport};

on_every_transport! {
    a_history_is_read_to_its_end_in_pages,
}

/// What PAGE says: complete, more, the newest, and the offsets in it.
type Page = (bool, bool, Position, Vec<u64>);

async fn page(
    client: &Channels,
    channel: &str,
    after: Option<Position>,
    newest: bool,
    limit: u64,
) -> Result<Page, ChannelCode> {
    let channel = channel.into();
    let request = client.ask(|request| ChannelMessage::History { request, channel, after, newest, limit });
    match client.answer(request).await {
        ChannelMessage::Page { complete, more, position, publications, .. } => {
            let fine = publications.iter().all(|(offset, data)| data.as_bytes()[..8] == offset.to_be_bytes());
            assert!(fine, "each has its own data");
            Ok((complete, more, position, publications.into_iter().map(|(offset, _)| offset).collect()))
        }
        other => Err(failure(other)),
    }
}

async fn a_history_is_read_to_its_end_in_pages(transport: Transport) {
    let mut config = config();
    config.channels.namespaces.get_mut("room").unwrap().history_count = 60;
    let Running { server, place, .. } = &start(config, |builder| builder).await;
    let room = server.hub().channel("room:a");
    let mut newest = Position::default();
    for offset in 1..=100_u64 {
        let mut data = vec![0; 3_000];
        data[..8].copy_from_slice(&offset.to_be_bytes());
        newest = room.publish(data).await.unwrap();
    }
    let client = Channels::connect(place, transport).await;
    let (mut after, mut read, mut pages) = (None, Vec::new(), 0);
    loop {
        let (complete, more, position, offsets) = page(&client, "room:a", after, false, 1_000).await.unwrap();
        assert_eq!((position, complete), (newest, pages > 0), "the first forty are gone");
        after = offsets.last().map(|last| Position { offset: *last, ..newest });
        read.extend(offsets);
        pages += 1;
        if !more {
            break;
        }
    }
    assert!(read.into_iter().eq(41..=100) && pages == 3, "{pages} pages");
    let last = page(&client, "room:a", None, true, 5).await.unwrap();
    assert_eq!(last, (false, false, newest, (96..=100).collect()));
    assert_eq!(page(&client, "room:a", Some(newest), true, 5).await, Ok((true, false, newest, vec![])));
}

#[tokio::test]
async fn only_who_may_sees_it() {
    let mut config = config();
    let mut closed = config.channels.namespaces["room"].clone();
    closed.history = false;
    config.channels.namespaces.insert("closed".into(), closed);
    let Running { place, .. } = &start(config, |builder| builder).await;
    let client = Channels::connect(place, Transport::WebSocket).await;
    assert_eq!(page(&client, "closed:a", None, false, 1).await, Err(ChannelCode::NotAllowed));
    assert_eq!(page(&client, "", None, false, 1).await, Err(ChannelCode::BadChannel));
    let nothing = (true, false, Position::default(), vec![]);
    assert_eq!(page(&client, "room:nothing", None, false, 1).await, Ok(nothing));
}
