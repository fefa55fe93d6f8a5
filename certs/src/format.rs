use std::{fmt::Write as _, time::SystemTime};

use base64::Engine as _;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A hash in base64 with padding.
#[must_use]
pub fn base64(hash: &[u8; 32]) -> String {
    base64::engine::general_purpose::STANDARD.encode(hash)
}

/// A hash in lower-case hexadecimal, without separators.
#[must_use]
pub fn hex(hash: &[u8; 32]) -> String {
    hash.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
        text
    })
}

/// The property of `new WebTransport(url, { … })` that makes a browser accept these certificates.
#[must_use]
pub fn javascript(hashes: &[[u8; 32]]) -> String {
    let mut text = "serverCertificateHashes: [\n".to_owned();
    for hash in hashes {
        let value = base64(hash);
        // Written to a String, which cannot fail.
        let _ = writeln!(
            text,
            "  {{ algorithm: 'sha-256', value: Uint8Array.from(atob('{value}'), (c) => c.charCodeAt(0)) }},"
        );
    }
    text.push(']');
    text
}

/// A moment as people and programs read it: `2026-07-01T12:00:00Z`, in UTC, without fractions of a second.
#[must_use]
pub fn rfc3339(moment: SystemTime) -> String {
    let whole = OffsetDateTime::from(moment);
    let whole = whole.replace_nanosecond(0).unwrap_or(whole);
    whole.format(&Rfc3339).unwrap_or_else(|_| whole.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn hashes_in_the_forms_that_people_paste() {
        let mut hash = [0; 32];
        (hash[0], hash[31]) = (0xab, 0x01);
        assert_eq!(hex(&hash), format!("ab{}01", "00".repeat(30)));
        assert_eq!(base64(&hash), "qwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=");
        assert_eq!(
            javascript(&[hash]),
            "serverCertificateHashes: [\n  { algorithm: 'sha-256', value: \
             Uint8Array.from(atob('qwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE='), (c) => c.charCodeAt(0)) },\n]"
        );
    }

    #[test]
    fn a_moment_is_written_in_utc_to_the_second() {
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH + Duration::from_millis(1_500)), "1970-01-01T00:00:01Z");
    }
}
