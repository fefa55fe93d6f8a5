//! SPEC section 7.4.

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::http::{Requests, link_headers, post_all, welcome};
use super::{Ends, Incoming, Place, Resume, headers};
use crate::Failure;
use crate::fault::Fault;

pub(super) async fn open(place: &Place, resume: Option<&Resume>, fault: &Fault) -> Result<Ends, Failure> {
    let mut requests = Requests::new(place, fault);
    let (status, first) = requests.ask(Method::GET, "/rt/poll", &headers(resume), Bytes::new()).await?;
    if status != StatusCode::OK {
        return Err(format!("poll was answered {status}").into());
    }
    let names = link_headers(&welcome(&first)?);
    let (incoming_tx, incoming) = mpsc::channel(1);
    let (outgoing, outgoing_rx) = mpsc::channel(1);
    let mut tasks = JoinSet::new();
    tasks.spawn(post_all(*place, fault.clone(), names.clone(), outgoing_rx, incoming_tx.clone()));
    tasks.spawn(async move {
        drop(incoming_tx.send(Incoming::Bytes(first)).await);
        loop {
            let (said, ended) = match requests.ask(Method::GET, "/rt/poll", &names, Bytes::new()).await {
                Ok((StatusCode::NO_CONTENT, _)) => continue,
                Ok((StatusCode::OK, packet)) => (Incoming::Bytes(packet), false),
                Ok((status, _)) => (Incoming::Lost(format!("a poll was answered {status}")), true),
                Err(error) => (Incoming::Lost(format!("poll: {error}")), true),
            };
            if incoming_tx.send(said).await.is_err() || ended {
                return;
            }
        }
    });
    Ok(Ends { outgoing, incoming, natives: None, connected: None, tasks })
}
