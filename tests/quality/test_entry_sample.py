"""The draws, and the table of verdicts: counted right, and of entries that anyone draws again."""

from __future__ import annotations

import csv
import json
import pathlib
import re
import sys
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from metadata.entries import ENTRIES_SCHEMA
from pipelines.errors import JobError
from pipelines.jobs import run_job
from pipelines.stage import open_stage
from tests.quality import entry_sample
from tests.quality.entry_sample import JUDGED, draw, drawn_of, key_of

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
VERDICTS = ("right", "doubtful", "wrong")


def entries(by_source: dict[str, list[str]]) -> pa.Table:
    found = [(entry, source) for source, texts in by_source.items() for entry in texts]
    columns = [np.arange(len(found)), [entry for entry, _ in found], [source for _, source in found], [None] * len(found)]
    return pa.table(dict(zip(ENTRIES_SCHEMA.names, columns, strict=True))).cast(ENTRIES_SCHEMA)


def test_the_first_of_each_source_and_the_least_hashes_of_the_rest() -> None:
    words = [f"word {i}" for i in range(50)]
    table = entries({"number": ["0", "1"], "wordnet": ["ash"], "unigram": words, "title": ["Ash", "Oak", "Elm"], "extra": ["mine"]})
    drawn = list(drawn_of("en", table, first=2, random=5))
    assert [(d.source, d.entry) for d in drawn] == [
        ("wordnet", "ash"),
        ("unigram", "word 0"),
        ("unigram", "word 1"),
        *(("unigram", word) for word in sorted(words[2:], key=lambda word: key_of("en", word))[:5]),
        ("title", "Ash"),
        ("title", "Oak"),
        ("title", "Elm"),
    ]
    assert {d.lang for d in drawn} == {"en"}
    assert [table["entry"][d.id].as_py() for d in drawn] == [d.entry for d in drawn]


def test_a_draw_is_known_by_language_and_entry_and_hardly_moves_when_others_go() -> None:
    words = [f"word {i}" for i in range(50)]
    before, elsewhere = ([d.entry for d in drawn_of(lang, entries({"unigram": words}), first=0, random=10)] for lang in ("en", "de"))
    assert before != elsewhere
    kept = [word for word in words if word != before[3]]
    after = [d.entry for d in drawn_of("en", entries({"unigram": kept}), first=0, random=10)]
    assert after[:9] == before[:3] + before[4:]


@pytest.fixture
def stage(tmp_path: pathlib.Path) -> str:
    lists = {"en": ["ash", 'the "elm"', "#oak"], "ja": ["犬", "猫"]}
    for lang, texts in lists.items():
        (tmp_path / f"{lang}.json").write_text(json.dumps(texts))
    run_job("entries", ["--metadata-json", *(f"{lang}={tmp_path}/{lang}.json" for lang in lists), "--output", f"{tmp_path}/entries"])
    return f"{tmp_path}/entries"


def test_the_command_prints_a_table(stage: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    argv = ["--entries", stage, "--languages", "ja,en", "--first", "1", "--random", "5", "--sources", "extra"]
    monkeypatch.setattr(sys, "argv", ["entry_sample", *argv])
    entry_sample.main()
    others = sorted([("1", 'the "elm"'), ("2", "#oak")], key=lambda row: key_of("en", row[1]))
    rows = [("ja", "extra", "0", "犬"), ("ja", "extra", "1", "猫"), ("en", "extra", "0", "ash"), *(("en", "extra", *row) for row in others)]
    lines = ["lang\tsource\tid\tentry", *("\t".join(row) for row in rows)]
    assert capsys.readouterr().out.splitlines() == lines


def test_a_language_without_a_list_is_told(stage: str) -> None:
    with pytest.raises(JobError, match=r"fr\.parquet"):
        list(draw(open_stage(stage, "entries"), ["fr"], first=1, random=1))


def table() -> list[dict[str, str]]:
    with (DOCS / "entry-sample.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def document() -> str:
    return (DOCS / "entry-sample.md").read_text(encoding="utf-8")


def test_the_table_has_a_verdict_for_every_entry_and_a_reason_for_those_not_right() -> None:
    rows = table()
    assert list(rows[0]) == ["lang", "source", "id", "entry", "verdict", "why"]
    assert {row["verdict"] for row in rows} == set(VERDICTS)
    assert all(bool(row["why"]) == (row["verdict"] != "right") and row["entry"] and row["id"].isdigit() for row in rows)
    assert len({(row["lang"], row["id"]) for row in rows}) == len(rows)
    drawn = Counter((row["lang"], row["source"]) for row in rows)
    assert {source for _, source in drawn} == set(JUDGED)
    # The Japanese list has 100 titles in all.
    assert {place: n for place, n in drawn.items() if n != 110} == {("ja", "title"): 100}
    assert f"judged on {len(rows):,} of them" in document()


def test_the_summary_counts_the_table() -> None:
    rows = table()
    counts = Counter((row["lang"], row["source"], row["verdict"]) for row in rows)
    places = dict.fromkeys((row["lang"], row["source"]) for row in rows)
    expected = {place: [counts[(*place, verdict)] for verdict in VERDICTS] for place in places}
    expected["all", "all"] = [sum(column) for column in zip(*expected.values(), strict=True)]
    found = re.findall(r"^\| ([a-z]+) \| ([a-z]+) \| (\d+) \| (\d+) \| (\d+) \|$", document(), re.MULTILINE)
    assert {(lang, source): [int(n) for n in numbers] for lang, source, *numbers in found} == expected


def test_the_classes_of_faults_count_the_table() -> None:
    counts = Counter((row["why"], row["verdict"]) for row in table() if row["why"])
    expected = {why: [counts[why, "doubtful"], counts[why, "wrong"]] for why, _ in counts}
    found = re.findall(r"^\| ([^|]+) \| (\d+) \| (\d+) \| [^|]+ \|$", document(), re.MULTILINE)
    assert {why: [int(n) for n in numbers] for why, *numbers in found} == expected


def test_the_entries_of_the_table_are_drawn_again(shared_data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    dumps = [str(path) for wiki in ("de", "lv", "ltg") for path in sorted((shared_data / "dumps").glob(f"{wiki}wiki*.xml.bz2"))]
    run_job("ngrams", ["--input", *dumps, "--output", f"{tmp_path}/ngrams"])
    run_job("titles", ["--input", f"{shared_data}/pageviews/*.gz", "--output", f"{tmp_path}/titles"])
    given = ["--ngrams", f"{tmp_path}/ngrams", "--titles", f"{tmp_path}/titles", "--languages", "de,lv", "--recipe", "metaclip2"]
    run_job("entries", [*given, "--output", f"{tmp_path}/entries"])
    drawn = draw(open_stage(f"{tmp_path}/entries", "entries"), ["de", "lv"], first=10, random=100)
    found = [(d.lang, d.source, str(d.id), d.entry) for d in drawn]
    assert found == [(row["lang"], row["source"], row["id"], row["entry"]) for row in table() if row["lang"] in ("de", "lv")]
