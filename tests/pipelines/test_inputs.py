"""The inputs of match: formats, lists, samples, filters and columns that are carried along."""

from __future__ import annotations

import gzip
import json
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines.inputs
from pipelines.errors import JobError
from pipelines.inputs import sampled
from pipelines.jobs import run_job
from pipelines.part import read_parts
from pipelines.stage import Unit, open_stage, unit_name
from tests.pipelines.conftest import contents, english_entries

TEXTS = [f"a photo of a {animal} in the green garden, number {i}" for i, animal in enumerate(("dog", "owl", "fox", "logo", "cow"))]
ROWS = [{"link": f"http://x/{i}.jpg", "caption": text, "key": f"k{i}", "score": i / 2} for i, text in enumerate(TEXTS)]
OWN = ["--url", "link", "--text", "caption", "--image-id", "key", "--carry", "score"]


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> str:
    return english_entries(tmp_path_factory.mktemp("entries"), ["dog", "owl", "fox", "cow"])


def matched(entries: str, out: Path, *argv: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    run_job("match", [*argv, "--entries", entries, "--output", str(out)])
    stage = open_stage(str(out), "match")
    rows = [row for table in read_parts(stage) for row in table.to_pylist()]
    return sorted(rows, key=lambda row: row["text"]), dict(stage.counters)


def as_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


def as_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def as_shard(path: Path, rows: list[dict[str, Any]]) -> None:
    with tarfile.open(path, "w") as tar:
        for row in rows:
            for extension, data in (("jpg", b"image"), ("json", json.dumps(row).encode())):
                info = tarfile.TarInfo(f"{row['key']}.{extension}")
                info.size = len(data)
                tar.addfile(info, BytesIO(data))


@pytest.mark.parametrize(
    ("name", "format", "write"),
    [
        ("a.parquet", "parquet", as_parquet),
        ("a.jsonl", "jsonl", as_lines),
        ("a.jsonl.gz", "jsonl", as_lines),
        ("a.tar", "webdataset", as_shard),
    ],
)
def test_every_format_gives_the_same_pairs(entries: str, tmp_path: Path, name: str, format: str, write: Any) -> None:
    write(tmp_path / name, ROWS)
    rows, counters = matched(entries, tmp_path / "out", "--input", f"{tmp_path}/{name}", "--format", format, *OWN)
    assert (counters["read"], counters["emitted"], counters["dropped"]) == (5, 4, {"no_match": 1})
    expected = sorted((row for row in ROWS if "logo" not in row["caption"]), key=lambda row: str(row["caption"]))
    assert [(row["image_id"], row["url"], row["text"], float(row["score"])) for row in rows] == [
        (row["key"], row["link"], row["caption"], row["score"]) for row in expected
    ]


def test_carried_columns_reach_the_curated_set(entries: str, tmp_path: Path) -> None:
    as_parquet(tmp_path / "a.parquet", ROWS)
    w = str(tmp_path)
    matched(entries, tmp_path / "matched", "--input", f"{w}/a.parquet", "--format", "parquet", *OWN)
    run_job("dedup", ["--matched", f"{w}/matched", "--output", f"{w}/siblings"])
    both = ["--matched", f"{w}/matched", "--siblings", f"{w}/siblings"]
    run_job("count", [*both, "--entries", entries, "--output", f"{w}/counts"])
    run_job("thresholds", ["--counts", f"{w}/counts", "--t", "inf", "--output", f"{w}/thresholds.json"])
    run_job("balance", [*both, "--thresholds", f"{w}/thresholds.json", "--output", f"{w}/curated"])
    (table,) = read_parts(open_stage(f"{w}/curated", "balance"))
    assert table.column_names[-2:] == ["probability", "score"]
    assert sorted(table["score"].to_pylist()) == [0.0, 0.5, 1.0, 2.0]


def test_lines_are_cut_into_ranges(entries: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_lines(tmp_path / "a.jsonl", ROWS)
    whole, _ = matched(entries, tmp_path / "one", "--input", f"{tmp_path}/a.jsonl", "--format", "jsonl", *OWN)
    monkeypatch.setattr(pipelines.inputs, "LINES_BYTES", 100)
    cut, counters = matched(entries, tmp_path / "cut", "--input", f"{tmp_path}/a.jsonl", "--format", "jsonl", *OWN)
    assert len(open_stage(f"{tmp_path}/cut", "match").parts) == -(-(tmp_path / "a.jsonl").stat().st_size // 100)
    assert cut == whole
    assert counters["read"] == 5


def test_filters(entries: str, tmp_path: Path) -> None:
    texts = [*TEXTS, "logo", "dog.jpg", "ox", "a dog by mail@x.example"]
    rows = [{"url": f"http://{'cdn.bad' if i == 1 else 'good'}.example/{i}.jpg", "text": text} for i, text in enumerate(texts)]
    as_parquet(tmp_path / "a.parquet", rows)
    (tmp_path / "hosts").write_text("# ours\nbad.example\n")
    found, counters = matched(
        entries, tmp_path / "out", "--input", f"{tmp_path}/a.parquet", "--format", "parquet", "--drop", "frames,file-names,emails",
        "--min-characters", "3", "--blocked-hosts", f"{tmp_path}/hosts",
    )  # fmt: skip
    assert counters["dropped"] == {
        "blocked_host": 1, "email": 1, "file_name": 1, "frame_of_page": 1, "no_match": 1, "text_too_short": 1,
    }  # fmt: skip
    assert (counters["read"], counters["emitted"]) == (9, 3)
    assert [row["text"] for row in found] == sorted([TEXTS[0], TEXTS[2], TEXTS[4]])


def warc(number: int) -> bytes:
    page = f'HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<img src=/{number}.jpg alt="{TEXTS[0]} {number}">'.encode()
    head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://x/\r\nContent-Length: {len(page)}\r\n\r\n"
    return gzip.compress(head.encode() + page + b"\r\n\r\n", mtime=0)


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crawl files two folders deep, and a list of them as Common Crawl publishes it. Tests write elsewhere."""
    tmp_path = tmp_path_factory.mktemp("crawl")
    paths = [f"crawl-data/segment-{i % 2}/{i:05}.warc.gz" for i in range(12)]
    for i, path in enumerate(paths):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(warc(i))
    (tmp_path / "warc.paths.gz").write_bytes(gzip.compress("\n".join([*paths, ""]).encode()))
    return tmp_path


@pytest.fixture(scope="module")
def at_once(entries: str, crawl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a single run makes of the list."""
    out = tmp_path_factory.mktemp("at-once") / "out"
    matched(entries, out, "--input-list", f"{crawl}/warc.paths.gz", "--base-url", f"{crawl}")
    return out


def test_a_list_of_inputs(at_once: Path) -> None:
    stage = open_stage(str(at_once), "match")
    assert (sum(map(len, read_parts(stage))), stage.counters["files"]) == (12, 12)
    assert {part["input"] for part in stage.parts} == {f"crawl-data/segment-{i % 2}/{i:05}.warc.gz" for i in range(12)}


def test_a_larger_sample_goes_on_from_a_smaller_one(entries: str, crawl: Path, at_once: Path, tmp_path: Path) -> None:
    given = ["--input-list", f"{crawl}/warc.paths.gz", "--base-url", f"{crawl}"]
    some, _ = matched(entries, tmp_path / "out", *given, "--sample-inputs", "40%")
    assert 0 < len(some) < 12
    parts = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")}
    everything, _ = matched(entries, tmp_path / "out", *given)
    assert len(everything) == 12
    assert {path: path.stat().st_mtime_ns for path in parts} == parts
    assert contents(tmp_path / "out") == contents(at_once)
    with pytest.raises(JobError, match="inputs that are not given now"):
        matched(entries, tmp_path / "out", *given, "--sample-inputs", "0.4")


def test_samples_are_nested_and_of_the_size_asked_for() -> None:
    units = [Unit(name=unit_name(f"{i}"), path=f"{i}") for i in range(2_000)]
    tenth, half, everything = (sampled(units, share) for share in (0.1, 0.5, 1.0))
    assert 140 < len(tenth) < 260
    assert 900 < len(half) < 1_100
    assert set(tenth) < set(half) < set(everything) == set(units)
    assert sampled(units, 0.0) == []


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--format", "crawl"], "give --input, or --input-list with --base-url"),
        (["--input", "a", "--input-list", "b"], "give --input, or --input-list with --base-url"),
        (["--input", "a", "--image-texts", "alt,name"], "--image-texts: no such text of an image: name; there are alt, title"),
        (["--input", "a", "--carry", "lang"], "--carry: a column that is carried along cannot be called lang"),
        (["--input", "a", "--drop", "logos"], "--drop: no such rule: logos"),
    ],
)
def test_options_that_cannot_be(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_job("match", [*argv, "--entries", "E", "--output", "O"])
    assert said in " ".join(capsys.readouterr().err.split())


def test_files_that_cannot_be(entries: str, tmp_path: Path) -> None:
    as_parquet(tmp_path / "a.parquet", ROWS)
    (tmp_path / "empty").write_bytes(b"\n")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"a\nb\n")[:-4])
    (tmp_path / "hosts").write_text("http://x\n")
    own = ["--input", f"{tmp_path}/a.parquet", "--format", "parquet", *OWN]
    for argv, said in (
        ([*own[:-1], "weight"], "a.parquet: no column weight; there are link, caption, key, score"),
        ([*own, "--blocked-hosts", f"{tmp_path}/hosts"], "line 1 is no host name: http://x"),
        (["--input-list", f"{tmp_path}/empty"], "no path is in it"),
        (["--input-list", f"{tmp_path}/cut.gz"], "no list of paths"),
        (["--input", f"{tmp_path}/a.parquet"], r"a\.parquet is Parquet: add --format parquet"),
    ):
        with pytest.raises(JobError, match=said):
            matched(entries, tmp_path / "out", *argv)
