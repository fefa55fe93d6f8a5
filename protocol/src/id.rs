//! A session's id, and the key that proves who may resume it. Both are 16 random bytes, written as base64url.

use std::fmt;
use std::str::FromStr;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const TEXT_LEN: usize = 22;

/// The id of a session. Not a secret: it appears in logs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub [u8; 16]);

/// The secret that lets its holder speak for a session. Never printed.
#[derive(Clone, Copy)]
pub struct ResumeKey(pub [u8; 16]);

/// The text is not 22 characters of unpadded base64url.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 22 characters of base64url without padding")]
pub struct ParseIdError;

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_text(&self.0))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

impl FromStr for SessionId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        from_text(text).map(Self)
    }
}

impl ResumeKey {
    /// The key as it travels in headers and URLs. Named, so that it is never printed by accident.
    pub fn expose(&self) -> String {
        to_text(&self.0)
    }
}

impl PartialEq for ResumeKey {
    /// Takes the same time wherever the difference is.
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
    }
}

impl Eq for ResumeKey {}

impl fmt::Debug for ResumeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResumeKey(…)")
    }
}

impl FromStr for ResumeKey {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        from_text(text).map(Self)
    }
}

fn to_text(bytes: &[u8; 16]) -> String {
    let number = u128::from_be_bytes(*bytes);
    // 128 bits are 21 characters of six bits and one of two, which stand in its high bits.
    (0..TEXT_LEN)
        .map(|i| {
            let shift = 122 - 6 * i as i32;
            let six = if shift >= 0 { number >> shift } else { number << -shift };
            char::from(ALPHABET[(six & 0x3f) as usize])
        })
        .collect()
}

fn from_text(text: &str) -> Result<[u8; 16], ParseIdError> {
    if text.len() != TEXT_LEN {
        return Err(ParseIdError);
    }
    let mut number = 0u128;
    for (i, character) in text.bytes().enumerate() {
        let six = ALPHABET.iter().position(|c| *c == character).ok_or(ParseIdError)? as u128;
        if i < TEXT_LEN - 1 {
            number = (number << 6) | six;
        } else if six & 0x0f == 0 {
            number = (number << 2) | (six >> 4);
        } else {
            return Err(ParseIdError);
        }
    }
    Ok(number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_unpadded_base64url() {
        let id = SessionId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        assert_eq!(id.to_string(), "AAECAwQFBgcICQoLDA0O_w");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(SessionId([0xff; 16]).to_string(), "_____________________w");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in
            ["", "AAECAwQFBgcICQoLDA0O_", "AAECAwQFBgcICQoLDA0O_x", "AAECAwQFBgcICQoLDA0O+w", "AAECAwQFBgcICQoLDA0O_wA"]
        {
            assert_eq!(text.parse::<SessionId>(), Err(ParseIdError), "{text}");
        }
    }

    #[test]
    fn a_key_is_never_printed() {
        assert_eq!(format!("{:?}", ResumeKey([7; 16])), "ResumeKey(…)");
    }
}
