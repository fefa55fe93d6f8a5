//! Sessions, their streams and datagrams, and their ends.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::{datagram::DatagramError, stream::StreamError};
use super::*;

async fn exact(recv: &mut quinn::RecvStream, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    soon(recv.read_exact(&mut got)).await.expect("bytes");
    assert_eq!(got, expected);
}

/// Opens a stream of a session, with `payload` in the same write as the header.
async fn open_bi(client: &Client, session: u64, payload: &[u8]) -> (quinn::SendStream, quinn::RecvStream) {
    let (mut send, recv) = soon(client.conn.open_bi()).await.expect("a stream");
    send.write_all(&[&integer(0x41)[..], &integer(session), payload].concat()).await.expect("written");
    (send, recv)
}

async fn open_uni(client: &Client, session: u64, payload: &[u8]) -> quinn::SendStream {
    let mut send = soon(client.conn.open_uni()).await.expect("a stream");
    send.write_all(&[&integer(0x54)[..], &integer(session), payload].concat()).await.expect("written");
    send
}

#[tokio::test]
async fn the_settings_are_those_that_browsers_need() {
    let server = Server::start(Limits::default());
    let client = Client::connect(&server).await;
    let mut control = soon(client.conn.accept_uni()).await.expect("a control stream");
    let mut bytes = vec![0; 3];
    soon(control.read_exact(&mut bytes)).await.expect("the frame's header");
    let len = usize::from(bytes[2]);
    bytes.resize(3 + len, 0);
    soon(control.read_exact(&mut bytes[3..])).await.expect("the frame's payload");
    let expected = [(0x06, 16_384), (0x08, 1), (0x2b60_3742, 1), (0x33, 1), (0x2b60_3743, 16), (0xc671_706a, 16)];
    assert_eq!(settings::parse(&bytes), expected);
}

#[tokio::test]
async fn two_sessions_and_a_request_share_a_connection() {
    let mut server = Server::start(Limits::default());
    let client = Client::connect(&server).await;
    assert_eq!(client.get("/get").await, (200, b"ok".to_vec()));
    let (one, _send_one, _recv_one) = client.open(&mut server).await;
    let (two, _send_two, _recv_two) = client.open(&mut server).await;
    for (session, id) in [(&two, 8), (&one, 4)] {
        assert_eq!(session.id(), id);
        session.send_datagram(b"down").expect("sent");
        let datagram = soon(client.conn.read_datagram()).await.expect("a datagram");
        assert_eq!(datagram, [&integer(id / 4)[..], b"down"].concat());
        client.conn.send_datagram([&integer(id / 4)[..], b"up"].concat().into()).expect("sent");
        assert_eq!(soon(session.recv_datagram()).await.expect("a datagram"), &b"up"[..]);
    }
    assert_eq!(client.get("/get").await, (200, b"ok".to_vec()));
}

#[tokio::test]
async fn the_server_opens_the_first_stream() {
    let mut server = Server::start(Limits::default());
    let client = Client::connect(&server).await;
    let (session, _send, _recv) = client.open(&mut server).await;
    let (mut send, mut recv) = soon(session.open_bi()).await.expect("a stream");
    let (mut their_send, mut their_recv) = soon(client.conn.accept_bi()).await.expect("a stream");
    exact(&mut their_recv, &[0x40, 0x41, 0x00]).await;
    let mut chunk = Bytes::from_static(b"welcome");
    soon(std::future::poll_fn(|cx| send.poll_write_all(cx, &mut chunk))).await.expect("written");
    exact(&mut their_recv, b"welcome").await;
    their_send.write_all(b"hello").await.expect("written");
    their_send.finish().expect("open");
    let mut got = String::new();
    soon(recv.read_to_string(&mut got)).await.expect("read");
    assert_eq!(got, "hello");
    send.shutdown().await.expect("finished");
    assert!(soon(their_recv.read_chunk(9, true)).await.expect("an end").is_none());
    soon(send.stopped()).await.expect("acknowledged");
}

