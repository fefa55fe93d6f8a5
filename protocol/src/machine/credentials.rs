//! What a client authenticates with, and how long that is good for (SPEC section 12).

use super::{Machine, Micros, Phase, Role};
use crate::close::{Close, Code};
use crate::frame::Token;
use crate::varint;

/// The credentials of a session, as both sides know them.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    /// When they end; `None`: never.
    until: Option<Micros>,
    /// The link that they were shown for. Openings of links up to this one showed older ones.
    link: u64,
    /// A server's EXPIRES is to be sent.
    due: bool,
    /// The newest TOKEN: one that a client has to send, or that a server has not looked at, and how many links there were when it came.
    token: Option<Box<(Token, u64)>>,
    /// A server is looking at one. The time of the old ones does not end meanwhile: the new one came before it had.
    is_looking: bool,
    /// How many links there were when that one came.
    links: u64,
}

impl Credentials {
    /// When the machine has to look whether they have ended.
    pub(super) fn until(&self) -> Option<Micros> {
        self.until.filter(|_| !self.is_looking)
    }

    /// Those of a link that was chosen take the place of older ones. If there are newer ones, WELCOME has said too little on it.
    pub(super) fn adopt(&mut self, link: u64, until: Option<Micros>) {
        if link > self.link {
            (self.link, self.until) = (link, until);
        } else {
            self.due = true;
        }
    }
}

impl Machine {
    /// On a server: until when the credentials of the session's first link are good; `None`: for ever. Before [`Machine::link_opened`].
    pub fn set_expires(&mut self, until: Option<Micros>) {
        self.credentials.until = until;
    }

    /// When the credentials end; `None`: never. A client knows it from WELCOME and EXPIRES.
    pub fn expires(&self) -> Option<Micros> {
        self.credentials.until
    }

    /// On a client: authenticates anew, with the next packet. Of several that were not sent yet, the newest is.
    pub fn send_token(&mut self, token: Token) {
        if self.role == Role::Client && self.closing().is_none() {
            self.credentials.token = Some(Box::new((token, self.links)));
        }
    }

    /// On a server: what its client wants to be authenticated with from now on, one at a time: the next is not given before [`Machine::refreshed`] or
    /// [`Machine::not_refreshed`] was called. Of those that came meanwhile only the newest is.
    pub fn poll_token(&mut self) -> Option<Token> {
        if self.role == Role::Client || self.credentials.is_looking || !self.is_open() {
            return None;
        }
        let (token, links) = *self.credentials.token.take()?;
        (self.credentials.is_looking, self.credentials.links) = (true, links);
        Some(token)
    }

    /// On a server: the new credentials are good until then, and the client is told. Whoever refuses them closes the session with `UNAUTHORIZED`. False when
    /// the client has moved to a link meanwhile whose opening came after them: then that one's count.
    pub fn refreshed(&mut self, until: Option<Micros>) -> bool {
        let credentials = &mut self.credentials;
        (credentials.is_looking, credentials.due) = (false, true);
        let is_newest = credentials.link <= credentials.links;
        if is_newest {
            (credentials.link, credentials.until) = (credentials.links, until);
        }
        is_newest
    }

    /// On a server: the new credentials could not be looked at. The ones before are good for as long as they were, and the client is told how long that is.
    pub fn not_refreshed(&mut self) {
        (self.credentials.is_looking, self.credentials.due) = (false, true);
    }

    /// On a server: whether the session's credentials are those that the opening of this link has shown. Asked when the link was adopted: otherwise there were
    /// newer ones.
    pub fn has_credentials_of(&self, link: u64) -> bool {
        link == self.credentials.link
    }

    pub(super) fn token_arrived(&mut self, token: Token) -> Result<(), Close> {
        if self.role == Role::Client {
            return Err(Close::protocol(Code::ProtocolViolation, "TOKEN is the client's"));
        }
        self.credentials.token = Some(Box::new((token, self.links)));
        Ok(())
    }

    pub(super) fn expires_arrived(&mut self, now: Micros, in_ms: u64) -> Result<(), Close> {
        if self.role == Role::Server {
            return Err(Close::protocol(Code::ProtocolViolation, "EXPIRES is the server's"));
        }
        self.credentials.until = (in_ms > 0).then(|| now.saturating_add(in_ms.saturating_mul(1_000)));
        Ok(())
    }

    /// The TOKEN of a client, when one is to be sent.
    pub(super) fn take_token(&mut self) -> Option<Token> {
        self.credentials.token.take_if(|_| self.role == Role::Client).map(|shown| shown.0)
    }

    /// What EXPIRES says, when that is due.
    pub(super) fn take_expires(&mut self, now: Micros) -> Option<u64> {
        std::mem::take(&mut self.credentials.due).then(|| left_ms(self.credentials.until, now))
    }

    /// Closes a server's session when its client's time is over.
    pub(super) fn expire_in_time(&mut self, now: Micros) {
        let is_over = self.credentials.until().is_some_and(|until| now >= until);
        if is_over && self.role == Role::Server && matches!(self.phase, Phase::Open) {
            let reason = "what the client has authenticated with has expired";
            self.close(now, Close::protocol(Code::Unauthorized, reason));
        }
    }
}

/// Milliseconds until then, as WELCOME and EXPIRES say it: 0 for never, and so at least 1 otherwise.
pub(super) fn left_ms(until: Option<Micros>, now: Micros) -> u64 {
    until.map_or(0, |until| (until.saturating_sub(now) / 1_000).clamp(1, varint::MAX))
}
