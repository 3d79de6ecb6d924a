from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import JobError
from pipelines.jobs import run_job
from pipelines.stage import open_stage, read_part
from tests.hostile.conftest import account

HEAD = "<mediawiki><siteinfo><dbname>simplewiki</dbname></siteinfo>\n"
END = "</mediawiki>"


def page(number: int, text: str = "red star", *, more: str = "") -> str:
    return f"<page><title>T{number}</title><ns>0</ns><id>{number}</id>{more}<revision><text>{text}</text></revision></page>\n"


PAGES = [page(i) for i in range(1, 7)]
DUMP = HEAD + "".join(PAGES) + END
COMPRESS: dict[str, Callable[[bytes], bytes]] = {"bz2": bz2.compress, "gz": lambda data: gzip.compress(data, mtime=0), "xz": lzma.compress}


def ngrams(folder: Path, files: dict[str, bytes], *more: str) -> tuple[dict[str, Any], list[tuple[str, int, str, bytes]]]:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    run_job("ngrams", ["--input", *(str(folder / name) for name in files), "--output", str(folder / "out"), *more])
    return account(str(folder / "out"), "ngrams")


def counted(folder: Path) -> dict[str, int]:
    """Unigrams of all languages."""
    stage = open_stage(str(folder / "out"), "ngrams")
    names = [part["name"] for part in stage.parts if "-unigrams-" in part["name"]]
    return {row["gram"]: row["count"] for name in names for row in read_part(stage.part_url(name)).to_pylist()}


def test_a_cut_off_dump_counts_up_to_the_cut(tmp_path: Path) -> None:
    """Six pages of a stream each, the fifth stream cut short: four pages, and the dump beside it as if nothing was."""
    files = {"whole.xml": DUMP.encode()}
    for kind, compress in COMPRESS.items():
        streams = [compress(part.encode()) for part in (HEAD, *PAGES, END)]
        files[f"cut.xml.{kind}"] = b"".join(streams[:5]) + streams[5][: len(streams[5]) // 4]
    counters, letters = ngrams(tmp_path, files, "--max-bad-files", "75%")
    assert counters == {
        "read": 6 + 3 * 5,
        "emitted": 6 + 3 * 4,
        "dead_letters": 3,
        "dead_letter_reasons": {"truncated": 3},
        "files": 4,
        "bad_files": 3,
    }
    assert [(name, reason) for name, _, reason, _ in letters] == [(f"cut.xml.{kind}", "truncated") for kind in ("bz2", "gz", "xz")]
    place = len(HEAD + "".join(PAGES[:4]))
    assert all(place <= letter[1] <= place + len(PAGES[4]) for letter in letters)
    assert counted(tmp_path) == {"red": 18, "star": 18}


def test_damage_in_the_middle_of_a_dump_is_told(tmp_path: Path) -> None:
    files = {}
    for kind, compress in COMPRESS.items():
        streams = [bytearray(compress(part.encode())) for part in (HEAD, *PAGES, END)]
        streams[3][14:24] = bytes(10)
        files[f"bad.xml.{kind}"] = b"".join(streams)
    counters, letters = ngrams(tmp_path, files, "--max-bad-files", "100%")
    assert (counters["read"], counters["emitted"], counters["bad_files"]) == (9, 6, 3)
    assert [letter[2] for letter in letters] == ["invalid_compression"] * 3


def test_a_dump_cut_inside_a_page_counts_the_pages_before(tmp_path: Path) -> None:
    whole = HEAD + "".join(PAGES[:3])
    counters, letters = ngrams(tmp_path, {"cut.xml": (whole + PAGES[3][:60]).encode()})
    assert (counters["read"], counters["emitted"], counters["dead_letter_reasons"]) == (4, 3, {"truncated": 1})
    assert [letter[:1] + letter[2:] for letter in letters] == [("cut.xml", "truncated", b"")]
    assert counted(tmp_path) == {"red": 3, "star": 3}


@pytest.mark.parametrize("declaration", ["", '<?xml version="1.0" encoding="utf-16"?>'])
def test_a_dump_in_utf_16_is_a_dump(tmp_path: Path, declaration: str) -> None:
    text = declaration + HEAD + page(1, "rød stjerne") + page(2, "rød") + END
    counters, letters = ngrams(tmp_path, {"dump.xml": text.encode("utf-16")})
    assert (counters, letters) == ({"read": 2, "emitted": 2, "files": 1}, [])
    assert counted(tmp_path) == {"rød": 2, "stjerne": 1}


def test_what_is_no_dump_of_a_wikipedia_is_a_damaged_file(tmp_path: Path) -> None:
    strange = {
        "bytes.xml": bytes(range(256)) * 8,
        "empty.xml": b"",
        "empty.xml.bz2": bz2.compress(b""),
        "page.xml": b"<html><body>404</body></html>",
        "project.xml": DUMP.replace("simplewiki", "simplewiktionary").encode(),
        "unknown.xml": DUMP.replace("simplewiki", "xxwiki").encode(),
    }
    counters, letters = ngrams(tmp_path, {**strange, "good.xml": DUMP.encode()}, "--max-bad-files", "90%")
    assert counters == {
        "read": 12,
        "emitted": 6,
        "dead_letters": 6,
        "dead_letter_reasons": {"unknown_wiki": 6},
        "files": 7,
        "bad_files": 6,
    }
    assert letters == [(name, 0, "unknown_wiki", b"") for name in strange]
    assert counted(tmp_path) == {"red": 6, "star": 6}


def test_two_damaged_files_are_too_many_unless_they_are_accepted(tmp_path: Path) -> None:
    files = {"a.xml": b"", "b.xml": b"", "good.xml": DUMP.encode()}
    with pytest.raises(JobError) as error:
        ngrams(tmp_path, files)
    assert str(error.value) == (
        "2 of 3 files are damaged (unknown_wiki 2), more than --max-bad-files 0.100% allows; "
        f"see {tmp_path}/out/blocks/dead_letters. What was done is kept: run the same command with a higher --max-bad-files to accept it"
    )
    parts = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "blocks").glob("part-*")}
    run_job("ngrams", ["--input", f"{tmp_path}/*.xml", "--output", f"{tmp_path}/out", "--max-bad-files", "100%"])
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "blocks").glob("part-*")} == parts
    assert account(f"{tmp_path}/out", "ngrams")[0]["bad_files"] == 2


