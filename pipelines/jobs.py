"""The jobs by name, and how one is run."""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from metadata.reasons import REASONS
from pipelines import storage
from pipelines.dry_run import dry_run
from pipelines.errors import JobError, did_you_mean
from pipelines.options import JobConfig, option_names, parse
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
    "evaluate": ("", "what a model has learnt: classification, retrieval, multiple choice, in many languages"),
    "submit": ("SubmitConfig", "train on a Slurm cluster, through its time limits"),
    "plan": ("PlanConfig", "what other thresholds would keep, and what a run takes in time and disk"),
    "explain": ("ExplainConfig", "what the chain makes of one text, and why"),
    "status": ("StatusConfig", "how far a stage, or a chain, has come"),
    "reasons": ("ReasonsConfig", "what the reasons mean for which records are dropped"),
    "finish": ("FinishConfig", "finish a stage whose parts are all there"),
    "diff": ("DiffConfig", "what came and what went between two sets of entries, or two curated sets"),
    "card": ("CardConfig", "what a curated set was made from, in a small file from which anyone can rebuild it"),
    "verify": ("VerifyConfig", "whether a stage, or a chain, is as it was written"),
    "clean": ("CleanConfig", "what the intermediates of a chain take, and delete them"),
    "duplicates": ("DuplicatesConfig", "which images of a set are copies of others"),
    "export": ("ExportConfig", "images and texts → webdataset shards, for open_clip's own trainer and others"),
    "coverage": ("CoverageConfig", "which of your captions match the entries, and which frequent words are missing"),
}
#: Those behind it in this table are beside the chain.
LAST_OF_CHAIN = "report"


def config_class(job: str) -> type[Any]:
    """The options of a job."""
    found: type[Any] = getattr(importlib.import_module(f"pipelines.{job}"), JOBS[job][0])
    return found


def read_command(job: str, argv: Sequence[str], *, where: str = "") -> tuple[Any, list[str]]:
    """The config of a job from its command line, and Beam's own options: see :func:`read_options`."""
    return read_options(config_class(job), argv, job=job, about=importlib.import_module(f"pipelines.{job}").ABOUT, where=where)


def read_options(kind: type[Any], argv: Sequence[str], *, job: str, about: str, where: str = "") -> tuple[Any, list[str]]:
    """A config from its command line, and Beam's own options. Ends the process on a wrong option, as command lines do.

    Raises:
        JobError: neither the job nor Beam knows an option; or what else is wrong, if the command line stands for what is at ``where``.
    """
    config, beam_args = parse(kind, argv, job=job, about=about, where=where)
    if beam_args:
        try:
            if not (issubclass(kind, JobConfig) or job == "run"):
                option = beam_args[0].partition("=")[0]
                raise JobError(f"{job} does not know {option}{did_you_mean(option.strip('-'), option_names(kind), form='--{}')}")
            # Beam takes a second to import, which the jobs without it need not wait for.
            importlib.import_module("pipelines.graph").check_beam_args(beam_args, option_names(kind))
        except JobError as error:
            raise JobError(f"{where}: {error}" if where else str(error)) from None
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
    # What submit prints then is a script, and nothing but that.
    if getattr(config, "dry_run", False) and job != "submit":
        print(dry_run(job, config, partial(module.main, config, beam_args)), flush=True)
        return
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
    if len(lines) > 1 and manifest["stage"] in REASONS:
        lines.append(f"  what the reasons mean: worldclip reasons {manifest['stage']}")
    return "\n".join(lines)
