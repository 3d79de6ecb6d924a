"""evaluate: hand over to the evaluation, which needs torch and lives in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.train import hand_over


def main(argv: Sequence[str]) -> None:
    """Run ``python -m train.evaluation`` with the same arguments and its exit status; on several GPUs torchrun starts it instead.

    Raises:
        JobError: torch is not installed, or the evaluation failed (it has said why).
    """
    hand_over("train.evaluation", argv, doing="evaluation")
