"""A Throughline client over aioquic, written from protocol/SPEC.md alone: another make of QUIC, HTTP/3 and WebTransport.

Every command prints JSON lines about what it saw, and ends by itself. `python aioquic_client.py COMMAND URL ...`
"""

import argparse
import asyncio
import contextlib
import json
import os
import ssl
import struct
import sys
import time
from urllib.parse import quote, urlsplit

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DatagramReceived, DataReceived, HeadersReceived, WebTransportStreamDataReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StreamReset

PATIENCE = 10  # seconds for whatever is awaited

WELCOME, CLOSE, STREAM, ACK, DATAGRAM, PING, PONG = range(1, 8)
CLOSE_WEBTRANSPORT_SESSION = 0x2843


# ---- SPEC sections 2 to 4: numbers, frames, messages ----


def varint(value):
    for bits, (size, form) in enumerate(((1 << 6, "B"), (1 << 14, ">H"), (1 << 30, ">I"), (1 << 62, ">Q"))):
        if value < size:
            encoded = bytearray(struct.pack(form, value))
            encoded[0] |= bits << 6
            return bytes(encoded)
    raise ValueError(value)


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def varint(self):
        length = 1 << (self.data[self.at] >> 6)
        value = int.from_bytes(self.take(length), "big")
        return value & ((1 << (8 * length - 2)) - 1)

    def take(self, length):
        if self.at + length > len(self.data):
            raise IndexError
        self.at += length
        return self.data[self.at - length : self.at]

    def rest(self):
        return self.take(len(self.data) - self.at)


def frame(kind, payload):
    return varint(kind) + varint(len(payload)) + payload


def stream_frame(offset, data):
    return frame(STREAM, varint(0) + varint(offset) + data)


def message(body):
    text = isinstance(body, str)
    body = body.encode() if text else body
    return varint(1 if text else 0) + varint(len(body)) + body


def close_frame(code, application, reason):
    return frame(CLOSE, varint(code) + bytes([application]) + reason.encode())


def read_welcome(payload):
    reader = Reader(payload)
    welcome = {"version": reader.varint(), "session": reader.take(16).hex(), "key": reader.take(16).hex()}
    for name in ("flags", "link", "time", "heartbeat", "idle", "max_message", "received", "limit"):
        welcome[name] = reader.varint()
    return welcome


# ---- the connection ----


