//! G10: the first message in a network that swallows UDP.

use super::Workload;
use crate::settings::Settings;

pub(super) fn workloads(_settings: &Settings) -> Vec<Box<dyn Workload>> {
    Vec::new()
}
