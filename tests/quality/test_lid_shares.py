"""The draws, and the table of verdicts: complete, counted right, and of texts that anyone draws again."""

from __future__ import annotations

import csv
import gzip
import pathlib
import re
import sys
from collections import Counter

import numpy as np
import pytest

from balancing.lid import load_lid
from tests.quality import lid_shares
from tests.quality.lid_shares import BOUNDS, band_name, bands_of, drawn, key_of, read, shares

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
VERDICTS = ("right", "wrong", "none")
BANDS = [band_name(band) for band in range(len(BOUNDS) + 1)]


def test_bands_begin_with_their_bound() -> None:
    scores = np.array([0.0, 0.0999, 0.1, 0.2, 0.29999, 0.3, 0.5, 1.0], np.float32)
    assert [BANDS[band] for band in bands_of(scores)] == ["0-0.1", "0-0.1", "0.1-0.2", "0.2-0.3", "0.2-0.3", "0.3-0.5", "0.5-1", "0.5-1"]
    assert shares(scores) == [2 / 8, 3 / 8, 5 / 8, 6 / 8]


def test_draws_depend_on_the_texts_alone() -> None:
    texts = [f"text {i}" for i in range(300)]
    scores = np.array([(i % 10) / 10 for i in range(300)], np.float32)
    found = list(drawn(texts, ["en"] * 300, scores, 7))
    assert Counter(judged.band for judged in found) == dict.fromkeys(range(5), 7)
    assert [(j.band, j.key) for j in found] == sorted((j.band, j.key) for j in found)
    for band in range(5):
        keys = sorted(key_of(text) for text, b in zip(texts, bands_of(scores), strict=True) if b == band)
        assert [j.key for j in found if j.band == band] == keys[:7]
    assert list(drawn(texts[::-1], ["en"] * 300, scores[::-1], 7)) == found


def table() -> list[dict[str, str]]:
    with (DOCS / "language-identification.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def document() -> str:
    return (DOCS / "language-identification.md").read_text(encoding="utf-8")


def test_the_table_has_twenty_verdicts_in_each_band() -> None:
    rows = table()
    assert list(rows[0]) == ["band", "key", "label", "score", "quote", "verdict", "why"]
    assert Counter(row["band"] for row in rows) == dict.fromkeys(BANDS, 20)
    assert {row["verdict"] for row in rows} == set(VERDICTS)
    assert len({row["key"] for row in rows}) == len(rows)
    assert all(row["why"] and len(row["quote"]) <= 32 for row in rows)


def test_the_summary_counts_the_table() -> None:
    counts = Counter((row["band"], row["verdict"]) for row in table())
    expected = {band: [counts[band, verdict] for verdict in VERDICTS] for band in BANDS}
    expected["all"] = [sum(column) for column in zip(*expected.values(), strict=True)]
    found = re.findall(r"^\| ([0-9.-]+|all) " + r"\| (\d+) " * 3 + r"\|$", document(), re.MULTILINE)
    assert {band: [int(n) for n in row] for band, *row in found} == expected


def test_the_texts_of_the_table_are_drawn_again(shared_data: pathlib.Path) -> None:
    texts = list(dict.fromkeys(read([shared_data / "captions" / "crawl-alts.txt.gz"])))
    found = [(band_name(j.band), j.key, j.label, f"{j.score:.3f}") for j in drawn(texts, *load_lid().identify(texts), 20)]
    assert found == [(row["band"], row["key"], row["label"], row["score"]) for row in table()]


def run(argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    monkeypatch.setattr(sys, "argv", ["lid_shares", *argv])
    lid_shares.main()
    return [line.split("\t") for line in capsys.readouterr().out.splitlines()]


def test_the_shares_of_the_document(shared_data: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    printed = run([str(shared_data / "captions" / "crawl-alts.txt.gz")], monkeypatch, capsys)
    found = re.findall(r"^\| (below|[0-9.]+|as empty) \| ([^|]*) \| ([^|]*) \|$", document(), re.MULTILINE)
    assert [list(row) for row in found] == [row[:3] for row in printed]


def test_what_is_printed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "texts.txt.gz"
    path.write_bytes(gzip.compress("\n".join(["a dog runs on the beach", "Suche", "Suche", "zzzzqj", ""]).encode()))
    printed = run([str(path), "--sample", "1"], monkeypatch, capsys)
    assert printed[:6] == [
        ["below", "texts (4)", "distinct (3)"],
        ["0.1", "0.0%", "0.0%"],
        ["0.2", "75.0%", "66.7%"],
        ["0.3", "75.0%", "66.7%"],
        ["0.5", "75.0%", "66.7%"],
        ["as empty", "50.0%", "33.3%", "(en, 0.1245)"],
    ]
    assert [row[0] for row in printed[6:]] == ["0.1-0.2", "0.5-1"]
    assert printed[-1][1:] == [key_of("a dog runs on the beach"), "en", printed[-1][3], "a dog runs on the beach"]
