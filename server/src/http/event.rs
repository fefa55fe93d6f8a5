//! What is said in an event stream (HTML Living Standard, section 9.2).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::json;
use throughline_protocol::Message;
use throughline_protocol::channel::Position;

use super::position;
use crate::hub::{Item, ValueItem};

/// Says that the stream is alive, to whatever is in between.
pub(super) const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// What a stream begins with: how long to wait before a reconnect, and where it begins, so that a client that is cut off before the first publication misses none.
pub(super) fn beginning(retry_ms: u64, begins: Option<Position>) -> Bytes {
    let id = begins.map(|begins| format!("id: {}\n", position::format(begins))).unwrap_or_default();
    format!("retry: {retry_ms}\n{id}\n").into()
}

/// What comes next in a log.
pub(super) fn item(item: &Item) -> Bytes {
    match item {
        Item::Publication(epoch, published) => {
            publication(Position { epoch: *epoch, offset: published.offset }, &published.message)
        }
        Item::Skipped(to) => skipped(*to),
    }
}

/// What comes next in a channel of state.
pub(super) fn value_item(item: &ValueItem) -> Bytes {
    match item {
        ValueItem::Snapshot(at) => whole("snapshot", *at),
        ValueItem::Change(epoch, change) => {
            value(Position { epoch: *epoch, offset: change.offset }, &change.key, change.message.as_ref())
        }
        ValueItem::Settled(at) => whole("settled", *at),
    }
}

/// A publication. Text is the data as it is: the event has no type, so that `onmessage` gets it. Where that is not possible it is `text`, in JSON.
fn publication(stands: Position, message: &Message) -> Bytes {
    let id = position::format(stands);
    match message {
        // A carriage return would end the line, and come out as a line feed.
        Message::Text(text) if text.contains('\r') => event(Some("text"), &id, [&*json!(&**text).to_string()]),
        Message::Text(text) => event(None, &id, text.split('\n')),
        Message::Binary(bytes) => event(Some("binary"), &id, [&*BASE64_STANDARD.encode(bytes)]),
    }
}

/// What was published before this position is lost to the reader.
fn skipped(to: Position) -> Bytes {
    let data = json!({ "recovered": false, "epoch": to.epoch, "offset": to.offset }).to_string();
    event(Some("skipped"), &position::format(to), [&*data])
}

fn whole(kind: &str, at: Position) -> Bytes {
    let data = json!({ "epoch": at.epoch, "offset": at.offset }).to_string();
    event(Some(kind), &position::format(at), [&*data])
}

/// A change of a channel of state: the value of a key, or that it was removed.
fn value(stands: Position, key: &str, value: Option<&Message>) -> Bytes {
    let mut data = json!({ "key": key, "offset": stands.offset });
    match value {
        None => data["removed"] = json!(true),
        Some(Message::Text(text)) => data["text"] = json!(&**text),
        Some(Message::Binary(bytes)) => data["base64"] = json!(BASE64_STANDARD.encode(bytes)),
    }
    event(Some("value"), &position::format(stands), [&*data.to_string()])
}

fn event<'a>(kind: Option<&str>, id: &str, lines: impl IntoIterator<Item = &'a str>) -> Bytes {
    let mut event = format!("id: {id}\n");
    if let Some(kind) = kind {
        event.push_str("event: ");
        event.push_str(kind);
        event.push('\n');
    }
    for line in lines {
        event.push_str("data: ");
        event.push_str(line);
        event.push('\n');
    }
    event.push('\n');
    event.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Position = Position { epoch: 7, offset: 12 };

    fn said(message: impl Into<Message>) -> String {
        String::from_utf8(publication(HERE, &message.into()).to_vec()).unwrap()
    }

    #[test]
    fn text_is_the_data_as_it_is() {
        assert_eq!(said("hello"), "id: 7-12\ndata: hello\n\n");
        assert_eq!(said("a\n b\n\n: c\n"), "id: 7-12\ndata: a\ndata:  b\ndata: \ndata: : c\ndata: \n\n");
        assert_eq!(said(""), "id: 7-12\ndata: \n\n");
        assert_eq!(said("\u{feff}ü\0"), "id: 7-12\ndata: \u{feff}ü\0\n\n");
    }

    #[test]
    fn what_lines_cannot_carry_is_json_or_base64() {
        assert_eq!(said("a\rb\r\n\"c\""), "id: 7-12\nevent: text\ndata: \"a\\rb\\r\\n\\\"c\\\"\"\n\n");
        assert_eq!(said(vec![0, 255]), "id: 7-12\nevent: binary\ndata: AP8=\n\n");
    }

    #[test]
    fn a_stream_begins_with_its_position_and_says_what_is_lost() {
        assert_eq!(beginning(1_500, Some(HERE)), "retry: 1500\nid: 7-12\n\n");
        assert_eq!(beginning(1_500, None), "retry: 1500\n\n");
        let expected = "id: 7-12\nevent: skipped\ndata: {\"epoch\":7,\"offset\":12,\"recovered\":false}\n\n";
        assert_eq!(skipped(HERE), expected);
    }

    #[test]
    fn values_are_json() {
        let said =
            |value: Option<Message>| String::from_utf8(super::value(HERE, "a\n", value.as_ref()).to_vec()).unwrap();
        let begins = "id: 7-12\nevent: value\ndata: {\"";
        assert_eq!(said(Some("x".into())), format!("{begins}key\":\"a\\n\",\"offset\":12,\"text\":\"x\"}}\n\n"));
        assert_eq!(
            said(Some(vec![255].into())),
            format!("{begins}base64\":\"/w==\",\"key\":\"a\\n\",\"offset\":12}}\n\n")
        );
        assert_eq!(said(None), format!("{begins}key\":\"a\\n\",\"offset\":12,\"removed\":true}}\n\n"));
        for (kind, item) in [("snapshot", ValueItem::Snapshot(HERE)), ("settled", ValueItem::Settled(HERE))] {
            let expected = format!("id: 7-12\nevent: {kind}\ndata: {{\"epoch\":7,\"offset\":12}}\n\n");
            assert_eq!(value_item(&item), expected);
        }
    }
}
