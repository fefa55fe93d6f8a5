//! The goals: what is measured for each, and what it takes to meet it.

use std::collections::BTreeSet;

use crate::results::{Kind, Results, Row};

/// One goal of the project, and the workload that shows where it stands.
pub(super) struct Goal {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    /// What is done, in words.
    pub(super) workload: &'static str,
    /// Who can be measured.
    pub(super) takes: &'static str,
    /// What its pictures show and its tables are sorted by: the first of these that a variant has.
    pub(super) measures: &'static [Measure],
    pub(super) claims: &'static [Claim],
}

#[derive(Clone, Copy)]
pub(super) struct Measure {
    pub(super) name: &'static str,
    pub(super) better: Better,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Better {
    More,
    Less,
}

/// What should hold of the rows of a run. Names match when all these words are there, whatever stands between, and none of those after a `-`.
pub(super) struct Claim {
    pub(super) variant: &'static str,
    pub(super) ours: &'static str,
    pub(super) measure: &'static str,
    /// What ours is divided by; none: the measure itself is meant.
    pub(super) against: Option<Against>,
    pub(super) bound: Bound,
    /// Whether the README tells it.
    pub(super) is_headline: bool,
}

/// The other side of a ratio: a row of the same workload.
#[derive(Clone, Copy)]
pub(super) struct Against {
    pub(super) subject: &'static str,
    /// Where it is not that of the claim.
    pub(super) variant: Option<&'static str>,
    /// Where it is a row of another goal.
    pub(super) goal: Option<&'static str>,
}

#[derive(Clone, Copy)]
pub(super) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }
}

/// Where a claim stands.
pub(super) enum Verdict {
    /// The value, from which it is judged; and the least and the most that the repeats would allow.
    Measured { value: f64, low: f64, high: f64, met: bool },
    /// Why there is no value.
    Missing(String),
}

impl Claim {
    pub(super) fn verdict(&self, goal: &Goal, results: &Results) -> Verdict {
        let find = |goal: &str, subject: &str, variant: &str, kind: Option<Kind>| {
            let mut found = results.rows.iter().filter(|row| {
                row.goal == goal
                    && has_words(&row.subject, subject)
                    && has_words(&row.variant, variant)
                    && kind.is_none_or(|kind| row.kind == kind)
            });
            let row = found.next().ok_or_else(|| format!("there is no row of {subject}"))?;
            match (row.measures.get(self.measure), &row.skipped) {
                (Some(spread), _) => Ok(*spread),
                (None, Some(reason)) => Err(format!("{}: {reason}", row.subject)),
                (None, None) => Err(format!("{} was measured without {}", row.subject, self.measure)),
            }
        };
        let compared = find(goal.id, self.ours, self.variant, Some(Kind::Ours)).and_then(|ours| {
            let Some(against) = self.against else {
                return Ok((ours.median, ours.low, ours.high));
            };
            let of = against.goal.unwrap_or(goal.id);
            let other = find(of, against.subject, against.variant.unwrap_or(self.variant), None)?;
            Ok((ours.median / other.median, ours.low / other.high, ours.high / other.low))
        });
        match compared {
            Ok((value, low, high)) => Verdict::Measured { value, low, high, met: self.bound.holds(value) },
            Err(reason) => Verdict::Missing(reason),
        }
    }
}

impl Goal {
    /// Its rows of a run, in their order.
    pub(super) fn rows<'a>(&self, results: &'a Results) -> Vec<&'a Row> {
        results.rows.iter().filter(|row| row.goal == self.id).collect()
    }

    /// Its variants, in the order of the run.
    pub(super) fn variants<'a>(&self, results: &'a Results) -> Vec<&'a str> {
        let mut variants = Vec::new();
        for row in self.rows(results) {
            if !variants.contains(&row.variant.as_str()) {
                variants.push(row.variant.as_str());
            }
        }
        variants
    }

    /// What it is judged by: the names of measures in its pictures and claims.
    pub(super) fn headlines(&self) -> BTreeSet<&'static str> {
        let shown = self.measures.iter().map(|measure| measure.name);
        shown.chain(self.claims.iter().map(|claim| claim.measure)).collect()
    }

    /// What these rows are sorted by.
    pub(super) fn measure(&self, rows: &[&Row]) -> Option<Measure> {
        self.measures.iter().copied().find(|measure| rows.iter().any(|row| row.measures.contains_key(measure.name)))
    }
}

/// Whether all words of `words` are in `name`, and none of those that begin with `-`, case aside.
fn has_words(name: &str, words: &str) -> bool {
    let name = name.to_lowercase();
    words.to_lowercase().split_whitespace().all(|word| match word.strip_prefix('-') {
        Some(word) => !name.contains(word),
        None => name.contains(word),
    })
}

