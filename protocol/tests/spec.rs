//! SPEC.md and the constants agree. Close codes: `close.rs`.

use throughline_protocol::frame::kind;
use throughline_protocol::{ChannelCode, Config, RequestCode, VERSION, limits, varint};

const SPEC: &str = include_str!("../SPEC.md");

/// The rows of the second table in the section of requests.
fn request_codes() -> Vec<Vec<String>> {
    let start = SPEC.find("\n## 11. Requests").expect("there is such a section");
    let rows =
        SPEC[start..].lines().skip_while(|line| !line.starts_with("| code |")).take_while(|line| line.starts_with('|'));
    rows.skip(2).map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// The rows of the table under the heading that begins with `heading`.
fn table(heading: &str) -> Vec<Vec<String>> {
    let start = SPEC.find(&format!("\n{heading}")).unwrap_or_else(|| panic!("SPEC.md lacks: {heading}"));
    SPEC[start..]
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[test]
fn the_table_of_frames_has_these_types() {
    let rows: Vec<(String, String)> =
        table("## 3. Frames").into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let expected = [
        (kind::WELCOME, "WELCOME"),
        (kind::CLOSE, "CLOSE"),
        (kind::STREAM, "STREAM"),
        (kind::ACK, "ACK"),
        (kind::DATAGRAM, "DATAGRAM"),
        (kind::PING, "PING"),
        (kind::PONG, "PONG"),
        (kind::END, "END"),
        (kind::RESET, "RESET"),
        (kind::STOP, "STOP"),
        (kind::STREAMS, "STREAMS"),
        (kind::TAKEN, "TAKEN"),
        (kind::GOAWAY, "GOAWAY"),
        (kind::STATE, "STATE"),
        (kind::TOKEN, "TOKEN"),
        (kind::EXPIRES, "EXPIRES"),
    ]
    .map(|(number, name)| (format!("{number:#04x}"), name.to_owned()));
    assert_eq!(rows, expected);
}

#[test]
fn the_table_of_limits_has_these_values() {
    let rows = table("## 9. Limits");
    let bytes = |what: &str, value: usize| (what.to_owned(), format!("{} bytes", thousands(value as u64)));
    let expected = [
        bytes("payload of a frame", limits::MAX_FRAME_PAYLOAD),
        bytes("data of one STREAM frame, recommended", limits::STREAM_CHUNK),
        bytes("packet (websocket, poll answer)", limits::MAX_PACKET),
        bytes("packet (POST)", limits::MAX_UPLINK_PACKET),
        bytes("datagram", limits::MAX_DATAGRAM),
        ("message".to_owned(), {
            format!("`max_message` in WELCOME, by default {} bytes", thousands(limits::DEFAULT_MAX_MESSAGE as u64))
        }),
        ("reason of CLOSE".to_owned(), format!("{} bytes of UTF-8", thousands(limits::MAX_REASON as u64))),
        bytes("token", limits::MAX_TOKEN),
        bytes("credit at the start, server to client, on stream 0", limits::INITIAL_CLIENT_CREDIT as usize),
        bytes("credit at the start on every other stream, each way", limits::INITIAL_STREAM_CREDIT as usize),
        ("streams that a server may open before STREAMS".to_owned(), limits::INITIAL_CLIENT_STREAMS.to_string()),
        ("candidates of one session".to_owned(), limits::MAX_CANDIDATES.to_string()),
        ("name of a channel".to_owned(), format!("1 to {} bytes of UTF-8", limits::MAX_CHANNEL_NAME)),
        ("key of a channel of state".to_owned(), format!("0 to {} bytes of UTF-8", limits::MAX_KEY)),
        ("`about` of a subscription".to_owned(), format!("{} bytes of UTF-8", limits::MAX_ABOUT)),
        bytes("channel message, beyond its data", limits::MAX_CHANNEL_OVERHEAD),
        bytes("request message, beyond its data", limits::MAX_REQUEST_OVERHEAD),
        ("method of a request".to_owned(), format!("1 to {} bytes of UTF-8", limits::MAX_METHOD)),
        ("requests of one side under way".to_owned(), limits::MAX_REQUESTS.to_string()),
        bytes("chunks of an answer before MORE", limits::CHUNK_WINDOW as usize),
    ];
    let rows: Vec<(String, String)> = rows.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    assert_eq!(rows, expected);
}

#[test]
fn the_table_of_request_codes_has_these_numbers_and_names() {
    let rows: Vec<(String, String)> = request_codes().into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let mut expected = RequestCode::ALL.map(|code| ((code as u32).to_string(), code.name().to_owned())).to_vec();
    expected.push((format!("{} and above", RequestCode::APPLICATION), String::new()));
    assert_eq!(rows, expected);
    assert!(RequestCode::ALL.into_iter().all(|code| RequestCode::from_number(code as u32) == Some(code)));
    assert_eq!(RequestCode::from_number(RequestCode::ALL.len() as u32), None);
}

#[test]
fn the_table_of_channel_codes_has_these_numbers_and_names() {
    let rows: Vec<(String, String)> =
        table("| code | name | |").into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let expected = ChannelCode::ALL.map(|code| ((code as u64).to_string(), code.name().to_owned()));
    assert_eq!(rows, expected);
    for (number, code) in (0..).zip(ChannelCode::ALL) {
        assert_eq!(ChannelCode::from_number(number), Some(code));
    }
    assert_eq!(ChannelCode::from_number(ChannelCode::ALL.len() as u64), None);
}

#[test]
fn numbers_in_the_words_are_these_constants() {
    let server_ack = limits::SERVER_ACK_DELAY_US / 1_000;
    let client_ack = thousands(limits::CLIENT_ACK_DELAY_US / 1_000);
    for words in [
        format!("# The Throughline protocol, version {VERSION}"),
        format!("`length` is at most {} (", thousands(limits::MAX_FRAME_PAYLOAD as u64)),
        format!("`data`, all of it, at most {} bytes", thousands(limits::MAX_DATAGRAM as u64)),
        format!("the rest, at most {} bytes", thousands(limits::MAX_REASON as u64)),
        format!("The client's, towards the server, is {} (256 KiB)", thousands(limits::INITIAL_CLIENT_CREDIT)),
        format!("The credit on each half of a new stream is {} bytes", thousands(limits::INITIAL_STREAM_CREDIT)),
        format!("and for the server with {}. A stream beyond it", limits::INITIAL_CLIENT_STREAMS),
        format!("More than {} candidates of one session", limits::MAX_CANDIDATES),
        format!("a client also when {} bytes of stream 0 have been received", thousands(limits::CLIENT_ACK_BYTES)),
        format!(
            "within {server_ack} ms of receiving stream data if it is a server, and within {client_ack} ms if it is a client"
        ),
        format!("at most {} bytes of data into one STREAM", thousands(limits::STREAM_CHUNK as u64)),
        format!("At most {} bytes of `data`, on every transport", thousands(limits::MAX_DATAGRAM as u64)),
        format!("A packet is at most {} bytes", thousands(limits::MAX_PACKET as u64)),
        format!("one packet of at most {} bytes; or `204`", thousands(limits::MAX_PACKET as u64)),
        format!("one packet of at most {} bytes. `204`", thousands(limits::MAX_UPLINK_PACKET as u64)),
        format!("The name of a channel has 1 to {} bytes of UTF-8", limits::MAX_CHANNEL_NAME),
        format!("A token is at most {} bytes", thousands(limits::MAX_TOKEN as u64)),
    ] {
        assert!(SPEC.contains(&words), "SPEC.md lacks: {words}");
    }
    assert_eq!(varint::MAX, (1 << 53) - 1);
    assert!(SPEC.contains("2^53 − 1"));
}

#[test]
fn the_scenarios_name_the_defaults_of_the_configuration() {
    let readme = include_str!("../vectors/README.md");
    let Config {
        heartbeat_ms,
        idle_timeout_ms,
        open_timeout_ms,
        max_message_bytes,
        send_buffer_bytes,
        receive_window_bytes,
        resume_window_ms,
        max_streams,
        stream_window_bytes,
        stream_buffer_bytes,
        session_stream_bytes,
    } = Config::default();
    for (name, value) in [
        ("heartbeat_ms", heartbeat_ms),
        ("idle_timeout_ms", idle_timeout_ms),
        ("open_timeout_ms", open_timeout_ms),
        ("max_message_bytes", max_message_bytes as u64),
        ("send_buffer_bytes", send_buffer_bytes),
        ("receive_window_bytes", receive_window_bytes),
        ("resume_window_ms", resume_window_ms),
        ("max_streams", max_streams),
        ("stream_window_bytes", stream_window_bytes),
        ("stream_buffer_bytes", stream_buffer_bytes),
        ("session_stream_bytes", session_stream_bytes),
    ] {
        let words = format!("`{name}` {}", thousands(value));
        assert!(readme.contains(&words), "README.md lacks: {words}");
    }
}
