//! The page: per goal where it stands, what it looks like, and a table of every subject.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use super::goals::{Against, Better, Bound, Claim, GOALS, Goal, Measure, Verdict};
use super::{number, plots};
use crate::results::{Kind, Results, Row};

/// All of it. `notes` are what somebody has written about goals.
pub(super) fn page(results: &Results, notes: &BTreeMap<&'static str, String>) -> Result<String, fmt::Error> {
    let mut out = String::new();
    head(&mut out, results)?;
    overview(&mut out, results)?;
    for goal in GOALS {
        section(&mut out, goal, results)?;
        if let Some(note) = notes.get(goal.id) {
            writeln!(out, "\n{}", note.trim())?;
        }
    }
    places(&mut out, results)?;
    settings(&mut out, results)?;
    Ok(out)
}

fn head(out: &mut String, results: &Results) -> fmt::Result {
    let Results { when, commit, quick, machine, .. } = results;
    writeln!(out, "# Benchmarks\n")?;
    writeln!(out, "<!-- Written by `throughline-bench report` out of results.json. -->\n")?;
    if *quick {
        writeln!(out, "**This was a quick run: it shows that everything works, and not how fast it is.**\n")?;
    }
    writeln!(
        out,
        "Measured on {}, commit `{commit}`, by [`scripts/bench`](../../benches/README.md): {}, {} cores, {:.1} GiB of memory, {}, Linux {}.\n",
        day(when),
        machine.cpu,
        machine.cores,
        machine.memory_bytes as f64 / 1_073_741_824.0,
        machine.os,
        machine.kernel
    )?;
    writeln!(
        out,
        "Every server has one core, and the load generator another. Figures *per CPU second* are per second of the server's own processor time, so they do not depend on how fast the load \
         generator is. Each is the median of the repeats, and the repeats of different servers took turns. Its spread is the whole distance from the lowest repeat to the highest, in both directions, and 5% at \
         least: it stands behind a ± where it is more. Two runs agree on a figure when what they state has something in common, and `throughline-bench compare` says where they do not. Brackets behind a ratio are the worst and the best that the repeats of both sides allow. Latency counts from when a message \
         *should* have been sent. *Limits* are servers that do nothing but the one thing that cannot be left out. Compare ratios within this page, and not figures with those of other machines.\n"
    )
}

/// Date and minute of an RFC 3339 time.
fn day(when: &str) -> String {
    match when.get(..16) {
        Some(minute) if when.ends_with('Z') => format!("{} UTC", minute.replace('T', " ")),
        _ => when.to_owned(),
    }
}

fn overview(out: &mut String, results: &Results) -> fmt::Result {
    writeln!(out, "## Where the goals stand\n")?;
    writeln!(out, "| | what | goal | measured | |\n|---|---|---|---|---|")?;
    for goal in GOALS {
        for claim in goal.claims {
            let (measured, met) = match claim.verdict(goal, results) {
                Verdict::Measured { value, low, high, met } => {
                    (shown(claim, value, low, high), if met { "met" } else { "**not met**" })
                }
                Verdict::Missing(reason) => (escaped(&reason), "not measured"),
            };
            writeln!(
                out,
                "| [{}](#{}) | {} | {} | {measured} | {met} |",
                goal.id,
                anchor(goal),
                subject_of(claim),
                bound(claim)
            )?;
        }
    }
    writeln!(out)
}

fn section(out: &mut String, goal: &Goal, results: &Results) -> fmt::Result {
    writeln!(out, "\n## {}: {}\n\n{}\n", goal.id, goal.title, goal.workload)?;
    let rows = goal.rows(results);
    if rows.is_empty() {
        return writeln!(out, "Not part of this run.");
    }
    for claim in goal.claims {
        writeln!(out, "- {}", sentence(claim, goal, results))?;
    }
    if plots::picture(goal, results).is_some() {
        writeln!(out, "\n![{}: {}]({})", goal.id, goal.title, plots::file_name(goal))?;
    }
    for variant in goal.variants(results) {
        let rows: Vec<_> = rows.iter().copied().filter(|row| row.variant == variant).collect();
        writeln!(out, "\n### {variant}\n")?;
        table(out, goal, &rows)?;
    }
    Ok(())
}

/// Where a claim stands, in words.
fn sentence(claim: &Claim, goal: &Goal, results: &Results) -> String {
    let wanted = match claim.bound {
        Bound::AtLeast(bound) => format!("goal: at least {}", value(claim, bound)),
        Bound::AtMost(bound) => format!("goal: at most {}", value(claim, bound)),
    };
    match claim.verdict(goal, results) {
        Verdict::Missing(reason) => {
            format!("Not measured ({wanted}): {}, because {}.", subject_of(claim), escaped(&reason))
        }
        Verdict::Measured { value, low, high, met } => {
            let verdict = if met { "Met" } else { "Not met" };
            let (ours, name) = (claim.ours, number::name(claim.measure));
            let (value, variant) = (shown(claim, value, low, high), bracketed(&claim.variant_in_words()));
            let other = match claim.against {
                Some(Against { subject, goal: None, .. }) => format!("times the {name} of {subject}"),
                Some(Against { subject, goal: Some(goal), .. }) => format!("times the {name} of {subject} in {goal}"),
                None => name,
            };
            let doubt = if claim.bound_holds(low) == claim.bound_holds(high) {
                ""
            } else {
                " The repeats are too far apart to be sure."
            };
            format!("{verdict}: {ours} has {value} {other}{variant} ({wanted}).{doubt}")
        }
    }
}

