"""reasons: what the reasons mean for which records are dropped or kept as dead letters."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from metadata.reasons import FILES, REASONS
from pipelines.errors import JobError, did_you_mean
from pipelines.options import option

ABOUT = """Say what the reasons mean for which records are dropped (a rule leaves them out) or kept as dead letters (they are broken).

Of an image, "may pass" says that another try may succeed: images --retry-failed. Anything else is for good.

    worldclip reasons                     all of them
    worldclip reasons match               those of a job
    worldclip reasons no_match truncated  these"""

_WIDTH = max(map(len, FILES | {reason: "" for of in REASONS.values() for reason in of})) + 4


@dataclass(frozen=True, kw_only=True)
class ReasonsConfig:
    names: tuple[str, ...] = option("jobs, or reasons; all if none is given", default=(), metavar="NAME", positional=True)


def explained(names: Sequence[str], width: int) -> str:
    """The reasons of these names, by job, filled to a width.

    Raises:
        JobError: a name is neither a job nor a reason.
    """
    groups = {**REASONS, "any file": FILES}
    known = {*groups, *(reason for of in groups.values() for reason in of)}
    if strange := [name for name in names if name not in known]:
        raise JobError(f"{strange[0]} is neither a job nor a reason{did_you_mean(strange[0], sorted(known))}")
    out = []
    for job, of in groups.items():
        shown = {reason: says for reason, says in of.items() if not names or job in names or reason in names}
        lines = [
            textwrap.fill(f"  {reason:{_WIDTH - 2}}{says}", width, subsequent_indent=" " * _WIDTH, break_on_hyphens=False)
            for reason, says in shown.items()
        ]
        out += [f"{job}:", *lines] if lines else []
    return "\n".join(out)


def main(config: ReasonsConfig, _: Sequence[str]) -> None:
    print(explained(config.names, shutil.get_terminal_size().columns))
