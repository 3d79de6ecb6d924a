"""Two curated sets compared, against a count of their rows by hand."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines.overlap
from pipelines.errors import JobError
from pipelines.jobs import run_job
from pipelines.part import read_part, read_parts
from pipelines.stage import open_stage
from tests.pipelines.conftest import unpacked
from tests.pipelines.curated import ENTRIES, curate, make_set, match, write_inputs


@pytest.fixture(scope="module", autouse=True)
def several_parts() -> Iterator[None]:
    with unpacked():
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set (A), one of another crawl with another t (B), and one that was matched with another list and in several languages (C)."""
    root = tmp_path_factory.mktemp("diff")
    write_inputs(root / "in")
    make_set(root / "A", root / "in")
    shutil.copytree(root / "A/entries", root / "B/entries")
    match(root / "B", "matched", root / "in/two")
    curate(root / "B", ["matched"], t="4", seed="5")
    lists = []
    for lang, entries in (("en", ["photo", "cat", "newcomer", "owl"]), ("fr", ["garden", "dog"])):
        (root / f"{lang}.json").write_text(json.dumps(entries))
        lists.append(f"{lang}={root}/{lang}.json")
    run_job("entries", ["--metadata-json", *lists, "--output", f"{root}/C/entries"])
    match(root / "C", "matched", root / "in/one")
    curate(root / "C", ["matched"], t="inf")
    # Of every other pair another model would have said that it is French.
    for part in (root / "C/curated").glob("part-*.parquet"):
        table = pq.read_table(part)
        rows = [{**row, "lang": "fr", "entries": [0]} if i % 2 else row for i, row in enumerate(table.to_pylist())]
        about = pq.read_metadata(part).metadata
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema).replace_schema_metadata({b"worldclip": about[b"worldclip"]}), part)
    return root


def pairs(work: Path) -> dict[tuple[str, str], tuple[str, list[str]]]:
    """(image, text) → language and entries."""
    lists: dict[str, list[str]] = {}
    out = {}
    for table in read_parts(open_stage(f"{work}/curated", "balance")):
        for row in table.to_pylist():
            lang = row["lang"]
            if lang not in lists:
                lists[lang] = read_part(f"{work}/entries/{lang}.parquet")["entry"].to_pylist()
            out[row["image_id"], row["text"]] = lang, [lists[lang][i] for i in row["entries"]]
    return out


def diff(a: Path, b: Path, output: Path, *more: str) -> dict[str, Any]:
    run_job("diff", [f"{a}/curated", f"{b}/curated", "--json", str(output), *more])
    body: dict[str, Any] = json.loads(output.read_text())
    return body


