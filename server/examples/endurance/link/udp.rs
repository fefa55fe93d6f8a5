//! A UDP socket for QUIC that can fall silent.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};

use crate::fault::{Fault, How};

/// A socket on a port of the system's choice.
pub(super) fn bind(from: Ipv4Addr, fault: &Fault) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    let socket = TokioRuntime.wrap_udp_socket(std::net::UdpSocket::bind((from, 0))?)?;
    Ok(Arc::new(Mutable { socket, fault: fault.clone() }))
}

/// Swallows what it should send when its link is silent. What it receives then is lost on nobody: QUIC is not polled for it.
#[derive(Debug)]
struct Mutable {
    socket: Arc<dyn AsyncUdpSocket>,
    fault: Fault,
}

impl AsyncUdpSocket for Mutable {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        match self.fault.how() {
            Some(How::Silence) => Ok(()),
            _ => self.socket.try_send(transmit),
        }
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        match self.fault.how() {
            Some(How::Silence) => Poll::Pending,
            _ => self.socket.poll_recv(context, bufs, meta),
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}
