"""How well a list of entries covers captions: how many entries each matches, which words the list lacks, what matches nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from balancing.automaton import Matcher
from balancing.frequent import Frequent, most_frequent
from metadata.languages import Language
from metadata.ngrams import count_ngrams
from metadata.tally import Tally
from metadata.text import PUNCTUATION, space_texts

#: (name, least, most) of the columns in which captions are shown by their number of entries.
BUCKETS = (("0", 0, 0), ("1", 1, 1), ("2", 2, 2), ("3-5", 3, 5), ("6+", 6, None))

#: Texts → the list that each is held against.
ListsOf = Callable[[Sequence[str]], Sequence[str]]


@dataclass(kw_only=True)
class _Seen:
    """What is known of the captions of one list. ``by_matches``: captions by the number of entries that they match, exact. ``met``: by
    entry id, whether any caption matches it. ``words``: how many words the captions have, repeats included."""

    met: np.ndarray
    by_matches: Counter[int] = field(default_factory=Counter)
    words: int = 0


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """The result for one list.

    ``mean`` and ``median`` are of entries per caption, over all captions, those that match nothing included. ``words_missing`` of
    ``words``, repeats included, are no entries; where ``error`` is not 0 that many at least. ``missing`` and ``unmatched``: the most
    frequent of these words, and captions without a match, with their counts.
    """

    captions: int
    matched: int
    mean: float
    median: float
    by_matches: dict[str, int]
    entries: int
    entries_met: int
    words: int
    words_missing: int
    missing: list[tuple[str, int]]
    unmatched: list[tuple[str, int]]

    def to_json(self) -> dict[str, Any]:
        missing = [{"word": word, "count": n} for word, n in self.missing]
        unmatched = [{"caption": caption, "count": n} for caption, n in self.unmatched]
        return {**vars(self), "missing": missing, "unmatched": unmatched}


class CoverageCounter:
    """Holds captions against lists, batch by batch.

    Args:
        sizes: how many entries each list has that there is.
        open_matcher: the matcher of a list.
        words_of: how the words of a list's captions are found: a language, whose rules are those by which n-grams are counted.
        memory: bytes up to which words, and as many up to which captions without a match, are counted exactly (balancing.frequent).

    Memory: twice that and a passing third and fourth, a byte per entry of every list that is met, a batch, and what ``open_matcher``
    holds. Measured: 0.33 GB for a million English captions of 15,000 distinct words, 0.75 GB for 4 million words of which hardly one
    occurs twice.
    """

    def __init__(
        self, *, sizes: Mapping[str, int], open_matcher: Callable[[str], Matcher], words_of: Callable[[str], Language | None], memory: int
    ) -> None:
        self._sizes, self._open_matcher, self._words_of = sizes, open_matcher, words_of
        self._seen: dict[str, _Seen] = {}
        self.words, self.unmatched = Frequent(memory), Frequent(memory)

    def add(self, captions: Sequence[str], lists_of: ListsOf, *, tally: Tally) -> None:
        """Count a batch of normalized captions. Each is read, and emitted, or dropped as ``no_match`` or ``language_not_built``."""
        tally.read += len(captions)
        distinct = Counter(captions)
        texts = list(distinct)
        by_list: dict[str, list[str]] = {}
        for text, name in zip(texts, lists_of(texts), strict=True):
            by_list.setdefault(name, []).append(text)
        for name, mine in sorted(by_list.items()):
            times = np.array([distinct[text] for text in mine])
            if name in self._sizes:
                self._add_list(name, mine, times, tally)
            else:
                tally.drop("language_not_built", int(times.sum()))

    def _add_list(self, name: str, texts: list[str], times: np.ndarray, tally: Tally) -> None:
        seen = self._seen.setdefault(name, _Seen(met=np.zeros(self._sizes[name], dtype=bool)))
        matcher = self._open_matcher(name)
        ids, offsets = matcher.find(space_texts(texts, matcher.rules))
        matches = np.diff(offsets)
        seen.met[ids] = True
        captions = np.bincount(matches, weights=times).astype(np.int64)
        seen.by_matches.update({int(n): int(captions[n]) for n in np.flatnonzero(captions)})
        without = np.flatnonzero(matches == 0)
        self.unmatched.add(name, {texts[i]: int(times[i]) for i in without})
        tally.emitted += int(times[matches > 0].sum())
        tally.drop("no_match", int(times[without].sum()))
        counts = count_words([text for text, n in zip(texts, times.tolist(), strict=True) for _ in range(n)], self._words_of(name))
        seen.words += counts.total()
        self.words.add(name, counts)

    def lists(self) -> list[str]:
        """The lists that captions were held against, most captions first."""
        return sorted(self._seen, key=lambda name: (-self._seen[name].by_matches.total(), name))

    def coverage(self, name: str, entries: pa.ChunkedArray, top: int) -> Coverage:
        """The result for one list. ``entries``: its entries; ``top``: how many words and captions are named."""
        seen = self._seen[name]
        counts = self.words.counts(name)
        words = pa.array(counts.keys(), pa.string())
        absent = words.filter(pc.invert(pc.is_in(words, value_set=entries))).to_pylist()
        captions = seen.by_matches.total()
        return Coverage(
            captions=captions,
            matched=captions - seen.by_matches[0],
            mean=sum(n * times for n, times in seen.by_matches.items()) / captions,
            median=median(seen.by_matches),
            by_matches=in_buckets(seen.by_matches),
            entries=len(seen.met),
            entries_met=int(np.count_nonzero(seen.met)),
            words=seen.words,
            words_missing=sum(counts[word] for word in absent),
            missing=most_frequent({word: counts[word] for word in absent}, top),
            unmatched=most_frequent(self.unmatched.counts(name), top),
        )


def count_words(texts: Sequence[str], written: Language | None) -> Counter[str]:
    """The words of texts as the n-gram builder finds them, without punctuation. ``written``: None for a mixture of languages, which is
    read as if it had spaces."""
    spaced, segmenter, cut = (written.spaced, written.segmenter, written.cut_apostrophes) if written else (True, "", False)
    counts: Counter[str] = Counter()
    for block in count_ngrams(texts, spaced=spaced, segmenter=segmenter, cut_apostrophes=cut):
        unigrams = block.filter(pc.equal(block["n"], 1))
        for word, n in zip(unigrams["gram"].to_pylist(), unigrams["count"].to_pylist(), strict=True):
            if word not in PUNCTUATION:
                counts[word] += n
    return counts


def median(by_value: Mapping[int, int]) -> float:
    """The median of a distribution value → times; between two middle values their mean."""
    total = sum(by_value.values())
    middle, gone = [], 0
    for value in sorted(by_value):
        # Places (total - 1) // 2 and total // 2, counted from 0.
        middle += [value] * sum(gone <= place < gone + by_value[value] for place in ((total - 1) // 2, total // 2))
        gone += by_value[value]
    return sum(middle) / 2


def in_buckets(by_value: Mapping[int, int]) -> dict[str, int]:
    """Times per bucket of BUCKETS."""
    return {
        name: sum(times for value, times in by_value.items() if least <= value and (most is None or value <= most))
        for name, least, most in BUCKETS
    }
