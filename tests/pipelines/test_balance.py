"""balance: the same set from any number of parts and workers, and what it refuses."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from balancing.gather import CURATED_COLUMNS, gather_images
from balancing.online import TextDraw, draw_texts
from balancing.pairs import image_keys
from metadata.tally import Tally
from pipelines.balance import order_of_keys
from pipelines.errors import JobError
from pipelines.jobs import run_job
from pipelines.part import read_part, read_parts
from pipelines.stage import Stage, Unit, open_stage
from tests.pipelines.conftest import contents
from tests.pipelines.pools import PoolShape, draw_parts, in_order, write_pool, write_stage

SHAPE = PoolShape(pairs=6_000, parts=1, entries=500)


def pairs_of(work: Path) -> list[str]:
    return ["--matched", f"{work}/matched", "--siblings", f"{work}/siblings"]


def curate(work: Path, *, t: str = "20", workers: str = "1") -> None:
    """From matched to curated. One worker counts: test_recount.py counts with two, whose start is what costs time."""
    how = ["--workers", workers]
    run_job("dedup", ["--matched", f"{work}/matched", "--output", f"{work}/siblings", *how])
    run_job("count", [*pairs_of(work), "--entries", f"{work}/entries", "--output", f"{work}/counts"])
    run_job("thresholds", ["--counts", f"{work}/counts", "--t", t, "--output", f"{work}/t.json"])
    run_job("balance", [*pairs_of(work), "--thresholds", f"{work}/t.json", "--seed", "7", "--output", f"{work}/curated", *how])


def curated_rows(work: Path) -> list[tuple[Any, ...]]:
    rows = [row for table in read_parts(open_stage(f"{work}/curated", "balance")) for row in table.to_pylist()]
    return sorted((row["image_id"], row["text"], row["lang"], tuple(row["entries"]), row["probability"]) for row in rows)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("balance")
    write_pool(str(root), SHAPE)
    curate(root)
    return root


@pytest.mark.parametrize(("parts", "workers"), [(3, "1"), (7, "1"), (7, "2")])
def test_parts_and_workers_do_not_show(work: Path, tmp_path: Path, parts: int, workers: str) -> None:
    shutil.copytree(work / "entries", tmp_path / "entries")
    (whole,) = draw_parts(SHAPE)
    # As crawl files do, the parts share images and pairs.
    place = np.random.default_rng(parts).integers(0, parts, len(whole))
    copies = np.random.default_rng(9).integers(0, len(whole), len(whole) // 10)
    tables = []
    for i in range(parts):
        rows = np.unique(np.concatenate((np.flatnonzero(place == i), copies[copies % parts == i])))
        table = whole.take(pa.array(rows)).combine_chunks()
        tables.append((f"{i}", table.take(pa.array(in_order(table))).combine_chunks()))
    entries = open_stage(f"{tmp_path}/entries", "entries")
    about = {"parameters": {"languages": sorted(SHAPE.languages)}, "upstream": {"entries": entries.id}}
    write_stage(f"{tmp_path}/matched", "match", iter(tables), **about)
    curate(tmp_path, workers=workers)
    assert len(open_stage(f"{tmp_path}/curated", "balance").parts) == parts
    found = curated_rows(tmp_path)
    assert found == curated_rows(work)
    assert 500 < len(found) < 3_000


def test_sets_are_nested(work: Path, tmp_path: Path) -> None:
    kept: list[set[tuple[Any, ...]]] = []
    for t in ("10", "100", "1000", "inf"):
        run_job("thresholds", ["--counts", f"{work}/counts", "--t", t, "--output", f"{tmp_path}/{t}.json"])
        run_job("balance", [*pairs_of(work), "--thresholds", f"{tmp_path}/{t}.json", "--seed", "7", "--output", f"{tmp_path}/{t}"])
        rows = [row for table in read_parts(open_stage(f"{tmp_path}/{t}", "balance")) for row in table.to_pylist()]
        kept.append({(row["image_id"], row["text"]) for row in rows})
    assert kept[0] < kept[1] < kept[2] <= kept[3]


# -- all texts of an image, for a trainer that draws -----------------------------------------------------------------------------------


def balanced(work: Path, output: Path, *options: str) -> pa.Table:
    run_job("balance", [*pairs_of(work), "--thresholds", f"{work}/t.json", "--output", str(output), *options])
    stage = open_stage(str(output), "balance")
    counters = stage.manifest["counters"]
    assert counters["read"] == counters["emitted"] + sum(counters["dropped"].values()) + counters["dead_letters"]
    assert counters["emitted"] == stage.rows
    return pa.concat_tables(list(read_parts(stage))).unify_dictionaries()


@pytest.mark.parametrize("languages", ["all", "de,ja", "ja"])
def test_a_trainer_draws_the_offline_set_in_its_first_epoch(work: Path, tmp_path: Path, languages: str) -> None:
    subset = ("--languages", languages)
    everything = balanced(work, tmp_path / "siblings", "--keep-siblings", *subset)
    images = gather_images([everything.select(CURATED_COLUMNS)])
    texts, keys = images["texts"].combine_chunks(), image_keys(images["image_id"].to_pylist())
    assert {1, 2, 3} <= set(texts.value_lengths().to_pylist())
    for seed in (0, 7):
        offline = balanced(work, tmp_path / f"offline-{seed}", "--seed", str(seed), *subset)
        rows, places = draw_texts(keys, texts, TextDraw(seed=seed, online=True), epoch=0)
        drawn = [texts.values[place].as_py() for place in places.tolist()]
        online = [(keys[row], t["pair_key"], t["text"], t["lang"], t["probability"]) for row, t in zip(rows, drawn, strict=True)]
        columns = (offline[name].to_pylist() for name in ("image_key", "pair_key", "text", "lang", "probability"))
        assert sorted(online) == sorted(zip(*columns, strict=True))
        assert 20 < len(online) < len(images)


def test_all_texts_are_kept_with_their_probability_and_the_stage_says_so(work: Path, tmp_path: Path) -> None:
    everything = balanced(work, tmp_path / "siblings", "--keep-siblings")
    (matched,) = read_parts(open_stage(f"{work}/matched", "match"))
    (siblings,) = read_parts(open_stage(f"{work}/siblings", "dedup"))
    unique = matched.filter(siblings["keep"])
    assert sorted(everything["pair_key"].to_pylist()) == sorted(unique["pair_key"].to_pylist())
    assert everything["image_key"].to_pylist() == sorted(everything["image_key"].to_pylist())
    probability = {(row["image_id"], row["text"]): row["probability"] for row in everything.to_pylist()}
    assert all(probability[row[0], row[1]] == row[4] for row in curated_rows(work))
    siblings_stage, offline = open_stage(f"{tmp_path}/siblings", "balance"), open_stage(f"{work}/curated", "balance")
    assert siblings_stage.parameters == {**offline.parameters, "seed": 0, "keep_siblings": True}
    with pytest.raises(JobError, match="keep_siblings"):
        run_job("balance", [*pairs_of(work), "--thresholds", f"{work}/t.json", "--output", f"{tmp_path}/siblings"])


# -- what does not belong together ---------------------------------------------------------------------------------------------------


def counts_from(work: Path, place: Path, **upstream: str) -> str:
    """Counts that say of themselves that they were made from other stages; their id."""
    there = open_stage(f"{work}/counts", "count")
    tables = ((p["name"].removesuffix(".parquet"), read_part(there.part_url(p["name"]))) for p in there.parts)
    write_stage(str(place), "count", tables, upstream={**there.upstream, **upstream})
    return open_stage(str(place), "count").id


@pytest.mark.parametrize("job", ["entries", "match", "dedup"])
def test_counts_of_other_stages_are_refused_with_both_names(work: Path, tmp_path: Path, job: str) -> None:
    counts_from(work, tmp_path / "counts", **{job: "another"})
    run_job("thresholds", ["--counts", f"{tmp_path}/counts", "--t", "20", "--output", f"{tmp_path}/t.json"])
    ids = {"entries": open_stage(f"{work}/entries", "entries").id, "match": open_stage(f"{work}/matched", "match").id}
    ids["dedup"] = open_stage(f"{work}/siblings", "dedup").id
    what, of = {
        "entries": (f"{work}/matched", "was matched with"),
        "match": (f"{work}/matched", "is"),
        "dedup": (f"{work}/siblings", "is"),
    }[job]
    said = f"{tmp_path}/counts was made from {job} another, but {what} {of} {ids[job]}: count again, or give what was counted"
    for name, argv in (
        ("balance", ["--thresholds", f"{tmp_path}/t.json", "--output", f"{tmp_path}/curated"]),
        ("thresholds", ["--counts", f"{tmp_path}/counts", "--target-pairs", "900", "--output", f"{tmp_path}/t2.json"]),
        ("plan", ["--counts", f"{tmp_path}/counts", "--output", f"{tmp_path}/plan.svg"]),
    ):
        with pytest.raises(JobError) as error:
            run_job(name, [*pairs_of(work), *argv])
        assert str(error.value) == said
    assert {path.name for path in tmp_path.iterdir()} == {"counts", "t.json"}


def test_thresholds_of_other_counts_are_refused_with_both_names(work: Path, tmp_path: Path) -> None:
    there = counts_from(work, tmp_path / "counts", match="another")
    with pytest.raises(JobError) as error:
        run_job(
            "balance",
            [*pairs_of(work), "--thresholds", f"{work}/t.json", "--counts", f"{tmp_path}/counts", "--output", f"{tmp_path}/curated"],
        )
    mine = open_stage(f"{work}/counts", "count").id
    said = f"{work}/t.json was made from counts {mine}, but {tmp_path}/counts is {there}: make the thresholds again"
    assert str(error.value) == said


def test_pairs_that_were_matched_with_other_entries_are_not_counted(work: Path, tmp_path: Path) -> None:
    lists = ((lang, read_part(f"{work}/entries/{lang}.parquet").slice(0, 400)) for lang in sorted(SHAPE.languages))
    other = write_stage(f"{tmp_path}/entries", "entries", lists)
    with pytest.raises(JobError) as error:
        run_job("count", [*pairs_of(work), "--entries", other.url, "--output", f"{tmp_path}/counts"])
    entries = open_stage(f"{work}/entries", "entries").id
    assert str(error.value) == f"{work}/matched was matched with entries {entries}, but {other.url} is {other.id}"


def harmed(work: Path, tmp_path: Path, change: Callable[[pa.Table], pa.Table]) -> Path:
    """A work directory whose matched part was changed behind its stage's back."""
    for name in ("matched", "siblings", "entries", "counts"):
        shutil.copytree(work / name, tmp_path / name)
    shutil.copy(work / "t.json", tmp_path / "t.json")
    (part,) = (tmp_path / "matched").glob("part-*")
    pq.write_table(change(pq.read_table(part)), part)
    return tmp_path


