//! What happens on the links: what arrives, and what harm the network does.

use bytes::Bytes;
use throughline_protocol::{Close, Code, Frame, Refused};

use super::{Happening, MS, NAMES, SECOND, World, short};
use crate::network::{ANSWERS, CLIENT, FOR_EVER, GETS, Item, Kind, SERVER};

impl World {
    pub(super) fn push(&mut self, link: usize, lane: usize, item: Item) {
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
    pub(super) fn send_packet(&mut self, link: usize, lane: usize, mut packet: Bytes) {
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

    pub(super) fn arrive(&mut self, link: usize, lane: usize) {
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

    pub(super) fn packet_arrives(&mut self, link: usize, lane: usize, bytes: Bytes) {
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
        if self.links[link].kind == Kind::Poll && lane == CLIENT {
            self.push(link, GETS, Item::Turn);
        }
    }

    pub(super) fn frame_arrives(&mut self, link: usize, to: usize, native: Option<usize>, frame: Frame) {
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

    pub(super) fn frame_on_candidate(&mut self, link: usize, frame: Frame) {
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
    pub(super) fn refuse(&mut self, link: usize, close: Close) {
        let mut frame = bytes::BytesMut::new();
        Frame::Close(close).encode(&mut frame);
        self.push(link, CLIENT, Item::Packet(frame.freeze()));
        self.give_up(link, SERVER);
    }

    /// A side lets go of a link, in good order.
    pub(super) fn give_up(&mut self, link: usize, side: usize) {
        if std::mem::take(&mut self.links[link].held[side]) {
            self.push(link, 1 - side, Item::End);
        }
    }

    /// A side finds out that a link has ended.
    pub(super) fn link_ended(&mut self, link: usize, side: usize) {
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
    pub(super) fn strike(&mut self) {
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

    pub(super) fn calm_down(&mut self) {
        tell!(self, "it is calm");
        self.is_calm = true;
        for side in [SERVER, CLIENT] {
            (self.applications[side].messages_left, self.applications[side].streams_left) = (0, 0);
        }
    }

    pub(super) fn pump(&mut self) {
        self.pump_side(SERVER);
        self.pump_side(CLIENT);
    }

    pub(super) fn pump_side(&mut self, side: usize) {
        let current = if side == SERVER { self.server.current } else { self.owner.current };
        let Some(link) = current else { return };
        let (now, to) = (self.now, 1 - side);
        loop {
            let it = &self.links[link];
            let waits = if side == CLIENT {
                it.kind.posts() && it.post_under_way
            } else {
                it.kind == Kind::Poll && !it.get_waits
            };
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

    pub(super) fn send_native_datagram(&mut self, link: usize, to: usize, payload: Bytes) {
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

    pub(super) fn pump_natives(&mut self, side: usize, link: usize) {
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
}
