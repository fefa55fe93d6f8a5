//! The one task of a connection: it accepts requests, and routes datagrams to sessions.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
};

use axum::Router;
use bytes::Bytes;
use h3::{quic::SendStream, server};
use quinn::ConnectionError;
use tokio::time::{Instant, Sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, debug, trace};

use super::{
    adapter::Adapter,
    codes,
    endpoint::Place,
    limits::Limits,
    request::{self, Site},
    table::Table,
};

/// Serves a connection from its handshake to its end.
pub(super) async fn serve(
    connecting: quinn::Connecting,
    router: Router,
    limits: Arc<Limits>,
    place: Place,
    shutdown: CancellationToken,
    tracker: TaskTracker,
) {
    // Boxed: the set-up's state is larger than that of all that follows, and would stay for as long.
    if let Some(open) = Box::pin(open(connecting, router, limits, place)).await {
        run(open, shutdown, tracker).await;
    }
}

/// A connection that is open. Boxed: a task has room for what is moved inside it in each of its places.
struct Open {
    h3: server::Connection<Adapter, Bytes>,
    site: Site,
    place: Place,
}

/// The QUIC handshake and HTTP/3's own set-up.
async fn open(
    connecting: quinn::Connecting,
    router: Router,
    limits: Arc<Limits>,
    mut place: Place,
) -> Option<Box<Open>> {
    let conn = match tokio::time::timeout(limits.handshake_timeout, connecting).await {
        Ok(Ok(conn)) => conn,
        Ok(Err(error)) => {
            debug!(%error, "handshake failed");
            return None;
        }
        Err(_) => {
            debug!("handshake timed out");
            return None;
        }
    };
    place.established();
    let table = Table::new(Arc::clone(&limits));
    let adapter = Adapter::new(conn.clone(), Arc::clone(&table));
    let mut builder = server::builder();
    builder
        .max_field_section_size(limits.max_field_section_size as u64)
        .enable_webtransport(true)
        .enable_extended_connect(true)
        .enable_datagram(true)
        .max_webtransport_sessions(limits.max_sessions_per_connection.into())
        // Otherwise h3 may write a GREASE frame on a CONNECT stream, before its end.
        .send_grease(false);
    // It waits for the client to allow a stream, which a client may never do.
    match tokio::time::timeout(limits.handshake_timeout, builder.build(adapter)).await {
        Ok(Ok(h3)) => Some(Box::new(Open { h3, site: Site { conn, table, router }, place })),
        Ok(Err(error)) => {
            debug!(%error, "HTTP/3 set-up failed");
            None
        }
        Err(_) => {
            conn.close(codes::H3_NO_ERROR, b"time to open exceeded");
            None
        }
    }
}

async fn run(mut open: Box<Open>, shutdown: CancellationToken, tracker: TaskTracker) {
    let Open { h3, site, place } = &mut *open;
    let limits = Arc::clone(&site.table.limits);
    let mut idle_since = Some(Instant::now());
    let mut timer = pin!(tokio::time::sleep(limits.linger));
    let mut closing = false;
    let mut requests: u32 = 0;
    loop {
        idle_since = match idle_since {
            _ if site.table.is_active() => None,
            None => Some(Instant::now()),
            since => since,
        };
        let now = Instant::now();
        let idle_until = idle_since.map(|since| since + if closing { Default::default() } else { limits.linger });
        if idle_until.is_some_and(|until| until <= now) {
            break;
        }
        let parked_until = site.table.expire(now);
        let probed_until = (site.table.probing.load(Ordering::Relaxed) > 0).then(|| now + limits.headers_timeout);
        let armed = arm(timer.as_mut(), [idle_until, parked_until, probed_until]);
        tokio::select! {
            // Made anew for each poll, and for no longer: it keeps nothing while it waits, and has room for much.
            accepted = poll_fn(|cx| pin!(h3.accept()).poll(cx)) => match accepted {
                Ok(Some(mut resolver)) => {
                    place.moved(site.conn.remote_address().ip());
                    if closing {
                        SendStream::<Bytes>::reset(&mut resolver.frame_stream, codes::H3_REQUEST_REJECTED.into_inner());
                        continue;
                    }
                    let Some(stopped) = site.table.take_stopped() else { continue };
                    requests = requests.saturating_add(1);
                    if requests == 2 {
                        // A page that is loaded from here, or more sessions than one.
                        site.conn.set_max_concurrent_bi_streams(limits.all_bidi_streams());
                    }
                    // Counted here, so that the connection cannot look idle before the task has started.
                    let active = site.table.activate();
                    let request = Box::pin(request::serve(site.clone(), resolver, stopped));
                    tracker.spawn(async move {
                        if let Err(error) = request.await {
                            trace!(%error, "request ended");
                        }
                        drop(active);
                    }.in_current_span());
                }
                Ok(None) => break,
                Err(error) => {
                    debug!(%error, "connection ended");
                    break;
                }
            },
            datagram = site.conn.read_datagram() => match datagram {
                Ok(datagram) => if let Err(code) = site.table.datagram(&datagram) {
                    site.conn.close(code, b"invalid datagram");
                },
                Err(ConnectionError::LocallyClosed) => break,
                Err(error) => {
                    debug!(%error, "connection lost");
                    break;
                }
            },
            () = site.table.changed.notified() => {}
            () = timer.as_mut(), if armed => {}
            () = shutdown.cancelled(), if !closing => closing = true,
        }
    }
    // Closes the QUIC connection, with H3_NO_ERROR unless h3 has closed it with another code.
    drop(open);
}

/// Sets the timer to the first of the deadlines; `false` when there is none.
fn arm(timer: Pin<&mut Sleep>, deadlines: [Option<Instant>; 3]) -> bool {
    let Some(first) = deadlines.into_iter().flatten().min() else {
        return false;
    };
    if timer.deadline() != first {
        timer.reset(first);
    }
    true
}
