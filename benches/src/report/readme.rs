//! The ratios in the project's README, between two markers.

use super::goals::{Bound, GOALS, Verdict};
use super::number;
use crate::Failure;
use crate::results::Results;

pub(super) const BEGIN: &str = "<!-- benchmarks: written by `throughline-bench report` -->";
pub(super) const END: &str = "<!-- end of benchmarks -->";

/// The README with the ratios of this run between its markers.
pub(super) fn with_ratios(readme: &str, results: &Results) -> Result<String, Failure> {
    let missing = || Failure::from(format!("the README has no {BEGIN} followed by {END}"));
    let (before, rest) = readme.split_once(BEGIN).ok_or_else(missing)?;
    let (_, after) = rest.split_once(END).ok_or_else(missing)?;
    Ok(format!("{before}{BEGIN}\n{}{END}{after}", ratios(results)))
}

fn ratios(results: &Results) -> String {
    let mut lines = "| | Throughline, in multiples of | ratio | goal | |\n|---|---|---:|---|---|\n".to_owned();
    for goal in GOALS {
        for claim in goal.claims.iter().filter(|claim| claim.is_headline) {
            let is_ratio = claim.against.is_some() || claim.measure.starts_with("ratio");
            if !is_ratio {
                continue; // the README has no absolute figures
            }
            let Verdict::Measured { value, met, .. } = claim.verdict(goal, results) else { continue };
            let (sign, bound) = match claim.bound {
                Bound::AtLeast(bound) => ("≥", bound),
                Bound::AtMost(bound) => ("≤", bound),
            };
            // Which of our transports, where a goal has claims of several.
            let is_one_of_several = goal.claims.iter().any(|other| other.is_headline && other.ours != claim.ours);
            let ours = claim.ours.trim_start_matches("Throughline").trim();
            let words = [if is_one_of_several { ours } else { "" }, &claim.variant_in_words()].map(str::to_owned);
            let details: String =
                words.iter().filter(|word| !word.is_empty()).map(|word| format!(", {word}")).collect();
            let other = match claim.against {
                Some(against) => format!("{}: {}", against.subject, number::name(claim.measure)),
                None => "a direct WebSocket connection and one hedge: time to the first message".to_owned(),
            };
            lines += &format!(
                "| {}{details} | {other} | {} | {sign} {} | {} |\n",
                goal.title,
                number::ratio(value),
                number::ratio(bound),
                if met { "met" } else { "not met" }
            );
        }
    }
    lines + "\nAll of it, and where we lose: [docs/benchmarks](docs/benchmarks/README.md).\n"
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let readme = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let written = with_ratios(&readme, &fixture()).unwrap();
        assert!(written.starts_with("before\n") && written.ends_with("\nafter\n") && !written.contains("old"));
        assert!(written.contains("| Bun: messages per CPU second | 1.15 | ≥ 1.10 | met |"), "{written}");
        assert!(!written.contains("Socket.IO"), "what was not measured is not told");
        assert_eq!(with_ratios(&written, &fixture()).unwrap(), written);
        assert!(with_ratios("no markers", &fixture()).is_err());
    }
}
