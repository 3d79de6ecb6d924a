"""Something dies in the middle of a job on Flink: it ends with the bytes of an undisturbed run, and what was done is not done again."""

from __future__ import annotations

import pathlib
import random

import pytest

from tests.engines.cluster import Cluster
from tests.engines.faults import BY_ITSELF, run_with_fault, units_of
from tests.world.chain import Chain


@pytest.mark.parametrize(
    ("job", "fault"),
    [
        ("match", "TaskManager"),
        ("ngrams", "TaskManager"),
        ("dedup", "TaskManager"),
        ("balance", "TaskManager"),
        ("match", "worker"),
        ("ngrams", "job server"),
        ("balance", "JobManager"),
    ],
)
def test_what_dies_in_the_middle_changes_nothing(cluster: Cluster, crowd: Chain, tmp_path: pathlib.Path, job: str, fault: str) -> None:
    units = units_of(crowd, job)
    choose = random.Random(f"{job} {fault}")  # noqa: S311  which one of two
    story = run_with_fault(crowd, cluster, job, tmp_path / "out", fault, when=lambda parts: len(parts) >= units // 4, choose=choose)
    assert story.codes[-1] == 0, story.said[-1]
    assert story.same
    assert story.killed
    assert story.done >= units // 4
    assert story.again == ()
    assert not list((tmp_path / "out").rglob(".tmp-*"))
    if fault in BY_ITSELF:
        assert story.codes == (0,), story.said
    else:
        assert "run the same command again" in story.said[0]
        assert "Traceback" not in story.said[0]