/// Firefox sends the header and the payload of a unidirectional stream in one STREAM frame, and nothing after it.
#[tokio::test]
async fn streams_arrive_in_order_with_the_payload_that_came_with_the_header() {
    let mut server = Server::start(Limits::default());
    let client = Client::connect(&server).await;
    let (session, _send, _recv) = client.open(&mut server).await;
    let mut keep = Vec::new();
    for n in 0..5 {
        keep.push(open_uni(&client, 0, &[n]).await);
        let mut recv = soon(session.accept_uni()).await.expect("a stream");
        assert_eq!(soon(recv.read_u8()).await.expect("a byte"), n);
    }
    for n in 0..5 {
        let (_send, mut their_recv) = open_bi(&client, 0, &[n]).await;
        let (mut send, mut recv) = soon(session.accept_bi()).await.expect("a stream");
        assert_eq!(soon(recv.read_u8()).await.expect("a byte"), n);
        send.write_all(b"back").await.expect("written");
        exact(&mut their_recv, b"back").await;
    }
}

#[tokio::test]
async fn stream_codes_are_mapped_both_ways_and_a_drop_is_a_reset() {
    let mut server = Server::start(Limits::default());
    let client = Client::connect(&server).await;
    let (session, _send, _recv) = client.open(&mut server).await;
    let (their_send, mut their_recv) = open_bi(&client, 0, b"x").await;
    let (mut send, mut recv) = soon(session.accept_bi()).await.expect("a stream");
    send.reset(77);
    recv.stop(78);
    assert_eq!(reset(&mut their_recv).await, codes::to_http3(77));
    assert_eq!(stop(&their_send).await, codes::to_http3(78));

    let (their_send, mut their_recv) = open_bi(&client, 0, b"x").await;
    drop(soon(session.accept_bi()).await.expect("a stream"));
    assert_eq!(reset(&mut their_recv).await, codes::to_http3(0));
    assert_eq!(stop(&their_send).await, codes::to_http3(0));

    let (mut their_send, mut their_recv) = open_bi(&client, 0, b"x").await;
    let (mut send, mut recv) = soon(session.accept_bi()).await.expect("a stream");
    their_send.reset(codes::to_http3(55)).expect("open");
    their_recv.stop(codes::to_http3(56)).expect("open");
    let mut read = vec![];
    let error = soon(recv.read_to_end(&mut read)).await.expect_err("reset");
    let error = error.get_ref().and_then(|error| error.downcast_ref::<StreamError>());
    assert_eq!(error, Some(&StreamError::Reset(55)));
    assert_eq!(soon(send.stopped()).await, Err(StreamError::Stopped(56)));
    let mut chunk = Bytes::from_static(b"more");
    let error = soon(std::future::poll_fn(|cx| send.poll_write_all(cx, &mut chunk))).await;
    assert_eq!(error, Err(StreamError::Stopped(56)));
}

#[tokio::test]
async fn the_server_closes_with_a_code_and_a_reason() {
    let mut server = Server::start(Limits::default());
    let client = Client::connect(&server).await;
    let (mut session, _send, mut recv) = client.open(&mut server).await;
    let sender = session.datagram_sender();
    soon(session.close(4001, "späť")).await;
    let (kind, payload) = read_frame(&mut recv).await;
    assert_eq!((kind, &payload[..]), (0x00, &capsule::close(4001, "späť")[..]));
    assert!(soon(recv.read_chunk(9, true)).await.expect("an end").is_none());
    let closed = soon(session.closed()).await;
    assert_eq!((closed.code, closed.how), (4001, How::Server));
    assert_eq!(sender.send(b"late"), Err(DatagramError::Ended));
    assert!(soon(session.accept_bi()).await.is_none());
    assert_eq!(client.get("/get").await.0, 200, "the connection goes on");
}

