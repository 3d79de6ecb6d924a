"""HTTP → a local file: resumed where it was cut off, tried again, and no more of a host than it allows.

For large files of a few hosts that the user named; ``fetch.py`` is for many small ones of hosts that nobody vouches for.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import aiohttp
from yarl import URL

from pipelines import storage
from pipelines.errors import JobError
from pipelines.fetch import retry_after

T = TypeVar("T")

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 5
#: Too much was asked of the host: nobody asks it anything before the pause is over.
_BUSY = frozenset({429, 503})
_PASSING = frozenset({408, 500, 502, 504, *_BUSY})
_NOT_THERE = frozenset({404, 410})
#: An attempt that brought less counts as one that brought nothing.
_PROGRESS_BYTES = 1 << 20
_PAGE_SECONDS = 300.0
_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,18})-[0-9]{1,18}|\*)/([0-9]{1,18}|\*)")


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often and when to try again.

    A URL is given up after ``retries`` + 1 failures in a row, and at once where the host asks for a pause of more than
    ``longest_wait_s`` seconds. The pause is ``backoff_s``, doubled with each failure up to ``longest_backoff_s``, or longer where the host
    asks for it (``Retry-After``). ``read_s``: seconds without a byte. ``clock`` and ``sleep`` are for tests.
    """

    retries: int = 5
    backoff_s: float = 2.0
    longest_backoff_s: float = 60.0
    longest_wait_s: float = 600.0
    connect_s: float = 30.0
    read_s: float = 60.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class TransferError(Exception):
    """A URL could not be had. ``missing``: there is no such file. ``retry``: another attempt may succeed, not before ``wait_s`` seconds;
    ``busy``: the host asked for it."""

    def __init__(self, message: str, *, missing: bool = False, retry: bool = False, busy: bool = False, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.missing = missing
        self.retry = retry
        self.busy = busy
        self.wait_s = wait_s


class Partial:
    """A file that is on its way, in two files: its first bytes, and the validator by which its host can tell that the rest still belongs to
    them. A killed process leaves both. ``sha1``: of the whole file, where it is known; bytes of another one are not gone on with."""

    def __init__(self, path: Path, *, sha1: str = "") -> None:
        self.path = path
        self._sha1 = sha1
        self._about = path.with_name(f"{path.name}.json")

    @property
    def size(self) -> int:
        """Bytes that are there and can be gone on from."""
        return self.path.stat().st_size if self.path.exists() and self.validator else 0

    @property
    def validator(self) -> str:
        """A strong ETag or a date of the last change; empty where the file must be begun anew."""
        try:
            about = json.loads(self._about.read_bytes())
            return str(about["validator"]) if about["sha1"] == self._sha1 else ""
        except (OSError, ValueError, TypeError, KeyError):
            return ""

    def begin(self, validator: str) -> None:
        """Make an empty file. What is killed in between leaves no bytes under a validator that is not theirs."""
        self.discard()
        with _disk(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            storage.write_json(str(self._about), {"sha1": self._sha1, "validator": validator})
            self.path.touch()

    @contextmanager
    def appending(self) -> Iterator[Callable[[bytes], None]]:
        """A function that writes behind what is there, at once: bytes in a buffer of this process would be lost with it."""
        with _disk(self.path):
            file = open(self.path, "ab", buffering=0)  # noqa: SIM115  closed below

        def write(data: bytes) -> None:
            rest = memoryview(data)
            with _disk(self.path):
                while rest:
                    rest = rest[file.write(rest) :]

        with file:
            yield write

    def discard(self) -> None:
        with _disk(self.path):
            self.path.unlink(missing_ok=True)
            self._about.unlink(missing_ok=True)

    def move_to(self, url: str) -> None:
        """Let the file appear at ``url``, whole. A transfer to an object store that fails leaves the partial file in its place.

        Raises:
            JobError: the place cannot be written to.
        """
        with _disk(self.path), open(self.path, "rb+") as file:
            os.fsync(file.fileno())
        if storage.is_local(url):
            with _disk(Path(storage.local_path(url))):
                os.replace(self.path, storage.local_path(url))
        else:
            with storage.writing(url) as temporary:
                temporary.unlink()
                temporary.symlink_to(self.path.absolute())
        self.discard()


@dataclass(slots=True)
class _Host:
    """What is known of a host: useful answers and pieces of files so far, when it may be asked again, why it is not asked any more."""

    answers: int = 0
    resume_at: float = 0.0
    down: str = ""


class Client:
    """Asks at most ``connections`` things of a host at a time; an async context manager."""

    def __init__(self, *, user_agent: str, connections: int, policy: RetryPolicy) -> None:
        self._headers = {"User-Agent": user_agent, "Accept-Encoding": "identity"}
        self._connections = connections
        self._policy = policy
        self._hosts: dict[str, _Host] = {}

    async def __aenter__(self) -> Client:
        policy = self._policy
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit_per_host=self._connections),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=True,
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=policy.connect_s, sock_read=policy.read_s),
            headers=self._headers,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def read(self, url: str, *, max_bytes: int) -> bytes:
        """The body of a small page.

        Raises:
            TransferError: it could not be had, or is longer than ``max_bytes``.
        """

        async def attempt() -> bytes:
            body = bytearray()
            async with self._ask("GET", url) as reply, asyncio.timeout(_PAGE_SECONDS):
                async for chunk in reply.content.iter_any():
                    body += chunk
                    if len(body) > max_bytes:
                        raise TransferError(f"{url} is longer than {max_bytes:,} bytes")
            return bytes(body)

        return await self._persist(url, attempt)

    async def size_of(self, url: str) -> int | None:
        """The size that a host announces of a file, None if it does not.

        Raises:
            TransferError: it could not be asked, or has no such file.
        """

        async def attempt() -> int | None:
            async with self._ask("HEAD", url) as reply:
                return None if reply.status in (405, 501) else reply.content_length

        return await self._persist(url, attempt)

    async def fetch(self, url: str, partial: Partial, *, size: int | None, max_bytes: int, reached: Callable[[int], None]) -> None:
        """Bring what is missing of a file. ``size``: of the whole file, if known; ``reached`` is told how many of its bytes are there.

        Raises:
            TransferError: it could not be had, is longer than ``max_bytes`` or of another size.
            JobError: it cannot be written to the disk.
        """
        came = 0

        def count(n_bytes: int, n_new: int) -> None:
            nonlocal came
            came += n_new
            # A host that sends a large file for hours is of use all that time, even if it refuses a second connection.
            self._host(url).answers += n_new > 0
            reached(n_bytes)

        async def attempt() -> None:
            # A process may have been killed between the last byte and what is done with the whole file.
            if not size or partial.size != size:
                await self._go_on(url, partial, size=size, max_bytes=max_bytes, count=count)

        await self._persist(url, attempt, received=lambda: came)

    async def _go_on(self, url: str, partial: Partial, *, size: int | None, max_bytes: int, count: Callable[[int, int], None]) -> None:
        """One attempt to bring the rest; ``count`` is told of the bytes that are there, and how many of them came just now."""
        have, validator = partial.size, partial.validator
        headers = {"Range": f"bytes={have}-", "If-Range": validator} if have else {}
        async with self._ask("GET", url, headers) as reply:
            start, total = _extent(reply)
            if reply.status == 416 and total == have:
                return
            if reply.status == 416 or (reply.status == 206 and not _continues(reply, have, validator)):
                partial.discard()
                count(0, 0)
                raise TransferError(f"{url}: what came does not fit what is there; it is begun anew", retry=True)
            if total is not None and (total > max_bytes or total != (size or total)):
                right = f"{max_bytes:,} at most are expected" if size is None else f"{size:,} are published"
                raise TransferError(f"{url} has {total:,} bytes, and {right}: it is another file")
            if not start:
                partial.begin(_validator(reply.headers))
                count(0, 0)
            at = start
            with partial.appending() as write:
                async for chunk in reply.content.iter_any():
                    at += len(chunk)
                    if at > max_bytes:
                        partial.discard()
                        count(0, 0)
                        raise TransferError(f"{url} goes on after {max_bytes:,} bytes, where it should end: it is another file")
                    write(chunk)
                    count(at, len(chunk))
        if at < (size or total or 0):
            raise TransferError(f"{url} ended early", retry=True)

    @asynccontextmanager
    async def _ask(self, method: str, url: str, headers: Mapping[str, str] | None = None) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request, and those that redirects lead to. Errors of the network become TransferErrors, also those inside the block."""
        target = URL(url)
        try:
            for _ in range(_MAX_REDIRECTS + 1):
                async with self._session.request(method, target, headers=headers, allow_redirects=False) as reply:
                    if reply.status in _REDIRECTS and "Location" in reply.headers:
                        target = _redirected(target, reply.headers["Location"])
                        continue
                    self._host(url).answers += reply.status not in _PASSING
                    _check_status(reply, url, method)
                    yield reply
                    return
            raise TransferError(f"{url} leads to more than {_MAX_REDIRECTS} redirects")
        except (aiohttp.ClientConnectorCertificateError, aiohttp.InvalidURL, ssl.CertificateError) as error:
            raise TransferError(f"{url}: {error}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TransferError(f"{url}: {str(error) or type(error).__name__}", retry=True) from error

    def _host(self, url: str) -> _Host:
        return self._hosts.setdefault(URL(url).authority, _Host())

    async def _persist(self, url: str, attempt: Callable[[], Awaitable[T]], *, received: Callable[[], int] = lambda: 0) -> T:
        """The result of an attempt that succeeds, after as many as the policy allows.

        A host that gave no answer at all in that time is not asked for anything else: hundreds of files would each wait for it in turn.
        """
        policy, host = self._policy, self._host(url)
        failures, answers = 0, host.answers
        while True:
            if host.down:
                raise TransferError(f"{url}: not asked, since its host is of no use now ({host.down})")
            if (pause := host.resume_at - policy.clock()) > 0:
                await policy.sleep(pause)
            before = received()
            try:
                return await attempt()
            except TransferError as error:
                if not error.retry:
                    raise
                if received() - before >= _PROGRESS_BYTES:
                    failures, answers = 0, host.answers
                failures += 1
                if failures > policy.retries or error.wait_s > policy.longest_wait_s:
                    if host.answers == answers:
                        host.down = str(error)
                    raise TransferError(f"{error}; given up after {failures} attempts in a row") from error
                pause = max(min(policy.backoff_s * 2 ** (failures - 1), policy.longest_backoff_s), error.wait_s)
                if error.busy:
                    host.resume_at = max(host.resume_at, policy.clock() + pause)
                else:
                    await policy.sleep(pause)


def _check_status(reply: aiohttp.ClientResponse, url: str, method: str) -> None:
    """Raise TransferError unless the answer is one that the methods of Client know how to use."""
    status = reply.status
    if status in (200, 206, 416) or (method == "HEAD" and status in (405, 501)):
        return
    if status in _NOT_THERE:
        raise TransferError(f"{url} is not there ({status})", missing=True)
    if status in _PASSING:
        wait_s = retry_after(reply.headers.get("Retry-After", ""))
        asked = f", come again in {wait_s:.0f} s" if wait_s else ""
        raise TransferError(f"{url} answered {status}{asked}", retry=True, busy=status in _BUSY, wait_s=wait_s)
    if status in (401, 403):
        raise TransferError(f"{url} was refused ({status}); hosts do that to clients that do not say whom to write to: give --contact")
    raise TransferError(f"{url} answered {status}")


def _redirected(url: URL, location: str) -> URL:
    """Where a redirect leads; raises TransferError unless that is HTTP again, and as safe as before."""
    try:
        target = url.join(URL(location))
    except ValueError as error:
        raise TransferError(f"{url} leads to a URL that is none: {location[:200]!r}") from error
    secure_enough = target.scheme == "https" or (target.scheme == "http" and url.scheme == "http")
    if not secure_enough or not target.host or target.user is not None:
        raise TransferError(f"{url} leads to {str(target)[:200]}, which is not followed")
    return target


def _validator(headers: Mapping[str, str]) -> str:
    """What If-Range may carry: a strong ETag, or else the date of the last change (RFC 9110, 13.1.5); empty if there is neither."""
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified", "")


def _extent(reply: aiohttp.ClientResponse) -> tuple[int, int | None]:
    """Where the body begins in the file, and the size of the whole file if the answer says it."""
    if reply.status == 200:
        return 0, reply.content_length
    match = _CONTENT_RANGE.fullmatch(reply.headers.get("Content-Range", ""))
    if not match:
        return 0, None
    return int(match[1] or 0), None if match[2] == "*" else int(match[2])


def _continues(reply: aiohttp.ClientResponse, have: int, validator: str) -> bool:
    """Whether a 206 goes on just behind the bytes that are there, and of the same file: there are hosts that overlook If-Range."""
    theirs = reply.headers.get("ETag" if validator.startswith('"') else "Last-Modified", validator)
    return bool(have) and _extent(reply)[0] == have and theirs == validator


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Errors of the local disk as a JobError, so that they are not taken for errors of the network."""
    try:
        yield
    except OSError as error:
        raise JobError(f"{path}: cannot be written to ({error.strerror or error})") from error
