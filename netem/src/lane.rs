//! One direction at work: a thread that reads one device, and one that writes to the other when packets are due.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use throughline_netem::{Change, Conditions, Path, Stats};
use tun_rs::SyncDevice;

/// The longest IP packet.
const MAX_PACKET_BYTES: usize = 65_535;

/// A device answers with errors while it is down, which it is until it has been moved to its namespace: ask again after this.
const DOWN_PAUSE: Duration = Duration::from_millis(20);

pub(crate) struct Lane {
    began: Instant,
    path: Mutex<Path>,
    changed: Condvar,
}

impl Lane {
    /// Forwards what comes out of `from` into `to`, until the process ends. `gone` is called when `from` has gone with its namespace.
    pub(crate) fn start(
        seed: u64,
        from: &Arc<SyncDevice>,
        to: &Arc<SyncDevice>,
        gone: fn(io::Error) -> !,
    ) -> io::Result<Arc<Lane>> {
        let lane = Arc::new(Lane { began: Instant::now(), path: Mutex::new(Path::new(seed)), changed: Condvar::new() });
        let (reader, from) = (Arc::clone(&lane), Arc::clone(from));
        thread::Builder::new().name("reader".into()).spawn(move || gone(reader.read(&from)))?;
        let (writer, to) = (Arc::clone(&lane), Arc::clone(to));
        thread::Builder::new().name("writer".into()).spawn(move || writer.write(&to))?;
        Ok(lane)
    }

    pub(crate) fn change(&self, change: Change) {
        self.path.lock().change(self.began.elapsed(), change);
        self.changed.notify_one();
    }

    pub(crate) fn reset(&self) {
        self.path.lock().reset(self.began.elapsed());
        self.changed.notify_one();
    }

    pub(crate) fn conditions(&self) -> Conditions {
        self.path.lock().conditions().clone()
    }

    pub(crate) fn stats(&self) -> Stats {
        self.path.lock().stats()
    }

    fn read(&self, from: &SyncDevice) -> io::Error {
        let mut buffer = vec![0; MAX_PACKET_BYTES];
        loop {
            match from.recv(&mut buffer) {
                Ok(length) => {
                    self.path.lock().push(self.began.elapsed(), buffer[..length].to_vec());
                    self.changed.notify_one();
                }
                Err(error) if is_gone(&error) => return error,
                Err(_) => thread::sleep(DOWN_PAUSE),
            }
        }
    }

    fn write(&self, to: &SyncDevice) {
        let mut path = self.path.lock();
        loop {
            if let Some(packet) = path.pop(self.began.elapsed()) {
                parking_lot::MutexGuard::unlocked(&mut path, || {
                    drop(to.send(&packet)); // down, or gone: then it is lost, as on a wire that nobody has plugged in
                });
                continue;
            }
            match path.next_due() {
                None => self.changed.wait(&mut path),
                Some(due) => drop(self.changed.wait_until(&mut path, self.began + due)),
            }
        }
    }
}

/// EBADFD: the device is no more, because its namespace is no more.
fn is_gone(error: &io::Error) -> bool {
    const EBADFD: i32 = 77;
    error.raw_os_error() == Some(EBADFD)
}
