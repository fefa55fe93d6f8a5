//! The API for back ends, in whatever language: what an application in Rust does with a [`Hub`] and its sessions, over HTTP and with a key.

mod batch;
mod body;
mod commands;
mod document;
mod idempotency;
mod problem;
mod routes;
mod run;

pub(crate) use routes::router;

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::config::ApiConfig;
use crate::gateway::Gateway;
use crate::hub::Hub;
use idempotency::Remembered;

/// What all calls share.
#[derive(Clone)]
pub(crate) struct Api(Arc<Inner>);

struct Inner {
    config: ApiConfig,
    hub: Hub,
    gateway: Arc<Gateway>,
    keys: Keys,
    remembered: Remembered,
}

/// Who calls: the number of his key.
#[derive(Debug, Clone, Copy)]
struct Caller(usize);

/// The keys, as their hashes: what differs in two of them says nothing about the keys, however long it takes to find.
struct Keys(Vec<[u8; 32]>);

impl Keys {
    fn find(&self, key: &str) -> Option<Caller> {
        let hash = hash(key);
        self.0.iter().position(|known| *known == hash).map(Caller)
    }
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key).into()
}

impl Api {
    pub(crate) fn new(config: ApiConfig, gateway: Arc<Gateway>, hub: Hub) -> Self {
        let keys = Keys(config.keys.iter().map(|key| hash(key.expose())).collect());
        let remembered = Remembered::new(config.idempotency_age, config.max_idempotency_keys);
        Self(Arc::new(Inner { config, hub, gateway, keys, remembered }))
    }
}
