"""Object stores that speak their real protocols on this machine: moto's S3 and fake-gcs-server, each behind a proxy of ours that counts
what is asked and, when told to, refuses or breaks connections."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import re
import socket
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

# gcsfs probes every bucket's type over gRPC, up to a minute each, unless told not to before it is imported.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

import aiohttp
import fsspec
from aiohttp import web
from yarl import URL

from pipelines.processes import python_module
from tests.engines.processes import running, wait_until
from tests.ports import free_ports

BUCKET = "bucket"
#: fake-gcs-server, which ``make test-stores`` installs; empty where that is not what runs.
FAKE_GCS = os.environ.get("WORLDCLIP_TEST_STORES", "")

#: Headers that speak of one connection, not of what goes over it.
_OF_CONNECTION = frozenset({"connection", "keep-alive", "transfer-encoding", "expect"})


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request. ``operation``: info, read, list, write, delete, or other (of uploads in several steps)."""

    operation: str
    name: str
    method: str
    query: str
    bytes: int


def _asked(request: web.BaseRequest, body: bytes) -> Asked:
    """What a request of S3 or of GCS is for."""
    path, query = unquote(request.raw_path.partition("?")[0]), parse_qs(urlsplit(request.raw_path).query, keep_blank_values=True)
    gcs = "/storage/v1/b/" in path
    name = path.partition(f"/{BUCKET}/")[2].removeprefix("o/" if gcs else "")
    if gcs and path.endswith(f"/{BUCKET}/o"):
        # An upload in one step has its name in what it sends.
        described = re.search(rb'"name": "([^"]+)"', body[:1000])
        name = described[1].decode() if described else query.get("name", [""])[0]
    listing = path.endswith(f"/{BUCKET}/o") if gcs else "list-type" in query
    if request.method == "GET":
        operation = "list" if listing else "read" if not gcs or query.get("alt") == ["media"] or "/download/" in path else "info"
    elif request.method in ("POST", "PUT"):
        several = not {"uploads", "uploadId", "upload_id"}.isdisjoint(query) or query.get("uploadType") == ["resumable"]
        operation = "other" if several else "write"
    else:
        operation = {"HEAD": "info", "DELETE": "delete"}.get(request.method, "other")
    return Asked(operation=operation, name=name, method=request.method, query=str(urlsplit(request.raw_path).query), bytes=len(body))


class Proxy:
    """Hands on HTTP requests to a server and writes down every one.

    ``refuse`` says of a request with which status it is answered in the server's stead, None for none; ``cut`` says after how many bytes
    of its body, or of the answer where it has none, the connections on both sides break, None for never. Both are called in the proxy's
    own thread.
    """

    def __init__(self, upstream_port: int) -> None:
        self.refuse: Callable[[Asked], int | None] = lambda _: None
        self.cut: Callable[[Asked], int | None] = lambda _: None
        self.asked: list[Asked] = []
        self.refused = self.broken = self.under_way = 0
        self._upstream = f"http://127.0.0.1:{upstream_port}"
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._over: asyncio.Event | None = None
        self.port = free_ports(1)[0]
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(10)

    def stop(self) -> None:
        if self._over is not None:
            self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)

    def reset(self) -> None:
        """Forget what was asked, and do no harm any more."""
        self.calm()
        wait_until(lambda: not self.under_way, "the proxy's last request")
        self.asked, self.refused, self.broken = [], 0, 0

    def calm(self) -> None:
        self.refuse = self.cut = lambda _: None

    def operations(self) -> Counter[str]:
        return Counter(a.operation for a in self.asked)

    async def _serve(self) -> None:
        self._over = asyncio.Event()
        # The server's own answers go on as they are: nothing is decompressed, and no cookie, redirect or limit is ours.
        async with aiohttp.ClientSession(auto_decompress=False, timeout=aiohttp.ClientTimeout(), read_bufsize=1 << 20) as session:
            server = web.Server(lambda request: self._handle(request, session), access_log=None)
            runner = web.ServerRunner(server, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", self.port).start()
            self._ready.set()
            await self._over.wait()
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest, session: aiohttp.ClientSession) -> web.StreamResponse:
        self.under_way += 1
        try:
            return await self._answer(request, session)
        finally:
            self.under_way -= 1

    async def _answer(self, request: web.BaseRequest, session: aiohttp.ClientSession) -> web.StreamResponse:
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")  # type: ignore[attr-defined]
        body = await request.content.read()
        asked = _asked(request, body)
        self.asked.append(asked)
        if (status := self.refuse(asked)) is not None:
            self.refused += 1
            return web.Response(status=status, text="refused by the proxy")
        cut = self.cut(asked)
        headers = {k: v for k, v in request.headers.items() if k.lower() not in {*_OF_CONNECTION, "content-length"}}
        headers["Content-Length"] = str(len(body))

        async def half() -> AsyncIterator[bytes]:
            yield body[:cut]
            # The server is to have read what was sent before the connection ends.
            await asyncio.sleep(0.05)
            raise ConnectionResetError("cut by the proxy")

        url = URL(self._upstream + request.raw_path, encoded=True)
        try:
            data: Any = body if cut is None or not body else half()
            async with session.request(request.method, url, headers=headers, data=data or None, allow_redirects=False) as answer:
                response = web.StreamResponse(status=answer.status, reason=answer.reason)
                response.headers.extend((k, v) for k, v in answer.headers.items() if k.lower() not in _OF_CONNECTION)
                await response.prepare(request)
                async for piece in answer.content.iter_chunked(1 << 20):
                    await response.write(piece[:cut])
                    if cut is not None:
                        raise ConnectionResetError("cut by the proxy")
                await response.write_eof()
                return response
        except (OSError, aiohttp.ClientError):
            # Cut on purpose, or the client has gone: gcsfs breaks off what it asks in vain.
            self.broken += cut is not None
            if request.transport:
                request.transport.abort()  # type: ignore[attr-defined]
            return web.Response(status=502)


