//! Variable-length integers (RFC 9000, section 16), limited to what a JavaScript number holds exactly.

use bytes::{Buf, BufMut};

/// The largest value used: 2^53 − 1.
pub const MAX: u64 = (1 << 53) - 1;

/// What a decoder made of the bytes it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded {
    /// The value, and how many bytes it took.
    Value(u64, usize),
    /// The bytes end before the integer does.
    Incomplete,
    /// Above [`MAX`].
    TooLarge,
}

/// Reads the integer at the start of `bytes`.
pub fn decode(bytes: &[u8]) -> Decoded {
    let Some(&first) = bytes.first() else { return Decoded::Incomplete };
    let len = 1usize << (first >> 6);
    let Some(rest) = bytes.get(1..len) else { return Decoded::Incomplete };
    let value = rest.iter().fold(u64::from(first & 0x3f), |value, byte| (value << 8) | u64::from(*byte));
    if value > MAX { Decoded::TooLarge } else { Decoded::Value(value, len) }
}

/// Takes an integer from the front of `bytes`; `None` when there is no whole, valid one.
pub fn take(bytes: &mut impl Buf) -> Option<u64> {
    let len = 1usize << (bytes.chunk().first()? >> 6);
    if bytes.remaining() < len {
        return None;
    }
    let mut raw = [0; 8];
    bytes.copy_to_slice(&mut raw[..len]);
    match decode(&raw[..len]) {
        Decoded::Value(value, _) => Some(value),
        Decoded::Incomplete | Decoded::TooLarge => None,
    }
}

/// Writes `value` in its shortest form.
///
/// # Panics
/// When `value` is above [`MAX`]: callers write offsets, ids and times, none of which gets there.
pub fn encode(value: u64, out: &mut impl BufMut) {
    assert!(value <= MAX, "varint {value} is above 2^53 - 1");
    match value {
        0..=0x3f => out.put_u8(value as u8),
        0x40..=0x3fff => out.put_u16(value as u16 | 0x4000),
        0x4000..=0x3fff_ffff => out.put_u32(value as u32 | 0x8000_0000),
        _ => out.put_u64(value | 0xc000_0000_0000_0000),
    }
}

/// Length of `value` in its shortest form, in bytes.
pub const fn len(value: u64) -> usize {
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_round_trip_in_the_shortest_form() {
        for value in [0, 0x3f, 0x40, 0x3fff, 0x4000, 0x3fff_ffff, 0x4000_0000, MAX] {
            let mut out = Vec::new();
            encode(value, &mut out);
            assert_eq!(out.len(), len(value));
            assert_eq!(decode(&out), Decoded::Value(value, out.len()));
            assert_eq!(decode(&out[..out.len() - 1]), Decoded::Incomplete);
        }
    }

    #[test]
    fn longer_forms_are_read_and_too_large_values_are_not() {
        assert_eq!(decode(&[0x40, 0x05]), Decoded::Value(5, 2));
        assert_eq!(decode(&[0xc0, 0x20, 0, 0, 0, 0, 0, 0]), Decoded::TooLarge);
        assert_eq!(take(&mut &[0xffu8; 8][..]), None);
    }
}
