//! The development certificate.
