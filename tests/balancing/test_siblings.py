"""De-duplication against a dictionary: which copy lives, its rank, and the counts of its image."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from balancing.pairs import SIBLINGS_SCHEMA
from balancing.siblings import RECORD, range_of, resolve, siblings_table, verdicts_by_part

LANGUAGES = ["de", "en", "zh"]
HIGH = 2**64 - 1

Row = tuple[int, int, int]  # image key, pair key, language code


def brute_force(parts: list[list[Row]]) -> list[list[dict]]:
    """The siblings of every row, from dictionaries."""
    winner: dict[tuple[int, int], tuple[int, int]] = {}
    for part, rows in enumerate(parts):
        for row, (image, pair, _) in enumerate(rows):
            winner.setdefault((image, pair), (part, row))
    texts: dict[int, dict[str, list[int]]] = {}
    for (image, pair), (part, row) in winner.items():
        texts.setdefault(image, {}).setdefault(LANGUAGES[parts[part][row][2]], []).append(pair)
    out = []
    for part, rows in enumerate(parts):
        answers = []
        for row, (image, pair, lang) in enumerate(rows):
            if winner[image, pair] != (part, row):
                answers.append({"keep": False, "rank": -1, "n": []})
                continue
            mine = texts[image]
            n = [{"lang": name, "n": len(mine[name])} for name in sorted(mine)]
            answers.append({"keep": True, "rank": sorted(mine[LANGUAGES[lang]]).index(pair), "n": n})
        out.append(answers)
    return out


def to_records(parts: list[list[Row]]) -> np.ndarray:
    flat = [(image, pair, lang, part, row) for part, rows in enumerate(parts) for row, (image, pair, lang) in enumerate(rows)]
    return np.array(flat, dtype=RECORD)


def tables_of(parts: list[list[Row]], *, ranges: int, seed: int) -> list[pa.Table]:
    """The whole way: records in random order, cut into ranges, resolved apart, put together per part with the ranges in random order."""
    rng = np.random.default_rng(seed)
    records = rng.permutation(to_records(parts))
    where = range_of(records["image_key"], ranges)
    answers: dict[int, list] = {part: [] for part in range(len(parts))}
    for number in rng.permutation(ranges):
        for part, answer in verdicts_by_part(records[where == number]).items():
            answers[part].append(answer)
    return [siblings_table(len(rows), answers[part], LANGUAGES) for part, rows in enumerate(parts)]


KEYS = st.sampled_from([0, 1, 2, 2**32, 2**63 - 1, 2**63, HIGH - 1, HIGH])
PARTS = st.lists(st.lists(st.tuples(KEYS, st.sampled_from([0, 1, 5, 2**63, HIGH]), st.integers(0, 2)), max_size=12), min_size=1, max_size=4)


@settings(max_examples=200, deadline=None)
@given(parts=PARTS, ranges=st.integers(1, 5), seed=st.integers(0, 99))
@example(parts=[[]], ranges=1, seed=0)
@example(parts=[[(0, 0, 1)], [(0, 0, 0), (0, 1, 0)]], ranges=1, seed=0)  # one pair, two languages: still one pair
def test_siblings_are_those_of_a_dictionary(parts: list[list[Row]], ranges: int, seed: int) -> None:
    tables = tables_of(parts, ranges=ranges, seed=seed)
    for table in tables:
        table.validate(full=True)
        assert table.schema.equals(SIBLINGS_SCHEMA)
    assert [table.to_pylist() for table in tables] == brute_force(parts)


def test_many_parts_and_images() -> None:
    rng = np.random.default_rng(0)
    parts = [
        [(int(i) << 54, int(p) % 1000, int(p) % 3) for i, p in zip(rng.integers(0, 300, n), rng.integers(0, 40, n), strict=True)]
        for n in (2000, 0, 1, 3000)
    ]
    tables = tables_of(parts, ranges=7, seed=1)
    assert [table.to_pylist() for table in tables] == brute_force(parts)
    kept = sum(table["keep"].to_pylist().count(True) for table in tables)
    assert kept == len({(image, pair) for rows in parts for image, pair, _ in rows}) < 5001


def test_an_image_with_a_hundred_thousand_texts() -> None:
    """A placeholder image; every text lies in two parts, a third of them in each language."""
    n = 100_000
    records = np.zeros(2 * n, dtype=RECORD)
    records["image_key"] = 77
    records["pair_key"] = np.tile(np.random.default_rng(0).permutation(n).astype(np.uint64), 2)
    records["lang"] = records["pair_key"] % 3
    records["part"] = np.repeat([0, 1], n)
    records["row"] = np.tile(np.arange(n), 2)
    verdicts = verdicts_by_part(np.random.default_rng(1).permutation(records))
    assert list(verdicts) == [0]
    table = siblings_table(n, [verdicts[0]], LANGUAGES)
    assert pa.compute.all(table["keep"]).as_py()
    assert (table["rank"].to_numpy() == records["pair_key"][:n] // 3).all()
    assert table["n"][0].as_py() == table["n"][n - 1].as_py()
    assert table["n"][0].as_py() == [{"lang": "de", "n": 33334}, {"lang": "en", "n": 33333}, {"lang": "zh", "n": 33333}]
    assert set(siblings_table(n, [], LANGUAGES)["rank"].to_pylist()) == {-1}


@settings(max_examples=50, deadline=None)
@given(parts=PARTS, seed=st.integers(0, 99))
def test_order_of_records_does_not_matter(parts: list[list[Row]], seed: int) -> None:
    records = to_records(parts)
    shuffled = np.random.default_rng(seed).permutation(records)
    for ours, theirs in zip(resolve(records), resolve(shuffled), strict=True):
        assert ours.tobytes() == theirs.tobytes()


def test_resolve_of_nothing() -> None:
    winners, rank, counts = resolve(np.zeros(0, dtype=RECORD))
    assert (len(winners), len(rank), len(counts)) == (0, 0, 0)
    assert verdicts_by_part(np.zeros(0, dtype=RECORD)) == {}


@pytest.mark.parametrize("ranges", [1, 2, 3, 7, 256, 1000])
def test_ranges_partition_the_keys_in_order_and_evenly(ranges: int) -> None:
    keys = np.concatenate(
        [np.array([0, 1, HIGH - 1, HIGH], dtype=np.uint64), np.random.default_rng(0).integers(0, 2**64, 100_000, dtype=np.uint64)]
    )
    where = range_of(np.sort(keys), ranges)
    assert (where[0], where[-1]) == (0, ranges - 1)
    assert (np.diff(where) >= 0).all()
    assert where.tolist() == [int(key) * ranges >> 64 for key in np.sort(keys) >> np.uint64(32) << np.uint64(32)]
    sizes = np.bincount(where, minlength=ranges)
    assert abs(sizes - len(keys) / ranges).max() < 6 * (len(keys) / ranges) ** 0.5


def test_a_record_is_small() -> None:
    assert RECORD.itemsize == 28
