"""download against a local server that plays the real one: interruptions and damage."""

from __future__ import annotations

import gzip
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metadata.published import PublishedFile
from pipelines import shelf as shelves
from pipelines import storage
from pipelines.__main__ import main
from pipelines.errors import JobError
from pipelines.processes import module_environment, python_module
from tests.pipelines.conftest import contents
from tests.pipelines.downloads import DATE, MB, Clock, download, name_of, path_of, publish, record, sha1, some_bytes
from tests.world.wikimedia import Mishap, Served, Wikimedia, serve


@pytest.fixture
def host() -> Iterator[Wikimedia]:
    with serve() as host:
        yield host


# -- interruptions -------------------------------------------------------------------------------------------------------------------------


def test_cut_connections_cost_no_byte_twice(host: Wikimedia, tmp_path: Path) -> None:
    body, _ = publish(host, size=3 * MB)
    host.partials = tmp_path / ".partial"
    host.mishaps[path_of()] = [Mishap(cut=100), Mishap(cut=MB), Mishap(cut=1)]
    clock = Clock()
    download(host, tmp_path, "--languages", "ltg", clock=clock)
    assert (tmp_path / name_of()).read_bytes() == body
    assert host.ranges(path_of()) == ["", "bytes=100-", f"bytes={MB + 100}-", f"bytes={MB + 101}-"]
    assert host.sent[path_of()] == 3 * MB
    # A mebibyte of progress is no failure in a row.
    assert clock.slept == [2.0, 2.0, 4.0]
    assert not (tmp_path / ".partial").exists()


def test_a_host_that_ends_early_without_a_length(host: Wikimedia, tmp_path: Path) -> None:
    body, _ = publish(host)
    host.files[path_of()].length = False
    host.partials = tmp_path / ".partial"
    host.mishaps[path_of()] = [Mishap(cut=2_000)]
    download(host, tmp_path, "--languages", "ltg")
    assert (tmp_path / name_of()).read_bytes() == body
    assert host.ranges(path_of()) == ["", "bytes=2000-"]


@pytest.mark.parametrize("without", ["ETag", "both"])
def test_what_tells_that_a_file_is_the_same(host: Wikimedia, tmp_path: Path, without: str) -> None:
    body, _ = publish(host)
    host.partials = tmp_path / ".partial"
    served = host.files[path_of()]
    # A weak ETag says that the content means the same, not that it has the same bytes.
    served.etag = 'W/"1"'
    if without == "both":
        served.modified = ""
    host.mishaps[path_of()] = [Mishap(cut=2_000)]
    download(host, tmp_path, "--languages", "ltg")
    assert (tmp_path / name_of()).read_bytes() == body
    assert [(asked.range, asked.if_range) for asked in host.asked if asked.path == path_of()] == (
        [("", ""), ("bytes=2000-", served.modified)] if without == "ETag" else [("", ""), ("", "")]
    )


def test_a_host_without_ranges_sends_all_again(host: Wikimedia, tmp_path: Path) -> None:
    body, _ = publish(host)
    host.files[path_of()].ranges = False
    host.partials = tmp_path / ".partial"
    host.mishaps[path_of()] = [Mishap(cut=2_000)]
    download(host, tmp_path, "--languages", "ltg")
    assert (tmp_path / name_of()).read_bytes() == body
    assert host.ranges(path_of()) == ["", "bytes=2000-"]
    assert host.sent[path_of()] == 2_000 + len(body)


