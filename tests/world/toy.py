"""``make toy``: balanced, unbalanced and balanced online, over several seeds, on one world that is fixed before the first training."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from metadata.ending import end_process
from tests.world.experiment import T_EN, TESTED, Clock, draw_set, figures, head_classes, run_curation, test_accuracy, train_all
from tests.world.generate import generate
from tests.world.server import serve

BUILD = Path("build/toy")
#: Curation's seed and training's; the world has its own, which stays.
SEEDS = (1, 2, 3, 4, 5)
ARMS = ("balanced", "unbalanced", "online")


def run_toy(root: Path, *, pages: int, images: int, steps: int, seeds: tuple[int, ...], config: str = "toy.toml") -> dict[str, Any]:
    """One world, and per seed a set and a model of each arm, with equal samples seen; returns every accuracy."""
    clock, work = Clock(), root / "W"
    runs = []
    with serve(root / "world" / "images") as server:
        world = generate(root / "world", pages=pages, images=images, base_url=server.base_url)
        run_curation(world, work, clock)
        head = head_classes(world, work)
        for seed in seeds:
            places = {arm: work / f"{arm}-{seed}" for arm in ARMS}
            draw_set(work, "thresholds.json", places["balanced"], seed=seed, clock=clock)
            draw_set(work, "unbalanced/thresholds.json", places["unbalanced"], seed=seed, clock=clock)
            draw_set(work, "thresholds.json", places["online"], seed=seed, clock=clock, online=True)
            train_all(list(places.values()), config=config, steps=steps, seed=seed, clock=clock, online=[places["online"]])
            accuracy = {arm: test_accuracy(world, place, head, clock) for arm, place in places.items()}
            runs.append({"seed": seed, "accuracy": accuracy, "images": figures(work, places)["images"]})
    return {
        "t_en": T_EN,
        "steps": steps,
        "classes": {"head": int(head.sum()), "tail": int((~head).sum())},
        "runs": runs,
        "table": table_of(runs),
        "seconds": clock.seconds,
    }


def table_of(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over the seeds, per arm, language and group of classes."""
    rows = []
    for arm in ARMS:
        for lang in TESTED:
            for group in ("head", "tail", "all"):
                values = np.array([run["accuracy"][arm][lang][group] for run in runs])
                spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
                rows.append({"arm": arm, "language": lang, "classes": group, "mean": float(values.mean()), "sd": spread})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=BUILD, help=f"folder to write; emptied first (default: {BUILD})")
    parser.add_argument("--images", type=int, default=4_000)
    parser.add_argument("--pages", type=int, default=200)
    parser.add_argument("--steps", type=int, default=1_500)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    arguments = parser.parse_args()
    shutil.rmtree(arguments.output, ignore_errors=True)
    arguments.output.mkdir(parents=True)
    result = run_toy(arguments.output, pages=arguments.pages, images=arguments.images, steps=arguments.steps, seeds=tuple(arguments.seeds))
    (arguments.output / "table.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"\nzero-shot accuracy, mean ± standard deviation over {len(result['runs'])} seeds, {result['steps']} steps each; ", end="")
    print(f"{result['classes']['head']} head and {result['classes']['tail']} tail classes")
    for row in result["table"]:
        print(f"  {row['arm']:11} {row['language']}  {row['classes']:5} {row['mean']:6.1%} ± {row['sd']:.1%}")


if __name__ == "__main__":
    main()
    end_process(0)
