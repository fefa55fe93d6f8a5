//! Two machines, their owners, their applications and the network between them, one event after the other.

// Before the modules that use it.
macro_rules! tell {
    ($world:expr, $($words:tt)*) => {
        if $world.tells {
            $world.print(format_args!($($words)*));
        }
    };
}

mod acts;
mod checks;
mod owners;
mod traffic;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bytes::Bytes;
use throughline_protocol::{Candidate, Frame, Machine, ResumeKey, SessionId};

use crate::application::Application;
use crate::network::{CLIENT, FOR_EVER, Link, SERVER};
use crate::peer::Peer;
use crate::plan::Plan;
use crate::random::Random;

const MS: u64 = 1_000;
const SECOND: u64 = 1_000_000;

/// The clock begins here: a number that does not fit in 32 bits.
const BEGIN: u64 = 1_700_000_000_000_000;

/// Everything must have arrived, and the session must have ended, so long after the network has calmed down: the narrowest window (1,000 bytes) over the
/// longest path (a second) takes minutes for a full buffer, and a window that passes takes two.
const PATIENCE: u64 = 600 * SECOND;

/// A mistake that is made on purpose, to see that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// A further link says that one byte more of stream 0 was received than is true: the replay begins one byte too late.
    LateReplay,
}

#[derive(Debug)]
enum Happening {
    /// Something may arrive on a lane.
    Arrive {
        link: usize,
        lane: usize,
    },
    Datagram {
        link: usize,
        to: usize,
        payload: Bytes,
    },
    /// An opening reaches the server. With the session that it names, and what was received of stream 0.
    Opening {
        link: usize,
        resume: Option<(u8, u64)>,
    },
    /// A side finds out that its link is dead.
    Ended {
        link: usize,
        side: usize,
    },
    Act {
        side: usize,
    },
    Decide,
    Fault,
    Early,
    Calm,
}

struct Entry(u64, u64, Happening);

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// The server's session, and what its owner knows.
struct Server {
    machine: Machine,
    /// Which session: an opening that names another one finds nothing.
    id: u8,
    current: Option<usize>,
    candidates: Vec<(usize, Candidate)>,
    without_link_since: u64,
    is_over: bool,
}

/// The client's owner: a ladder without reason.
#[derive(Default)]
struct Owner {
    current: Option<usize>,
    /// The link before, which it may go on reading.
    late: Option<usize>,
    /// Since when, and the WELCOME that came.
    opening: Vec<(usize, u64, Option<Frame>)>,
    session: Option<u8>,
    is_closing: bool,
    is_over: bool,
}

/// What came of a seed, to see that the seeds do what they should.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outcome {
    pub(crate) events: u64,
    pub(crate) links: u64,
    pub(crate) adopted: u64,
    pub(crate) late: u64,
    pub(crate) messages: u64,
    pub(crate) streams: u64,
    pub(crate) gaps: u64,
    pub(crate) went_away: u64,
}

pub(crate) struct World {
    seed: u64,
    /// Whether to tell what happens.
    tells: bool,
    fault: Fault,
    random: Random,
    plan: Plan,
    now: u64,
    sequence: u64,
    queue: BinaryHeap<Reverse<Entry>>,
    links: Vec<Link>,
    server: Server,
    machine: Box<dyn Peer>,
    owner: Owner,
    applications: [Application; 2],
    is_calm: bool,
    /// The first datagram of each side that was sent in calm: this one or a newer one must arrive.
    calm_datagrams: [Option<u64>; 2],
    /// In calm each side opens one stream more: there must be room again.
    calm_streams: [bool; 2],
    is_ending: bool,
    /// Somebody closed on purpose.
    close_asked: bool,
    asked_at: u64,
    went_away: bool,
    /// The network lets nothing through any more.
    is_dark: bool,
    is_over: bool,
    outcome: Outcome,
}

impl World {
    /// The client's machine is made from its configuration.
    pub(crate) fn new(
        seed: u64,
        fault: Fault,
        tells: bool,
        client: impl FnOnce(throughline_protocol::Config) -> Box<dyn Peer>,
    ) -> Self {
        let mut random = Random::new(seed);
        let mut plan = Plan::new(&mut random);
        let applications = std::mem::take(&mut plan.applications);
        let server = Machine::server(plan.configs[SERVER].clone(), SessionId([1; 16]), ResumeKey([1; 16]));
        let mut world = Self {
            seed,
            tells,
            fault,
            machine: client(plan.configs[CLIENT].clone()),
            server: Server {
                machine: server,
                id: 1,
                current: None,
                candidates: Vec::new(),
                without_link_since: BEGIN,
                is_over: false,
            },
            random,
            now: BEGIN,
            sequence: 0,
            queue: BinaryHeap::new(),
            links: Vec::new(),
            owner: Owner::default(),
            applications,
            is_calm: false,
            calm_datagrams: [None; 2],
            calm_streams: [false; 2],
            is_ending: false,
            close_asked: false,
            asked_at: 0,
            went_away: false,
            is_dark: false,
            is_over: false,
            outcome: Outcome::default(),
            plan,
        };
        tell!(world, "{:?}", world.plan);
        world.after(0, Happening::Decide);
        world.after(world.plan.fault_every / 2, Happening::Fault);
        world.after(world.plan.calm_at, Happening::Calm);
        if let Some((at, _)) = world.plan.early {
            world.after(at, Happening::Early);
        }
        for side in [SERVER, CLIENT] {
            world.after(0, Happening::Act { side });
        }
        world
    }

