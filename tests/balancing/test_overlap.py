from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancing.overlap import LanguageOverlap, Overlap, rows_in_both, total

LANGUAGES = ("de", "en", "fr")
#: A set: (image key, pair key) → (language, entries).
SETS = st.dictionaries(
    st.tuples(st.integers(0, 5), st.integers(0, 5)), st.tuples(st.sampled_from(LANGUAGES), st.frozensets(st.integers(0, 3), max_size=3))
)
Set = dict[tuple[int, int], tuple[str, frozenset[int]]]


def table(pairs: Set) -> pa.Table:
    return pa.table(
        {
            "image_key": pa.array([image for image, _ in pairs], pa.uint64()),
            "pair_key": pa.array([pair for _, pair in pairs], pa.uint64()),
            "lang": pa.array([lang for lang, _ in pairs.values()], pa.string()),
            "entries": pa.array([sorted(ids) for _, ids in pairs.values()], pa.list_(pa.int32())),
        }
    )


@given(SETS, SETS)
def test_rows_in_both(before: Set, after: Set) -> None:
    first, second = rows_in_both(table(before), table(after))
    assert [[*before][i] for i in first] == [[*after][i] for i in second] == [pair for pair in before if pair in after]


@given(SETS, SETS, st.integers(1, 3))
def test_sets_compared_run_by_run(before: Set, after: Set, runs: int) -> None:
    overlap = Overlap()
    for run in range(runs):
        overlap.add(*(table({pair: x for pair, x in pairs.items() if pair[0] % runs == run}) for pairs in (before, after)))
    for lang in LANGUAGES:
        mine = {pair for pair, (of, _) in before.items() if of == lang}, {pair for pair, (of, _) in after.items() if of == lang}
        expected = LanguageOverlap(
            before=len(mine[0]),
            after=len(mine[1]),
            kept=len(mine[0] & mine[1]),
            went=len(mine[0] - after.keys()),
            came=len(mine[1] - before.keys()),
            went_over=len((mine[0] & after.keys()) - mine[1]),
            came_over=len((mine[1] & before.keys()) - mine[0]),
        )
        assert overlap.languages.get(lang, LanguageOverlap()) == expected
        assert expected.before == expected.kept + expected.went + expected.went_over
        assert expected.after == expected.kept + expected.came + expected.came_over
        assert expected.same == (mine[0] == mine[1])
        for recount, pairs, others in ((overlap.went, before, after), (overlap.came, after, before)):
            counted = Counter(i for pair, (of, ids) in pairs.items() if of == lang and pair not in others for i in ids)
            assert recount.counts(lang, 4).tolist() == [counted[i] for i in range(4)]
    everything = total(overlap.languages)
    assert (everything.before, everything.after) == (len(before), len(after))
    assert everything.kept + everything.went_over == len(before.keys() & after.keys())
    assert everything.went_over == everything.came_over


def test_a_pair_that_occurs_twice_is_refused() -> None:
    one = table({(1, 2): ("en", frozenset())})
    twice = pa.concat_tables([one, one])
    for before, after in ((twice, one), (one, twice), (twice, one.slice(0, 0)), (one.slice(0, 0), twice)):
        with pytest.raises(ValueError, match="a pair occurs twice in one of the sets"):
            rows_in_both(before, after)