def test_pages_that_cannot_be_used_are_dropped_one_by_one(tmp_path: Path) -> None:
    pages = [
        page(1),
        page(2, more='<redirect title="T1" />'),
        page(3).replace("<ns>0</ns>", "<ns>10</ns>"),
        page(4, " \n"),
        page(5).replace("<id>5</id>", "<id>five</id>"),
        page(6, "{{" * 10_000 + "[[" * 10_000 + "&lt;ref&gt;" * 1_000),
        page(7),
    ]
    counters, letters = ngrams(tmp_path, {"dump.xml": (HEAD + "".join(pages) + END).encode()}, "--max-bad-records", "20%")
    assert counters == {
        "read": 7,
        "emitted": 3,
        "dropped": {"empty_text": 1, "other_namespace": 1, "redirect": 1},
        "dead_letters": 1,
        "dead_letter_reasons": {"page_without_title_or_id": 1},
        "files": 1,
    }
    assert letters == [("dump.xml", len(HEAD + "".join(pages[:4])), "page_without_title_or_id", b"T5")]


def test_entity_bombs_are_not_unfolded(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE mediawiki [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>' + HEAD + page(1, "&b;") + END
    counters, letters = ngrams(tmp_path, {"simplewiki-bomb.xml": bomb.encode()})
    assert counters["dead_letter_reasons"] == {"xml_entities": 1}
    assert [letter[2] for letter in letters] == ["xml_entities"]
    assert counted(tmp_path) == {}


def test_index_files_only_are_no_input(tmp_path: Path) -> None:
    name = tmp_path / "simplewiki-20260901-pages-articles-multistream-index.txt.bz2"
    name.write_bytes(bz2.compress(b"1:1:A\n"))
    with pytest.raises(JobError) as error:
        run_job("ngrams", ["--input", str(name), "--output", f"{tmp_path}/out"])
    assert str(error.value) == f"--input {name}: no dump among them, only index files"
    assert not (tmp_path / "out").exists()


def test_no_permission_to_write_is_told_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "dump.xml").write_bytes(DUMP.encode())
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(JobError, match=r"/file/out/.*: cannot be written to \(.*\); choose another --output or mend its permissions"):
        run_job("ngrams", ["--input", f"{tmp_path}/dump.xml", "--output", f"{tmp_path}/file/out"])
