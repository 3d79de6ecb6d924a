from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import JobError
from pipelines.jobs import run_job
from pipelines.part import read_parts
from pipelines.stage import open_stage
from tests.hostile.conftest import account

#: Texts long enough for language identification to be sure.
ENGLISH = "A red star over the house and the trees in the evening"
GERMAN = "Ein schöner roter Stern über dem Haus und den Bäumen"
RUSSIAN = "Красная звезда над домом и деревьями вечером"
JAPANESE = "夕方の家と木の上にある赤い星の写真です"


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("entries")
    lists = {"en": ["red star"], "de": ["Stern", "Bäumen"], "ru": ["звезда"], "ja": ["赤い"], "other": ["star"]}
    for lang, entries in lists.items():
        (root / f"{lang}.json").write_text(json.dumps(entries), encoding="utf-8")
    given = [x for lang in lists for x in ("--metadata-json", f"{lang}={root}/{lang}.json")]
    run_job("entries", [*given, "--output", f"{root}/entries"])
    return f"{root}/entries"


def match(folder: Path, entries: str, files: dict[str, bytes], *more: str) -> tuple[dict[str, Any], list[tuple[str, int, str, bytes]]]:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    inputs = [str(folder / name) for name in files]
    run_job("match", ["--input", *inputs, "--entries", entries, "--output", str(folder / "out"), *more])
    return account(str(folder / "out"), "match")


def matched(folder: Path) -> list[tuple[str, str, str]]:
    """(lang, url, text) of all rows, sorted."""
    rows = [row for table in read_parts(open_stage(str(folder / "out"), "match")) for row in table.to_pylist()]
    return sorted((row["lang"], row["url"], row["text"]) for row in rows)


def record(kind: str, content_type: str, body: bytes, url: str = "http://site.example/page") -> bytes:
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return gzip.compress(head.encode() + body + b"\r\n\r\n", mtime=0)


def response(html: bytes, content_type: str = "text/html") -> bytes:
    return record(
        "response", "application/http; msgtype=response", b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\n\r\n%s" % (content_type.encode(), html)
    )


def image(number: int, text: str) -> str:
    return f'<img src="/{number}.jpg" alt="{text}">'


def wat(number: int, text: str) -> bytes:
    links = [{"path": "IMG@/src", "url": f"/{number}.jpg", "alt": text}]
    payload = {"HTTP-Response-Metadata": {"HTML-Metadata": {"Links": links}}}
    body = {"Envelope": {"WARC-Header-Metadata": {"WARC-Target-URI": "http://site.example/page"}, "Payload-Metadata": payload}}
    return record("metadata", "application/json", json.dumps(body).encode())


def row(lang: str, number: int, text: str) -> tuple[str, str, str]:
    return lang, f"http://site.example/{number}.jpg", text


def test_a_cut_off_warc_keeps_its_whole_records(tmp_path: Path, entries: str) -> None:
    records = [response(image(i, ENGLISH).encode()) for i in range(4)]
    counters, letters = match(
        tmp_path, entries, {"cut.warc.gz": b"".join(records)[:-40], "whole.warc.gz": response(image(9, GERMAN).encode())}
    )
    assert counters == {
        "read": 5,
        "emitted": 4,
        "dead_letters": 1,
        "dead_letter_reasons": {"truncated": 1},
        "files": 2,
        "bad_files": 1,
    }
    ((name, _, reason, _),) = letters
    assert (name, reason) == ("cut.warc.gz", "truncated")
    assert matched(tmp_path) == [row("de", 9, GERMAN), *(row("en", i, ENGLISH) for i in range(3))]


def test_a_damaged_member_costs_only_itself(tmp_path: Path, entries: str) -> None:
    records = [bytearray(response(image(i, ENGLISH).encode())) for i in range(4)]
    records[1][30:60] = bytes(30)
    counters, letters = match(tmp_path, entries, {"bad.warc.gz": b"".join(records)})
    assert (counters["read"], counters["emitted"], counters["bad_files"]) == (4, 3, 1)
    assert [letter[:3] for letter in letters] == [("bad.warc.gz", len(records[0]), "broken_gzip")]
    assert matched(tmp_path) == [row("en", i, ENGLISH) for i in (0, 2, 3)]


def test_broken_json_in_a_wat_is_a_dead_letter_per_record(tmp_path: Path, entries: str) -> None:
    bad = [b"{", b'{"Envelope": ', b"\x00", b"[" * 5_000]
    odd = b'{"Envelope": {"Payload-Metadata": 3}}'
    bodies = [record("metadata", "application/json", body) for body in (*bad, odd)]
    counters, letters = match(
        tmp_path, entries, {"a.wat.gz": b"".join([wat(1, ENGLISH), *bodies, wat(2, RUSSIAN)])}, "--max-bad-records", "80%"
    )
    assert counters == {"read": 6, "emitted": 2, "dead_letters": 4, "dead_letter_reasons": {"invalid_json": 4}, "files": 1}
    places = [sum(map(len, [wat(1, ENGLISH), *bodies[:i]])) for i in range(4)]
    assert letters == [("a.wat.gz", place, "invalid_json", body[:4_096]) for place, body in zip(places, bad, strict=True)]
    assert matched(tmp_path) == [row("en", 1, ENGLISH), row("ru", 2, RUSSIAN)]


