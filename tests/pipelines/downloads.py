"""What the tests of download share: how it is called, and names and bodies of published files."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

from pipelines.download import DownloadConfig, bring
from pipelines.jobs import read_command
from pipelines.transfer import RetryPolicy
from tests.world.wikimedia import Wikimedia

DATE = "20260101"
MB = 1 << 20


def some_bytes(n: int, seed: str = "") -> bytes:
    return hashlib.shake_128(seed.encode()).digest(n)


def sha1(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()


class Clock:
    """Time that passes by sleeping only."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def policy(self, **settings: Any) -> RetryPolicy:
        return RetryPolicy(clock=lambda: self.now, sleep=self._sleep, **settings)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


def config_of(host: Wikimedia, output: str | Path, *argv: str) -> DownloadConfig:
    config, _ = read_command("download", ["--mirror", host.base_url, "--output", str(output), *argv])
    assert isinstance(config, DownloadConfig)
    return config


def download(host: Wikimedia, output: str | Path, *argv: str, clock: Clock | None = None, **settings: Any) -> None:
    asyncio.run(bring(config_of(host, output, *argv), (clock or Clock()).policy(**settings)))


def name_of(wiki: str = "ltgwiki", end: str = "-multistream.xml.bz2", date: str = DATE) -> str:
    return f"{wiki}-{date}-pages-articles{end}"


def path_of(wiki: str = "ltgwiki", end: str = "-multistream.xml.bz2", date: str = DATE) -> str:
    return f"{wiki}/{date}/{name_of(wiki, end, date)}"


def publish(host: Wikimedia, wiki: str = "ltgwiki", date: str = DATE, size: int = 5_000) -> tuple[bytes, bytes]:
    """A dump of two files: the body of the dump, and that of its index."""
    bodies = some_bytes(size, wiki + date), some_bytes(50, "index" + wiki)
    host.add_dump(wiki, date, dict(zip(("-multistream.xml.bz2", "-multistream-index.txt.bz2"), bodies, strict=True)))
    return bodies


def record(*files: tuple[str, str, str, bytes]) -> bytes:
    """download.json of (path, date, wiki, body)."""
    listed = [
        {
            "name": path.rpartition("/")[2],
            "url": f"https://dumps.wikimedia.org/{path}",
            "date": date,
            "wiki": wiki,
            "size": len(body),
            "sha1": sha1(body),
        }
        for path, date, wiki, body in files
    ]
    body = {"format_version": 1, "files": sorted(listed, key=lambda file: file["name"])}
    return json.dumps(body, indent=1, sort_keys=True).encode() + b"\n"
