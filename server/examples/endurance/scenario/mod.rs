//! What is shown, each with its figures as one line of JSON.

mod channels;
mod drain;
mod forged;
mod messages;
mod rebind;
mod stalled;
mod streams;

pub(crate) use channels::{ChannelsArguments, channels};
pub(crate) use drain::{DrainArguments, drain};
pub(crate) use forged::{ForgedArguments, forged};
pub(crate) use messages::{MessagesArguments, messages};
pub(crate) use rebind::{RebindArguments, rebind};
pub(crate) use stalled::{StalledArguments, stalled};
pub(crate) use streams::{StreamsArguments, streams};

use serde::Serialize;

/// Milliseconds, as figures of one run.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Spread {
    min: f64,
    p50: f64,
    p95: f64,
    pub(crate) p99: f64,
    max: f64,
}

impl Spread {
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let index = (values.len() as f64 * share) as usize;
            values.get(index.min(values.len().saturating_sub(1))).map_or(0.0, |value| (value * 100.0).round() / 100.0)
        };
        Self { min: at(0.0), p50: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1.0) }
    }
}