@pytest.mark.parametrize("in_header", [True, False], ids=["header", "meta"])
def test_html_in_odd_encodings(tmp_path: Path, entries: str, in_header: bool) -> None:
    pages = [
        ("windows-1252", "de", GERMAN),
        ("iso-8859-1", "de", GERMAN),
        ("utf-16", "de", GERMAN),
        ("koi8-r", "ru", RUSSIAN),
        ("windows-1251", "ru", RUSSIAN),
        ("shift_jis", "ja", JAPANESE),
        ("euc-jp", "ja", JAPANESE),
        ("iso-2022-jp", "ja", JAPANESE),
        ("no-such-encoding", "en", ENGLISH),
    ]
    records = []
    for number, (encoding, _, text) in enumerate(pages):
        html = f'<html><head><meta charset="{encoding if not in_header else "x"}"></head><body>{image(number, text)}</body></html>'
        body = html.encode("ascii" if encoding.startswith("no") else encoding)
        records.append(response(body, f"text/html; charset={encoding}" if in_header else "text/html"))
    counters, letters = match(tmp_path, entries, {"pages.warc.gz": b"".join(records)})
    assert (counters, letters) == ({"read": 9, "emitted": 9, "files": 1}, [])
    assert matched(tmp_path) == sorted(row(lang, number, text) for number, (_, lang, text) in enumerate(pages))


def test_images_that_give_no_pair_are_dropped_by_name(tmp_path: Path, entries: str) -> None:
    html = "".join(
        [
            image(1, ENGLISH),
            image(1, ENGLISH),
            '<img src="/2.jpg">',
            f'<img alt="{ENGLISH}">',
            f'<img src="data:image/gif;base64,R0" alt="{ENGLISH}">',
            f'<img src="ftp://site.example/3.jpg" alt="{ENGLISH}">',
            '<img src="/4.jpg" alt=" &#10; ">',
            f'<img src="/5.jpg" alt="{"x" * 20_000}">',
            '<img src="/6.jpg" alt="Nothing of what is written here is an entry of any list">',
            '<img src="/7.jpg" alt="Une étoile rouge au-dessus de la maison et des arbres le soir">',
        ]
    )
    counters, letters = match(tmp_path, entries, {"page.warc.gz": response(html.encode())})
    assert (counters, letters) == (
        {
            "read": 10,
            "emitted": 1,
            "dropped": {
                "data_url": 1,
                "empty_text": 1,
                "language_not_built": 1,
                "no_match": 1,
                "no_text": 1,
                "no_url": 1,
                "not_http": 1,
                "repeated_in_unit": 1,
                "text_too_long": 1,
            },
            "files": 1,
        },
        [],
    )


def test_what_is_no_crawl_file_is_a_damaged_file(tmp_path: Path, entries: str) -> None:
    strange = {"empty.gz": b"", "empty2.gz": gzip.compress(b""), "page.html": image(1, ENGLISH).encode()}
    counters, letters = match(
        tmp_path, entries, {**strange, "good.warc.gz": response(image(1, ENGLISH).encode())}, "--max-bad-files", "90%"
    )
    assert counters == {
        "read": 4,
        "emitted": 1,
        "dead_letters": 3,
        "dead_letter_reasons": {"not_warc": 3},
        "files": 4,
        "bad_files": 3,
    }
    assert [(name, place, reason) for name, place, reason, _ in letters] == [(name, 0, "not_warc") for name in strange]


def write_parquet(path: Path, table: dict[str, Any]) -> str:
    pq.write_table(pa.table(table), path)
    return str(path)


def test_own_pairs_with_holes(tmp_path: Path, entries: str) -> None:
    pairs = {"url": ["http://a/1", None, "http://a/3", "", "http://a/5"], "text": [ENGLISH, ENGLISH, None, " ", GERMAN]}
    path = write_parquet(tmp_path / "own.parquet", pairs)
    run_job("match", ["--input", path, "--format", "parquet", "--entries", entries, "--output", f"{tmp_path}/out"])
    counters, _ = account(f"{tmp_path}/out", "match")
    assert counters == {"read": 5, "emitted": 2, "dropped": {"empty_text": 1, "no_url": 2}, "files": 1}
    assert matched(tmp_path) == [("de", "http://a/5", GERMAN), ("en", "http://a/1", ENGLISH)]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"url": ["x"], "caption": ["y"]}, "no column text; there are url, caption"),
        ({"url": [1.5], "text": [[1]]}, "column text holds no text but list"),
        (None, "no Parquet file ("),
    ],
)
def test_files_that_are_no_own_pairs_are_told_by_name(tmp_path: Path, entries: str, table: dict[str, Any] | None, said: str) -> None:
    path = tmp_path / "own.parquet"
    path.write_bytes(b"no parquet at all")
    if table:
        write_parquet(path, table)
    with pytest.raises(JobError) as error:
        run_job("match", ["--input", str(path), "--format", "parquet", "--entries", entries, "--output", f"{tmp_path}/out"])
    assert str(error.value).startswith(f"file://{path}: {said}")
    assert not (tmp_path / "out").exists()


