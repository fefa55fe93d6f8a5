//! SPEC section 7.3.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Buf, Bytes, BytesMut};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming as Body;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::http::{Requests, link_headers, post_all, welcome};
use super::{Ends, Incoming, Place, Resume, headers};
use crate::Failure;
use crate::fault::Fault;

pub(super) async fn open(place: &Place, resume: Option<&Resume>, fault: &Fault) -> Result<Ends, Failure> {
    let mut requests = Requests::new(place, fault);
    let response = requests.send(Method::GET, "/rt/sse", &headers(resume), Bytes::new()).await?;
    if response.status() != StatusCode::OK {
        return Err(format!("sse was answered {}", response.status()).into());
    }
    let mut events = Events { body: response.into_body(), text: BytesMut::new(), searched: 0 };
    let first = events.next().await?;
    let names = link_headers(&welcome(&first)?);
    let (incoming_tx, incoming) = mpsc::channel(1);
    let (outgoing, outgoing_rx) = mpsc::channel(1);
    let mut tasks = JoinSet::new();
    tasks.spawn(post_all(*place, fault.clone(), names, outgoing_rx, incoming_tx.clone()));
    tasks.spawn(async move {
        let _kept = requests;
        let mut packet: Result<Bytes, Failure> = Ok(first);
        loop {
            let (said, ended) = match packet {
                Ok(packet) => (Incoming::Bytes(packet), false),
                Err(error) => (Incoming::Lost(error.to_string()), true),
            };
            if incoming_tx.send(said).await.is_err() || ended {
                return;
            }
            packet = events.next().await;
        }
    });
    Ok(Ends { outgoing, incoming, natives: None, connected: None, tasks })
}

struct Events {
    body: Body,
    text: BytesMut,
    /// Bytes of `text` in which no event ends.
    searched: usize,
}

impl Events {
    /// The packet of the next event that has one.
    async fn next(&mut self) -> Result<Bytes, Failure> {
        loop {
            let end = self.text[self.searched..].windows(2).position(|pair| pair == b"\n\n");
            let Some(end) = end else {
                self.searched = self.text.len().saturating_sub(1);
                let frame = self.body.frame().await.ok_or("the event stream ended")??;
                self.text.extend_from_slice(&frame.into_data().unwrap_or_default());
                continue;
            };
            let event = self.text.split_to(self.searched + end);
            self.text.advance(2);
            self.searched = 0;
            let mut packet = Vec::new();
            for line in std::str::from_utf8(&event)?.lines() {
                if let Some(piece) = line.strip_prefix("data: ") {
                    BASE64_STANDARD.decode_vec(piece, &mut packet)?;
                }
            }
            if !packet.is_empty() {
                return Ok(packet.into());
            }
        }
    }
}
