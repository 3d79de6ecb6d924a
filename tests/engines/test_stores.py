"""The frame against object stores that speak their real protocols: what is written, how it goes on after deaths and refusals, and that
nothing is ever seen half."""

from __future__ import annotations

import hashlib
import pathlib
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from pipelines import patience, storage
from pipelines.errors import JobError
from pipelines.jobs import run_job
from pipelines.processes import module_environment
from pipelines.progress import size_text
from tests.engines.commands import job_running
from tests.engines.processes import wait_until
from tests.engines.stores import BUCKET, FAKE_GCS, Asked, Store, every, for_seconds, gcs_store, s3_store
from tests.pipelines.conftest import contents, english_entries
from tests.world.chain import PLACES, Chain, arguments

#: Whether this is ``make test-stores``: both stores, and everything in full size.
FULL = bool(FAKE_GCS)
#: Parts of the stage that is killed, and of those that are refused now and then; seconds for which a store answers nothing but 503.
PARTS, FEW = (2_000, 200) if FULL else (24, 12)
OUTAGE_S = 60.0 if FULL else 2.0
#: One request of so many is refused.
EVERY = 41 if FULL else 9


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    pytest.importorskip("moto", reason="needs moto[server] and s3fs: pip install -e '.[dev]'")
    pytest.importorskip("s3fs", reason="needs moto[server] and s3fs: pip install -e '.[dev]'")
    with s3_store(tmp_path_factory.mktemp("s3")) as store, store.in_use():
        yield store


@pytest.fixture(scope="module")
def gs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    if not FULL:
        pytest.skip("needs Go and some minutes: make test-stores")
    assert pathlib.Path(FAKE_GCS).exists(), f"{FAKE_GCS} is missing: make test-stores installs it"
    with gcs_store(tmp_path_factory.mktemp("gcs")) as store, store.in_use():
        yield store