impl Claim {
    /// Without what it is not.
    pub(super) fn variant_in_words(&self) -> String {
        self.variant.split_whitespace().filter(|word| !word.starts_with('-')).collect::<Vec<_>>().join(" ")
    }

    fn bound_holds(&self, value: f64) -> bool {
        match self.bound {
            Bound::AtLeast(bound) => value >= bound,
            Bound::AtMost(bound) => value <= bound,
        }
    }
}

/// What is compared, in a cell of a table.
fn subject_of(claim: &Claim) -> String {
    let (variant, measure) = (bracketed(&claim.variant_in_words()), number::name(claim.measure));
    match claim.against {
        Some(Against { subject, goal: None, .. }) => format!("{} ÷ {subject}, {measure}{variant}", claim.ours),
        Some(Against { subject, goal: Some(goal), .. }) => {
            format!("{} ÷ {subject} in {goal}, {measure}{variant}", claim.ours)
        }
        None => format!("{}, {measure}{variant}", claim.ours),
    }
}

fn bracketed(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(" ({words})") }
}

fn bound(claim: &Claim) -> String {
    match claim.bound {
        Bound::AtLeast(bound) => format!("≥ {}", value(claim, bound)),
        Bound::AtMost(bound) => format!("≤ {}", value(claim, bound)),
    }
}

fn shown(claim: &Claim, median: f64, low: f64, high: f64) -> String {
    if low == high {
        return value(claim, median);
    }
    format!("{} ({}–{})", value(claim, median), value(claim, low), value(claim, high))
}

fn value(claim: &Claim, value: f64) -> String {
    let is_ratio = claim.against.is_some() || claim.measure.starts_with("ratio");
    if is_ratio { number::ratio(value) } else { number::number(value) }
}

/// The rows of one variant, the best first; those without figures last, with the reason.
fn table(out: &mut String, goal: &Goal, rows: &[&Row]) -> fmt::Result {
    let main = goal.measure(rows);
    let columns = columns(main, rows);
    let limit = best(rows, main, Kind::Limit);
    let ours = best(rows, main, Kind::Ours);
    write!(out, "| server |")?;
    for (index, name) in columns.iter().enumerate() {
        write!(out, " {} |", number::title(name))?;
        if index == 0 {
            write!(out, "{}{}", relation(limit, " ÷ limit |"), relation(ours, " ÷ Throughline |"))?;
        }
    }
    writeln!(
        out,
        " missing |\n|---|{}---|",
        "---:|".repeat(columns.len() + usize::from(limit.is_some()) + usize::from(ours.is_some()))
    )?;
    for row in sorted(rows, main) {
        write!(out, "| {} |", named(row))?;
        for (index, name) in columns.iter().enumerate() {
            match row.measures.get(*name) {
                Some(spread) => write!(out, " {} |", number::spread(spread, row.repeats))?,
                None => write!(out, " |")?,
            }
            if index == 0 {
                let median = row.measures.get(*name).map(|spread| spread.median);
                for other in [limit, ours].into_iter().flatten() {
                    match median {
                        Some(median) => write!(out, " {} |", number::ratio(median / other))?,
                        None => write!(out, " |")?,
                    }
                }
            }
        }
        match (&row.skipped, row.counts.lost) {
            (Some(reason), _) => writeln!(out, " not measured: {} |", escaped(reason))?,
            (None, lost) => writeln!(out, " {} of {} |", number::count(lost), number::count(row.counts.expected))?,
        }
    }
    Ok(())
}

fn relation(other: Option<f64>, heading: &str) -> &str {
    if other.is_some() { heading } else { "" }
}

fn named(row: &Row) -> String {
    match row.kind {
        Kind::Ours => format!("**{}**", row.subject),
        Kind::Peer => row.subject.clone(),
        Kind::Limit => format!("*{}* (limit)", row.subject),
    }
}

/// How busy both ends were, and whether the load generator could not keep up: it is in the results for those who doubt them.
const BESIDE_THE_POINT: [&str; 3] = ["cpu_share", "load_cpu_share", "load_late_us"];

/// The one that the table is about first, then the others by name; what was nothing with all of them is left out.
fn columns<'a>(main: Option<Measure>, rows: &[&'a Row]) -> Vec<&'a str> {
    let says_something = |name: &&str| {
        !BESIDE_THE_POINT.contains(name)
            && rows.iter().any(|row| row.measures.get(*name).is_some_and(|spread| spread.high != 0.0))
    };
    let mut names: Vec<&str> = rows.iter().flat_map(|row| row.measures.keys().map(String::as_str)).collect();
    names.retain(says_something);
    // p50, p90, p99, p99.9: as numbers are ordered, and not as texts are.
    let position =
        |name: &str| (Some(name) != main.map(|main| main.name), name.starts_with('p'), name.replace("p99_", "p990_"));
    names.sort_by_key(|name| position(name));
    names.dedup();
    names
}

