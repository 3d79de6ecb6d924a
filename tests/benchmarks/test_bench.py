"""The benchmarks on tiny generated inputs: every one runs, and each pair of ways gives the same (``compare`` raises where not)."""

from __future__ import annotations

import bz2
import json
from pathlib import Path

import pytest

from tests.benchmarks import measure, wikipedia, world_automata
from tests.benchmarks.__main__ import run, write
from tests.benchmarks.material import Material, Size
from tests.benchmarks.measure import BENCHMARKS, ResultsDifferError, compare

_TINY = Size(entries=1_000, texts=200, pages=24, copies=2, articles=12, pairs=1_000, view_lines=1_300)


@pytest.mark.slow
def test_every_benchmark_runs_and_both_ways_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "REPEATS", 1)
    monkeypatch.setattr(world_automata, "LANGUAGES", 16)
    rows = list(run(BENCHMARKS, Material(tmp_path / "material", size=_TINY, data=None)))
    write(rows, tmp_path / "build" / "bench.json")
    written = json.loads((tmp_path / "build" / "bench.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in written] == [row.name for row in rows]
    assert {row["command"].rpartition(" ")[2] for row in written} == set(BENCHMARKS)
    assert len({row["name"] for row in written}) == len(written)
    for row in written:
        assert list(row) == ["name", "value", "unit", "baseline", "ratio", "input", "command"]
        assert row["value"] > 0
        assert row["baseline"] > 0
        assert row["unit"]
        assert row["input"]
        better = row["baseline"] / row["value"] if row["unit"] in ("s", "ms", "MB", "bytes/entry") else row["value"] / row["baseline"]
        assert row["ratio"] == pytest.approx(better)


def test_ways_that_differ_are_no_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "REPEATS", 1)
    with pytest.raises(ResultsDifferError, match="unequal"):
        compare("unequal", "things/s", amount=1, fast=lambda: sum(range(10**4)), naive=lambda: 2, input="nothing", command="unequal")


def test_both_count_the_same_grams_where_there_is_no_markup(tmp_path: Path) -> None:
    text = "The quick brown fox, and the dog.\nA second line follows the first one; the fox sleeps"
    kinds = [("One", 0, ""), ("Talk", 1, ""), ("Two", 0, '<redirect title="One" />'), ("Three", 0, "")]
    pages = "".join(
        f"<page><title>{title}</title><ns>{ns}</ns><id>{i}</id>{redirect}<revision><text>{text} {title}</text></revision></page>"
        for i, (title, ns, redirect) in enumerate(kinds)
    )
    path = tmp_path / "enwiki.xml.bz2"
    xml = f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/"><siteinfo><dbname>enwiki</dbname></siteinfo>{pages}</mediawiki>'
    path.write_bytes(bz2.compress(xml.encode()))
    grams = wikipedia.naive_ngrams([path])
    assert grams["the",] == 6
    assert grams["fox", "sleeps"] == 2
    assert wikipedia.as_grams(wikipedia.fast_ngrams([path])) == grams
