"""The table of entries by source: what the command prints, and that the document says the sums of the table in docs/."""

from __future__ import annotations

import csv
import json
import pathlib
import re
import sys

import pytest

from pipelines.jobs import run_job
from tests.quality import entry_counts
from tests.quality.entry_counts import COLUMNS

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"


def test_the_command_prints_a_table(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lists = {"ja": ["犬", "猫"], "en": ["ash", "St. Louis", "oak"]}
    for lang, texts in lists.items():
        (tmp_path / f"{lang}.json").write_text(json.dumps(texts))
    run_job("entries", ["--metadata-json", *(f"{lang}={tmp_path}/{lang}.json" for lang in lists), "--output", f"{tmp_path}/entries"])
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["entry_counts", "--entries", f"{tmp_path}/entries"])
    entry_counts.main()
    assert capsys.readouterr().out.splitlines() == [
        "language\tnumber\twordnet\tunigram\tbigram\ttitle\textra\tall\tnever",
        "en\t0\t0\t0\t0\t0\t3\t3\t1",
        "ja\t0\t0\t0\t0\t0\t2\t2\t0",
    ]


def test_the_document_says_the_sums() -> None:
    with (DOCS / "entries-table.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert list(rows[0]) == list(COLUMNS)
    assert [row["language"] for row in rows] == sorted({row["language"] for row in rows})
    figures = [{name: int(row[name]) for name in COLUMNS[1:]} for row in rows]
    assert all(row["all"] == sum(row[source] for source in COLUMNS[1:-2]) for row in figures)
    document = " ".join((DOCS / "entry-sample.md").read_text(encoding="utf-8").split())
    assert f"lists of {len(rows)} languages" in document
    for source, name in (("wordnet", "lemmas"), ("unigram", "unigrams"), ("bigram", "bigrams"), ("title", "titles")):
        said = re.search(rf"and ([\d,]+) {name}", document)
        assert said, name
        assert int(said[1].replace(",", "")) == sum(row[source] for row in figures)
