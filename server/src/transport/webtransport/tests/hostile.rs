//! Clients that break the rules, or take all they can. Nobody else notices.

use super::*;

#[tokio::test]
async fn forty_mebibytes_of_headers_are_refused_at_their_announcement() {
    let server = Server::start(Limits::default());
    let client = Client::connect(&server).await;
    let (mut send, mut recv) = client.conn.open_bi().await.expect("a stream");
    send.write_all(&[&[0x01][..], &integer(40 << 20), &[0; 64]].concat()).await.expect("written");
    assert_eq!(stop(&send).await, codes::H3_EXCESSIVE_LOAD);
    reset(&mut recv).await;
    assert_eq!(client.get("/get").await.0, 200);
}

#[tokio::test]
async fn a_field_section_that_is_large_only_when_decoded_is_refused() {
    let server = Server::start(Limits::default());
    let client = Client::connect(&server).await;
    let mut block = qpack(&plain("GET", "/get"));
    // Static entry 85, of 52 bytes, as one byte each.
    block.extend((0..12_000).flat_map(|_| [0xff, 85 - 63]).take(15_000));
    let (mut send, mut recv) = client.conn.open_bi().await.expect("a stream");
    send.write_all(&frame(0x01, &block)).await.expect("written");
    assert_eq!(reset(&mut recv).await, codes::H3_REQUEST_CANCELLED);
    assert_eq!(client.get("/get").await.0, 200);
}

#[tokio::test]
async fn streams_that_stop_in_the_middle_of_their_header_block_nobody() {
    let limits = Limits { headers_timeout: Duration::from_millis(300), ..Limits::default() };
    let mut server = Server::start(limits);
    let client = Client::connect(&server).await;
    let mut stalled = Vec::new();
    for start in [&b"\x40"[..], b"\x40\x41", b"\x40\x41\xc0\x00", b"\x01", b"\x01\x40", b"\x01\x20\x00"] {
        let (mut send, recv) = client.conn.open_bi().await.expect("a stream");
        send.write_all(start).await.expect("written");
        stalled.push((send, recv));
    }
    let mut stalled_uni = Vec::new();
    for start in [&b"\x40"[..], b"\x40\x54", b"\x40\x54\xc0\x00"] {
        let mut send = client.conn.open_uni().await.expect("a stream");
        send.write_all(start).await.expect("written");
        stalled_uni.push(send);
    }
    let (session, _send, _recv) = client.open(&mut server).await;
    session.send_datagram(b"alive").expect("sent");
    soon(client.conn.read_datagram()).await.expect("a datagram");
    for (send, mut recv) in stalled {
        stop(&send).await;
        reset(&mut recv).await;
    }
    for send in stalled_uni {
        stop(&send).await;
    }
}

#[tokio::test]
async fn ten_thousand_streams_are_refused_beyond_the_queue() {
    let mut server = Server::start(Limits { max_queued_streams: 4, ..Limits::default() });
    let client = Client::connect(&server).await;
    let (session, _send, _recv) = client.open(&mut server).await;
    let mut refused = 0;
    let mut kept = Vec::new();
    for _ in 0..10_000 {
        let mut send = soon(client.conn.open_uni()).await.expect("a stream");
        send.write_all(&[0x40, 0x54, 0x00, 1, 2, 3]).await.expect("written");
        // The first four stay in the queue; they are never stopped.
        if kept.len() < 4 {
            kept.push(send);
        } else {
            assert_eq!(stop(&send).await, codes::BUFFERED_STREAM_REJECTED);
            refused += 1;
        }
    }
    assert_eq!(refused, 10_000 - 4);
    for _ in 0..4 {
        soon(session.accept_uni()).await.expect("a stream");
    }
    assert_eq!(client.get("/get").await.0, 200);
}

#[tokio::test]
async fn malformed_capsules_end_the_session_alone() {
    let mut server = Server::start(Limits::default());
    let client = Client::connect(&server).await;
    let too_short = [&integer(0x2843)[..], &[3, 1, 2, 3]].concat();
    let too_long = [&integer(0x2843)[..], &integer(4 + 1025)].concat();
    let endless = [&integer(0x17)[..], &integer(1 << 40)].concat();
    for bad in [too_short, too_long, endless] {
        let (mut session, mut send, mut recv) = client.open(&mut server).await;
        send.write_all(&frame(0x00, &bad)).await.expect("written");
        assert_eq!(soon(session.closed()).await.how, How::Malformed);
        assert_eq!(reset(&mut recv).await, codes::H3_MESSAGE_ERROR);
        assert_eq!(stop(&send).await, codes::H3_MESSAGE_ERROR);
    }
    assert_eq!(client.get("/get").await.0, 200);
}

#[tokio::test]
async fn ids_and_datagrams_that_cannot_be_end_the_connection() {
    let server = Server::start(Limits::default());
    let client = Client::connect(&server).await;
    let (mut send, _recv) = client.conn.open_bi().await.expect("a stream");
    send.write_all(&[0x40, 0x41, 0x01]).await.expect("written");
    assert_eq!(client.closed().await, Some(codes::H3_ID_ERROR));
    for bad in [&[][..], &[0x40], &[0xff; 8]] {
        let client = Client::connect(&server).await;
        client.get("/get").await;
        client.conn.send_datagram(Bytes::copy_from_slice(bad)).expect("sent");
        assert_eq!(client.closed().await, Some(codes::H3_DATAGRAM_ERROR), "{bad:x?}");
    }
    let client = Client::connect(&server).await;
    client.conn.send_datagram(Bytes::from_static(&[9, 1, 2, 3])).expect("sent");
    assert_eq!(client.get("/get").await.0, 200, "one for no session is ignored");
}

