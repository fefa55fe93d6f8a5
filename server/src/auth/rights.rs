//! What a token allows with which channels.

use serde_json::Value;
use throughline_protocol::channel;

use crate::hub::Action;

/// What a token can allow, by the names that it uses.
const ACTIONS: [&str; 4] = ["subscribe", "publish", "history", "presence"];

/// Whether the claim allows it. One that [`check`] has refused allows nothing.
pub(super) fn allows(claim: &Value, action: Action<'_>) -> bool {
    let (channel, wanted) = match action {
        Action::Subscribe { channel } => (channel, "subscribe"),
        Action::Publish { channel } => (channel, "publish"),
        Action::History { channel } => (channel, "history"),
        Action::Presence { channel } => (channel, "presence"),
    };
    match claim {
        Value::Array(patterns) => {
            wanted == "subscribe" && patterns.iter().filter_map(Value::as_str).any(|pattern| matches(pattern, channel))
        }
        Value::Object(patterns) => patterns
            .iter()
            .any(|(pattern, actions)| matches(pattern, channel) && named(actions).any(|action| action == Some(wanted))),
        _ => false,
    }
}

/// Says what is wrong with a claim: a right that is misspelt should not be missed in silence.
pub(super) fn check(claim: &Value) -> Result<(), String> {
    match claim {
        Value::Null => Ok(()),
        Value::Array(patterns) => patterns.iter().try_for_each(|pattern| match pattern {
            Value::String(pattern) => check_pattern(pattern),
            _ => Err("a list has names of channels, or patterns".to_owned()),
        }),
        Value::Object(patterns) => patterns.iter().try_for_each(|(pattern, actions)| {
            check_pattern(pattern)?;
            let wrong = named(actions).find(|action| !action.is_some_and(|action| ACTIONS.contains(&action)));
            match wrong {
                Some(_) => Err(format!("of {pattern:?} there are {} to allow, as a list", ACTIONS.join(", "))),
                None => Ok(()),
            }
        }),
        _ => Err("it is a list of channels, or a map from channels to actions".to_owned()),
    }
}

fn check_pattern(pattern: &str) -> Result<(), String> {
    let start = pattern.strip_suffix('*').unwrap_or(pattern);
    if start.contains('*') {
        return Err(format!("{pattern:?} has a * that is not at its end"));
    }
    if start.starts_with('$') || !start.is_empty() && !channel::is_name(start) || pattern.is_empty() {
        return Err(format!("{pattern:?} is no name of a channel, nor the beginning of one"));
    }
    Ok(())
}

/// A `*` at the end stands for whatever follows, and `*` for every channel. Those of the server, which begin with `$`, are never meant.
fn matches(pattern: &str, channel: &str) -> bool {
    match pattern.strip_suffix('*') {
        _ if channel.starts_with('$') => false,
        Some(start) => channel.len() > start.len() && channel.starts_with(start),
        None => pattern == channel,
    }
}

/// The actions of a pattern: one, or a list.
fn named(actions: &Value) -> impl Iterator<Item = Option<&str>> {
    let (list, one) = match actions {
        Value::Array(list) => (&list[..], None),
        one => (&[][..], Some(one)),
    };
    list.iter().chain(one).map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn subscribe(claim: &Value, channel: &str) -> bool {
        allows(claim, Action::Subscribe { channel })
    }

    fn presence(claim: &Value, channel: &str) -> bool {
        allows(claim, Action::Presence { channel })
    }

    #[test]
    fn a_list_lets_subscribe_and_nothing_else() {
        let claim = json!(["news", "room:*"]);
        assert_eq!(check(&claim), Ok(()));
        for (channel, allowed) in [
            ("news", true),
            ("news2", false),
            ("new", false),
            ("room:1", true),
            ("room:1:typing", true),
            ("room:", false),
            ("rooms:1", false),
            ("$presence:news", false),
            ("", false),
        ] {
            assert_eq!(subscribe(&claim, channel), allowed, "{channel}");
            for other in [Action::Publish { channel }, Action::History { channel }, Action::Presence { channel }] {
                assert!(!allows(&claim, other), "{channel}");
            }
        }
    }

    #[test]
    fn a_map_says_what_may_be_done() {
        let claim = json!({ "a": ["subscribe", "presence"], "b:*": "publish", "b:1": ["subscribe"], "c": [] });
        assert_eq!(check(&claim), Ok(()));
        assert!(subscribe(&claim, "a") && presence(&claim, "a"));
        assert!(!allows(&claim, Action::Publish { channel: "a" }) && !allows(&claim, Action::History { channel: "a" }));
        assert!(allows(&claim, Action::Publish { channel: "b:1" }) && subscribe(&claim, "b:1"));
        assert!(allows(&claim, Action::Publish { channel: "b:2" }) && !subscribe(&claim, "b:2"));
        assert!(!presence(&claim, "b:1") && !subscribe(&claim, "c") && !subscribe(&claim, "d"));
    }

    #[test]
    fn a_star_alone_is_every_channel_but_the_servers_own() {
        let claim = json!({ "*": ["subscribe", "publish", "history", "presence"] });
        assert_eq!(check(&claim), Ok(()));
        assert!(subscribe(&claim, "a") && presence(&claim, "a") && allows(&claim, Action::History { channel: "a" }));
        assert!(!subscribe(&claim, "$other") && !subscribe(&claim, "$presence:a") && !presence(&claim, "$presence:a"));
        assert!(!allows(&claim, Action::Publish { channel: "$presence:a" }));
    }

    #[test]
    fn what_cannot_be_understood_is_said_and_allows_nothing() {
        for (claim, reason) in [
            (json!("news"), "a list of channels, or a map"),
            (json!([1]), "names of channels"),
            (json!(["a*b"]), "not at its end"),
            (json!(["a**"]), "not at its end"),
            (json!([""]), "no name of a channel"),
            (json!(["$presence:*"]), "no name of a channel"),
            (json!(["a\nb"]), "no name of a channel"),
            (json!(["a".repeat(256)]), "no name of a channel"),
            (json!({ "a": ["subscribe", "pubish"] }), "there are subscribe, publish, history, presence to allow"),
            (json!({ "a": true }), "to allow, as a list"),
            (json!({ "a": [["subscribe"]] }), "to allow, as a list"),
        ] {
            let error = check(&claim).unwrap_err();
            assert!(error.contains(reason), "{claim}: {error}");
        }
        assert!(!subscribe(&json!("news"), "news") && !subscribe(&json!({ "a": true }), "a"));
        assert_eq!(check(&Value::Null), Ok(()));
        assert_eq!(check(&json!(["a".repeat(255)])), Ok(()));
    }
}
