"""Tokens to unigram and bigram counts, their sums, and the choice of entries among them.

Bigrams are pairs of neighbouring tokens in one line. A punctuation mark breaks the chain; so does, without spaces, white space,
since the joined pair would not read as it stands in the text: in "Red Hat" the entry "RedHat" would never be found.

N, the number of unigram tokens, is the sum of the unigram counts: words and, in languages with spaces, punctuation marks.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from hashlib import blake2b
from itertools import count, islice, pairwise
from math import log2

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from metadata.tokens import MARK, SKIP, WORD, kind_spaced, kind_unspaced, tokens_of

#: Grows whenever a rule below, or one of ``metadata.tokens``, changes in a way that can change a result.
NGRAMS_VERSION = 2

#: Key ranges of the n-gram space: the unit in which counts are shuffled and merged.
RANGES = 64
#: Between the two words of a bigram in a block. White space, so that no token holds it, and below every character that a token
#: holds, so that the byte order of grams is the order of word pairs.
SEPARATOR = "\x1f"

#: Partial counts: ``n`` is 1 or 2, ``range`` is :func:`gram_range` of the gram, a bigram is written ``w1 SEPARATOR w2``.
BLOCK_SCHEMA = pa.schema(
    [
        pa.field("n", pa.int8(), nullable=False),
        pa.field("range", pa.int16(), nullable=False),
        pa.field("gram", pa.string(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
    ]
)
#: Final counts: ``gram`` as an entry reads, ``ratio`` is c12 / (c1 * c2) of a bigram, null for unigrams.
NGRAM_SCHEMA = pa.schema(
    [pa.field("gram", pa.string(), nullable=False), pa.field("count", pa.int64(), nullable=False), pa.field("ratio", pa.float64())]
)
#: Candidates, best first: ``score`` is the count of a unigram, the PMI in bits of a bigram.
SELECTED_SCHEMA = pa.schema(
    [
        pa.field("gram", pa.string(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
    ]
)

#: A longer line counts as several lines. Bounds what one record can take.
_LINE_CHARACTERS = 1 << 20
_SLICE_CHARACTERS = 1 << 16
#: Tokens held as bare ids before their pairs are counted: 8 bytes each.
_PENDING_TOKENS = 1 << 21
#: Bytes of gram text in one table: far below the 2 GiB that an Arrow string column can hold.
_TABLE_BYTES = 1 << 28
#: Rows of blocks held before they are summed, and rows that are summed at a time.
_MERGE_ROWS = 1 << 21
_SLICE_ROWS = 1 << 20
#: Rows in order; a block of so many runs of them is sorted anew.
_RUN_SCHEMA = pa.schema([("place", pa.int16()), ("gram", pa.string()), ("count", pa.int64())])
_MAX_RUNS = 100
_MAX_DISTINCT = 1 << 27

_Ints = npt.NDArray[np.int64]


def gram_range(gram: str) -> int:
    """The key range of a gram as it stands in a block, in [0, RANGES): a stable hash of its words."""
    value = 0
    for word in gram.split(SEPARATOR):
        value = (31 * value + zlib.crc32(word.encode())) % RANGES
    return value


def count_ngrams(
    texts: Iterable[str], *, spaced: bool, segmenter: str, cut_apostrophes: bool = False, max_distinct: int = 2_000_000
) -> Iterator[pa.Table]:
    """Counts of the unigrams and bigrams of texts, as tables of ``BLOCK_SCHEMA`` sorted by (n, range, bytes of gram).

    A gram occurs once in a table, and in as many tables as its count was cut into: ``merge_blocks`` of all of them does not depend
    on ``max_distinct`` or on the order of the texts. Within a line, white space of any kind is alike.

    Args:
        texts: any number of texts; only one is held, and of it one slice is expanded at a time.
        spaced: whether the language is written with spaces between words.
        segmenter: a name of ``metadata.segment``; "" where ``spaced``.
        cut_apostrophes: whether an apostrophe inside a word is a token of its own, as published.
        max_distinct: how many distinct grams are held before they go out as tables; they are looked at every 2 million tokens
            (every ``max_distinct`` where that is less). A unigram takes about 200 bytes (1.2 kB at most), a bigram 16, and about
            100 more while its table is made. Measured with the default: 0.45 GB at the peak on words of Zipf's distribution, 0.9 GB
            where no word occurs twice.

    Raises:
        ValueError: ``max_distinct`` out of [1, 2**27], an unknown segmenter, or a segmenter for a language with spaces.
    """
    if not 1 <= max_distinct <= _MAX_DISTINCT:
        raise ValueError(f"max_distinct must be in [1, {_MAX_DISTINCT}], not {max_distinct}")
    if spaced and segmenter:
        raise ValueError(f"a language written with spaces has no segmenter, not {segmenter!r}")
    counts = _Counts(spaced=spaced)
    for text in _slices(texts, min(_SLICE_CHARACTERS, max_distinct)):
        counts.add(tokens_of(text, spaced=spaced, segmenter=segmenter, cut_apostrophes=cut_apostrophes))
        if counts.pending_tokens >= min(_PENDING_TOKENS, max_distinct):
            counts.compact()
            if counts.distinct > max_distinct:
                yield from counts.tables()
                counts = _Counts(spaced=spaced)
    counts.compact()
    yield from counts.tables()


def _slices(texts: Iterable[str], size: int) -> Iterator[str]:
    """Whole lines of texts, joined until they pass ``size`` characters: C code then runs over many lines at once."""
    held: list[str] = []
    characters = 0
    for text in texts:
        for piece in [text] if len(text) <= size else _lines(text):
            held.append(piece)
            characters += len(piece) + 1
            if characters >= size:
                yield "\n".join(held)
                held, characters = [], 0
    if held:
        yield "\n".join(held)


def _lines(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        for cut in range(start, end, _LINE_CHARACTERS):
            yield text[cut : min(cut + _LINE_CHARACTERS, end)]
        start = end + 1


class _Counts:
    """Counts in the making: words are numbered by a dictionary, a bigram is the number ``id1 << 32 | id2``.

    Whatever is done for every token is done in C; whatever Python decides is decided once for a distinct word.
    """

    def __init__(self, *, spaced: bool) -> None:
        self._kind_of = kind_spaced if spaced else kind_unspaced
        self._ids: defaultdict[str, int] = defaultdict(count().__next__)
        self._kinds = np.empty(0, np.uint8)
        self._unigrams: _Ints = np.empty(0, np.int64)
        self._pairs: _Ints = np.empty(0, np.int64)
        self._pair_counts: _Ints = np.empty(0, np.int64)
        self._pending: list[_Ints] = []
        self.pending_tokens = 0

    @property
    def distinct(self) -> int:
        """Distinct grams held, without those that are pending."""
        return len(self._unigrams) + len(self._pairs)

    def add(self, tokens: list[str]) -> None:
        self._pending.append(np.fromiter(map(self._ids.__getitem__, tokens), np.int64, len(tokens)))
        self.pending_tokens += len(tokens)

    def compact(self) -> None:
        """Count the pending tokens."""
        if not self._pending:
            return
        ids = np.concatenate(self._pending)
        self._pending, self.pending_tokens = [], 0
        words = len(self._ids)
        new = list(map(self._kind_of, islice(self._ids, len(self._kinds), None)))
        self._kinds = np.concatenate([self._kinds, np.array(new, np.uint8)])
        self._unigrams = np.bincount(ids, minlength=words) + np.pad(self._unigrams, (0, words - len(self._unigrams)))
        ids = ids[self._kinds[ids] != SKIP]
        is_word = self._kinds[ids] == WORD
        in_chain = is_word[:-1] & is_word[1:]
        self._add_pairs(*np.unique(ids[:-1][in_chain] << 32 | ids[1:][in_chain], return_counts=True))

    def _add_pairs(self, pairs: _Ints, counts: _Ints) -> None:
        """Merge sorted distinct pairs into those held."""
        places = np.searchsorted(self._pairs, pairs)
        known = np.zeros(len(pairs), bool)
        inside = places < len(self._pairs)
        known[inside] = self._pairs[places[inside]] == pairs[inside]
        self._pair_counts[places[known]] += counts[known]
        self._pairs = np.insert(self._pairs, places[~known], pairs[~known])
        self._pair_counts = np.insert(self._pair_counts, places[~known], counts[~known])

    def tables(self) -> Iterator[pa.Table]:
        """What is counted, as sorted tables of at most ``_TABLE_BYTES`` of text."""
        tokens = list(self._ids)
        order = np.array(sorted(np.flatnonzero(self._kinds <= MARK).tolist(), key=tokens.__getitem__), np.int64)
        encoded = [tokens[i].encode() for i in order.tolist()]
        words = pa.array(encoded, pa.large_binary())
        ranges = np.fromiter(map(zlib.crc32, encoded), np.int64, len(encoded)) % RANGES
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        by_range = np.argsort(ranges, kind="stable")
        for rows in _table_rows(lengths[by_range]):
            part = by_range[rows]
            yield _block(1, ranges[part], words.take(pa.array(part)), self._unigrams[order[part]])

        rank = np.zeros(len(tokens), np.int64)
        rank[order] = np.arange(len(order))
        first, second = rank[self._pairs >> 32], rank[self._pairs & 0xFFFFFFFF]
        pair_ranges = (31 * ranges[first] + ranges[second]) % RANGES
        # Words are ranked by bytes and the separator is less than any byte of a word, so this is the byte order of the grams.
        by_key = np.argsort(pair_ranges << 56 | first << 28 | second)
        first, second, pair_ranges, pair_counts = first[by_key], second[by_key], pair_ranges[by_key], self._pair_counts[by_key]
        for rows in _table_rows(lengths[first] + lengths[second] + 1):
            left, right = words.take(pa.array(first[rows])), words.take(pa.array(second[rows]))
            grams = pc.binary_join_element_wise(left, right, pa.scalar(SEPARATOR.encode(), pa.large_binary()))
            yield _block(2, pair_ranges[rows], grams, pair_counts[rows])


def _table_rows(lengths: _Ints) -> Iterator[slice]:
    """Slices of rows that hold at most ``_TABLE_BYTES`` each; none of no rows."""
    ends = np.cumsum(lengths)
    start = 0
    while start < len(ends):
        held = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, held + _TABLE_BYTES, side="right"))
        yield slice(start, stop)
        start = stop


def _block(n: int, ranges: _Ints, grams: pa.Array, counts: _Ints) -> pa.Table:
    columns = [np.full(len(counts), n), ranges, grams.cast(pa.large_string()), counts]
    return pa.table([pa.array(c).cast(field.type) for c, field in zip(columns, BLOCK_SCHEMA, strict=True)], schema=BLOCK_SCHEMA)


def merge_blocks(blocks: Iterable[pa.Table]) -> pa.Table:
    """The result of :func:`merged_tables` as one table."""
    return pa.concat_tables([BLOCK_SCHEMA.empty_table(), *merged_tables(blocks)])


def merged_tables(blocks: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Sum the counts of equal (n, range, gram): tables that follow one another in the order of (n, range, bytes of gram), like the blocks.

    Associative and commutative; where one table ends and the next begins depends on the blocks. Blocks that are not sorted take longer.

    Memory: rows of about 28 bytes, at most 2.5 times as many as there are distinct grams (or two times, and 2 million), the largest block,
    and 100 MB; it does not grow with the number of blocks. Measured, blocks read from Parquet: 0.46 GB for 4.3 million distinct bigrams,
    0.71 GB for 8.5 million. The 64th part of a large language, which is merged at a time, has about as many as the first.
    """
    merged, pending = _RUN_SCHEMA.empty_table(), []
    rows = 0
    for block in blocks:
        pending += _runs(block)
        rows += block.num_rows
        if rows >= max(_MERGE_ROWS, merged.num_rows // 2):
            merged, pending, rows = pa.concat_tables(_sums([merged, *pending])), [], 0
    for table in _sums([merged, *pending]):
        place = table["place"].to_numpy()
        columns = [place // RANGES, place % RANGES, table["gram"], table["count"]]
        yield pa.table([pa.array(c) if isinstance(c, np.ndarray) else c for c in columns], names=BLOCK_SCHEMA.names).cast(BLOCK_SCHEMA)


def _runs(block: pa.Table) -> list[pa.Table]:
    """The rows of a block in ``_RUN_SCHEMA``, cut wherever they are out of order."""
    place = block["n"].to_numpy().astype(np.int16) * RANGES + block["range"].to_numpy()
    run = pa.table([pa.array(place), block["gram"], block["count"]], schema=_RUN_SCHEMA)
    if not block.num_rows:
        return []
    step = np.diff(place)
    falls = pc.less(block["gram"].slice(1), block["gram"].slice(0, len(place) - 1)).to_numpy()
    cuts = np.flatnonzero((step < 0) | ((step == 0) & falls)) + 1
    if len(cuts) > _MAX_RUNS:
        return [_sum(run)]
    return [run.slice(start, end - start) for start, end in pairwise([0, *cuts.tolist(), len(place)])]


def _sums(runs: Sequence[pa.Table]) -> Iterator[pa.Table]:
    """The sums over sorted runs, a slice of all of them at a time, so that little is held twice."""
    stride = max(1, _SLICE_ROWS // (2 * len(runs)))
    keys = sorted(_key(run, row) for run in runs for row in range(stride, run.num_rows, stride))
    starts = [0] * len(runs)
    for key in [*keys[len(runs) :: len(runs)], None]:
        ends = [run.num_rows if key is None else bisect_left(range(run.num_rows), key, key=partial(_key, run)) for run in runs]
        slices = [run.slice(start, end - start) for run, start, end in zip(runs, starts, ends, strict=True) if end > start]
        starts = ends
        if slices:
            yield _sum(pa.concat_tables(slices))


def _key(run: pa.Table, row: int) -> tuple[int, str]:
    # Strings compare as their bytes in UTF-8 do.
    return run["place"][row].as_py(), run["gram"][row].as_py()


def _sum(rows: pa.Table) -> pa.Table:
    """Rows in ``_RUN_SCHEMA`` with each gram once, sorted."""
    rows = rows.combine_chunks()
    grams = rows["gram"].combine_chunks()
    order = pc.array_sort_indices(grams).to_numpy()
    places = rows["place"].to_numpy()
    # int16 is sorted by radix.
    order = order[np.argsort(places[order], kind="stable")]
    places, grams = places[order], grams.take(pa.array(order))
    is_first = np.ones(len(order), bool)
    is_first[1:] = (np.diff(places) != 0) | pc.not_equal(grams.slice(1), grams.slice(0, len(grams) - 1)).to_numpy(zero_copy_only=False)
    firsts = np.flatnonzero(is_first)
    counts = np.add.reduceat(rows["count"].to_numpy()[order], firsts)
    return pa.table([pa.array(places[firsts]), grams.filter(pa.array(is_first)), pa.array(counts)], schema=_RUN_SCHEMA)


def words_of(bigrams: pa.Table) -> pa.Array:
    """The distinct words of bigrams (``BLOCK_SCHEMA``, n = 2)."""
    return pc.unique(_both_words(bigrams))


def _both_words(bigrams: pa.Table) -> pa.ChunkedArray:
    """First word, second word, first word of the next one …"""
    return pc.list_flatten(pc.split_pattern(bigrams["gram"], SEPARATOR))


def with_ratio(bigrams: pa.Table, unigrams: pa.Table, *, spaced: bool, min_count: int) -> pa.Table:
    """Bigrams of at least ``min_count``, in ``NGRAM_SCHEMA``, in the order they came.

    The ratio c12 / (c1 * c2) is float64: product and quotient are rounded once each, by rules that are the same on every machine.
    Equal ratios are equal floats and none are ever reversed while c1 * c2 < 2**53; beyond, where PMI is too low to be selected,
    ratios closer than 4e-16 of their value may change places.

    Args:
        bigrams: merged ``BLOCK_SCHEMA``, n = 2.
        unigrams: columns ``gram`` and ``count``, summed over the whole language, in any order; others than :func:`words_of` the bigrams
            may be absent, and so may those rarer than ``min_count``, since no bigram is more frequent than its words.
        spaced: whether the words are joined by a space or by nothing. Without a space two bigrams can read alike; both stay.

    Raises:
        ValueError: a word of a bigram is not among the unigrams.
    """
    kept = bigrams.filter(pc.greater_equal(bigrams["count"], min_count)).combine_chunks()
    places = pc.index_in(_both_words(kept), value_set=unigrams["gram"])
    if places.null_count:
        raise ValueError(f"{places.null_count} words of bigrams are not among the unigrams")
    word_counts = unigrams["count"].to_numpy()[places.to_numpy()].astype(np.float64)
    ratio = kept["count"].to_numpy() / (word_counts[0::2] * word_counts[1::2])
    printed = pc.replace_substring(kept["gram"], SEPARATOR, " " if spaced else "")
    return pa.table([printed, kept["count"], pa.array(ratio, pa.float64())], schema=NGRAM_SCHEMA)


def min_bigram_count(tokens: int) -> int:
    """The least count with which a bigram is ranked by PMI, in a language of ``tokens`` unigram tokens: max(3, N**(1/3) / 20), rounded up.

    ========  ====  ====  ====  ====  ====  =========
    N         1e5   1e6   1e7   1e8   1e9   4e9 (en)
    minimum   3     5     11    24    50    80
    ========  ====  ====  ====  ====  ====  =========

    PMI is greatest for words that are seen together only, so the top of the ranking is made of the rarest pairs admitted. The
    figures are of the 4 % (40 % of 10 %) as many bigrams as there are distinct unigrams, measured on the text of seven dumps:

    - Too low, and they are accidents of single pages: names in one article, foreign quotations, catalogue numbers. With a
      minimum of 1 all of them occur in one page only; with 3, 55 % of en (N = 542 k), 46 % of ja (954 k), 21-23 % of uk, hy and mr,
      but 11 % of ltg (113 k); with 5, 23 % of en, 28 % of ja, 4-8 % of uk, hy, mr and el. More text repeats more accidents, so the
      minimum must grow with N.
    - Too high, and too few are left to choose from: the ranking runs down to pairs at chance level ("in two", "of the") or ends.
      In ltg this begins at 5 (776 for 1,032 places), in mr (497 k) at 8, in uk (781 k) at 10. A fixed share of N would do this to every
      small Wikipedia or admit accidents to the large ones.

    With this rule there are 2 to 11 candidates for each place, and the last one selected has a PMI of 6 to 10 bits; both hold when the
    same dumps are thinned to 1/2, 1/4, 1/8 and 1/16 (1.7 to 8 candidates, 5 to 9 bits). On the whole of English it stays below
    the 100 that version 1 asks of a single word.
    """
    minimum = 3
    while (20 * minimum) ** 3 < tokens:
        minimum += 1
    return minimum


def select_unigrams(unigrams: pa.Table, *, min_count: int | None, top_share: float | None, cap: int | None) -> pa.Table:
    """The most frequent unigrams, best first, in ``SELECTED_SCHEMA``; equal counts are ordered by BLAKE2b of the gram.

    Args:
        unigrams: columns ``gram`` and ``count``, of the whole language.
        min_count: rarer ones are left out (version 1: 100); None leaves none out.
        top_share: at most this share of the distinct unigrams given, rounded (version 2: 0.1). Punctuation marks are unigrams of
            languages with spaces and count among them, though no entry is made of them: they are a few dozen.
        cap: at most this many rows; None where the caller counts otherwise, for example only the entries that are new to a list.
    """
    counts = unigrams["count"].to_numpy()
    keep = len(counts) if min_count is None else int(np.count_nonzero(counts >= min_count))
    if top_share is not None:
        keep = min(keep, round(Fraction(str(top_share)) * len(counts)))
    if cap is not None:
        keep = min(keep, cap)
    rows = _best(unigrams, counts, keep)
    return _selected(unigrams, rows, counts[rows].astype(np.float64))


def select_bigrams(bigrams: pa.Table, *, cap: int | None, pmi_floor: float | None, tokens: int) -> pa.Table:
    """The bigrams of highest PMI, best first, in ``SELECTED_SCHEMA``; equal ratios are ordered by BLAKE2b of the gram.

    The ratio ranks and decides; the score, log2(ratio * tokens) to six decimals, is for people to read.

    Args:
        bigrams: ``NGRAM_SCHEMA``, of the whole language, above ``min_bigram_count``.
        cap: at most this many rows, or None.
        pmi_floor: lower PMI, in bits, is left out (version 1 of the recipe: 30); None leaves none out.
        tokens: N, the sum of the unigram counts.
    """
    ratios = bigrams["ratio"].to_numpy()
    keep = len(ratios) if pmi_floor is None else int(np.count_nonzero(ratios * tokens >= 2.0**pmi_floor))
    if cap is not None:
        keep = min(keep, cap)
    rows = _best(bigrams, ratios, keep)
    return _selected(bigrams, rows, np.array([round(log2(ratio * tokens), 6) for ratio in ratios[rows].tolist()], np.float64))


def _best(grams: pa.Table, keys: npt.NDArray[np.int64] | npt.NDArray[np.float64], keep: int) -> _Ints:
    """Rows of the ``keep`` greatest keys, greatest first. Only rows that can be among them are hashed."""
    if keep <= 0:
        return np.empty(0, np.int64)
    worst = np.partition(keys, len(keys) - keep)[len(keys) - keep]
    rows = np.flatnonzero(keys >= worst)
    candidates = grams.select(["gram", "count"]).take(pa.array(rows))
    digests = [blake2b(gram.encode(), digest_size=16).digest() for gram in candidates["gram"].to_pylist()]
    # Two bigrams that read alike have one digest; after the count they are the same row.
    order = sorted(zip((-keys[rows]).tolist(), digests, (-candidates["count"].to_numpy()).tolist(), rows.tolist(), strict=True))
    return np.array([row for *_, row in order[:keep]], np.int64)


def _selected(grams: pa.Table, rows: _Ints, scores: npt.NDArray[np.float64]) -> pa.Table:
    kept = grams.take(pa.array(rows))
    return pa.table([kept["gram"], kept["count"], pa.array(scores)], schema=SELECTED_SCHEMA)
