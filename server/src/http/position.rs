//! Positions as text: `<epoch>-<offset>`, in decimal.

use throughline_protocol::channel::Position;

/// As it stands in `id:`, `next` and everywhere else.
pub(crate) fn format(position: Position) -> String {
    format!("{}-{}", position.epoch, position.offset)
}

/// The position that a text says: two numbers of at most 16 digits, as many as 2^53 has.
pub(crate) fn parse(text: &str) -> Option<Position> {
    let (epoch, offset) = text.split_once('-')?;
    Some(Position { epoch: number(epoch)?, offset: number(offset)? })
}

fn number(text: &str) -> Option<u64> {
    let digits = text.len() <= 16 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use throughline_protocol::varint;

    use super::*;

    #[test]
    fn a_position_is_two_numbers() {
        for position in [Position::default(), Position { epoch: varint::MAX, offset: varint::MAX }] {
            assert_eq!(parse(&format(position)), Some(position));
        }
        assert_eq!(format(Position { epoch: 7, offset: 12 }), "7-12");
        for text in ["", "7", "-", "7-", "-7", "7-x", "+7-1", "7--1", "7-1-1", "7 -1", "7-90071992547409910"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
