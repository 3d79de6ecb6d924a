"""URLs → bytes of images, many at a time in one process, from servers that may be dead, slow or hostile.

A worker that fetches whatever addresses a crawl holds can be turned against its own network. So the address is checked where it
cannot change any more: :func:`is_public` sees every resolved address, and once more the very address that the socket is made for
(which also covers addresses written into the URL and every hop of a redirect). Redirects are followed by hand; there are no cookies,
no credentials, no proxies from the environment and no decompression.

Ports other than 80 and 443 are asked from 1024 up only, so that no URL reaches the mail or remote-login port of another host.
"""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import CIMultiDictProxy
from yarl import URL

from pipelines.addresses import ipv4_of_any_form, is_public

T = TypeVar("T")

_MIB = 1 << 20
#: Longer URLs are refused; servers refuse them too.
_URL_CHARACTERS = 8192
_DETAIL_CHARACTERS = 200
_MAY_BE_ZERO = frozenset({"max_redirects", "retries", "backoff_s", "max_pause_s"})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: Statuses by which a server, or one before it, says that it cannot answer now.
_BUSY = frozenset({408, 425, 429, 502, 503, 504})
#: Failures that say something about the host, not about one of its pages.
_HOST_FAILURES = frozenset({"busy", "timeout", "dns", "name_server", "refused", "tls", "connection"})
#: What the resolver says where name servers were asked and know of no address; anything else may be another tomorrow.
_NO_SUCH_HOST = frozenset({socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_ADDRFAMILY})
_OPT_OUT = frozenset({"noai", "noimageai"})
#: Types, and whole families of them, that a server does not write before an image by mistake.
_NOT_IMAGES = frozenset(
    {
        *("video", "audio", "font", "multipart", "message", "model"),
        *("text/html", "text/css", "text/javascript", "text/xml", "text/csv"),
        *("application/xhtml+xml", "application/xml", "application/json", "application/ld+json", "application/rss+xml"),
        *("application/javascript", "application/x-javascript", "application/pdf", "application/zip", "application/x-shockwave-flash"),
    }
)


@dataclass(frozen=True, kw_only=True)
class FetchConfig:
    """How :func:`fetch_all` behaves.

    ``per_host`` counts requests to one host name at a time. ``timeout_s`` bounds one attempt with all its redirects and the whole body.
    A host that fails ``host_failures`` times in a row without an answer (or is ``busy``), or asks for a longer pause than
    ``max_pause_s``, is not asked again in this call. ``backoff_s`` is the first pause and doubles with each failure in a row.
    ``contact`` is a URL or address that a site's owner can write to; it is sent with the user agent.
    ``allow_private`` and ``allow_files`` (``file://`` URLs, never by redirect) are for mirrors and tests inside a trusted network.
    """

    concurrency: int = 64
    per_host: int = 2
    timeout_s: float = 20.0
    connect_timeout_s: float = 10.0
    max_bytes: int = 20 * _MIB
    max_redirects: int = 5
    retries: int = 2
    backoff_s: float = 1.0
    max_pause_s: float = 30.0
    host_failures: int = 6
    look_ahead: int = 1024
    buffer_bytes: int = 256 * _MIB
    user_agent: str = "worldclip"
    contact: str = ""
    respect_opt_out: bool = True
    allow_private: bool = False
    allow_files: bool = False

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, bool | str):
                continue
            if not (value > 0 or (value == 0 and name in _MAY_BE_ZERO)):
                raise ValueError(f"{name} must {'not be negative' if name in _MAY_BE_ZERO else 'be positive'}, not {value}")
        if not (self.user_agent + self.contact).isprintable():
            raise ValueError("user_agent and contact must be printable, on one line")


