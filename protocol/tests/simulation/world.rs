//! Two machines, their owners, their applications and the network between them, one event after the other.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bytes::Bytes;
use throughline_protocol::{
    Candidate, Close, Code, Event, Frame, Machine, Refused, ResumeKey, SessionId, StreamError, StreamRead,
    TrySendError, varint,
};

use super::application::{self, Application, Ended, Handle, MAX_MESSAGE};
use super::network::{ANSWERS, CLIENT, FOR_EVER, GETS, Item, Link, SERVER};
use super::peer::Peer;
use super::plan::{Ending, Plan};
use super::random::Random;

const MS: u64 = 1_000;
const SECOND: u64 = 1_000_000;

/// The clock begins here: a number that does not fit in 32 bits.
const BEGIN: u64 = 1_700_000_000_000_000;

/// Everything must have arrived, and the session must have ended, so long after the network has calmed down.
const PATIENCE: u64 = 300 * SECOND;

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
    is_ending: bool,
    /// Somebody closed on purpose.
    close_asked: bool,
    went_away: bool,
    /// The network lets nothing through any more.
    is_dark: bool,
    is_over: bool,
    outcome: Outcome,
}

macro_rules! tell {
    ($world:expr, $($words:tt)*) => {
        if $world.tells {
            eprintln!("{:>12.6} {}", ($world.now - BEGIN) as f64 / 1e6, format!($($words)*));
        }
    };
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
            is_ending: false,
            close_asked: false,
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

    // ---- the network ----

    fn push(&mut self, link: usize, lane: usize, item: Item) {
        if self.links[link].is_cut {
            // Into a buffer that nobody empties.
            if let Item::Packet(bytes) = item {
                self.links[link].lanes[lane].bytes += bytes.len();
            }
            return;
        }
        let at = self.links[link].push(self.now, lane, item, &mut self.random);
        self.at(at, Happening::Arrive { link, lane });
    }

    /// A packet leaves: in pieces on webtransport, whole elsewhere.
    fn send_packet(&mut self, link: usize, lane: usize, mut packet: Bytes) {
        if self.links[link].traits.native_datagrams.is_some() {
            while self.random.one_in(2) && packet.len() > 1 {
                let at = self.random.between(1, packet.len() as u64 - 1) as usize;
                let piece = packet.split_to(at);
                self.push(link, lane, Item::Packet(piece));
            }
        } else if lane == SERVER && self.links[link].kind.posts() {
            self.links[link].post_under_way = true;
            if self.random.one_in(12) {
                // The browser sends it again, since the connection that it used was closed.
                self.push(link, lane, Item::Packet(packet.clone()));
            }
        }
        self.push(link, lane, Item::Packet(packet));
    }

    fn arrive(&mut self, link: usize, lane: usize) {
        let to = self.links[link].lanes[lane].to;
        let deaf_until = self.links[link].deaf_until[to];
        if deaf_until > self.now {
            if deaf_until < FOR_EVER {
                self.at(deaf_until, Happening::Arrive { link, lane });
            }
            return;
        }
        loop {
            if !self.links[link].held[to] {
                self.links[link].lanes[lane].items.clear();
                return;
            }
            // A native stream may overtake PING: its server looks at it when the link is the current one.
            let is_current = self.server.current == Some(link) && self.server.machine.is_open();
            if to == SERVER && self.links[link].lanes[lane].native.is_some() && !is_current {
                return self.after(2 * MS, Happening::Arrive { link, lane });
            }
            match self.links[link].lanes[lane].items.front() {
                Some((at, _)) if *at <= self.now => {}
                _ => return,
            }
            let Some((_, item)) = self.links[link].lanes[lane].items.pop_front() else { return };
            match item {
                Item::Packet(bytes) => self.packet_arrives(link, lane, bytes),
                Item::Turn if lane == GETS => self.links[link].get_waits = true,
                Item::Turn => self.links[link].post_under_way = false,
                Item::End => return self.link_ended(link, to),
            }
        }
    }

    fn packet_arrives(&mut self, link: usize, lane: usize, bytes: Bytes) {
        let it = &mut self.links[link];
        let to = it.lanes[lane].to;
        it.lanes[lane].bytes -= bytes.len();
        it.lanes[lane].decoder.push(bytes);
        let native = it.lanes[lane].native;
        while self.links[link].held[to] {
            match self.links[link].lanes[lane].decoder.next_frame() {
                Ok(Some(frame)) => self.frame_arrives(link, to, native, frame),
                Ok(None) => break,
                Err(error) => panic!("{error}"),
            }
        }
        let it = &self.links[link];
        if it.traits.native_datagrams.is_none() && it.held[to] {
            assert!(it.lanes[lane].decoder.is_empty(), "a packet ends inside a frame");
        }
        if it.kind.posts() && lane == SERVER {
            self.push(link, ANSWERS, Item::Turn);
        }
        if it_polls(&self.links[link]) && lane == CLIENT {
            self.push(link, GETS, Item::Turn);
        }
    }

    fn frame_arrives(&mut self, link: usize, to: usize, native: Option<usize>, frame: Frame) {
        if self.tells {
            tell!(
                self,
                "{} gets on {link}{}: {}",
                NAMES[to],
                if native.is_some() { " natively" } else { "" },
                short(&frame)
            );
        }
        let now = self.now;
        let current = if to == SERVER { self.server.current } else { self.owner.current };
        if current == Some(link) {
            if let Some(native) = native {
                let mut known = self.links[link].natives[native].known[to];
                self.peer(to).handle_native_frame(now, &mut known, frame);
                self.links[link].natives[native].known[to] = known;
            } else {
                self.peer(to).handle_frame(now, frame);
            }
            // The first frame on the link that a client has chosen: what is in it comes after all that came before.
            if to == CLIENT
                && let Some(late) = self.owner.late.take()
            {
                self.give_up(late, CLIENT);
            }
        } else if to == SERVER {
            self.frame_on_candidate(link, frame);
        } else if self.owner.late == Some(link) {
            self.machine.handle_late_frame(now, frame);
        } else if let Some(index) = self.owner.opening.iter().position(|(opening, ..)| *opening == link) {
            match frame {
                Frame::Welcome(_) => self.owner.opening[index].2 = Some(frame),
                Frame::Close(close) => {
                    assert!(
                        close.code == Code::OpenTimeout as u32 || close.code == Code::UnknownSession as u32,
                        "{close}"
                    );
                    self.owner.opening.remove(index);
                    self.give_up(link, CLIENT);
                }
                _ => panic!("the server says more than WELCOME on a candidate: {frame:?}"),
            }
        }
    }

    fn frame_on_candidate(&mut self, link: usize, frame: Frame) {
        let Some(index) = self.server.candidates.iter().position(|(candidate, _)| *candidate == link) else { return };
        let (_, candidate) = self.server.candidates.remove(index);
        let traits = self.links[link].traits;
        match self.server.machine.adopt(self.now, &candidate, traits, &frame) {
            Ok(()) => {
                self.outcome.adopted += 1;
                if let Some(before) = self.server.current.replace(link) {
                    self.give_up(before, SERVER);
                }
            }
            Err(Refused::Late) => {
                self.outcome.late += 1;
                self.give_up(link, SERVER);
            }
            Err(Refused::Left) => self.give_up(link, SERVER),
            Err(Refused::Wrong(close)) => {
                assert!(close.code == Code::UnknownSession as u32, "{close}");
                self.refuse(link, close);
            }
        }
    }

    /// A CLOSE on a candidate.
    fn refuse(&mut self, link: usize, close: Close) {
        let mut frame = bytes::BytesMut::new();
        Frame::Close(close).encode(&mut frame);
        self.push(link, CLIENT, Item::Packet(frame.freeze()));
        self.give_up(link, SERVER);
    }

    /// A side lets go of a link, in good order.
    fn give_up(&mut self, link: usize, side: usize) {
        if std::mem::take(&mut self.links[link].held[side]) {
            self.push(link, 1 - side, Item::End);
        }
    }

    /// A side finds out that a link has ended.
    fn link_ended(&mut self, link: usize, side: usize) {
        if !std::mem::take(&mut self.links[link].held[side]) {
            return;
        }
        tell!(self, "{}: link {link} has ended", NAMES[side]);
        let now = self.now;
        if side == SERVER {
            self.server.candidates.retain(|(candidate, _)| *candidate != link);
            if self.server.current == Some(link) {
                self.server.current = None;
                self.server.without_link_since = now;
                self.peer(SERVER).link_lost(now);
            }
        } else {
            self.owner.opening.retain(|(opening, ..)| *opening != link);
            if self.owner.late == Some(link) {
                self.owner.late = None;
            }
            if self.owner.current == Some(link) {
                self.owner.current = None;
                self.machine.link_lost(now);
            }
        }
    }

    /// The network does harm.
    fn strike(&mut self) {
        let alive: Vec<usize> = (0..self.links.len())
            .filter(|link| !self.links[*link].is_cut && self.links[*link].held.contains(&true))
            .collect();
        let Some(link) = self.random.pick(&alive) else { return };
        match self.random.below(5) {
            0 | 1 => {
                tell!(self, "link {link} is cut");
                self.links[link].cut(&mut self.random);
                for side in [SERVER, CLIENT] {
                    // Or it is never found out, but by silence.
                    if !self.random.one_in(4) {
                        let delay = self.random.magnitude(MS, 3 * SECOND);
                        self.after(delay, Happening::Ended { link, side });
                    }
                }
            }
            which => {
                let sides = match which {
                    2 => vec![SERVER, CLIENT],
                    _ => vec![self.random.below(2) as usize],
                };
                let until = match self.random.one_in(3) {
                    true => FOR_EVER,
                    false => self.now + self.random.magnitude(20 * MS, 6 * SECOND),
                };
                tell!(self, "link {link} goes deaf to {sides:?} until {until}");
                for side in sides {
                    let deaf = &mut self.links[link].deaf_until[side];
                    *deaf = until.max(*deaf);
                }
            }
        }
    }

    fn calm_down(&mut self) {
        tell!(self, "it is calm");
        self.is_calm = true;
        for side in [SERVER, CLIENT] {
            (self.applications[side].messages_left, self.applications[side].streams_left) = (0, 0);
        }
    }

    // ---- the server's owner ----

    fn opening_arrives(&mut self, link: usize, resume: Option<(u8, u64)>) {
        if self.links[link].is_cut || !self.links[link].held[SERVER] {
            return;
        }
        let (now, traits) = (self.now, self.links[link].traits);
        self.links[link].get_waits = self.links[link].kind == super::network::Kind::Poll;
        match resume {
            Some((id, received)) if id == self.server.id && Peer::closed(&mut self.server.machine).is_none() => {
                match self.server.machine.offer(now, received) {
                    Ok(candidate) => {
                        tell!(self, "link {link} is offered: received {received}");
                        self.links[link].get_waits = false;
                        self.push(link, CLIENT, Item::Packet(candidate.welcome.clone().into_bytes()));
                        if self.server.candidates.len() == 4 {
                            let (oldest, _) = self.server.candidates.remove(0);
                            self.give_up(oldest, SERVER);
                        }
                        self.server.candidates.push((link, candidate));
                    }
                    Err(close) => panic!("the server offers no link: {close}"),
                }
            }
            Some(_) => {
                // Another session in the place of that one: what its WELCOME says is all that the client needs to know.
                assert!(self.server.is_over, "the server forgot a session that has not ended");
                let mut fresh =
                    Machine::server(self.plan.configs[SERVER].clone(), SessionId([99; 16]), ResumeKey([9; 16]));
                fresh.link_opened(now, traits);
                let welcome = fresh.poll_transmit(now, 65_536).expect("WELCOME is the first packet");
                self.push(link, CLIENT, Item::Packet(welcome.into_bytes()));
            }
            // The client has given it up: a server would open a session that nobody ever hears of.
            None if !self.links[link].held[CLIENT] => {}
            None => {
                // The client has not heard of the session before, if there was one.
                self.server.id += 1;
                let id = self.server.id;
                self.server.machine =
                    Machine::server(self.plan.configs[SERVER].clone(), SessionId([id; 16]), ResumeKey([id; 16]));
                self.server.machine.link_opened(now, traits);
                self.server.candidates.clear();
                self.server.current = Some(link);
                self.server.is_over = false;
                (self.applications[SERVER].opened, self.applications[SERVER].closed) = (false, None);
            }
        }
    }

    fn time_out_candidates(&mut self) {
        let now = self.now;
        let (over, rest) = std::mem::take(&mut self.server.candidates)
            .into_iter()
            .partition::<Vec<_>, _>(|(_, candidate)| candidate.deadline <= now);
        self.server.candidates = rest;
        for (link, _) in over {
            self.refuse(link, Close::protocol(Code::OpenTimeout, "no frame came"));
        }
    }

    // ---- the client's owner ----

    /// What a client may do about its links. A real one has reasons.
    fn decide(&mut self) {
        let now = self.now;
        if self.owner.is_over || self.owner.is_closing {
            return; // who is about to say CLOSE does not move any more
        }
        let patience = if self.is_calm { 4 * SECOND } else { self.random.magnitude(500 * MS, 5 * SECOND) };
        let (given_up, rest) = std::mem::take(&mut self.owner.opening)
            .into_iter()
            .partition::<Vec<_>, _>(|(_, since, _)| now > since + patience);
        self.owner.opening = rest;
        for (link, ..) in given_up {
            self.give_up(link, CLIENT);
        }
        for (link, since, welcome) in std::mem::take(&mut self.owner.opening) {
            match welcome {
                None => self.owner.opening.push((link, since, None)),
                Some(welcome) if self.is_calm || self.random.percent(70) => self.choose(link, welcome),
                Some(welcome) if self.random.one_in(2) => self.owner.opening.push((link, since, Some(welcome))),
                Some(_) => self.give_up(link, CLIENT),
            }
        }
        self.is_dark &= !self.server.is_over;
        let wants = match self.owner.current {
            _ if self.owner.is_over || self.is_dark => 0,
            None if self.owner.opening.is_empty() => 1 + self.random.below(2),
            Some(_) if !self.is_calm && self.random.percent(self.plan.moves) => 1 + self.random.below(3),
            _ => 0,
        };
        // Before WELCOME each link would be another session.
        let wants = if self.owner.session.is_none() { wants.min(1) } else { wants };
        for _ in 0..wants.min(6 - self.owner.opening.len().min(6) as u64) {
            self.open_link();
        }
    }

    fn open_link(&mut self) {
        let kind = self.random.pick(&self.plan.kinds).expect("a plan has a kind of link");
        let link = self.links.len();
        let it = Link::new(kind, self.plan.packet, self.is_calm, &mut self.random);
        tell!(self, "client opens {link}: {kind:?} {:?}, room {}, packets {:?}", it.traits, it.capacity, it.max_packet);
        let delay = it.delay(&mut self.random);
        self.links.push(it);
        self.outcome.links += 1;
        self.owner.opening.push((link, self.now, None));
        let late = u64::from(self.fault == Fault::LateReplay);
        let resume = self.owner.session.map(|id| {
            let received = self.machine.received();
            (id, if received > 0 { received + late } else { 0 })
        });
        self.after(delay, Happening::Opening { link, resume });
    }

    fn choose(&mut self, link: usize, welcome: Frame) {
        let Frame::Welcome(said) = &welcome else { return };
        let is_ours = self.owner.session.is_none_or(|id| said.resumed && said.session == SessionId([id; 16]));
        if !is_ours && self.owner.current.is_some() {
            return self.give_up(link, CLIENT); // not while the session lives
        }
        tell!(self, "client chooses {link}: {}", short(&welcome));
        self.owner.session.get_or_insert(said.session.0[0]);
        let (now, traits) = (self.now, self.links[link].traits);
        self.machine.link_opened(now, traits);
        self.machine.handle_frame(now, welcome);
        if let Some(late) = self.owner.late.take() {
            self.give_up(late, CLIENT);
        }
        let before = self.owner.current.replace(link);
        if let Some(before) = before {
            if self.random.one_in(3) {
                self.give_up(before, CLIENT);
            } else {
                self.owner.late = Some(before);
            }
        }
        if !is_ours {
            // The server has checked that its session was over.
            self.outcome.gaps += 1;
            let close = self.machine.closed();
            tell!(self, "the session is gone: {close:?}");
        }
        self.pump();
    }

    // ---- what leaves ----

    fn pump(&mut self) {
        self.pump_side(SERVER);
        self.pump_side(CLIENT);
    }

    fn pump_side(&mut self, side: usize) {
        let current = if side == SERVER { self.server.current } else { self.owner.current };
        let Some(link) = current else { return };
        let (now, to) = (self.now, 1 - side);
        loop {
            let it = &self.links[link];
            let waits =
                if side == CLIENT { it.kind.posts() && it.post_under_way } else { it_polls(it) && !it.get_waits };
            if waits || !it.has_room(to) {
                break;
            }
            let max = it.max_packet[to];
            let Some(packet) = self.peer(side).poll_transmit(now, max) else { break };
            assert!(packet.len() <= max.max(1_100), "a packet of {} bytes, of at most {max}", packet.len());
            tell!(self, "{} sends {} bytes on {link}", NAMES[side], packet.len());
            self.links[link].get_waits &= side == CLIENT;
            self.send_packet(link, to, packet);
        }
        while let Some(payload) = self.peer(side).poll_datagram() {
            self.send_native_datagram(link, to, payload);
        }
        if self.links[link].traits.native_streams {
            self.pump_natives(side, link);
        }
        let is_closed = self.peer(side).closed().is_some();
        if is_closed || !self.peer(side).has_link() {
            tell!(self, "{} leaves link {link}, closed: {is_closed}", NAMES[side]);
            self.give_up(link, side);
            if side == SERVER {
                self.server.current = None;
                self.server.without_link_since = now;
            } else {
                self.owner.current = None;
            }
        }
    }

    fn send_native_datagram(&mut self, link: usize, to: usize, payload: Bytes) {
        let it = &self.links[link];
        if it.is_cut || self.random.percent(it.loss) {
            return;
        }
        for _ in 0..=u64::from(self.random.percent(it.twice)) {
            // Each has its own way: they overtake each other, and what is on the streams.
            let it = &self.links[link];
            let at = self.now + it.delay(&mut self.random);
            self.at(at, Happening::Datagram { link, to, payload: payload.clone() });
        }
    }

    fn pump_natives(&mut self, side: usize, link: usize) {
        let (now, to) = (self.now, 1 - side);
        while let Some(stream) = self.peer(side).poll_unrouted() {
            let native = !self.random.one_in(6);
            self.peer(side).route(stream, native);
            if native {
                let mut known = [None; 2];
                known[side] = Some(stream);
                self.links[link].add_native(known);
            }
        }
        for native in 0..self.links[link].natives.len() {
            let it = &self.links[link].natives[native];
            let (Some(stream), lane) = (it.known[side], it.lanes[to]) else { continue };
            while self.links[link].has_room(lane) {
                let max = self.links[link].max_packet[to];
                let Some(packet) = self.peer(side).poll_native(now, stream, max) else { break };
                self.send_packet(link, lane, packet);
            }
        }
    }

    // ---- the applications ----

    fn act(&mut self, side: usize) {
        if self.is_calm {
            return self.act_in_calm(side);
        }
        let appetite = self.applications[side].appetite;
        for _ in 0..1 + self.random.below(4) {
            match self.random.below(10) {
                0 | 1 => {
                    let count = self.random.magnitude(1, 20);
                    self.send_messages(side, count);
                }
                2 => self.send_datagram(side),
                3 | 4 => self.take(side, appetite),
                5 => self.open_stream(side),
                _ => self.act_on_a_stream(side),
            }
        }
    }

    fn act_in_calm(&mut self, side: usize) {
        self.take(side, 1_000);
        let streams: Vec<u64> = self.applications[side].streams.keys().copied().collect();
        for stream in streams {
            if self.handle(side, stream).released {
                continue;
            }
            while self.handle(side, stream).reads() && self.read(side, stream, 65_536) {}
            if self.handle(side, stream).writes() {
                self.finish_stream(side, stream);
            }
            let handle = self.handle(side, stream);
            if !handle.writes() && !handle.reads() {
                handle.released = true;
                self.peer(side).stream_release(stream);
            }
        }
        self.send_datagram(side);
        self.calm_datagrams[side].get_or_insert(self.applications[side].datagrams_sent.saturating_sub(1));
        if self.is_settled() && !self.is_ending {
            let how = self.plan.ending;
            if let Ending::Close(side) = how {
                self.applications[side].messages_left = self.random.below(4);
                self.send_messages(side, 4);
            }
            self.end(how);
        }
    }

    /// Whether everything has arrived, and nothing is left over.
    fn is_settled(&mut self) -> bool {
        let counts = |from: &Application, to: &Application| from.sent == to.taken && from.opened;
        let [server, client] = &self.applications;
        counts(server, client)
            && counts(client, server)
            && (0..2).all(|side| {
                let newest = self.applications[1 - side].newest_datagram;
                self.calm_datagrams[side].is_some_and(|first| newest.is_some_and(|newest| newest >= first))
            })
            && (0..2).all(|side| self.peer(side).buffered() == 0 && self.peer(side).held().streams == 0)
    }

    fn end(&mut self, how: Ending) {
        tell!(self, "the end begins: {how:?}");
        let now = self.now;
        match how {
            Ending::Close(side) => {
                self.close_asked = true;
                self.owner.is_closing |= side == CLIENT;
                self.peer(side).close(now, Close::application(7 + side as u32, "enough"));
            }
            Ending::GoAway => {
                self.went_away = true;
                let delay_ms = self.random.below(3_000);
                self.server.machine.go_away(now, delay_ms);
            }
            Ending::Window => {
                self.is_dark = true;
                for link in 0..self.links.len() {
                    self.links[link].deaf_until = [FOR_EVER; 2];
                }
            }
        }
        self.is_ending = true;
    }

    fn handle(&mut self, side: usize, stream: u64) -> &mut Handle {
        self.applications[side].streams.get_mut(&stream).expect("a stream that is known")
    }

    fn send_messages(&mut self, side: usize, count: u64) {
        if !self.applications[side].opened && side == SERVER {
            return;
        }
        for _ in 0..count.min(self.applications[side].messages_left) {
            let index = self.applications[side].sent;
            let buffer = self.plan.configs[side].send_buffer_bytes;
            match self.peer_send(side, index) {
                Ok(()) => {
                    self.applications[side].sent += 1;
                    self.applications[side].messages_left -= 1;
                }
                Err(TrySendError::Full) => {
                    let buffered = self.peer(side).buffered();
                    assert!(buffered >= buffer, "full at {buffered} of {buffer} bytes");
                    return;
                }
                Err(TrySendError::Closed(_)) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn peer_send(&mut self, side: usize, index: u64) -> Result<(), TrySendError> {
        let message = application::message(self.seed, side, index);
        self.peer(side).send(message)
    }

    fn send_datagram(&mut self, side: usize) {
        if self.applications[side].opened {
            let index = self.applications[side].datagrams_sent;
            self.applications[side].datagrams_sent += 1;
            let len = if self.is_calm { 4 } else { self.random.magnitude(1, self.plan.datagram) as usize };
            let key = if self.is_calm { Some(1) } else { self.random.one_in(2).then_some(index % 3) };
            self.peer(side).send_datagram(application::datagram(index, len), key);
        }
    }

    fn take(&mut self, side: usize, count: u64) {
        for _ in 0..count {
            let Some(event) = self.peer(side).poll_event() else { return };
            let seed = self.seed;
            let [a, b] = &mut self.applications;
            let (me, other) = if side == SERVER { (a, b) } else { (b, a) };
            assert_eq!(me.closed, None, "{event:?} after the end");
            match event {
                Event::Opened => {
                    assert!(!me.opened, "opened twice");
                    me.opened = true;
                }
                Event::Message(message) => {
                    assert!(me.taken < other.sent, "message {} was never sent", me.taken);
                    let expected = application::message(seed, 1 - side, me.taken);
                    assert_eq!(message, expected, "message {} to {}", me.taken, NAMES[side]);
                    me.taken += 1;
                    me.taken_bytes += (message.len() + 1 + varint::len(message.len() as u64)) as u64;
                    self.outcome.messages += 1;
                }
                Event::Datagram(payload) => {
                    let index = u64::from_be_bytes(payload[..8].try_into().expect("8 bytes of index"));
                    assert!(index < other.datagrams_sent && payload == application::datagram(index, payload.len() - 8));
                    me.newest_datagram = me.newest_datagram.max(Some(index));
                }
                Event::Stream(stream) => {
                    assert_eq!(stream % 2, side as u64 ^ 1, "whose stream");
                    assert!(other.streams.contains_key(&stream), "stream {stream} was never opened");
                    assert!(me.streams.insert(stream, Handle::default()).is_none(), "stream {stream} twice");
                }
                Event::Closed(close) => me.closed = Some(close),
            }
        }
    }

    fn open_stream(&mut self, side: usize) {
        if self.applications[side].streams_left == 0 || !self.applications[side].opened {
            return;
        }
        let Ok(stream) = self.peer(side).open_stream() else { return };
        let app = &mut self.applications[side];
        // A client's are 1, 3, 5, a server's 2, 4, 6.
        assert_eq!(stream, 2 * app.opened_streams + if side == CLIENT { 1 } else { 2 });
        app.opened_streams += 1;
        app.streams_left -= 1;
        app.streams.insert(stream, Handle::default());
        self.outcome.streams += 1;
    }

    fn act_on_a_stream(&mut self, side: usize) {
        let open: Vec<u64> =
            self.applications[side].streams.iter().filter(|(_, handle)| !handle.released).map(|(id, _)| *id).collect();
        let Some(stream) = self.random.pick(&open) else { return };
        let code = self.random.below(1_000) as u32;
        match self.random.below(40) {
            0 if self.handle(side, stream).writes() => {
                self.handle(side, stream).reset = Some(code);
                self.peer(side).stream_reset(stream, code);
            }
            1 if self.handle(side, stream).reads() => {
                self.handle(side, stream).stopped = Some(code);
                self.peer(side).stream_stop(stream, code);
            }
            2 if self.random.one_in(2) => {
                self.handle(side, stream).released = true;
                self.peer(side).stream_release(stream);
            }
            3..=5 if self.handle(side, stream).writes() => self.finish_stream(side, stream),
            6..=22 if self.handle(side, stream).writes() => {
                let len = self.random.magnitude(1, 60_000);
                let data = application::bytes(side, stream, self.handle(side, stream).written, len);
                match self.peer(side).stream_write(stream, &data) {
                    Ok(written) => {
                        assert!(written <= data.len());
                        self.handle(side, stream).written += written as u64;
                    }
                    Err(error) => self.cannot_write(side, stream, &error),
                }
            }
            _ if self.handle(side, stream).reads() => {
                let max = self.random.magnitude(1, 65_536) as usize;
                self.read(side, stream, max);
            }
            _ => {}
        }
    }

    fn finish_stream(&mut self, side: usize, stream: u64) {
        match self.peer(side).stream_finish(stream) {
            Ok(()) => self.handle(side, stream).finished = true,
            Err(error) => self.cannot_write(side, stream, &error),
        }
    }

    fn cannot_write(&mut self, side: usize, stream: u64, error: &StreamError) {
        match error {
            StreamError::Stopped(code) => {
                let other = self.handle(1 - side, stream);
                let stopped = other.stopped == Some(*code) || (other.released && *code == 0);
                assert!(stopped, "stream {stream} was stopped with {code} by nobody");
                self.handle(side, stream).told_stopped = true;
            }
            StreamError::Closed(_) => {}
            error => panic!("stream {stream} of {}: {error}", NAMES[side]),
        }
    }

    /// Reads something; whether there was something.
    fn read(&mut self, side: usize, stream: u64, max: usize) -> bool {
        let read = self.peer(side).stream_read(stream, max);
        let from = self.handle(side, stream).read;
        let other = self.applications[1 - side].streams.get(&stream);
        let (written, finished, reset, released) =
            other.map_or((0, false, None, false), |other| (other.written, other.finished, other.reset, other.released));
        let handle = self.handle(side, stream);
        match read {
            Ok(StreamRead::Data(data)) => {
                assert!(!data.is_empty() && from + data.len() as u64 <= written, "bytes that were never written");
                let right = application::bytes(1 - side, stream, from, data.len() as u64);
                assert!(data == right, "stream {stream} to {} at {from}: other bytes than were written", NAMES[side]);
                handle.read += data.len() as u64;
                return true;
            }
            Ok(StreamRead::Nothing) => {}
            Ok(StreamRead::End) => {
                assert!(finished && from == written, "stream {stream} ends at {from} of {written}");
                handle.ended = Some(Ended::End);
            }
            Err(StreamError::Reset(code)) => {
                let right = reset == Some(code) || (released && !finished && code == 0);
                assert!(right, "stream {stream} was reset with {code} by nobody");
                handle.ended = Some(Ended::Reset(code));
            }
            Err(StreamError::Closed(_)) => {}
            Err(error) => panic!("stream {stream} to {}: {error}", NAMES[side]),
        }
        false
    }

    // ---- what must hold ----

    fn check(&mut self) {
        for side in [SERVER, CLIENT] {
            let config = &self.plan.configs[side];
            let (buffer, window) = (config.send_buffer_bytes, config.receive_window_bytes);
            let (streams, session) = (config.max_streams, config.session_stream_bytes);
            let taken = self.applications[side].taken_bytes;
            let peer = self.peer(side);
            let (buffered, received, held) = (peer.buffered(), peer.received(), peer.held());
            assert!(buffered < buffer + MAX_MESSAGE + 5, "{buffered} bytes to send, buffer {buffer}");
            let waiting = received - taken;
            assert!(waiting <= window + MAX_MESSAGE + 5, "{waiting} bytes wait for the application, window {window}");
            // Those of either side; a client takes 100.
            let most = streams.max(100) as usize + 100;
            assert!(held.streams <= most && held.due <= 2 * most, "{held:?}");
            let bytes = session + 16_384 * held.streams as u64;
            assert!(held.unread <= bytes && held.unacknowledged <= bytes, "{held:?}, {bytes} bytes are allowed");
        }
        self.check_ends();
    }

    fn check_ends(&mut self) {
        let now = self.now;
        if !self.server.is_over
            && let Some(close) = Peer::closed(&mut self.server.machine)
        {
            tell!(self, "server: {close}");
            self.server.is_over = true;
            let alone = now - self.server.without_link_since;
            let established = self.server.machine.is_established();
            let window = self.plan.configs[SERVER].resume_window_ms * MS;
            let right = match close.code {
                code if close.origin == throughline_protocol::Origin::Application => {
                    self.close_asked && (code == 7 || code == 8)
                }
                code if code == Code::LinkLost as u32 => {
                    self.server.current.is_none() && alone >= if established { window } else { window.min(3 * SECOND) }
                }
                code if code == Code::OpenTimeout as u32 => !established,
                code if code == Code::ShuttingDown as u32 => self.went_away,
                _ => false,
            };
            assert!(right, "the server's session ended with {close} after {alone} us without a link");
        }
        if !self.server.is_over && self.server.current.is_none() && self.server.id > 1 {
            let alone = now - self.server.without_link_since;
            let window = self.plan.configs[SERVER].resume_window_ms * MS;
            assert!(alone <= window, "the session is kept for {alone} us, with a window of {window}");
        }
        if !self.owner.is_over
            && let Some(close) = self.machine.closed()
        {
            tell!(self, "client: {close}");
            self.owner.is_over = true;
            let by_application = close.origin == throughline_protocol::Origin::Application;
            let right = match close.code {
                7 | 8 if by_application => self.close_asked,
                code if code == Code::UnknownSession as u32 => self.server.is_over,
                code if code == Code::ShuttingDown as u32 => self.went_away,
                code if code == Code::OpenTimeout as u32 => !self.server.machine.is_established(),
                _ => false,
            };
            assert!(right, "the client's session ended with {close}");
            self.is_over = true;
        }
    }

    /// The session has ended: what had arrived is still there.
    fn finish(&mut self) {
        for side in [SERVER, CLIENT] {
            self.take(side, u64::MAX);
        }
        let close = self.machine.closed().expect("the client's session has ended");
        assert_eq!(self.applications[CLIENT].closed.as_ref(), Some(&close), "the application is told how");
        let [server, client] = &self.applications;
        if close.code == Code::ShuttingDown as u32 {
            // Nothing was lost: the client holds back what it has not begun, for the next session.
            self.outcome.went_away += 1;
            assert_eq!(client.taken, server.sent, "messages of the server were lost when it went away");
            let held: u64 = (server.taken..client.sent)
                .map(|index| {
                    let len = application::message(self.seed, CLIENT, index).len() as u64;
                    len + 1 + varint::len(len) as u64
                })
                .sum();
            assert_eq!(self.machine.buffered(), held, "messages of the client were lost when the server went away");
        }
        if close.origin == throughline_protocol::Origin::Application && close.code == 7 {
            // The server's own: CLOSE came after everything before it.
            assert_eq!(client.taken, server.sent, "messages before CLOSE were lost");
        }
    }

    fn state(&mut self) -> String {
        let held = [SERVER, CLIENT].map(|side| {
            let peer = self.peer(side);
            (peer.buffered(), peer.received(), peer.held(), peer.closed())
        });
        let counts = self.applications.iter().map(|app| (app.sent, app.taken)).collect::<Vec<_>>();
        format!(
            "server on {:?}, client on {:?}, opening {:?}; {held:?}; sent and taken {counts:?}; datagrams {:?}",
            self.server.current,
            self.owner.current,
            self.owner.opening.iter().map(|(link, ..)| *link).collect::<Vec<_>>(),
            self.applications.iter().map(|app| app.newest_datagram).collect::<Vec<_>>(),
        )
    }
}

const NAMES: [&str; 2] = ["server", "client"];

fn it_polls(link: &Link) -> bool {
    link.kind == super::network::Kind::Poll
}

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
