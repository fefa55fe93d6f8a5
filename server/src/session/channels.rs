//! Channel messages of a session: from its machine to whoever handles channels.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use throughline_protocol::{ChannelCode, ChannelMessage, Close, Code, channel};

use super::Session;
use super::shared::Shared;

#[cfg(test)]
mod tests;

/// Handles what clients say about channels: the hub.
pub(crate) trait ChannelHandler: Any + Send + Sync {
    /// A request of this session: each with a number above those before. Owes one [`Session::answer`], now or later. One session's
    /// requests come one after the other, from its driver: this must not block.
    ///
    /// # Errors
    /// The session is to be ended with this.
    fn handle(&self, session: &Session, request: ChannelMessage) -> Result<(), Close>;

    /// A session that has asked something has another identity: its client has authenticated anew, as the same user, who may have other rights now.
    fn refreshed(&self, _: &Session) {}

    /// A session that has asked something has ended: nothing comes of it any more. Called once.
    fn closed(&self, session: &Session);
}

/// The side of the driver: what it knows of its client's requests.
#[derive(Default)]
pub(super) struct Channels {
    /// The number of the last one.
    last: u64,
    /// The session ends because of one: there is no use in the others.
    over: bool,
}

impl Channels {
    /// Handles up to `budget` requests. Says whether there may be more.
    pub(super) fn serve(&mut self, shared: &Arc<Shared>, budget: usize) -> bool {
        for _ in 0..budget {
            if self.over {
                return false;
            }
            let Some(body) = shared.lock().machine.poll_channel() else { return false };
            let result = channel::decode(body).and_then(|message| self.handle(shared, message));
            if let Err(close) = result {
                self.over = true;
                shared.fail(close);
            }
        }
        true
    }

    fn handle(&mut self, shared: &Arc<Shared>, message: ChannelMessage) -> Result<(), Close> {
        let Some(request) = message.request() else {
            return Err(Close::protocol(Code::MalformedMessage, "a channel message that only a server sends"));
        };
        if request <= self.last {
            let reason = format!("request {request} after request {}", self.last);
            return Err(Close::protocol(Code::ProtocolViolation, reason));
        }
        self.last = request;
        let session = Session::new(Arc::clone(shared));
        let Some(handler) = shared.begin_channels() else {
            let reason = "this server has no channels";
            session.answer(&ChannelMessage::failed(request, ChannelCode::NotAllowed, reason));
            return Ok(());
        };
        // What the application decides runs here, too: a panic would take the driver along.
        let handled = std::panic::catch_unwind(AssertUnwindSafe(|| handler.handle(&session, message)));
        handled.unwrap_or_else(|_| Err(Close::protocol(Code::InternalError, "the server's application failed")))
    }
}
