"""A local server that plays dumps.wikimedia.org: directory pages, dump statuses, dumps and page views, and the mishaps of real hosts."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

JOB, SECONDS = "articlesmultistreamdump", 10.0


@dataclass(kw_only=True)
class Served:
    """A file as the host has it. ``ranges``: whether it answers requests for a part; ``if_range``: whether it heeds If-Range."""

    body: bytes
    modified: str = "Thu, 01 Jan 2026 00:00:00 GMT"
    etag: str = ""
    ranges: bool = True
    if_range: bool = True
    length: bool = True

    def __post_init__(self) -> None:
        self.etag = self.etag or f'"{hashlib.md5(self.body).hexdigest()}"'


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request: its path without the leading slash, and the headers that matter."""

    method: str
    path: str
    range: str
    if_range: str
    agent: str


@dataclass(frozen=True, kw_only=True)
class Mishap:
    """What happens to one request. ``status``: this answer instead; ``headers``: these as well; ``cut``: the connection ends after so many
    bytes of the body, once the client has stored them; ``before``: called first, for instance to change the file; ``pieces``: gives the
    body in pieces, each sent when it comes."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    before: Callable[[], None] | None = None
    pieces: Callable[[bytes], Iterable[bytes]] | None = None


@dataclass(kw_only=True)
class Wikimedia:
    """A running host. ``files`` by path; ``mishaps`` by path, one for each request in turn; ``sent``: bytes of bodies by path.

    ``partials``: where the client keeps unfinished files. A cut waits until the bytes before it are there: those that are still in the
    client's buffers when a connection breaks are lost, as many as chance will have it.
    """

    base_url: str = ""
    files: dict[str, Served] = field(default_factory=dict)
    mishaps: dict[str, list[Mishap]] = field(default_factory=lambda: defaultdict(list))
    asked: list[Asked] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)
    partials: Path | None = None
    connections: int = 0
    most_connections: int = 0
    #: Called in the thread of each request for a file that is not a page.
    at_file: Callable[[], object] = lambda: None
    _jobs: dict[tuple[str, str], dict[str, Any]] = field(default_factory=lambda: defaultdict(dict))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add_dump(self, dbname: str, date: str, bodies: Mapping[str, bytes], *, job: str = JOB, status: str = "done") -> None:
        """Publish the files of a job of a dump, ``bodies`` by the end of their names (``-multistream.xml.bz2``). Of a job that is not done
        there are the names and nothing else."""
        files: dict[str, Any] = {}
        for end, body in bodies.items():
            name = f"{dbname}-{date}-pages-articles{end}"
            files[name] = {}
            if status == "done":
                self.files[f"{dbname}/{date}/{name}"] = Served(body=body)
                digests = {"md5": hashlib.md5(body).hexdigest(), "sha1": hashlib.sha1(body).hexdigest()}
                files[name] = {"size": len(body), "url": f"/{dbname}/{date}/{name}", **digests}
        jobs = self._jobs[dbname, date]
        jobs[job] = {"status": status, "updated": "2026-01-02 03:04:05", "files": files}
        others = {"pagetable": {"status": "waiting", "updated": ""}, "metahistory7zdump": {"status": "failed", "files": {"x.7z": {}}}}
        self.put_status(dbname, date, {"version": "0.8", "jobs": {**others, **jobs}})
        dates = sorted(date for wiki, date in self._jobs if wiki == dbname)
        links = "".join(f'<a href="{name}/">{name}/</a>   01-Jan-2026 00:00    -\n' for name in [*dates, "latest"])
        page = (
            f'<html>\n<head><title>Index of /{dbname}/</title></head>\n<body>\n<h1>Index</h1><hr><pre><a href="../">../</a>\n{links}</pre>'
        )
        self.files[f"{dbname}/"] = Served(body=page.encode())

    def put_status(self, dbname: str, date: str, status: Any) -> None:
        self.files[f"{dbname}/{date}/dumpstatus.json"] = Served(body=json.dumps(status).encode())

    def status(self, dbname: str, date: str) -> Any:
        return json.loads(self.files[f"{dbname}/{date}/dumpstatus.json"].body)

    def add_pageviews(self, hour: datetime, body: bytes) -> str:
        """Publish an hour of page views; its path."""
        path = f"other/pageviews/{hour:%Y}/{hour:%Y-%m}/pageviews-{hour:%Y%m%d-%H}0000.gz"
        self.files[path] = Served(body=body)
        return path

    def paths(self, method: str = "GET") -> list[str]:
        return [asked.path for asked in self.asked if asked.method == method]

    def ranges(self, path: str) -> list[str]:
        """The Range headers of the requests for a file, in turn."""
        return [asked.range for asked in self.asked if asked.method == "GET" and asked.path == path]

    def wait_for_client(self, path: str, n_bytes: int) -> None:
        """Wait until the client has stored so many bytes of a file; called before a connection is cut."""
        stored = self.partials and self.partials / Path(path).name
        end = time.monotonic() + SECONDS
        while stored and time.monotonic() < end and not (stored.exists() and stored.stat().st_size == n_bytes):
            time.sleep(0.002)

    def forget(self) -> None:
        """Begin to count anew."""
        self.asked.clear()
        self.sent.clear()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    host: Wikimedia

    def handle(self) -> None:
        with self.host._lock:
            self.host.connections += 1
            self.host.most_connections = max(self.host.most_connections, self.host.connections)
        try:
            super().handle()
        finally:
            with self.host._lock:
                self.host.connections -= 1

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path).removeprefix("/")
        names = {"range": "Range", "if_range": "If-Range", "agent": "User-Agent"}
        with self.host._lock:
            self.host.asked.append(
                Asked(method=self.command, path=path, **{field: self.headers.get(name, "") for field, name in names.items()})
            )
            mishap = self.host.mishaps[path].pop(0) if self.host.mishaps[path] else Mishap()
        if path.endswith((".bz2", ".gz")):
            self.host.at_file()
        if mishap.before:
            mishap.before()
        if mishap.status:
            self._send(mishap.status, {"Content-Length": "0", **mishap.headers})
        elif path not in self.host.files:
            self._send(404, {"Content-Length": "9"}, [b"not found"])
        else:
            self._file(path, self.host.files[path], mishap)

    def _file(self, path: str, file: Served, mishap: Mishap) -> None:
        headers = {"ETag": file.etag, "Last-Modified": file.modified}
        start = self._start(file)
        if start is not None and start >= len(file.body):
            self._send(416, {"Content-Length": "0", "Content-Range": f"bytes */{len(file.body)}"})
            return
        if start is not None:
            headers["Content-Range"] = f"bytes {start}-{len(file.body) - 1}/{len(file.body)}"
        body = file.body[start or 0 :]
        if file.length:
            headers["Content-Length"] = str(len(body))
        else:
            self.close_connection = True
        headers = {name: value for name, value in {**headers, **mishap.headers}.items() if value}
        status, body = 200 if start is None else 206, body if mishap.cut is None else body[: mishap.cut]
        self._send(status, headers, mishap.pieces(body) if mishap.pieces else [body], path)
        if mishap.cut is not None:
            self.host.wait_for_client(path, (start or 0) + mishap.cut)
            self.close_connection = True

    def _start(self, file: Served) -> int | None:
        """Where the asked part begins; None for the whole file."""
        match = re.fullmatch(r"bytes=([0-9]+)-", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range", "")
        if not match or not file.ranges or (file.if_range and condition and condition not in (file.etag, file.modified)):
            return None
        return int(match[1])

    def _send(self, status: int, headers: Mapping[str, str], pieces: Iterable[bytes] = (), path: str = "") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        for piece in pieces if self.command == "GET" else ():
            self.wfile.write(piece)
            self.wfile.flush()
            with self.host._lock:
                self.host.sent[path] += len(piece)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""


@contextmanager
def serve(host: Wikimedia | None = None) -> Iterator[Wikimedia]:
    """A host on 127.0.0.1 as long as the context lasts."""
    host = host or Wikimedia()
    handler = type("Handler", (_Handler,), {"host": host})
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        host.base_url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield host
        finally:
            server.shutdown()
            thread.join()
