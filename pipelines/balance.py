"""balance: draw the curated set. A map: matched part and siblings in, curated part out; a new t or seed needs nothing before it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial

import apache_beam as beam
import numpy as np
import pyarrow as pa

from balancing.left_out import REASONS, LeftOut
from balancing.pairs import CURATED_SCHEMA
from balancing.sampling import entry_probabilities
from balancing.selection import select_rows, sibling_rows
from metadata.tally import Tally
from pipelines import storage
from pipelines.errors import JobError
from pipelines.graph import Begin, FinishStage, ProcessUnits, run
from pipelines.left_out import LEFT_OUT, left_out_at
from pipelines.options import JobConfig, option
from pipelines.part import read_part
from pipelines.pool import check_counts, check_siblings, open_pool, read_with_siblings
from pipelines.stage import Stage, Unit, open_stage
from pipelines.thresholds import read_thresholds

ABOUT = """Draw the balanced set.

Of each image one of its texts is chosen, which is then kept with a probability that falls with the counts of its entries. Every draw is a
keyed hash of --seed and the pair: the same inputs give the same set, and a smaller t gives a subset of it. What the counts of the
thresholds left out (--alive, --drop-ids, --drop-hosts of the job count) is left out here too.

With --keep-siblings nothing is drawn: every image keeps all its texts, each with its probability, and the trainer draws anew in each epoch
(data.curation = "online"). With the same seed its first epoch is the set that would be drawn here."""

#: The stage's parameter for ``--keep-siblings``; without the option it is absent.
KEEP_SIBLINGS = "keep_siblings"


@dataclass(frozen=True, kw_only=True)
class BalanceConfig(JobConfig):
    matched: tuple[str, ...] = option("the finished stages of the job match, one or more", metavar="DIR")
    siblings: str = option("the finished stage of the job dedup", metavar="DIR")
    thresholds: str = option("the file of the job thresholds", metavar="FILE")
    counts: str = option("the counts that the thresholds were made from, if they were moved", default="", metavar="DIR")
    languages: str = option(
        "codes of the languages to take part, with commas, or all that have a threshold", default="all", metavar="CODES"
    )
    seed: int = option("seed of all draws", default=0, metavar="N")
    keep_siblings: bool = option("keep all texts of each image, for a trainer that draws them itself", default=False)


@cache
def probabilities(counts_url: str, counts_id: str, lang: str, t: float) -> np.ndarray:
    """Probability per entry of a language, held by the process: 8 bytes an entry. ``counts_id`` tells remade counts from the old."""
    return entry_probabilities(read_part(storage.join(counts_url, f"{lang}.parquet"))["count"].to_numpy(), t)


def balance_unit(unit: Unit, *, stage: Stage, siblings_url: str, counts_url: str, seed: int) -> None:
    """Draw the curated rows of one matched part, or take all that may be drawn; write them sorted by image key, which mixes hosts."""
    t = thresholds_of(stage)
    tally = Tally()
    matched, siblings = leave_out(*read_with_siblings(unit, siblings_url), left_out_at(counts_url, stage.parameters), tally)
    probability = {lang: probabilities(counts_url, stage.upstream["count"], lang, t[lang]) for lang in t}
    try:
        if stage.parameters.get(KEEP_SIBLINGS):
            rows, odds = sibling_rows(matched, siblings, probability=probability, tally=tally)
        else:
            rows, odds = select_rows(matched, siblings, probability=probability, seed=seed, tally=tally)
    except ValueError as error:
        raise JobError(f"{unit.url}: {error} that {counts_url} counts: they belong to other entries; match or count again") from error
    order = order_of_keys(*(matched[name].to_numpy()[rows] for name in ("image_key", "pair_key")))
    table = matched.take(pa.array(rows[order])).append_column(CURATED_SCHEMA.field("probability"), pa.array(odds[order]))
    carried = [field for field in matched.schema if field.name not in CURATED_SCHEMA.names]
    schema = pa.schema([*CURATED_SCHEMA, *carried])
    stage.write_part(unit, table.select(schema.names).cast(schema), tally)


def order_of_keys(image_keys: np.ndarray, pair_keys: np.ndarray) -> np.ndarray:
    """The order by image, and of equal ones by pair. uint64 each, shape (rows,)."""
    # Of most sets no image has two rows, and within a language the images are in order already: this sort makes use of both.
    order = np.argsort(image_keys, kind="stable")
    ordered = image_keys[order]
    return order if (ordered[1:] > ordered[:-1]).all() else np.lexsort((pair_keys, image_keys))


def leave_out(matched: pa.Table, siblings: pa.Table, left_out: LeftOut, tally: Tally) -> tuple[pa.Table, pa.Table]:
    """The rows that the counts did not leave out; the others are drops by reason, whichever copy of a pair they are."""
    why = left_out.reasons(matched)
    if not why.any():
        return matched, siblings
    for number, reason in enumerate(REASONS, 1):
        n = int(np.count_nonzero(why == number))
        tally.read += n
        tally.drop(reason, n)
    stays = pa.array(why == 0)
    return matched.filter(stays).combine_chunks(), siblings.filter(stays).combine_chunks()


def thresholds_of(stage: Stage) -> dict[str, float]:
    """t per language that the stage is made with: a parameter, so that workers need not read the thresholds file."""
    return {lang: float(t) for lang, t in stage.parameters["thresholds"]["t"].items()}


def build(pipeline: beam.Pipeline, stage: Stage, config: BalanceConfig, counts_url: str) -> None:
    work = partial(balance_unit, stage=stage, siblings_url=config.siblings, counts_url=counts_url, seed=config.seed)
    _ = pipeline | "Begin" >> Begin() | "BalanceParts" >> ProcessUnits(stage, work) | "FinishCurated" >> FinishStage(stage)


def plan(config: BalanceConfig) -> tuple[Stage, list[Unit], str]:
    """The stage, its units and where the counts are.

    Raises:
        JobError: the inputs do not belong together; names both sides.
    """
    pool, siblings = open_pool(config.matched), open_stage(config.siblings, "dedup")
    check_siblings(pool, siblings)
    body, t = read_thresholds(config.thresholds)
    counts_url = config.counts or storage.join(storage.parent(config.thresholds), body["counts_path"])
    counts = open_stage(counts_url, "count")
    if counts.id != body["counts"]:
        raise JobError(
            f"{config.thresholds} was made from counts {body['counts']}, but {counts_url} is {counts.id}: make the thresholds again"
        )
    check_counts(pool, siblings, counts)
    if config.languages != "all":
        wanted = {code.strip() for code in config.languages.split(",")}
        if unknown := sorted(wanted - t.keys()):
            raise JobError(f"--languages {', '.join(unknown)}: {config.thresholds} has none of it; it has {', '.join(t)}")
        t = {lang: value for lang, value in t.items() if lang in wanted}
    stage = Stage(
        url=config.output,
        kind="balance",
        parameters={
            "seed": config.seed,
            "thresholds": {"id": body["id"], "t": {lang: str(value) for lang, value in t.items()}},
            **{key: about for key, about in counts.parameters.items() if key == LEFT_OUT},
            **({KEEP_SIBLINGS: True} if config.keep_siblings else {}),
        },
        upstream={"match": pool.id, "dedup": siblings.id, "count": counts.id},
        limits=config.limits,
    )
    return stage, pool.units(), counts_url


def main(config: BalanceConfig, beam_args: Sequence[str]) -> None:
    stage, units, counts_url = plan(config)
    if stage.begin(units):
        run(partial(build, stage=stage, config=config, counts_url=counts_url), [stage], beam_args=beam_args, workers=config.workers)
