//! A whole Throughline session over WebTransport. The protocol crate's machine says what to send; whoever holds the session turns it, so that there is no task and no
//! queue between the load generator and the connection.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use quinn::{Endpoint, RecvStream, SendStream};
use throughline_protocol::{Config, Decoder, Frame, LinkTraits, Machine, limits};

use super::payload::micros;
use super::webtransport::{CHUNK, Link};
use crate::Failure;

/// Longest packet on the link stream and on native streams, in bytes.
const PACKET: usize = limits::MAX_PACKET;

/// When the machine has no deadline.
const LONG: Duration = Duration::from_secs(3_600);

/// A session that is open.
pub(crate) struct Driven {
    machine: Machine,
    link: Link,
    decoder: Decoder,
    native: Option<Native>,
}

/// A native stream, and the session's stream that it carries.
struct Native {
    id: Option<u64>,
    send: SendStream,
    recv: RecvStream,
    decoder: Decoder,
}

impl Driven {
    /// Opens one below `base`, such as `/echo`.
    pub(crate) async fn open(endpoint: &Endpoint, to: SocketAddr, base: &str) -> Result<Self, Failure> {
        let link = Link::open(endpoint, to, base).await?;
        let mut machine = Machine::client(Config::default());
        machine.link_opened(now(), LinkTraits { native_streams: true, ..LinkTraits::default() });
        let mut driven = Self { machine, link, decoder: Decoder::new(), native: None };
        while !driven.machine.is_established() {
            driven.arrive().await?;
            driven.flush().await?;
        }
        Ok(driven)
    }

    /// The session itself. [`Driven::flush`] after what it may have to send.
    pub(crate) fn machine(&mut self) -> &mut Machine {
        &mut self.machine
    }

    /// Opens a stream that has a native one.
    pub(crate) async fn open_stream(&mut self) -> Result<u64, Failure> {
        let id = self.machine.open_stream()?;
        let (send, recv) = self.link.session.open_bi().await?;
        self.machine.route(id, true);
        self.native = Some(Native { id: Some(id), send, recv, decoder: Decoder::new() });
        Ok(id)
    }

    /// Sends what there is to send. The credit of the session is below that of QUIC, so it waits for nothing but the kernel.
    pub(crate) async fn flush(&mut self) -> Result<(), Failure> {
        self.machine.handle_timeout(now());
        if let Some(Native { id: Some(id), send, .. }) = &mut self.native {
            while let Some(packet) = self.machine.poll_native(*id, PACKET) {
                send.write_all_chunks(&mut packet.into_pieces()).await?;
            }
        }
        while let Some(packet) = self.machine.poll_transmit(now(), PACKET) {
            self.link.send.write_all_chunks(&mut packet.into_pieces()).await?;
        }
        match self.machine.closed() {
            Some(close) => Err(format!("the session has ended: {close:?}").into()),
            None => Ok(()),
        }
    }

    /// Waits until something has come, or the machine wants to be looked at. Giving up the wait loses nothing.
    pub(crate) async fn arrive(&mut self) -> Result<(), Failure> {
        let deadline = self.machine.poll_timeout();
        let pause = deadline.map_or(LONG, |at| Duration::from_micros(at.saturating_sub(now())));
        let native = async {
            match &mut self.native {
                Some(native) => native.recv.read_chunk(CHUNK, true).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            chunk = self.link.recv.read_chunk(CHUNK, true) => {
                self.decoder.push(chunk?.ok_or("the server ended the link stream")?.bytes);
                while let Some(frame) = self.decoder.next_frame()? {
                    self.machine.handle_frame(now(), frame);
                }
            }
            chunk = native => {
                let chunk = chunk?.ok_or("the server ended the stream")?;
                if let Some(native) = &mut self.native {
                    native.decoder.push(chunk.bytes);
                    while let Some(frame) = native.decoder.next_frame()? {
                        Self::handle_native(&mut self.machine, &mut native.id, frame)?;
                    }
                }
            }
            () = tokio::time::sleep(pause) => {}
        }
        Ok(())
    }

    fn handle_native(machine: &mut Machine, id: &mut Option<u64>, frame: Frame) -> Result<(), Failure> {
        machine.handle_native_frame(now(), id, frame).map_err(|close| format!("{close:?}").into())
    }
}

fn now() -> u64 {
    micros(Instant::now())
}
