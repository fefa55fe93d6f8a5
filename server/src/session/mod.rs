//! Sessions: the handle that the application holds, and the driver that moves its frames over one link after another.

pub(crate) mod channels;
pub(crate) mod credentials;
pub(crate) mod driver;
pub(crate) mod flusher;
mod handle;
mod identity;
pub(crate) mod links;
mod natives;
mod requests;
pub(crate) mod shared;
mod stream;

pub use handle::{Closed, Event, SendError, Session};
pub use identity::Identity;
pub use requests::{Answer, ChunkError, Request, RequestError};
pub use stream::{OpenStreamError, Stream, StreamError, StreamReader, StreamWriter};
