//! Going away in good order (SPEC section 6.2): GOAWAY, what is held back, and the CLOSE at the end.

use super::{Machine, Micros, Phase, Role};
use crate::close::{Close, Code};

/// How far a session is with going away.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// On a server: the delay that GOAWAY says. On a client: GOAWAY has come.
    goaway: Option<u64>,
    /// GOAWAY is to be sent.
    due: bool,
    /// On a client: when it leaves.
    at: Option<Micros>,
    /// A client holds back what it has not begun; a server takes nothing more.
    holding: bool,
    /// A client has said that it is ready, on this link.
    answered: bool,
}

impl Leaving {
    pub(super) fn link_changed(&mut self) {
        self.answered = false;
        // The old link may have swallowed it.
        self.due |= self.goaway.is_some() && self.at.is_none();
    }

    pub(super) fn timeout(&self) -> Option<Micros> {
        self.at.filter(|_| !self.holding)
    }

    pub(super) fn is_holding(&self) -> bool {
        self.holding
    }
}

impl Machine {
    /// The server is going away: its client is asked to leave in `delay_ms`. The session closes itself with `SHUTTING_DOWN` once the client is ready and has
    /// everything; close it at a deadline of your own.
    pub fn go_away(&mut self, delay_ms: u64) {
        if self.role == Role::Server && self.leaving.goaway.is_none() {
            self.leaving.goaway = Some(delay_ms);
            self.leaving.due = true;
        }
    }

    /// The delay for GOAWAY, when that is due.
    pub(super) fn take_goaway(&mut self) -> Option<u64> {
        if std::mem::take(&mut self.leaving.due) {
            return self.leaving.goaway;
        }
        let ready = self.role == Role::Client && self.leaving.holding && !self.leaving.answered;
        if ready && self.sender.all_acked() && self.streams.all_acked() {
            self.leaving.answered = true;
            return Some(0);
        }
        None
    }

    pub(super) fn goaway_arrived(&mut self, now: Micros, delay_ms: u64) {
        match self.role {
            // Only who was asked has an answer; another client's is as good as none.
            Role::Server => self.leaving.holding |= self.leaving.goaway.is_some(),
            Role::Client if self.leaving.at.is_none() => {
                self.leaving.goaway = Some(delay_ms);
                self.leaving.at = Some(now.saturating_add(delay_ms * 1_000));
            }
            Role::Client => {}
        }
        self.leave_in_time(now);
    }

    /// Holds back, or closes, when the time for it has come.
    pub(super) fn leave_in_time(&mut self, now: Micros) {
        if self.leaving.timeout().is_some_and(|at| now >= at) {
            self.leaving.holding = true;
            self.sender.hold();
        }
        let ready = self.role == Role::Server && self.leaving.holding && matches!(self.phase, Phase::Open);
        if ready && self.sender.all_acked() && self.streams.all_acked() {
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
