//! A run for readers: a page and pictures out of `results.json`, and the ratios that the README tells. All of it follows from the results alone, so that
//! [`check`] can say whether what is committed belongs to them.

mod compare;
mod goals;
mod markdown;
mod number;
mod plots;
mod readme;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Failure;
use crate::results::Results;

/// Writes the page and the pictures into the folder that has `results.json`, and the ratios into `readme`, if it is there.
pub(crate) fn write(folder: &Path, readme: Option<&Path>) -> Result<(), Failure> {
    for (file, text) in files(folder, readme)? {
        fs::write(file, text)?;
    }
    Ok(())
}

/// Fails when a file is not what [`write()`] would write.
pub(crate) fn check(folder: &Path, readme: Option<&Path>) -> Result<(), Failure> {
    let is_stale = |(file, text): &(PathBuf, String)| fs::read_to_string(file).ok().as_ref() != Some(text);
    let stale: Vec<_> = files(folder, readme)?.into_iter().filter(is_stale).map(|(file, _)| file).collect();
    if stale.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = stale.iter().map(|file| file.display().to_string()).collect();
    Err(format!("not what the results say: {}; `throughline-bench report` writes them", names.join(", ")).into())
}

/// Where two runs differ, for reading.
pub(crate) fn compare(one: &Path, other: &Path) -> Result<String, Failure> {
    Ok(compare::page(&read(one)?, &read(other)?)?)
}

fn read(folder: &Path) -> Result<Results, Failure> {
    let path = folder.join("results.json");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()).into())
}

fn files(folder: &Path, readme: Option<&Path>) -> Result<Vec<(PathBuf, String)>, Failure> {
    let results = read(folder)?;
    let mut files = vec![(folder.join("README.md"), markdown::page(&results, &notes(folder))?)];
    for goal in goals::GOALS {
        files.extend(plots::picture(goal, &results).map(|svg| (folder.join(plots::file_name(goal)), svg)));
    }
    if let Some(readme) = readme {
        let before = fs::read_to_string(readme).map_err(|error| format!("{}: {error}", readme.display()))?;
        files.push((readme.to_owned(), readme::with_ratios(&before, &results)?));
    }
    Ok(files)
}

/// What somebody has written about a goal, in `notes/G1.md` beside the results.
fn notes(folder: &Path) -> BTreeMap<&'static str, String> {
    let note = |id| Some((id, fs::read_to_string(folder.join("notes").join(format!("{id}.md"))).ok()?));
    goals::GOALS.iter().filter_map(|goal| note(goal.id)).collect()
}

/// A run of three servers, with what can go wrong in it.
#[cfg(test)]
fn fixture() -> Results {
    serde_json::from_str(include_str!("fixture.json")).expect("the fixture is a run")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_checked() {
        let folder = tempfile::tempdir().unwrap();
        let readme = folder.path().join("ROOT.md");
        fs::write(folder.path().join("results.json"), include_str!("fixture.json")).unwrap();
        fs::write(&readme, format!("# x\n{}\n{}\nend\n", readme::BEGIN, readme::END)).unwrap();
        assert!(check(folder.path(), Some(&readme)).is_err(), "nothing is written yet");
        write(folder.path(), Some(&readme)).unwrap();
        check(folder.path(), Some(&readme)).unwrap();
        assert!(folder.path().join("G1-websocket-fanout.svg").exists());
        let changed = fs::read_to_string(&readme).unwrap().replace("1.15", "9.99");
        fs::write(&readme, changed).unwrap();
        let error = check(folder.path(), Some(&readme)).unwrap_err().to_string();
        assert!(error.contains("ROOT.md") && !error.contains("G1-websocket-fanout.svg"), "{error}");
    }
}
