//! Throughline: realtime sessions that move between transports.
