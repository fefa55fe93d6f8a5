//! G3: what a session costs that does nothing.

use super::Workload;
use crate::settings::Settings;

pub(super) fn workloads(_settings: &Settings) -> Vec<Box<dyn Workload>> {
    Vec::new()
}