@pytest.mark.parametrize("if_range", [True, False])
def test_a_file_that_changed_is_not_glued_together(
    host: Wikimedia, tmp_path: Path, if_range: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    old, _ = publish(host)
    old_file = host.files[path_of()]
    new = some_bytes(len(old), "new")
    host.add_dump("ltgwiki", DATE, {"-multistream.xml.bz2": new})
    new_file = host.files[path_of()]
    new_file.if_range = if_range
    host.files[path_of()] = old_file
    host.partials = tmp_path / ".partial"
    host.mishaps[path_of()] = [Mishap(cut=2_000), Mishap(before=lambda: host.files.update({path_of(): new_file}))]
    download(host, tmp_path, "--languages", "ltg")
    assert (tmp_path / name_of()).read_bytes() == new
    # A host that heeds If-Range sends all of the new file at once; one that does not is seen through by its ETag, and asked again.
    assert host.ranges(path_of()) == (["", "bytes=2000-"] if if_range else ["", "bytes=2000-", ""])
    assert "fetched once more" not in capsys.readouterr().err


@pytest.mark.parametrize("extent", ["bytes 1999-4998/5000", "bytes 2001-4999/5000", "bytes */5000", "pages 1-2", ""])
def test_another_part_than_was_asked_for(host: Wikimedia, tmp_path: Path, extent: str, capsys: pytest.CaptureFixture[str]) -> None:
    body, _ = publish(host)
    host.partials = tmp_path / ".partial"
    host.mishaps[path_of()] = [Mishap(cut=2_000), Mishap(headers={"Content-Range": extent})]
    download(host, tmp_path, "--languages", "ltg")
    assert (tmp_path / name_of()).read_bytes() == body
    assert host.ranges(path_of()) == ["", "bytes=2000-", ""]
    assert "fetched once more" not in capsys.readouterr().err


def test_another_run_goes_on_where_one_gave_up(host: Wikimedia, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLDCLIP_CACHE", str(tmp_path / "cache"))
    body, index = publish(host)
    output = storage.join(place, "dumps")
    partials = shelves.Shelf(output).partials
    host.partials = partials
    host.mishaps[path_of()] = [Mishap(cut=1_000)] * 3
    with pytest.raises(JobError) as error:
        download(host, output, "--languages", "ltg", retries=2)
    head, reason = str(error.value).split("\n")
    assert head == "1 of what was asked for could not be had; the same command goes on with it:"
    assert reason.startswith(f"  {host.base_url}/{path_of()}: ")
    assert reason.endswith("; given up after 3 attempts in a row")
    assert set(contents(output)) - {f".partial/{name_of()}", f".partial/{name_of()}.json"} == {
        "download.json",
        name_of(end="-multistream-index.txt.bz2"),
    }
    assert (partials / name_of()).read_bytes() == body[:3_000]

    host.forget()
    download(host, output, "--languages", "ltg")
    assert host.ranges(path_of()) == ["bytes=3000-"]
    assert host.sent[path_of()] == 2_000
    assert contents(output) == {
        name_of(): body,
        name_of(end="-multistream-index.txt.bz2"): index,
        "download.json": record((path_of(), DATE, "ltgwiki", body), (path_of(end="-multistream-index.txt.bz2"), DATE, "ltgwiki", index)),
    }


def test_a_whole_file_that_was_not_yet_put_in_place_is_not_asked_for(host: Wikimedia, tmp_path: Path) -> None:
    body, _ = publish(host)
    host.partials = tmp_path / ".partial"
    host.mishaps[path_of()] = [Mishap(cut=4_999)]
    with pytest.raises(JobError):
        download(host, tmp_path, "--languages", "ltg", retries=0)
    with open(tmp_path / ".partial" / name_of(), "ab") as partial:
        partial.write(body[4_999:])
    host.forget()
    download(host, tmp_path, "--languages", "ltg")
    assert (tmp_path / name_of()).read_bytes() == body
    assert host.ranges(path_of()) == []


def test_a_whole_file_whose_size_nobody_tells(host: Wikimedia, tmp_path: Path) -> None:
    body = gzip.compress(some_bytes(5_000))
    path = host.add_pageviews(datetime(2025, 1, 1), body)
    host.partials = tmp_path / ".partial"
    host.mishaps[path] = [Mishap(status=405), Mishap(cut=100), Mishap(status=405)]
    with pytest.raises(JobError):
        download(host, tmp_path, "--pageviews", "2025-01-01T00", retries=0)
    with open(tmp_path / ".partial" / Path(path).name, "ab") as partial:
        partial.write(body[100:])
    host.forget()
    download(host, tmp_path, "--pageviews", "2025-01-01T00")
    assert (tmp_path / Path(path).name).read_bytes() == body
    # The host says that there is nothing behind it.
    assert host.ranges(path) == [f"bytes={len(body)}-"]
    assert host.sent[path] == 0


def test_a_part_that_ends_early_without_a_length(host: Wikimedia, tmp_path: Path) -> None:
    body = gzip.compress(some_bytes(5_000))
    path = host.add_pageviews(datetime(2025, 1, 1), body)
    host.partials = tmp_path / ".partial"
    no_length = Mishap(cut=100, before=lambda: setattr(host.files[path], "length", False))
    host.mishaps[path] = [Mishap(status=405), Mishap(cut=100), no_length]
    download(host, tmp_path, "--pageviews", "2025-01-01T00")
    assert (tmp_path / Path(path).name).read_bytes() == body
    assert host.ranges(path) == ["", "bytes=100-", "bytes=200-"]


def test_bytes_of_an_older_dump_of_the_same_name_are_not_gone_on_with(host: Wikimedia, tmp_path: Path) -> None:
    publish(host)
    host.partials = tmp_path / ".partial"
    host.mishaps[path_of()] = [Mishap(cut=1_000)]
    with pytest.raises(JobError):
        download(host, tmp_path, "--languages", "ltg", retries=0)
    new = some_bytes(900, "new")
    host.add_dump("ltgwiki", DATE, {"-multistream.xml.bz2": new})
    host.forget()
    download(host, tmp_path, "--languages", "ltg")
    assert (tmp_path / name_of()).read_bytes() == new
    assert host.ranges(path_of()) == [""]


def test_killed_and_started_again(host: Wikimedia, tmp_path: Path) -> None:
    body, _ = publish(host, size=2 * MB)
    for wiki in ("bgwiki", "lvwiki"):
        publish(host, wiki)
    host.partials = tmp_path / "W" / ".partial"
    reached, over = threading.Event(), threading.Event()
    host.mishaps[path_of()] = [Mishap(cut=MB)]
    wait = host.wait_for_client

    def wait_for_kill(path: str, n_bytes: int) -> None:
        wait(path, n_bytes)
        reached.set()
        over.wait(30)

    host.wait_for_client = wait_for_kill
    argv = ["download", "--languages", "bg,ltg,lv", "--output", f"{tmp_path}/W", "--mirror", host.base_url]
    process = subprocess.Popen([*python_module("pipelines"), *argv], env=module_environment(), stderr=subprocess.PIPE)
    assert reached.wait(30)
    # The other connection is not held up: let it bring everything else.
    end = time.monotonic() + 30
    while not (tmp_path / "W" / name_of("lvwiki")).exists() and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    over.set()
    assert not (tmp_path / "W" / name_of()).exists()
    assert (tmp_path / "W" / ".partial" / name_of()).read_bytes() == body[:MB]

    host.wait_for_client = wait
    host.forget()
    assert subprocess.run([*python_module("pipelines"), *argv], env=module_environment(), capture_output=True).returncode == 0
    assert host.ranges(path_of()) == [f"bytes={MB}-"]
    assert host.sent[path_of()] == MB
    again = contents(tmp_path / "W")
    # The same bytes as without the kill, record included.
    download(host, tmp_path / "whole", "--languages", "bg,ltg,lv")
    assert again == contents(tmp_path / "whole")
    assert again[name_of()] == body


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    cuts=st.lists(st.integers(0, 40_000), max_size=5),
    ranges=st.booleans(),
    if_range=st.booleans(),
    etag=st.sampled_from(["", 'W/"weak"', '"strong"']),
    modified=st.sampled_from(["", "Thu, 01 Jan 2026 00:00:00 GMT"]),
    length=st.booleans(),
)
def test_whatever_the_host_does_the_file_is_right(
    host: Wikimedia,
    tmp_path_factory: pytest.TempPathFactory,
    cuts: list[int],
    ranges: bool,
    if_range: bool,
    etag: str,
    modified: str,
    length: bool,
) -> None:
    output = tmp_path_factory.mktemp("W")
    body, _ = publish(host, size=100_000)
    host.files[path_of()] = Served(body=body, ranges=ranges, if_range=if_range, modified=modified, length=length)
    host.files[path_of()].etag = etag
    host.partials = output / ".partial"
    host.mishaps[path_of()] = [Mishap(cut=cut) for cut in cuts]
    host.forget()
    download(host, output, "--languages", "ltg")
    assert (output / name_of()).read_bytes() == body
    # Each request begins where the one before ended, if the host can tell that it is still the same file and knows ranges.
    goes_on = etag == '"strong"' or bool(modified)
    starts = [sum(cuts[:i]) for i in range(len(cuts) + 1)] if ranges else [0, *cuts]
    expected = [f"bytes={start}-" if start and goes_on else "" for start in starts]
    assert host.ranges(path_of()) == expected[: len(host.ranges(path_of()))]
    assert host.sent[path_of()] == (len(body) if ranges and goes_on else len(body) + sum(cuts))


# -- wrong files ---------------------------------------------------------------------------------------------------------------------------


def test_a_damaged_file_is_fetched_once_more(host: Wikimedia, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body, _ = publish(host)
    right = host.files[path_of()]
    wrong = Served(body=some_bytes(len(body), "wrong"))
    host.mishaps[path_of()] = [
        Mishap(before=lambda: host.files.update({path_of(): wrong})),
        Mishap(before=lambda: host.files.update({path_of(): right})),
    ]
    download(host, tmp_path, "--languages", "ltg")
    assert (tmp_path / name_of()).read_bytes() == body
    assert host.ranges(path_of()) == ["", ""]
    assert (
        f"download: {name_of()} was fetched, but its SHA-1 is {sha1(wrong.body)} and {sha1(body)} is published; it is fetched once more\n"
        in capsys.readouterr().err
    )


def test_a_file_that_stays_wrong_does_not_stop_the_others(host: Wikimedia, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body, _ = publish(host)
    lv, _ = publish(host, "lvwiki")
    wrong = some_bytes(len(body), "wrong")
    host.files[path_of()] = Served(body=wrong)
    argv = ["download", "--languages", "ltg,lv", "--output", str(tmp_path), "--mirror", host.base_url]
    assert main(argv) == 1
    reason = (
        f"{name_of()} was fetched twice, but its SHA-1 is {sha1(wrong)} and {sha1(body)} is published: "
        f"{host.base_url} seems to hold a damaged copy; try another --mirror, or later"
    )
    assert capsys.readouterr().err.endswith(
        "worldclip download: 1 of what was asked for could not be had; the same command goes on with it:\n  " + reason + "\n"
    )
    assert host.ranges(path_of()) == ["", ""]
    assert (tmp_path / name_of("lvwiki")).read_bytes() == lv
    assert not (tmp_path / name_of()).exists()
    assert name_of() not in (tmp_path / "download.json").read_text()

    host.files[path_of()] = Served(body=body)
    assert main(argv) == 0
    assert (tmp_path / name_of()).read_bytes() == body
    assert not (tmp_path / ".partial").exists()


@pytest.mark.parametrize(("change", "length"), [(-1, True), (1, True), (1, False)])
def test_a_file_of_another_size(host: Wikimedia, tmp_path: Path, change: int, length: bool) -> None:
    body, _ = publish(host)
    host.files[path_of()] = Served(body=some_bytes(len(body) + change), length=length)
    with pytest.raises(JobError, match=r"(has 4,999 bytes, and 5,000 are published|has 5,001 bytes|goes on after 5,000 bytes).*: it is"):
        download(host, tmp_path, "--languages", "ltg")
    assert host.ranges(path_of()) == [""]
    assert not (tmp_path / name_of()).exists()


def test_what_lies_there_and_is_wrong_is_fetched_again(host: Wikimedia, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body, index = publish(host)
    download(host, tmp_path, "--languages", "ltg")
    whole = contents(tmp_path)
    flipped = bytes([body[0] ^ 1]) + body[1:]
    (tmp_path / name_of()).write_bytes(flipped)
    (tmp_path / name_of(end="-multistream-index.txt.bz2")).write_bytes(index[:-1])
    capsys.readouterr()
    host.forget()
    download(host, tmp_path, "--languages", "ltg")
    assert contents(tmp_path) == whole
    # Two are compared at a time.
    assert sorted(capsys.readouterr().err.splitlines()[:3]) == [
        "download: comparing 2 files that are there with what is published",
        f"download: {name_of(end='-multistream-index.txt.bz2')} is there, but it has 49 bytes and 50 are published; it is fetched again",
        f"download: {name_of()} is there, but its SHA-1 is {sha1(flipped)} and {sha1(body)} is published; it is fetched again",
    ]


def test_an_object_store_is_not_read_again(host: Wikimedia, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLDCLIP_CACHE", str(tmp_path / "cache"))
    MemoryFileSystem.store.clear()
    publish(host)
    download(host, "memory://bucket", "--languages", "ltg")
    looked_at: list[str] = []
    examine = shelves.examine

    def look(file: BinaryIO, about: PublishedFile) -> shelves.Found:
        looked_at.append(about.name)
        return examine(file, about)

    monkeypatch.setattr(shelves, "examine", look)
    download(host, "memory://bucket", "--languages", "ltg")
    assert looked_at == []
    storage.remove("memory://bucket/download.json")
    download(host, "memory://bucket", "--languages", "ltg")
    assert sorted(looked_at) == sorted([name_of(), name_of(end="-multistream-index.txt.bz2")])
    assert storage.exists("memory://bucket/download.json")
    # What is known of it must be what is published.
    new = some_bytes(5_000, "new")
    host.add_dump("ltgwiki", DATE, {"-multistream.xml.bz2": new})
    download(host, "memory://bucket", "--languages", "ltg")
    assert storage.read_bytes(f"memory://bucket/{name_of()}") == new
    MemoryFileSystem.store.clear()


def test_a_put_that_fails_costs_no_transfer(host: Wikimedia, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLDCLIP_CACHE", str(tmp_path / "cache"))
    MemoryFileSystem.store.clear()
    body, _ = publish(host)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(MemoryFileSystem, "put_file", refuse)
        with pytest.raises(JobError, match="cannot be written to"):
            download(host, "memory://bucket", "--languages", "ltg")
    assert contents("memory://bucket") == {}

    class HttpError(Exception):
        """As gcsfs has one: no OSError."""

    def fail(fs: MemoryFileSystem, lpath: str, rpath: str, **options: object) -> None:
        if rpath.endswith(".xml.bz2"):
            raise HttpError("403: no right to create it")
        put_file(fs, lpath, rpath, **options)

    HttpError.__module__ = "gcsfs.retry"
    put_file = MemoryFileSystem.put_file
    with monkeypatch.context() as patched:
        patched.setattr(MemoryFileSystem, "put_file", fail)
        with pytest.raises(JobError, match=r"^1 of what was asked for could not be had(.|\n)*403: no right to create it"):
            download(host, "memory://bucket", "--languages", "ltg")
    assert set(contents("memory://bucket")) == {"download.json", name_of(end="-multistream-index.txt.bz2")}
    host.forget()
    download(host, "memory://bucket", "--languages", "ltg")
    assert host.ranges(path_of()) == []
    assert storage.read_bytes(f"memory://bucket/{name_of()}") == body
    MemoryFileSystem.store.clear()
