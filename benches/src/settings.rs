//! What holds for a whole run.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::certificate::Certificate;

/// The server's core, and the load generator's.
pub(crate) const SERVER_CORE: usize = 0;
pub(crate) const LOAD_CORE: usize = 1;

/// What holds for a whole run.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Everything smaller, so that all of it takes two minutes.
    pub(crate) quick: bool,
    /// How often each measurement is made.
    pub(crate) repeats: u32,
    /// Where the peers are installed.
    pub(crate) subjects: PathBuf,
    /// What every subject uses for TLS and QUIC: one kind of key, so that one handshake costs what another does.
    pub(crate) certificate: Certificate,
    /// What the subjects that were started so far have said of themselves: program or library, and version.
    pub(crate) versions: RefCell<BTreeMap<String, String>>,
}

impl Settings {
    /// The first value in a full run, the second in a quick one.
    pub(crate) fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}
