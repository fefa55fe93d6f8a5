//! Waiting until a server has done what it does by itself.

use std::time::Duration;

use crate::Failure;
use crate::subject::Subject;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// What changes by less than this part of itself counts as settled.
const SETTLED: f64 = 0.002;

/// Resident bytes, when two looks have found nearly the same, or `patience` is over: a garbage collector comes when it likes.
pub(super) async fn resident_bytes(subject: &Subject, patience: Duration) -> Result<u64, Failure> {
    let mut before = subject.resident_bytes()?;
    let mut left = patience;
    while !left.is_zero() {
        tokio::time::sleep(LOOK).await;
        left = left.saturating_sub(LOOK);
        let now = subject.resident_bytes()?;
        if (now.abs_diff(before) as f64) < now as f64 * SETTLED {
            return Ok(now);
        }
        before = now;
    }
    Ok(before)
}
