//! The hot way out: what sessions have to say is written by few tasks, instead of by the driver of each.
//!
//! Waking a thousand drivers for a thousand small writes costs about as much as the writes do. So whoever sends puts the session on a list, once, however much it sends; and when it gives way to
//! others, the task of that list asks each machine for its packet and gives it to the link, as the driver would. Whatever a sender has said until then
//! leaves in one write. Only what the link does not take at once is left to the driver. What is for many sessions is on the list itself, instead of all of them, and gives each what it has for
//! it in the moment in which that is written: a session is looked at once, however many publications there are.
//!
//! This is the only place beside the driver where a machine is asked for packets. Nothing that is sent brings the machine's next deadline forward, so the driver need not hear of it.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use throughline_protocol::{Micros, Packet};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::coop::unconstrained;
use tokio_util::sync::CancellationToken;

use super::links::MAX_FIRST_PACKET;
use super::shared::{Carrier, Core, Shared, now};

/// Sessions that are written to before others get their turn: some tenths of a millisecond.
const TURN: usize = 64;

/// Something that has to be written.
pub(crate) trait Due: Send + Sync {
    /// Writes to as many sessions as `turn` allows. True when nothing is left to write.
    fn write(&self, turn: &mut Turn) -> bool;
}

/// How much may be written before others get their turn.
pub(crate) struct Turn {
    pub(crate) now: Micros,
    /// To so many sessions.
    pub(crate) left: usize,
    /// Used for all of them.
    packet: Packet,
}

/// What has to be written, in as many lists as there are threads.
pub(crate) struct Flusher {
    lists: Vec<List>,
}

#[derive(Default)]
struct List {
    /// Each session, and whatever else, once: it knows that it is here.
    due: Mutex<Vec<Arc<dyn Due>>>,
    first: Notify,
}

impl Flusher {
    /// Works until `ended`.
    pub(crate) fn start(ended: &CancellationToken) -> Arc<Self> {
        let runtime = Handle::current();
        let lists = std::iter::repeat_with(List::default).take(runtime.metrics().num_workers()).collect();
        let this = Arc::new(Self { lists });
        for index in 0..this.lists.len() {
            let this = Arc::clone(&this);
            // A socket that does not take anything is told apart from a task that has had its turn: turns are counted here.
            let work = unconstrained(async move { this.lists[index].work().await });
            runtime.spawn(ended.clone().run_until_cancelled_owned(work));
        }
        this
    }

    /// How many lists there are.
    pub(crate) fn threads(&self) -> usize {
        self.lists.len()
    }

    /// Puts something on the list of `key`. Always the same key for the same thing: then it is written to by one task at a time.
    pub(crate) fn add(&self, key: usize, one: Arc<dyn Due>) {
        let list = &self.lists[key % self.lists.len()];
        let is_first = {
            let mut due = list.due.lock();
            due.push(one);
            due.len() == 1
        };
        if is_first {
            list.first.notify_one();
        }
    }
}

impl List {
    async fn work(&self) {
        loop {
            self.first.notified().await;
            let due = std::mem::take(&mut *self.due.lock());
            let mut turn = Turn::default();
            for one in due {
                while !one.write(&mut turn) {
                    turn.others().await;
                }
                if turn.left == 0 {
                    turn.others().await;
                }
            }
            tokio::task::yield_now().await;
        }
    }
}

impl Default for Turn {
    fn default() -> Self {
        Self { now: now(), left: TURN, packet: Packet::default() }
    }
}

impl Turn {
    /// Lets others have theirs.
    async fn others(&mut self) {
        tokio::task::yield_now().await;
        self.begin();
    }

    /// Another one.
    pub(crate) fn begin(&mut self) {
        (self.now, self.left) = (now(), TURN);
    }
}

impl Due for Shared {
    fn write(&self, turn: &mut Turn) -> bool {
        let mut core = self.lock();
        core.is_due = false;
        write(self, core, turn);
        true
    }
}

/// The application has something to say. It leaves when whoever sends gives way, or as soon as there is a link again.
pub(super) fn send_soon(shared: &Arc<Shared>, mut core: MutexGuard<'_, Core>) {
    let Some(Carrier { direct, .. }) = &core.carrier else { return };
    match (&shared.flusher, direct) {
        (Some(flusher), Some(_)) => {
            if !std::mem::replace(&mut core.is_due, true) {
                drop(core);
                flusher.add(shared.id.0[0].into(), Arc::clone(shared) as Arc<dyn Due>);
            }
        }
        _ => {
            drop(core);
            shared.wake_driver();
        }
    }
}

/// Writes what the machine has to say, if the link is one that anybody may write to; otherwise, and if it does not take all of it, the driver does.
pub(super) fn write(shared: &Shared, mut guard: MutexGuard<'_, Core>, turn: &mut Turn) {
    let Turn { now, left, packet } = turn;
    *left = left.saturating_sub(1);
    let Core { machine, carrier, .. } = &mut *guard;
    let direct = carrier.as_ref().and_then(|carrier| carrier.direct.as_ref()).filter(|_| machine.is_open());
    let is_done = direct.is_some_and(|direct| {
        direct.transmit(packet, &mut |packet, max| machine.transmit_into(packet, *now, max.min(MAX_FIRST_PACKET)))
    });
    drop(guard);
    if !is_done {
        shared.wake_driver();
    }
}