/// Seeded, so that a failure comes again.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..len).map(step).collect()
}

#[tokio::test]
async fn noise_on_every_kind_of_stream_hurts_only_its_own_connection() {
    let mut server = Server::start(Limits::default());
    let witness = Client::connect(&server).await;
    let (session, _send, _recv) = witness.open(&mut server).await;
    for seed in 0..40 {
        let mut client = Client::connect(&server).await;
        // Each may fail, because an earlier one may have ended the connection.
        let garbage = noise(seed, 600);
        for start in [&b""[..], b"\x01\x20", b"\x40\x41\x00"] {
            if let Ok((mut send, _recv)) = client.conn.open_bi().await {
                let _ = send.write_all(&[start, &garbage].concat()).await;
            }
        }
        for start in [&b""[..], b"\x02", b"\x03", b"\x01", b"\x40\x54\x00"] {
            if let Ok(mut send) = client.conn.open_uni().await {
                let _ = send.write_all(&[start, &garbage].concat()).await;
            }
        }
        let _ = client.control.write_all(&garbage).await;
        let _ = client.conn.send_datagram(garbage[..100].to_vec().into());
        client.conn.close(VarInt::from_u32(0), b"");
    }
    assert_eq!(witness.get("/get").await.0, 200);
    session.send_datagram(b"alive").expect("sent");
    soon(witness.conn.read_datagram()).await.expect("a datagram");
}

/// More of them by `WEBTRANSPORT_FUZZ=5000 cargo test mutated`.
#[tokio::test]
async fn mutated_handshakes_are_survived() {
    let mut server = Server::start(Limits { max_connections_per_ip: 10_000, ..Limits::default() });
    let witness = Client::connect(&server).await;
    let (session, _send, _recv) = witness.open(&mut server).await;
    let rounds = std::env::var("WEBTRANSPORT_FUZZ").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(100);
    for seed in 0..rounds {
        let (_endpoint, conn) = quic(server.addr).await.expect("connected");
        let random = noise(seed + 1000, 16);
        let mutate = |mut bytes: Vec<u8>, random: &[u8]| {
            let at = usize::from(random[0]) % bytes.len();
            match random[1] % 4 {
                0 => bytes[at] = random[2],
                1 => bytes.truncate(at),
                2 => bytes.insert(at, random[2]),
                _ => {}
            }
            bytes
        };
        let settings = vec![0x00, 0x04, 0x07, 0x33, 0x01, 0xab, 0x60, 0x37, 0x42, 0x01];
        let mut request = frame(0x01, &qpack(&connect("/wt")));
        request.extend(frame(0x00, &capsule::close(7, "over")));
        let stream = vec![0x40, 0x41, 0x00, 1, 2, 3];
        // Each may fail, because an earlier one may have ended the connection.
        if let Ok(mut control) = conn.open_uni().await {
            let _ = control.write_all(&mutate(settings, &random)).await;
        }
        if let Ok((mut send, _recv)) = conn.open_bi().await {
            let _ = send.write_all(&mutate(request, &random[4..])).await;
            let _ = send.finish();
        }
        if let Ok((mut send, _recv)) = conn.open_bi().await {
            let _ = send.write_all(&mutate(stream, &random[8..])).await;
        }
        if random[15].is_multiple_of(2) {
            conn.close(VarInt::from_u32(0), b"");
        }
        drop(server.sessions.try_recv());
    }
    assert_eq!(witness.get("/get").await.0, 200);
    session.send_datagram(b"alive").expect("sent");
    soon(witness.conn.read_datagram()).await.expect("a datagram");
}

#[tokio::test]
async fn a_connection_beyond_its_addresss_share_is_refused() {
    let server = Server::start(Limits { max_connections_per_ip: 2, ..Limits::default() });
    let one = Client::connect(&server).await;
    let _two = Client::connect(&server).await;
    let error = Client::try_connect(server.addr).await.err().expect("refused");
    assert!(matches!(error, quinn::ConnectionError::ConnectionClosed(_)), "{error:?}");
    drop(one);
}

#[tokio::test]
async fn a_client_that_allows_no_streams_is_given_up() {
    let limits = Limits { handshake_timeout: Duration::from_millis(200), ..Limits::default() };
    let server = Server::start(limits);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting))
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let crypto = QuicClientConfig::try_from(tls).expect("a configuration");
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    let mut transport = quinn::TransportConfig::default();
    transport.max_concurrent_uni_streams(0u8.into());
    config.transport_config(Arc::new(transport));
    let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a port");
    let connecting = endpoint.connect_with(config, server.addr, "localhost").expect("a connection");
    let conn = soon(connecting).await.expect("connected");
    let quinn::ConnectionError::ApplicationClosed(close) = soon(conn.closed()).await else {
        panic!("not closed by the server");
    };
    assert_eq!(close.error_code, codes::H3_NO_ERROR);
}
