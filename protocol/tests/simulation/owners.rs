//! The owners of both machines: the server answers openings, the client is a ladder without reason.

use throughline_protocol::{Close, Code, Frame, Machine, ResumeKey, SessionId};

use super::{Fault, Happening, MS, SECOND, World, short};
use crate::network::{CLIENT, Item, Kind, Link, SERVER};
use crate::peer::Peer;

impl World {
    pub(super) fn opening_arrives(&mut self, link: usize, resume: Option<(u8, u64)>) {
        if self.links[link].is_cut || !self.links[link].held[SERVER] {
            return;
        }
        let (now, traits) = (self.now, self.links[link].traits);
        self.links[link].get_waits = self.links[link].kind == Kind::Poll;
        match resume {
            Some((id, received)) if id == self.server.id && Peer::closed(&mut self.server.machine).is_none() => {
                match self.server.machine.offer(now, received, traits, None) {
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

    pub(super) fn time_out_candidates(&mut self) {
        let now = self.now;
        let (over, rest) = std::mem::take(&mut self.server.candidates)
            .into_iter()
            .partition::<Vec<_>, _>(|(_, candidate)| candidate.deadline <= now);
        self.server.candidates = rest;
        for (link, _) in over {
            self.refuse(link, Close::protocol(Code::OpenTimeout, "no frame came"));
        }
    }

    /// What a client may do about its links. A real one has reasons.
    pub(super) fn decide(&mut self) {
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

    pub(super) fn open_link(&mut self) {
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

    pub(super) fn choose(&mut self, link: usize, welcome: Frame) {
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
}
