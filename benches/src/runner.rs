//! One run: every workload, every subject that takes it, and the repeats of each, interleaved.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::catalogue::{self, Contender};
use crate::certificate::Certificate;
use crate::results::{Counts, Kind, Measured, Results, Row, Spread};
use crate::settings::{LOAD_CORE, Settings};
use crate::workload::{self, Workload};
use crate::{Failure, Run, check, machine};

/// Three show whether a figure can be trusted; the spread is in the results.
const REPEATS: u32 = 3;

/// Runs what was asked for, and writes `results.json`, also after each workload, so that a run that is cut short has shown something.
pub(crate) fn run(run: &Run) -> Result<(), Failure> {
    machine::raise_open_files()?;
    machine::pin(LOAD_CORE)?;
    let settings = Settings {
        quick: run.quick,
        repeats: run.repeats.unwrap_or(if run.quick { 1 } else { REPEATS }).max(1),
        subjects: run.subjects.clone(),
        certificate: Certificate::make()?,
        versions: RefCell::default(),
    };
    fs::create_dir_all(&run.out)?;
    let file = run.out.join("results.json");
    let mut results = Results {
        when: OffsetDateTime::now_utc().format(&Rfc3339)?,
        commit: machine::commit(),
        quick: run.quick,
        machine: machine::describe(),
        versions: BTreeMap::new(),
        rows: Vec::new(),
    };
    let started = Instant::now();
    let workloads = workload::all(&settings);
    let wrong = check(&run.only, &workloads, &settings);
    let plan: Vec<(&dyn Workload, Vec<Contender>)> = workloads
        .iter()
        .map(|workload| (workload.as_ref(), chosen(&run.only, workload.as_ref(), &workloads)))
        .filter(|(_, contenders)| !contenders.is_empty())
        .collect();
    let measuring: Duration = plan.iter().map(|(workload, all)| lasts(*workload, all, &wrong, &settings)).sum();
    let all = started.elapsed() + measuring;
    eprintln!("{} workloads, each subject {}: about {} in all", plan.len(), times(settings.repeats), in_words(all));
    let mut mistakes = Vec::new();
    for (workload, contenders) in plan {
        let expected = lasts(workload, &contenders, &wrong, &settings);
        eprintln!(
            "[{:>4} of about {} s] {} {}: {} (about {})",
            started.elapsed().as_secs(),
            all.as_secs(),
            workload.goal(),
            workload.name(),
            workload.variant(),
            in_words(expected)
        );
        let rows = compare(workload, &contenders, &wrong, &settings);
        mistakes.extend(rows.iter().filter_map(|row| mistake(workload, row)));
        results.rows.extend(rows);
        results.versions.clone_from(&settings.versions.borrow());
        fs::write(&file, serde_json::to_string_pretty(&results)?)?;
    }
    if results.rows.is_empty() {
        return Err("nothing was chosen".into());
    }
    eprintln!("[{:>4} s] done: {}", started.elapsed().as_secs(), file.display());
    // A quick run is a test: of the measuring, and of what we deliver.
    if run.quick && !mistakes.is_empty() {
        return Err(mistakes.join("\n").into());
    }
    Ok(())
}

/// How long a workload takes with all that can be measured, and with all repeats.
fn lasts(
    workload: &dyn Workload,
    contenders: &[Contender],
    wrong: &BTreeMap<String, String>,
    settings: &Settings,
) -> Duration {
    let measured = contenders.iter().filter(|contender| !wrong.contains_key(&contender.name())).count();
    workload.lasts() * u32::try_from(measured).unwrap_or(u32::MAX) * settings.repeats
}

fn in_words(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds => format!("{} minutes", seconds.div_ceil(60)),
    }
}

fn times(repeats: u32) -> String {
    if repeats == 1 { "once".to_owned() } else { format!("{repeats} times") }
}

/// What must not be in a row of ours: a peer may be missing, and may lose something.
fn mistake(workload: &dyn Workload, row: &Row) -> Option<String> {
    let Row { workload: name, variant, subject, counts, .. } = row;
    if row.kind == Kind::Peer {
        return None;
    }
    match &row.skipped {
        Some(why) => Some(format!("{name} ({variant}): {subject}: {why}")),
        None if counts.lost > 0 && !workload.may_lose() => {
            Some(format!("{name} ({variant}): {subject} lost {} of {}", counts.lost, counts.expected))
        }
        None => None,
    }
}