    /// Runs to the session's end. Panics when anything is not as it must be.
    pub(crate) fn run(mut self) -> Outcome {
        while !self.is_over {
            self.step();
        }
        self.finish();
        self.outcome
    }

    fn print(&self, words: std::fmt::Arguments<'_>) {
        eprintln!("{:>12.6} {words}", (self.now - BEGIN) as f64 / 1e6);
    }

    fn after(&mut self, delay: u64, what: Happening) {
        self.at(self.now + delay, what);
    }

    fn at(&mut self, at: u64, what: Happening) {
        self.sequence += 1;
        self.queue.push(Reverse(Entry(at, self.sequence, what)));
    }

    fn peer(&mut self, side: usize) -> &mut dyn Peer {
        if side == SERVER { &mut self.server.machine } else { &mut *self.machine }
    }

    fn step(&mut self) {
        self.outcome.events += 1;
        let next = self.queue.peek().map_or(FOR_EVER, |Reverse(entry)| entry.0);
        let timers = [Peer::poll_timeout(&mut self.server.machine), self.machine.poll_timeout()];
        let timer = timers.into_iter().flatten().min().unwrap_or(FOR_EVER);
        let open_timeout = self.server.candidates.iter().map(|(_, candidate)| candidate.deadline).min();
        let time = next.min(timer).min(open_timeout.unwrap_or(FOR_EVER));
        self.now = self.now.max(time);
        assert!(self.now < BEGIN + self.plan.calm_at + PATIENCE, "nothing moves on: {}", self.state());
        assert!(self.outcome.events < 400_000, "it never ends: {}", self.state());
        if timer == time {
            for (side, timer) in timers.into_iter().enumerate() {
                if timer.is_some_and(|at| at <= time) {
                    let now = self.now;
                    self.peer(side).handle_timeout(now);
                }
            }
        } else if open_timeout == Some(time) {
            self.time_out_candidates();
        } else if let Some(Reverse(Entry(_, _, what))) = self.queue.pop() {
            self.happen(what);
        }
        self.pump();
        self.check();
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Arrive { link, lane } => self.arrive(link, lane),
            Happening::Datagram { link, to, payload } => {
                let current = if to == SERVER { self.server.current } else { self.owner.current };
                if current == Some(link) && self.links[link].deaf_until[to] <= self.now {
                    let now = self.now;
                    self.peer(to).handle_datagram(now, payload);
                }
            }
            Happening::Opening { link, resume } => self.opening_arrives(link, resume),
            Happening::Ended { link, side } => self.link_ended(link, side),
            Happening::Act { side } => {
                self.act(side);
                let pace = if self.is_calm { 20 * MS } else { self.applications[side].pace };
                let delay = self.random.between(pace / 2, pace * 2);
                self.after(delay, Happening::Act { side });
            }
            Happening::Decide => {
                self.decide();
                let every = if self.is_calm { 200 * MS } else { self.plan.decide_every };
                let delay = self.random.between(every / 2, every * 2);
                self.after(delay, Happening::Decide);
            }
            Happening::Fault => {
                if !self.is_calm {
                    self.strike();
                    let delay = self.random.between(self.plan.fault_every / 4, self.plan.fault_every * 2);
                    self.after(delay, Happening::Fault);
                }
            }
            Happening::Early => {
                // A session that its server has not heard of yet would be another one in the end.
                if let (Some((_, how)), true) = (self.plan.early, self.applications.iter().all(|app| app.opened)) {
                    self.end(how);
                } else if !self.is_calm {
                    self.after(50 * MS, Happening::Early);
                }
            }
            Happening::Calm => self.calm_down(),
        }
    }
}

const NAMES: [&str; 2] = ["server", "client"];

fn short(frame: &Frame) -> String {
    match frame {
        Frame::Stream { stream, offset, data } => format!("STREAM {stream} at {offset}, {} bytes", data.len()),
        Frame::Datagram(data) => format!("DATAGRAM of {} bytes", data.len()),
        Frame::Welcome(welcome) => {
            let (link, resumed, received, limit) = (welcome.link, welcome.resumed, welcome.received, welcome.limit);
            format!("WELCOME link {link}, resumed {resumed}, received {received}, limit {limit}")
        }
        frame => format!("{frame:?}"),
    }
}
