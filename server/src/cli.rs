//! What can be written on the command line.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand, ValueEnum, error::ErrorKind};

use crate::run::Failure;

/// A realtime server whose sessions move between WebTransport, WebSocket, Server-Sent Events and long-polling.
#[derive(Debug, Parser)]
#[command(name = "throughline", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the demo: a game that every open page joins. Needs no configuration
    Demo(RunArguments),
    /// Run the server
    Serve(ServeArguments),
    /// Show or check a configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Show the development certificate: its file, its expiry, and its hash in the forms that people paste
    Cert(CertArguments),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every key with its default, what it is for, and the reason: a file to begin with
    Default,
    /// Say whether a server would start with it, as far as can be told without a network
    Check(ConfigFile),
}

/// What overrides the configuration.
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// Where to listen for HTTP and WebSocket: an address with a port (0 for a free one), or "off" [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR", value_parser = listen)]
    pub(crate) tcp: Option<Listen>,
    /// Where to listen for WebTransport and HTTP/3: an address with a port (0 for a free one), or "off" [default: 127.0.0.1:4433]
    #[arg(long, value_name = "ADDR", value_parser = listen)]
    pub(crate) quic: Option<Listen>,
    /// Print one JSON line on standard output when both listeners accept, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigFile {
    /// The configuration, in TOML. THROUGHLINE_* variables of the environment override it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    #[command(flatten)]
    pub(crate) run: RunArguments,
}

#[derive(Debug, Args)]
pub(crate) struct CertArguments {
    /// The folder that keeps it [default: certs/dev in a checkout, otherwise the user's state folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// What to print
    #[arg(long, value_enum, default_value_t = CertFormat::Text)]
    pub(crate) format: CertFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CertFormat {
    /// Everything, for people
    Text,
    /// Everything, as one JSON object
    Json,
    /// The hashes in base64, one a line
    Base64,
    /// The hashes in hexadecimal, one a line
    Hex,
    /// The option of `new WebTransport(url, { … })`
    Js,
}

/// A listener's address; none when it is off. Not an `Option`, which clap would take for an optional argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listen(pub(crate) Option<SocketAddr>);

/// Help goes to standard output and is a success; a mistake is one line and exit code 2.
pub(crate) fn explain(error: &clap::Error) -> Result<ExitCode, Failure> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print(); // `throughline --help | head -1` is no failure
            Ok(ExitCode::SUCCESS)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand if error.to_string().contains("throughline config") => {
            Err(Failure::usage("a command is missing: config default or config check (throughline --help says more)"))
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Err(Failure::usage("a command is missing: demo, serve, config or cert (throughline --help says more)"))
        }
        _ => {
            let text = error.to_string();
            // clap goes on with hints and usage, after an empty line.
            let first = text.split("\n\n").next().unwrap_or_default();
            let line = first.split_whitespace().collect::<Vec<_>>().join(" ");
            let line = line.strip_prefix("error: ").unwrap_or(&line);
            Err(Failure::usage(format!("{line} (throughline --help says more)")))
        }
    }
}

fn listen(text: &str) -> Result<Listen, &'static str> {
    if text == "off" {
        return Ok(Listen(None));
    }
    text.parse()
        .map(|address| Listen(Some(address)))
        .map_err(|_| "an address with a port is wanted, such as 127.0.0.1:8080")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn addresses_and_off() {
        assert_eq!(listen("[::1]:0"), Ok(Listen(Some("[::1]:0".parse().unwrap()))));
        assert_eq!(listen("off"), Ok(Listen(None)));
        assert!(listen("8080").is_err() && listen("localhost:8080").is_err());
    }

    #[test]
    fn mistakes_are_one_line() {
        for (arguments, wanted) in [
            (&["throughline", "demo", "--udp", "1"][..], "unexpected argument '--udp' found"),
            (
                &["throughline", "demo", "--tcp", "8080"],
                "invalid value '8080' for '--tcp <ADDR>': an address with a port",
            ),
            (&["throughline", "demo", "--tcp"], "a value is required for '--tcp <ADDR>'"),
            (&["throughline", "sreve"], "unrecognized subcommand 'sreve'"),
            (&["throughline"], "a command is missing: demo, serve, config or cert"),
            (&["throughline", "config"], "a command is missing: config default or config check"),
            (&["throughline", "config", "chek"], "unrecognized subcommand 'chek'"),
            (&["throughline", "cert", "--format", "xml"], "invalid value 'xml' for '--format <FORMAT>'"),
        ] {
            let failure = explain(&Cli::try_parse_from(arguments).unwrap_err()).unwrap_err();
            assert!(failure.message.starts_with(wanted), "{}", failure.message);
            assert!(!failure.message.contains('\n'), "{}", failure.message);
            assert_eq!(failure.code, ExitCode::from(2));
        }
    }
}