class Client(QuicConnectionProtocol):
    """One connection, with one WebTransport session at most; or plain requests."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic, enable_webtransport=True)
        self.connect_id = None
        self.link_id = None
        self.link_bytes = b""
        self.capsules = b""
        self.stream_bytes = b""
        self.sent = 0
        self.frames = asyncio.Queue()
        self.messages = asyncio.Queue()
        self.datagrams = asyncio.Queue()
        self.session_close = asyncio.get_running_loop().create_future()
        self.responses = {}
        self.terminated = asyncio.get_running_loop().create_future()

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated) and not self.terminated.done():
            self.terminated.set_result({"code": event.error_code, "reason": event.reason_phrase})
        if isinstance(event, StreamReset) and event.stream_id == self.connect_id:
            self._end_session({"reset": event.error_code})
        for http_event in self.http.handle_event(event):
            self._http_event(http_event)

    def _http_event(self, event):
        if isinstance(event, HeadersReceived):
            response = self.responses.setdefault(event.stream_id, asyncio.Queue())
            response.put_nowait(dict(event.headers))
            if event.stream_ended:
                response.put_nowait((b"", True))
        elif isinstance(event, DataReceived) and event.stream_id == self.connect_id and self.link_id is not None:
            self._capsules(event.data, event.stream_ended)
        elif isinstance(event, DataReceived):
            self.responses.setdefault(event.stream_id, asyncio.Queue()).put_nowait((event.data, event.stream_ended))
        elif isinstance(event, DatagramReceived):
            self.datagrams.put_nowait(event.data)
        elif isinstance(event, WebTransportStreamDataReceived):
            # SPEC 7.1: the first stream that the server opens is the link stream.
            if self.link_id is None:
                self.link_id = event.stream_id
            if event.stream_id == self.link_id:
                self._link_data(event.data)

    def _capsules(self, data, ended):
        self.capsules += data
        try:
            while True:
                reader = Reader(self.capsules)
                kind, length = reader.varint(), reader.varint()
                value = reader.take(length)
                self.capsules = reader.rest()
                if kind == CLOSE_WEBTRANSPORT_SESSION:
                    code = int.from_bytes(value[:4], "big")
                    self._end_session({"code": code, "reason": value[4:].decode()})
        except IndexError:
            pass
        if ended:
            self._end_session({"code": 0, "reason": ""})

    def _end_session(self, how):
        if not self.session_close.done():
            self.session_close.set_result(how)

    def _link_data(self, data):
        self.link_bytes += data
        try:
            while self.link_bytes:
                reader = Reader(self.link_bytes)
                kind, length = reader.varint(), reader.varint()
                payload = reader.take(length)
                self.link_bytes = reader.rest()
                self._frame(kind, payload)
        except IndexError:
            pass

    def _frame(self, kind, payload):
        reader = Reader(payload)
        if kind == STREAM:
            stream, offset = reader.varint(), reader.varint()
            assert stream == 0
            self._stream_data(reader.rest())
        elif kind == PING:
            self.send(frame(PONG, varint(reader.varint()) + varint(int(time.time() * 1_000_000))))
        elif kind == DATAGRAM:
            self.datagrams.put_nowait(payload)
        else:
            self.frames.put_nowait((kind, payload))

    def _stream_data(self, data):
        self.stream_bytes += data
        try:
            while self.stream_bytes:
                reader = Reader(self.stream_bytes)
                kind, length = reader.varint(), reader.varint()
                body = reader.take(length)
                self.stream_bytes = reader.rest()
                self.messages.put_nowait(body.decode() if kind == 1 else body)
        except IndexError:
            pass

    # ---- what a client does ----

    async def request(self, method, url, headers=(), body=None):
        """Sends a request; returns its stream id. What comes back is in `responses`."""
        parts = urlsplit(url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        stream = self._quic.get_next_available_stream_id()
        self.responses[stream] = asyncio.Queue()
        pseudo = [(":method", method), (":scheme", "https"), (":authority", parts.netloc), (":path", path)]
        encoded = [(name.encode(), value.encode()) for name, value in pseudo + list(headers)]
        self.http.send_headers(stream, encoded, end_stream=body is None and method != "CONNECT")
        if body is not None:
            self.http.send_data(stream, body, end_stream=True)
        self.transmit()
        return stream

    async def answer(self, stream):
        """Status, headers and whole body."""
        headers = await self.next(self.responses[stream])
        body = b""
        while True:
            data, ended = await self.next(self.responses[stream])
            body += data
            if ended:
                return int(headers[b":status"]), headers, body

    async def open(self, url, origin=None):
        """Asks for a WebTransport session. Returns the status; with 200, WELCOME follows in `frames`."""
        headers = [(":protocol", "webtransport"), ("wt-available-protocols", '"throughline.v1"')]
        if origin:
            headers.append(("origin", origin))
        parts = urlsplit(url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        stream = self._quic.get_next_available_stream_id()
        self.connect_id = stream
        self.responses[stream] = asyncio.Queue()
        pseudo = [(":method", "CONNECT"), (":scheme", "https"), (":authority", parts.netloc), (":path", path)]
        encoded = [(name.encode(), value.encode()) for name, value in pseudo + headers]
        self.http.send_headers(stream, encoded)
        self.transmit()
        headers = await self.next(self.responses[stream])
        return int(headers[b":status"]), headers

    async def open_session(self, url, origin=None):
        """Opens a session and chooses the link with a PING. Returns WELCOME."""
        status, headers = await self.open(url, origin)
        assert status == 200, status
        self.protocol = headers.get(b"wt-protocol", b"").decode()
        kind, payload = await self.next(self.frames)
        assert kind == WELCOME, kind
        self.send(frame(PING, varint(1)))
        return read_welcome(payload)

    def send(self, data):
        self._quic.send_stream_data(self.link_id, data)
        self.transmit()

    def send_message(self, body):
        encoded = message(body)
        for start in range(0, len(encoded), 16_384):
            piece = encoded[start : start + 16_384]
            self.send(stream_frame(self.sent, piece))
            self.sent += len(piece)

    def send_datagram(self, data):
        self.http.send_datagram(self.connect_id, data)
        self.transmit()

    async def next(self, queue, patience=PATIENCE):
        return await asyncio.wait_for(queue.get(), patience)

    async def next_frame(self, wanted, patience=PATIENCE):
        deadline = time.monotonic() + patience
        while True:
            kind, payload = await self.next(self.frames, deadline - time.monotonic())
            if kind == wanted:
                return payload

    async def end(self, patience=PATIENCE):
        """How the session ended: its CLOSE frame, if one came, and what the WebTransport session closed with."""
        capsule = await asyncio.wait_for(asyncio.shield(self.session_close), patience)
        close = None
        while not self.frames.empty():
            kind, payload = self.frames.get_nowait()
            if kind == CLOSE:
                reader = Reader(payload)
                close = {"code": reader.varint(), "origin": reader.take(1)[0], "reason": reader.rest().decode()}
        return {"close": close, "session": capsule}


def say(**values):
    print(json.dumps(values), flush=True)


def dial(url):
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=H3_ALPN, max_datagram_frame_size=65_536, verify_mode=ssl.CERT_NONE
    )
    parts = urlsplit(url)
    return connect(parts.hostname, parts.port, configuration=configuration, create_protocol=Client)


# ---- commands ----


async def exchange(arguments):
    """A session as SPEC.md tells it: WELCOME, PING, messages, a datagram, CLOSE."""
    async with dial(arguments.url) as client:
        say(event="welcome", welcome=await client.open_session(arguments.url), protocol=client.protocol)
        pong = Reader(await client.next_frame(PONG))
        say(event="pong", id=pong.varint(), time=pong.varint())
        for body in ("Grüße 🛰️", b"\x00\x01\xff", "", b"", "x" * 100_000):
            client.send_message(body)
            echo = await client.next(client.messages)
            say(event="message", same=echo == body, length=len(body))
        acknowledged = 0
        while acknowledged < client.sent:
            ack = Reader(await client.next_frame(ACK))
            _, acknowledged, limit = ack.varint(), ack.varint(), ack.varint()
        say(event="ack", received=acknowledged, sent=client.sent, limit=limit)
        for length in (1, 0, 1_100):
            client.send_datagram(bytes(length))
            say(event="datagram", same=await client.next(client.datagrams) == bytes(length), length=length)
        client.send(close_frame(4_242, 1, "as written"))
        say(event="end", **await client.end())


async def server_close(arguments):
    async with dial(arguments.url) as client:
        await client.open_session(arguments.url)
        client.send_message("!close 1234 das reicht")
        say(event="end", **await client.end())


async def client_close(arguments):
    """Closes with the capsule alone, without CLOSE, as `wt.close()` does."""
    async with dial(arguments.url) as client:
        welcome = await client.open_session(arguments.url)
        await client.next_frame(PONG)
        reason = "ohne CLOSE".encode()
        value = (77).to_bytes(4, "big") + reason
        capsule = varint(CLOSE_WEBTRANSPORT_SESSION) + varint(len(value)) + value
        client.http.send_data(client.connect_id, capsule, end_stream=True)
        client.transmit()
        say(event="welcome", session=welcome["session"])
        say(event="end", **await client.end())


async def refused(arguments):
    """An opening that should be refused: the status, and the JSON that explains it."""
    async with dial(arguments.url) as client:
        status, headers = await client.open(arguments.url, arguments.origin)
        if status == 200:
            say(event="opened")
            return
        body = b""
        while True:
            data, ended = await client.next(client.responses[client.connect_id])
            body += data
            if ended:
                break
        retry_after = headers.get(b"retry-after", b"").decode()
        say(event="refused", status=status, retryAfter=retry_after, **json.loads(body))


async def watch(arguments):
    """Counts states until standard input ends, or for a minute."""
    async with dial(arguments.url) as client:
        await client.open_session(arguments.url)
        client.send_message("!states 30 60")
        await client.next(client.datagrams)
        say(event="watching")
        began, count, longest, last = time.monotonic(), 0, 0.0, time.monotonic()
        loop = asyncio.get_running_loop()
        stop = loop.run_in_executor(None, sys.stdin.read)
        while not stop.done():
            try:
                await client.next(client.datagrams, 0.25)
            except asyncio.TimeoutError:
                continue
            now = time.monotonic()
            count, longest, last = count + 1, max(longest, now - last), now
        seconds = time.monotonic() - began
        say(event="watched", rate=count / seconds, longestGapMs=longest * 1_000, seconds=seconds)


async def hostile(arguments):
    """One session that misbehaves. Says how it ended."""
    async with dial(arguments.url) as client:
        began = time.monotonic()
        case = arguments.case
        if case == "silent":
            status, _ = await client.open(arguments.url)
            assert status == 200
        else:
            await client.open_session(arguments.url)
        if case == "unknown-frame":
            client.send(frame(0x3A, b"what?"))
        elif case == "oversized-frame":
            client.send(varint(STREAM) + varint(65_537))
        elif case == "truncated-payload":
            client.send(frame(STREAM, varint(0)))
        elif case == "gap":
            client.send(stream_frame(9, b"x"))
        elif case == "beyond-credit":
            # PING was all that came before: far more than any window, in order.
            for offset in range(0, 64 * 1_048_576, 16_384):
                client.send(stream_frame(offset, message(bytes(4_000_000))[:16_384] if offset == 0 else bytes(16_384)))
                if client.session_close.done():
                    break
                await asyncio.sleep(0)
        elif case == "message-too-large":
            client.send(stream_frame(0, varint(0) + varint(1 << 40)))
        elif case == "large-datagram":
            client.send_datagram(bytes(1_101))
        elif case == "random":
            client.send(os.urandom(50_000))
        elif case == "ten-thousand-streams":
            say(event="streams", **await many_streams(client))
        end = await client.end()
        say(event="end", seconds=round(time.monotonic() - began, 3), **end)


async def many_streams(client):
    """Ten thousand streams: those that the server's limit lets through are sent, the others wait in this client."""
    before = client._quic._remote_max_streams_bidi
    for _ in range(5_000):
        stream = client._quic.get_next_available_stream_id()
        header = varint(0x41) + varint(client.connect_id)
        client._quic.send_stream_data(stream, header + b"hello", end_stream=False)
        stream = client._quic.get_next_available_stream_id(is_unidirectional=True)
        client._quic.send_stream_data(stream, varint(0x54) + varint(client.connect_id) + b"hello", end_stream=False)
    client.transmit()
    await client.ping()
    await asyncio.sleep(0.5)  # for what the server may answer to streams that it did not ask for
    await client.ping()
    return {"limit": before, "terminated": client.terminated.done()}


