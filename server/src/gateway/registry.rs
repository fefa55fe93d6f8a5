//! The sessions of this server, by id: what POSTs, further polls and further links look for, and what a shutdown goes through.

use std::collections::HashMap;
use std::sync::Arc;

use http::StatusCode;
use parking_lot::Mutex;
use throughline_protocol::{Code, SessionId};

use crate::session::Session;
use crate::session::shared::Shared;
use crate::transport::open::{LinkName, Rejection, Resume};
use crate::transport::poll::Held;
use crate::transport::uplink::Uplink;

/// The sessions that are there now, and those of sse and poll that ended not long ago.
#[derive(Default)]
pub(crate) struct Registry {
    sessions: Mutex<HashMap<SessionId, Entry>>,
}

struct Entry {
    shared: Arc<Shared>,
    /// Whose it is, for as long as it lives.
    user: Option<Arc<str>>,
    /// By the number of the link. Of those that take no requests there is none.
    attachments: Vec<(u64, Attachment)>,
}

/// Where the further requests of a link go.
#[derive(Clone)]
pub(crate) struct Attachment {
    /// POSTs.
    pub(crate) uplink: Arc<Uplink>,
    /// GETs, of a poll.
    pub(crate) held: Option<Arc<Held>>,
}

/// A link's session, and where its requests go.
pub(crate) struct Found {
    pub(crate) shared: Arc<Shared>,
    pub(crate) attachment: Attachment,
}

impl Registry {
    /// Enters a session with its first link. It leaves when the guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>, shared: Arc<Shared>, attachment: Option<Attachment>) -> Entered {
        let id = shared.id;
        let attachments = attachment.map(|attachment| (1, attachment)).into_iter().collect();
        let user = shared.lock().credentials.identity.user.as_deref().map(Arc::from);
        self.sessions.lock().insert(id, Entry { shared: Arc::clone(&shared), user, attachments });
        Entered { registry: Arc::clone(self), shared }
    }

    /// Notes where the requests of a further link go. Its client must not know the link's number before.
    pub(crate) fn attach(&self, session: SessionId, link: u64, attachment: Attachment) {
        if let Some(entry) = self.sessions.lock().get_mut(&session) {
            entry.attachments.retain(|(_, old)| !old.uplink.is_closed());
            entry.attachments.push((link, attachment));
        }
    }

    /// The session that a client wants to go on with, if it is there and the key is its key.
    pub(crate) fn resumable(&self, resume: &Resume) -> Option<Arc<Shared>> {
        let shared = self.sessions.lock().get(&resume.session).map(|entry| Arc::clone(&entry.shared));
        shared.filter(|shared| shared.key == resume.key && shared.lock().machine.closed().is_none())
    }

    /// The link with this name.
    pub(crate) fn find(&self, name: &LinkName) -> Result<Found, Rejection> {
        let found = {
            let sessions = self.sessions.lock();
            sessions.get(&name.session).map(|entry| {
                let attachment = entry.attachments.iter().find(|(number, _)| *number == name.link);
                (Arc::clone(&entry.shared), attachment.map(|(_, attachment)| attachment.clone()))
            })
        };
        let (shared, attachment) =
            found.filter(|(shared, _)| shared.key == name.key).ok_or_else(Rejection::unknown_session)?;
        match attachment {
            Some(attachment) => Ok(Found { shared, attachment }),
            None => Err(gone(&shared, name.link)),
        }
    }

    /// The session with this id, if it is open.
    pub(crate) fn session(&self, id: SessionId) -> Option<Session> {
        let shared = self.sessions.lock().get(&id).map(|entry| Arc::clone(&entry.shared));
        shared.and_then(opened)
    }

    /// The open sessions of a user.
    pub(crate) fn sessions_of(&self, user: &str) -> Vec<Session> {
        let of_user = |entry: &Entry| (entry.user.as_deref() == Some(user)).then(|| Arc::clone(&entry.shared));
        let shared: Vec<_> = self.sessions.lock().values().filter_map(of_user).collect();
        shared.into_iter().filter_map(opened).collect()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.sessions.lock().len()
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Shared>> {
        self.sessions.lock().values().map(|entry| Arc::clone(&entry.shared)).collect()
    }
}

/// What an application may have: its client has chosen a link, and it has not ended.
fn opened(shared: Arc<Shared>) -> Option<Session> {
    let is_open = {
        let core = shared.lock();
        core.machine.is_established() && core.machine.closed().is_none()
    };
    is_open.then(|| Session::new(shared))
}

/// What is said to a request for a link that is over.
pub(crate) fn gone(shared: &Shared, link: u64) -> Rejection {
    let core = shared.lock();
    if core.machine.closed().is_some() || link >= core.machine.link() {
        return Rejection::unknown_session();
    }
    Rejection::new(StatusCode::GONE, Code::LinkReplaced, "another link carries the session")
}

/// A session's place in the registry.
pub(crate) struct Entered {
    registry: Arc<Registry>,
    pub(crate) shared: Arc<Shared>,
}

impl Entered {
    /// Whether requests may come that name the session.
    pub(crate) fn takes_requests(&self) -> bool {
        self.registry.sessions.lock().get(&self.shared.id).is_some_and(|entry| !entry.attachments.is_empty())
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.registry.sessions.lock().remove(&self.shared.id);
    }
}
