//! A run for readers: a table and pictures out of `results.json`.

mod markdown;
mod plots;

use std::path::Path;

use crate::Failure;

/// Writes what readers want into the folder that has `results.json`.
pub(crate) fn write(_folder: &Path) -> Result<(), Failure> {
    Err("there is no report yet".into())
}
