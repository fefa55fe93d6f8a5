use serde_json::Value;

use super::*;

/// A player who writes down what he gets, and can be slow.
#[derive(Debug, Clone, Default)]
struct Fake(Arc<Mutex<Record>>);

#[derive(Debug, Default)]
struct Record {
    full: bool,
    away: bool,
    turned_away: bool,
    told: Vec<Value>,
    states: Vec<Bytes>,
    maps: usize,
}

impl Audience for Fake {
    fn tell(&self, message: Message) -> Result<(), Refusal> {
        let mut record = self.0.lock();
        if record.full {
            return Err(Refusal::Full);
        }
        let Message::Text(text) = message else { panic!("the game speaks in text") };
        record.told.push(serde_json::from_str(&text).expect("JSON"));
        Ok(())
    }

    fn show(&self, datagram: Bytes, key: u64) {
        assert!(datagram.len() <= wire::STATE_MAX);
        match key {
            KEY_STATE => self.0.lock().states.push(datagram),
            KEY_MAP => self.0.lock().maps += 1,
            _ => panic!("unknown key"),
        }
    }

    fn transport(&self) -> Option<Transport> {
        (!self.0.lock().away).then_some(Transport::WebSocket)
    }

    fn turn_away(&self) {
        self.0.lock().turned_away = true;
    }
}

impl Fake {
    /// Messages of one type since the last call, and forgets all.
    fn told(&self, kind: &str) -> Vec<Value> {
        let told = std::mem::take(&mut self.0.lock().told);
        told.into_iter().filter(|value| value["type"] == kind).collect()
    }
}

struct Hall {
    stage: Stage<Fake>,
    arrivals: Vec<Arc<Seat<Fake>>>,
}

impl Hall {
    fn new(players_max: u16) -> Self {
        let setup = Setup { seed: 1, bots: 20, players_max };
        Self { stage: Stage::new(setup), arrivals: Vec::new() }
    }

    fn arrive(&mut self) -> (Fake, Arc<Seat<Fake>>) {
        let fake = Fake::default();
        let seat = Arc::new(Seat::new(fake.clone()));
        self.arrivals.push(seat.clone());
        (fake, seat)
    }

    fn ticks(&mut self, count: u32) {
        for _ in 0..count {
            self.stage.tick(&mut self.arrivals, 1_000);
        }
    }
}

#[test]
fn everybody_gets_a_state_per_tick_and_learns_who_comes_and_goes() {
    let mut hall = Hall::new(4);
    let (ann, ann_seat) = hall.arrive();
    hall.ticks(1);
    ann_seat.rename("Ann".into()).expect("room");
    hall.ticks(29);
    let (bob, bob_seat) = hall.arrive();
    hall.ticks(30);

    assert_eq!(ann.0.lock().states.len(), 60);
    assert_eq!(bob.0.lock().states.len(), 30);
    assert_eq!(ann.0.lock().maps, 4);
    let welcome = &bob.told("welcome")[0];
    assert_eq!(welcome["playerCount"], 2);
    assert_eq!(welcome["bots"], 20);
    assert_eq!(welcome["players"][0][1], "Ann");

    bob_seat.leave();
    hall.ticks(1);
    let told = std::mem::take(&mut ann.0.lock().told);
    let kinds: Vec<_> = told.iter().map(|value| value["type"].as_str().unwrap_or("?")).collect();
    assert_eq!(kinds, ["welcome", "player", "leaderboard", "player", "leaderboard", "left"]);
    hall.ticks(5);
    assert_eq!(bob.0.lock().states.len(), 30, "nothing after leaving");
}

#[test]
fn beyond_the_last_seat_people_are_turned_away() {
    let mut hall = Hall::new(1);
    let (first, seat) = hall.arrive();
    let (second, _) = hall.arrive();
    hall.ticks(1);
    assert!(!first.0.lock().turned_away);
    assert!(second.0.lock().turned_away);
    seat.leave();
    let (third, _) = hall.arrive();
    hall.ticks(1);
    assert!(!third.0.lock().turned_away);
    assert_eq!(third.0.lock().states.len(), 1);
}

