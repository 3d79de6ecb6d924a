"""finish: do by hand what the last step of a job does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.errors import JobError
from pipelines.options import LimitsConfig, option
from pipelines.stage import MERGED_FROM, Stage

ABOUT = """Finish a stage whose parts are all there.

A job does this itself as its last step. This is for a stage whose job ended before it, or that failed for too much bad input which you
accept: give a higher --max-bad-records or --max-bad-files. For ngrams and titles, which have two steps, run the job itself again
instead."""


@dataclass(frozen=True, kw_only=True)
class FinishConfig(LimitsConfig):
    output: str = option("the directory of the stage", metavar="DIR", positional=True)


def main(config: FinishConfig, _: Sequence[str]) -> None:
    stage = Stage.begun(config.output, config.limits)
    if stage.kind in MERGED_FROM:
        raise JobError(
            f"{config.output}: its first step may not be accepted yet; run worldclip {stage.kind} again with the limits that you accept"
        )
    stage.finish()
