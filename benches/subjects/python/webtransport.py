"""aioquic's WebTransport, by the contract of the subjects. What is fanned out are datagrams; `/echo` sends back datagrams and the bytes of bidirectional streams.

Settings: uvloop, one flight of packets per connection and tick, no logger, idle timeout two minutes.
"""

import argparse
import asyncio
import json
import signal
import struct
import time
from importlib.metadata import version
from urllib.parse import parse_qs, urlsplit

import uvloop
from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DatagramReceived, HeadersReceived, WebTransportStreamDataReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated

BEHAVIOURS = ("/fanout", "/echo", "/idle", "/state", "/tokens")
STATE_HZ, STATE_BYTES = 30, 150
TOKENS_HZ, TOKENS_BYTES = 50, 20


def state(due, number, length):
    return struct.pack(">QQ", due, number).ljust(length, b".")


def token(due, _number, length):
    return f"{due:016x}".ljust(length, ".").encode()


CLOCKED = {"/state": (state, STATE_HZ, STATE_BYTES), "/tokens": (token, TOKENS_HZ, TOKENS_BYTES)}


class Clock:
    """One loop for all sessions that are sent the same. A late tick is sent late, and none is left out."""

    def __init__(self):
        self.groups = {}

    def join(self, path, query, session):
        make, hz, length = CLOCKED[path]
        wanted = (path, int(query.get("hz", [hz])[0]), int(query.get("bytes", [length])[0]))
        group = self.groups.get(wanted)
        if group is None:
            group = self.groups[wanted] = set()
            task = asyncio.create_task(self.run(wanted, group, make))
            session.keep = task  # the loop itself has only a weak reference
        group.add(session)
        return lambda: group.discard(session)

    async def run(self, wanted, group, make):
        _, hz, length = wanted
        began, number = time.time(), 1
        while True:
            due = began + number / hz
            await asyncio.sleep(max(0, due - time.time()))
            if not group:
                del self.groups[wanted]
                return
            payload = make(int(due * 1_000_000), number, length)
            for session in group:
                session.send_datagram(payload)
            number += 1


clock = Clock()
fanout = set()


class Session(QuicConnectionProtocol):
    """A connection, and the one session that it has."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.http = None
        self.session = None
        self.path = None
        self.leave = None

    def quic_event_received(self, event):
        if self.http is None:
            self.http = H3Connection(self._quic, enable_webtransport=True)
        if isinstance(event, ConnectionTerminated) and self.leave:
            self.leave()
        for received in self.http.handle_event(event):
            if isinstance(received, DatagramReceived):
                self.datagram(received.data)
            elif isinstance(received, WebTransportStreamDataReceived):
                if self.path == "/echo" and received.stream_id % 4 == 0:  # the client's, bidirectional
                    self._quic.send_stream_data(received.stream_id, received.data, received.stream_ended)
            elif isinstance(received, HeadersReceived):
                self.open(received)

    def open(self, request):
        headers = dict(request.headers)
        url = urlsplit(headers.get(b":path", b"/").decode())
        if headers.get(b":protocol") != b"webtransport" or url.path not in BEHAVIOURS or self.session is not None:
            self.http.send_headers(request.stream_id, [(b":status", b"404")], end_stream=True)
            return
        self.session, self.path = request.stream_id, url.path
        self.http.send_headers(request.stream_id, [(b":status", b"200"), (b"sec-webtransport-http3-draft", b"draft02")])
        if url.path == "/fanout":
            fanout.add(self)
            self.leave = lambda: fanout.discard(self)
        elif url.path in CLOCKED:
            self.leave = clock.join(url.path, parse_qs(url.query), self)

    def datagram(self, data):
        if self.path == "/echo":
            self.http.send_datagram(self.session, data)  # goes out with what is answered to the packet
        elif self.path == "/fanout":
            for other in fanout:
                if other is not self:
                    other.send_datagram(data)

    def send_datagram(self, data):
        self.http.send_datagram(self.session, data)
        self.transmit()


async def main():
    parser = argparse.ArgumentParser()
    for name in ("tcp", "quic", "cert", "key", "app"):
        parser.add_argument(f"--{name}")
    arguments = parser.parse_args()
    configuration = QuicConfiguration(
        is_client=False, alpn_protocols=H3_ALPN, max_datagram_frame_size=65_536, idle_timeout=120
    )
    configuration.load_cert_chain(arguments.cert, arguments.key)
    host, _, port = arguments.quic.rpartition(":")
    server = await serve(host, int(port), configuration=configuration, create_protocol=Session)
    # The server does not tell where it listens.
    port = server._transport.get_extra_info("sockname")[1]
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    versions = {name: version(name) for name in ("aioquic", "uvloop")}
    print(json.dumps({"event": "ready", "tcp": None, "tls": None, "quic": port, "versions": versions}), flush=True)
    await ended.wait()


if __name__ == "__main__":
    uvloop.run(main())
