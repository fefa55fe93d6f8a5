//! What a scenario cannot show of the machine: memory, and what its owner must be able to count on.

use bytes::Bytes;
use throughline_protocol::{
    Close, Code, Config, Event, Frame, Machine, Message, ResumeKey, SessionId, VERSION, Welcome,
};

fn server(config: Config) -> Machine {
    let mut machine = Machine::server(config, SessionId([1; 16]), ResumeKey([2; 16]));
    machine.link_opened(0, None, None);
    while machine.poll_transmit(0, 65_536).is_some() {}
    machine.handle_frame(0, Frame::Ping { id: 1 });
    while machine.poll_transmit(0, 65_536).is_some() {}
    assert_eq!(machine.poll_event(), Some(Event::Opened));
    machine
}

#[test]
fn a_waiting_datagram_does_not_keep_its_packet_in_memory() {
    // The payload was queued as a slice: 256 of them could hold 256 packets of a quarter of a megabyte.
    let mut machine = server(Config::default());
    let packet = Bytes::from(vec![7; 65_536]);
    machine.handle_frame(0, Frame::Datagram(packet.slice(..3)));
    machine.handle_datagram(0, packet.slice(..3));
    assert!(packet.is_unique());
    assert_eq!(machine.poll_event(), Some(Event::Datagram(Bytes::from_static(&[7, 7, 7]))));
}

#[test]
fn a_session_is_established_by_its_clients_first_frame_and_told_of_once() {
    // A second link told the application of a new session.
    let mut machine = server(Config::default());
    assert!(machine.is_established());
    machine.link_opened(1, None, Some(0));
    machine.handle_frame(1, Frame::Ping { id: 2 });
    assert_eq!(machine.poll_event(), None);

    let mut machine = Machine::server(Config::default(), SessionId([1; 16]), ResumeKey([2; 16]));
    machine.link_opened(0, None, None);
    machine.handle_frame(0, Frame::Close(Close::application(0, "")));
    assert!(!machine.is_established());
}

fn welcome(session: u8, resumed: bool, received: u64) -> Frame {
    Frame::Welcome(Welcome {
        version: VERSION,
        session: SessionId([session; 16]),
        key: ResumeKey([2; 16]),
        resumed,
        link: 1,
        time_us: 0,
        heartbeat_ms: 10_000,
        idle_ms: 30_000,
        max_message: 1_000,
        received,
        limit: 262_144,
    })
}

#[test]
fn a_client_does_not_go_on_in_a_session_that_is_not_its_own() {
    // It took the offsets of the old session into the new one: its first bytes there were a gap.
    let mut machine = Machine::client(Config::default());
    machine.link_opened(0, None, None);
    machine.handle_frame(0, welcome(1, false, 0));
    assert_eq!(machine.poll_event(), Some(Event::Opened));
    machine.send(Message::from("lost")).expect("there is room");
    while machine.poll_transmit(0, 65_536).is_some() {}

    machine.link_opened(1, None, None);
    machine.handle_frame(1, welcome(3, false, 0));
    let packet = machine.poll_transmit(1, 65_536).expect("it says so").into_bytes();
    assert_eq!(packet[..3], [2, packet.len() as u8 - 2, Code::UnknownSession as u8], "CLOSE and nothing else");
    assert_eq!(machine.identity(), Some((SessionId([1; 16]), ResumeKey([2; 16]))));
    let Some(Event::Closed(close)) = machine.poll_event() else { panic!("the application is told") };
    assert!(close.code == Code::UnknownSession as u32 && close.retry());
}