def with_entry(entry: int) -> Callable[[pa.Table], pa.Table]:
    """The first pair of the English list has this entry, and no other."""

    def change(table: pa.Table) -> pa.Table:
        lang, entries = table["lang"].to_pylist(), table["entries"].to_pylist()
        entries[lang.index("en")] = [entry]
        place = table.schema.get_field_index("entries")
        return table.set_column(place, table.schema.field(place), pa.array(entries, table.schema.field(place).type))

    return change


@pytest.mark.parametrize(
    ("entry", "said", "counting"),
    [
        (
            500,
            "en: entry id 500 is outside the list of 500 entries",
            "en: entry id 500 is outside the list of 500 entries, with which these pairs were not matched: match again",
        ),
        (
            -1,
            "en: entry id -1 is outside the list of 500 entries",
            "part-0000.parquet: en: entry id -1 is negative: the part is damaged; delete it and run match again",
        ),
    ],
)
def test_entries_out_of_range_are_told(work: Path, tmp_path: Path, entry: int, said: str, counting: str) -> None:
    w = harmed(work, tmp_path, with_entry(entry))
    with pytest.raises(JobError) as error:
        run_job("count", [*pairs_of(w), "--entries", f"{w}/entries", "--output", f"{w}/again"])
    assert str(error.value).endswith(counting)
    both = f"{said} that {w}/counts counts: they belong to other entries; match or count again"
    for job, argv in (
        ("balance", ["--thresholds", f"{w}/t.json", "--output", f"{w}/curated"]),
        ("thresholds", ["--counts", f"{w}/counts", "--target-pairs", "900", "--output", f"{w}/t2.json"]),
        ("thresholds", ["--counts", f"{w}/counts", "--output", f"{w}/t3.json"]),
        ("plan", ["--counts", f"{w}/counts", "--output", f"{w}/plan.svg"]),
    ):
        with pytest.raises(JobError) as error:
            run_job(job, [*pairs_of(w), *argv])
        assert str(error.value).endswith(f"matched/part-0000.parquet: {both}"), job
    assert not (w / "curated" / "_SUCCESS").exists()


