"""The jobs by name, and how one is run."""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from typing import Any

from pipelines import storage
from pipelines.options import parse
from pipelines.stage import MANIFEST, MERGED_FROM, SUCCESS

#: Jobs in the order of the chain: name → config class of pipelines.<name>, and what ``worldclip --help`` says.
JOBS = {
    "download": ("DownloadConfig", "Wikipedia dumps and page views from where they are published"),
    "ngrams": ("NgramsConfig", "Wikipedia dumps → unigrams and bigrams per language"),
    "titles": ("TitlesConfig", "page-view files → titles with their views"),
    "wordnet": ("WordnetConfig", "WordNet and the Open Multilingual Wordnet → lemmas per language"),
    "entries": ("EntriesConfig", "all of these → one list of entries per language, and its automaton"),
    "match": ("MatchConfig", "WARC, WAT or pairs of your own → pairs with language and entries"),
    "dedup": ("DedupConfig", "which copy of each pair lives"),
    "count": ("CountConfig", "how many unique pairs match each entry"),
    "thresholds": ("ThresholdsConfig", "the balancing threshold t of every language"),
    "balance": ("BalanceConfig", "draw the balanced set"),
    "images": ("ImagesConfig", "fetch the images of the balanced set"),
    "train": ("", "train CLIP on them (the same as torchrun … -m train)"),
    "report": ("ReportConfig", "one HTML page on what went in and what came out"),
    "run": ("RunConfig", "the whole chain from one TOML file; finished stages are skipped"),
    "explain": ("ExplainConfig", "what the chain makes of one text, and why"),
    "status": ("StatusConfig", "how far a stage, or a chain, has come"),
    "finish": ("FinishConfig", "finish a stage whose parts are all there"),
}


def config_class(job: str) -> type[Any]:
    """The options of a job."""
    found: type[Any] = getattr(importlib.import_module(f"pipelines.{job}"), JOBS[job][0])
    return found


def read_command(job: str, argv: Sequence[str]) -> tuple[Any, list[str]]:
    """The config of a job from its command line, and Beam's own options. Ends the process on a wrong option, as command lines do.

    Raises:
        JobError: neither the job nor Beam knows an option.
    """
    about = importlib.import_module(f"pipelines.{job}").ABOUT
    config, beam_args = parse(config_class(job), argv, job=job, about=about)
    if beam_args:
        # Beam takes a second to import, which the jobs without it need not wait for.
        importlib.import_module("pipelines.graph").check_beam_args(beam_args)
    return config, beam_args


def run_job(job: str, argv: Sequence[str]) -> None:
    """Run one job to its end.

    Raises:
        JobError: it cannot go on.
    """
    module: Any = importlib.import_module(f"pipelines.{job}")
    if not JOBS[job][0]:
        module.main(argv)
        return
    config, beam_args = read_command(job, argv)
    started = time.monotonic()
    output = getattr(config, "output", "")
    before = _made(output)
    module.main(config, beam_args)
    after = _made(output)
    if after and after == before:
        print(f"{job}: already finished → {output}", flush=True)
    elif after:
        print(summary(job, output, time.monotonic() - started), flush=True)


def _made(output: str) -> str:
    """A tag that changes when the stage in a directory is finished anew; empty while it is not."""
    marker = storage.join(output, SUCCESS)
    return storage.expand((marker,))[0].etag if output and storage.exists(marker) else ""


def summary(job: str, output: str, seconds: float) -> str:
    """What a finished stage read and what became of it, in a few lines."""
    manifest = storage.read_json(storage.join(output, MANIFEST))
    counters = manifest["counters"]
    lines = [f"{job}: read {counters['read']:,}, emitted {counters['emitted']:,} → {output} ({manifest['rows']:,} rows, {seconds:.1f} s)"]
    for name, reasons in (("dropped", counters["dropped"]), ("dead letters", counters["dead_letter_reasons"])):
        if reasons:
            most = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
            lines.append(f"  {name}: " + ", ".join(f"{reason} {n:,}" for reason, n in most))
    if counters["dead_letters"]:
        blocks = "blocks/" if manifest["stage"] in MERGED_FROM else ""
        lines.append(f"  look at them in {storage.join(output, blocks + 'dead_letters')}")
    return "\n".join(lines)
