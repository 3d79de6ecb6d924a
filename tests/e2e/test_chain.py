"""The whole chain on the generated world: what comes out is what the world's own account says, whatever happens on the way."""

from __future__ import annotations

import json
import multiprocessing
import os
import pathlib
import shutil
import signal
from collections import Counter
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines.jobs import run_job
from pipelines.part import read_part, read_parts
from pipelines.stage import open_stage
from tests.quick_beam import remember
from tests.world.chain import PLACES, Chain, arguments, contents, run_chain

MATCHED_ONCE = ("match", "dedup", "count", "thresholds", "balance")


def rows(stage: Any) -> list[dict[str, Any]]:
    return [row for table in read_parts(stage) for row in table.to_pylist()]


def test_every_record_is_accounted_for(chain: Chain) -> None:
    for place in PLACES.values():
        if place.endswith(".json"):
            continue
        for directory in (chain.work / place, chain.work / place / "blocks"):
            if not directory.is_dir():
                continue
            counters = json.loads((directory / "manifest.json").read_text())["counters"]
            assert counters["read"] == counters["emitted"] + sum(counters["dropped"].values()) + counters["dead_letters"], directory


def test_dumps_and_page_views_give_what_the_world_says(chain: Chain) -> None:
    ngrams = open_stage(f"{chain.work}/ngrams", "ngrams").counters
    truth = chain.world.dump_truth.values()
    assert ngrams["read"] == sum(t.pages for t in truth)
    assert ngrams["emitted"] == sum(t.articles for t in truth)
    assert ngrams["dropped"] == {
        "empty_text": sum(t.empty for t in truth),
        "other_namespace": sum(t.other_namespaces for t in truth),
        "redirect": sum(t.redirects for t in truth),
    }
    titles = open_stage(f"{chain.work}/titles", "titles")
    assert titles.counters["read"] == chain.world.pageview_truth.lines
    assert titles.counters["dropped"] == chain.world.pageview_truth.dropped
    views = {(row["lang"], row["title"]): row["views"] for row in rows(titles)}
    assert views == {(lang, title): n for lang, of in chain.world.pageview_truth.views.items() for title, n in of.items()}


def test_pairs_are_those_of_the_world(chain: Chain) -> None:
    truth = chain.world.crawl_truth.values()
    counters = open_stage(f"{chain.work}/matched", "match").counters
    written = [pair for t in truth for pair in t.pairs]
    dropped = sum((Counter(t.dropped) for t in truth), Counter())
    assert counters["read"] == len(written) + dropped.total()
    assert {reason: counters["dropped"][reason] for reason in dropped} == dict(dropped)
    matched = {(row["url"], row["text"]) for row in rows(open_stage(f"{chain.work}/matched", "match"))}
    assert matched <= {(pair.url, pair.text) for pair in written}
    unique = open_stage(f"{chain.work}/siblings", "dedup").counters["emitted"]
    assert unique == len(matched)


def test_texts_of_the_unknown_language_go_to_other(chain: Chain) -> None:
    lang_of = {pair.text: pair.lang for t in chain.world.crawl_truth.values() for pair in t.pairs}
    found = [row for row in rows(open_stage(f"{chain.work}/matched", "match")) if lang_of[row["text"]] == "chr"]
    assert found
    assert {row["lang"] for row in found} == {"other"}


def test_matches_are_substrings_and_counts_count_them(chain: Chain) -> None:
    """Counts of every entry, recounted from the text by brute force."""
    from metadata.text import pattern_of_entry, rule_set, space_texts

    rules = rule_set("default")
    unique = {(row["image_id"], row["text"]): row["lang"] for row in rows(open_stage(f"{chain.work}/matched", "match"))}
    for part in open_stage(f"{chain.work}/counts", "count").parts:
        lang = part["name"].removesuffix(".parquet")
        entries = read_part(f"{chain.work}/entries/{lang}.parquet")["entry"].to_pylist()
        counts = read_part(f"{chain.work}/counts/{lang}.parquet")["count"].to_pylist()
        texts = space_texts([text for (_, text), of in unique.items() if of == lang], rules)
        assert counts == [sum(pattern_of_entry(entry, rules) in text for text in texts) for entry in entries]


def test_one_text_of_an_image_is_curated_at_most(chain: Chain) -> None:
    curated = rows(open_stage(f"{chain.work}/curated", "balance"))
    assert curated
    assert max(Counter(row["image_id"] for row in curated).values()) == 1


def test_images_are_the_pictures_that_live(chain: Chain) -> None:
    images = rows(open_stage(f"{chain.work}/images", "images"))
    curated = {row["image_id"]: row["url"] for row in rows(open_stage(f"{chain.work}/curated", "balance"))}
    got = {row["url"] for row in images}
    failed = {row["url"] for file in (chain.work / "images" / "failed").iterdir() for row in pq.read_table(file).to_pylist()}
    assert got | failed == set(curated.values())
    assert not got & failed
    assert failed >= set(chain.world.dead) & set(curated.values())
    assert failed <= {*chain.world.dead, *chain.world.odd}


