//! The Throughline wire protocol.
