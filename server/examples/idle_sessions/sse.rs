//! SPEC section 7.3: an event stream, and POSTs.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::BytesMut;
use throughline_protocol::Decoder;

use crate::http::{Head, Http, Posts, link_headers};
use crate::idle::{Failure, Holding, answer, first_ping, welcome};
use crate::tcp::Server;

pub(crate) async fn open(server: &Server, number: usize) -> Result<Holding, Failure> {
    let mut http = Http::connect(server, number).await?;
    let head = http.ask(&format!("GET {}/sse", server.base), "throughline-version: 1\r\n", b"").await?;
    if head.status != 200 {
        return Err(format!("the server answered {}", head.status).into());
    }
    let mut events = Events { http, head, text: BytesMut::new() };
    let mut decoder = events.next().await?;
    let names = link_headers(&welcome(&mut decoder)?.ok_or("no WELCOME")?);
    let mut posts = Posts::new(server, number, names);
    posts.send(&first_ping()).await?;
    Ok(Box::pin(async move {
        loop {
            let said = answer(&mut events.next().await?)?;
            if !said.is_empty() {
                posts.send(&said).await?;
            }
        }
    }))
}

struct Events {
    http: Http,
    head: Head,
    text: BytesMut,
}

impl Events {
    /// The packet of the next event, decoded.
    async fn next(&mut self) -> Result<Decoder, Failure> {
        let end = loop {
            match self.text.windows(2).position(|pair| pair == b"\n\n") {
                Some(end) => break end,
                None => {
                    let piece = self.http.next(&self.head).await?.ok_or("the event stream ended")?;
                    self.text.extend_from_slice(&piece);
                }
            }
        };
        let event = self.text.split_to(end + 2);
        if self.text.is_empty() {
            self.text = BytesMut::new(); // an idle session holds no buffer
        }
        let mut packet = Vec::new();
        for piece in std::str::from_utf8(&event)?.lines().filter_map(|line| line.strip_prefix("data: ")) {
            BASE64_STANDARD.decode_vec(piece, &mut packet)?;
        }
        let mut decoder = Decoder::new();
        decoder.push(packet.into());
        Ok(decoder)
    }
}
