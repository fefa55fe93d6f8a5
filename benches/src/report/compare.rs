//! Whether two runs say the same, within what each states.

use std::fmt::{self, Write};

use super::goals::{GOALS, Goal};
use super::number;
use crate::results::{Results, Row, Spread};

/// Where two runs differ, as a table, and how many figures were compared.
pub(super) fn page(one: &Results, other: &Results) -> Result<String, fmt::Error> {
    let mut out = String::new();
    let (mut compared, mut differences) = (0, Vec::new());
    for goal in GOALS {
        let others = goal.rows(other);
        for row in goal.rows(one) {
            let same = |other: &&&Row| (&other.variant, &other.subject) == (&row.variant, &row.subject);
            match others.iter().find(same) {
                Some(other) => compared += compare(goal, row, other, &mut differences),
                None => differences.push(Difference::of(row, "is only in the first run".to_owned())),
            }
        }
        let is_new =
            |row: &&Row| !goal.rows(one).iter().any(|one| (&one.variant, &one.subject) == (&row.variant, &row.subject));
        let only = "is only in the second run";
        differences.extend(others.into_iter().filter(is_new).map(|row| Difference::of(row, only.to_owned())));
    }
    if !differences.is_empty() {
        writeln!(out, "| | variant | server | |\n|---|---|---|---|")?;
        for Difference { goal, variant, subject, what } in &differences {
            writeln!(out, "| {goal} | {variant} | {subject} | {what} |")?;
        }
        writeln!(out)?;
    }
    writeln!(
        out,
        "{compared} figures are in both runs; {} rows or figures are not the same within the stated spread.",
        differences.len()
    )?;
    Ok(out)
}

struct Difference {
    goal: String,
    variant: String,
    subject: String,
    what: String,
}

impl Difference {
    fn of(row: &Row, what: String) -> Self {
        Self { goal: row.goal.clone(), variant: row.variant.clone(), subject: row.subject.clone(), what }
    }
}

/// Compares what a goal is judged by, and says how much that was.
fn compare(goal: &Goal, one: &Row, other: &Row, differences: &mut Vec<Difference>) -> usize {
    let mut compared = 0;
    for name in goal.headlines() {
        match (one.measures.get(name), other.measures.get(name)) {
            (Some(a), Some(b)) => {
                compared += 1;
                if !a.agrees(b) {
                    differences.push(Difference::of(one, format!("{}: {}", number::title(name), both(a, b))));
                }
            }
            (None, None) => {}
            (a, _) => {
                let which = if a.is_some() { "first" } else { "second" };
                differences.push(Difference::of(one, format!("{}: only in the {which} run", number::title(name))));
            }
        }
    }
    compared
}

fn both(one: &Spread, other: &Spread) -> String {
    format!("{} and {}", number::stated(one), number::stated(other))
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn a_run_agrees_with_itself() {
        let page = page(&fixture(), &fixture()).unwrap();
        assert_eq!(page, "4 figures are in both runs; 0 rows or figures are not the same within the stated spread.\n");
    }

    #[test]
    fn what_differs_by_more_than_the_spreads_is_told_and_what_is_missing() {
        let (one, mut other) = (fixture(), fixture());
        for row in &mut other.rows {
            if let Some(spread) = row.measures.get_mut("messages_per_cpu_second")
                && row.variant == "100 B x 1000"
            {
                // Bun: 817 ± 5% against 700 ± 5%; ours: 940 ± 60 against 823 ± 60.
                for value in [&mut spread.median, &mut spread.low, &mut spread.high] {
                    *value -= 117.0;
                }
            }
        }
        other.rows.retain(|row| row.kind != crate::results::Kind::Limit);
        let page = page(&one, &other).unwrap();
        assert!(
            page.contains("| G1 | 100 B x 1000 | Bun | messages per CPU second: 817 ± 5% and 700 ± 5% |"),
            "{page}"
        );
        assert!(!page.contains("throughline websocket"), "{page}");
        assert!(page.contains("| raw write loop | is only in the first run |"));
        assert!(page.contains("2 figures are in both runs; 3 rows or figures"), "{page}");
        let turned = super::page(&other, &one).unwrap();
        assert!(turned.contains("| raw write loop | is only in the second run |"), "{turned}");
    }
}