def every(n: int, *statuses: int) -> Callable[[Asked], int | None]:
    """Refuse every n-th request, with the statuses in turn."""
    seen = 0

    def refuse(_: Asked) -> int | None:
        nonlocal seen
        seen += 1
        return None if seen % n else statuses[seen // n % len(statuses)]

    return refuse


def for_seconds(seconds: float, status: int) -> Callable[[Asked], int | None]:
    """Refuse all requests with a status, for a while that begins with the first of them."""
    end: float | None = None

    def refuse(_: Asked) -> int | None:
        nonlocal end
        end = end or time.monotonic() + seconds
        return status if time.monotonic() < end else None

    return refuse


def _put_back(where: MutableMapping[str, Any], name: str, value: Any) -> None:
    where.pop(name)
    if value is not None:
        where[name] = value


@dataclass(frozen=True, kw_only=True)
class Store:
    """An object store with one bucket. ``port``: of the server itself; ``proxy``: through which the program reaches it."""

    scheme: str
    port: int
    proxy: Proxy

    def url(self, name: str) -> str:
        return f"{self.scheme}://{BUCKET}/{name}"

    def options(self, port: int) -> dict[str, Any]:
        """What fsspec is to be told to find the server at a port."""
        if self.scheme == "gs":
            return {"endpoint_url": f"http://127.0.0.1:{port}", "token": "anon", "project": "test"}
        return {"endpoint_url": f"http://127.0.0.1:{port}", "key": "k", "secret": "s", "client_kwargs": {"region_name": "us-east-1"}}

    @contextlib.contextmanager
    def in_use(self, **more: Any) -> Iterator[None]:
        """While the block runs, this process and those that it starts find the store, through the proxy, at its usual addresses. ``more``:
        options of its file system."""
        options, name = {**self.options(self.proxy.port), **more}, f"FSSPEC_{self.scheme.upper()}"
        before = os.environ.get(name), fsspec.config.conf.get(self.scheme)
        os.environ[name], fsspec.config.conf[self.scheme] = json.dumps(options), options
        try:
            yield
        finally:
            _put_back(os.environ, name, before[0])
            _put_back(fsspec.config.conf, self.scheme, before[1])

    def hasty(self) -> contextlib.AbstractContextManager[None]:
        """As :meth:`in_use`, for tests in which nothing helps: botocore's own tries, which are multiplied with those of s3fs and ours, are
        left out. gcsfs has no such option."""
        return self.in_use(**({"config_kwargs": {"retries": {"max_attempts": 0}}} if self.scheme == "s3" else {}))

    def behind(self) -> fsspec.AbstractFileSystem:
        """The store as it is, past the proxy and without any cache."""
        return fsspec.filesystem(self.scheme, **self.options(self.port), use_listings_cache=False)

    def make_bucket(self) -> None:
        # s3fs names a region with it, which of us-east-1 S3 refuses.
        path, method, body = (
            (f"/{BUCKET}", "PUT", b"") if self.scheme == "s3" else ("/storage/v1/b", "POST", b'{"name": "%b"}' % BUCKET.encode())
        )
        headers = {"Content-Type": "application/json"} if body else {}
        urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body, headers, method=method)).close()

    def objects(self, below: str) -> dict[str, tuple[str, int]]:
        """What is visible below a name: what tells one version of an object from the next, and its size."""
        found = self.behind().find(f"{BUCKET}/{below}", detail=True)
        key = "generation" if self.scheme == "gs" else "LastModified"
        return {
            name.removeprefix(f"{BUCKET}/{below}/"): (f"{about[key]} {about.get('ETag')}", about["size"]) for name, about in found.items()
        }

    def contents(self, below: str) -> dict[str, bytes]:
        """All bytes below a name."""
        fs = self.behind()
        names = fs.find(f"{BUCKET}/{below}")
        found = fs.cat(names) if names else {}
        return {name.removeprefix(f"{BUCKET}/{below}/"): data for name, data in found.items()}


def _listening(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


@contextlib.contextmanager
def _store(scheme: str, command: list[str], port: int, proxy: Proxy, log: pathlib.Path) -> Iterator[Store]:
    with running(command, log) as server:
        wait_until(lambda: _listening(port) or server.process.poll() is not None, f"{command[0]}: {log}")
        assert server.process.poll() is None, log.read_text()[-2000:]
        proxy.start()
        try:
            store = Store(scheme=scheme, port=port, proxy=proxy)
            store.make_bucket()
            yield store
        finally:
            proxy.stop()


def s3_store(root: pathlib.Path) -> contextlib.AbstractContextManager[Store]:
    """moto's server while the block runs; what it says in ``root``."""
    (port,) = free_ports(1)
    return _store("s3", [*python_module("moto.server"), "-H", "127.0.0.1", "-p", str(port)], port, Proxy(port), root / "moto.log")


def gcs_store(root: pathlib.Path) -> contextlib.AbstractContextManager[Store]:
    """fake-gcs-server while the block runs; what it says in ``root``."""
    (port,) = free_ports(1)
    proxy = Proxy(port)
    # The addresses of uploads in several steps come from the server: they are to lead through the proxy too.
    where = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-external-url", proxy.url]
    return _store("gs", [FAKE_GCS, *where, "-backend", "memory", "-log-level", "warn"], port, proxy, root / "fake-gcs.log")
