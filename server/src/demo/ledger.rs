//! Numbered messages both ways, so that a page can show that a session loses none of them.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};

use super::messages::Notice;
use super::tally::Tally;
use crate::Session;

/// Ten numbers per second: some are always on their way when a link dies. In two minutes without a link they are about 100 KB, which the
/// session's buffer holds.
const EVERY: Duration = Duration::from_millis(100);

/// What one session has counted.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    up: Mutex<Up>,
    /// The page counts, too.
    begun: Notify,
}

#[derive(Debug, Default)]
struct Up {
    run: Option<u32>,
    tally: Tally,
}

impl Ledger {
    /// Takes the number of a page's message. What is left over of a run of an earlier session is not counted: nobody here knows where it began.
    pub(super) fn take(&self, run: u32, number: u64) {
        let mut up = self.up.lock();
        if *up.run.get_or_insert(run) == run {
            up.tally.take(number);
        }
        drop(up);
        self.begun.notify_one();
    }

    /// Sends numbered messages once the page has sent one, for as long as the session lives. Never returns.
    pub(super) async fn tell(&self, session: &Session) {
        self.begun.notified().await;
        let mut timer = interval(EVERY);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for n in 1.. {
            timer.tick().await;
            let up = self.up.lock().tally.clone();
            // Waits while the buffer is full, so that no number is left out.
            if session.send(Notice::Count { n, up: &up }.to_text()).await.is_err() {
                break;
            }
        }
        // The session has ended. Its last messages may still have to be taken.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_session_left_over_is_not_counted() {
        let ledger = Ledger::default();
        ledger.take(2, 1);
        ledger.take(1, 57);
        ledger.take(1, 58);
        ledger.take(2, 2);
        let up = ledger.up.lock();
        assert_eq!((up.tally.received, up.tally.missing, up.tally.repeated), (2, 0, 0));
    }
}
