"""A recount without matching again: dead images, take-downs and hosts left out of counts and set, against a count by hand."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from balancing.pairs import IMAGES_SCHEMA
from metadata.tally import Tally
from pipelines import storage
from pipelines.errors import JobError
from pipelines.jobs import run_job
from pipelines.left_out import LEFT_OUT
from pipelines.part import read_part, read_parts
from pipelines.stage import Stage, Unit, open_stage
from tests.pipelines.conftest import contents
from tests.pipelines.pools import PoolShape, write_pool

SHAPE = PoolShape(pairs=12_000, parts=3, entries=300)
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool, its siblings and its counts."""
    root = tmp_path_factory.mktemp("recount")
    write_pool(str(root), SHAPE)
    run_job("dedup", ["--matched", f"{root}/matched", "--output", f"{root}/siblings"])
    count(root, root / "counts")
    return root


def pairs_of(work: Path) -> list[str]:
    return ["--matched", f"{work}/matched", "--siblings", f"{work}/siblings"]


def count(work: Path, output: Path, *more: str) -> dict[str, Any]:
    """Count; the books."""
    run_job("count", [*pairs_of(work), "--entries", f"{work}/entries", "--output", str(output), *more])
    return dict(open_stage(str(output), "count").counters)


@cache
def unique_rows(work: Path) -> Rows:
    """The living rows of the pool; tests only read them."""
    parts = (read_parts(open_stage(f"{work}/{name}", kind)) for name, kind in (("matched", "match"), ("siblings", "dedup")))
    return [
        row
        for matched, siblings in zip(*parts, strict=True)
        for row, keep in zip(matched.to_pylist(), siblings["keep"].to_pylist(), strict=True)
        if keep
    ]


def counts_by_hand(rows: Rows) -> dict[str, list[int]]:
    found = {lang: Counter[int]() for lang in SHAPE.languages}
    for row in rows:
        found[row["lang"]].update(row["entries"])
    return {lang: [of[i] for i in range(SHAPE.entries)] for lang, of in found.items()}


def counts_in(output: Path) -> dict[str, list[int]]:
    return {lang: read_part(f"{output}/{lang}.parquet")["count"].to_pylist() for lang in SHAPE.languages}


def curate(work: Path, counts: Path, t: str, *more: str) -> Rows:
    run_job("thresholds", ["--counts", str(counts), "--t", t, "--output", f"{counts}-{t}.json"])
    output = f"{counts}-{t}-curated"
    run_job("balance", [*pairs_of(work), "--thresholds", f"{counts}-{t}.json", "--seed", "1", "--output", output, *more])
    return [row for table in read_parts(open_stage(output, "balance")) for row in table.to_pylist()]


def test_nothing_left_out_is_what_it_was(work: Path) -> None:
    stage = open_stage(f"{work}/counts", "count")
    assert (stage.parameters, stage.counters["dropped"]) == ({}, {})
    assert counts_in(work / "counts") == counts_by_hand(unique_rows(work))
    assert not (work / "counts" / LEFT_OUT).exists()


