"""run: the whole chain from one TOML file."""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines import storage
from pipelines.chain import LINKS, OUTPUTS
from pipelines.errors import JobError, did_you_mean
from pipelines.jobs import config_class, read_command, read_options, run_job
from pipelines.options import JobConfig, argv_of_table, option, option_names, positive

ABOUT = """Run the chain from one TOML file, or rebuild a published set from its card.

--from-card makes the set of a card (worldclip card) again, and says that it is the same, byte for byte, or where it first differs. The card
names the inputs; --inputs says where they lie, in a directory or in folders directly in it. Their checksums are compared before anything is
made. The inputs of one stage may lie elsewhere: STAGE=DIR, with the name that the card gives the stage; entries=DIR takes finished entries
as they are.

    worldclip run --from-card datacard.json --inputs /data --work W

Otherwise --config names the file of the chain.

The file has a key work, the directory for everything, and a table per job, whose keys are the job's options as worldclip <job> --help
lists them. A table without keys takes the defaults; a job without a table is left out, so that a chain may be the metadata alone. What a
job reads of another one of the chain, and where its output goes, need not be said; what one table says of an input (matched, entries, ...)
holds for the tables after it. A table [all] holds options for every job that runs on Beam. Relative paths, that of work too, start from
the directory in which worldclip is run, wherever the file is. Stages that are finished are skipped: the same command goes on after an
interruption, and does what is new after a table was added.

    work = "W"

    [all]
    workers = 2

    # The metadata. Lists of your own: [entries] alone, with metadata-json = ["en=list.json"].
    [ngrams]
    input = ["dumps/*.xml.bz2"]
    [titles]
    input = ["pageviews/*.gz"]
    [wordnet]
    input = "nltk_data"
    [entries]
    recipe = "metaclip2"

    # The pairs. With entries that are there already: no [entries], and here entries = "DIR".
    [match]
    input = ["crawl/*.warc.gz"]
    [dedup]
    [count]

    # The balanced set, its images, and CLIP trained on them.
    [thresholds]
    t-en = 20000
    [balance]
    seed = 1
    [images]
    contact = "https://example.org/who-we-are"
    [train]
    config = "b32_metaclip1.toml"
    set = ["train.steps=1000", "train.batch_size=512"]

    [report]"""

#: What thresholds reads as well where it looks for a number of pairs, for which it runs on Beam.
_FOR_TARGET = {"matched": "match", "siblings": "dedup"}
_NOT_BEAM = frozenset({"train", "report"})
_TRAIN_KEYS = ("config", "data", "output", "set")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    config: str = option("the TOML file of the chain", default="", metavar="FILE")
    from_card: str = option("instead: the card of a published set (worldclip card), to rebuild it", default="", metavar="FILE")
    inputs: tuple[str, ...] = option(
        "with --from-card: where the inputs lie that the card names, for all stages or for one", default=(), metavar="[STAGE=]DIR"
    )
    work: str = option("with --from-card: where everything goes", default="", metavar="DIR")
    workers: int = option("with --from-card: processes of the embedded runner", default=1, parse=positive, metavar="N")
    trust_inputs: bool = option("with --from-card: compare only the sizes of the inputs before it begins, not their content", default=False)
    keep_going: bool = option("with --from-card: make the rest also where a stage is not what the card says", default=False)

    def __post_init__(self) -> None:
        if bool(self.config) == bool(self.from_card):
            raise ValueError("give --config, or --from-card with --inputs and --work")
        if bool(self.from_card) != bool(self.work) or bool(self.from_card) != bool(self.inputs):
            raise ValueError("--inputs and --work belong to --from-card, which needs both")


def read_chain(url: str) -> dict[str, Any]:
    """The tables of a chain file, with ``_`` for ``-`` in their keys.

    Raises:
        JobError: it is no TOML, `work` is missing, or a key is no job or no table.
    """
    try:
        chain = tomllib.loads(storage.read_bytes(url).decode())
    except ValueError as error:
        raise JobError(f"{url}: not valid TOML ({error})") from error
    tables = ["all", *OUTPUTS, "report"]
    for key, value in chain.items():
        if key not in tables and key != "work":
            written, near = (f"[{key}]", did_you_mean(key, tables, form="[{}]")) if isinstance(value, dict) else (key, "")
            near = near or did_you_mean(key, ["work", *tables])
            raise JobError(f"{url}: a chain has no {written}{near} (it may have work, {', '.join(f'[{name}]' for name in tables)})")
        if key in tables and not isinstance(value, dict):
            raise JobError(f"{url}: {key} must be a table: [{key}]")
    if not isinstance(chain.get("work"), str):
        raise JobError(f'{url}: the key `work` is missing: work = "DIR" says where everything goes')
    return {key: {k.replace("-", "_"): v for k, v in value.items()} if isinstance(value, dict) else value for key, value in chain.items()}


