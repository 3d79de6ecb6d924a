"""A server that answers byte by byte what a test says: dead, slow, hostile and redirecting ones among it."""

from __future__ import annotations

import itertools
import socket
import socketserver
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

TLS_HELLO = b"\x16\x03"
BODY = b"\xff\xd8 not decoded here"


class Server(socketserver.ThreadingTCPServer):
    """Answers ``GET /name`` by calling ``routes[name]`` with the open socket, and keeps every request."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, address: str = "127.0.0.1") -> None:
        super().__init__((address, 0), Connection)
        self.routes: dict[str, Callable[[socket.socket], None]] = {}
        self.requests: list[str] = []
        self.over = threading.Event()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}/{path}"

    def paths(self) -> list[str]:
        return [request.split(" ")[1] for request in self.requests]

    def stop(self) -> None:
        self.over.set()
        self.shutdown()
        self.server_close()


class Connection(socketserver.BaseRequestHandler):
    server: Server

    def handle(self) -> None:
        request = b""
        while b"\r\n\r\n" not in request and not request.startswith(TLS_HELLO):
            data = self.request.recv(65536)
            if not data:
                return
            request += data
        if request.startswith(TLS_HELLO):
            self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            return
        text = request.decode("latin-1")
        self.server.requests.append(text)
        with suppress(OSError, threading.BrokenBarrierError):
            self.server.routes[text.split(" ")[1].lstrip("/").partition("?")[0]](self.request)


def answer(*headers: str, status: str = "200 OK", body: bytes = BODY, length: int | None = None) -> Callable[[socket.socket], None]:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers, "", ""]
    return lambda connection: connection.sendall("\r\n".join(lines).encode("latin-1") + body)


def in_turn(*answers: Callable[[socket.socket], None]) -> Callable[[socket.socket], None]:
    """The first request gets the first answer, and so on; the last one stays."""
    left = itertools.chain(answers, itertools.repeat(answers[-1]))
    return lambda connection: next(left)(connection)


def redirect(location: str, status: str = "302 Found") -> Callable[[socket.socket], None]:
    return answer(f"Location: {location}", status=status, body=b"")


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def drip(server: Server, head: bytes) -> Callable[[socket.socket], None]:
    def send(connection: socket.socket) -> None:
        connection.sendall(head)
        while not server.over.wait(0.05):
            connection.sendall(b"x")

    return send


def silence(server: Server) -> Callable[[socket.socket], None]:
    def hang(connection: socket.socket) -> None:
        server.over.wait(60)

    return hang


def endless(head: bytes, piece: bytes) -> Callable[[socket.socket], None]:
    def send(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(piece)

    return send