const fn more(name: &'static str) -> Measure {
    Measure { name, better: Better::More }
}

const fn less(name: &'static str) -> Measure {
    Measure { name, better: Better::Less }
}

/// A ratio to another subject in the same variant.
const fn ratio(
    variant: &'static str,
    ours: &'static str,
    measure: &'static str,
    subject: &'static str,
    bound: Bound,
) -> Claim {
    Claim {
        variant,
        ours,
        measure,
        against: Some(Against { subject, variant: None, goal: None }),
        bound,
        is_headline: false,
    }
}

/// Of Throughline over WebSocket to another subject.
const fn fanout(variant: &'static str, subject: &'static str, bound: Bound) -> Claim {
    ratio(variant, "Throughline websocket", "messages_per_cpu_second", subject, bound)
}

/// A measure by itself.
const fn value(variant: &'static str, ours: &'static str, measure: &'static str, bound: Bound) -> Claim {
    Claim { variant, ours, measure, against: None, bound, is_headline: false }
}

impl Claim {
    const fn headline(mut self) -> Self {
        self.is_headline = true;
        self
    }

    /// Against a row of another variant.
    const fn in_variant(mut self, variant: &'static str) -> Self {
        if let Some(against) = &mut self.against {
            against.variant = Some(variant);
        }
        self
    }

    /// Against a row of another goal.
    const fn of_goal(mut self, goal: &'static str) -> Self {
        if let Some(against) = &mut self.against {
            against.goal = Some(goal);
        }
        self
    }
}

use Bound::{AtLeast, AtMost};