/// The best figure among the rows of one kind.
fn best(rows: &[&Row], main: Option<Measure>, kind: Kind) -> Option<f64> {
    let main = main?;
    let of_kind: Vec<_> = rows.iter().copied().filter(|row| row.kind == kind).collect();
    sorted(&of_kind, Some(main)).first()?.measures.get(main.name).map(|spread| spread.median)
}

/// The best first.
pub(super) fn sorted<'a>(rows: &[&'a Row], main: Option<Measure>) -> Vec<&'a Row> {
    let mut rows = rows.to_vec();
    let Some(main) = main else { return rows };
    let key = |row: &&Row| {
        let value = row.measures.get(main.name).map_or(f64::INFINITY, |spread| spread.median);
        if main.better == Better::More && value.is_finite() { -value } else { value }
    };
    rows.sort_by(|a, b| key(a).total_cmp(&key(b)));
    rows
}

/// Who was measured where, and why not elsewhere.
fn places(out: &mut String, results: &Results) -> fmt::Result {
    writeln!(
        out,
        "\n## Who is where\n\n● was measured, ○ could not be: its row says why. Everybody else does not do this kind of work:\n"
    )?;
    for goal in GOALS {
        writeln!(out, "- {}: {}.", goal.id, goal.takes)?;
    }
    let ids: Vec<_> = GOALS.iter().map(|goal| goal.id).collect();
    writeln!(out, "\n| server | {} |\n|---|{}", ids.join(" | "), ":---:|".repeat(ids.len()))?;
    let mut subjects: Vec<(Kind, &str)> = Vec::new();
    for row in &results.rows {
        if !subjects.iter().any(|(_, subject)| *subject == row.subject) {
            subjects.push((row.kind, &row.subject));
        }
    }
    subjects.sort_by_key(|(kind, _)| [Kind::Limit, Kind::Ours, Kind::Peer].iter().position(|one| one == kind));
    for (_, subject) in subjects {
        write!(out, "| {subject} |")?;
        for goal in GOALS {
            let rows = goal.rows(results).into_iter().filter(|row| row.subject == subject).collect::<Vec<_>>();
            let sign = match rows.as_slice() {
                [] => "",
                rows if rows.iter().all(|row| row.skipped.is_some()) => "○",
                _ => "●",
            };
            write!(out, " {sign} |")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn settings(out: &mut String, results: &Results) -> fmt::Result {
    writeln!(out, "\n## Settings\n")?;
    let mut settings: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for row in &results.rows {
        settings.entry(&row.settings).or_default().insert(&row.subject);
    }
    let mut settings: Vec<_> = settings.into_iter().map(|(settings, subjects)| (subjects, settings)).collect();
    settings.sort();
    for (subjects, settings) in settings {
        writeln!(out, "- {}: {settings}", subjects.into_iter().collect::<Vec<_>>().join(", "))?;
    }
    writeln!(out, "\n## Versions\n")?;
    for (name, version) in &results.versions {
        writeln!(out, "- {name} {version}")?;
    }
    Ok(())
}

/// The name that GitHub gives a heading.
fn anchor(goal: &Goal) -> String {
    let heading = format!("{}: {}", goal.id, goal.title).to_lowercase();
    heading
        .chars()
        .filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-')
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// In a cell of a table.
fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn it_says_what_is_met_what_is_not_and_what_was_not_measured() {
        let page = page(&fixture(), &BTreeMap::from([("G1", "A note.".to_owned())])).unwrap();
        assert!(page.contains("Met: Throughline websocket has 1.15 (1.12–1.24) times the messages per CPU second of Bun (goal: at least 1.10)."), "{page}");
        assert!(page.contains(
            "Not met: Throughline websocket has 0.94 (0.92–1.01) times the messages per CPU second of raw write loop"
        ));
        assert!(page.contains("The repeats are too far apart to be sure."));
        assert!(page.contains("Socket.IO: not installed"), "a row that was skipped says why");
        assert!(page.contains("3 of 1000"), "what was lost is shown");
        assert!(page.contains("A note."));
        assert!(page.contains("| Socket.IO | ○ |  |"), "who is where");
        assert!(page.contains("| Bun | ● |  |"));
        assert!(page.contains("Not part of this run."));
    }

    #[test]
    fn the_best_is_first_and_compared() {
        let page = page(&fixture(), &BTreeMap::new()).unwrap();
        let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("no {text} in {page}"));
        assert!(at("| *raw write loop* (limit) | 1000") < at("| **throughline websocket** | 940"));
        assert!(at("| **throughline websocket** | 940") < at("| Bun | 817"));
        assert!(page.contains("| Bun | 817 | 0.82 | 0.87 |"));
    }

    #[test]
    fn links_lead_to_headings() {
        assert_eq!(anchor(&GOALS[0]), "g1-websocket-fan-out");
    }
}
