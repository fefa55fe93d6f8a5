use std::time::{Duration, SystemTime};

use crate::{Certificate, MintError};

/// How long a development certificate is valid. Browsers allow 14 days; the day between covers
/// the hour of backdating and a browser that rounds.
pub const VALIDITY: Duration = Duration::from_secs(13 * DAY_SECS);

/// The next certificate is made when the current one is this old, and published beside it from then on.
/// It so waits four days before it is used: every page that asked for the hashes within that time
/// knows it already, and a browser whose clock is days behind does not find it "not yet valid".
pub const NEXT_AFTER: Duration = Duration::from_secs(7 * DAY_SECS);

/// The next certificate becomes the current one when the current one has only this long to live. Two days:
/// a browser's clock may be ahead, and a laptop that slept over a weekend should wake with a valid certificate.
pub const SWITCH_BEFORE: Duration = Duration::from_secs(2 * DAY_SECS);

const DAY_SECS: u64 = 24 * 60 * 60;

/// The certificate in use and the one to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Generations {
    pub(crate) current: Certificate,
    pub(crate) next: Option<Certificate>,
}

impl Generations {
    /// What should be in use at `now`, given what there is. Neither reads nor writes anything but randomness
    /// for a new key; asked twice, it answers the second time with what it was given.
    pub(crate) fn at(
        now: SystemTime,
        current: Option<Certificate>,
        next: Option<Certificate>,
        names: &[String],
    ) -> Result<Self, MintError> {
        let usable = |certificate: &Certificate| {
            certificate.not_before() <= now && remaining(certificate, now) > SWITCH_BEFORE && certificate.covers(names)
        };
        let mut kept = [current, next].into_iter().flatten().filter(usable);
        let current = match kept.next() {
            Some(certificate) => certificate,
            None => Certificate::mint(names, now, VALIDITY)?,
        };
        let next = match kept.next().filter(|next| next.not_after() > current.not_after()) {
            Some(next) => Some(next),
            None if now >= next_due(&current) => Some(Certificate::mint(names, now, VALIDITY)?),
            None => None,
        };
        Ok(Self { current, next })
    }

    /// When [`Generations::at`] will next answer something new.
    pub(crate) fn due(&self) -> SystemTime {
        match self.next {
            None => next_due(&self.current),
            Some(_) => self.current.not_after() - SWITCH_BEFORE,
        }
    }
}

fn remaining(certificate: &Certificate, now: SystemTime) -> Duration {
    certificate.not_after().duration_since(now).unwrap_or_default()
}

fn next_due(current: &Certificate) -> SystemTime {
    current.not_before() + NEXT_AFTER
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const DAY: Duration = Duration::from_secs(DAY_SECS);

    fn start() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000)
    }

    fn step(state: &Generations, now: SystemTime) -> Generations {
        Generations::at(now, Some(state.current.clone()), state.next.clone(), &[]).unwrap()
    }

    #[test]
    fn a_life_from_the_first_certificate_to_the_second() {
        let first = Generations::at(start(), None, None, &[]).unwrap();
        assert_eq!(first.next, None);
        let seventh_day = first.current.not_before() + 7 * DAY;
        assert_eq!(first.due(), seventh_day);
        assert_eq!(step(&first, seventh_day - SECOND), first);

        let both = step(&first, seventh_day);
        assert_eq!(both.current, first.current);
        let next = both.next.clone().unwrap();
        let switch = first.current.not_after() - 2 * DAY;
        assert_eq!(both.due(), switch);
        assert_eq!(step(&both, switch - SECOND), both);

        let second = step(&both, switch);
        assert_eq!(second.current, next);
        assert_eq!(second.next, None);
        assert!(second.due() > switch);
    }

    #[test]
    fn after_a_long_sleep_the_next_takes_over_and_gets_a_successor() {
        let first = Generations::at(start(), None, None, &[]).unwrap();
        let both = step(&first, first.due());
        let woken = step(&both, start() + 15 * DAY);
        assert_eq!(Some(&woken.current), both.next.as_ref());
        assert!(woken.next.is_some());
    }

    #[test]
    fn when_both_have_ended_there_is_a_new_one() {
        let first = Generations::at(start(), None, None, &[]).unwrap();
        let both = step(&first, first.due());
        let now = start() + 40 * DAY;
        let woken = step(&both, now);
        assert!(woken.current.not_before() <= now && woken.current.not_after() > now + 12 * DAY);
        assert_eq!(woken.next, None);
    }

    #[test]
    fn a_certificate_from_the_future_is_not_used() {
        let first = Generations::at(start(), None, None, &[]).unwrap();
        let earlier = first.current.not_before() - SECOND;
        assert_ne!(step(&first, earlier).current, first.current);
        assert_eq!(step(&first, first.current.not_before()).current, first.current);
    }

    #[test]
    fn a_new_name_makes_a_new_certificate_and_fewer_names_do_not() {
        let plain = Generations::at(start(), None, None, &[]).unwrap();
        let named = Generations::at(start(), Some(plain.current.clone()), None, &["demo.test".to_owned()]).unwrap();
        assert_ne!(named.current, plain.current);
        assert_eq!(step(&named, start()), named);
    }

    #[test]
    fn a_next_that_is_the_current_one_counts_once() {
        // What a crash between the two writes of a switch leaves behind.
        let first = Generations::at(start(), None, None, &[]).unwrap();
        let torn = Generations { current: first.current.clone(), next: Some(first.current.clone()) };
        assert_eq!(step(&torn, start()), first);
    }
}
