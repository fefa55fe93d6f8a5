//! See README.md.

mod lane;

use std::io::{self, BufRead, Write};
use std::process::exit;
use std::sync::Arc;

use clap::Parser;
use lane::Lane;
use serde_json::{Value, json};
use throughline_netem::{Command, Direction};
use tun_rs::{DeviceBuilder, SyncDevice};

/// A bad network between two TUN devices.
///
/// Creates both, and forwards what goes into one out of the other. Give each an address, and move one (or both) into a network
/// namespace of its own. Reads further commands, one a line, from standard input, and answers each with a line of JSON; ends with it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Name of the device at the client's end: what comes out of it goes up
    #[arg(long, default_value = "tl-client")]
    client: String,
    /// Name of the device at the server's end: what comes out of it goes down
    #[arg(long, default_value = "tl-server")]
    server: String,
    /// What chance follows from; a new one each time, unless it is given
    #[arg(long)]
    seed: Option<u64>,
    /// The longest packet
    #[arg(long, default_value_t = 1_500, value_parser = clap::value_parser!(u16).range(576..))]
    mtu: u16,
    /// Go on when standard input ends
    #[arg(long)]
    keep: bool,
    /// Commands to begin with, such as 'delay 25ms' 'loss up 2%'
    commands: Vec<Command>,
}

struct Relay {
    up: Arc<Lane>,
    down: Arc<Lane>,
}

fn main() {
    let arguments = Arguments::parse();
    if let Err(error) = run(arguments) {
        complain(&error);
        exit(1);
    }
}

fn run(arguments: Arguments) -> io::Result<()> {
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => getrandom::u64().map_err(io::Error::other)?,
    };
    let client = create(&arguments.client, arguments.mtu)?;
    let server = create(&arguments.server, arguments.mtu)?;
    // Two seeds, so that the directions do not meet the same fate.
    let relay =
        Relay { up: Lane::start(seed, &client, &server, gone)?, down: Lane::start(!seed, &server, &client, gone)? };
    for command in arguments.commands {
        relay.obey(command);
    }
    say(&json!({ "event": "ready", "seed": seed, "client": client.name()?, "server": server.name()? }))?;
    for line in io::stdin().lock().lines() {
        let answer = match line?.parse() {
            Ok(command) => relay.obey(command),
            Err(error) => json!({ "event": "error", "reason": error.to_string() }),
        };
        say(&answer)?;
    }
    if arguments.keep {
        loop {
            std::thread::park();
        }
    }
    Ok(())
}

impl Relay {
    fn obey(&self, command: Command) -> Value {
        match command {
            Command::Set(direction, change) => {
                if direction != Some(Direction::Down) {
                    self.up.change(change);
                }
                if direction != Some(Direction::Up) {
                    self.down.change(change);
                }
            }
            Command::Reset => {
                self.up.reset();
                self.down.reset();
            }
            Command::Show => {}
            Command::Stats => return json!({ "event": "stats", "up": self.up.stats(), "down": self.down.stats() }),
        }
        json!({ "event": "conditions", "up": self.up.conditions(), "down": self.down.conditions() })
    }
}

fn create(name: &str, mtu: u16) -> io::Result<Arc<SyncDevice>> {
    let device = DeviceBuilder::new().name(name).mtu(mtu).enable(false).build_sync();
    device.map(Arc::new).map_err(|error| {
        io::Error::new(error.kind(), format!("no TUN device {name}: {error} (it needs CAP_NET_ADMIN and /dev/net/tun)"))
    })
}

fn say(line: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

fn gone(error: io::Error) -> ! {
    complain(&error);
    exit(1)
}

fn complain(error: &io::Error) {
    drop(writeln!(io::stderr(), "throughline-netem: {error}"));
}
