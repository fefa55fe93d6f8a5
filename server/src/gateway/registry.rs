//! The sessions of this server, by id: what the uplink and further polls look for, and what a shutdown goes through.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use throughline_protocol::{Close, SessionId};

use crate::session::handle::Shared;
use crate::transport::open::LinkName;
use crate::transport::poll::Held;

/// The sessions that are there now, and those of sse and poll that ended not long ago.
#[derive(Default)]
pub(crate) struct Registry {
    sessions: Mutex<HashMap<SessionId, Entry>>,
}

#[derive(Clone)]
struct Entry {
    shared: Arc<Shared>,
    attachment: Attachment,
}

/// Which further requests a session's link takes.
#[derive(Clone)]
pub(crate) enum Attachment {
    /// None: the link goes both ways by itself.
    None,
    /// POSTs.
    Posts,
    /// POSTs, and GETs that wait there.
    Polls(Arc<Held>),
}

impl Registry {
    /// Enters a session. It leaves when the guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>, shared: Arc<Shared>, attachment: Attachment) -> Entered {
        let id = shared.id;
        self.sessions.lock().insert(id, Entry { shared, attachment });
        Entered { registry: Arc::clone(self), id }
    }

    /// The session that takes POSTs under this name.
    pub(crate) fn uplink(&self, name: &LinkName) -> Option<Arc<Shared>> {
        let entry = self.find(name)?;
        (!matches!(entry.attachment, Attachment::None)).then_some(entry.shared)
    }

    /// The session whose polls have this name, and where they wait.
    pub(crate) fn poll(&self, name: &LinkName) -> Option<(Arc<Shared>, Arc<Held>)> {
        let entry = self.find(name)?;
        match entry.attachment {
            Attachment::Polls(held) => Some((entry.shared, held)),
            Attachment::None | Attachment::Posts => None,
        }
    }

    /// Closes all of them.
    pub(crate) fn close_all(&self, close: &Close) {
        let all: Vec<_> = self.sessions.lock().values().map(|entry| Arc::clone(&entry.shared)).collect();
        for shared in all {
            shared.close(close.clone());
        }
    }

    /// The session, if the key is its key and the link its current link.
    fn find(&self, name: &LinkName) -> Option<Entry> {
        let entry = self.sessions.lock().get(&name.session).cloned()?;
        let machine = entry.shared.lock();
        let found = machine.identity().is_some_and(|(_, key)| key == name.key) && machine.link() == name.link;
        drop(machine);
        found.then_some(entry)
    }
}

/// A session's place in the registry.
pub(crate) struct Entered {
    registry: Arc<Registry>,
    id: SessionId,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.registry.sessions.lock().remove(&self.id);
    }
}