def test_two_sets_pair_by_pair(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = pairs(made / "A"), pairs(made / "B")
    body = diff(made / "A", made / "B", tmp_path / "d.json", "--entries", f"{made}/A/entries", "--show", "2")
    numbers = {
        "before": len(a),
        "after": len(b),
        "kept": len(a.keys() & b.keys()),
        "went": len(a.keys() - b.keys()),
        "came": len(b.keys() - a.keys()),
    }
    assert all(numbers.values())
    found = {}
    for name, mine, others in (("went", a, b), ("came", b, a)):
        counted = Counter(entry for pair in mine.keys() - others.keys() for entry in mine[pair][1])
        found[name] = sorted(counted.items(), key=lambda item: (-item[1], ENTRIES.index(item[0])))[:2]
    assert body == {
        "format_version": 1,
        "kind": "balance",
        "before": {"path": f"{made}/A/curated", "id": open_stage(f"{made}/A/curated", "balance").id},
        "after": {"path": f"{made}/B/curated", "id": open_stage(f"{made}/B/curated", "balance").id},
        "pairs": {**numbers, "went_over": 0, "came_over": 0},
        "languages": {
            "en": {
                **numbers,
                "went_over": 0,
                "came_over": 0,
                "entries": {name: [{"entry": entry, "pairs": n} for entry, n in of] for name, of in found.items()},
            }
        },
    }
    assert capsys.readouterr().out.splitlines() == [
        f"before: {made}/A/curated",
        f"after:  {made}/B/curated",
        "language          before       after        kept        went        came",
        f"en          {len(a):12}{len(b):12}" + "".join(f"{numbers[name]:12}" for name in ("kept", "went", "came")),
        *(f"en          {name}{n:12}  {entry}" for name, of in found.items() for entry, n in of),
    ]


def test_how_the_sets_are_cut_changes_nothing(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = diff(made / "A", made / "B", tmp_path / "d.json", "--entries", f"{made}/A/entries")
    monkeypatch.setattr(pipelines.overlap, "_RUN_PAIRS", 7)
    assert diff(made / "A", made / "B", tmp_path / "d.json", "--entries", f"{made}/A/entries") == whole


def test_languages_and_lists_that_differ(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, c = pairs(made / "A"), pairs(made / "C")
    body = diff(made / "A", made / "C", tmp_path / "d.json", "--entries", f"{made}/A/entries", f"{made}/C/entries")
    both = a.keys() & c.keys()
    over = sum(c[pair][0] == "fr" for pair in both)
    assert 0 < over < len(both)
    french = [pair for pair, (lang, _) in c.items() if lang == "fr"]
    assert {lang: {k: v for k, v in x.items() if k != "entries"} for lang, x in body["languages"].items()} == {
        "en": {
            "before": len(a),
            "after": len(c) - len(french),
            "kept": len(both) - over,
            "went": len(a) - len(both),
            "came": len(c.keys() - a.keys() - {*french}),
            "went_over": over,
            "came_over": 0,
        },
        "fr": {
            "before": 0,
            "after": len(french),
            "kept": 0,
            "went": 0,
            "came": len({*french} - a.keys()),
            "went_over": 0,
            "came_over": over,
        },
    }
    assert body["languages"]["fr"]["entries"]["came"] == [{"entry": "garden", "pairs": len({*french} - a.keys())}]
    out = capsys.readouterr().out.splitlines()
    lines = {line.split()[0]: line for line in out[3:5]}
    assert lines["en"].endswith(f"  {over:,} went to another language")
    assert lines["fr"].endswith(f"  {over:,} came from another one")
    assert out[5].startswith("all of these")
    only = diff(made / "A", made / "C", tmp_path / "d.json", "--languages", "fr")
    assert only["languages"] == {"fr": {**body["languages"]["fr"], "entries": {"went": [], "came": []}}}
    assert only["pairs"] == {k: v for k, v in body["languages"]["fr"].items() if k != "entries"}


def test_the_same_set(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    diff(made / "A", made / "A", tmp_path / "d.json", "--entries", f"{made}/A/entries")
    n = len(pairs(made / "A"))
    assert capsys.readouterr().out.splitlines()[2:] == [f"the same pairs: 1 language ({n} pairs)"]


def test_what_is_refused(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = f"{made}/A/curated", f"{made}/B/curated"

    def refusal(*argv: str) -> str:
        with pytest.raises(JobError) as error:
            run_job("diff", [*argv])
        return str(error.value)

    assert refusal(a, f"{made}/A/entries") == f"{a} holds balance and {made}/A/entries entries: they cannot be compared"
    assert refusal(a, b, "--show", "3") == "--show needs the lists of the entries of curated sets: --entries DIR"
    assert refusal(a, b, "--languages", "fr,de") == f"--languages de, fr: neither {a} nor {b} has a pair of it"
    assert refusal(a, f"{made}/C/curated", "--entries", f"{made}/A/entries").startswith(
        f"{made}/A/entries has no list for fr, of which there"
    )
    assert refusal(a, b, "--entries", f"{made}/C/entries").startswith(
        f"{made}/C/entries is not what the pairs were matched with: en: entry id"
    )
    assert refusal(f"{made}/A/entries", f"{made}/C/entries", "--entries", f"{made}/A/entries") == (
        "--entries is for curated sets; these are entries themselves"
    )
    shutil.copytree(made / "A/curated", tmp_path / "twice")
    (one, other) = sorted(tmp_path.glob("twice/part-*"))
    shutil.copy(one, other)
    assert refusal(f"{tmp_path}/twice", b) == f"{tmp_path}/twice, {b}: a pair occurs twice in one of the sets"
    with pytest.raises(SystemExit):
        run_job("diff", [a, b, "--entries", "1", "2", "3"])
    assert capsys.readouterr().err.splitlines()[-1] == "worldclip diff: error: --entries takes one stage for both sets, or one for each"
