//! Error codes of HTTP/3 and WebTransport, as they stand on the wire.

use quinn::VarInt;

/// RFC 9297, section 5.2: a datagram or capsule could not be parsed.
pub(super) const H3_DATAGRAM_ERROR: VarInt = VarInt::from_u32(0x33);
/// RFC 9114, section 8.1: closed without an error.
pub(super) const H3_NO_ERROR: VarInt = VarInt::from_u32(0x100);
/// The peer opened a stream of a kind that is not accepted.
pub(super) const H3_STREAM_CREATION_ERROR: VarInt = VarInt::from_u32(0x103);
/// A frame had an invalid layout or size.
pub(super) const H3_FRAME_ERROR: VarInt = VarInt::from_u32(0x106);
/// The peer asks for more than it may have.
pub(super) const H3_EXCESSIVE_LOAD: VarInt = VarInt::from_u32(0x107);
/// A stream id was used wrongly: a session id that no CONNECT request can have.
pub(super) const H3_ID_ERROR: VarInt = VarInt::from_u32(0x108);
/// Refused before anything was processed; the client may try again elsewhere.
pub(super) const H3_REQUEST_REJECTED: VarInt = VarInt::from_u32(0x10b);
/// The server gave the request up.
pub(super) const H3_REQUEST_CANCELLED: VarInt = VarInt::from_u32(0x10c);
/// The stream ended, or stood still, before it held a request.
pub(super) const H3_REQUEST_INCOMPLETE: VarInt = VarInt::from_u32(0x10d);
#[cfg(test)]
/// A message, a body or a capsule was malformed.
pub(super) const H3_MESSAGE_ERROR: VarInt = VarInt::from_u32(0x10e);
/// A stream that cannot be kept: its session is not known in time, or its session's queue is full
/// (draft-ietf-webtrans-http3, section 4.6).
pub(super) const BUFFERED_STREAM_REJECTED: VarInt = VarInt::from_u32(0x3994_bd84);
/// A stream of a session that has ended (draft-ietf-webtrans-http3, section 6).
pub(super) const SESSION_GONE: VarInt = VarInt::from_u32(0x170d_7b68);

/// The first of the HTTP/3 codes that carry WebTransport's own stream error codes.
const FIRST: u64 = 0x52e4_a40f_a8db;

/// A WebTransport stream error code as the HTTP/3 code that carries it
/// (draft-ietf-webtrans-http3, section 4.4). One in 31 is left out: it is reserved for greasing.
pub(super) fn to_http3(code: u32) -> VarInt {
    let code = u64::from(code);
    let mapped = FIRST + code + code / 0x1e;
    // At most 0x52e5ac983162, far below 2^62.
    VarInt::from_u64(mapped).unwrap_or(VarInt::MAX)
}

/// The inverse of [`to_http3`]; `None` for a code that is not one of WebTransport's.
pub(super) fn from_http3(code: VarInt) -> Option<u32> {
    let shifted = code.into_inner().checked_sub(FIRST)?;
    if shifted % 0x1f == 0x1e {
        return None;
    }
    u32::try_from(shifted - shifted / 0x1f).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_codes_round_trip() {
        for code in (0..200).chain([0xff, 0xffff, u32::MAX - 1, u32::MAX]) {
            assert_eq!(from_http3(to_http3(code)), Some(code), "{code}");
        }
    }

    #[test]
    fn the_ends_of_the_range_are_those_of_the_draft() {
        assert_eq!(to_http3(0).into_inner(), 0x52e4_a40f_a8db);
        assert_eq!(to_http3(u32::MAX).into_inner(), 0x52e5_ac98_3162);
        assert_eq!(from_http3(VarInt::from_u32(0x100)), None);
        assert_eq!(from_http3(VarInt::from_u64(0x52e4_a40f_a8db + 0x1e).expect("small")), None);
        assert_eq!(from_http3(VarInt::from_u64(0x52e5_ac98_3163).expect("small")), None);
    }
}
