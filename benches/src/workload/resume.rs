//! G9: all sessions lose their links at once.

use super::Workload;
use crate::settings::Settings;

pub(super) fn workloads(_settings: &Settings) -> Vec<Box<dyn Workload>> {
    Vec::new()
}