@dataclass(frozen=True, slots=True)
class Fetched:
    """What became of ``urls[index]``: ``body`` when ``reason`` is empty, otherwise None.

    Reasons: ``no_url``, ``invalid_url`` (with credentials too), ``scheme``, ``port``, ``private_address``, ``dns`` (no such host),
    ``name_server`` (nobody says whether there is one), ``refused``, ``tls``, ``timeout``, ``connection`` (reset, or ended too early),
    ``protocol`` (not HTTP), ``host_down`` (see :class:`FetchConfig`), ``busy`` (408, 425, 429, 502, 503, 504), ``http_1xx`` …
    ``http_5xx``, ``http_other``, ``too_many_redirects``, ``opt_out``, ``not_an_image_type``, ``content_encoding``, ``too_large``, ``file``,
    ``failed`` (anything unforeseen). ``detail`` is for people, and not the same from run to run; it may hold raw bytes of a header as
    lone surrogates.
    """

    index: int
    body: bytes | None
    reason: str
    detail: str


def fetch_all(urls: Sequence[str], config: FetchConfig) -> Generator[Fetched, None, None]:
    """Fetch every URL; exactly one :class:`Fetched` each, in the order of ``urls``.

    An event loop in a thread of its own fetches up to ``look_ahead`` URLs ahead of the caller, so a caller that is busy for long
    makes nobody time out, and one slow URL does not stop the others. While ``buffer_bytes`` of bodies wait for the caller, only the
    oldest URL is still asked: memory is at most about ``buffer_bytes + (concurrency + 1) · max_bytes`` of bodies, and some hundred bytes
    a host. Leaving the iterator early cancels what is under way.
    """
    with _loop_in_thread() as loop:
        fetcher = _run(loop, _open_fetcher(config))
        try:
            waiting: deque[Future[Fetched]] = deque()
            for index, url in enumerate(urls):
                if len(waiting) == config.look_ahead:
                    yield fetcher.deliver(waiting.popleft())
                waiting.append(asyncio.run_coroutine_threadsafe(fetcher.fetch(index, url), loop))
            while waiting:
                yield fetcher.deliver(waiting.popleft())
        finally:
            _run(loop, fetcher.close())


def is_opted_out(headers: CIMultiDictProxy[str]) -> bool:
    """Whether an ``X-Robots-Tag`` header says ``noai`` or ``noimageai``, to whichever user agent it is addressed."""
    return any(not _OPT_OUT.isdisjoint(re.split(r"[\s,;:]+", value.lower())) for value in headers.getall("X-Robots-Tag", ()))


def lookup(host: str, port: int, family: int) -> list[tuple[int, str]]:
    """The system's addresses of a host as (family, numeric address), in its order of preference; raises OSError."""
    found = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [(int(entry[0]), str(entry[4][0])) for entry in found]


class _PrivateAddressError(OSError):
    """The address is not on the public internet."""


