//! Going away in good order (SPEC section 6.2): GOAWAY, what is held back, and the CLOSE at the end.

use super::{Machine, Micros, Phase, Role};
use crate::close::{Close, Code};

/// How far a session is with going away.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// When the client should leave: what a server has said, or a client was told.
    at: Option<Micros>,
    /// A server's GOAWAY is to be sent.
    due: bool,
    /// A client holds back what it has not begun; a server takes nothing more.
    holding: bool,
    /// A client has said that it is ready, on this link.
    answered: bool,
}

impl Leaving {
    pub(super) fn link_changed(&mut self) {
        self.answered = false;
        // The old link may have swallowed it.
        self.due = self.at.is_some();
    }

    /// When the client should leave, until it does.
    pub(super) fn at(&self) -> Option<Micros> {
        self.at.filter(|_| !self.holding)
    }

    pub(super) fn is_holding(&self) -> bool {
        self.holding
    }
}

impl Machine {
    /// The server is going away: its client is asked to leave in `delay_ms`. The session closes itself with `SHUTTING_DOWN` once the client is ready and has
    /// everything, or has no link by then; close it at a deadline of your own.
    pub fn go_away(&mut self, now: Micros, delay_ms: u64) {
        if self.role == Role::Server && self.leaving.at.is_none() {
            self.leaving.at = Some(now.saturating_add(delay_ms * 1_000));
            self.leaving.due = true;
        }
    }

    /// The delay for GOAWAY, when that is due.
    pub(super) fn take_goaway(&mut self, now: Micros) -> Option<u64> {
        if self.role == Role::Server {
            let is_due = std::mem::take(&mut self.leaving.due);
            return self.leaving.at.filter(|_| is_due).map(|at| at.saturating_sub(now) / 1_000);
        }
        let ready = self.leaving.holding && !self.leaving.answered;
        if ready && self.sender.all_acked() && self.streams.all_acked() {
            self.leaving.answered = true;
            return Some(0);
        }
        None
    }

    pub(super) fn goaway_arrived(&mut self, now: Micros, delay_ms: u64) {
        match self.role {
            // Only who was asked has an answer; another client's is as good as none.
            Role::Server => self.leaving.holding |= self.leaving.at.is_some(),
            Role::Client => {
                self.leaving.at.get_or_insert(now.saturating_add(delay_ms * 1_000));
            }
        }
        self.leave_in_time(now);
    }

    /// Holds back, or closes, when the time for it has come.
    pub(super) fn leave_in_time(&mut self, now: Micros) {
        let is_time = self.leaving.at().is_some_and(|at| now >= at);
        if is_time && self.role == Role::Client {
            self.leaving.holding = true;
            self.sender.hold();
        }
        if is_time && self.role == Role::Server && matches!(self.phase, Phase::Detached { .. }) {
            self.end(shutting_down()); // nobody is there to be waited for
        }
        let ready = self.role == Role::Server && self.leaving.holding && matches!(self.phase, Phase::Open);
        if ready
            && self.has_answered()
            && self.has_answered_requests()
            && self.sender.all_acked()
            && self.streams.all_acked()
        {
            self.close(now, shutting_down());
        }
    }

    /// Why nothing more is taken from the application of a server that is ready to go.
    pub(super) fn left(&self) -> Option<Close> {
        (self.role == Role::Server && self.leaving.is_holding()).then(shutting_down)
    }
}

fn shutting_down() -> Close {
    Close::protocol(Code::ShuttingDown, "the server is going away")
}
