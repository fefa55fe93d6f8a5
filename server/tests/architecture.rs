//! Who may know whom: fails when an arrow between the layers points the wrong way (ARCHITECTURE.md).

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A module of the crate, as its path from the root, such as `transport::sse`.
type Module = String;

/// Which modules of the crate a layer may use. A module may always use itself and what is inside it.
const RULES: &[(&str, &[&str])] = &[
    // A transport turns bytes into packets and back: it knows the seam and the opening, and no other transport.
    ("transport", &["transport"]),
    ("transport::link", &["transport::Transport"]),
    ("transport::open", &["transport::Transport", "Builder"]),
    ("transport::websocket", TRANSPORT_MAY),
    ("transport::sse", UPLINK_MAY),
    ("transport::poll", UPLINK_MAY),
    ("transport::uplink", &["transport::link", "transport::open"]),
    // Where HTTP and the transports hand connections to each other. It knows neither.
    ("socket", &[]),
    ("transport::webtransport", &[]),
    (
        "transport::webtransport_link",
        &["transport::link", "transport::open", "transport::Transport", "transport::webtransport"],
    ),
    // What keeps the channels knows nobody. Their hub knows sessions, and an engine by its trait.
    ("engine", &[]),
    (
        "hub",
        &[
            "session::Session",
            "session::Identity",
            "session::channels::ChannelHandler",
            "session::flusher",
            "Builder",
            "config",
            "engine::Change",
            "engine::Engine",
            "engine::EngineError",
            "engine::History",
            "engine::Page",
            "engine::Publication",
            "engine::Retention",
            "engine::Sink",
            "engine::State",
            "engine::Value",
        ],
    ),
    // A session does not know what carries it, except by name.
    ("session", &["transport::link", "transport::Transport", "Builder"]),
    // An application knows what everybody's application knows.
    (
        "demo",
        &[
            "Session",
            "Event",
            "Message",
            "Datagram",
            "Closed",
            "SessionId",
            "Stats",
            "Identity",
            "Transport",
            "Server",
            "Builder",
            "SendError",
            "TrySendError",
            "SendDatagramError",
            "Open",
            "Rejection",
            "Hub",
            "Channel",
            "Kind",
            "Namespace",
        ],
    ),
    // Tokens answer what the gateway and the hub ask applications.
    (
        "auth",
        &[
            "config",
            "hub::Action",
            "hub::Denied",
            "session::Identity",
            "transport::open::Open",
            "transport::open::Rejection",
            "Builder",
        ],
    ),
    // What stands beside the sessions does not know them.
    ("admission", &["client_ip", "config"]),
    ("certificates", &["config"]),
    ("client_ip", &[]),
    ("origin", &[]),
    ("listener", &["socket"]),
    ("config", &["origin"]),
    // Plain HTTP asks the gateway who comes, and reads the hub's channels. It knows no session.
    (
        "http",
        &[
            "gateway::Gateway",
            "gateway::Visitor",
            "gateway::random_below",
            "gateway::routes::cors",
            "hub",
            "socket",
            "transport::Transport",
            "transport::open::Rejection",
        ],
    ),
    // What a back end may do is what an application may: it knows the hub, and sessions by the registry.
    ("api", &["config", "gateway::Gateway", "hub", "http::page", "http::position", "session::Session"]),
    // The gateway joins the layers; only the composition root stands above it.
    ("gateway", &["admission", "client_ip", "config", "origin", "session", "socket", "transport", "Builder"]),
];

/// The two that send by POST.
const UPLINK_MAY: &[&str] =
    &["socket", "transport::link", "transport::open", "transport::uplink", "transport::Transport"];

const TRANSPORT_MAY: &[&str] = &["socket", "transport::link", "transport::open", "transport::Transport"];

#[test]
fn arrows_between_layers_point_downwards() {
    let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(sources.contains_key("transport::sse") && sources.contains_key("session::driver"), "{:?}", sources.keys());
    let wrong = wrong_arrows(&sources);
    assert!(wrong.is_empty(), "arrows that point the wrong way:\n{}", wrong.join("\n"));
}

