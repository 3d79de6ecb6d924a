"""run: the whole chain from one TOML file."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines import storage
from pipelines.errors import JobError
from pipelines.jobs import config_class, read_command, run_job
from pipelines.options import argv_of_table, option

ABOUT = """Run the chain from one TOML file.

The file has a key `work`, the directory for everything, and a table per job whose keys are the job's options. Where a job's inputs come
from another job of the chain, and where its output goes, need not be said. Stages that are finished are skipped, so the same command goes
on after an interruption. A table [all] holds options for every Beam job, for instance workers = 2.

    work = "W"
    [ngrams]
    input = ["dumps/*.xml.bz2"]
    [entries]
    recipe = "metaclip2"
    [match]
    input = ["crawl/*.warc.gz"]
    [dedup]
    [count]
    [thresholds]
    t-en = 20000
    [balance]
    seed = 1"""

#: What a job of the chain reads of the others, by option: name below the work directory, and the job that must be in the chain for it.
LINKS: dict[str, dict[str, tuple[str, str]]] = {
    "entries": {"ngrams": ("ngrams", "ngrams"), "titles": ("titles", "titles"), "wordnet": ("wordnet", "wordnet")},
    "match": {"entries": ("entries", "entries")},
    "dedup": {"matched": ("matched", "match")},
    "count": {"matched": ("matched", "match"), "siblings": ("siblings", "dedup"), "entries": ("entries", "entries")},
    "thresholds": {"counts": ("counts", "count")},
    "balance": {"matched": ("matched", "match"), "siblings": ("siblings", "dedup"), "thresholds": ("thresholds.json", "thresholds")},
    "images": {"curated": ("curated", "balance")},
    "train": {"data": ("images", "images")},
}
OUTPUTS = {
    "ngrams": "ngrams",
    "titles": "titles",
    "wordnet": "wordnet",
    "entries": "entries",
    "match": "matched",
    "dedup": "siblings",
    "count": "counts",
    "thresholds": "thresholds.json",
    "balance": "curated",
    "images": "images",
    "train": "model",
}
_NOT_BEAM = frozenset({"thresholds", "train", "report"})


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    config: str = option("the TOML file of the chain", metavar="FILE")


def read_chain(url: str) -> dict[str, Any]:
    """The tables of a chain file.

    Raises:
        JobError: it is no TOML, `work` is missing, or a key is no job or no table.
    """
    try:
        chain = tomllib.loads(storage.read_bytes(url).decode())
    except ValueError as error:
        raise JobError(f"{url}: not valid TOML ({error})") from error
    if not isinstance(chain.get("work"), str):
        raise JobError(f'{url}: the key `work` is missing: work = "DIR" says where everything goes')
    known = {"work", "all", "report", *OUTPUTS}
    strange = [key for key in chain if key not in known]
    if strange:
        raise JobError(f"{url}: there is no job [{strange[0]}]; a chain may have {', '.join(sorted(known - {'work'}))}")
    plain = [key for key, value in chain.items() if key != "work" and not isinstance(value, dict)]
    if plain:
        raise JobError(f"{url}: {plain[0]} must be a table: [{plain[0]}]")
    return chain


def commands(chain: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """The command lines that a chain stands for, in order."""
    work, out = chain["work"], []
    for job in [*OUTPUTS, "report"]:
        if job not in chain:
            continue
        table = {key.replace("-", "_"): value for key, value in chain[job].items()}
        common = {} if job in _NOT_BEAM else {key.replace("-", "_"): value for key, value in chain.get("all", {}).items()}
        links = {name: storage.join(work, path) for name, (path, maker) in LINKS.get(job, {}).items() if maker in chain or job != "entries"}
        if "metadata_json" in table:
            links = {}
        place = {"work": work} if job == "report" else {"output": storage.join(work, OUTPUTS[job])}
        out.append((job, argv_of_table({**common, **links, **place, **table})))
    return out


def check_keys(url: str, job: str, argv: Sequence[str]) -> None:
    """Raises JobError for a key that is close to one of the job's options; what is close to none may be Beam's."""
    known = [field.name.replace("_", "-") for field in dataclasses.fields(config_class(job))]
    for key in (word.removeprefix("--") for word in argv if word.startswith("--")):
        close = difflib.get_close_matches(key, known, 1)
        if key not in known and close:
            raise JobError(f"{url}: [{job}] does not know {key}; did you mean {close[0]}?")


def main(config: RunConfig, beam_args: Sequence[str]) -> None:
    chain = [(job, [*argv, *([] if job in _NOT_BEAM else beam_args)]) for job, argv in commands(read_chain(config.config))]
    # A mistake in the last table is told before the first job has run for hours.
    for job, argv in chain:
        if job != "train":
            check_keys(config.config, job, argv)
            read_command(job, argv)
    for job, argv in chain:
        run_job(job, argv)
