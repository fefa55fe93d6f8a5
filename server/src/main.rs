//! The `throughline` command: arguments, configuration, server, and an exit code.

mod cli;
mod logging;
mod open_files;
mod run;
mod signals;

use std::{env, io::Write as _, process::ExitCode};

use clap::Parser as _;

use crate::{
    cli::{Cli, Command, ConfigCommand},
    run::Failure,
};

fn main() -> ExitCode {
    let done = match Cli::try_parse_from(env::args_os()) {
        Ok(Cli { command: Command::Demo(arguments) }) => run::demo(&arguments),
        Ok(Cli { command: Command::Serve(arguments) }) => run::serve(&arguments),
        Ok(Cli { command: Command::Config(ConfigCommand::Default) }) => run::config_default(),
        Ok(Cli { command: Command::Config(ConfigCommand::Check(arguments)) }) => run::config_check(&arguments),
        Ok(Cli { command: Command::Cert(arguments) }) => run::cert(&arguments),
        Err(error) => cli::explain(&error),
    };
    done.unwrap_or_else(|Failure { message, code }| {
        // Nobody is left to tell when standard error is gone, too.
        let _ = writeln!(std::io::stderr(), "error: {message}");
        code
    })
}
