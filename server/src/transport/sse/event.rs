//! A packet as an event.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use throughline_protocol::Packet;

/// What a `data:` line has beside its base64, in bytes.
const LINE: usize = b"data: \n".len();

/// One `data:` line a piece, so that the base64 of a shared payload is the same for everyone.
pub(super) fn event(id: u64, packet: &Packet) -> Bytes {
    let id = format!("id: {id}\n");
    let mut event = Vec::with_capacity(len(&id, packet));
    write(&mut event, &id, packet);
    event.into()
}

/// The same as a chunk of HTTP/1.1 (RFC 9112, section 7.1).
pub(super) fn chunk(id: u64, packet: &Packet) -> Bytes {
    let id = format!("id: {id}\n");
    let len = len(&id, packet);
    let size = format!("{len:x}\r\n");
    let mut chunk = Vec::with_capacity(size.len() + len + 2);
    chunk.extend_from_slice(size.as_bytes());
    write(&mut chunk, &id, packet);
    debug_assert_eq!(chunk.len(), size.len() + len);
    chunk.extend_from_slice(b"\r\n");
    chunk.into()
}

fn len(id: &str, packet: &Packet) -> usize {
    id.len() + packet.pieces().map(|piece| LINE + piece.len().div_ceil(3) * 4).sum::<usize>() + 1
}

fn write(event: &mut Vec<u8>, id: &str, packet: &Packet) {
    event.extend_from_slice(id.as_bytes());
    for piece in packet.pieces() {
        event.extend_from_slice(b"data: ");
        let at = event.len();
        event.resize(at + piece.len().div_ceil(3) * 4, 0);
        // The room is what base64 with padding takes.
        let written = BASE64_STANDARD.encode_slice(piece, &mut event[at..]).unwrap_or(0);
        debug_assert_eq!(written, event.len() - at);
        event.push(b'\n');
    }
    event.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_and_its_chunk() {
        for payload in [&b"a"[..], b"ab", b"abc", b"abcd"] {
            let packet = Packet::from(Bytes::copy_from_slice(payload));
            let expected = format!("id: 7\ndata: {}\n\n", BASE64_STANDARD.encode(payload));
            assert_eq!(event(7, &packet), expected);
            assert_eq!(chunk(7, &packet), format!("{:x}\r\n{expected}\r\n", expected.len()));
        }
    }
}
