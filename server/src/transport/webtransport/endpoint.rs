//! Which connections are taken, and on what socket.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use axum::Router;
use parking_lot::Mutex;
use quinn::{Endpoint, EndpointConfig, Incoming};
use quinn_proto::RandomConnectionIdGenerator;
use socket2::{Domain, Protocol, Socket, Type};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, debug, debug_span};

use super::{connection, limits::Limits};

/// Opens the UDP socket, with buffers for bursts (as large as the kernel grants), and QUIC on it. `[::]` takes
/// IPv4 as well. Port 0 is answered with a free one, by [`Endpoint::local_addr`].
///
/// # Errors
/// When the address cannot be bound.
pub(crate) fn bind(addr: SocketAddr, config: quinn::ServerConfig, limits: &Limits) -> io::Result<Endpoint> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Smaller buffers lose more in a burst; they are no reason not to start.
    let _ = socket.set_recv_buffer_size(limits.socket_buffer_size);
    let _ = socket.set_send_buffer_size(limits.socket_buffer_size);
    socket.bind(&addr.into())?;
    Endpoint::new(endpoint_config(), Some(config), socket.into(), Arc::new(quinn::TokioRuntime))
}

/// quinn's own connection ids have 24 random bits. Among 5,000 of them, which 1,000 connections have, one in 3,000 ids for a retry is taken already: the client's
/// answer to it goes to the wrong connection, and its handshake is never heard of again. So all 64 bits are random.
fn endpoint_config() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config.cid_generator(|| Box::new(RandomConnectionIdGenerator::new(CONNECTION_ID_LEN)));
    config
}

/// Length of the connection ids that this side chooses, in bytes: quinn's default.
const CONNECTION_ID_LEN: usize = 8;

/// Accepts connections and serves their requests by `router` until `shutdown` is cancelled; then it returns,
/// and each connection ends with its last request or session. All tasks are spawned on `tracker`: wait for it, up
/// to a deadline, and then close the endpoint for those that are left.
///
/// A request carries `ConnectInfo<SocketAddr>`; a CONNECT for WebTransport also [`Upgrade`](super::Upgrade).
pub(crate) async fn serve(
    endpoint: Endpoint,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
    tracker: TaskTracker,
) {
    let limits = Arc::new(limits);
    let census = Arc::new(Census::default());
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            () = shutdown.cancelled() => break,
        };
        let Some(incoming) = incoming else { break };
        let remote = incoming.remote_address();
        let Some((connecting, place)) = admit(incoming, &census, &limits) else {
            continue;
        };
        let connection = connection::serve(
            connecting,
            router.clone(),
            Arc::clone(&limits),
            place,
            shutdown.clone(),
            tracker.clone(),
        );
        tracker.spawn(connection.instrument(debug_span!("quic", %remote)));
    }
    // New clients get no answer; a refusal would be needed for each.
    endpoint.set_server_config(None);
}

fn admit(incoming: Incoming, census: &Arc<Census>, limits: &Limits) -> Option<(quinn::Connecting, Place)> {
    let ip = incoming.remote_address().ip();
    match census.admit(ip, incoming.remote_address_validated(), limits) {
        Admission::Ignore => incoming.ignore(),
        Admission::Refuse => incoming.refuse(),
        // An error means that the address is proven, which was asked before.
        Admission::Retry => drop(incoming.retry()),
        Admission::Accept => {
            let place = Place::new(Arc::clone(census), ip);
            match incoming.accept() {
                Ok(connecting) => return Some((connecting, place)),
                Err(error) => debug!(%error, "connection not accepted"),
            }
        }
    }
    None
}

/// What becomes of a client's first packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    Accept,
    /// It must come again with a token, which proves its address.
    Retry,
    /// It is told that there is no room.
    Refuse,
    /// It is told nothing.
    Ignore,
}

/// Who is connected.
#[derive(Debug, Default)]
struct Census(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    handshaking: usize,
    by_network: HashMap<IpAddr, usize>,
}

impl Census {
    fn admit(&self, ip: IpAddr, validated: bool, limits: &Limits) -> Admission {
        let counts = self.0.lock();
        let here = counts.by_network.get(&network(ip)).copied().unwrap_or(0);
        if counts.handshaking >= limits.max_incoming {
            Admission::Ignore
        } else if counts.all >= limits.max_connections {
            Admission::Refuse
        } else if !validated && (counts.handshaking >= limits.retry_above || here >= limits.max_connections_per_ip / 2)
        {
            Admission::Retry
        } else if here >= limits.max_connections_per_ip {
            Admission::Refuse
        } else {
            Admission::Accept
        }
    }
}

impl Counts {
    fn enter(&mut self, network: IpAddr) {
        *self.by_network.entry(network).or_default() += 1;
    }

