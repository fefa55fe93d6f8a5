//! Streams that have all that was published in a channel: what comes next is framed once, and one task writes it to one after the other.
//!
//! To wake two thousand tasks for two thousand small writes would cost about a third of what the writes do. Whoever's connection does not take something at once goes on at its own
//! pace, with a reader of its own, and comes back when it has caught up: it delays nobody.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use throughline_protocol::channel::Position;
use tokio::runtime::Handle;
use tokio::task::coop::unconstrained;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::line::Line;
use crate::http::event;
use crate::hub::Reader;
use crate::socket::endless::chunk;

/// Streams that are written to before others get their turn: some tenths of a millisecond.
const TURN: usize = 64;

/// What has come meanwhile leaves in one write, until it has so many bytes.
const TOGETHER: usize = 8 * 1_024;

/// The audiences of all channels: of each, as many as there are threads.
pub(in crate::http) struct Audiences {
    houses: Vec<House>,
    next: AtomicUsize,
    keep_alive: Duration,
    ended: CancellationToken,
}

type House = Mutex<HashMap<Arc<str>, Arc<Audience>>>;

/// Which of the audiences of a channel a stream sits in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket(usize);

#[derive(Default)]
struct Audience(Mutex<State>);

#[derive(Default)]
struct State {
    /// What all of them have been given, or are being given.
    at: Position,
    /// Those that have left stay until something is said to them, without their connections.
    lines: Vec<Arc<Line>>,
}

impl Audiences {
    /// Says that streams are alive this often, and works until `ended`.
    pub(in crate::http) fn new(keep_alive: Duration, ended: CancellationToken) -> Arc<Self> {
        let threads = Handle::try_current().map_or(1, |runtime| runtime.metrics().num_workers());
        let houses = std::iter::repeat_with(House::default).take(threads).collect();
        Arc::new(Self { houses, next: AtomicUsize::default(), keep_alive, ended })
    }

    pub(super) fn ticket(&self) -> Ticket {
        Ticket(self.next.fetch_add(1, Ordering::Relaxed) % self.houses.len())
    }

    /// Seats a stream that has what the reader has given, and has written it. Gives the reader back where that is less than what the others have.
    pub(super) fn join(
        self: &Arc<Self>,
        ticket: Ticket,
        channel: &Arc<str>,
        line: &Arc<Line>,
        reader: Reader,
    ) -> Result<(), Reader> {
        let mut house = self.houses[ticket.0].lock();
        let at = reader.position();
        if let Some(audience) = house.get(channel) {
            let mut state = audience.0.lock();
            if at.epoch != state.at.epoch || at.offset < state.at.offset {
                return Err(reader);
            }
            line.sit(at);
            state.lines.push(Arc::clone(line));
            return Ok(());
        }
        line.sit(at);
        let audience = Arc::new(Audience(Mutex::new(State { at, lines: vec![Arc::clone(line)] })));
        house.insert(Arc::clone(channel), Arc::clone(&audience));
        let (this, channel) = (Arc::clone(self), Arc::clone(channel));
        // A socket that does not take anything is told apart from a task that has had its turn: turns are counted here.
        let show = unconstrained(async move { this.show(ticket, &channel, &audience, reader).await });
        tokio::spawn(self.ended.clone().run_until_cancelled_owned(show));
        Ok(())
    }

    /// Reads for an audience until nobody is left.
    async fn show(&self, Ticket(house): Ticket, channel: &str, audience: &Audience, mut reader: Reader) {
        loop {
            let before = reader.position();
            let chunk = match timeout(self.keep_alive, reader.next()).await {
                Ok(Ok(item)) => {
                    let mut events = event::item(&item).to_vec();
                    while events.len() < TOGETHER
                        && let Some(item) = reader.ready()
                    {
                        events.extend_from_slice(&event::item(&item));
                    }
                    chunk(&events)
                }
                Err(_) => chunk(&event::KEEP_ALIVE),
                Ok(Err(_)) => {
                    // Each finds out by itself what that means.
                    self.houses[house].lock().remove(channel);
                    return audience.0.lock().lines.iter().for_each(|line| line.unseat());
                }
            };
            audience.tell(&chunk, before, reader.position()).await;
            let mut house = self.houses[house].lock();
            if audience.0.lock().lines.is_empty() {
                house.remove(channel);
                return;
            }
        }
    }
}

impl Audience {
    async fn tell(&self, chunk: &Bytes, before: Position, after: Position) {
        let mut lines = {
            let mut state = self.0.lock();
            state.at = after;
            std::mem::take(&mut state.lines)
        };
        let (mut index, mut told) = (0, 0);
        while let Some(line) = lines.get(index) {
            if line.tell(chunk, before, after) {
                index += 1;
            } else {
                lines.swap_remove(index);
            }
            told += 1;
            if told % TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
        tokio::task::yield_now().await;
        let mut state = self.0.lock();
        lines.append(&mut state.lines); // who has come meanwhile has this already
        state.lines = lines;
    }
}
