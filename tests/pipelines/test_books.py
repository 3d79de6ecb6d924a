"""Sums over the parts of a stage."""

from __future__ import annotations

from metadata.tally import Tally
from pipelines.books import FileRead, account, counters_of_pack, damaged_files, first_few
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


def test_a_pack_counts_for_the_files_that_are_in_it() -> None:
    files = [
        FileRead(path="a", reasons={"invalid_json": 1}, letters=1),
        FileRead(path="b", reasons={"cut_off": 1, "broken": 2}, letters=3, damaged=True),
        FileRead(path="c", reasons={}),
    ]
    of_all = counters(5, "cut_off", "broken", "broken", "invalid_json")
    pack = counters_of_pack(of_all, files)
    assert pack == {**of_all, "files": 3, "bad_files": 1, "damaged": {"b": {"broken": 2, "cut_off": 1}}}
    assert counters_of_pack(counters(2), files[2:]) == counters(2)
    parts = [*PARTS, (Unit(name="6", path="a to c, 3 files").file, pack)]
    total = account(parts)
    assert total.keys() == account(PARTS).keys()
    assert (total["read"], total["dead_letters"], total["files"], total["bad_files"]) == (24 + 9, 4 + 4, 3 + 3, 2 + 1)
    assert damaged_files(parts) == ["b: broken 2, cut_off 1", "big: broken 1, cut_off 2", "en: broken 1"]


def test_the_first_few_names() -> None:
    assert first_few(["a", "b"]) == "a; b"
    assert first_few(["a", "b", "c"], 1) == "a; and 2 more"
    assert first_few([]) == ""
