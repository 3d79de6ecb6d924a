from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from balancing.lid import load_lid
from pipelines.errors import JobError
from pipelines.jobs import run_job
from pipelines.stage import open_stage


@pytest.fixture
def entries(tmp_path: Path) -> str:
    lists = {"en": ["dog", "cat", "the", "A dog"], "fr": ["chien", "le"], "ja": ["犬"], "lv": ["suņs"], "other": ["dog"]}
    for lang, items in lists.items():
        (tmp_path / f"{lang}.json").write_text(json.dumps(items))
    given = [x for lang in lists for x in ("--metadata-json", f"{lang}={tmp_path}/{lang}.json")]
    run_job("entries", [*given, "--output", f"{tmp_path}/entries"])
    return f"{tmp_path}/entries"


ENGLISH = ["A dog sits on the grass", "A dog sits on the grass", "Children are playing in a garden", "the cat and the dog"]


def write(path: Path, lines: list[str]) -> str:
    data = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def test_captions_of_a_named_language(entries: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions = write(tmp_path / "captions.txt.gz", [*ENGLISH, ""])
    capsys.readouterr()
    argv = ["--entries", entries, "--captions", captions, "--language", "en", "--top", "3", "--json", f"{tmp_path}/c.json"]
    run_job("coverage", argv)
    assert capsys.readouterr().out.splitlines() == [
        "captions: read 5, matched 3 (60.00%)",
        "  dropped: empty_text 1, no_match 1",
        "language        captions  matched       0       1       2     3-5      6+    mean  median    entries  of them met",
        "en                     4    75.0%   25.0%    0.0%    0.0%   75.0%    0.0%    2.25       3          4            4",
        "",
        "en: frequent words that are no entries; with repeats 15 of 23 words",
        "         2  A",
        "         2  grass",
        "         2  on",
        "",
        "en: frequent captions without a match, of 1",
        "         1  Children are playing in a garden",
    ]
    first = (tmp_path / "c.json").read_bytes()
    body = json.loads(first)
    assert {key: body[key] for key in body if key != "languages"} == {
        "format_version": 1,
        "entries": open_stage(entries, "entries").id,
        "counters": {
            "read": 5,
            "emitted": 3,
            "dropped": {"empty_text": 1, "no_match": 1},
            "dead_letters": 0,
            "dead_letter_reasons": {},
            "files": 1,
            "bad_files": 0,
        },
        "dead_letters": [],
        "words_error": 0,
        "captions_error": 0,
    }
    assert body["languages"]["en"]["by_matches"] == {"0": 1, "1": 0, "2": 0, "3-5": 3, "6+": 0}
    run_job("coverage", argv)
    assert (tmp_path / "c.json").read_bytes() == first


def test_the_language_is_identified_where_none_is_named(entries: str, tmp_path: Path) -> None:
    texts = [*ENGLISH, "Le chien dort dans le jardin de la maison", "犬が公園を走っています", "Der Hund läuft über die grüne Wiese", "x1"]
    captions = tmp_path / "captions.parquet"
    pq.write_table(pa.table({"caption": texts}), captions)
    labels, scores = load_lid().identify(texts)
    assert labels[:7] == ["en"] * 4 + ["fr", "ja", "de"]
    # The first texts keep their languages, the last one has none.
    least = float(min(scores[:7].min(), 0.5))
    assert scores[-1] < least
    argv = ["--entries", entries, "--captions", str(captions), "--column", "caption"]
    run_job("coverage", [*argv, "--lid-min-score", f"{least - 1e-3}", "--json", f"{tmp_path}/c.json"])
    found = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    assert {lang: (x["captions"], x["matched"]) for lang, x in found["languages"].items()} == {
        "en": (4, 3),
        "fr": (1, 1),
        "ja": (1, 1),
        "other": (1, 0),
    }
    assert found["counters"]["dropped"] == {"language_not_built": 1, "no_match": 2}
    # Words of a language without spaces are found by its segmenter.
    assert {x["word"] for x in found["languages"]["ja"]["missing"]} == {"が", "公園", "を", "走って", "い", "ます"}


def test_a_wikipedia_that_is_merged_is_held_against_its_list(entries: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions = write(tmp_path / "c.txt", ["suņs", "Koki i ziedi"])
    capsys.readouterr()
    run_job("coverage", ["--entries", entries, "--captions", captions, "--language", "ltg"])
    assert capsys.readouterr().out.splitlines()[3].split()[:3] == ["lv", "2", "50.0%"]
    run_job("coverage", ["--entries", entries, "--captions", captions, "--language", "haw"])
    assert capsys.readouterr().out.splitlines()[3].split()[:3] == ["other", "2", "0.0%"]


def test_several_files_are_one_set_of_captions(entries: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.txt", ENGLISH)
    write(tmp_path / "in" / "b.txt.gz", ENGLISH)
    (tmp_path / "in" / "c.txt").write_bytes(b"the dog\nK\xf6ln\n")
    (tmp_path / "in" / "d.gz").write_bytes(gzip.compress(b"the dog\n" * 9)[:-12])
    capsys.readouterr()
    argv = ["--entries", entries, "--captions", f"{tmp_path}/in/*", "--language", "en", "--json", f"{tmp_path}/c.json"]
    run_job("coverage", argv)
    printed = capsys.readouterr().out.splitlines()
    counters = json.loads((tmp_path / "c.json").read_text())["counters"]
    assert counters["read"] == counters["emitted"] + counters["dropped"]["no_match"] + 2
    assert (counters["dead_letter_reasons"], counters["files"], counters["bad_files"]) == ({"not_utf8": 1, "truncated": 1}, 4, 1)
    assert printed[2] == "  dead letters: not_utf8 1, truncated 1"
    assert printed[3].startswith(
        f"  the first dead letter: file://{tmp_path}/in/c.txt, place 2: not_utf8 ('utf-8' codec can't decode byte 0xf6"
    )


def test_control_characters_do_not_reach_the_terminal(entries: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_job("coverage", ["--entries", entries, "--captions", write(tmp_path / "c", ["\x1b[31mred"]), "--language", "en"])
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "         1  '\\x1b[31mred'" in printed.splitlines()


def test_too_many_words_are_said_to_be_too_many(entries: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions = write(tmp_path / "c.txt", [f"word{i} of" for i in range(200)])
    run_job("coverage", ["--entries", entries, "--captions", captions, "--language", "en", "--memory", "10KB", "--top", "1"])
    printed = capsys.readouterr().out.splitlines()
    at = printed.index("  too many to count exactly: a count may be too small by 1; a larger --memory counts more")
    assert printed[at - 1].startswith("en: frequent words that are no entries; with repeats at least ")
    assert printed[at + 1] == "       200  of"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--language", "de"], "{0}/entries has no list for de but for en, fr, ja, lv, other"),
        (["--language", "gan"], "{0}/entries has no list for gan, whose entries are in the list zh, but for en, fr, ja, lv, other"),
        (["--language", "xx"], "--language: unknown language code 'xx'"),
        (["--captions", "{0}/absent"], "--captions {0}/absent: no such file"),
        (["--captions", "{0}/p.parquet"], "file://{0}/p.parquet: no column text; there are caption"),
        (["--entries", "{0}/absent"], "{0}/absent is no stage 'entries': there is no stage.json in it"),
        (["--lid-model", "{0}/absent"], "--lid-model {0}/absent: no such file"),
        (["--streaming"], "coverage does not know --streaming"),
    ],
)
def test_what_cannot_be_done_is_told(entries: str, tmp_path: Path, more: list[str], said: str) -> None:
    pq.write_table(pa.table({"caption": ["a"]}), tmp_path / "p.parquet")
    argv = ["--entries", entries, "--captions", write(tmp_path / "c.txt", ENGLISH), *(x.format(tmp_path) for x in more)]
    with pytest.raises(JobError) as error:
        run_job("coverage", argv)
    assert str(error.value).startswith(said.format(tmp_path))


def test_no_captions_at_all(entries: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    run_job("coverage", ["--entries", entries, "--captions", write(tmp_path / "c.txt", [])])
    assert capsys.readouterr().out == "captions: read 0, matched 0\n"