@pytest.mark.parametrize("how", ["parquet", "text", "dead", "images"])
def test_thirty_percent_of_the_images_are_dead(work: Path, tmp_path: Path, how: str) -> None:
    rows = unique_rows(work)
    images = sorted({row["image_id"] for row in rows})
    dead = set(np.random.default_rng(3).permutation(images)[: len(images) * 3 // 10].tolist())
    alive = [image for image in images if image not in dead]
    before = {path: path.stat().st_mtime_ns for name in ("matched", "siblings") for path in (work / name).rglob("*")}
    option, reason = {"dead": ("--drop-ids", "image_dropped")}.get(how, ("--alive", "image_not_alive"))
    if how == "text":
        (tmp_path / "alive.txt").write_text("\n".join(alive))
    elif how == "images":
        write_images(tmp_path / "images", alive)
    else:
        # In several files, in no order, with images of which there is no pair.
        listed = [*(sorted(dead) if how == "dead" else alive)[::-1], "no such image"]
        for i in range(3):
            pq.write_table(pa.table({"url": ["u"] * len(listed[i::3]), "image_id": listed[i::3]}), tmp_path / f"list-{i}.parquet")
    place = {"text": f"{tmp_path}/alive.txt", "images": f"{tmp_path}/images"}.get(how, f"{tmp_path}/list-*.parquet")
    counters = count(work, tmp_path / "counts", option, place)
    stays = [row for row in rows if row["image_id"] not in dead]
    assert counters["read"] == len(rows)
    assert counters["emitted"] == len(stays)
    assert counters["dropped"] == {reason: len(rows) - len(stays)}
    assert counts_in(tmp_path / "counts") == counts_by_hand(stays)
    whole = {(row["image_id"], row["text"]): row["probability"] for row in curate(work, work / "counts", "inf")}
    curated = {(row["image_id"], row["text"]): row["probability"] for row in curate(work, tmp_path / "counts", "inf")}
    # Every image that is left keeps the text that it had.
    assert curated == {pair: p for pair, p in whole.items() if pair[0] not in dead}
    assert {image for image, _ in curated} == set(alive)
    books = open_stage(f"{tmp_path}/counts-inf-curated", "balance")
    assert books.counters["dropped"][reason] == sum(row["image_id"] in dead for row in all_rows(work))
    assert {path: path.stat().st_mtime_ns for path in before} == before


@cache
def all_rows(work: Path) -> Rows:
    return [row for table in read_parts(open_stage(f"{work}/matched", "match")) for row in table.to_pylist()]


def write_images(place: Path, ids: list[str]) -> None:
    """A finished stage of images."""
    stage = Stage(url=str(place), kind="images", parameters={})
    stage.begin([Unit(name=f"{i}", path=f"{i}") for i in range(2)])
    for i, unit in enumerate(stage.units()):
        rows = [{"image_id": id, "jpeg": b"", "width": 1, "height": 1, "sha256": "", "texts": []} for id in ids[i::2]]
        stage.write_part(unit, pa.Table.from_pylist(rows, schema=IMAGES_SCHEMA), Tally(read=len(rows), emitted=len(rows)))
    stage.finish()


def test_all_three_lists_and_the_probabilities_of_what_is_left(work: Path, tmp_path: Path) -> None:
    rows = unique_rows(work)
    images = sorted({row["image_id"] for row in rows})
    alive, taken_down = images[: len(images) * 4 // 5], set(images[:50])
    (tmp_path / "alive").write_text("\n".join(alive))
    (tmp_path / "down").write_text("\n".join(taken_down))
    (tmp_path / "hosts").write_text("# two of seven\nhost3.example\nHOST5.example.\n")
    lists = ["--alive", f"{tmp_path}/alive", "--drop-ids", f"{tmp_path}/down", "--drop-hosts", f"{tmp_path}/hosts"]
    counters = count(work, tmp_path / "counts", *lists)

    def reason(row: dict[str, Any]) -> str:
        if row["image_id"] not in set_of_alive:
            return "image_not_alive"
        if row["image_id"] in taken_down:
            return "image_dropped"
        return "host_dropped" if row["url"].startswith(("https://host3.", "https://host5.")) else ""

    set_of_alive = set(alive)
    why = Counter(map(reason, rows))
    assert counters["dropped"] == {name: n for name, n in why.items() if name}
    assert len(counters["dropped"]) == 3
    stays = [row for row in rows if not reason(row)]
    by_hand, curated = counts_by_hand(stays), curate(work, tmp_path / "counts", "20")
    assert counts_in(tmp_path / "counts") == by_hand
    for row in curated:
        assert not reason(row)
        miss = 1.0
        for entry in row["entries"]:
            miss *= 1.0 - min(1.0, 20 / by_hand[row["lang"]][entry])
        assert row["probability"] == 1.0 - miss
    assert len(curated) > 100
    books = open_stage(f"{tmp_path}/counts-20-curated", "balance")
    of_all = Counter(map(reason, all_rows(work)))
    assert {name: n for name, n in books.counters["dropped"].items() if name in of_all} == {name: n for name, n in of_all.items() if name}
    assert sum(books.counters["dropped"].values()) + books.counters["emitted"] == books.counters["read"] == SHAPE.pairs
    assert set(books.parameters[LEFT_OUT]) == {"alive", "dropped", "hosts"}
    # What can be expected is said of what is left.
    run_job("thresholds", ["--counts", f"{tmp_path}/counts", *pairs_of(work), "--target-pairs", "900", "--output", f"{tmp_path}/900.json"])
    assert sum(json.loads((tmp_path / "900.json").read_text())["expected_pairs"].values()) == pytest.approx(900, rel=0.1)
    run_job("balance", [*pairs_of(work), "--thresholds", f"{tmp_path}/900.json", "--output", f"{tmp_path}/900"])
    assert open_stage(f"{tmp_path}/900", "balance").rows == pytest.approx(900, rel=0.2)


def test_the_same_lists_in_other_files_are_the_same_counts(work: Path, tmp_path: Path) -> None:
    images = sorted({row["image_id"] for row in unique_rows(work)})[:500]
    (tmp_path / "a").write_text("\n".join(images))
    (tmp_path / "b").write_text("\n".join(images[250:]) + "\n")
    pq.write_table(pa.table({"image_id": images[:300][::-1]}), tmp_path / "c")
    for name, lists in (("one", ["a"]), ("two", ["c", "b"])):
        count(work, tmp_path / name, "--drop-ids", *(f"{tmp_path}/{x}" for x in lists), "--workers", "2" if name == "two" else "1")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    count(work, tmp_path / "one", "--drop-ids", f"{tmp_path}/a")  # finished already
    with pytest.raises(JobError, match=r"made with other settings .*left_out was .* and is None"):
        count(work, tmp_path / "one")


def test_an_empty_take_down_list_changes_nothing(work: Path, tmp_path: Path) -> None:
    (tmp_path / "none").write_text("\n\n")
    count(work, tmp_path / "counts", "--drop-ids", f"{tmp_path}/none", "--drop-hosts", f"{tmp_path}/none")
    without = {name: data for name, data in contents(work / "counts").items() if not name.startswith("../")}
    assert contents(tmp_path / "counts") == without


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        (("--alive", "{}/none"), "--alive {}/none: there is no image in it, so that no pair would be left"),
        (("--alive", "{}/absent"), "--alive {}/absent: no such file"),
        (("--drop-ids", "{}/odd"), "--drop-ids file://{}/odd: line 2 is not UTF-8 (invalid start byte); it takes Parquet"),
        (("--drop-ids", "{}/columns.parquet"), "--drop-ids file://{}/columns.parquet: no column image_id, only id; it takes Parquet"),
        (("--drop-hosts", "{}/hosts"), "--drop-hosts file://{}/hosts: line 1 is no host name: http://a.example/"),
        (("--alive", "{}/begun"), "{}/begun is not finished"),
    ],
)
def test_what_is_no_list_is_told(work: Path, tmp_path: Path, lists: tuple[str, ...], said: str) -> None:
    (tmp_path / "none").write_text("")
    (tmp_path / "odd").write_bytes(b"a\n\xff\n")
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "columns.parquet")
    (tmp_path / "hosts").write_text("http://a.example/\n")
    Stage(url=f"{tmp_path}/begun", kind="images", parameters={}).begin([Unit(name="a", path="a")])
    with pytest.raises(JobError) as error:
        count(work, tmp_path / "counts", *(word.format(tmp_path) for word in lists))
    assert str(error.value).startswith(said.format(tmp_path))
    assert not (tmp_path / "counts").exists()


