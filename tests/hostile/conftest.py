"""Bad inputs of every kind go through the real jobs; their books must close on exact figures."""

from __future__ import annotations

from typing import Any

from pipelines import storage
from pipelines.part import read_part
from pipelines.stage import MERGED_FROM, open_stage


def account(output: str, kind: str) -> tuple[dict[str, Any], list[tuple[str, int, str, bytes]]]:
    """Counters of a finished stage without those that are zero, and its dead letters: (input, place, reason, payload), sorted."""
    counters = {key: value for key, value in open_stage(output, kind).counters.items() if value}
    assert counters.get("read", 0) == (
        counters.get("emitted", 0) + sum(counters.get("dropped", {}).values()) + counters.get("dead_letters", 0)
    )
    urls = storage.walk(storage.join(output, "blocks" if kind in MERGED_FROM else "", "dead_letters"))
    letters = [row for url in urls for row in read_part(url).to_pylist()]
    assert counters.get("dead_letters", 0) == len(letters)
    return counters, sorted((row["input"], row["place"], row["reason"], row["payload"]) for row in letters)
