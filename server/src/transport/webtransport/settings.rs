//! The setting that h3 cannot send.

use bytes::{Bytes, BytesMut};

use super::varint;

/// SETTINGS_WEBTRANSPORT_MAX_SESSIONS of draft-07 and later, which Safari 26 asks for. h3 knows only
/// the draft-02 pair, which Chromium and Firefox ask for; all of them together offend nobody.
const WEBTRANSPORT_MAX_SESSIONS: u64 = 0xc671_706a;

/// The stream type of a control stream, then the frame type of SETTINGS (RFC 9114, 6.2.1 and 7.2.4).
const CONTROL_THEN_SETTINGS: [u8; 2] = [0x00, 0x04];

/// Adds [`WEBTRANSPORT_MAX_SESSIONS`] to the SETTINGS frame in `write`, which is the first write on
/// h3's control stream. Anything else is returned as it came: h3 is pinned, and a test shows that
/// its first write is of this form.
pub(super) fn complete(write: Bytes, max_sessions: u32) -> Bytes {
    let Some(frame) = write.strip_prefix(&CONTROL_THEN_SETTINGS) else {
        return write;
    };
    let Some((len, len_len)) = varint::decode(frame) else {
        return write;
    };
    let payload = &frame[len_len..];
    if payload.len() as u64 != len {
        return write;
    }
    let mut ours = BytesMut::with_capacity(16);
    varint::encode(WEBTRANSPORT_MAX_SESSIONS, &mut ours);
    varint::encode(max_sessions.into(), &mut ours);
    let mut out = BytesMut::with_capacity(write.len() + ours.len() + 8);
    out.extend_from_slice(&CONTROL_THEN_SETTINGS);
    varint::encode((payload.len() + ours.len()) as u64, &mut out);
    out.extend_from_slice(payload);
    out.extend_from_slice(&ours);
    out.freeze()
}

#[cfg(test)]
pub(super) fn parse(bytes: &[u8]) -> Vec<(u64, u64)> {
    let frame = bytes.strip_prefix(&CONTROL_THEN_SETTINGS).expect("a control stream");
    let (len, len_len) = varint::decode(frame).expect("a length");
    let mut rest = &frame[len_len..];
    assert_eq!(rest.len() as u64, len, "the frame's length is that of its payload");
    let mut settings = Vec::new();
    while !rest.is_empty() {
        let (id, id_len) = varint::decode(rest).expect("an identifier");
        let (value, value_len) = varint::decode(&rest[id_len..]).expect("a value");
        settings.push((id, value));
        rest = &rest[id_len + value_len..];
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_is_appended_and_the_length_corrected() {
        let before = Bytes::from_static(&[0x00, 0x04, 0x04, 0x08, 0x01, 0x33, 0x01]);
        assert_eq!(parse(&before), [(0x08, 1), (0x33, 1)]);
        let after = complete(before, 16);
        assert_eq!(parse(&after), [(0x08, 1), (0x33, 1), (0xc671_706a, 16)]);
    }

    #[test]
    fn a_length_that_grows_past_one_byte_is_encoded_in_two() {
        let mut before = vec![0x00, 0x04, 60];
        for id in 0..30 {
            before.extend_from_slice(&[id + 0x20, 1]);
        }
        let after = complete(before.into(), 16);
        assert_eq!(after[2], 0x40);
        assert_eq!(parse(&after).len(), 31);
    }

    #[test]
    fn anything_else_passes_unchanged() {
        for other in [&[][..], &[0x02], &[0x00], &[0x00, 0x04], &[0x00, 0x04, 0x09, 0x08], &[0x03, 0x04, 0x00]] {
            assert_eq!(complete(Bytes::copy_from_slice(other), 16), other);
        }
    }
}
