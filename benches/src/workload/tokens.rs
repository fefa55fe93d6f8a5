//! G6: many streams of small events.

use super::Workload;
use crate::settings::Settings;

pub(super) fn workloads(_settings: &Settings) -> Vec<Box<dyn Workload>> {
    Vec::new()
}
