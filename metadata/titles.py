"""Hourly page-view files to views per Wikipedia title, their sums, and the choice of titles.

A line is ``domain_code title views bytes``, four fields with one space between. ``xx`` is the desktop site of a Wikipedia and
``xx.m`` its mobile site; any other suffix is another project. A title stands for itself: quotation marks in it are no quoting.
Files of before 2015 write titles percent-encoded, those of today do not; since no page may be called ``%41``, a ``%`` and two
hexadecimal digits are an encoded byte in both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import cache
from hashlib import blake2b
from itertools import pairwise
from typing import BinaryIO
from urllib.parse import unquote_to_bytes

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from metadata.compressed import DamageError, decompressed
from metadata.languages import all_languages, language_of_pageview_code
from metadata.tally import Tally

#: Grows whenever a rule below changes in a way that can change a result.
TITLES_VERSION = 3

#: Key ranges of the titles: the unit in which views are shuffled and merged.
RANGES = 64
#: Odd, and with no pattern in its bits: the golden ratio.
_MIX = 0x9E3779B97F4A7C15
_RANGE_SHIFT = 64 - 6
#: ``lang`` is a wiki code, ``range`` is :func:`title_range` of the title, ``views`` a sum over everything that was counted.
VIEWS_SCHEMA = pa.schema(
    [
        pa.field("lang", pa.string(), nullable=False),
        pa.field("range", pa.int16(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("views", pa.int64(), nullable=False),
    ]
)

#: More digits are a fault: all of Wikimedia is viewed some 30 million times an hour. Nine hundred million lines of ten digits fit int64.
_VIEWS_DIGITS = 10
_BYTES_DIGITS = 18
_ENCODED_CONTROL = re.compile(rb"%(?:[01][0-9A-Fa-f]|7[Ff])")
#: For RE2.
_EXPLANATION = r"( \([^()]*\))+$"
#: A title takes at most 255 bytes, encoded 765.
_LINE_BYTES = 1 << 16
#: Small enough for what is made of a block to stay in the processor's cache: 8 MB take 1.7 times as long.
_BLOCK_BYTES = 1 << 21
#: Compressed bytes given to the decompressor at a time: bzip2 can make 80 MB of them, gzip 4 MB.
_FEED_BYTES = 1 << 12
#: Rows of blocks held before they are summed.
_MERGE_ROWS = 1 << 22

#: Rows of a file in the making: ``lang`` is a place in :func:`_wiki_codes`.
_ROW_SCHEMA = pa.schema([("lang", pa.int16()), ("title", pa.string()), ("views", pa.int64())])
_SUM_SCHEMA = _ROW_SCHEMA.append(pa.field("range", pa.int16()))
_OTHER_PROJECT, _UNKNOWN_DOMAIN = -1, -2
#: Masks of the first n bytes of a little-endian word.
_FIRST_BYTES = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)

_Ints = npt.NDArray[np.int64]
_Bools = npt.NDArray[np.bool_]


def title_range(title: bytes) -> int:
    """The key range of a title in UTF-8, in [0, RANGES): by eight bytes each of head, middle and tail, which can be had of many at once."""
    middle = (len(title) - min(len(title), 8)) // 2
    mixed = 0
    for part in (title[:8], title[middle : middle + 8], title[-8:]):
        mixed = (mixed ^ int.from_bytes(part, "little")) * _MIX % (1 << 64)
        mixed ^= mixed >> 32
    return (mixed * _MIX % (1 << 64)) >> _RANGE_SHIFT


def count_views(lines: BinaryIO, *, tally: Tally, max_bytes: int = 1 << 27) -> Iterator[pa.Table]:
    """Views of one page-view file, as tables of ``VIEWS_SCHEMA`` sorted by (lang, range, bytes of title).

    A title occurs once in a table, desktop and mobile views together, and in as many tables as its views were cut into:
    ``merge_views`` of all of them does not depend on ``max_bytes``. Dead letters and damage have a line number, from 1, as ``place``.
    Whatever stands before the damage counts, in a file cut off to the last whole line, in a corrupt one but for up to 4 KiB of
    compressed data.

    Args:
        lines: the opened file; gzip, bzip2 or plain text, told by its content.
        tally: ``read`` are lines, ``emitted`` those whose views count.
        max_bytes: rows held before they go out as a table, in bytes. Up to nine times as much is in use at the peak: 1.15 GB with
            the default, measured.
    """
    held: list[pa.Table] = []
    size = 0
    for first_line, block in _blocks_of_lines(lines, tally):
        held.append(_wikipedia_rows(block, first_line, tally))
        size += held[-1].nbytes
        if size > max_bytes:
            summed = _sum(held)
            held, size = [summed], summed.nbytes
            # Half, not all: rows that hardly shrink are not summed again after every block.
            if size > max_bytes // 2:
                yield _named(summed)
                held, size = [], 0
    if size:
        yield _named(_sum(held))


def merge_views(blocks: Iterable[pa.Table]) -> pa.Table:
    """Sum the views of equal (lang, range, title); sorted by (lang, range, bytes of title) like the blocks.

    Associative and commutative. Memory is bounded by the distinct titles: at most three times their rows and 4 million more are
    held at once. One column holds at most 2 GiB of text, so the blocks of a large language come range by range.

    Raises:
        ValueError: a ``lang`` that is no wiki code.
    """
    merged = _ROW_SCHEMA.empty_table()
    pending: list[pa.Table] = []
    rows = 0
    for block in blocks:
        wikis = pc.index_in(block["lang"], value_set=pa.array(_wiki_codes()))
        if wikis.null_count:
            raise ValueError(f"page views of unknown languages: {pc.unique(block['lang'].filter(pc.is_null(wikis))).to_pylist()}")
        pending.append(pa.table([wikis.cast(pa.int16()), block["title"], block["views"]], schema=_ROW_SCHEMA))
        rows += block.num_rows
        if rows >= max(_MERGE_ROWS, merged.num_rows):
            merged, pending, rows = _sum([merged, *pending]), [], 0
    return _named(_sum([merged, *pending]))


def without_explanations(titles: pa.Table) -> pa.Table:
    """Titles without what stands in brackets at their end, which tells pages of one name apart and is no part of it: "Android (robot)" and
    "Android" are one title with the views of both.

    Args:
        titles: has columns ``title``, each once, and ``views``; the result has these, in no particular order.
    """
    explained = pc.match_substring_regex(titles["title"], _EXPLANATION)
    plain, long = (titles.filter(rows).select(["title", "views"]) for rows in (pc.invert(explained), explained))
    # Only these are grouped: to group all of a large Wikipedia would take three times the memory.
    short = long.set_column(0, "title", pc.replace_substring_regex(long["title"], _EXPLANATION, "")).group_by("title")
    added = short.aggregate([("views", "sum")]).rename_columns(["title", "views"])
    places = pc.index_in(plain["title"], value_set=added["title"])
    views = pc.add(plain["views"], pc.fill_null(added["views"].take(places), 0))
    is_new = np.ones(len(added), bool)
    is_new[places.drop_null().to_numpy()] = False
    return pa.concat_tables([pa.table({"title": plain["title"], "views": views}), added.filter(pa.array(is_new))])


def select_titles(titles: pa.Table, *, min_views: int | None, top_share: float | None, cap: int | None) -> pa.Table:
    """The titles of one Wikipedia that qualify, most viewed first; ties by BLAKE2b of the title, so that no alphabet is preferred.

    A smaller ``cap`` gives a beginning of what a larger one gives.

    Args:
        titles: has columns ``title``, each once, and ``views``; the result has the same columns.
        min_views: least views of a title.
        top_share: at most this share of the rows, in [0, 1], rounded.
        cap: at most this many rows; None where the caller counts otherwise.
    """
    views = titles["views"].to_numpy()
    limit = len(views)
    if top_share is not None:
        # As written in decimal: the binary 0.07 is not 7 of 100.
        limit = min(limit, round(Fraction(str(top_share)) * limit))
    if cap is not None:
        limit = min(limit, cap)
    if not limit:
        return titles.slice(0, 0)
    # A hash takes longer than all else, so only titles that can be selected get one.
    least = max(int(np.partition(views, len(views) - limit)[len(views) - limit]), min_views or 0)
    titles = titles.filter(pa.array(views >= least))
    encoded = titles["title"].cast(pa.binary()).to_pylist()
    ties = np.frombuffer(b"".join([blake2b(title, digest_size=8).digest() for title in encoded]), "<u8")
    return titles.take(pa.array(np.lexsort((ties, -titles["views"].to_numpy()))[:limit]))


def _sum(tables: list[pa.Table]) -> pa.Table:
    """Rows of ``_ROW_SCHEMA`` with each title once per wiki, sorted by (lang, range, bytes of title)."""
    rows = pa.concat_tables([table.select(_ROW_SCHEMA.names) for table in tables]).combine_chunks()
    if not rows.num_rows:
        return _SUM_SCHEMA.empty_table()
    titles, views, langs = rows["title"].combine_chunks(), rows["views"].to_numpy(), rows["lang"].to_numpy()
    # Wiki by wiki, since what is sorted then lies close together. int16 is sorted by radix.
    by_lang = np.argsort(langs, kind="stable")
    bounds = [0, *(np.flatnonzero(np.diff(langs[by_lang])) + 1).tolist(), len(langs)]
    sums = []
    for start, stop in pairwise(bounds):
        ours = by_lang[start:stop]
        sums.append(_sum_of_wiki(int(langs[ours[0]]), titles.take(pa.array(ours)), views[ours]))
    return pa.concat_tables(sums).combine_chunks()


def _sum_of_wiki(lang: int, titles: pa.Array, views: _Ints) -> pa.Table:
    # Sorting gives sums and order at once, and takes less time than grouping by a column of text.
    by_title = pc.array_sort_indices(titles)
    titles = titles.take(by_title)
    is_first = np.ones(len(titles), bool)
    is_first[1:] = pc.not_equal(titles.slice(1), titles.slice(0, len(titles) - 1)).to_numpy(zero_copy_only=False)
    titles = titles.filter(pa.array(is_first))
    views = np.add.reduceat(views[by_title.to_numpy()], np.flatnonzero(is_first))
    ranges = _ranges(titles)
    by_range = np.argsort(ranges, kind="stable")
    langs = np.full(len(titles), lang, np.int16)
    return pa.table([langs, titles.take(pa.array(by_range)), views[by_range], ranges[by_range]], schema=_SUM_SCHEMA)


def _named(summed: pa.Table) -> pa.Table:
    """The result of :func:`_sum` in ``VIEWS_SCHEMA``."""
    names = pa.array(_wiki_codes(), pa.string()).take(summed["lang"])
    return pa.table([names, summed["range"], summed["title"], summed["views"]], schema=VIEWS_SCHEMA)


def _ranges(titles: pa.Array) -> npt.NDArray[np.int16]:
    """:func:`title_range` of each title."""
    offsets = np.frombuffer(titles.buffers()[1], np.int32)[titles.offset : titles.offset + len(titles) + 1].astype(np.int64)
    starts, ends = offsets[:-1], offsets[1:]
    lengths = np.minimum(ends - starts, 8)
    mixed = np.zeros(len(titles), np.uint64)
    for places in (starts, (starts + ends - lengths) // 2, ends - lengths):
        mixed = (mixed ^ _words(titles.buffers()[2], places, lengths)) * np.uint64(_MIX)
        mixed ^= mixed >> np.uint64(32)
    return (mixed * np.uint64(_MIX) >> np.uint64(_RANGE_SHIFT)).astype(np.int16)


def _words(text: bytes | pa.Buffer, starts: _Ints, lengths: _Ints) -> npt.NDArray[np.uint64]:
    """The ``lengths`` bytes, at most eight, from each place as one little-endian number."""
    text = text if len(text) >= 8 else bytes(text) + bytes(8)
    # A word begins at every byte of this view; of those that would reach over the end, an earlier one has the bytes higher up.
    words = np.lib.stride_tricks.as_strided(np.frombuffer(text, "<u8", 1), (len(text) - 7,), (1,))
    places = np.minimum(starts, len(text) - 8)
    shifts = np.minimum(8 * (starts - places), 63).astype(np.uint64)
    return (words[places] >> shifts) & _FIRST_BYTES[lengths]


@cache
def _wiki_codes() -> list[str]:
    return sorted(all_languages())


@cache
def _places_of_wikis() -> dict[str, int]:
    return {code: place for place, code in enumerate(_wiki_codes())}


def _wiki_of_domain(domain: bytes) -> int:
    """Place of the Wikipedia in :func:`_wiki_codes`, or one of the negative numbers that name a drop."""
    name = domain.decode("ascii", "replace")
    language = language_of_pageview_code(name)
    if language is not None:
        return _places_of_wikis()[language.code]
    # Behind a name that is no language even ".m" is another project: "commons.m" is Wikimedia Commons.
    return _OTHER_PROJECT if "." in name else _UNKNOWN_DOMAIN


def _blocks_of_lines(raw: BinaryIO, tally: Tally) -> Iterator[tuple[int, bytes]]:
    """(number of the first line, whole lines each with its newline). Of a line longer than ``_LINE_BYTES`` only a beginning may be left."""
    first = 1
    pieces: list[bytes] = []
    size = 0
    broken: DamageError | None = None
    try:
        for piece in decompressed(raw, feed=_FEED_BYTES):
            pieces.append(piece)
            size += len(piece)
            if size < _BLOCK_BYTES:
                continue
            data = b"".join(pieces)
            cut = data.rfind(b"\n") + 1
            if cut:
                yield first, data[:cut]
                first += data.count(b"\n", 0, cut)
            # One byte more than a line may have tells that it is too long.
            pieces = [data[cut : cut + _LINE_BYTES + 1]]
            size = len(pieces[0])
    except DamageError as error:
        broken = error
    data = b"".join(pieces)
    cut = data.rfind(b"\n") + 1
    if cut:
        yield first, data[:cut]
        first += data.count(b"\n", 0, cut)
    if broken:
        tally.damaged(broken.reason, place=first, detail=str(broken), payload=data[cut : cut + _LINE_BYTES])
    elif cut < len(data):
        yield first, data[cut:] + b"\n"


class _Lines:
    """Some lines of a block: their numbers, and where they start and end."""

    def __init__(self, block: bytes, first_line: int, starts: _Ints, ends: _Ints, tally: Tally) -> None:
        self._block, self._first_line, self._starts, self._ends, self._tally = block, first_line, starts, ends, tally

    def bury(self, reason: str, rows: _Bools | _Ints) -> None:
        """Dead letters of the lines of these rows."""
        for row in np.flatnonzero(rows).tolist() if rows.dtype == np.bool_ else rows.tolist():
            payload = self._block[self._starts[row] : self._ends[row]]
            self._tally.dead_letter(reason, place=self._first_line + row, payload=payload)


def _wikipedia_rows(block: bytes, first_line: int, tally: Tally) -> pa.Table:
    """The lines of a block that count, as ``_ROW_SCHEMA``; a title may occur in several rows."""
    data = np.frombuffer(block, np.uint8)
    # One pass finds the ends of lines, the spaces and, rare, what has no place in a line.
    marks = np.flatnonzero(data <= ord(" "))
    kinds = data[marks]
    line_ends, is_space = kinds == ord("\n"), kinds == ord(" ")
    has_control = np.count_nonzero(line_ends) + np.count_nonzero(is_space) < len(marks) or b"\x7f" in block
    if has_control:
        marks, line_ends = marks[line_ends | is_space], line_ends[line_ends | is_space]
    last_marks = np.flatnonzero(line_ends)
    # The first mark of each line, which is the end of its first field.
    marks_before = np.concatenate([np.zeros(1, np.int64), last_marks[:-1] + 1])
    ends = marks[last_marks]
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1] + 1])
    lines = _Lines(block, first_line, starts, ends, tally)
    tally.read += len(ends)

    too_long = ends - starts > _LINE_BYTES
    four_fields = last_marks - marks_before == 3
    lines.bury("line_too_long", too_long)
    lines.bury("not_four_fields", ~four_fields & ~too_long)
    rows = np.flatnonzero(four_fields & ~too_long)
    wikis = _wikis(block, starts[rows], marks[marks_before[rows]])
    tally.drop("other_project", int((wikis == _OTHER_PROJECT).sum()))
    tally.drop("unknown_domain", int((wikis == _UNKNOWN_DOMAIN).sum()))
    rows, wikis = rows[wikis >= 0], wikis[wikis >= 0]

    title_start, title_end, views_end = (marks[marks_before[rows] + i] for i in range(3))
    views, views_are_number, views_fit = _integers(data, title_end + 1, views_end, _VIEWS_DIGITS)
    _, bytes_are_number, _ = _integers(data, views_end + 1, ends[rows], _BYTES_DIGITS)
    good = np.ones(len(rows), bool)
    for reason, fault in (
        ("empty_title", title_end - title_start == 1),
        ("views_not_a_number", ~views_are_number),
        ("views_too_large", ~views_fit),
        ("bytes_not_a_number", ~bytes_are_number),
    ):
        lines.bury(reason, rows[good & fault])
        good &= ~fault
    tally.drop("zero_views", int((good & (views == 0)).sum()))
    good &= views > 0
    rows, wikis, views = rows[good], wikis[good], views[good]

    titles, is_text = _titles(block, title_start[good] + 1, title_end[good])
    lines.bury("invalid_utf8", rows[~is_text])
    rows, wikis, views = rows[is_text], wikis[is_text], views[is_text]
    # Most blocks have no control character but the ends of their lines, and this is told much faster than by looking into every title.
    if has_control or (b"%" in block and _ENCODED_CONTROL.search(block)):
        is_line = ~pc.match_substring_regex(titles, r"[\x00-\x1f\x7f]").to_numpy(zero_copy_only=False)
        lines.bury("control_character", rows[~is_line])
        wikis, titles, views = wikis[is_line], titles.filter(pa.array(is_line)), views[is_line]
    with_colon = pc.match_substring(titles, ":").to_numpy(zero_copy_only=False)
    tally.drop("title_with_colon", int(with_colon.sum()))
    tally.emitted += len(titles) - int(with_colon.sum())
    columns = [pa.array(wikis), titles, pa.array(views)]
    return pa.table(columns, schema=_ROW_SCHEMA).filter(pa.array(~with_colon))


def _wikis(block: bytes, starts: _Ints, ends: _Ints) -> npt.NDArray[np.int16]:
    """:func:`_wiki_of_domain` of each of these fields."""
    # Files are sorted, so most lines have the domain of the line before them. Up to eight bytes are compared as one number, more are not.
    lengths = ends - starts
    words = _words(block, starts, np.minimum(lengths, 8))
    is_other = np.ones(len(starts), bool)
    is_other[1:] = (words[1:] != words[:-1]) | (lengths[1:] != lengths[:-1]) | (lengths[1:] > 8)
    firsts = np.flatnonzero(is_other)
    domains = _fields(block, starts[firsts], ends[firsts]).dictionary_encode()
    wikis = np.array([_wiki_of_domain(domain) for domain in domains.dictionary.to_pylist()], np.int16)[domains.indices.to_numpy()]
    return np.repeat(wikis, np.diff(firsts, append=len(starts)))


def _fields(block: bytes, starts: _Ints, ends: _Ints) -> pa.Array:
    """Slices of a block, ascending and apart, as a binary array."""
    if not len(starts):
        return pa.array([], pa.binary())
    # The block with one offset at each start and end is an array of the slices and, between them, of what is left out.
    offsets = np.empty(2 * len(starts), np.int32)
    offsets[::2], offsets[1::2] = starts, ends
    every = pa.Array.from_buffers(pa.binary(), len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(block)])
    return every.take(pa.array(np.arange(0, len(offsets), 2)))


def _integers(data: npt.NDArray[np.uint8], starts: _Ints, ends: _Ints, digits: int) -> tuple[_Ints, _Bools, _Bools]:
    """(value, is a number, has at most ``digits`` digits) of each field; the value holds where both are true.

    Of a longer field only the first ``digits`` characters are looked at.
    """
    lengths = ends - starts
    # Of an empty field this is what ends it, and no figure.
    figures = data[starts] - np.uint8(ord("0"))
    is_number = figures <= 9
    values = figures.astype(np.int64)
    for place in range(1, min(digits, int(lengths.max(initial=0)))):
        # Few numbers are long: these passes touch few rows.
        rows = np.flatnonzero(is_number & (lengths > place))
        figures = data[starts[rows] + place] - np.uint8(ord("0"))
        is_number[rows] = figures <= 9
        values[rows] = values[rows] * 10 + figures
    return values, is_number, lengths <= digits


def _titles(block: bytes, starts: _Ints, ends: _Ints) -> tuple[pa.Array, _Bools]:
    """(titles that are text, which of the fields are): decoded, with spaces for underscores."""
    titles = _fields(block.replace(b"_", b" "), starts, ends)
    if b"%" in block:
        encoded = pc.match_substring_regex(titles, "%[0-9A-Fa-f]{2}")
        plain = [unquote_to_bytes(title).replace(b"_", b" ") for title in titles.filter(encoded).to_pylist()]
        titles = pc.replace_with_mask(titles, encoded, pa.array(plain, pa.binary()))
    try:
        return titles.cast(pa.string()), np.ones(len(titles), bool)
    except pa.ArrowInvalid:
        is_text = np.array([_is_utf8(title) for title in titles.to_pylist()], bool)
        return titles.filter(pa.array(is_text)).cast(pa.string()), is_text


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
