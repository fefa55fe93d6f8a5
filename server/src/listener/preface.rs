//! What a connection begins with.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;

use bytes::Bytes;
use tokio::io::{AsyncRead as _, ReadBuf};

use crate::socket::Socket;

/// How HTTP/2 begins (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Waits for the first bytes: whether they are HTTP/2's, `None` when the connection ends without any. They are read again.
pub(super) async fn begins_with_it(socket: &mut Socket) -> io::Result<Option<bool>> {
    let (mut read, mut len) = ([0; PREFACE.len()], 0);
    loop {
        let mut buf = ReadBuf::new(&mut read[len..]);
        poll_fn(|cx| Pin::new(&mut *socket).poll_read(cx, &mut buf)).await?;
        let more = buf.filled().len();
        len += more;
        let begins = PREFACE.starts_with(&read[..len]);
        if more > 0 && begins && len < PREFACE.len() {
            continue;
        }
        socket.rewind(Bytes::copy_from_slice(&read[..len]));
        return Ok((len > 0).then_some(begins && len == PREFACE.len()));
    }
}