/// The test above can fail: each of these is an arrow that must not be.
#[test]
fn wrong_arrows_are_found() {
    for (module, source) in [
        ("transport::sse", "use super::poll::Held;"),
        ("transport::poll", "use crate::session::Session;"),
        ("transport::websocket", "use crate::gateway::Gateway;"),
        ("transport::webtransport::table", "use crate::transport::link::Link;"),
        ("session::driver", "use crate::transport::{link::Link, websocket};"),
        ("session::handle", "use crate::gateway::registry::Registry;"),
        ("session::channels", "use crate::hub::Hub;"),
        ("hub::topic", "use crate::engine::memory::MemoryEngine;"),
        ("engine::memory", "use crate::session::Session;"),
        ("demo::stage", "use crate::session::handle::Shared;"),
        ("demo", "use crate::transport::link::Link;"),
        ("admission", "fn f() { crate::gateway::f() }"),
        ("gateway::routes", "use crate::server::Server;"),
        ("gateway", "use crate::http::router;"),
        ("http::events", "use crate::session::Session;"),
        ("http", "use crate::api::Api;"),
    ] {
        let sources = BTreeMap::from([(module.to_owned(), source.to_owned())]);
        assert_eq!(wrong_arrows(&sources).len(), 1, "{module}: {source}");
    }
    let fine = "use super::{Transport, link::Link}; use super::open::SUBPROTOCOL;";
    assert!(wrong_arrows(&BTreeMap::from([("transport::websocket".to_owned(), fine.to_owned())])).is_empty());
}

fn wrong_arrows(sources: &BTreeMap<Module, String>) -> Vec<String> {
    let mut wrong = Vec::new();
    // Tests may build what they need of any layer.
    for (module, source) in sources.iter().filter(|(module, _)| !module.split("::").any(|part| part == "tests")) {
        let Some((layer, allowed)) = rule_for(module) else { continue };
        for used in uses(module, source) {
            let inside = is_within(&used, layer) && layer != "transport";
            if !inside && !is_within(&used, module) && !allowed.iter().any(|allowed| is_within(&used, allowed)) {
                wrong.push(format!("{module} uses {used}"));
            }
        }
    }
    wrong
}

#[test]
fn every_rule_is_about_something() {
    let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    for (layer, _) in RULES {
        assert!(sources.keys().any(|module| is_within(module, layer)), "there is no {layer} any more");
    }
}

#[test]
fn the_protocol_knows_nothing() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/Cargo.toml")).unwrap();
    let dependencies = manifest.split("[dependencies]").nth(1).expect("it has dependencies");
    let dependencies = dependencies.split("\n[").next().unwrap_or_default();
    for line in dependencies.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
        assert!(matches!(name, "bytes" | "bytestring" | "thiserror" | "base64"), "the protocol crate uses {name}");
    }
    for (module, source) in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/src")) {
        for forbidden in
            ["std::net", "std::fs", "std::thread", "Instant", "SystemTime", "std::io", "tokio", "getrandom"]
        {
            assert!(!code(&source).contains(forbidden), "{module}: no IO, clock or randomness: {forbidden}");
        }
    }
}

/// Wrong arrows in made-up sources are found, however they are written.
#[test]
fn the_scanner_sees_every_kind_of_path() {
    let found = |module: &str, source: &str| uses(&module.to_owned(), source);
    assert_eq!(found("transport::sse", "use super::poll::Held;"), ["transport::poll::Held"]);
    assert_eq!(
        found("transport::sse", "use crate::session::{Session, handle::now};"),
        ["session::Session", "session::handle::now"]
    );
    assert_eq!(
        found("a::b", "use super::{\n    c::{self, D}, // a comment: crate::e\n    f as g,\n};"),
        ["a::c", "a::c::D", "a::f"]
    );
    assert_eq!(found("a::b", "fn f() { crate::gateway::go(super::super::x::Y); }"), ["gateway::go", "x::Y"]);
    assert_eq!(found("a::b", "pub(crate) use self::c::D; pub(super) fn f() {} /// crate::no\n"), ["a::b::c::D"]);
    assert!(found("a", "use std::sync::Arc; use bytes::Bytes;").is_empty());
    assert_eq!(rule_for("transport::webtransport::table").map(|(layer, _)| layer), Some("transport::webtransport"));
}