#[test]
fn a_slow_player_misses_leaderboards_and_no_names() {
    let mut hall = Hall::new(4);
    let (slow, _) = hall.arrive();
    let (_, talker) = hall.arrive();
    hall.ticks(1);
    slow.0.lock().told.clear();
    slow.0.lock().full = true;
    talker.rename("one".into()).expect("room");
    talker.rename("two".into()).expect("room");
    hall.ticks(90);
    assert_eq!(slow.0.lock().states.len(), 91, "states go on");
    slow.0.lock().full = false;
    hall.ticks(1);
    let told = std::mem::take(&mut slow.0.lock().told);
    let names: Vec<_> = told.iter().map(|value| value["name"].as_str().unwrap_or("?")).collect();
    assert_eq!(names, ["one", "two"]);
}

#[test]
fn a_player_without_a_link_keeps_ship_and_notices_and_gets_no_old_leaderboards() {
    let mut hall = Hall::new(4);
    let (away, _) = hall.arrive();
    let (other, talker) = hall.arrive();
    hall.ticks(1);
    away.0.lock().told.clear();
    away.0.lock().away = true;
    talker.rename("Ann".into()).expect("room");
    hall.ticks(90);
    assert_eq!(hall.stage.players.len(), 2);
    let census = hall.stage.census();
    assert_eq!((census.websocket, census.away, census.states_sent), (1, 1, 2 * 91));
    assert_eq!(other.told("leaderboard").last().expect("one per second")["players"], 1, "of those who are there");
    away.0.lock().away = false;
    hall.ticks(30);
    let told = std::mem::take(&mut away.0.lock().told);
    let kinds: Vec<_> = told.iter().map(|value| value["type"].as_str().unwrap_or("?")).collect();
    assert_eq!(kinds, ["player", "leaderboard"]);
}

#[test]
fn a_player_who_takes_nothing_is_told_everything_anew() {
    let mut hall = Hall::new(4);
    let (slow, _) = hall.arrive();
    let (_, talker) = hall.arrive();
    hall.ticks(1);
    slow.0.lock().told.clear();
    slow.0.lock().full = true;
    for line in 0..WAITING_MAX + 10 {
        talker.rename(line.to_string()).expect("room");
        hall.ticks(NAME_EVERY_TICKS);
    }
    assert!(hall.stage.players[0].waiting.len() <= WAITING_MAX);
    slow.0.lock().full = false;
    hall.ticks(1);
    let welcome = &slow.told("welcome")[0];
    let last = (WAITING_MAX + 9).to_string();
    assert_eq!(welcome["players"][1][1], last.as_str());
}

#[test]
fn names_are_limited_per_player() {
    let mut hall = Hall::new(4);
    let (ann, seat) = hall.arrive();
    hall.ticks(1);
    for n in 0..NAMES_MAX {
        seat.rename(n.to_string()).expect("room in the mailbox");
    }
    assert_eq!(seat.rename("one more".into()), Err(SayError::TooMany));
    hall.ticks(1);
    let told = std::mem::take(&mut ann.0.lock().told);
    let count = |kind| told.iter().filter(|value| value["type"] == kind).count();
    assert_eq!(count("player"), NAME_BURST as usize);
    assert_eq!(count("error"), NAMES_MAX - NAME_BURST as usize);
    hall.ticks(NAME_EVERY_TICKS);
    seat.rename("later".into()).expect("room");
    hall.ticks(1);
    assert_eq!(ann.told("player").len(), 1);
}

#[test]
fn a_dash_between_two_ticks_is_not_lost() {
    let seat = Seat::new(Fake::default());
    let input = |sequence, dash| Input { sequence, angle: 0, thrust: 0, dash };
    seat.steer(input(5, true));
    seat.steer(input(6, false));
    seat.steer(input(4, false));
    assert_eq!(seat.mailbox.lock().input, Some(input(6, true)));
}
