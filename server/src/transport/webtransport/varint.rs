//! QUIC variable-length integers (RFC 9000, section 16).

use bytes::BufMut;

/// The largest value that fits.
pub(super) const MAX: u64 = (1 << 62) - 1;

/// The encoded length, 1 to 8, that a first byte announces.
pub(super) fn len_from_first(first: u8) -> usize {
    1 << (first >> 6)
}

/// Decodes the integer at the start of `bytes`; `None` when it is not all there.
/// Returns the value and the number of bytes it took.
pub(super) fn decode(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let len = len_from_first(first);
    let rest = bytes.get(1..len)?;
    let value = rest.iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte));
    Some((value, len))
}

/// Appends `value` in its shortest form. Values above [`MAX`] do not exist in QUIC; their top two
/// bits are lost.
pub(super) fn encode(value: u64, out: &mut impl BufMut) {
    debug_assert!(value <= MAX);
    if value < 1 << 6 {
        out.put_u8(value as u8);
    } else if value < 1 << 14 {
        out.put_u16(value as u16 | 0x40 << 8);
    } else if value < 1 << 30 {
        out.put_u32(value as u32 | 0x80 << 24);
    } else {
        out.put_u64(value | 0xc0 << 56);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_at_every_length() {
        for value in [0, 1, 63, 64, 16_383, 16_384, (1 << 30) - 1, 1 << 30, MAX] {
            let mut out = Vec::new();
            encode(value, &mut out);
            assert_eq!(decode(&out), Some((value, out.len())));
            assert_eq!(len_from_first(out[0]), out.len());
            assert_eq!(decode(&out[..out.len() - 1]), None);
        }
    }

    #[test]
    fn decodes_the_examples_of_rfc_9000() {
        assert_eq!(decode(&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c]), Some((151_288_809_941_952_652, 8)));
        assert_eq!(decode(&[0x9d, 0x7f, 0x3e, 0x7d]), Some((494_878_333, 4)));
        assert_eq!(decode(&[0x40, 0x25]), Some((37, 2)));
    }
}
