//! What must hold after every step, and at the end.

use throughline_protocol::{Code, varint};

use super::{MS, SECOND, World};
use crate::application::{self, MAX_MESSAGE};
use crate::network::{CLIENT, SERVER};
use crate::peer::Peer;

impl World {
    pub(super) fn check(&mut self) {
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

    pub(super) fn check_ends(&mut self) {
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
    pub(super) fn finish(&mut self) {
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
        let in_time = self.now < self.asked_at + 3 * SECOND;
        if in_time && close.origin == throughline_protocol::Origin::Application && close.code == 7 {
            // The server's own: CLOSE came after everything before it, unless that had no credit for 3 s.
            assert_eq!(client.taken, server.sent, "messages before CLOSE were lost");
        }
    }

    pub(super) fn state(&mut self) -> String {
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