def output_of(chain: Mapping[str, Any], job: str) -> str:
    """Where a job of the chain puts its result."""
    return str(chain.get(job, {}).get("output") or storage.join(chain["work"], OUTPUTS[job]))


def reads_of(chain: Mapping[str, Any], job: str) -> dict[str, str]:
    """Option → the job of the chain that makes what it names."""
    return {**LINKS.get(job, {}), **(_FOR_TARGET if job == "thresholds" and "target_pairs" in chain[job] else {})}


def on_beam(chain: Mapping[str, Any], job: str) -> bool:
    return job not in _NOT_BEAM and (job != "thresholds" or "target_pairs" in chain[job])


def links_of(chain: Mapping[str, Any], job: str) -> dict[str, Any]:
    """Option → value of what a job reads of others and its own table does not say: what an earlier table says, or the output of the job
    that makes it. Of its three sources, [entries] takes those that the chain makes, unless it has a ready-made list."""
    earlier = list(OUTPUTS)[: list(OUTPUTS).index(job)] if job in LINKS else []
    links = {}
    for name, maker in reads_of(chain, job).items():
        said = [chain[before][name] for before in earlier if name in chain.get(before, {})]
        if name not in chain[job] and (job != "entries" or (maker in chain and "metadata_json" not in chain[job])):
            links[name] = said[-1] if said else output_of(chain, maker)
    return links


def commands(chain: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """The command lines that a chain stands for, in order."""
    out = []
    for job in [*OUTPUTS, "report"]:
        if job in chain:
            common = chain.get("all", {}) if on_beam(chain, job) else {}
            place = {"work": chain["work"]} if job == "report" else {"output": output_of(chain, job)}
            own = None if job == "train" else option_names(config_class(job))
            out.append((job, argv_of_table({**common, **links_of(chain, job), **place, **chain[job]}, own=own)))
    return out


def check_chain(url: str, chain: Mapping[str, Any], todo: Sequence[tuple[str, Sequence[str]]]) -> None:
    """A mistake in the last table is told before the first job has run for hours.

    Raises:
        JobError: an option that its job does not know or cannot take, or an input that no job of the chain makes and that is not there.
    """
    common = argv_of_table(chain.get("all", {}), own=option_names(JobConfig))
    read_options(JobConfig, ["--output", "", *common], job="all", about="", where=f"{url}: [all]")
    for job, argv in todo:
        if job == "train":
            _check_training(f"{url}: [train]", chain["train"])
        else:
            read_command(job, argv, where=f"{url}: [{job}]")
    for job, _ in todo:
        for name, place in links_of(chain, job).items():
            maker = reads_of(chain, job)[name]
            if maker not in chain and place == output_of(chain, maker) and not storage.exists(place):
                raise JobError(f"{url}: [{job}] has no {name}: add a table [{maker}], or say where to find it: {name} = ... in [{job}]")


def _check_training(where: str, table: Mapping[str, Any]) -> None:
    strange = [key for key in table if key not in _TRAIN_KEYS]
    if strange:
        raise JobError(f"{where} does not know {strange[0]}{did_you_mean(strange[0], _TRAIN_KEYS)} (it may have {', '.join(_TRAIN_KEYS)})")
    if "config" not in table:
        raise JobError(f'{where} has no config: config = "toy.toml", for instance; worldclip train --help lists those that are there')


def main(config: RunConfig, beam_args: Sequence[str]) -> None:
    if config.from_card:
        # Not at the top: with it comes Beam, for which a command that is mistyped need not wait.
        importlib.import_module("pipelines.rebuild").rebuild(config, beam_args)
        return
    chain = read_chain(config.config)
    todo = [(job, [*argv, *(beam_args if on_beam(chain, job) else [])]) for job, argv in commands(chain)]
    check_chain(config.config, chain, todo)
    for job, argv in todo:
        try:
            run_job(job, argv)
        except JobError as error:
            raise JobError(f"{job}: {error}", exit_code=error.exit_code) from error