fn rule_for(module: &str) -> Option<(&'static str, &'static [&'static str])> {
    let mut rules: Vec<_> = RULES.iter().filter(|(layer, _)| is_within(module, layer)).collect();
    rules.sort_by_key(|(layer, _)| layer.len());
    rules.last().map(|(layer, allowed)| (*layer, *allowed))
}

fn is_within(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The sources below a folder, by module.
fn sources(folder: &Path) -> BTreeMap<Module, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(folder).unwrap().with_extension("");
                let parts: Vec<_> = relative.iter().map(|part| part.to_str().unwrap()).collect();
                let parts = if parts.last() == Some(&"mod") { &parts[..parts.len() - 1] } else { &parts[..] };
                found.insert(parts.join("::"), fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

/// The paths within the crate that a module uses, from the crate's root. What is tested in it does not count.
fn uses(module: &Module, source: &str) -> Vec<String> {
    let source = code(source);
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let mut found = Vec::new();
    let mut rest = source;
    while let Some(at) = ["crate::", "super::", "self::"].iter().filter_map(|start| rest.find(start)).min() {
        let before = rest[..at].chars().next_back();
        let is_start = !before.is_some_and(|before| before.is_alphanumeric() || before == '_' || before == ':');
        let (tree, len) = tree(&rest[at..]);
        if is_start {
            for path in tree {
                found.push(absolute(module, &path));
            }
        }
        rest = &rest[at + len..];
    }
    found
}

/// The source without comments and strings.
fn code(source: &str) -> String {
    let mut code = String::new();
    for line in source.lines() {
        let line = line.split("//").next().unwrap_or_default();
        // Every other piece between quotes is a string; escaped quotes only shift what is left out of one line.
        code.extend(line.split('"').step_by(2));
        code.push('\n');
    }
    code
}

/// The paths of a use tree that the text begins with, and how much of it they take.
fn tree(text: &str) -> (Vec<String>, usize) {
    let mut prefix = String::new();
    let mut at = 0;
    loop {
        let name: String = text[at..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        at += name.len();
        prefix += &name;
        if !text[at..].starts_with("::") {
            return (vec![prefix], at.max(1));
        }
        at += 2;
        if text[at..].starts_with('{') {
            let (branches, len) = branches(&text[at..]);
            let paths = branches
                .into_iter()
                .map(|branch| if branch == "self" { prefix.clone() } else { format!("{prefix}::{branch}") });
            return (paths.collect(), at + len);
        }
        prefix += "::";
    }
}

/// The branches between braces, and how much of the text they take.
fn branches(text: &str) -> (Vec<String>, usize) {
    let mut found = Vec::new();
    let mut at = 1;
    loop {
        let next = text[at..].find(|c: char| !c.is_whitespace() && c != ',').expect("braces are closed");
        at += next;
        if text[at..].starts_with('}') {
            return (found, at + 1);
        }
        let (paths, len) = tree(&text[at..]);
        found.extend(paths);
        at += len;
        // `as name`
        at += text[at..].find([',', '}']).expect("braces are closed");
    }
}

fn absolute(module: &str, path: &str) -> String {
    let mut base: Vec<&str> = module.split("::").collect();
    let mut parts: Vec<&str> = path.split("::").collect();
    match parts.first() {
        Some(&"crate") => {
            base.clear();
            parts.remove(0);
        }
        Some(&"self") => {
            parts.remove(0);
        }
        _ => {}
    }
    while parts.first() == Some(&"super") {
        base.pop();
        parts.remove(0);
    }
    base.extend(parts);
    base.join("::")
}