async def connections(arguments):
    """Connections that do one odd thing each, many times: `--case connect` asks for nothing, `--case headers` sends half a request."""
    for _ in range(arguments.count):
        async with dial(arguments.url) as client:
            if arguments.case == "headers":
                stream = client._quic.get_next_available_stream_id()
                client._quic.send_stream_data(stream, os.urandom(200), end_stream=False)
                client.transmit()
                # Random bytes may be a frame that HTTP/3 forbids there: the server then closes the connection.
                with contextlib.suppress(ConnectionError):
                    await client.ping()
    say(event="done")


async def http(arguments):
    """One request over HTTP/3."""
    async with dial(arguments.url) as client:
        headers = [tuple(header.split(": ", 1)) for header in arguments.header]
        body = arguments.body.encode() if arguments.body is not None else None
        stream = await client.request(arguments.method, arguments.url, headers, body)
        status, response, body = await client.answer(stream)
        names = {name.decode(): value.decode() for name, value in response.items()}
        say(event="response", status=status, headers=names, body=body.decode(errors="replace"))


async def sse(arguments):
    """A session over SSE on HTTP/3, with POST as its uplink: WELCOME, a message and its echo (SPEC 7.3 and 7.5)."""
    import base64

    async with dial(arguments.url) as client:
        base = arguments.url
        stream = await client.request("GET", f"{base}/sse", [("throughline-version", "1")])
        headers = await client.next(client.responses[stream])
        say(event="response", status=int(headers[b":status"]), type=headers[b"content-type"].decode())
        text = b""

        async def packet():
            nonlocal text
            while b"\n\n" not in text:
                data, ended = await client.next(client.responses[stream])
                assert not ended
                text += data
            event, _, text_after = text.partition(b"\n\n")
            text = text_after
            lines = [line[6:] for line in event.split(b"\n") if line.startswith(b"data: ")]
            return b"".join(base64.b64decode(line) for line in lines)

        reader = Reader(await packet())
        assert reader.varint() == WELCOME
        welcome = read_welcome(reader.take(reader.varint()))
        name = lambda value: base64.urlsafe_b64encode(bytes.fromhex(value)).decode().rstrip("=")
        post_headers = [
            ("throughline-session", name(welcome["session"])),
            ("throughline-key", name(welcome["key"])),
            ("throughline-link", str(welcome["link"])),
        ]
        body = frame(PING, varint(1)) + stream_frame(0, message("über HTTP/3"))
        post = await client.request("POST", f"{base}/send", post_headers, body)
        headers = await client.next(client.responses[post])
        say(event="post", status=int(headers[b":status"]))
        while client.messages.empty():
            reader = Reader(await packet())
            while reader.at < len(reader.data):
                kind = reader.varint()
                payload = reader.take(reader.varint())
                if kind == STREAM:
                    inner = Reader(payload)
                    inner.varint(), inner.varint()
                    client._stream_data(inner.rest())
        say(event="message", text=client.messages.get_nowait())


def main():
    commands = (exchange, server_close, client_close, refused, watch, hostile, connections, http, sse)
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=[command.__name__ for command in commands])
    parser.add_argument("url")
    parser.add_argument("--origin")
    parser.add_argument("--token", help="added to the query, percent-encoded")
    parser.add_argument("--case")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--method", default="GET")
    parser.add_argument("--header", action="append", default=[])
    parser.add_argument("--body")
    arguments = parser.parse_args()
    if arguments.token:
        arguments.url += f"&token={quote(arguments.token, safe='')}"
    run = {command.__name__: command for command in commands}[arguments.command]
    asyncio.run(asyncio.wait_for(run(arguments), 90))


if __name__ == "__main__":
    main()