    fn leave(&mut self, network: IpAddr) {
        if let Some(count) = self.by_network.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                self.by_network.remove(&network);
            }
        }
    }
}

/// A connection's place in the census, for as long as it lives.
#[derive(Debug)]
pub(super) struct Place {
    census: Arc<Census>,
    network: IpAddr,
    handshaking: bool,
}

impl Place {
    fn new(census: Arc<Census>, ip: IpAddr) -> Self {
        let network = network(ip);
        let mut counts = census.0.lock();
        counts.all += 1;
        counts.handshaking += 1;
        counts.enter(network);
        drop(counts);
        Self { census, network, handshaking: true }
    }

    /// The handshake is over.
    pub(super) fn established(&mut self) {
        if std::mem::take(&mut self.handshaking) {
            self.census.0.lock().handshaking -= 1;
        }
    }

    /// The client is at this address now.
    pub(super) fn moved(&mut self, ip: IpAddr) {
        let now = network(ip);
        if now != self.network {
            let mut counts = self.census.0.lock();
            counts.leave(self.network);
            counts.enter(now);
            self.network = now;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.established();
        let mut counts = self.census.0.lock();
        counts.all -= 1;
        counts.leave(self.network);
    }
}

/// What counts as one client: an IPv4 address, or an IPv6 /64, which is what one household gets.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => {
            let bits = v6.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use quinn::ConnectionIdGenerator as _;

    use super::*;

    fn limits() -> Limits {
        Limits { max_connections: 5, max_connections_per_ip: 4, retry_above: 3, max_incoming: 4, ..Limits::default() }
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn connection_ids_do_not_repeat_among_those_of_a_full_server() {
        // quinn's default has 24 random bits: an id chosen for a retry was another connection's, and the client that answered it was never heard.
        let mut ids = RandomConnectionIdGenerator::new(CONNECTION_ID_LEN);
        let all: std::collections::HashSet<_> = (0..100_000).map(|_| ids.generate_cid()).collect();
        assert_eq!(all.len(), 100_000);
    }

    #[test]
    fn a_share_and_the_whole_are_bounded_and_come_back() {
        let census = Arc::new(Census::default());
        let mut places = Vec::new();
        let mut enter = |from: IpAddr| {
            let mut place = Place::new(Arc::clone(&census), from);
            place.established();
            places.push(place);
        };
        enter(ip(1));
        assert_eq!(census.admit(ip(1), false, &limits()), Admission::Accept);
        enter(ip(1));
        assert_eq!(census.admit(ip(1), false, &limits()), Admission::Retry);
        assert_eq!(census.admit(ip(1), true, &limits()), Admission::Accept);
        enter(ip(1));
        enter(ip(1));
        assert_eq!(census.admit(ip(1), true, &limits()), Admission::Refuse);
        assert_eq!(census.admit(ip(2), false, &limits()), Admission::Accept);
        enter(ip(2));
        assert_eq!(census.admit(ip(3), true, &limits()), Admission::Refuse);
        drop(places);
        assert_eq!(census.admit(ip(1), false, &limits()), Admission::Accept);
        assert!(census.0.lock().by_network.is_empty());
    }

    #[test]
    fn handshakes_under_way_lead_to_retries_then_to_silence() {
        let census = Arc::new(Census::default());
        let places: Vec<_> = (0..3).map(|last| Place::new(Arc::clone(&census), ip(last))).collect();
        assert_eq!(census.admit(ip(9), false, &limits()), Admission::Retry);
        assert_eq!(census.admit(ip(9), true, &limits()), Admission::Accept);
        let last = Place::new(Arc::clone(&census), ip(4));
        assert_eq!(census.admit(ip(9), true, &limits()), Admission::Ignore);
        drop((places, last));
        assert_eq!(census.admit(ip(9), false, &limits()), Admission::Accept);
    }

    #[test]
    fn a_client_that_moves_is_counted_where_it_is() {
        let census = Arc::new(Census::default());
        let mut place = Place::new(Arc::clone(&census), ip(1));
        place.moved(ip(2));
        assert_eq!(census.0.lock().by_network.get(&ip(2)), Some(&1));
        assert_eq!(census.0.lock().by_network.get(&ip(1)), None);
    }

    #[test]
    fn an_ipv6_household_is_one_client() {
        let one: IpAddr = "2001:db8:1:2:3:4:5:6".parse().expect("an address");
        let other: IpAddr = "2001:db8:1:2::1".parse().expect("an address");
        assert_eq!(network(one), network(other));
        let mapped: IpAddr = "::ffff:192.0.2.7".parse().expect("an address");
        assert_eq!(network(mapped), ip(7));
    }
}