@pytest.fixture(params=["s3", "gs"])
def store(request: pytest.FixtureRequest, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store that does no harm yet, and a machine without a cache."""
    found: Store = request.getfixturevalue(request.param)
    monkeypatch.setenv("WORLDCLIP_CACHE", str(tmp_path / "cache"))
    # Where processes that are killed leave what they were about to upload.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    found.proxy.reset()
    yield found
    found.proxy.calm()


# -- a stage of many small parts -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """A job ``match`` over many small inputs. ``local``: all files of its result on a disk."""

    arguments: list[str]
    local: dict[str, bytes]

    def writing_to(self, url: str) -> list[str]:
        return [*self.arguments, "--output", url]

    @property
    def parts(self) -> set[str]:
        return {name for name in self.local if name.startswith("part-")}


def _write_page(path: pathlib.Path, number: int) -> None:
    """A crawl file of one page with two images."""
    words = ("red", "bus", "cat", "tower")
    html = "".join(f'<img src="/{number}-{i}.jpg" alt="A photo of the {words[(number + i) % 4]} number {number}">' for i in range(2))
    block = f"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{html}"
    about = "WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: https://x.example/\r\nContent-Type: application/http; msgtype=response"
    path.write_text(f"{about}\r\nContent-Length: {len(block)}\r\n\r\n{block}\r\n\r\n", newline="")


def _make_crowd(root: pathlib.Path, parts: int) -> Crowd:
    (root / "crawl").mkdir()
    for i in range(parts):
        _write_page(root / "crawl" / f"{i:04}.warc", i)
    argv = ["--input", f"{root}/crawl/*.warc", "--entries", english_entries(root, ["red", "bus", "cat", "tower", "photo"])]
    run_job("match", [*argv, "--output", f"{root}/W"])
    return Crowd(arguments=argv, local=contents(root / "W"))


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Crowd:
    return _make_crowd(tmp_path_factory.mktemp("crowd"), PARTS)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Crowd:
    return _make_crowd(tmp_path_factory.mktemp("few"), FEW)


def parts_written(store: Store, directory: str) -> Counter[str]:
    """How often each part was uploaded."""
    names = [a.name.removeprefix(f"{directory}/") for a in store.proxy.asked if a.operation == "write"]
    return Counter(name for name in names if name.startswith("part-"))


def run_and_read(capsys: pytest.CaptureFixture[str], job: str, *argv: str) -> str:
    """What a job prints."""
    capsys.readouterr()
    run_job(job, argv)
    return capsys.readouterr().out


@pytest.mark.slow
def test_a_killed_stage_goes_on_where_it_was(
    store: Store, crowd: Crowd, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(crowd.parts) == PARTS
    url, log = store.url("killed"), tmp_path / "log"
    with job_running("match", crowd.writing_to(url), log) as job:
        wait_until(lambda: len(parts_written(store, "killed")) >= PARTS // 3, f"a third of the parts: {log}", 300)
        job.kill()
    wait_until(lambda: not store.proxy.under_way, "the last upload")
    before = store.objects("killed")
    done = crowd.parts & before.keys()
    assert PARTS // 3 - 1 <= len(done) < PARTS
    assert before.keys() == done | {"stage.json", "units.parquet"}
    assert run_and_read(capsys, "status", url).startswith(
        f"{url}: match, not finished\n  units: {len(done):,} of {PARTS:,} done ({len(done) / PARTS:.0%}), {PARTS - len(done):,} left\n"
        f"  read {2 * len(done):,}, emitted {2 * len(done):,}\n  last part "
    )

    store.proxy.reset()
    said = run_and_read(capsys, "match", *crowd.writing_to(url))
    assert said.startswith(f"match: read {2 * PARTS:,}, emitted {2 * PARTS:,} → {url} ({2 * PARTS:,} rows, ")
    assert parts_written(store, "killed") == dict.fromkeys(crowd.parts - done, 1)
    after = store.objects("killed")
    assert {name: after[name] for name in done} == {name: before[name] for name in done}
    assert store.contents("killed") == crowd.local
    assert storage.listing(url) == sorted(crowd.local)
    size = size_text(sum(len(crowd.local[name]) for name in crowd.parts))
    assert run_and_read(capsys, "verify", url) == f"{url}: match, {PARTS:,} parts, {size}: as written\n"
    books = f"  read {2 * PARTS:,}, emitted {2 * PARTS:,}\n"
    assert run_and_read(capsys, "status", url) == f"{url}: match, finished\n  units: {PARTS:,}\n{books}"

    store.proxy.reset()
    assert run_and_read(capsys, "match", *crowd.writing_to(url)) == f"match: already finished → {url}\n"
    assert store.proxy.operations().keys() == {"info", "list", "read"}


# -- refusals ------------------------------------------------------------------------------------------------------------------------


def test_a_store_that_refuses_now_and_then_gets_the_same_bytes(store: Store, few: Crowd) -> None:
    store.proxy.refuse = every(EVERY, 429, 503)
    run_job("match", few.writing_to(store.url("busy")))
    assert store.proxy.refused == len(store.proxy.asked) // EVERY > 5
    assert store.contents("busy") == few.local


def test_a_store_that_is_away_for_a_while_is_waited_for(store: Store, few: Crowd) -> None:
    away = for_seconds(OUTAGE_S, 503)
    store.proxy.refuse = lambda asked: away(asked) if len(parts_written(store, "away")) > FEW // 3 else None
    begun = time.monotonic()
    run_job("match", few.writing_to(store.url("away")))
    assert store.proxy.refused > 0
    assert time.monotonic() - begun > OUTAGE_S
    assert store.contents("away") == few.local


@pytest.mark.slow
def test_a_store_that_stays_away_is_told_with_the_remedy(store: Store, few: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    url = store.url("gone")
    monkeypatch.setattr(patience, "PATIENCE", patience.Patience(tries=2, sleep=lambda _: None))
    store.proxy.refuse = lambda _: 503 if len(parts_written(store, "gone")) > FEW // 3 else None
    with store.hasty(), pytest.raises(JobError) as error:
        run_job("match", few.writing_to(url))
    assert str(error.value).startswith(f"{url}/")
    assert str(error.value).endswith("mend the address, the network or the credentials, and run the same command again")
    store.proxy.reset()
    done = few.parts & store.objects("gone").keys()
    assert "_SUCCESS" not in store.objects("gone")
    assert done
    run_job("match", few.writing_to(url))
    assert parts_written(store, "gone") == dict.fromkeys(few.parts - done, 1)
    assert store.contents("gone") == few.local


def test_who_may_not_is_told_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PATIENCE", patience.Patience(sleep=lambda _: pytest.fail("slept")))
    url = store.url("forbidden/x")
    store.proxy.refuse = lambda _: 403
    for call in (storage.read_bytes, storage.exists, storage.listing, storage.remove, lambda url: storage.write_bytes(url, b"1")):
        with pytest.raises(JobError, match=f"^{url}: .*mend the address, the network or the credentials"):
            call(url)


# -- nothing is seen half ------------------------------------------------------------------------------------------------------------


def big(store: Store) -> bytes:
    """What is uploaded in several steps: gcsfs does so above 5 MB in pieces of 50 MiB, s3fs above 100 MiB."""
    return bytes(range(256)) * 4096 * (101 if store.scheme == "s3" else 51)


def uploads_left(store: Store) -> list[str]:
    """The names under which uploads were begun and not ended; of S3 alone, the other server does not tell."""
    found = store.behind().call_s3("list_multipart_uploads", Bucket=BUCKET)
    return [upload["Key"] for upload in found.get("Uploads", [])]


@pytest.mark.slow
def test_an_upload_that_is_cut_leaves_nothing_or_what_was_there(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    url, data = store.url("cut/x"), bytes(range(256)) * 1_000
    for tries, before in ((2, {}), (1, {"x": b"old"})):
        monkeypatch.setattr(patience, "PATIENCE", patience.Patience(tries=tries, sleep=pauses.append))
        store.proxy.reset()
        store.proxy.cut = lambda asked: asked.bytes // 2 if asked.operation == "write" else None
        with store.hasty(), pytest.raises(JobError, match=f"^{url}: .*mend the address, the network or the credentials"):
            storage.write_bytes(url, data)
        assert store.proxy.broken == len(store.proxy.asked) >= tries
        assert (store.contents("cut"), storage.listing(store.url("cut")), storage.exists(url)) == (before, [*before], bool(before))
        store.proxy.calm()
        storage.write_bytes(url, b"old")
    assert len(pauses) == 1
    storage.write_bytes(url, data)
    assert storage.read_bytes(url) == data


def test_a_download_that_is_cut_goes_on(store: Store) -> None:
    url, data = store.url("read/x"), bytes(range(256)) * 1_000
    storage.write_bytes(url, data)
    store.proxy.cut = lambda asked: 100_000 if asked.operation == "read" and store.proxy.broken < 2 else None
    assert storage.read_bytes(url) == data
    assert store.proxy.broken == 2
    assert store.proxy.operations()["read"] == 3


@pytest.mark.slow
def test_a_large_upload_that_is_cut_once_is_made_whole(store: Store) -> None:
    url, data = store.url("large/x"), big(store)

    def second_piece(asked: Asked) -> int | None:
        is_one = asked.name == "large/x" and asked.bytes < len(data) // 2 and asked.bytes > 1 << 19
        return asked.bytes // 2 if is_one and not store.proxy.broken else None

    store.proxy.cut = second_piece
    storage.write_bytes(url, data)
    assert store.proxy.broken == 1
    assert hashlib.sha256(storage.read_bytes(url)).digest() == hashlib.sha256(data).digest()


@pytest.mark.slow
def test_who_dies_in_a_large_upload_leaves_nothing_to_be_seen(store: Store, tmp_path: pathlib.Path) -> None:
    url = store.url("died/x")
    (tmp_path / "data").write_bytes(big(store))
    writer = "import sys, shutil; from pipelines import storage\nwith storage.writing(sys.argv[1]) as path: shutil.copy(sys.argv[2], path)"
    command = [sys.executable, "-c", writer, url, str(tmp_path / "data")]
    process: list[subprocess.Popen[bytes]] = []

    def die(asked: Asked) -> int | None:
        if asked.name != "died/x" or asked.bytes < 1 << 19:
            return None
        process[0].send_signal(signal.SIGKILL)
        return asked.bytes // 2

    store.proxy.cut = die
    process.append(subprocess.Popen(command, env=module_environment()))
    assert process[0].wait(120) == -signal.SIGKILL
    store.proxy.reset()
    assert (store.objects("died"), storage.listing(store.url("died")), storage.walk(store.url("died"))) == ({}, [], [])
    assert not storage.exists(url)
    if store.scheme == "s3":
        assert uploads_left(store) == ["died/x"]


# -- listings and requests -----------------------------------------------------------------------------------------------------------


def test_what_others_write_is_seen_though_it_was_listed_before(store: Store) -> None:
    directory, name = store.url("shared"), f"{BUCKET}/shared/b"
    storage.write_bytes(store.url("shared/a"), b"1")
    for look in (storage.listing, storage.modified, storage.walk, lambda url: storage.expand((url,))):
        assert len(look(directory)) == 1
        store.behind().pipe(name, b"22")
        assert len(look(directory)) == 2
        assert storage.read_bytes(store.url("shared/b")) == b"22"
        store.behind().pipe(name, b"333")
        assert storage.read_bytes(store.url("shared/b")) == b"333"
        store.behind().rm(name)
        assert storage.open_if_there(store.url("shared/b")) is None


def test_how_many_requests_a_call_takes(s3: Store) -> None:
    s3.proxy.reset()
    url, absent = s3.url("counted/x"), s3.url("counted/absent")

    def asked(call: object) -> dict[str, int]:
        s3.proxy.reset()
        assert callable(call)
        call()
        return dict(s3.proxy.operations())

    assert asked(lambda: storage.write_bytes(url, b"1" * 1_000)) == {"write": 1}
    assert asked(lambda: storage.exists(url)) == {"info": 1}
    assert asked(lambda: storage.exists(absent)) == {"info": 1, "list": 1}
    assert asked(lambda: storage.read_bytes(url)) == {"info": 1, "read": 1}
    assert asked(lambda: storage.open_if_there(absent)) == {"info": 1, "list": 1}
    assert asked(lambda: storage.listing(s3.url("counted"))) == {"list": 1}
    assert asked(lambda: storage.walk(s3.url("counted"))) == {"list": 1}
    assert asked(lambda: storage.remove(url)) == {"delete": 1}


@pytest.mark.parametrize("size", [100, 2_000_000])
def test_a_file_is_not_read_in_crumbs(store: Store, size: int) -> None:
    url, data = store.url(f"crumbs/{size}"), bytes(range(100)) * (size // 100)
    storage.write_bytes(url, data)
    store.proxy.reset()
    assert storage.read_bytes(url) == data
    assert store.proxy.operations()["read"] == 1
    store.proxy.reset()
    with storage.open_read(url) as file:
        assert b"".join(iter(lambda: file.read(1_000), b"")) == data
    assert store.proxy.operations()["read"] == 1


# -- the chain -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_chain_gives_the_same_bytes_as_on_a_disk(store: Store, chain: Chain, tmp_path: pathlib.Path) -> None:
    work = store.url("W")
    for file in chain.world.crawl.glob("*.gz"):
        storage.write_bytes(store.url(f"crawl/{file.name}"), file.read_bytes())
    for job in PLACES:
        argv = [
            a.replace(str(tmp_path), work).replace(str(chain.world.crawl), store.url("crawl"))
            for a in arguments(job, chain.world, tmp_path)
        ]
        run_job(job, argv)
    there, here = store.contents("W"), contents(chain.work)
    # They hold where the inputs lay and when they were made.
    compared = {name for name in here if not name.endswith("units.parquet")}
    assert compared == {name for name in there if not name.endswith("units.parquet")}
    assert [name for name in sorted(compared) if there[name] != here[name]] == []
    run_job("verify", [work])
