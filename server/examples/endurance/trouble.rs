//! Cuts and moves, from a seed, while a session is used.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use throughline::Transport;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Failure;
use crate::client::{Client, Gap};
use crate::fault::{Fault, How};
use crate::link::{Link, Place, TRANSPORTS};
use crate::rng::Rng;

/// Openings in a row that may fail. Some are made to; a server that takes none is gone.
const MAX_FAILED_OPENINGS: u32 = 50;

/// Bytes within which a link that is to break early does so: in its opening, in WELCOME, or in the first frames.
const EARLY_BYTES: u64 = 1_500;

/// What was done to a session, and how it went.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// Links that broke while they carried the session, so that both sides were told.
    pub(crate) cuts: u32,
    /// Links that fell silent while they carried the session.
    pub(crate) silences: u32,
    /// Moves while the old link lived.
    pub(crate) moves: u32,
    /// Moves to two links at once.
    pub(crate) races: u32,
    /// Links that broke while they were opened.
    pub(crate) openings_cut: u32,
    /// From one transport to the next, with their number.
    pub(crate) pairs: BTreeMap<String, u32>,
    /// Links that were lost without having been cut. There should be none.
    pub(crate) unexpected: Vec<String>,
}

impl Report {
    pub(crate) fn add(&mut self, other: Self) {
        self.cuts += other.cuts;
        self.silences += other.silences;
        self.moves += other.moves;
        self.races += other.races;
        self.openings_cut += other.openings_cut;
        for (pair, count) in other.pairs {
            *self.pairs.entry(pair).or_default() += count;
        }
        self.unexpected.extend(other.unexpected);
    }

    /// Cuts and moves of the session.
    pub(crate) fn events(&self) -> u32 {
        self.cuts + self.silences + self.moves + self.races
    }
}

/// What makes trouble for one session.
pub(crate) struct Trouble<'a> {
    pub(crate) client: &'a Client,
    pub(crate) place: Place,
    pub(crate) rng: Rng,
    /// Cuts and moves to make.
    pub(crate) events: u32,
    /// How far the use of the session is, of `total`.
    pub(crate) progress: watch::Receiver<u64>,
    pub(crate) total: u64,
    /// How far it may go before the next cut or move, so that they are spread over the whole.
    pub(crate) allowed: watch::Sender<u64>,
    /// Bytes that pass from one to the next, or so.
    pub(crate) bytes_between: u64,
    pub(crate) report: Report,
}

enum Plan {
    /// Make before break.
    Move,
    /// Two further links at once.
    Race,
    Cut(How),
}

impl Trouble<'_> {
    /// Makes it all while the session is used, and then sees to it that the session has a link for as long as it is.
    pub(crate) async fn during<T>(
        mut self,
        using: impl Future<Output = Result<T, Failure>>,
    ) -> Result<(T, Report), Failure> {
        let done = CancellationToken::new();
        let using = async {
            let used = using.await;
            done.cancel();
            used
        };
        let making = async {
            self.make().await?;
            loop {
                tokio::select! {
                    () = done.cancelled() => break,
                    () = self.client.link_gone() => self.go_on().await?,
                }
            }
            self.report.unexpected.extend(self.client.unexpected());
            Ok(self.report)
        };
        tokio::try_join!(using, making)
    }

    async fn make(&mut self) -> Result<(), Failure> {
        for event in 0..u64::from(self.events) {
            let (from, to) = (self.total * event, self.total * (event + 1));
            let (from, to) = (from / u64::from(self.events), to / u64::from(self.events));
            let between = from + self.rng.below((to - from).max(1));
            self.allowed.send_replace(to);
            self.wait_for(from).await?;
            match self.plan() {
                Plan::Move => {
                    self.wait_for(between).await?;
                    let link = self.open().await?;
                    self.report.moves += 1;
                    self.take(link).await;
                }
                Plan::Race => {
                    self.wait_for(between).await?;
                    let (first, second) = (self.open().await?, self.open().await?);
                    self.report.races += 1;
                    self.take(first).await;
                    self.take(second).await;
                }
                Plan::Cut(how) => self.cut(how, to).await?,
            }
        }
        self.allowed.send_replace(self.total);
        Ok(())
    }

    fn plan(&mut self) -> Plan {
        match self.rng.below(10) {
            0..=3 => Plan::Move,
            4 => Plan::Race,
            5..=7 => Plan::Cut(How::Reset),
            _ => Plan::Cut(How::Silence),
        }
    }

    /// Cuts the current link behind a random byte, or when there is nothing left to say.
    async fn cut(&mut self, how: How, until: u64) -> Result<(), Failure> {
        let (_, fault) = self.client.link();
        fault.arm(1 + self.rng.below(self.bytes_between), how);
        let mut progress = self.progress.clone();
        tokio::select! {
            () = self.client.link_gone() => {}
            done = progress.wait_for(|progress| *progress >= until) => {
                done?;
            }
        }
        fault.arm(0, how);
        if how == How::Silence {
            // A client needs a while to notice. The server believes in the link still when the next one comes.
            tokio::time::sleep(Duration::from_millis(self.rng.below(20))).await;
        }
        self.go_on().await
    }

    /// Waits until the use of the session has come so far.
    async fn wait_for(&mut self, progress: u64) -> Result<(), Failure> {
        loop {
            let mut seen = self.progress.clone();
            tokio::select! {
                reached = seen.wait_for(|seen| *seen >= progress) => {
                    reached?;
                    return Ok(());
                }
                () = self.client.link_gone() => {}
            }
            self.go_on().await?;
        }
    }

    /// The link is gone: opens another.
    async fn go_on(&mut self) -> Result<(), Failure> {
        match self.client.link().1.how() {
            Some(How::Silence) => self.report.silences += 1,
            _ => self.report.cuts += 1,
        }
        let link = self.open().await?;
        self.take(link).await;
        Ok(())
    }

    /// Opens a further link of any transport; some break early.
    async fn open(&mut self) -> Result<Link, Failure> {
        let mut failed = 0;
        loop {
            let fault = Fault::never();
            if self.rng.below(8) == 0 {
                let how = if self.rng.below(2) == 0 { How::Reset } else { How::Silence };
                fault.arm(1 + self.rng.below(EARLY_BYTES), how);
            }
            let transport = self.rng.pick(&TRANSPORTS);
            match self.client.further(&self.place, transport, &fault).await {
                Ok(link) => return Ok(link),
                Err(error) if error.is::<Gap>() => return Err(error),
                Err(_) if fault.how().is_some() => self.report.openings_cut += 1,
                Err(error) => {
                    failed += 1;
                    self.report.unexpected.push(error.to_string());
                    if failed == MAX_FAILED_OPENINGS {
                        return Err(error);
                    }
                }
            }
        }
    }

    async fn take(&mut self, link: Link) {
        let (from, _) = self.client.link();
        let to: Transport = link.transport;
        *self.report.pairs.entry(format!("{from} to {to}")).or_default() += 1;
        self.client.take(link).await;
    }
}
