from __future__ import annotations

import bz2
import gzip
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import JobError
from pipelines.jobs import run_job
from pipelines.part import read_parts
from pipelines.stage import open_stage
from tests.hostile.conftest import account

LINES = b"".join(b"en Title_%d %d 0\n" % (i, i + 1) for i in range(1_000))


def titles(folder: Path, files: dict[str, bytes], *more: str) -> tuple[dict[str, Any], list[tuple[str, int, str, bytes]]]:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    run_job("titles", ["--input", *(str(folder / name) for name in files), "--output", str(folder / "out"), *more])
    return account(str(folder / "out"), "titles")


def views(folder: Path) -> dict[tuple[str, str], int]:
    tables = read_parts(open_stage(str(folder / "out"), "titles"))
    return {(row["lang"], row["title"]): row["views"] for table in tables for row in table.to_pylist()}


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def in_every_compression(data: bytes) -> dict[str, bytes]:
    """The same lines in three files, in one job: nothing but the compression is another."""
    return {"bzip2": bz2.compress(data), "gzip": _gzip(data), "plain": data}


def test_a_cut_off_file_counts_up_to_its_last_whole_line(tmp_path: Path) -> None:
    counters, letters = titles(tmp_path, {"a.gz": _gzip(LINES)[:-200], "b.gz": _gzip(b"en Title_0 5 0\n")})
    found = views(tmp_path)
    whole = len(found)
    assert 500 < whole < 1_000
    assert found == {("en", f"Title {i}"): i + 1 + 5 * (i == 0) for i in range(whole)}
    assert counters == {
        "read": whole + 2,
        "emitted": whole + 1,
        "dead_letters": 1,
        "dead_letter_reasons": {"truncated": 1},
        "files": 2,
        "bad_files": 1,
    }
    ((name, place, reason, payload),) = letters
    assert (name, place, reason) == ("a.gz", whole + 1, "truncated")
    assert LINES.split(b"\n")[whole].startswith(payload)


def test_lines_that_cannot_be_read_are_kept_one_by_one(tmp_path: Path) -> None:
    lines = [
        (b"en A 3 0", None),
        (b"en B many 0", "views_not_a_number"),
        (b"en Cut off 2 0", "not_four_fields"),
        (b"en D 4", "not_four_fields"),
        (b"en \xff 1 0", "invalid_utf8"),
        (b"", "not_four_fields"),
        (b"en.m A 4 0", None),
        (b"en -1 -1 0", "views_not_a_number"),
        (b"de \xc3\x84 1 0", None),
    ]
    files = in_every_compression(b"\n".join(line for line, _ in lines) + b"\n")
    counters, letters = titles(tmp_path, files, "--max-bad-records", "1")
    bad = [(file, place, reason, line) for file in files for place, (line, reason) in enumerate(lines, start=1) if reason]
    assert letters == bad
    assert counters == {
        "read": 3 * 9,
        "emitted": 3 * 3,
        "dead_letters": 3 * 6,
        "dead_letter_reasons": {"invalid_utf8": 3 * 1, "not_four_fields": 3 * 3, "views_not_a_number": 3 * 2},
        "files": 3,
    }
    assert views(tmp_path) == {("en", "A"): 3 * 7, ("de", "Ä"): 3 * 1}


def test_too_many_bad_lines_fail_and_say_which(tmp_path: Path) -> None:
    with pytest.raises(JobError) as error:
        titles(tmp_path, {"a": LINES + b"en many many 0\n" * 11})
    assert str(error.value) == (
        "11 of 1011 records could not be used (views_not_a_number 11), more than --max-bad-records 1.000% allows; "
        f"see {tmp_path}/out/blocks/dead_letters. What was done is kept: run the same command with a higher --max-bad-records to accept it"
    )


def test_an_empty_file_has_no_views(tmp_path: Path) -> None:
    counters, letters = titles(tmp_path, {"empty": b"", "empty.gz": _gzip(b"")})
    assert (counters, letters, views(tmp_path)) == ({"files": 2}, [], {})


def test_long_lines_are_one_record_each_and_kept_in_part(tmp_path: Path) -> None:
    megabyte = b"x" * (1 << 20)
    data = megabyte * 20 + b"\n" + LINES + b"en " + megabyte + b" 5 0\n" + b"a b c d " * (1 << 17) + b"\nen Last 1 0\n" + megabyte
    files = in_every_compression(data)
    counters, letters = titles(tmp_path, files, "--max-bad-records", "1")
    assert counters == {
        "read": 3 * 1_005,
        "emitted": 3 * 1_001,
        "dead_letters": 3 * 4,
        "dead_letter_reasons": {"line_too_long": 3 * 4},
        "files": 3,
    }
    starts = {1: megabyte, 1_002: b"en " + megabyte, 1_003: b"a b c d " * 512, 1_005: megabyte}
    assert letters == [(file, place, "line_too_long", start[:4_096]) for file in files for place, start in starts.items()]
    assert views(tmp_path) == {("en", f"Title {i}"): 3 * (i + 1) for i in range(1_000)} | {("en", "Last"): 3}


def test_numbers_names_and_bytes_that_no_page_view_has(tmp_path: Path) -> None:
    lines = [
        (b"en A 1 0", None),
        (b"en A -1 0", "views_not_a_number"),
        (b"en A +1 0", "views_not_a_number"),
        (b"en A 1e3 0", "views_not_a_number"),
        (b"en A 10000000000 0", "views_too_large"),
        (b"en A " + b"9" * 30 + b" 0", "views_too_large"),
        (b"en A 1 -1", "bytes_not_a_number"),
        (b"en A\0 1 0", "control_character"),
        (b"\0" * 100, "not_four_fields"),
        (b"en \xc3\x28 1 0", "invalid_utf8"),
        (b"en \xed\xa0\x80 1 0", "invalid_utf8"),
        (b"\xff\xfeen A 1 0", "dropped"),
        (b"../../etc A 1 0", "dropped"),
        (b"en/../de A 1 0", "dropped"),
        (b"zh_min_nan A 1 0", "dropped"),
        (b"EN A 1 0", "dropped"),
        (b"en.b A 1 0", "dropped"),
        (b"commons.m A 1 0", "dropped"),
        (b"zh-min-nan A 1 0", None),
        (b"nan.m A 2 0", None),
        (b"en A 2 0", None),
    ]
    files = in_every_compression(b"\n".join(line for line, _ in lines))
    counters, letters = titles(tmp_path, files, "--max-bad-records", "1")
    assert counters == {
        "read": 3 * 21,
        "emitted": 3 * 4,
        "dropped": {"other_project": 3 * 4, "unknown_domain": 3 * 3},
        "dead_letters": 3 * 10,
        "dead_letter_reasons": {
            "bytes_not_a_number": 3 * 1,
            "control_character": 3 * 1,
            "invalid_utf8": 3 * 2,
            "not_four_fields": 3 * 1,
            "views_not_a_number": 3 * 3,
            "views_too_large": 3 * 2,
        },
        "files": 3,
    }
    bad = [(n, reason, line) for n, (line, reason) in enumerate(lines, start=1) if reason not in (None, "dropped")]
    assert letters == [(file, *letter) for file in files for letter in bad]
    assert views(tmp_path) == {("en", "A"): 3 * 3, ("zh_min_nan", "A"): 3 * 3}
