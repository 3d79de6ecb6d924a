"""download against a local server that plays the real one: what comes out, and what cannot."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections import namedtuple
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipelines import shelf as shelves
from pipelines import storage
from pipelines.__main__ import main
from pipelines.errors import JobError
from pipelines.jobs import run_job
from pipelines.ngrams import dump_units
from pipelines.progress import Progress, size_text, time_text
from tests.pipelines.conftest import contents
from tests.pipelines.downloads import DATE, MB, Clock, config_of, download, name_of, path_of, publish, record, some_bytes
from tests.world.dumps import write_dump
from tests.world.vocabulary import LANGUAGES
from tests.world.wikimedia import Mishap, Wikimedia, serve


@pytest.fixture
def host() -> Iterator[Wikimedia]:
    with serve() as host:
        yield host


# -- what comes out ------------------------------------------------------------------------------------------------------------------------


def test_dumps_come_with_their_indexes_and_a_record(
    host: Wikimedia, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLDCLIP_CACHE", str(tmp_path / "cache"))
    bodies = {wiki: publish(host, wiki) for wiki in ("lvwiki", "ltgwiki", "enwiki")}
    output = storage.join(place, "dumps")
    argv = ["download", "--languages", "lv, ltg,lv", "--date", DATE, "--output", output, "--mirror", host.base_url + "/"]
    assert main([*argv, "--contact", "me@example.org"]) == 0
    expected = {
        name_of(wiki, end): bodies[wiki][i]
        for wiki in ("lvwiki", "ltgwiki")
        for i, end in enumerate(("-multistream.xml.bz2", "-multistream-index.txt.bz2"))
    }
    expected["download.json"] = record(
        *((f"{name.partition('-')[0]}/{DATE}/{name}", DATE, name.partition("-")[0], body) for name, body in expected.items())
    )
    assert contents(output) == expected
    printed = capsys.readouterr()
    assert printed.out == f"download: 4 files fetched, 0 were there and right → {output}\n"
    assert printed.err == ("download: looking for the dumps of 2 Wikipedias\ndownload: 4 files to fetch, 10.1 kB; 0 are there and right\n")
    assert {asked.agent.partition(" aiohttp/")[0] for asked in host.asked} == {"worldclip/0.1.0 (me@example.org)"}
    pages = [f"{wiki}/{DATE}/dumpstatus.json" for wiki in ("ltgwiki", "lvwiki")]
    assert sorted(host.paths()) == sorted([*pages, *(f"{name.partition('-')[0]}/{DATE}/{name}" for name in expected if "wiki" in name)])
    assert not list((tmp_path / "cache").rglob("*wiki*"))

    host.forget()
    assert main(argv) == 0
    assert capsys.readouterr().out == f"download: 0 files fetched, 4 were there and right → {output}\n"
    assert sorted(host.paths()) == pages
    assert contents(output) == expected


def test_latest_is_the_newest_dump_that_is_done(host: Wikimedia, tmp_path: Path) -> None:
    for date in ("20251120", "20251201", "20251220"):
        publish(host, date=date)
    host.add_dump("ltgwiki", DATE, {"-multistream.xml.bz2": b"x"}, status="in-progress")
    host.add_dump("ltgwiki", DATE, {".xml.bz2": b"x"}, job="articlesdump")
    host.add_dump("ltgwiki", "20260201", {"-multistream.xml.bz2": b"x"}, status="waiting")
    del host.files["ltgwiki/20260201/dumpstatus.json"]
    download(host, tmp_path, "--languages", "ltg")
    assert sorted(os.listdir(tmp_path)) == [
        "download.json",
        name_of(end="-multistream-index.txt.bz2", date="20251220"),
        name_of(date="20251220"),
    ]


def test_a_wiki_in_parts_comes_in_parts(host: Wikimedia, tmp_path: Path) -> None:
    ranges = ["1{}-p1p9", "1{}-p10p19", "27{}-p20p30"]
    parts = [f"-multistream{r.format('.xml')}.bz2" for r in ranges] + [f"-multistream-index{r.format('.txt')}.bz2" for r in ranges]
    host.add_dump("enwiki", DATE, {end: some_bytes(100, end) for end in parts})
    host.add_dump("enwiki", DATE, {"-multistream.xml.bz2": b"all of it"}, job="articlesmultistreamdumprecombine")
    download(host, tmp_path, "--languages", "en", "--date", DATE)
    assert sorted(os.listdir(tmp_path)) == sorted([name_of("enwiki", end) for end in parts] + ["download.json"])
    dumps = [os.path.basename(file.url) for file in storage.expand((f"{tmp_path}/*.xml*.bz2",))]
    assert dumps == sorted(name_of("enwiki", end) for end in parts[:3])


def test_ngrams_finds_what_it_needs(host: Wikimedia, tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    for language in LANGUAGES[:2]:
        write_dump(made, language, 20, np.random.default_rng(1))
    for path in sorted(made.glob("*.xml.bz2")):
        wiki = path.name.partition("-")[0]
        host.add_dump(wiki, DATE, {"-multistream.xml.bz2": path.read_bytes(), "-multistream-index.txt.bz2": b"0:1:A\n"})
    codes = sorted(language.code for language in LANGUAGES[:2])
    download(host, tmp_path / "dumps", "--languages", ",".join(codes))
    assert sorted(unit.group for unit in dump_units(storage.expand((f"{tmp_path}/dumps/*.xml*.bz2",)))) == codes


def test_all_are_the_wikipedias_of_a_full_build(host: Wikimedia, tmp_path: Path) -> None:
    wikis = config_of(host, tmp_path, "--languages", "all").wikis()
    assert len(wikis) == 329
    assert "simple" not in {wiki.code for wiki in wikis}
    assert [wiki.dbname for wiki in config_of(host, tmp_path, "--languages", "simple,zh_min_nan").wikis()] == [
        "simplewiki",
        "zh_min_nanwiki",
    ]


# -- what is not there ---------------------------------------------------------------------------------------------------------------------


def test_a_wiki_without_that_dump_does_not_stop_the_others(host: Wikimedia, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish(host, "ltgwiki")
    publish(host, "lvwiki", "20251201")
    publish(host, "lvwiki", "20251101")
    host.add_dump("bgwiki", DATE, {"-multistream.xml.bz2": b"x"}, status="in-progress")
    argv = ["download", "--languages", "af,bg,ltg,lv", "--date", DATE, "--output", str(tmp_path), "--mirror", host.base_url]
    assert main(argv) == 1
    printed = capsys.readouterr()
    assert printed.out == f"download: 2 files fetched, 0 were there and right → {tmp_path}\n"
    assert sorted(printed.err.splitlines()[-3:]) == [
        f"  afwiki has no dump of {DATE} on {host.base_url}; there is none at all",
        f"  bgwiki {DATE} is not finished (articlesmultistreamdump is 'in-progress'); give another --date",
        f"  lvwiki has no dump of {DATE} on {host.base_url}; there is 20251201, 20251101",
    ]
    capsys.readouterr()
    assert main([*argv[:4], "latest", *argv[5:]]) == 1
    assert sorted(capsys.readouterr().err.splitlines()[-2:]) == [
        f"  afwiki has no dumps on {host.base_url}",
        f"  bgwiki has no dump that is done on {host.base_url}: bgwiki {DATE} is not finished (articlesmultistreamdump is 'in-progress')",
    ]
    assert (tmp_path / name_of("lvwiki", date="20251201")).exists()


def test_a_file_that_is_announced_and_absent(host: Wikimedia, tmp_path: Path) -> None:
    publish(host)
    del host.files[path_of()]
    clock = Clock()
    with pytest.raises(JobError) as error:
        download(host, tmp_path, "--languages", "ltg", clock=clock)
    assert str(error.value).splitlines()[1:] == [f"  {host.base_url}/{path_of()} is not there (404)"]
    assert clock.slept == []


def test_a_refusal_names_the_contact(host: Wikimedia, tmp_path: Path) -> None:
    publish(host)
    host.mishaps["ltgwiki/"] = [Mishap(status=403)]
    with pytest.raises(JobError, match=r"was refused \(403\); .* give --contact"):
        download(host, tmp_path, "--languages", "ltg")


def test_another_dump_of_the_same_wiki_is_told(host: Wikimedia, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish(host, date="20251201")
    publish(host, date="20251101")
    host.partials = tmp_path / ".partial"
    host.mishaps[path_of(date="20251101")] = [Mishap(cut=1_000)]
    with pytest.raises(JobError):
        download(host, tmp_path, "--languages", "ltg", "--date", "20251101", retries=0)
    download(host, tmp_path, "--languages", "ltg", "--date", "20251201")
    capsys.readouterr()
    publish(host)
    download(host, tmp_path, "--languages", "ltg")
    assert capsys.readouterr().err.splitlines()[1:] == [
        f"download: note: {tmp_path} also holds {name_of(date='20251201')}, of another dump of ltgwiki: ngrams would count both. "
        "Delete one of them",
        f"download: note: {tmp_path}/.partial holds 1 unfinished files of other downloads, 1.0 kB",
    ]
    assert [file["date"] for file in json.loads((tmp_path / "download.json").read_bytes())["files"]] == [
        "20251101",
        "20251201",
        "20251201",
        DATE,
        DATE,
    ]


# -- page views ----------------------------------------------------------------------------------------------------------------------------


def test_page_views(host: Wikimedia, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bodies = {hour: gzip.compress(f"lv A {hour} 0\n".encode(), mtime=0) for hour in range(24)}
    paths = {hour: host.add_pageviews(datetime(2025, 1, 31, hour), body) for hour, body in bodies.items()}
    argv = ["download", "--pageviews", "2025-01-31T22..2025-01-31T23", "2025-01-31T05", "--output", str(tmp_path)]
    assert main([*argv, "--mirror", host.base_url]) == 0
    assert contents(tmp_path) == {
        **{f"pageviews-20250131-{hour:02}0000.gz": bodies[hour] for hour in (5, 22, 23)},
        "download.json": record(*((paths[hour], "20250131", "", bodies[hour]) for hour in (5, 22, 23))),
    }
    assert sorted(host.paths("HEAD")) == sorted(host.paths()) == [paths[hour] for hour in (5, 22, 23)]
    host.forget()
    assert main([*argv, "--mirror", host.base_url]) == 0
    assert capsys.readouterr().out.splitlines()[1] == f"download: 0 files fetched, 3 were there and right → {tmp_path}"
    # What is there needs no question.
    assert host.asked == []
    (tmp_path / "download.json").unlink()
    (tmp_path / "pageviews-20250131-050000.gz").write_bytes(bodies[5][:-1])
    assert main([*argv, "--mirror", host.base_url]) == 0
    assert host.paths() == [paths[5]]
    assert "pageviews-20250131-050000.gz is there, but it is damaged (truncated: " in capsys.readouterr().err
    # Whole, but not what was fetched.
    (tmp_path / "pageviews-20250131-050000.gz").write_bytes(bodies[6])
    assert main([*argv, "--mirror", host.base_url]) == 0
    assert (tmp_path / "pageviews-20250131-050000.gz").read_bytes() == bodies[5]


def test_a_sample_of_page_views_together_with_dumps(host: Wikimedia, tmp_path: Path) -> None:
    publish(host)
    for day in range(1, 5):
        for hour in range(24):
            host.add_pageviews(datetime(2025, 1, day, hour), gzip.compress(b"", mtime=0))
    argv = ["--languages", "ltg", "--pageviews", "2025-01-01..2025-01-04", "--pageview-sample"]
    download(host, tmp_path / "a", *argv, "2d")
    assert sorted(path.name for path in (tmp_path / "a").glob("*.gz")) == [
        f"pageviews-202501{day}-{hour:02}0000.gz" for day in ("01", "04") for hour in range(24)
    ]
    download(host, tmp_path / "b", *argv, "3h")
    assert sorted(path.name for path in (tmp_path / "b").glob("*.gz")) == [
        f"pageviews-202501{hour}0000.gz" for hour in ("01-00", "03-03", "03-23")
    ]
    assert len(list((tmp_path / "b").glob("*.bz2"))) == 2


@pytest.mark.parametrize("body", [b"", b"<html>", gzip.compress(some_bytes(1_000))[:-1], gzip.compress(some_bytes(1_000))[:-8] + bytes(8)])
def test_page_views_that_are_no_gzip(host: Wikimedia, tmp_path: Path, body: bytes) -> None:
    path = host.add_pageviews(datetime(2025, 1, 1), body)
    with pytest.raises(JobError, match=r"was fetched twice, but it is (no gzip file|damaged)"):
        download(host, tmp_path, "--pageviews", "2025-01-01T00")
    assert host.ranges(path) == ["", ""]
    assert os.listdir(tmp_path) == []


def test_page_views_whose_size_nobody_tells(host: Wikimedia, tmp_path: Path) -> None:
    body = gzip.compress(some_bytes(5_000))
    path = host.add_pageviews(datetime(2025, 1, 1), body)
    host.files[path].length = False
    host.partials = tmp_path / ".partial"
    host.mishaps[path] = [Mishap(status=405), Mishap(cut=3_000)]
    # A cut cannot be told from the end here; the file itself tells.
    download(host, tmp_path, "--pageviews", "2025-01-01T00")
    assert (tmp_path / "pageviews-20250101-000000.gz").read_bytes() == body
    assert host.ranges(path) == ["", ""]


def test_an_hour_that_is_not_published(host: Wikimedia, tmp_path: Path) -> None:
    body = gzip.compress(b"lv A 1 0\n")
    host.add_pageviews(datetime(2025, 1, 1), body)
    with pytest.raises(JobError, match=r"(?s)^1 of what .*pageviews-20250101-010000.gz is not there \(404\)$"):
        download(host, tmp_path, "--pageviews", "2025-01-01T00..2025-01-01T01")
    assert (tmp_path / "pageviews-20250101-000000.gz").read_bytes() == body


# -- before anything is fetched ------------------------------------------------------------------------------------------------------------


def test_a_dry_run_lists_and_leaves_no_trace(host: Wikimedia, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish(host)
    publish(host, "lvwiki", size=3 * MB)
    host.add_pageviews(datetime(2025, 1, 1), gzip.compress(b"", mtime=0))
    argv = ["--languages", "ltg,lv", "--pageviews", "2025-01-01T00", "2025-01-01T01"]
    with pytest.raises(JobError, match="1 of what was asked for"):
        download(host, tmp_path / "W", *argv, "--dry-run")
    assert capsys.readouterr().out.splitlines() == [
        f"fetch               50  {name_of(end='-multistream-index.txt.bz2')}",
        f"fetch            5,000  {name_of()}",
        f"fetch               50  {name_of('lvwiki', '-multistream-index.txt.bz2')}",
        f"fetch        3,145,728  {name_of('lvwiki')}",
        "fetch               20  pageviews-20250101-000000.gz",
        "download: 5 files to fetch, 3.2 MB; 0 are there and right",
    ]
    assert not (tmp_path / "W").exists()

    host.partials = tmp_path / "W" / ".partial"
    host.mishaps[path_of("lvwiki")] = [Mishap(cut=1_000)]
    with pytest.raises(JobError):
        download(host, tmp_path / "W", *argv, retries=0)
    before = contents(tmp_path / "W")
    capsys.readouterr()
    with pytest.raises(JobError):
        download(host, tmp_path / "W", *argv, "--dry-run")
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["there", "there", "there", "go", "there", "download:"]
    assert contents(tmp_path / "W") == before
    (tmp_path / "W" / "download.json").unlink()
    with pytest.raises(JobError):
        download(host, tmp_path / "W", *argv, "--dry-run")
    del before["download.json"]
    assert contents(tmp_path / "W") == before


def test_the_record_is_of_what_is_there(host: Wikimedia, tmp_path: Path) -> None:
    publish(host)
    publish(host, "lvwiki")
    download(host, tmp_path, "--languages", "ltg")
    (tmp_path / name_of()).unlink()
    download(host, tmp_path, "--languages", "lv")
    listed = [file["name"] for file in json.loads((tmp_path / "download.json").read_bytes())["files"]]
    assert listed == sorted(path.name for path in tmp_path.glob("*.bz2"))
    assert len(listed) == 3


def test_too_small_a_disk(host: Wikimedia, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLDCLIP_CACHE", str(tmp_path / "cache"))
    publish(host, size=600_000)
    publish(host, "lvwiki", size=700_000)
    usage = namedtuple("usage", ["total", "used", "free"])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1 << 40, 0, 1_000_000))
    host.forget()
    with pytest.raises(JobError) as error:
        download(host, tmp_path / "W", "--languages", "ltg,lv")
    assert str(error.value) == f"{tmp_path}/W/.partial: 1.3 MB are needed and 1.0 MB are free; choose another --output, or ask for less"
    assert host.sent.keys() == {f"{wiki}wiki/{page}" for wiki in ("ltg", "lv") for page in ("", f"{DATE}/dumpstatus.json")}
    # On its way to an object store there is one file per connection.
    MemoryFileSystem.store.clear()
    with pytest.raises(JobError, match=r"set WORLDCLIP_CACHE to a place with more room"):
        download(host, "memory://bucket", "--languages", "ltg,lv", "--connections", "2")
    download(host, "memory://bucket", "--languages", "ltg,lv", "--connections", "1")
    assert len(contents("memory://bucket")) == 5
    MemoryFileSystem.store.clear()


def test_two_downloads_to_one_place(host: Wikimedia, tmp_path: Path) -> None:
    publish(host)
    with (
        shelves.Shelf.opened(str(tmp_path), read_only=False),
        pytest.raises(JobError, match=f"^another process is downloading to {tmp_path}: wait for it, or choose another --output$"),
    ):
        download(host, tmp_path, "--languages", "ltg")
    download(host, tmp_path, "--languages", "ltg")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "is damaged (TypeError"),
        (b'{"format_version": 1}', "is damaged (KeyError"),
        (b'{"format_version": 1, "files": [{"name": "x"}]}', "is damaged (KeyError"),
        (b'{"format_version": 2, "files": []}', "was written by a newer worldclip: update worldclip"),
    ],
)
def test_a_record_that_is_none(host: Wikimedia, tmp_path: Path, body: bytes, said: str) -> None:
    (tmp_path / "download.json").write_bytes(body)
    with pytest.raises(JobError) as error:
        download(host, tmp_path, "--languages", "ltg")
    assert said in str(error.value)
    assert (tmp_path / "download.json").read_bytes() == body


def test_a_place_that_cannot_be_written_to(host: Wikimedia, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JobError, match=r"file/W/.partial: cannot be written to \(Not a directory\)"):
        download(host, tmp_path / "file" / "W", "--languages", "ltg")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "give --languages for dumps, --pageviews for page views, or both"),
        (["--languages", "lv", "--pageview-sample", "3d"], "--pageview-sample takes some of the hours that --pageviews names"),
        (["--languages", "lvv"], "unknown language code 'lvv'; close to it: lv"),
        (["--languages", "../lv"], "unknown language code '../lv'"),
        (["--languages", "lv", "--date", "2026-01-01"], "'2026-01-01' is no date: write 20260101"),
        (["--pageviews", "yesterday"], "'yesterday' is no time"),
        (["--pageviews", "2025", "--pageview-sample", "26"], "'26' is no sample"),
        (["--languages", "lv", "--mirror", "ftp://127.0.0.1/"], "is no URL of a mirror"),
        (["--languages", "lv", "--mirror", "http://me:secret@127.0.0.1/"], "is no URL of a mirror"),
        (["--languages", "lv", "--checksums-from", "127.0.0.1"], "is no URL of a mirror"),
        (["--languages", "lv", "--contact", "me\nX-Header: 1"], "--contact must be plain ASCII, on one line"),
        (["--languages", "lv", "--mirror", "https://dumps.wikimedia.org"], "--contact is missing"),
        (["--languages", "lv", "--checksums-from", "https://dumps.wikimedia.org/"], "--contact is missing"),
        (["--languages", "lv", "--connections", "0"], "no whole number of at least 1"),
    ],
)
def test_options_that_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: list[str], said: str) -> None:
    with pytest.raises(SystemExit) as ended:
        run_job("download", ["--output", str(tmp_path / "W"), "--mirror", "http://127.0.0.1:9", *argv])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "W").exists()


def test_options_of_beam_are_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"^download does not know --streaming$"):
        run_job("download", ["--output", str(tmp_path), "--mirror", "http://127.0.0.1:9", "--languages", "lv", "--streaming"])


# -- how far it is -----------------------------------------------------------------------------------------------------------------------


def test_lines_of_progress(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    progress = Progress({"a": 3_000_000_000, "b": 1_000_000_000, "c": 500_000_000}, {"a": 1_000_000_000, "b": 0}, lambda: clock.now)
    clock.now = 9.9
    progress.reached("a", 1_000_000_001)
    assert capsys.readouterr().err == ""
    clock.now = 100.0
    progress.reached("a", 1_100_000_000)
    progress.reached("b", 100_000_000)
    # A GB was there before: 100 MB came in 100 s.
    assert capsys.readouterr().err == "download: 0 of 3 files, 1.1 GB of 4.5 GB, 1.0 MB/s, 57 min left\n"
    clock.now = 200.0
    progress.finished()
    progress.gave_up("c")
    progress.reached("b", 500_000_000)
    assert capsys.readouterr().err == "download: 1 of 3 files, 1.6 GB of 4.0 GB, 3.0 MB/s, 13 min left\n"
    clock.now = 300.0
    # Begun anew: fewer bytes than at the start.
    progress.reached("a", 0)
    assert capsys.readouterr().err == "download: 1 of 3 files, 500 MB of 4.0 GB, 0 bytes/s\n"


def test_progress_of_files_whose_size_nobody_tells(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    progress = Progress({"a": 1_000, "b": None}, {}, lambda: clock.now)
    clock.now = 10.0
    progress.reached("b", 20_000)
    assert capsys.readouterr().err == "download: 0 of 2 files, 20.0 kB, 2.0 kB/s\n"


def test_sizes_and_times() -> None:
    assert [size_text(n) for n in (0, 999, 1_000, 1_234_567, 5e9, 2.5e12)] == [
        "0 bytes",
        "999 bytes",
        "1.0 kB",
        "1.2 MB",
        "5.0 GB",
        "2.5 TB",
    ]
    assert [time_text(s) for s in (0, 29, 31, 3_570, 3_600, 90_000)] == ["0 s", "29 s", "1 min", "1 h 0 min", "1 h 0 min", "25 h 0 min"]
