//! What a protocol is to the load generator: a thing that takes bytes and gives messages, without IO, so that one client ([`super::client`]) serves all of them.

use std::time::Instant;

use crate::Failure;

/// One conversation of a client. Its bytes travel on *lanes*: each is a TCP connection. All use the first; some send their requests on the second.
pub(crate) trait Wire {
    /// A connection is there, the first or another one after it was cut: writes what opens the conversation, or resumes it.
    fn start(&mut self, io: &mut Io<'_>);

    /// Takes what has come on a lane.
    fn take(&mut self, lane: usize, bytes: &[u8], io: &mut Io<'_>) -> Result<(), Failure>;

    /// Writes a message of the application.
    fn send(&mut self, message: &[u8], io: &mut Io<'_>) -> Result<(), Failure>;

    /// Whether the server has let it in.
    fn is_open(&self) -> bool;

    /// When [`Wire::tick`] wants to be called.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// The time of the deadline has come.
    fn tick(&mut self, _io: &mut Io<'_>) -> Result<(), Failure> {
        Ok(())
    }

    /// Whether the last start went on with what the server knew from before.
    fn is_resumed(&self) -> bool {
        false
    }
}

/// Lanes of a conversation.
pub(crate) const LANES: usize = 2;

/// Where the bytes of a conversation go.
pub(crate) struct Io<'a> {
    /// To the server, by lane. A lane is connected when there is something for it.
    pub(crate) out: &'a mut [Vec<u8>; LANES],
    /// To the workload: one message.
    pub(crate) message: &'a mut dyn FnMut(&[u8]),
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Lets a wire take bytes in pieces of every length, and returns the messages, and what it answers on the first lane.
    pub(crate) fn feed(wire: &mut dyn Wire, lane: usize, bytes: &[u8], piece: usize) -> (Vec<Vec<u8>>, Vec<u8>) {
        let (mut out, mut messages) = ([Vec::new(), Vec::new()], Vec::new());
        for piece in bytes.chunks(piece) {
            let mut message = |message: &[u8]| messages.push(message.to_vec());
            wire.take(lane, piece, &mut Io { out: &mut out, message: &mut message }).unwrap();
        }
        (messages, std::mem::take(&mut out[0]))
    }
}
