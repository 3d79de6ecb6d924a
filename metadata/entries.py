"""From candidates to the list of entries of a language: merging, stable ids, reading and writing.

Entries are case-sensitive; an id is a position in the list. The same candidates give the same list, in whatever order they come.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from metadata.ngrams import NGRAM_SCHEMA, select_bigrams, select_unigrams
from metadata.recipes import Recipe
from metadata.tally import Tally
from metadata.text import PUNCTUATION, RuleSet, can_match
from metadata.titles import VIEWS_SCHEMA, select_titles, without_explanations

#: Grows whenever a rule below changes in a way that can change a result.
ENTRIES_VERSION = 3

#: ``id`` is the row number. ``score`` is what ranked the entry in its source: the count of a unigram, the PMI in bits of a bigram, the
#: views of a title; null in the other sources.
ENTRIES_SCHEMA = pa.schema(
    [
        pa.field("id", pa.int32(), nullable=False),
        pa.field("entry", pa.string(), nullable=False),
        pa.field("source", pa.dictionary(pa.int8(), pa.string()), nullable=False),
        pa.field("score", pa.float64()),
    ]
)
#: In the order of merging: the first source to name an entry keeps it.
SOURCES = ("number", "wordnet", "unigram", "bigram", "title", "extra")

_PUNCTUATION_OR_SPACE = PUNCTUATION | {" "}
#: ``metadata.text.normalize_text`` makes spaces of these.
_IN_NO_TEXT = re.compile(r"[\t\n\r]")
#: A word of digits that begins with zero, in the digits of any script that a Wikipedia is written in.
_PIECE_OF_NUMBER = re.compile(r"(?:^| )[0٠۰߀०০੦૦୦௦౦೦൦๐໐༠၀០᠐᱐꯰０]\d*(?: |$)")


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """What the stages before found for one Wikipedia; whatever is absent is empty.

    ``wordnet``: lemmas. ``unigrams``, ``bigrams``: all of them, in ``NGRAM_SCHEMA``. ``tokens``: the sum of the unigram counts.
    ``titles``: columns ``title``, each once, and ``views``.
    """

    wordnet: Sequence[str] = ()
    unigrams: pa.Table = field(default_factory=NGRAM_SCHEMA.empty_table)
    bigrams: pa.Table = field(default_factory=NGRAM_SCHEMA.empty_table)
    tokens: int = 0
    titles: pa.Table = field(default_factory=VIEWS_SCHEMA.empty_table)


def _refusal(entry: str, max_characters: int) -> str:
    """Why a stripped text is no entry, or empty."""
    if not entry:
        return "blank_entry"
    if len(entry) > max_characters:
        return "entry_too_long"
    if entry[0] in PUNCTUATION and _PUNCTUATION_OR_SPACE.issuperset(entry):
        return "only_punctuation"
    return ""


@dataclass
class _List:
    """A list in the making."""

    max_characters: int
    seen: set[str] = field(default_factory=set)
    entries: list[str] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    scores: list[float | None] = field(default_factory=list)

    def new(self, texts: Iterable[str], *, without: re.Pattern[str] | None = None) -> Iterator[tuple[int, str]]:
        """(place among the texts, entry) of each text that would be a new entry, its first occurrence. ``without``: found in none."""
        offered: set[str] = set()
        for place, text in enumerate(texts):
            entry = text.strip()
            if entry in self.seen or entry in offered or _refusal(entry, self.max_characters):
                continue
            if without and without.search(entry):
                continue
            offered.add(entry)
            yield place, entry

    def add(self, source: str, entries: Sequence[str], scores: Sequence[float | None] | None = None) -> None:
        self.entries += entries
        self.seen.update(entries)
        self.sources += [SOURCES.index(source)] * len(entries)
        self.scores += [None] * len(entries) if scores is None else scores

    def add_best(
        self, source: str, select: Callable[[int], pa.Table], *, text: str, score: str, cap: int, without: re.Pattern[str] | None = None
    ) -> int:
        """Go down a ranking until ``cap`` entries are new; returns how many were.

        ``select(n)`` gives the n best candidates that qualify, best first; ``text`` and ``score`` name its columns.
        """
        # Of so many candidates enough are new, unless some are no entries at all.
        limit = cap + len(self.seen)
        while True:
            ranked = select(limit)
            new = list(islice(self.new(ranked[text].to_pylist(), without=without), cap))
            if len(new) == cap or ranked.num_rows < limit:
                break
            limit *= 2
        places = pa.array([place for place, _ in new], pa.int64())
        self.add(source, [entry for _, entry in new], ranked[score].take(places).cast(pa.float64()).to_pylist())
        return len(new)

    def table(self) -> pa.Table:
        return _table(pa.array(self.entries, pa.string()), np.array(self.sources, np.int8), pa.array(self.scores, pa.float64()))


def select_entries(candidates: Candidates, recipe: Recipe) -> pa.Table:
    """The list of one Wikipedia, as ``ENTRIES_SCHEMA``, in the order numbers, WordNet, unigrams, bigrams, titles.

    Within a source: numbers ascending, lemmas by code point, the others best first. A cap counts the entries that its source adds, and
    the share of bigrams, rounded, is one of the unigrams that were added, as in the published figures. Candidates are stripped; dropped
    are those that are empty, too long, or made of punctuation and spaces only, and what the recipe's ``trimmed`` says.
    """
    result = _List(max_characters=recipe.max_characters)
    without = _PIECE_OF_NUMBER if recipe.trimmed else None
    views = without_explanations(candidates.titles) if recipe.trimmed else candidates.titles
    result.add("number", [str(number) for number in range(recipe.numbers)])
    result.add("wordnet", sorted(entry for _, entry in result.new(candidates.wordnet)))

    def unigrams(limit: int) -> pa.Table:
        return select_unigrams(candidates.unigrams, min_count=recipe.unigram_min_count, top_share=recipe.unigram_top_share, cap=limit)

    def bigrams(limit: int) -> pa.Table:
        return select_bigrams(candidates.bigrams, cap=limit, pmi_floor=recipe.bigram_pmi_floor, tokens=candidates.tokens)

    def titles(limit: int) -> pa.Table:
        return select_titles(views, min_views=recipe.title_min_views, top_share=recipe.title_top_share, cap=limit)

    selected = result.add_best("unigram", unigrams, text="gram", score="score", cap=recipe.unigram_cap, without=without)
    bigram_cap = recipe.bigram_cap
    if recipe.bigram_share is not None:
        bigram_cap = min(bigram_cap, round(Fraction(str(recipe.bigram_share)) * selected))
    result.add_best("bigram", bigrams, text="gram", score="score", cap=bigram_cap, without=without)
    result.add_best("title", titles, text="title", score="views", cap=recipe.title_cap)
    return result.table()


def merge_lists(lists: Iterable[pa.Table]) -> pa.Table:
    """One list out of those of several Wikipedias: source by source, and in each source list by list; the first occurrence wins.

    Args:
        lists: ``ENTRIES_SCHEMA``, the list's own Wikipedia first, then in the order of the language table. Caps were applied in each.

    Raises:
        ValueError: a source that is none of ``SOURCES``.
    """
    schema = pa.schema([ENTRIES_SCHEMA.field("entry"), pa.field("source", pa.string()), ENTRIES_SCHEMA.field("score")])
    merged = pa.concat_tables([schema.empty_table(), *(table.select(schema.names).cast(schema) for table in lists)])
    sources = pc.index_in(merged["source"], value_set=pa.array(SOURCES))
    if sources.null_count:
        raise ValueError(f"unknown sources of entries: {pc.unique(merged['source'].filter(pc.is_null(sources))).to_pylist()}")
    source_numbers = sources.to_numpy().astype(np.int8)
    by_source = np.argsort(source_numbers, kind="stable")
    ordered = merged["entry"].take(pa.array(by_source)).combine_chunks()
    _, first = np.unique(ordered.dictionary_encode().indices.to_numpy(), return_index=True)
    rows = by_source[np.sort(first)]
    taken = merged.take(pa.array(rows))
    return _table(taken["entry"], source_numbers[rows], taken["score"])


def append_extra(table: pa.Table, extra: Sequence[str], *, max_characters: int, tally: Tally) -> pa.Table:
    """A list with a user's own entries behind it, source ``extra``, in the order in which they come.

    Each is read, stripped and emitted, or dropped as ``blank_entry``, ``entry_too_long``, ``only_punctuation`` or ``repeated_entry``:
    in the list already, or before among the extra ones. The ids of the list stay what they are.

    Args:
        table: ``ENTRIES_SCHEMA``; its own rows are not counted here.
    """
    if not extra:
        return table
    seen = set(table["entry"].to_pylist())
    new = []
    for text in extra:
        tally.read += 1
        entry = text.strip()
        reason = _refusal(entry, max_characters) or ("repeated_entry" if entry in seen else "")
        if reason:
            tally.drop(reason)
            continue
        seen.add(entry)
        new.append(entry)
    tally.emitted += len(new)
    added = _table(pa.array(new, pa.string()), np.full(len(new), SOURCES.index("extra"), np.int8), pa.nulls(len(new), pa.float64()))
    return merge_lists([table, added])


def extra_from_text(data: bytes) -> list[str]:
    """The lines of a text file in UTF-8, with or without a byte order mark; :func:`append_extra` says what is no entry.

    Raises:
        ValueError: not UTF-8; the message says which line.
    """
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is no UTF-8 ({error.reason}): save the file as UTF-8") from error
    return lines if lines[-1] else lines[:-1]


def strings_of_json(data: bytes) -> list[str]:
    """The items of a JSON list of strings.

    Raises:
        ValueError: it is none, or an item is no Unicode text; the message says where.
    """
    try:
        items = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the entries are no JSON: {error}") from error
    if not isinstance(items, list):
        raise ValueError(f"the entries must be a JSON list of strings, not {type(items).__name__}")
    for place, item in enumerate(items):
        if not isinstance(item, str):
            raise ValueError(f"item {place} of the entries is no string but {type(item).__name__}: {repr(item)[:80]}")
        if not _is_text(item):
            raise ValueError(f"item {place} of the entries holds half a surrogate pair: {item[:80]!r}")
    return items


def entries_to_json(table: pa.Table) -> bytes:
    """The entries in order as a JSON list of strings in UTF-8: the ``metadata.json`` of MetaCLIP and its kin."""
    return json.dumps(table["entry"].to_pylist(), ensure_ascii=False).encode()


def entries_from_json(data: bytes, *, tally: Tally) -> pa.Table:
    """A whole list as others write it, verbatim and in its order, as ``ENTRIES_SCHEMA`` with source ``extra``.

    An entry that is there already is dropped as ``repeated_entry``.

    Raises:
        ValueError: not a JSON list of strings, an empty list, or an item that is blank or no Unicode text; the message says where.
    """
    items = strings_of_json(data)
    if not items:
        raise ValueError("the list of entries is empty")
    for place, item in enumerate(items):
        if not item.strip():
            raise ValueError(f"item {place} of the entries is blank")
    entries = pa.array(list(dict.fromkeys(items)), pa.string())
    tally.read += len(items)
    tally.emitted += len(entries)
    tally.drop("repeated_entry", len(items) - len(entries))
    return _table(entries, np.full(len(entries), SOURCES.index("extra"), np.int8), pa.nulls(len(entries), pa.float64()))


def entries_checksum(table: pa.Table) -> str:
    """Identity of a list: BLAKE2b in 32 hexadecimal digits, over the lengths in bytes of all entries (uint32), then the entries."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(pc.binary_length(table["entry"]).to_numpy().astype("<u4").tobytes())
    digest.update("".join(table["entry"].to_pylist()).encode())
    return digest.hexdigest()


def never_matching(table: pa.Table, rules: RuleSet) -> int:
    """How many entries no text can match under these rules: where the rules space texts but not entries, most of those with a spaced
    mark inside ("St. Louis"); under any rules those with a tab or a line break, which texts do not hold."""
    suspects = re.compile(f"{_IN_NO_TEXT.pattern}|{rules.mark_pattern.pattern}")
    found = [entry for entry in table["entry"].to_pylist() if suspects.search(entry)]
    return sum(bool(_IN_NO_TEXT.search(entry)) or not can_match(entry, rules) for entry in found)


def _table(entries: pa.Array | pa.ChunkedArray, source_numbers: npt.NDArray[np.int8], scores: pa.Array | pa.ChunkedArray) -> pa.Table:
    sources = pa.DictionaryArray.from_arrays(pa.array(source_numbers), pa.array(SOURCES))
    return pa.table([pa.array(np.arange(len(entries), dtype=np.int32)), entries, sources, scores], schema=ENTRIES_SCHEMA)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
