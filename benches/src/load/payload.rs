//! What the messages of the workloads are made of: when they were due, which one it is, and filler.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Bytes before the filler.
pub(crate) const HEADER: usize = 16;

/// Fills a message: microseconds since the Unix epoch when it was due (8 bytes, big endian), its number (8 bytes), filler.
pub(crate) fn write(message: &mut [u8], due: Instant, number: u64) {
    let (header, filler) = message.split_at_mut(HEADER);
    header[..8].copy_from_slice(&micros(due).to_be_bytes());
    header[8..].copy_from_slice(&number.to_be_bytes());
    filler.fill(b'x');
}

/// The same as text for protocols that carry text better: both numbers as 16 hexadecimal digits. `message` is at least 32 bytes long.
pub(crate) fn write_text(message: &mut [u8], due: Instant, number: u64) {
    let (header, filler) = message.split_at_mut(2 * HEADER);
    header.copy_from_slice(format!("{:016x}{number:016x}", micros(due)).as_bytes());
    filler.fill(b'x');
}

/// When a message was due, and its number.
pub(crate) fn read(message: &[u8]) -> Option<(u64, u64)> {
    let number = |from: usize| Some(u64::from_be_bytes(message.get(from..from + 8)?.try_into().ok()?));
    Some((number(0)?, number(8)?))
}

/// The same of a text. The number is 0 when there is none.
pub(crate) fn read_text(message: &[u8]) -> Option<(u64, u64)> {
    let number = |from: usize| u64::from_str_radix(std::str::from_utf8(message.get(from..from + 16)?).ok()?, 16).ok();
    Some((number(0)?, number(16).unwrap_or(0)))
}

/// [`read`] or [`read_text`].
pub(crate) fn read_as(is_text: bool, message: &[u8]) -> Option<(u64, u64)> {
    if is_text { read_text(message) } else { read(message) }
}

/// [`write()`] or [`write_text`].
pub(crate) fn write_as(is_text: bool, message: &mut [u8], due: Instant, number: u64) {
    if is_text { write_text(message, due, number) } else { write(message, due, number) }
}

/// How long ago that was, by the clock that all processes of a machine share. What comes early by a rounding is not late.
pub(crate) fn age(due_micros: u64) -> Duration {
    Duration::from_micros(micros(Instant::now()).saturating_sub(due_micros))
}

/// Microseconds since the Unix epoch.
pub(crate) fn micros(at: Instant) -> u64 {
    static ORIGIN: OnceLock<(Instant, Duration)> = OnceLock::new();
    let (origin, epoch) =
        ORIGIN.get_or_init(|| (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()));
    let since = match at.checked_duration_since(*origin) {
        Some(after) => *epoch + after,
        None => epoch.saturating_sub(*origin - at),
    };
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_when_it_was_due_and_which_it_is() {
        let due = Instant::now();
        let mut message = [0; 100];
        write(&mut message, due, 7);
        assert_eq!(read(&message), Some((micros(due), 7)));
        write_text(&mut message, due, 7);
        assert_eq!(read_text(&message), Some((micros(due), 7)));
        assert_eq!(read(&message[..15]), None);
        assert_eq!(read_text(&message[..20]), Some((micros(due), 0)));
    }

    #[test]
    fn the_time_is_that_of_the_system() {
        let system = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
        assert!(micros(Instant::now()).abs_diff(system) < 1_000_000);
    }
}
