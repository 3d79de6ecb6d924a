"""The chain on real dumps, pages and photos, where they are."""

from __future__ import annotations

import csv
import json
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.jobs import run_job
from pipelines.stage import open_stage

CHAIN = """
work = "{work}"
[ngrams]
input = ["{data}/dumps/*.xml.bz2"]
max-bad-files = "5%"          # five of the dumps are cut off on purpose
[titles]
input = ["{data}/pageviews/*.gz"]
[wordnet]
input = "{data}/nltk_data"
[entries]
[match]
input = ["{data}/crawl/*.gz"]
[dedup]
[count]
[thresholds]
t-en = 20
[balance]
seed = 1
[report]
"""


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def work(shared_data: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("real")
    (root / "chain.toml").write_text(CHAIN.format(work=root / "W", data=shared_data))
    run_job("run", ["--config", str(root / "chain.toml")])
    return root / "W"


def test_real_chain_keeps_its_books(work: pathlib.Path) -> None:
    for manifest in work.rglob("manifest.json"):
        counters = json.loads(manifest.read_text())["counters"]
        assert counters["read"] == counters["emitted"] + sum(counters["dropped"].values()) + counters["dead_letters"], manifest


def test_real_chain_comes_out_as_it_did(work: pathlib.Path) -> None:
    ngrams = open_stage(f"{work}/ngrams", "ngrams").counters
    assert (ngrams["read"], ngrams["emitted"], ngrams["dead_letter_reasons"]) == (6308, 3618, {"truncated": 5})
    matched = open_stage(f"{work}/matched", "match").counters
    siblings = open_stage(f"{work}/siblings", "dedup").counters
    curated = open_stage(f"{work}/curated", "balance").counters
    assert matched["emitted"] == siblings["read"] == curated["read"]
    assert 0 < curated["emitted"] < siblings["emitted"] < matched["emitted"] < matched["read"]
    assert (work / "report.html").stat().st_size > 10_000


def test_flickr8k_through_own_pairs_to_a_model(work: pathlib.Path, shared_data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Own pairs → match → … → images → 100 steps of a tiny model: the loss falls, open_clip loads the checkpoint."""
    open_clip = pytest.importorskip("open_clip")
    folder = shared_data / "images" / "flickr8k"
    with open(folder / "captions.csv", newline="", encoding="utf-8") as file:
        captions = list(csv.DictReader(file))
    pairs = pa.table(
        {"url": [(folder / "images" / row["image"]).as_uri() for row in captions], "text": [row["caption"] for row in captions]}
    )
    pq.write_table(pairs, tmp_path / "pairs.parquet")
    w = str(tmp_path / "W")
    run_job(
        "match", ["--input", f"{tmp_path}/pairs.parquet", "--format", "parquet", "--entries", f"{work}/entries", "--output", f"{w}/matched"]
    )
    run_job("dedup", ["--matched", f"{w}/matched", "--output", f"{w}/siblings"])
    counting = ["--matched", f"{w}/matched", "--siblings", f"{w}/siblings"]
    run_job("count", [*counting, "--entries", f"{work}/entries", "--output", f"{w}/counts"])
    run_job("thresholds", ["--counts", f"{w}/counts", "--t", "inf", "--output", f"{w}/thresholds.json"])
    run_job("balance", [*counting, "--thresholds", f"{w}/thresholds.json", "--output", f"{w}/curated"])
    run_job("images", ["--curated", f"{w}/curated", "--allow-files", "--max-side", "64", "--output", f"{w}/images"])
    assert open_stage(f"{w}/images", "images").counters["emitted"] == 1000
    sizes = ["--set", "train.steps=100", "--set", "schedule.warmup=10"]
    run_job("train", ["--config", "toy.toml", "--data", f"{w}/images", "--output", f"{w}/model", *sizes])
    losses = [json.loads(line)["loss"] for line in (tmp_path / "W" / "model" / "log.jsonl").read_text().splitlines() if "loss" in line]
    assert losses[-1] < 0.9 * losses[0]
    model = open_clip.create_model(f"local-dir:{w}/model")
    assert model.visual.image_size in (32, (32, 32))
