//! The limit of state as datagrams: the kernel's own batches, without encryption or acknowledgement.

use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::addr::SocketAddrArg;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny};

use super::{Arguments, Ports};
use crate::Failure;
use crate::load::{payload, quic};

/// Ticks per second, as the contract of `/state` has it.
const HZ: u32 = 30;

/// Of each state.
const BYTES: usize = 150;

/// Messages in one call: the kernel takes at most 1,024, and quinn's own batches are smaller.
const BATCH: usize = 256;

pub(super) fn serve(arguments: &Arguments) -> Result<(), Failure> {
    let socket = quic::socket(arguments.quic)?;
    Ports { quic: Some(socket.local_addr()?.port()), ..Ports::default() }.announce()?;
    let addresses = Arc::<Mutex<Vec<SocketAddr>>>::default();
    let (hearing, heard) = (socket.try_clone()?, Arc::clone(&addresses));
    // Whoever says anything gets what there is.
    thread::spawn(move || {
        while let Ok((_, from)) = hearing.recv_from(&mut [0; 64]) {
            let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            if !heard.contains(&from) {
                heard.push(from);
            }
        }
    });
    let period = Duration::from_secs(1) / HZ;
    let began = Instant::now();
    let mut state = [0; BYTES];
    for tick in 1.. {
        let due = began + period * tick;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        payload::write(&mut state, due, tick.into());
        let to: Vec<_> = {
            let addresses = addresses.lock().unwrap_or_else(PoisonError::into_inner);
            addresses.iter().map(SocketAddrArg::as_any).collect()
        };
        to.chunks(BATCH).try_for_each(|batch| send(&socket, batch, &state))?;
    }
    Ok(())
}

fn send(socket: &UdpSocket, to: &[SocketAddrAny], payload: &[u8]) -> Result<(), Failure> {
    let data = [IoSlice::new(payload)];
    let mut no_control: Vec<_> = to.iter().map(|_| SendAncillaryBuffer::default()).collect();
    let mut messages: Vec<_> =
        to.iter().zip(&mut no_control).map(|(to, control)| MMsgHdr::new_with_addr(to, &data, control)).collect();
    let mut rest = messages.as_mut_slice();
    while !rest.is_empty() {
        let sent = rustix::net::sendmmsg(socket, rest, SendFlags::empty())?;
        rest = &mut rest[sent..];
    }
    Ok(())
}