class _Failure(Exception):
    """Why a URL gave no body; ``retry``: another attempt may succeed, not before ``wait_s`` seconds."""

    def __init__(self, reason: str, detail: str = "", *, retry: bool = False, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail[:_DETAIL_CHARACTERS]
        self.retry = retry
        self.wait_s = wait_s


@dataclass(slots=True)
class _Host:
    """What is known of one host name: requests under way, pauses running, failures in a row."""

    active: int = 0
    pauses: int = 0
    failures: int = 0
    down: bool = False


class _Admission:
    """Decides which waiting request starts next: the oldest URL whose host has a free place, while slots and the buffer have room.

    One place decides on all limits together, because a request that held its host's place while it waited for the buffer would
    block the very URL that the caller waits for. Lives in the event loop; no locks.
    """

    def __init__(self, config: FetchConfig) -> None:
        self._config = config
        self._hosts: dict[str, _Host] = {}
        self._waiting: dict[int, tuple[_Host, asyncio.Future[None]]] = {}
        self._active = 0
        self._held = 0
        self._oldest = 0

    def host(self, name: str) -> _Host:
        return self._hosts.setdefault(name, _Host())

    async def enter(self, index: int, host: _Host) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting[index] = host, turn
        self._start_waiting()
        await turn

    def leave(self, host: _Host) -> None:
        self._active -= 1
        host.active -= 1
        self._start_waiting()

    def hold(self, n_bytes: int) -> None:
        self._held += n_bytes

    def delivered(self, n_bytes: int) -> None:
        self._held -= n_bytes
        self._oldest += 1
        self._start_waiting()

    def pause(self, host: _Host, seconds: float) -> None:
        host.pauses += 1
        asyncio.get_running_loop().call_later(seconds, self._resume, host)

    def _resume(self, host: _Host) -> None:
        host.pauses -= 1
        self._start_waiting()

    def _start_waiting(self) -> None:
        if self._active >= self._config.concurrency:
            return
        full = self._held >= self._config.buffer_bytes
        for index in [self._oldest] if full else sorted(self._waiting):
            host, turn = self._waiting.get(index, (None, None))
            if host is None or turn is None or host.active >= self._config.per_host or (host.pauses and not host.down):
                continue
            del self._waiting[index]
            if turn.cancelled():
                continue
            self._active += 1
            host.active += 1
            turn.set_result(None)
            if self._active >= self._config.concurrency:
                return


class _Resolver(AbstractResolver):
    """The system's resolver, without the addresses that are not public. Has its own threads: a dead name server holds one for long."""

    def __init__(self, config: FetchConfig) -> None:
        self._allow_private = config.allow_private
        self._threads = ThreadPoolExecutor(config.concurrency, thread_name_prefix="lookup")

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        found = await asyncio.get_running_loop().run_in_executor(self._threads, lookup, host, port, family)
        usable = [(kind, address) for kind, address in found if self._allow_private or is_public(address)]
        if not usable:
            raise _PrivateAddressError(f"{host} is {', '.join(address for _, address in found)}")
        return [
            ResolveResult(hostname=host, host=address, port=port, family=kind, proto=socket.IPPROTO_TCP, flags=socket.AI_NUMERICHOST)
            for kind, address in usable
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _socket_factory(config: FetchConfig) -> Callable[[Any], socket.socket]:
    """Makes the socket of a connection, after a last look at the address that it will be connected to."""

    def create(info: Any) -> socket.socket:
        family, kind, protocol, _, address = info
        if not config.allow_private and not is_public(address[0]):
            raise _PrivateAddressError(address[0])
        return socket.socket(family, kind, protocol)

    return create


async def _ask_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keeps aiohttp from asking once more by itself, at once and uncounted, when a connection is reset."""
    try:
        return await handler(request)
    except aiohttp.ClientError as error:
        raise _classified(error) from error


async def _open_fetcher(config: FetchConfig) -> _Fetcher:
    connector = aiohttp.TCPConnector(
        resolver=_Resolver(config),
        socket_factory=_socket_factory(config),
        limit=0,
        # A kept connection could carry what a server that lies about its Content-Length sent too much, as the next answer.
        force_close=True,
    )
    agent = f"{config.user_agent} (+{config.contact})" if config.contact else config.user_agent
    session = aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        middlewares=(_ask_once,),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=config.connect_timeout_s),
        headers={
            "User-Agent": agent,
            "Accept": "image/jpeg, image/png, image/webp, image/gif, image/bmp, */*;q=0.1",
            "Accept-Encoding": "identity",
        },
    )
    return _Fetcher(config, session)


class _Fetcher:
    def __init__(self, config: FetchConfig, session: aiohttp.ClientSession) -> None:
        self._config = config
        self._session = session
        self._admission = _Admission(config)
        self._loop = asyncio.get_running_loop()

    def deliver(self, future: Future[Fetched]) -> Fetched:
        """Called by the consumer's thread: wait for the oldest result and make room for others."""
        fetched = future.result()
        self._loop.call_soon_threadsafe(self._admission.delivered, len(fetched.body or b""))
        return fetched

    async def close(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._session.close()

    async def fetch(self, index: int, url: str) -> Fetched:
        try:
            body = await self._with_retries(index, url)
        except _Failure as failure:
            return Fetched(index, None, failure.reason, failure.detail)
        except Exception as error:
            # Whatever a hostile answer sets off inside a library, it must not end the fetching of the other URLs.
            return Fetched(index, None, "failed", f"{type(error).__name__}: {error}"[:_DETAIL_CHARACTERS])
        self._admission.hold(len(body))
        return Fetched(index, body, "", "")

    async def _with_retries(self, index: int, url: str) -> bytes:
        target = _checked_url(url, allow_files=self._config.allow_files)
        if target.scheme == "file":
            return (await self._request(index, target, self._config.timeout_s, self._read_file))[0]
        retries = self._config.retries
        while True:
            try:
                return await self._attempt(index, target)
            except _Failure as failure:
                if not failure.retry or retries == 0:
                    raise
                retries -= 1
                if failure.reason not in _HOST_FAILURES:
                    await asyncio.sleep(self._config.backoff_s)

    async def _attempt(self, index: int, url: URL) -> bytes:
        """One request and the redirects that it leads to, in ``timeout_s`` seconds, not counting the wait for a turn."""
        left = self._config.timeout_s
        for _ in range(self._config.max_redirects + 1):
            answer, seconds = await self._request(index, url, max(left, 0.0), self._ask)
            if isinstance(answer, bytes):
                return answer
            url, left = answer, left - seconds
        raise _Failure("too_many_redirects", str(url))

    async def _request(self, index: int, url: URL, timeout_s: float, ask: Callable[[URL], Coroutine[Any, Any, T]]) -> tuple[T, float]:
        """Wait for a turn, ask, and keep the books of the host; the answer and the seconds it took."""
        host = self._admission.host(url.raw_host or "")
        await self._admission.enter(index, host)
        try:
            if host.down:
                raise _Failure("host_down", f"{url.raw_host} failed too often or asked to be left alone")
            started = self._loop.time()
            async with asyncio.timeout(timeout_s):
                answer = await ask(url)
        except Exception as error:
            failure = error if isinstance(error, _Failure) else _classified(error)
            self._note_failure(host, failure)
            raise failure from error
        else:
            host.failures = 0
            return answer, self._loop.time() - started
        finally:
            self._admission.leave(host)

    def _note_failure(self, host: _Host, failure: _Failure) -> None:
        host.failures = host.failures + 1 if failure.reason in _HOST_FAILURES else 0
        host.down = host.down or host.failures >= self._config.host_failures or failure.wait_s > self._config.max_pause_s
        failure.retry = failure.retry and not host.down
        if failure.retry and host.failures:
            backoff = min(self._config.backoff_s * 2 ** (host.failures - 1), self._config.max_pause_s)
            self._admission.pause(host, max(backoff, failure.wait_s))

    async def _ask(self, url: URL) -> bytes | URL:
        """One request: the body, or where a redirect leads."""
        async with self._session.get(url, allow_redirects=False) as reply:
            if self._config.respect_opt_out and is_opted_out(reply.headers):
                raise _Failure("opt_out", reply.headers["X-Robots-Tag"])
            if reply.status in _REDIRECTS and "Location" in reply.headers:
                return _checked_url(_RAW_BYTE.sub(_percent_encoded, reply.headers["Location"]), base=url)
            _check_answer(reply, self._config.max_bytes)
            # One growing buffer: a list of a hostile server's one-byte chunks would take fifty times their size.
            body = bytearray()
            async for chunk in reply.content.iter_any():
                body += chunk
                if len(body) > self._config.max_bytes:
                    raise _Failure("too_large", f"more than {self._config.max_bytes} bytes")
            return bytes(body)

    async def _read_file(self, url: URL) -> bytes:
        # A disk may take as long as a server.
        body = await asyncio.to_thread(_file_start, Path(url.path), self._config.max_bytes + 1)
        if len(body) > self._config.max_bytes:
            raise _Failure("too_large", f"more than {self._config.max_bytes} bytes")
        return body


def _file_start(path: Path, n_bytes: int) -> bytes:
    """The first bytes of a file; raises _Failure where there is none that can be read."""
    if not path.is_file():
        raise _Failure("file", f"{path} is not a file")
    try:
        with path.open("rb") as file:
            return file.read(n_bytes)
    except OSError as error:
        raise _Failure("file", f"{type(error).__name__}: {error}") from error


#: A byte of a header that is no UTF-8, as aiohttp decodes it.
_RAW_BYTE = re.compile("[\udc80-\udcff]")


def _percent_encoded(raw_byte: re.Match[str]) -> str:
    return f"%{ord(raw_byte[0]) - 0xDC00:02X}"


def _checked_url(url: str, *, base: URL | None = None, allow_files: bool = False) -> URL:
    """The URL as it will be asked; raises _Failure. Every way to write an IPv4 address (``http://2130706433/``) becomes the usual one."""
    if not url.strip() and base is None:
        raise _Failure("no_url")
    if len(url) > _URL_CHARACTERS:
        raise _Failure("invalid_url", f"{len(url)} characters")
    try:
        parsed = URL(url.strip()) if base is None else base.join(URL(url.strip()))
        host, port, scheme = parsed.raw_host, parsed.port, parsed.scheme
        if scheme == "file" and allow_files:
            return parsed
        if scheme not in ("http", "https"):
            raise _Failure("scheme", scheme)
        if not host or parsed.raw_user is not None or parsed.raw_password is not None:
            raise _Failure("invalid_url", "credentials" if host else "no host")
        if port not in (80, 443) and (port is None or port < 1024):
            raise _Failure("port", str(port))
        numeric = ipv4_of_any_form(host)
        return parsed.with_host(numeric) if numeric else parsed
    except (ValueError, TypeError) as error:
        raise _Failure("invalid_url", str(error)) from error


def _check_answer(reply: aiohttp.ClientResponse, max_bytes: int) -> None:
    """Raise _Failure unless status and headers announce the plain bytes of what may be an image."""
    status, headers = reply.status, reply.headers
    if status in _BUSY:
        wait_s = retry_after(headers.get("Retry-After", ""))
        raise _Failure("busy", f"{status}, retry after {wait_s:.0f} s", retry=True, wait_s=wait_s)
    if status != 200:
        raise _Failure(f"http_{status // 100}xx" if 100 <= status < 600 else "http_other", str(status), retry=status == 500)
    encodings = headers.getall("Content-Encoding", ())
    if any(encoding.strip().lower() not in ("", "identity") for encoding in encodings):
        raise _Failure("content_encoding", ", ".join(encodings))
    # Only what is certainly something else is refused here: servers write "jpg", "application/force-download" and "text/plain" too, and
    # the decoder has the last word.
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in _NOT_IMAGES or kind.partition("/")[0] in _NOT_IMAGES:
        raise _Failure("not_an_image_type", kind)
    if (reply.content_length or 0) > max_bytes:
        raise _Failure("too_large", f"Content-Length {reply.content_length}")


def retry_after(value: str) -> float:
    """Seconds that a ``Retry-After`` header asks for (a number or a date, RFC 9110 10.2.3); 0 when it says nothing readable."""
    if re.fullmatch(r"[0-9]{1,9}", value.strip()):
        return float(value)
    try:
        when = parsedate_to_datetime(value)
        return max((when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, OverflowError):
        return 0.0


def _classified(error: Exception) -> _Failure:
    """The reason that an exception of the network stands for. Order matters: aiohttp's classes inherit from several of these."""
    cause = getattr(error, "os_error", error)
    detail = f"{type(error).__name__}: {error}"
    if isinstance(cause, _PrivateAddressError):
        return _Failure("private_address", str(cause))
    if isinstance(cause, TimeoutError):
        return _Failure("timeout", detail, retry=True)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        known = getattr(cause, "errno", None) in _NO_SUCH_HOST
        return _Failure("dns" if known else "name_server", detail, retry=not known)
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return _Failure("tls", detail)
    if isinstance(error, aiohttp.InvalidURL | UnicodeError):
        return _Failure("invalid_url", detail)
    if getattr(cause, "errno", None) == errno.ECONNREFUSED:
        return _Failure("refused", detail)
    if isinstance(error, aiohttp.ClientResponseError):
        return _Failure("protocol", detail)
    if isinstance(error, aiohttp.ClientError | OSError):
        return _Failure("connection", detail, retry=True)
    return _Failure("failed", detail)


@contextmanager
def _loop_in_thread() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="fetch", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _run(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run_coroutine_threadsafe(work, loop).result()
