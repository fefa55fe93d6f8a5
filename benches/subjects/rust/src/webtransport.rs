//! What a WebTransport session is given, by the path that it has asked for. What is fanned out are datagrams.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::clock::Clock;

/// A session of one of the libraries. Each method ends, or says nothing more, when the session has ended.
pub trait Session: Send + Sync + 'static {
    /// A datagram that is lost is lost.
    fn send(&self, datagram: Bytes);

    /// The next datagram; `None` at the end.
    fn receive(&self) -> impl Future<Output = Option<Bytes>> + Send;

    /// Takes the client's bidirectional streams, and hands each to [`echo`] or drops it, until the end.
    fn streams(&self, is_echo: bool) -> impl Future<Output = ()> + Send;
}

/// The sessions that there are, by what is done with them.
#[derive(Default)]
pub struct Behaviours {
    clock: Clock,
    fanout: Mutex<Fanout>,
}

#[derive(Default)]
struct Fanout {
    last: u64,
    members: HashMap<u64, Box<Deliver>>,
}

/// Hands a datagram to one session.
type Deliver = dyn Fn(&Bytes) + Send + Sync;

impl Behaviours {
    /// Does it until the session ends.
    pub async fn run(&self, target: &str, session: impl Session) {
        let session = Arc::new(session);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let to = Arc::clone(&session);
        let send = move |datagram: &Bytes| to.send(datagram.clone());
        let _seat = match path {
            "/state" => Some(self.clock.states(query, send)),
            "/tokens" => Some(self.clock.tokens(query, send)),
            _ => None,
        };
        let datagrams = async {
            match path {
                "/echo" => {
                    while let Some(datagram) = session.receive().await {
                        session.send(datagram);
                    }
                }
                "/fanout" => self.fan_out(&session).await,
                _ => while session.receive().await.is_some() {},
            }
        };
        tokio::select! {
            () = datagrams => {}
            () = session.streams(path == "/echo") => {}
        }
    }

    async fn fan_out(&self, session: &Arc<impl Session>) {
        let to = Arc::clone(session);
        let number = {
            let mut fanout = lock(&self.fanout);
            fanout.last += 1;
            let number = fanout.last;
            fanout.members.insert(number, Box::new(move |datagram| to.send(datagram.clone())));
            number
        };
        while let Some(datagram) = session.receive().await {
            let fanout = lock(&self.fanout);
            fanout.members.iter().filter(|(other, _)| **other != number).for_each(|(_, send)| send(&datagram));
        }
        lock(&self.fanout).members.remove(&number);
    }
}

/// Sends a stream's bytes back, in a task of its own.
pub fn echo(mut reader: impl AsyncRead + Send + Unpin + 'static, mut writer: impl AsyncWrite + Send + Unpin + 'static) {
    tokio::spawn(async move {
        if tokio::io::copy(&mut reader, &mut writer).await.is_ok() {
            let _ = writer.shutdown().await; // fails when the client has gone
        }
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