@pytest.fixture(scope="module")
def ten_down(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Counts without ten images. Tests only read them."""
    root = tmp_path_factory.mktemp("down")
    images = sorted({row["image_id"] for row in unique_rows(work)})[:10]
    (root / "down").write_text("\n".join(images))
    count(work, root / "counts", "--drop-ids", f"{root}/down")
    return root / "counts"


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda path: path.unlink(), "left_out/dropped is gone, and with it the list of what these counts leave out: count again"),
        (lambda path: path.write_bytes(path.read_bytes()[:-8]), "left_out/dropped has 72 bytes instead of 80: count again into another"),
    ],
)
def test_lists_that_were_harmed_are_told(work: Path, ten_down: Path, tmp_path: Path, harm: Callable[[Path], None], said: str) -> None:
    # Where it lies is what a process remembers a list by.
    shutil.copytree(ten_down, tmp_path / "moved")
    harm(tmp_path / "moved" / LEFT_OUT / "dropped")
    with pytest.raises(JobError, match=said):
        curate(work, tmp_path / "moved", "inf")


def test_in_an_object_store(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLDCLIP_CACHE", str(tmp_path / "cache"))
    for path in work.rglob("*"):
        if path.is_file() and path.relative_to(work).parts[0] in ("matched", "siblings", "entries"):
            storage.write_bytes(f"memory://recount/{path.relative_to(work)}", path.read_bytes())
    images = sorted({row["image_id"] for row in unique_rows(work)})[:1_000]
    storage.write_bytes("memory://recount/down", "\n".join(images).encode())
    (tmp_path / "down").write_text("\n".join(images))
    run_job(
        "count",
        [
            *("--matched", "memory://recount/matched", "--siblings", "memory://recount/siblings", "--entries", "memory://recount/entries"),
            *("--drop-ids", "memory://recount/down", "--output", "memory://recount/counts"),
        ],
    )
    count(work, tmp_path / "counts", "--drop-ids", f"{tmp_path}/down")
    assert contents("memory://recount/counts") == contents(tmp_path / "counts")
    assert [path.stat().st_size for path in (tmp_path / "cache").iterdir() if not path.name.startswith(".")] == [8 * len(images)]
