//! Links of simulated time: ordered and reliable until they are cut, late, narrow, silent in one direction or both; and native datagrams, which
//! are none of that.

use std::collections::VecDeque;

use bytes::Bytes;
use throughline_protocol::{Decoder, LinkTraits};

use super::random::Random;

/// Index of a side, of its machine, its application and of what goes there.
pub(crate) const SERVER: usize = 0;
pub(crate) const CLIENT: usize = 1;

/// A direction that never delivers again, until its link is given up.
pub(crate) const FOR_EVER: u64 = u64::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    WebTransport,
    WebSocket,
    Sse,
    Poll,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::WebTransport, Self::WebSocket, Self::Sse, Self::Poll];

    /// Whether the client sends by POST, one at a time.
    pub(crate) fn posts(self) -> bool {
        matches!(self, Self::Sse | Self::Poll)
    }
}

/// What is on its way.
#[derive(Debug)]
pub(crate) enum Item {
    /// A packet, or, on webtransport, a piece of one.
    Packet(Bytes),
    /// A GET that the next packet of a poll answers, and the answer to a POST.
    Turn,
    /// The carrier ends in good order.
    End,
}

/// One ordered way of a link, in one direction.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) to: usize,
    pub(crate) items: VecDeque<(u64, Item)>,
    pub(crate) bytes: usize,
    last_at: u64,
    pub(crate) decoder: Decoder,
    /// A native stream: its index.
    pub(crate) native: Option<usize>,
}

impl Lane {
    fn new(to: usize, native: Option<usize>) -> Self {
        Self { to, items: VecDeque::new(), bytes: 0, last_at: 0, decoder: Decoder::new(), native }
    }
}

/// Lanes that every link has: packets to the server and to the client, GETs, and answers to POSTs.
pub(crate) const GETS: usize = 2;
pub(crate) const ANSWERS: usize = 3;

#[derive(Debug)]
pub(crate) struct Native {
    /// The session's stream, once a side knows it.
    pub(crate) known: [Option<u64>; 2],
    /// The lane to each side.
    pub(crate) lanes: [usize; 2],
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) kind: Kind,
    pub(crate) traits: LinkTraits,
    pub(crate) lanes: Vec<Lane>,
    pub(crate) natives: Vec<Native>,
    /// Whether each side still holds it.
    pub(crate) held: [bool; 2],
    /// Nothing goes in any direction any more.
    pub(crate) is_cut: bool,
    /// Until when each side hears nothing.
    pub(crate) deaf_until: [u64; 2],
    /// One way, in microseconds.
    latency: u64,
    jitter: u64,
    /// Microseconds per 1,000 bytes.
    slowness: u64,
    /// Bytes that a lane takes before it is full.
    pub(crate) capacity: usize,
    pub(crate) max_packet: [usize; 2],
    pub(crate) post_under_way: bool,
    pub(crate) get_waits: bool,
    /// Percent of native datagrams that are lost, and that come twice.
    pub(crate) loss: u64,
    pub(crate) twice: u64,
}

impl Link {
    pub(crate) fn new(kind: Kind, packet: u64, calm: bool, random: &mut Random) -> Self {
        let is_native = kind == Kind::WebTransport;
        let traits = LinkTraits {
            native_datagrams: is_native.then(|| random.between(20, 1_200) as usize),
            native_streams: is_native && !random.one_in(4),
            peer_sends_requests: matches!(kind, Kind::Sse | Kind::Poll),
            marks: is_native && random.one_in(2),
        };
        let latency = random.magnitude(100, if calm { 50_000 } else { 400_000 });
        let packet = |most: u64| move |random: &mut Random| random.magnitude(packet, most) as usize;
        let (down, up) = match kind {
            Kind::WebTransport => (65_536, 65_536),
            Kind::WebSocket | Kind::Poll => (262_144, 262_144),
            Kind::Sse => (32_768, 1_048_576),
        };
        Self {
            kind,
            traits,
            lanes: vec![
                Lane::new(SERVER, None),
                Lane::new(CLIENT, None),
                Lane::new(SERVER, None),
                Lane::new(CLIENT, None),
            ],
            natives: Vec::new(),
            held: [true; 2],
            is_cut: false,
            deaf_until: [0; 2],
            latency,
            jitter: if random.one_in(3) { 0 } else { random.below(latency) },
            slowness: if random.percent(60) { 0 } else { random.magnitude(1, 20_000) },
            capacity: random.magnitude(2_000, 300_000) as usize,
            max_packet: [packet(up)(random), packet(down)(random)],
            post_under_way: false,
            get_waits: false,
            loss: if calm || random.one_in(2) { 0 } else { random.below(60) },
            twice: if random.one_in(2) { 0 } else { random.below(40) },
        }
    }

    /// When something that leaves now arrives.
    pub(crate) fn delay(&self, random: &mut Random) -> u64 {
        self.latency + random.below(self.jitter + 1)
    }

    /// Puts something on its way; says when it arrives.
    pub(crate) fn push(&mut self, now: u64, lane: usize, item: Item, random: &mut Random) -> u64 {
        let len = if let Item::Packet(bytes) = &item { bytes.len() } else { 0 };
        let at = now + self.delay(random);
        let lane = &mut self.lanes[lane];
        lane.last_at = lane.last_at.max(at) + len as u64 * self.slowness / 1_000;
        lane.bytes += len;
        lane.items.push_back((lane.last_at, item));
        lane.last_at
    }

    pub(crate) fn has_room(&self, lane: usize) -> bool {
        self.lanes[lane].bytes < self.capacity
    }

    pub(crate) fn add_native(&mut self, known: [Option<u64>; 2]) -> usize {
        let index = self.natives.len();
        let first = self.lanes.len();
        self.lanes.push(Lane::new(SERVER, Some(index)));
        self.lanes.push(Lane::new(CLIENT, Some(index)));
        self.natives.push(Native { known, lanes: [first, first + 1] });
        index
    }

    /// Cut at some byte: what is before it still arrives, the rest never does.
    pub(crate) fn cut(&mut self, random: &mut Random) {
        self.is_cut = true;
        for lane in &mut self.lanes {
            if random.one_in(2) {
                lane.items.clear();
            }
            let mut left = random.below(lane.bytes as u64 + 1) as usize;
            let pieces = self.kind == Kind::WebTransport;
            lane.items.retain_mut(|(_, item)| match item {
                Item::Packet(bytes) if bytes.len() <= left => {
                    left -= bytes.len();
                    true
                }
                // Bytes of a stream arrive up to the cut, packets whole or not at all.
                Item::Packet(bytes) if pieces => {
                    bytes.truncate(left);
                    left = 0;
                    !bytes.is_empty()
                }
                _ => {
                    left = 0;
                    false
                }
            });
        }
    }
}
