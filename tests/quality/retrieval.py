"""What a small CLIP learns from the photos of Flickr8k: recall on photos that it has not seen, over some seeds. The figures of
docs/evaluation.md; a few minutes a seed.

Every tenth photo by name is held out with its captions. The others go the way of pairs of one's own: match, dedup, count, balance with all
texts of each image, images, train.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from metadata.ending import end_process
from pipelines.jobs import run_job

HELD_OUT = 10
#: Of the ten nearest.
NEAREST = 10
WAYS = ("image_to_text", "text_to_image")


def prepare(photos: Path, entries: str, root: Path) -> None:
    """``root``/W/images to learn from, and ``root``/tasks.toml to be tested by. ``photos``: captions.csv and the folder images."""
    with open(photos / "captions.csv", newline="", encoding="utf-8") as file:
        rows = [(row["image"], row["caption"]) for row in csv.DictReader(file)]
    held_out = set(sorted({image for image, _ in rows})[HELD_OUT - 1 :: HELD_OUT])
    with open(root / "held out.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "caption"), *(row for row in rows if row[0] in held_out)])
    task = {"name": "held out", "layout": "flickr", "images": str(photos / "images"), "captions": str(root / "held out.csv")}
    (root / "tasks.toml").write_text(
        "\n".join(["[[evaluate.tasks]]", *(f"{key} = {json.dumps(value)}" for key, value in task.items()), ""])
    )
    seen = [(image, caption) for image, caption in rows if image not in held_out]
    pairs = {"url": [(photos / "images" / image).as_uri() for image, _ in seen], "text": [caption for _, caption in seen]}
    pq.write_table(pa.table(pairs), root / "pairs.parquet")
    w = f"{root}/W"
    both = ["--matched", f"{w}/matched", "--siblings", f"{w}/siblings"]
    run_job("match", ["--input", f"{root}/pairs.parquet", "--format", "parquet", "--entries", entries, "--output", f"{w}/matched"])
    run_job("dedup", ["--matched", f"{w}/matched", "--output", f"{w}/siblings"])
    run_job("count", [*both, "--entries", entries, "--output", f"{w}/counts"])
    run_job("thresholds", ["--counts", f"{w}/counts", "--t", "inf", "--output", f"{w}/thresholds.json"])
    run_job("balance", [*both, "--thresholds", f"{w}/thresholds.json", "--keep-siblings", "--output", f"{w}/curated"])
    run_job("images", ["--curated", f"{w}/curated", "--allow-files", "--max-side", "96", "--output", f"{w}/images"])


def learn(root: Path, *, seed: int, steps: int) -> dict[str, float]:
    """Train from random weights, and test: the metrics of English."""
    model, found = f"{root}/model-{seed}", root / f"evaluation-{seed}.json"
    options = [f"train.seed={seed}", f"train.steps={steps}", "data.curation=online"]
    run_job("train", ["--config", "flickr8k.toml", "--data", f"{root}/W/images", "--output", model, "--set", *options])
    run_job("evaluate", ["--model", model, "--task", f"{root}/tasks.toml", "--output", str(found)])
    figures: dict[str, float] = json.loads(found.read_text())["held out"]["en"]
    return figures


def main() -> None:
    parser = argparse.ArgumentParser("python -m tests.quality.retrieval", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--photos", metavar="DIR", type=Path, required=True, help="captions.csv (image,caption) and the folder images")
    parser.add_argument("--entries", metavar="DIR", required=True, help="a finished stage of the job entries, with a list for English")
    parser.add_argument("--output", metavar="DIR", type=Path, default=Path("build/retrieval"), help="emptied first (default: %(default)s)")
    parser.add_argument("--steps", metavar="N", type=int, default=200, help="of 100 pairs each (default: %(default)s)")
    parser.add_argument("--seeds", metavar="N", nargs="+", type=int, default=[1, 2, 3], help="default: 1 2 3")
    arguments = parser.parse_args()
    shutil.rmtree(arguments.output, ignore_errors=True)
    arguments.output.mkdir(parents=True)
    root = arguments.output.resolve()
    prepare(arguments.photos.resolve(), arguments.entries, root)
    found = [learn(root, seed=seed, steps=arguments.steps) for seed in arguments.seeds]
    print("seed", *(f"{way.replace('_', ' ')}, recall@{NEAREST}" for way in WAYS), sep="\t")
    for seed, figures in zip(arguments.seeds, found, strict=True):
        print(seed, *(f"{figures[f'{way}@{NEAREST}']:.1%}" for way in WAYS), sep="\t")


if __name__ == "__main__":
    main()
    end_process(0)