# -- stages that are not what they should be -----------------------------------------------------------------------------------------


def refusal(*argv: str) -> str:
    with pytest.raises(JobError) as error:
        run_job("match", list(argv))
    return str(error.value)


def test_entries_that_are_not_finished_are_told(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text('["a", " "]', encoding="utf-8")
    with pytest.raises(JobError, match="blank"):
        run_job("entries", ["--metadata-json", f"en={tmp_path}/m.json", "--output", f"{tmp_path}/entries"])
    argv = ("--input", f"{tmp_path}/m.json", "--output", f"{tmp_path}/out")
    assert refusal(*argv, "--entries", f"{tmp_path}/entries") == (
        f"{tmp_path}/entries is not finished (no _SUCCESS): run its job again with the same command, it goes on where it stopped"
    )
    assert refusal(*argv, "--entries", f"{tmp_path}/absent") == f"{tmp_path}/absent is no stage 'entries': there is no stage.json in it"
    assert not (tmp_path / "out").exists()


def test_other_parameters_in_the_same_directory_are_refused(tmp_path: Path, entries: str) -> None:
    match(tmp_path, entries, {"a.warc.gz": response(image(1, ENGLISH).encode())})
    argv = ("--input", f"{tmp_path}/a.warc.gz", "--output", f"{tmp_path}/out", "--entries", entries)
    said = refusal(*argv, "--lid-min-score", "0.5")
    assert said.startswith(f"{tmp_path}/out was made with other settings (fingerprint ")
    assert said.endswith("lid_min_score was 0.2 and is 0.5. Choose another --output, or delete the directory")
    assert matched(tmp_path) == [row("en", 1, ENGLISH)]


def test_a_damaged_automaton_is_told(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text('["red star"]', encoding="utf-8")
    run_job("entries", ["--metadata-json", f"en={tmp_path}/m.json", "--output", f"{tmp_path}/entries"])
    automaton = tmp_path / "entries" / "automata" / "en"
    automaton.write_bytes(automaton.read_bytes()[:-10])
    (tmp_path / "a.warc.gz").write_bytes(response(image(1, ENGLISH).encode()))
    said = refusal("--input", f"{tmp_path}/a.warc.gz", "--output", f"{tmp_path}/out", "--entries", f"{tmp_path}/entries")
    assert said.startswith(f"{automaton}: ")


def test_a_model_that_is_none_is_told(tmp_path: Path, entries: str) -> None:
    (tmp_path / "lid.bin").write_bytes(b"no model")
    argv = ("--input", f"{tmp_path}/lid.bin", "--output", f"{tmp_path}/out", "--entries", entries)
    assert refusal(*argv, "--lid-model", f"{tmp_path}/lid.bin").startswith(f"--lid-model {tmp_path}/lid.bin: ")
    assert refusal(*argv, "--lid-model", f"{tmp_path}/absent.bin").startswith(f"--lid-model {tmp_path}/absent.bin: ")
    assert not (tmp_path / "out").exists()


def test_stages_that_do_not_belong_together_are_refused(tmp_path: Path, entries: str) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        match(tmp_path / name, entries, {f"{name}.warc.gz": response(image(1, ENGLISH).encode())})
    run_job("dedup", ["--matched", f"{tmp_path}/one/out", "--output", f"{tmp_path}/siblings"])
    one, two = (open_stage(f"{tmp_path}/{name}/out", "match").id for name in ("one", "two"))
    argv = [
        "--matched",
        f"{tmp_path}/two/out",
        "--siblings",
        f"{tmp_path}/siblings",
        "--entries",
        entries,
        "--output",
        f"{tmp_path}/counts",
    ]
    with pytest.raises(JobError) as error:
        run_job("count", argv)
    assert str(error.value) == (f"{tmp_path}/siblings belongs to matched pairs {one}, but {tmp_path}/two/out is {two}: run dedup on them")
    with pytest.raises(JobError, match=f"match was '{one}' and is '{two}'"):
        run_job("dedup", ["--matched", f"{tmp_path}/two/out", "--output", f"{tmp_path}/siblings"])
