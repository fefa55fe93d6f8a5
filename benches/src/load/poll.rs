//! Long-polling, as nchan does it.
