"""A local web server of the pictures, with the odd answers that a fetcher of images meets."""

from __future__ import annotations

import http.server
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: Paths that do not answer with their own picture at once.
MOVED, LOOP, NOT_AN_IMAGE, SLOW, NO_AI, CUT_OFF, GONE = (
    f"/odd/{name}.jpg" for name in ("moved", "loop", "not-an-image", "slow", "no-ai", "cut-off", "gone")
)
ODD_PATHS = (MOVED, LOOP, NOT_AN_IMAGE, SLOW, NO_AI, CUT_OFF, GONE)
#: Where MOVED leads.
MOVED_TO = "/odd/moved-to.jpg"
SLOW_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class PictureServer:
    """A running server. ``requests`` counts what was asked for, by path."""

    base_url: str
    requests: Counter[str] = field(default_factory=Counter)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    root: Path
    seen: Counter[str]
    lock: threading.Lock

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        with self.lock:
            self.seen[path] += 1
        if path in (MOVED, LOOP):
            self._answer(302, {"Location": MOVED_TO if path == MOVED else LOOP})
        elif path == NOT_AN_IMAGE:
            self._answer(200, {"Content-Type": "text/html; charset=utf-8"}, b"<!DOCTYPE html><title>Please log in</title>")
        else:
            if path == SLOW:
                time.sleep(SLOW_SECONDS)
            self._file(path, {"X-Robots-Tag": "noai"} if path == NO_AI else {})

    def _file(self, path: str, headers: dict[str, str]) -> None:
        file = (self.root / path.lstrip("/")).resolve()
        if not file.is_relative_to(self.root) or not file.is_file():
            self._answer(404, {"Content-Type": "text/plain"}, b"not found")
        else:
            self._answer(200, {"Content-Type": "image/jpeg", **headers}, file.read_bytes())

    def _answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a test run asks for thousands of pictures."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    # The standard backlog of 5 makes a burst of connections wait a second for a second try.
    request_queue_size = 128


@contextmanager
def serve(images: Path, *, port: int = 0) -> Iterator[PictureServer]:
    """Serve the folder on 127.0.0.1 as long as the context lasts; the path of a URL is the path of a file.

    ``port`` 0 takes a free one. The folder may still be empty, or not exist: the base URL is needed to generate a world.
    """
    seen: Counter[str] = Counter()
    handler = type("Handler", (_Handler,), {"root": images.resolve(), "seen": seen, "lock": threading.Lock()})
    with _Server(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield PictureServer(base_url=f"http://127.0.0.1:{server.server_port}", requests=seen)
        finally:
            server.shutdown()
            thread.join()
