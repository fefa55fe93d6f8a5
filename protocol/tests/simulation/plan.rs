//! What a seed decides before anything happens.

use throughline_protocol::Config;

use super::application::{Application, MAX_MESSAGE};
use super::network::Kind;
use super::random::Random;

const MS: u64 = 1_000;
const SECOND: u64 = 1_000_000;

/// How a session ends when everything has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// One side's application closes it, after a last message.
    Close(usize),
    /// The server goes away.
    GoAway,
    /// Nobody opens a link until the window has passed.
    Window,
}

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) configs: [Config; 2],
    /// The kinds of links that get through here.
    pub(crate) kinds: Vec<Kind>,
    /// When the network stops being hostile.
    pub(crate) calm_at: u64,
    /// Average time between faults, and between what the client does about its links, in microseconds.
    pub(crate) fault_every: u64,
    pub(crate) decide_every: u64,
    /// Percent of the client's decisions that open a further link while it has one.
    pub(crate) moves: u64,
    /// The least packet that a link may have as its largest, and the longest datagram, which must fit beside other frames.
    pub(crate) packet: u64,
    pub(crate) datagram: u64,
    pub(crate) ending: Ending,
    /// In the middle of everything: one side closes, or the server goes away.
    pub(crate) early: Option<(u64, Ending)>,
    pub(crate) applications: [Application; 2],
}

impl Plan {
    pub(crate) fn new(random: &mut Random) -> Self {
        let heartbeat_ms = random.between(300, 2_000);
        let idle_timeout_ms = heartbeat_ms * random.between(2, 4);
        let resume_window_ms = if random.one_in(4) { random.between(500, 4_000) } else { 120_000 };
        let mut config = |least_window: u64| Config {
            heartbeat_ms,
            idle_timeout_ms,
            open_timeout_ms: random.between(1_000, 5_000),
            max_message_bytes: MAX_MESSAGE as usize,
            send_buffer_bytes: random.magnitude(1, 200_000),
            receive_window_bytes: random.magnitude(1_000, 262_144).max(least_window),
            resume_window_ms,
            max_streams: random.magnitude(1, 30),
            stream_window_bytes: random.magnitude(16_384, 100_000),
            stream_buffer_bytes: random.magnitude(16_384, 100_000),
            session_stream_bytes: random.magnitude(1, 300_000),
        };
        let configs = [config(0), config(262_144)];
        let mut kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|_| random.one_in(2)).collect();
        kinds.extend(random.pick(&Kind::ALL));
        let calm_at = random.magnitude(200 * MS, 12 * SECOND);
        let ending = match random.below(8) {
            0 => Ending::Window,
            1 | 2 => Ending::GoAway,
            which => Ending::Close((which % 2) as usize),
        };
        let early = random.one_in(8).then(|| {
            let how = if random.one_in(2) { Ending::GoAway } else { Ending::Close(random.below(2) as usize) };
            (random.below(calm_at), how)
        });
        let application = |random: &mut Random| Application {
            messages_left: if random.one_in(5) { 0 } else { random.magnitude(1, 400) },
            streams_left: if random.one_in(3) { 0 } else { random.magnitude(1, 24) },
            pace: random.magnitude(5 * MS, 300 * MS),
            appetite: random.magnitude(1, 200),
            ..Application::default()
        };
        let (packet, datagram) = if random.one_in(3) { (300, 150) } else { (1_500, 1_092) };
        Self {
            packet,
            datagram,
            configs,
            kinds,
            calm_at,
            fault_every: if random.one_in(4) { 60 * SECOND } else { random.magnitude(100 * MS, 3 * SECOND) },
            decide_every: random.magnitude(20 * MS, 500 * MS),
            moves: if random.one_in(4) { 0 } else { random.magnitude(1, 40) },
            ending,
            early,
            applications: [application(random), application(random)],
        }
    }
}
