"""A real S3 server as a process of its own, and a proxy before it that fails as networks and servers do.

The proxy is a process of its own, too: GDAL holds Python's lock while it opens a file, and would wait for itself.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": "us-east-1"}
CONTROL = "/-/"
"""Requests below are for the proxy itself."""


@contextmanager
def s3_server(log: Path) -> Iterator[str]:
    """Moto's server, listening on loopback; its address."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env={**os.environ, **KEYS})
    try:
        until = time.monotonic() + 60
        while not _answers(port):
            assert process.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    try:
        with closing(socket.create_connection(("127.0.0.1", port), 1)):
            return True
    except OSError:
        return False


def request(address: str, method: str, path: str) -> int:
    """A plain request to the server, which asks for no signature; the status."""
    with closing(http.client.HTTPConnection(address.removeprefix("http://"), timeout=20)) as connection:
        connection.request(method, path)
        return connection.getresponse().status


@dataclass(frozen=True)
class Fault:
    """What the proxy does to requests that hold `match` in their method and path.

    kind: a status to answer, or refused (no answer), slow, cut (half of the answer). after: matching requests that
    pass first. most: how many fail. share: which part of the others, drawn by `seed`.
    """

    kinds: tuple[int | str, ...] = ()
    match: str = ""
    after: int = 0
    most: int = 1_000_000
    share: float = 1.0
    seed: int = 1


class Proxy:
    """Stands before the server, at `address`."""

    def __init__(self, address: str) -> None:
        self.address = address

    def fails(self, fault: Fault) -> None:
        """From now on; an empty fault ends it. Forgets what was seen."""
        self._ask("PUT", json.dumps(asdict(fault)))

    @property
    def seen(self) -> list[tuple[str, str, int | str | None]]:
        """Requests since then: method, path, and what was done to them."""
        return [tuple(entry) for entry in json.loads(self._ask("GET"))]

    def _ask(self, method: str, body: str | None = None) -> bytes:
        with closing(
            http.client.HTTPConnection(self.address.removeprefix("http://"), timeout=20)
        ) as connection:
            connection.request(method, CONTROL, body)
            return connection.getresponse().read()


@contextmanager
def proxy_before(server: str) -> Iterator[Proxy]:
    port = free_port()
    process = subprocess.Popen([sys.executable, __file__, server, str(port)])
    try:
        while not _answers(port):
            assert process.poll() is None
            time.sleep(0.05)
        yield Proxy(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(20)


class State:
    """What the proxy does, and what it has seen."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.lock = threading.Lock()
        self.begin(Fault())

    def begin(self, fault: Fault) -> None:
        with self.lock:
            self.fault, self.chance = fault, random.Random(fault.seed)
            self.matched = self.failed = 0
            self.seen: list[tuple[str, str, int | str | None]] = []

    def meet(self, method: str, path: str) -> int | str | None:
        with self.lock:
            kind = self._kind(f"{method} {path}")
            self.seen.append((method, path, kind))
            return kind

    def _kind(self, what: str) -> int | str | None:
        fault = self.fault
        if not fault.kinds or fault.match not in what:
            return None
        self.matched += 1
        if self.matched <= fault.after or self.failed >= fault.most or self.chance.random() >= fault.share:
            return None
        self.failed += 1
        return self.chance.choice(fault.kinds)


def serve(target: str, port: int) -> None:
    state = State(target)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length) if length else None
            if self.path == CONTROL:
                self._control(body)
                return
            kind = state.meet(self.command, self.path)
            if kind == "refused":
                self.close_connection = True
                return
            if isinstance(kind, int):
                code = {403: "AccessDenied", 404: "NoSuchBucket"}.get(kind, "InternalError")
                content = f"<Error><Code>{code}</Code><Message>as asked for</Message></Error>".encode()
                self._send(kind, [("Content-Type", "application/xml")], content)
                return
            if kind == "slow":
                time.sleep(1.0)
            self._pass(body, kind == "cut")

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer

        def _control(self, body: bytes | None) -> None:
            if self.command == "PUT":
                fields = json.loads(body or b"{}")
                state.begin(Fault(**{**fields, "kinds": tuple(fields["kinds"])}))
            self._send(200, [], json.dumps(state.seen).encode())

        def _pass(self, body: bytes | None, cut: bool) -> None:
            with closing(
                http.client.HTTPConnection(target.removeprefix("http://"), timeout=60)
            ) as connection:
                skip = ("connection", "accept-encoding")
                headers = {k: v for k, v in self.headers.items() if k.lower() not in skip}
                connection.request(self.command, self.path, body, headers)
                response = connection.getresponse()
                content = response.read()
                skip = ("connection", "transfer-encoding", "content-length", "server", "date")
                told = [(k, v) for k, v in response.getheaders() if k.lower() not in skip]
                if self.command == "HEAD":
                    told.append(("Content-Length", response.getheader("Content-Length") or "0"))
                self._send(response.status, told, content, cut)

        def _send(
            self, status: int, headers: list[tuple[str, str]], content: bytes, cut: bool = False
        ) -> None:
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[: len(content) // 2] if cut else content)
            if cut:
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
