//! The hot way out: what sessions have to say is written by few tasks, instead of by the driver of each.
//!
//! Waking a thousand drivers for a thousand small writes costs about as much as the writes do. So whoever sends puts the session on a list, once, however much it sends; and when it gives way to
//! others, the task of that list asks each machine for its packet and gives it to the link, as the driver would. Whatever a sender has said until then
//! leaves in one write. Only what the link does not take at once is left to the driver.
//!
//! This is the only place beside the driver where a machine is asked for packets. Nothing that is sent brings the machine's next deadline forward, so the driver need not hear of it.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::coop::unconstrained;
use tokio_util::sync::CancellationToken;

use super::links::MAX_FIRST_PACKET;
use super::shared::{Carrier, Core, Shared, now};

/// Sessions that are written to before others get their turn: some tenths of a millisecond.
const TURN: usize = 64;

/// The sessions that have something to say, in as many lists as there are threads.
pub(crate) struct Flusher {
    lists: Vec<List>,
}

#[derive(Default)]
struct List {
    /// Each session once: it knows that it is here.
    due: Mutex<Vec<Arc<Shared>>>,
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

    fn add(&self, shared: Arc<Shared>) {
        let list = &self.lists[usize::from(shared.id.0[0]) % self.lists.len()];
        let is_first = {
            let mut due = list.due.lock();
            due.push(shared);
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
            for sessions in due.chunks(TURN) {
                let now = now();
                sessions.iter().for_each(|shared| flush(shared, now));
                tokio::task::yield_now().await;
            }
        }
    }
}

/// The application has something to say. It leaves when whoever sends gives way, or as soon as there is a link again.
pub(super) fn send_soon(shared: &Arc<Shared>, mut core: MutexGuard<'_, Core>) {
    let Some(Carrier { direct, .. }) = &core.carrier else { return };
    match (&shared.flusher, direct) {
        (Some(flusher), Some(_)) => {
            if !std::mem::replace(&mut core.is_due, true) {
                drop(core);
                flusher.add(Arc::clone(shared));
            }
        }
        _ => {
            drop(core);
            shared.wake_driver();
        }
    }
}

fn flush(shared: &Shared, now: u64) {
    let mut guard = shared.lock();
    let Core { machine, carrier, is_due, .. } = &mut *guard;
    *is_due = false;
    let direct = carrier.as_ref().and_then(|carrier| carrier.direct.as_ref()).filter(|_| machine.is_open());
    let is_done =
        direct.is_some_and(|direct| direct.transmit(&mut |max| machine.poll_transmit(now, max.min(MAX_FIRST_PACKET))));
    drop(guard);
    if !is_done {
        shared.wake_driver();
    }
}
