//! What the fuzzer does with frames of a WebSocket.

use throughline_protocol::limits::MAX_PACKET;

use super::reader::{Broken, Incoming, Reader};

/// The first byte says how the rest is cut. However that is, the same comes out as in one piece, and no message is too long.
pub fn frames(input: &[u8]) {
    let Some((&size, input)) = input.split_first() else { return };
    let whole = read([input]);
    assert_eq!(read(input.chunks(usize::from(size).max(1))), whole);
    for incoming in &whole.0 {
        assert!(!matches!(incoming, Incoming::Message(bytes) if bytes.len() > MAX_PACKET));
    }
}

fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Incoming>, Option<Broken>) {
    let (mut reader, mut seen) = (Reader::default(), Vec::new());
    for piece in pieces {
        reader.push(piece);
        loop {
            match reader.next() {
                Ok(Some(incoming)) => seen.push(incoming),
                Ok(None) => break,
                Err(broken) => return (seen, Some(broken)),
            }
        }
    }
    (seen, None)
}