#[tokio::test]
async fn the_clients_close_is_noticed_in_each_of_its_forms() {
    let mut server = Server::start(Limits::default());
    let client = Client::connect(&server).await;

    let (mut session, mut send, mut recv) = client.open(&mut server).await;
    send.write_all(&frame(0x00, &capsule::close(7, "enough"))).await.expect("written");
    let expected = Closed { code: 7, reason: "enough".into(), how: How::Client };
    assert_eq!(soon(session.closed()).await, expected);
    assert!(soon(recv.read_chunk(9, true)).await.expect("an end").is_none(), "the server ends its side as well");
    let (_late, mut late) = open_bi(&client, session.id(), b"late").await;
    assert_eq!(reset(&mut late).await, codes::SESSION_GONE);

    let (mut session, mut send, _recv) = client.open(&mut server).await;
    send.finish().expect("open");
    assert_eq!(soon(session.closed()).await.how, How::Finished);

    let (mut session, mut send, _recv) = client.open(&mut server).await;
    send.reset(codes::H3_REQUEST_CANCELLED).expect("open");
    assert_eq!(soon(session.closed()).await.how, How::Reset(0x10c));

    let (mut session, _send, _recv) = client.open(&mut server).await;
    client.conn.close(VarInt::from_u32(0x100), b"");
    let how = soon(session.closed()).await.how;
    let How::ConnectionLost(Some(quinn::ConnectionError::ApplicationClosed(close))) = how else { panic!("{how:?}") };
    assert_eq!(close.error_code, codes::H3_NO_ERROR);
}

#[tokio::test]
async fn a_dropped_session_is_reset_and_the_others_go_on() {
    let mut server = Server::start(Limits::default());
    let client = Client::connect(&server).await;
    let (one, send, mut recv) = client.open(&mut server).await;
    let (two, _send, _recv) = client.open(&mut server).await;
    let (_waiting, mut waiting) = open_bi(&client, one.id(), b"never accepted").await;
    client.conn.send_datagram(Bytes::from_static(&[0x01, 9])).expect("sent");
    soon(two.recv_datagram()).await.expect("so the stream has come, too");
    drop(one);
    assert_eq!(reset(&mut recv).await, codes::H3_REQUEST_CANCELLED);
    assert_eq!(stop(&send).await, codes::H3_NO_ERROR);
    assert_eq!(reset(&mut waiting).await, codes::SESSION_GONE);
    two.send_datagram(b"alive").expect("sent");
    soon(client.conn.read_datagram()).await.expect("a datagram");
}

#[tokio::test]
async fn a_rejection_has_its_status_headers_and_body() {
    let server = Server::start(Limits::default());
    let client = Client::connect(&server).await;
    let (_send, mut recv) = client.request(&connect("/reject")).await;
    assert_eq!(status(&mut recv).await, 403);
    assert_eq!(body(&mut recv).await, b"not you");
    let (_send, mut recv) = client.request(&connect("/nowhere")).await;
    assert_eq!(status(&mut recv).await, 404);
}

#[tokio::test]
async fn a_session_that_nobody_took_is_closed() {
    let server = Server::start(Limits::default());
    let client = Client::connect(&server).await;
    let (_send, mut recv) = client.request(&connect("/ignore")).await;
    assert_eq!(status(&mut recv).await, 200);
    let (_, payload) = read_frame(&mut recv).await;
    assert_eq!(payload, capsule::close(0, ""));
    assert!(soon(recv.read_chunk(9, true)).await.expect("an end").is_none());
}

#[tokio::test]
async fn streams_that_come_before_their_session_wait_for_it_up_to_a_number() {
    let mut server = Server::start(Limits { max_early_streams: 2, ..Limits::default() });
    let client = Client::connect(&server).await;
    let (mut send, mut recv) = soon(client.conn.open_bi()).await.expect("a stream");
    let (_one, _r) = open_bi(&client, 0, b"1").await;
    let _two = open_uni(&client, 0, b"2").await;
    client.get("/get").await;
    let (_three, mut three) = open_bi(&client, 0, b"3").await;
    assert_eq!(reset(&mut three).await, codes::BUFFERED_STREAM_REJECTED);
    send.write_all(&frame(0x01, &qpack(&connect("/wt")))).await.expect("written");
    assert_eq!(status(&mut recv).await, 200);
    let session = server.session().await;
    let (_send, mut recv) = soon(session.accept_bi()).await.expect("a stream");
    assert_eq!(soon(recv.read_u8()).await.expect("a byte"), b'1');
    let mut recv = soon(session.accept_uni()).await.expect("a stream");
    assert_eq!(soon(recv.read_u8()).await.expect("a byte"), b'2');
}

