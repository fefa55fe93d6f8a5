//! G4: there and back, beside bare QUIC.

use super::Workload;
use crate::settings::Settings;

pub(super) fn workloads(_settings: &Settings) -> Vec<Box<dyn Workload>> {
    Vec::new()
}
