"""Sums over the parts of a stage."""

from __future__ import annotations

from metadata.tally import Tally
from pipelines.books import account, damaged_files, first_few
from pipelines.stage import Unit


def counters(read: int, *damage: str) -> dict[str, object]:
    tally = Tally(read=read, emitted=read)
    for reason in damage:
        tally.damaged(reason, place=0)
    return tally.counters()


PARTS = [
    (Unit(name="1", path="big", offset=0, length=10).file, counters(5, "cut_off")),
    (Unit(name="2", path="big", offset=10, length=10).file, counters(6)),
    (Unit(name="3", path="big", offset=20, length=10).file, counters(7, "broken", "cut_off")),
    # Units of one path that are no ranges: lists of one language, for instance.
    (Unit(name="4", path="en").file, counters(1)),
    (Unit(name="5", path="en").file, counters(1, "broken")),
]


def test_a_file_counts_once_however_many_units_are_of_it() -> None:
    assert account(PARTS) == {
        "read": 24,
        "emitted": 20,
        "dropped": {},
        "dead_letters": 4,
        "dead_letter_reasons": {"broken": 2, "cut_off": 2},
        "files": 3,
        "bad_files": 2,
    }
    assert account([]) == {**Tally().counters(), "files": 0}


def test_damaged_files_with_their_reasons() -> None:
    assert damaged_files(PARTS) == ["big: broken 1, cut_off 2", "en: broken 1"]
    assert damaged_files(PARTS[1:2]) == []


def test_the_first_few_names() -> None:
    assert first_few(["a", "b"]) == "a; b"
    assert first_few(["a", "b", "c"], 1) == "a; and 2 more"
    assert first_few([]) == ""
