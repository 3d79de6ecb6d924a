"""What a core does in a second, as measured: the one place for the figures by which plan tells what a run will cost.

Measured by ``python -m tests.benchmarks`` (the names behind the figures) in CPU time on one core of a small cloud machine that had other
work to do. What a runner needs for itself, and waiting for disks and networks, is not in them: twice as much is a careful plan.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Bytes of an image as ``images`` keeps it, at the sizes of the web, and what decoding its half million pixels takes.
IMAGE_BYTES = 60_000
_IMAGE_SECONDS = 0.010


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Core seconds for one of ``of``."""

    stage: str
    of: str
    seconds: float
    measured: str


MATCH = Cost(stage="match", of="candidate pairs", seconds=1 / 41_000, measured="wat_natural: 41,000 texts/s")
MATCH_WARC = Cost(stage="match", of="MB of WARC", seconds=1 / 26, measured="warc: 26 MB/s")
DEDUP = Cost(stage="dedup", of="matched pairs", seconds=1 / 1_800_000, measured="dedup: map 9.6 M/s and reduce 2.2 M/s")
COUNT = Cost(stage="count", of="matched pairs", seconds=1 / 11_000_000, measured="the function that counts a part: 11 M/s")
THRESHOLDS = Cost(stage="thresholds", of="matched pairs", seconds=2 / 3_400_000, measured="target_pairs: 3.4 M/s a pass, two passes")
BALANCE = Cost(stage="balance", of="matched pairs", seconds=1 / 980_000, measured="balance_job: 0.98 M/s")
IMAGES = Cost(stage="images", of="curated pairs", seconds=_IMAGE_SECONDS, measured="19 ns a pixel to decode, half a million pixels")
