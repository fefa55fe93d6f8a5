//! What the applications do, and what they must get.

use throughline_protocol::{Close, Event, StreamError, StreamRead, TrySendError, varint};

use super::{NAMES, World};
use crate::application::{self, Application, Ended, Handle};
use crate::network::{CLIENT, FOR_EVER, SERVER};
use crate::plan::Ending;

impl World {
    pub(super) fn act(&mut self, side: usize) {
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

    pub(super) fn act_in_calm(&mut self, side: usize) {
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
        if !self.calm_streams[side] {
            self.applications[side].streams_left = 1;
            self.open_stream(side);
            self.calm_streams[side] = self.applications[side].streams_left == 0;
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
    pub(super) fn is_settled(&mut self) -> bool {
        let counts = |from: &Application, to: &Application| from.sent == to.taken && from.opened;
        let [server, client] = &self.applications;
        self.calm_streams == [true; 2]
            && counts(server, client)
            && counts(client, server)
            && (0..2).all(|side| {
                let newest = self.applications[1 - side].newest_datagram;
                self.calm_datagrams[side].is_some_and(|first| newest.is_some_and(|newest| newest >= first))
            })
            && (0..2).all(|side| self.peer(side).buffered() == 0 && self.peer(side).held().streams == 0)
    }

    pub(super) fn end(&mut self, how: Ending) {
        tell!(self, "the end begins: {how:?}");
        let now = self.now;
        match how {
            Ending::Close(side) => {
                self.close_asked = true;
                self.asked_at = now;
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

    pub(super) fn handle(&mut self, side: usize, stream: u64) -> &mut Handle {
        self.applications[side].streams.get_mut(&stream).expect("a stream that is known")
    }

    pub(super) fn send_messages(&mut self, side: usize, count: u64) {
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

    pub(super) fn peer_send(&mut self, side: usize, index: u64) -> Result<(), TrySendError> {
        let message = application::message(self.seed, side, index);
        self.peer(side).send(message)
    }

    pub(super) fn send_datagram(&mut self, side: usize) {
        if self.applications[side].opened {
            let index = self.applications[side].datagrams_sent;
            self.applications[side].datagrams_sent += 1;
            let len = if self.is_calm { 4 } else { self.random.magnitude(1, self.plan.datagram) as usize };
            let key = if self.is_calm { Some(1) } else { self.random.one_in(2).then_some(index % 3) };
            self.peer(side).send_datagram(application::datagram(index, len), key);
        }
    }

    pub(super) fn take(&mut self, side: usize, count: u64) {
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

    pub(super) fn open_stream(&mut self, side: usize) {
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

    pub(super) fn act_on_a_stream(&mut self, side: usize) {
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

    pub(super) fn finish_stream(&mut self, side: usize, stream: u64) {
        match self.peer(side).stream_finish(stream) {
            Ok(()) => self.handle(side, stream).finished = true,
            Err(error) => self.cannot_write(side, stream, &error),
        }
    }

    pub(super) fn cannot_write(&mut self, side: usize, stream: u64, error: &StreamError) {
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
    pub(super) fn read(&mut self, side: usize, stream: u64, max: usize) -> bool {
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
}