/// All of them, in their order.
pub(super) const GOALS: &[Goal] = &[
    Goal {
        id: "G1",
        title: "WebSocket fan-out",
        workload: "One publisher, 1,000 subscribers, messages of 100 bytes.",
        takes: "WebSockets, with whatever a library puts into them, and fan-out; with TLS where the server brings it",
        measures: &[more("messages_per_cpu_second")],
        claims: &[
            fanout("-waiting -TLS", "raw write loop", AtLeast(0.95)).headline(),
            fanout("-waiting -TLS", "Bun", AtLeast(1.1)).headline(),
            fanout("-waiting -TLS", "Socket.IO", AtLeast(3.0)).headline(),
            fanout("16 waiting -TLS", "raw write loop", AtLeast(5.0)).headline(),
            fanout("-waiting TLS", "raw write loop", AtLeast(0.7)).in_variant("-waiting -TLS"),
        ],
    },
    Goal {
        id: "G2",
        title: "WebTransport datagrams",
        workload: "150 bytes to each of 1,000 sessions, 30 times a second.",
        takes: "WebTransport",
        measures: &[more("datagrams_per_cpu_second")],
        claims: &[
            ratio("", "Throughline", "datagrams_per_cpu_second", "raw sendmmsg", AtLeast(0.25)),
            ratio("", "Throughline", "datagrams_per_cpu_second", "h3-webtransport", AtLeast(1.3)).headline(),
            ratio("", "Throughline", "datagrams_per_cpu_second", "web-transport-quinn", AtLeast(1.3)).headline(),
            ratio("", "Throughline", "datagrams_per_cpu_second", "aioquic", AtLeast(20.0)).headline(),
        ],
    },
    Goal {
        id: "G3",
        title: "Idle memory",
        workload: "Sessions that say nothing but what keeps them alive: 10,000 over TCP, 5,000 over TLS, 1,000 over QUIC. Anonymous resident memory of the server beyond what it had before, for each.",
        takes: "all of them, over TCP, with TLS where the server brings it, and over QUIC",
        measures: &[less("resident_bytes_per_session")],
        claims: &[
            value("-TLS", "Throughline websocket", "resident_bytes_per_session", AtMost(3_000.0)).headline(),
            value("-TLS", "Throughline sse", "resident_bytes_per_session", AtMost(3_000.0)),
            value("-TLS", "Throughline poll", "resident_bytes_per_session", AtMost(3_000.0)),
            value("TLS", "Throughline websocket", "resident_bytes_per_session", AtMost(12_000.0)),
            value("", "Throughline webtransport", "resident_bytes_per_session", AtMost(40_000.0)).headline(),
        ],
    },
    Goal {
        id: "G4",
        title: "Echo through a session",
        workload: "Datagrams, messages and the bytes of a stream, there and back on one session, beside the same over bare quinn; and messages over WebSocket beside a bare TCP socket.",
        takes: "WebTransport, and over TCP WebSockets of servers with an application of their own",
        measures: &[less("p50_us"), more("megabytes_per_cpu_second")],
        claims: &[
            ratio("datagrams", "Throughline", "p50_us", "bare quinn", AtMost(1.15)),
            ratio("datagrams", "Throughline", "p99_us", "bare quinn", AtMost(1.25)),
            ratio("messages", "Throughline", "p50_us", "bare quinn", AtMost(1.15)).headline(),
            ratio("messages", "Throughline", "p99_us", "bare quinn", AtMost(1.25)),
            ratio("one stream", "Throughline", "megabytes_per_second", "bare quinn", AtLeast(0.9)),
            ratio("one stream", "Throughline", "megabytes_per_cpu_second", "bare quinn", AtLeast(0.9)),
        ],
    },
    Goal {
        id: "G5",
        title: "Fresh state on a bad network",
        workload: "150 bytes of state 30 times a second, on a path with a round trip of 50 ms and loss in both directions: how old it is when it arrives.",
        takes: "what sends the newest state and leaves out older: our transports but for long-polling, and volatile events of Socket.IO. Plain sockets keep all, as ours would without this",
        measures: &[less("p99_us")],
        claims: &[
            ratio("1% loss", "Throughline webtransport", "p99_us", "Throughline websocket", AtMost(0.4)),
            ratio("1% loss", "Throughline webtransport", "p99_us", "Socket.IO", AtMost(0.4)),
            ratio("5% loss", "Throughline webtransport", "p99_us", "Throughline websocket", AtMost(0.4)).headline(),
            ratio("5% loss", "Throughline webtransport", "p99_us", "Socket.IO", AtMost(0.4)).headline(),
        ],
    },
    Goal {
        id: "G6",
        title: "Streams of tokens over SSE",
        workload: "2,000 streams of Server-Sent Events, 20 bytes every 20 ms on each.",
        takes: "Server-Sent Events",
        measures: &[less("cpu_us_per_token"), more("tokens_per_cpu_second")],
        claims: &[
            ratio("", "Throughline sse", "cpu_us_per_token", "nchan", AtMost(0.8)).headline(),
            ratio("", "Throughline events", "cpu_us_per_token", "nchan", AtMost(0.8)).headline(),
        ],
    },
    Goal {
        id: "G7",
        title: "Long-polling",
        workload: "Messages of 100 bytes by long-polling to 1,000 clients, 20 times a second, each once and in order; the repeats together are a million deliveries.",
        takes: "long-polling that loses nothing: of the peers, nchan. That of Socket.IO and SockJS is only a way to a WebSocket",
        measures: &[more("messages_per_cpu_second")],
        claims: &[
            ratio("", "Throughline poll", "messages_per_cpu_second", "nchan", AtLeast(1.0)).headline(),
            // What a client did not get, or got twice, or in another order.
            value("", "Throughline poll", "gaps", AtMost(0.0)),
            value("", "Throughline poll", "repeated", AtMost(0.0)),
        ],
    },
    Goal {
        id: "G8",
        title: "Handshakes",
        workload: "Sessions are opened, and closed again.",
        takes: "WebTransport and, over TLS, WebSockets",
        measures: &[more("sessions_per_cpu_second")],
        claims: &[
            ratio("QUIC", "Throughline", "sessions_per_cpu_second", "bare quinn", AtLeast(0.6)).headline(),
            ratio("TLS", "Throughline", "sessions_per_cpu_second", "bare rustls", AtLeast(0.8)).headline(),
        ],
    },
    Goal {
        id: "G9",
        title: "A storm of reconnecting clients",
        workload: "10,000 sessions (5,000 over TLS) lose their links at the same moment, and all come back.",
        takes: "sessions that outlive their connections: of the peers, Socket.IO with its recovery",
        measures: &[less("seconds")],
        claims: &[
            ratio("-TLS", "Throughline websocket", "seconds", "Socket.IO with recovery", AtMost(0.2)).headline(),
            // 1.3 times the time that the handshakes of G8 need.
            ratio("TLS", "Throughline websocket", "sessions_per_cpu_second", "Throughline websocket", AtLeast(0.77))
                .of_goal("G8"),
        ],
    },
    Goal {
        id: "G10",
        title: "A network without UDP",
        workload: "Headless Chromium opens a page in a network that swallows UDP: the time until the first message, beside a direct WebSocket connection and one hedge of 200 ms.",
        takes: "our browser client. Those that never try UDP are what it is compared with",
        measures: &[less("first_message_ms")],
        claims: &[value("", "Throughline", "ratio_to_direct_and_hedge", AtMost(1.25)).headline()],
    },
    Goal {
        id: "G11",
        title: "Players of a game",
        workload: "The demo's game at 30 ticks a second: how many players there can be until a tick is late (its 99th percentile above 33 ms).",
        takes: "the game that we have, and the same in JavaScript over ws and over Socket.IO",
        measures: &[more("players")],
        claims: &[
            ratio("", "Throughline webtransport", "players", "Socket.IO game", AtLeast(1.0)).headline(),
            ratio("", "Throughline websocket", "players", "ws game", AtLeast(1.0)),
        ],
    },
];
