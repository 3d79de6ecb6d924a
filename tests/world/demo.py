"""``make demo``: the whole chain on a small generated world, offline, to two trained models and a report."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from metadata.ending import end_process
from pipelines.jobs import run_job
from tests.world.experiment import T_EN, Clock, draw_set, figures, head_classes, run_curation, test_accuracy, train_all
from tests.world.generate import generate
from tests.world.server import serve

BUILD = Path("build/demo")


def run_demo(root: Path, *, pages: int, images: int, steps: int, config: str = "toy.toml") -> dict[str, Any]:
    """Make a world in ``root``, curate it, train on the balanced and on the unbalanced set, test both; returns the summary."""
    clock = Clock()
    work = root / "W"
    sets = {"balanced": work, "unbalanced": work / "unbalanced"}
    with serve(root / "world" / "images") as server:
        with clock("generate"):
            world = generate(root / "world", pages=pages, images=images, base_url=server.base_url)
        run_curation(world, work, clock)
        draw_set(work, "thresholds.json", sets["balanced"], seed=1, clock=clock)
        draw_set(work, "unbalanced/thresholds.json", sets["unbalanced"], seed=1, clock=clock)
    train_all(list(sets.values()), config=config, steps=steps, seed=1, clock=clock)
    head = head_classes(world, work)
    accuracy = {name: test_accuracy(world, place, head, clock) for name, place in sets.items()}
    with clock("report"):
        run_job("report", ["--work", str(work)])
    return {
        **figures(work, sets),
        "t_en": T_EN,
        "classes": {"head": int(head.sum()), "tail": int((~head).sum())},
        "zero_shot_accuracy": accuracy,
        "seconds": clock.seconds,
        "report": str(work / "report.html"),
    }


def print_summary(summary: dict[str, Any]) -> None:
    pairs, kept = summary["pairs"], summary["pairs"]["kept"]
    print("\nentries     " + ", ".join(f"{lang} {n:,}" for lang, n in summary["entries"].items()))
    print(f"pairs       read {pairs['read']:,}, matched {pairs['matched']:,}, unique {pairs['unique']:,}, ", end="")
    print(f"kept {kept['balanced']:,} balanced and {kept['unbalanced']:,} unbalanced")
    print(f"zero-shot accuracy, {summary['classes']['head']} head and {summary['classes']['tail']} tail classes:")
    for name, languages in summary["zero_shot_accuracy"].items():
        print(f"  {name:11}" + "".join(f"  {lang}: head {x['head']:.1%}, tail {x['tail']:.1%}" for lang, x in languages.items()))
    print("seconds     " + ", ".join(f"{name} {s:.1f}" for name, s in summary["seconds"].items()))
    print(f"report      {summary['report']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=BUILD, help=f"folder to write; emptied first (default: {BUILD})")
    parser.add_argument("--images", type=int, default=3_000, help="pictures on the generated web (default: 3000)")
    parser.add_argument("--pages", type=int, default=150, help="articles of each generated Wikipedia (default: 150)")
    parser.add_argument("--steps", type=int, default=600, help="training steps of each model (default: 600)")
    arguments = parser.parse_args()
    shutil.rmtree(arguments.output, ignore_errors=True)
    arguments.output.mkdir(parents=True)
    summary = run_demo(arguments.output, pages=arguments.pages, images=arguments.images, steps=arguments.steps)
    (arguments.output / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    print_summary(summary)


if __name__ == "__main__":
    main()
    end_process(0)
