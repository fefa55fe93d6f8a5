//! Ordinary requests.

use futures_util::FutureExt as _;

use super::*;

#[tokio::test]
async fn eighty_requests_at_once_are_all_answered() {
    let server = Server::start(Limits::default());
    let client = Arc::new(Client::connect(&server).await);
    let requests: Vec<_> = (0..80)
        .map(|_| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { client.get("/get").await })
        })
        .collect();
    for request in requests {
        assert_eq!(request.await.expect("no panic"), (200, b"ok".to_vec()));
    }
}

#[tokio::test]
async fn whoever_makes_a_second_request_may_have_many_at_a_time() {
    let limits = Limits::default();
    let most = limits.max_bidi_streams + limits.max_session_streams;
    let server = Server::start(limits);
    let client = Client::connect(&server).await;
    let mut open = Vec::new();
    for _ in 0..most {
        // Each stays open.
        let (send, mut recv) = soon(client.request(&plain("GET", "/endless"))).await;
        assert_eq!(status(&mut recv).await, 200);
        open.push((send, recv));
    }
    assert!(client.conn.open_bi().now_or_never().is_none(), "more than {most}");
}

#[tokio::test]
async fn large_bodies_go_both_ways() {
    let server = Server::start(Limits::default());
    let client = Client::connect(&server).await;
    assert_eq!(client.get("/large").await.1.len(), 3_000_000);
    let (mut send, mut recv) = client.request(&plain("POST", "/count")).await;
    for _ in 0..30 {
        soon(send.write_all(&frame(0x00, &[1; 100_000]))).await.expect("written");
        // Neither an empty DATA frame nor an unknown one is the end of the body.
        soon(send.write_all(&frame(0x00, b""))).await.expect("written");
        soon(send.write_all(&frame(0x21, b"grease"))).await.expect("written");
    }
    send.finish().expect("open");
    assert_eq!(status(&mut recv).await, 200);
    assert_eq!(body(&mut recv).await, b"3000000");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_an_error_not_an_end() {
    let server = Server::start(Limits::default());
    let client = Client::connect(&server).await;
    let (mut send, mut recv) = client.request(&plain("POST", "/count")).await;
    send.write_all(&[0x00, 0x0a, 1, 2, 3]).await.expect("written");
    send.finish().expect("open");
    assert_eq!(status(&mut recv).await, 200);
    assert!(body(&mut recv).await.starts_with(b"error"));
    for (len, sent) in [("4", &b"123"[..]), ("2", b"123")] {
        let mut headers = plain("POST", "/count");
        headers.push(("content-length", len));
        let (mut send, mut recv) = client.request(&headers).await;
        send.write_all(&frame(0x00, sent)).await.expect("written");
        send.finish().expect("open");
        assert_eq!(status(&mut recv).await, 200);
        assert!(body(&mut recv).await.starts_with(b"error"), "{len}");
    }
}

#[tokio::test]
async fn head_has_no_body() {
    let server = Server::start(Limits::default());
    let client = Client::connect(&server).await;
    let (mut send, mut recv) = client.request(&plain("HEAD", "/get")).await;
    send.finish().expect("open");
    assert_eq!(status(&mut recv).await, 200);
    assert_eq!(body(&mut recv).await, b"");
}

/// A `connection` header would make the answer malformed, and a browser would refuse it.
#[tokio::test]
async fn a_reader_that_goes_away_ends_the_body_at_once() {
    let server = Server::start(Limits::default());
    let client = Client::connect(&server).await;
    let (mut send, mut recv) = client.request(&plain("GET", "/endless")).await;
    send.finish().expect("open");
    let (_, block) = read_frame(&mut recv).await;
    assert!(!block.windows(10).any(|window| window == b"keep-alive"));
    assert_eq!(read_frame(&mut recv).await, (0x00, b"one".to_vec()));
    assert_eq!(server.bodies.load(Ordering::SeqCst), 1);
    recv.stop(codes::H3_REQUEST_CANCELLED).expect("open");
    soon(async {
        while server.bodies.load(Ordering::SeqCst) > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn pieces_of_a_cookie_are_joined() {
    let server = Server::start(Limits::default());
    let client = Client::connect(&server).await;
    let mut headers = plain("GET", "/cookie");
    headers.extend([("cookie", "a=1"), ("cookie", "b=2")]);
    let (mut send, mut recv) = client.request(&headers).await;
    send.finish().expect("open");
    assert_eq!(status(&mut recv).await, 200);
    assert_eq!(body(&mut recv).await, br#"["a=1; b=2"]"#);
}

#[tokio::test]
async fn there_are_no_tunnels() {
    let server = Server::start(Limits::default());
    let client = Client::connect(&server).await;
    let (_send, mut recv) = client.request(&[(":method", "CONNECT"), (":authority", "example.com:443")]).await;
    assert_eq!(status(&mut recv).await, 501);
    let mut headers = plain("CONNECT", "/wt");
    headers.push((":protocol", "connect-udp"));
    let (_send, mut recv) = client.request(&headers).await;
    assert_eq!(status(&mut recv).await, 501);
}