def test_siblings_of_another_length_are_told(work: Path, tmp_path: Path) -> None:
    w = harmed(work, tmp_path, lambda table: table.slice(1))
    said = f"{w}/siblings/part-0000.parquet has 6000 rows, the matched part {w}/matched/part-0000.parquet 5999: run dedup again"
    for job, argv in (
        ("count", ["--entries", f"{w}/entries", "--output", f"{w}/again"]),
        ("balance", ["--thresholds", f"{w}/t.json", "--output", f"{w}/curated"]),
        ("thresholds", ["--counts", f"{w}/counts", "--target-pairs", "900", "--output", f"{w}/t2.json"]),
    ):
        with pytest.raises(JobError) as error:
            run_job(job, [*pairs_of(w), *argv])
        assert str(error.value) == said, job


@pytest.mark.parametrize("missing", ["matched", "siblings"])
def test_a_missing_part_is_named(work: Path, tmp_path: Path, missing: str) -> None:
    w = harmed(work, tmp_path, lambda table: table)
    (w / missing / "part-0000.parquet").unlink()
    for job, argv in (
        ("count", ["--entries", f"{w}/entries", "--output", f"{w}/again"]),
        ("balance", ["--thresholds", f"{w}/t.json", "--output", f"{w}/curated"]),
        ("thresholds", ["--counts", f"{w}/counts", "--target-pairs", "900", "--output", f"{w}/t2.json"]),
    ):
        with pytest.raises(JobError) as error:
            run_job(job, [*pairs_of(w), *argv])
        part = f"{w}/{missing}/part-0000.parquet"
        assert str(error.value) == f"{part} is gone, though its stage is finished: delete its _SUCCESS and run its job again", job
    # And that mends it.
    if missing == "siblings":
        (w / "siblings" / "_SUCCESS").unlink()
        run_job("dedup", ["--matched", f"{w}/matched", "--output", f"{w}/siblings"])
        run_job("count", [*pairs_of(w), "--entries", f"{w}/entries", "--output", f"{w}/again"])
        assert contents(w / "again") == contents(w / "counts")