/// Why subjects cannot be measured, by their names: they are not installed, or wrong.
fn check(only: &[String], workloads: &[Box<dyn Workload>], settings: &Settings) -> BTreeMap<String, String> {
    let takers = workloads.iter().flat_map(|workload| chosen(only, workload.as_ref(), workloads));
    let contenders: BTreeMap<String, Contender> = takers.map(|contender| (contender.name(), contender)).collect();
    eprintln!("[   0 s] checking {} subjects", contenders.len());
    let mut wrong = BTreeMap::new();
    for (name, contender) in contenders {
        let reason = match contender.entry.missing(settings) {
            Some(missing) => Some(missing),
            None => check::check(&contender, settings).err().map(|error| format!("does not do its work: {error}")),
        };
        if let Some(reason) = reason {
            eprintln!("    {name:<28} {reason}");
            wrong.insert(name, reason);
        }
    }
    wrong
}

/// The subjects that take this workload, of those that were asked for. `only` has names of workloads and goals, and parts of names of subjects.
fn chosen(only: &[String], workload: &dyn Workload, all: &[Box<dyn Workload>]) -> Vec<Contender> {
    let is_called = |workload: &dyn Workload, name: &str| name == workload.name() || name == workload.goal();
    let (workloads, subjects): (Vec<&String>, Vec<&String>) =
        only.iter().partition(|name| all.iter().any(|workload| is_called(workload.as_ref(), name)));
    if !workloads.is_empty() && !workloads.iter().any(|name| is_called(workload, name)) {
        return Vec::new();
    }
    let is_chosen = |contender: &Contender| {
        subjects.is_empty() || subjects.iter().any(|part| contender.name().contains(part.as_str()))
    };
    catalogue::contenders().into_iter().filter(|one| workload.takes(one) && is_chosen(one)).collect()
}

/// Measures one subject after the other, and all of them again, so that what changes in the machine meanwhile meets all alike.
fn compare(
    workload: &dyn Workload,
    contenders: &[Contender],
    wrong: &BTreeMap<String, String>,
    settings: &Settings,
) -> Vec<Row> {
    let mut found: Vec<Vec<Measured>> = contenders.iter().map(|_| Vec::new()).collect();
    let mut skipped: Vec<Option<String>> =
        contenders.iter().map(|contender| wrong.get(&contender.name()).cloned()).collect();
    for _ in 0..settings.repeats {
        for ((contender, found), skipped) in contenders.iter().zip(&mut found).zip(&mut skipped) {
            if skipped.is_some() {
                continue;
            }
            match workload.run(contender, settings) {
                Ok(measured) => {
                    eprintln!("    {:<28} {}", contender.name(), line(&measured));
                    found.push(measured);
                }
                Err(error) => {
                    eprintln!("    {:<28} failed: {error}", contender.name());
                    *skipped = Some(format!("failed: {error}"));
                }
            }
        }
    }
    contenders
        .iter()
        .zip(found)
        .zip(skipped)
        .map(|((contender, found), skipped)| row(workload, contender, &found, skipped))
        .collect()
}

fn row(workload: &dyn Workload, contender: &Contender, found: &[Measured], skipped: Option<String>) -> Row {
    let mut values: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut counts = Counts::default();
    for measured in found {
        counts += measured.counts;
        for (name, value) in &measured.measures {
            values.entry(name).or_default().push(*value);
        }
    }
    Row {
        workload: workload.name().to_owned(),
        goal: workload.goal().to_owned(),
        variant: workload.variant(),
        subject: contender.name(),
        kind: contender.entry.kind,
        repeats: u32::try_from(found.len()).unwrap_or(u32::MAX),
        measures: values.iter().filter_map(|(name, values)| Some(((*name).to_owned(), Spread::of(values)?))).collect(),
        counts,
        settings: contender.entry.settings.to_owned(),
        skipped,
    }
}

fn line(measured: &Measured) -> String {
    let mut words: Vec<String> =
        measured.measures.iter().map(|(name, value)| format!("{name} {}", round(*value))).collect();
    if measured.counts.lost > 0 {
        words.push(format!("LOST {} of {}", measured.counts.lost, measured.counts.expected));
    }
    words.join(", ")
}

fn round(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}
