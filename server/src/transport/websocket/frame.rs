//! WebSocket frames (RFC 6455, section 5), as far as a server of packets needs them.

/// Longest payload of a control frame, in bytes (section 5.5).
pub(super) const MAX_CONTROL: usize = 125;

/// Longest header of a frame that is sent, in bytes: without a mask.
pub(super) const MAX_HEADER: usize = 10;

pub(super) const CONTINUATION: u8 = 0;
pub(super) const TEXT: u8 = 1;
pub(super) const BINARY: u8 = 2;
pub(super) const CLOSE: u8 = 8;
pub(super) const PING: u8 = 9;
pub(super) const PONG: u8 = 10;

/// The header of a frame that a client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) is_final: bool,
    pub(super) opcode: u8,
    /// Of the payload, in bytes.
    pub(super) len: u64,
    pub(super) mask: [u8; 4],
}

impl Header {
    /// Reads a header, and says how long it is; `None` while it is not whole.
    ///
    /// # Errors
    /// What no client may send.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, &'static str> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let (is_final, opcode) = (first & 0x80 != 0, first & 0x0f);
        if first & 0x70 != 0 {
            return Err("reserved bits of a WebSocket frame are set: no extension was agreed on");
        }
        if !matches!(opcode, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG) {
            return Err("a WebSocket frame with a reserved opcode");
        }
        if second & 0x80 == 0 {
            return Err("a WebSocket frame of a client without a mask");
        }
        let is_control = opcode >= CLOSE;
        let (len, of_len) = match (second & 0x7f, rest) {
            (126 | 127, _) if is_control => return Err("a WebSocket control frame of more than 125 bytes"),
            (126, [a, b, ..]) => (u64::from(u16::from_be_bytes([*a, *b])), 2),
            (127, [a, b, c, d, e, f, g, h, ..]) => (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), 8),
            (126 | 127, _) => return Ok(None),
            (short, _) => (u64::from(short), 0),
        };
        if is_control && !is_final {
            return Err("a WebSocket control frame in fragments");
        }
        let Some(&[a, b, c, d]) = rest.get(of_len..of_len + 4) else {
            // A length that is known need not wait for its mask.
            return Ok(None);
        };
        Ok(Some((Self { is_final, opcode, len, mask: [a, b, c, d] }, 2 + of_len + 4)))
    }

    /// Takes the mask off the payload.
    pub(super) fn unmask(&self, payload: &mut [u8]) {
        let [a, b, c, d] = self.mask;
        let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
        let mut words = payload.chunks_exact_mut(8);
        for word in &mut words {
            if let Ok(bytes) = <[u8; 8]>::try_from(&*word) {
                word.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ wide).to_ne_bytes());
            }
        }
        for (byte, mask) in words.into_remainder().iter_mut().zip(self.mask.iter().cycle()) {
            *byte ^= mask;
        }
    }
}

/// The header of a whole message, or of a control frame, from a server.
pub(super) fn header(opcode: u8, len: usize) -> ([u8; MAX_HEADER], usize) {
    let mut header = [0; MAX_HEADER];
    header[0] = 0x80 | opcode;
    let of_len = match len {
        0..126 => {
            header[1] = len as u8;
            0
        }
        126..=0xffff => {
            header[1] = 126;
            header[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            2
        }
        _ => {
            header[1] = 127;
            header[2..10].copy_from_slice(&(len as u64).to_be_bytes());
            8
        }
    };
    (header, 2 + of_len)
}
