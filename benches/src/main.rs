//! Measures Throughline beside its peers, and beside what this machine can do at all, in one run.
//!
//! - [`subject`]: a server under test is a process of its own, on a core of its own. [`catalogue`] lists them.
//! - [`load`]: the clients, on another core. [`measure`] reads from outside what a server costs.
//! - [`workload`]: what is asked of the servers, one file for each. [`runner`] asks it of all of them in turn.
//! - [`check`]: whether the servers do their work at all.
//! - [`limits`]: servers that do nothing but the least that a workload needs.
//! - [`results`]: what comes out, as JSON, and [`report`]: as a table and pictures.

mod catalogue;
mod certificate;
mod check;
mod limits;
mod load;
mod machine;
mod measure;
mod report;
mod results;
mod runner;
mod settings;
mod subject;
mod workload;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the workloads and writes results.json.
    Run(Run),
    /// Writes the table and the pictures out of a folder with results.json.
    Report {
        /// The folder.
        folder: PathBuf,
        /// A README that tells the ratios, too, between its markers.
        #[arg(long)]
        readme: Option<PathBuf>,
        /// Writes nothing, and fails when something is not as it would be written.
        #[arg(long)]
        check: bool,
    },
    /// Says where two runs differ by more than the spread that they state.
    Compare {
        /// Folders with results.json.
        one: PathBuf,
        other: PathBuf,
    },
    /// Is one of the servers that show the limits of the machine; the runner starts it.
    #[command(hide = true)]
    Limit(limits::Arguments),
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Only this workload or goal, or subjects with this in their name; several times: any of the workloads, with any of the subjects.
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Vec<String>,
    /// Everything smaller: shows that it works, and not how fast it is.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Where results.json goes.
    #[arg(long, default_value = "target/bench")]
    pub(crate) out: PathBuf,
    /// How often each measurement is made.
    #[arg(long)]
    pub(crate) repeats: Option<u32>,
    /// Where the peers are installed.
    #[arg(long, default_value = "benches/subjects")]
    pub(crate) subjects: PathBuf,
}

fn compare(one: &Path, other: &Path) -> Result<(), Failure> {
    let page = report::compare(one, other)?;
    Ok(std::io::stdout().write_all(page.as_bytes())?)
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run(run) => runner::run(&run),
        Command::Report { folder, readme, check: true } => report::check(&folder, readme.as_deref()),
        Command::Report { folder, readme, check: false } => report::write(&folder, readme.as_deref()),
        Command::Compare { one, other } => compare(&one, &other),
        Command::Limit(arguments) => limits::serve(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
