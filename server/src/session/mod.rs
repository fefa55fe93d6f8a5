//! Sessions: the handle that the application holds, and the driver that moves its frames.

pub(crate) mod driver;
pub(crate) mod handle;

pub use handle::{Closed, Event, Identity, SendError, Session};