#[tokio::test]
async fn an_early_stream_whose_session_never_comes_is_refused() {
    let limits = Limits { early_stream_timeout: Duration::from_millis(50), ..Limits::default() };
    let server = Server::start(limits);
    let client = Client::connect(&server).await;
    let (_send, mut recv) = open_bi(&client, 400, b"x").await;
    assert_eq!(reset(&mut recv).await, codes::BUFFERED_STREAM_REJECTED);
}

#[tokio::test]
async fn a_datagram_that_is_too_large_is_an_error_and_1100_bytes_are_not() {
    let mut server = Server::start(Limits::default());
    let client = Client::connect(&server).await;
    let (session, _send, _recv) = client.open(&mut server).await;
    let sender = session.datagram_sender();
    let max = sender.max_size().expect("supported");
    assert!(max >= 1100, "{max}");
    assert_eq!(sender.send(&vec![0; max + 1]), Err(DatagramError::TooLarge { max }));
    sender.send(&vec![9; max]).expect("sent");
    let datagram = soon(client.conn.read_datagram()).await.expect("a datagram");
    assert_eq!(&datagram[1..], vec![9; max]);
}

#[tokio::test]
async fn of_datagrams_that_nobody_reads_the_newest_are_kept() {
    let mut server = Server::start(Limits { max_queued_datagrams: 3, ..Limits::default() });
    let client = Client::connect(&server).await;
    let (session, mut connect_stream, _recv) = client.open(&mut server).await;
    let (other, _send, _recv) = client.open(&mut server).await;
    for n in 0..10 {
        client.conn.send_datagram(Bytes::copy_from_slice(&[0, n])).expect("sent");
    }
    client.conn.send_datagram(Bytes::from_static(&[1, 0])).expect("sent");
    soon(other.recv_datagram()).await.expect("the last");
    let mut got = Vec::new();
    for _ in 0..3 {
        got.push(soon(session.recv_datagram()).await.expect("a datagram")[0]);
    }
    assert_eq!(got, [7, 8, 9]);
    connect_stream.finish().expect("open");
}

#[tokio::test]
async fn a_connection_lives_as_long_as_its_last_session() {
    let mut server = Server::start(Limits { linger: Duration::from_millis(100), ..Limits::default() });
    let client = Client::connect(&server).await;
    let (mut session, _send, _recv) = client.open(&mut server).await;
    let spare = Client::connect(&server).await;
    assert_eq!(spare.closed().await, Some(codes::H3_NO_ERROR), "nothing was asked for");
    session.send_datagram(b"still here").expect("sent");
    soon(client.conn.read_datagram()).await.expect("a datagram");
    soon(session.close(0, "")).await;
    drop(session);
    assert_eq!(client.closed().await, Some(codes::H3_NO_ERROR));
}

#[tokio::test]
async fn after_shutdown_the_last_session_is_waited_for() {
    let mut server = Server::start(Limits::default());
    let client = Client::connect(&server).await;
    let (mut session, _send, _recv) = client.open(&mut server).await;
    server.shutdown.cancel();
    server.tracker.close();
    session.send_datagram(b"still here").expect("sent");
    soon(client.conn.read_datagram()).await.expect("a datagram");
    let (_send, mut recv) = client.request(&plain("GET", "/get")).await;
    assert_eq!(reset(&mut recv).await, codes::H3_REQUEST_REJECTED);
    soon(session.close(1, "going away")).await;
    drop(session);
    soon(server.tracker.wait()).await;
    assert_eq!(client.closed().await, Some(codes::H3_NO_ERROR));
}

#[tokio::test]
async fn a_client_that_goes_away_before_the_answer_leaves_nothing() {
    let mut server = Server::start(Limits { linger: Duration::from_millis(50), ..Limits::default() });
    let client = Client::connect(&server).await;
    let (send, mut recv) = client.request(&connect("/slow")).await;
    recv.stop(codes::H3_REQUEST_CANCELLED).expect("open");
    drop(send);
    assert_eq!(client.closed().await, Some(codes::H3_NO_ERROR));
    assert!(server.sessions.try_recv().is_err());
}
