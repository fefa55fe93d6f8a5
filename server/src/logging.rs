//! The log, on standard error: standard output belongs to the `ready` line.

use std::{
    env,
    io::{self, IsTerminal as _},
};

use throughline::{LogConfig, LogFormat};
use tracing_subscriber::EnvFilter;

/// Starts to log. Call it once, with a configuration that was validated.
pub(crate) fn start(config: &LogConfig) {
    let lines = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(&config.filter)).with_writer(io::stderr);
    match config.format {
        // https://no-color.org
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none()).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}