def test_languages_without_a_pair_have_counts_and_no_threshold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A list that no text matches, and one with a few matches."""
    write_pool(str(tmp_path), PoolShape(pairs=600, parts=1, entries=50, languages=("de", "en")))
    entries = open_stage(f"{tmp_path}/entries", "entries")
    lists = [(lang, read_part(f"{entries.url}/de.parquet")) for lang in ("de", "en", "lv", "zu")]
    more = write_stage(f"{tmp_path}/more", "entries", iter(lists))
    (part,) = read_parts(open_stage(f"{tmp_path}/matched", "match"))
    about = {"parameters": {"languages": ["de", "en", "lv", "zu"]}, "upstream": {"entries": more.id}}
    shutil.rmtree(tmp_path / "matched")
    shutil.rmtree(tmp_path / "entries")
    shutil.move(tmp_path / "more", tmp_path / "entries")
    write_stage(f"{tmp_path}/matched", "match", iter([("0", part)]), **about)
    curate(tmp_path, t="5")
    printed = capsys.readouterr().out
    assert "No pair matches an entry of lv, zu: no threshold." in printed
    assert read_part(f"{tmp_path}/counts/zu.parquet")["count"].to_pylist() == [0] * 50
    assert {row[2] for row in curated_rows(tmp_path)} == {"de", "en"}
    run_job("thresholds", ["--counts", f"{tmp_path}/counts", "--min-language-matches", "1000", "--output", f"{tmp_path}/w.json"])
    assert "kept whole" in capsys.readouterr().out
    with pytest.raises(JobError, match="t is given for zu, of which there are no counts"):
        run_job("thresholds", ["--counts", f"{tmp_path}/counts", "--t", "zu=4", "--output", f"{tmp_path}/x.json"])


def test_counts_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pool without a pair goes through."""
    write_pool(str(tmp_path), PoolShape(pairs=0, parts=1, entries=5))
    curate(tmp_path)
    assert curated_rows(tmp_path) == []
    with pytest.raises(JobError, match=f"{tmp_path}/counts: no pair matches an entry, so there is nothing to plan"):
        run_job("plan", ["--counts", f"{tmp_path}/counts", "--output", f"{tmp_path}/plan.svg"])
    stage = Stage(url=f"{tmp_path}/nothing", kind="count", parameters={}, upstream={"match": "m", "dedup": "d", "entries": "e"})
    stage.begin([Unit(name="en", path="en")])
    (unit,) = stage.units()
    stage.write_part(unit, read_part(f"{tmp_path}/counts/en.parquet"), Tally())
    stage.finish()
    with pytest.raises(JobError, match="t for English needs English counts"):
        run_job("thresholds", ["--counts", f"{tmp_path}/nothing", "--t-en", "5", "--output", f"{tmp_path}/t2.json"])


@pytest.mark.parametrize("keys", [9, 10**6])
def test_rows_are_in_order_of_images_and_then_of_pairs(keys: int) -> None:
    rng = np.random.default_rng(3)
    images, pairs = (rng.integers(keys, size=200, dtype=np.uint64) for keys in (keys, 2**63))
    order = order_of_keys(images, pairs).tolist()
    assert order == sorted(range(200), key=lambda row: (images[row], pairs[row]))