@pytest.mark.slow
def test_other_directory_other_order_other_workers(chain: Chain, tmp_path: pathlib.Path) -> None:
    """Inputs elsewhere and listed the other way round, two processes: the same bytes."""
    moved = tmp_path / "moved"
    shutil.copytree(chain.world.crawl, moved / "crawl")
    shutil.copytree(chain.world.dumps, moved / "dumps")
    work = tmp_path / "W"
    for job in ("ngrams", "titles", "wordnet", "entries", *MATCHED_ONCE):
        argv = arguments(job, chain.world, work)
        for flag, folder, pattern in (("match", "crawl", "*.gz"), ("ngrams", "dumps", "*.xml.bz2")):
            if job == flag:
                files = sorted(map(str, (moved / folder).glob(pattern)), reverse=True)
                argv = [argv[0], *files, *argv[2:]]
        run_job(job, [*argv, *(() if job == "thresholds" else ("--workers", "2"))])
    for job in ("ngrams", "titles", "wordnet", "entries", *MATCHED_ONCE):
        place = PLACES[job]
        if place.endswith(".json"):
            assert (work / place).read_bytes() == (chain.work / place).read_bytes()
        else:
            assert contents(work / place) == contents(chain.work / place), place


def _run_and_die(job: str, argv: list[str], fatal: int, after: bool) -> None:
    """In a process of its own: run a job and SIGKILL oneself at the ``fatal``-th file that appears, just before or just after it does."""
    replace, seen = os.replace, 0

    def replace_and_die(source: str, target: str) -> None:
        nonlocal seen
        seen += 1
        if seen == fatal and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if seen == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace_and_die  # type: ignore[assignment]
    remember()
    run_job(job, argv)


@pytest.mark.parametrize("after", [False, True], ids=["before-a-part-appears", "after-it-did"])
@pytest.mark.parametrize("job", [job for job in PLACES if job != "thresholds"])
def test_killed_and_started_again(chain: Chain, tmp_path: pathlib.Path, job: str, after: bool) -> None:
    """Every stage, killed half-way and run again, has the bytes of the undisturbed run."""
    work = chain.copy_of(tmp_path / "W", without=job)
    argv = arguments(job, chain.world, work)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipelines.jobs", *(f"pipelines.{name}" for name in PLACES)])
    # The first two files are stage.json and units.parquet, the last two manifest.json and _SUCCESS.
    undisturbed = len([p for p in (chain.work / PLACES[job]).rglob("*") if p.is_file()])
    process = context.Process(target=_run_and_die, args=(job, argv, max(3, undisturbed // 2), after))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (work / PLACES[job] / "_SUCCESS").exists()
    run_job(job, argv)
    assert contents(work / PLACES[job]) == contents(chain.work / PLACES[job])
    assert not list((work / PLACES[job]).rglob(".tmp-*"))


def test_running_again_changes_nothing(chain: Chain, tmp_path: pathlib.Path) -> None:
    work = tmp_path / "W"
    shutil.copytree(chain.work, work)
    before = {p: p.stat().st_mtime_ns for p in work.rglob("*") if p.is_file()}
    run_chain(chain.world, work, jobs=tuple(job for job in PLACES if job != "thresholds"))
    assert {p: p.stat().st_mtime_ns for p in work.rglob("*") if p.is_file()} == before


def test_more_inputs_extend_a_stage(chain: Chain, tmp_path: pathlib.Path) -> None:
    files = sorted(map(str, chain.world.crawl.glob("*.gz")))
    base = ["--entries", f"{chain.work}/entries", "--output", f"{tmp_path}/matched"]
    run_job("match", ["--input", *files[:3], *base])
    first = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "matched").glob("part-*")}
    run_job("match", ["--input", *files, *base])
    assert len(first) == 3
    assert {name: (tmp_path / "matched" / name).stat().st_mtime_ns for name in first} == first
    assert contents(tmp_path / "matched") == contents(chain.work / "matched")


def test_a_smaller_t_gives_a_subset(chain: Chain, tmp_path: pathlib.Path) -> None:
    kept: list[set[tuple[str, str]]] = []
    for t in ("1", "2", "inf"):
        base = arguments("balance", chain.world, chain.work)
        thresholds, curated = f"{tmp_path}/t{t}.json", f"{tmp_path}/curated-{t}"
        run_job("thresholds", ["--counts", f"{chain.work}/counts", "--t", t, "--output", thresholds])
        run_job("balance", [*base[:4], "--thresholds", thresholds, "--seed", "1", "--output", curated])
        kept.append({(row["image_id"], row["text"]) for row in rows(open_stage(curated, "balance"))})
    assert kept[0] < kept[1] < kept[2]
