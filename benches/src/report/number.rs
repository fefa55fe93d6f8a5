//! Numbers and names of measures as readers want them.

use crate::results::Spread;

/// Three significant digits, thousands apart: `1 230 000`, `45.6`, `0.123`.
pub(super) fn number(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let digits = value.abs().log10().floor() as i32;
    if digits >= 2 {
        let unit = 10_f64.powi((digits - 2).max(0));
        return grouped((value / unit).round() * unit);
    }
    let decimals = usize::try_from(2 - digits).unwrap_or(0).min(4);
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Two decimals, or three digits where these say more.
pub(super) fn ratio(value: f64) -> String {
    if (0.1..10.0).contains(&value) { format!("{value:.2}") } else { number(value) }
}

/// The median, and its spread where that is more than the least; what was measured once has none.
pub(super) fn spread(spread: &Spread, repeats: u32) -> String {
    if repeats < 2 || spread.is_least() { number(spread.median) } else { stated(spread) }
}

/// `45.6 ± 7%`.
pub(super) fn stated(spread: &Spread) -> String {
    if spread.median == 0.0 {
        return if spread.high == spread.low { "0".to_owned() } else { format!("0 ± {}", number(spread.stated())) };
    }
    format!("{} ± {:.0}%", number(spread.median), spread.stated() / spread.median.abs() * 100.0)
}

/// `p99_us` is "p99, µs"; `messages_per_cpu_second` is "messages per CPU second".
pub(super) fn title(measure: &str) -> String {
    let (words, unit) = split(measure);
    match unit {
        Some(unit) => format!("{words}, {unit}"),
        None => words,
    }
}

/// The same without its unit, for sentences.
pub(super) fn name(measure: &str) -> String {
    split(measure).0
}

fn split(measure: &str) -> (String, Option<&str>) {
    if measure == "ratio_to_direct_and_hedge" {
        return ("times the time of a direct WebSocket connection and one hedge".to_owned(), None);
    }
    if measure == "seconds" {
        return ("time".to_owned(), Some("s"));
    }
    let (name, unit) = [("_us", "µs"), ("_ms", "ms"), ("_seconds", "s"), ("_bytes", "bytes")]
        .into_iter()
        .find_map(|(suffix, unit)| Some((measure.strip_suffix(suffix)?, Some(unit))))
        .unwrap_or((measure, None));
    let words = format!(" {} ", name.replace('_', " "));
    let words = words.replace(" cpu ", " CPU ").replace(" us ", " (µs) ").replace(" p999 ", " p99.9 ");
    (words.trim().to_owned(), unit)
}

/// A count, to the last digit.
pub(super) fn count(value: u64) -> String {
    grouped(value as f64)
}

fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 && digits.len() > 4 {
            text.push('\u{202f}'); // a narrow space that does not break
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let cases = [(1_234_567.0, "1\u{202f}230\u{202f}000"), (45_678.0, "45\u{202f}700"), (1_234.0, "1230")];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
        assert_eq!(number(999.6), "1000");
        assert_eq!(number(45.64), "45.6");
        assert_eq!(number(3.0), "3");
        assert_eq!(number(0.12345), "0.123");
        assert_eq!(number(0.0), "0");
    }

    #[test]
    fn a_ratio_near_one_has_two_decimals() {
        assert_eq!(ratio(0.951), "0.95");
        assert_eq!(ratio(1.0), "1.00");
        assert_eq!(ratio(12.34), "12.3");
        assert_eq!(ratio(0.0123), "0.0123");
    }

    #[test]
    fn a_spread_is_shown_when_there_is_one() {
        let three = Spread { median: 2.0, low: 1.0, high: 4.0 };
        assert_eq!(spread(&three, 3), "2 ± 150%");
        assert_eq!(spread(&three, 1), "2");
        assert_eq!(spread(&Spread { median: 817.0, low: 800.0, high: 830.0 }, 3), "817");
        assert_eq!(stated(&Spread { median: 817.0, low: 800.0, high: 830.0 }), "817 ± 5%");
        assert_eq!(stated(&Spread { median: 0.0, low: 0.0, high: 0.0 }), "0");
        assert_eq!(stated(&Spread { median: 0.0, low: 0.0, high: 2.0 }), "0 ± 2");
    }

    #[test]
    fn names_of_measures_are_readable() {
        assert_eq!(title("p99_us"), "p99, µs");
        assert_eq!(title("p999_us"), "p99.9, µs");
        assert_eq!(name("p999_us"), "p99.9");
        assert_eq!(title("messages_per_cpu_second"), "messages per CPU second");
        assert_eq!(title("cpu_us_per_session"), "CPU (µs) per session");
        assert_eq!(title("resident_bytes_per_session"), "resident bytes per session");
    }
}
