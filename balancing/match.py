"""A table of pairs → the same pairs with language and entry ids.

The flow of one unit: forget repeated pairs, identify the language of each distinct text once, match each distinct text once, grouped by
language so that an automaton is opened once a group, and hand the result back to the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from balancing.automaton import Matcher
from balancing.pairs import MATCHED_SCHEMA, PAIR_SCHEMA, image_keys, pair_keys
from metadata.tally import Tally
from metadata.text import space_texts

#: Rows that are matched together: a group opens each automaton at most once. About 1 GB for texts of usual length.
GROUP_ROWS = 1_000_000
#: Bytes of their strings: one page of a long address gives a pair per tag, and every pair repeats the address.
GROUP_BYTES = 1 << 30

#: Texts → (LID label, score, metadata language) per text.
Identify = Callable[[Sequence[str]], tuple[Sequence[str], np.ndarray, Sequence[str]]]
OpenMatcher = Callable[[str], Matcher]
#: Languages → the same in the order in which their matchers are opened. It does not show in the result.
OpeningOrder = Callable[[Iterable[str]], Sequence[str]]


def in_groups(pairs: Iterable[pa.Table], rows: int = GROUP_ROWS, size: int = GROUP_BYTES) -> Iterator[pa.Table]:
    """The same rows (PAIR_SCHEMA) in the same order in tables of as many as ``rows`` and ``size`` bytes of strings allow, one row at
    least: where one ends depends on the rows alone, so that the cut of the input does not show."""
    held: list[pa.Table] = []
    n = used = 0
    for table in pairs:
        grown = np.cumsum(_string_bytes(table))
        first = 0
        while first < len(table):
            before = int(grown[first - 1]) if first else 0
            end = min(first + rows - n, int(np.searchsorted(grown, before + size - used, side="right")))
            if end == first and not held:
                end += 1
            if end > first:
                held.append(table.slice(first, end - first))
                n, used, first = n + end - first, used + int(grown[end - 1]) - before, end
            if n == rows or first < len(table):
                yield pa.concat_tables(held)
                held, n, used = [], 0, 0
    if held:
        yield pa.concat_tables(held)


def _string_bytes(pairs: pa.Table) -> np.ndarray:
    """Bytes of each row's strings: int64, shape (rows,)."""
    strings = [column for column in pairs.itercolumns() if pa.types.is_string(column.type)]
    return np.add.reduce([pc.fill_null(pc.binary_length(column), 0).to_numpy().astype(np.int64) for column in strings])


def _encode(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Codes per row and the distinct values in order of first appearance."""
    encoded = column.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0) if encoded.num_chunks else pa.array([], pa.string()).dictionary_encode()
    return encoded.indices.to_numpy(), encoded.dictionary


def drop_repeated(pairs: pa.Table, *, tally: Tally) -> pa.Table:
    """The first row of each (image, text), in order; the others are dropped as ``repeated_in_unit``."""
    images, _ = _encode(pairs.column("image_id"))
    texts, _ = _encode(pairs.column("text"))
    _, first = np.unique(images.astype(np.int64) << 32 | texts, return_index=True)
    tally.drop("repeated_in_unit", len(pairs) - len(first))
    return pairs if len(first) == len(pairs) else pairs.take(pa.array(np.sort(first)))


def match_group(
    pairs: pa.Table,
    *,
    identify: Identify,
    open_matcher: OpenMatcher,
    languages: Collection[str],
    tally: Tally,
    opening_order: OpeningOrder = sorted,
) -> pa.Table:
    """Match one group of pairs (PAIR_SCHEMA, and columns that are carried along) → MATCHED_SCHEMA and those, in the order of the group.

    ``languages``: those that have entries; a text of another is dropped as ``language_not_built``, one without entries as ``no_match``.
    """
    rows, distinct = _encode(pairs.column("text"))
    texts: list[str] = distinct.to_pylist()
    lid, score, langs = identify(texts)
    names = sorted(set(langs) & set(languages))
    code_of = {name: code for code, name in enumerate(names)}
    lang = np.array([code_of.get(name, -1) for name in langs], dtype=np.int32)

    matches = np.zeros(len(texts), dtype=np.int64)
    ids_of: list[np.ndarray] = []
    order: list[np.ndarray] = []
    for name in opening_order(names):
        mine = np.flatnonzero(lang == code_of[name])
        matcher = open_matcher(name)
        ids, offsets = matcher.find(space_texts([texts[i] for i in mine], matcher.rules))
        matches[mine] = np.diff(offsets)
        ids_of.append(ids)
        order.append(mine)

    tally.drop("language_not_built", int(np.count_nonzero(lang[rows] < 0)))
    tally.drop("no_match", int(np.count_nonzero((lang[rows] >= 0) & (matches[rows] == 0))))
    alive = np.flatnonzero(matches[rows] > 0)
    rows = rows[alive]

    # One list array over distinct texts in the order in which they were matched, then one take for the rows.
    by_text = np.concatenate(order) if order else np.zeros(0, dtype=np.int64)
    offsets = np.concatenate(([0], np.cumsum(matches[by_text]))).astype(np.int32)
    flat = np.concatenate(ids_of) if ids_of else np.zeros(0, dtype=np.int32)
    position = np.full(len(texts), -1, dtype=np.int64)
    position[by_text] = np.arange(len(by_text))
    entries = pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat), type=MATCHED_SCHEMA.field("entries").type)

    kept = pairs.take(pa.array(alive))
    image_ids = kept.column("image_id").to_pylist()
    carried = [field for field in pairs.schema if field.name not in PAIR_SCHEMA.names]
    columns = [
        *kept.select(PAIR_SCHEMA.names).columns,
        pa.array(lid, pa.string()).take(pa.array(rows)),
        pa.array(np.asarray(score, dtype=np.float32)[rows]),
        pa.DictionaryArray.from_arrays(pa.array(lang[rows]), pa.array(names, pa.string())),
        entries.take(pa.array(position[rows])),
        pa.array(image_keys(image_ids)),
        pa.array(pair_keys(image_ids, kept.column("text").to_pylist())),
        *(kept.column(field.name) for field in carried),
    ]
    return pa.Table.from_arrays(columns, schema=pa.schema([*MATCHED_SCHEMA, *carried]))


def in_stored_order(matched: Sequence[pa.Table], *, tally: Tally) -> pa.Table:
    """One unit's matched groups as the table that is stored: sorted by lang, image_key, pair_key, each pair once."""
    if not matched:
        return MATCHED_SCHEMA.empty_table()
    table = pa.concat_tables(matched).unify_dictionaries()
    lang = table.column("lang").cast(pa.string())
    names = sorted(pc.unique(lang).to_pylist())
    code = pc.index_in(lang, pa.array(names, pa.string())).to_numpy()
    image, pair = table.column("image_key").to_numpy(), table.column("pair_key").to_numpy()
    order = np.lexsort((np.arange(len(table)), pair, image, code))
    same = (image[order][1:] == image[order][:-1]) & (pair[order][1:] == pair[order][:-1])
    order = order[np.concatenate(([True], ~same))] if len(order) else order
    tally.drop("repeated_in_unit", len(table) - len(order))
    table = table.take(pa.array(order))
    codes = pa.array(code[order].astype(np.int32))
    stored = pa.DictionaryArray.from_arrays(codes, pa.array(names, pa.string()))
    return table.set_column(table.schema.get_field_index("lang"), MATCHED_SCHEMA.field("lang"), stored).combine_chunks()


def match_pairs(
    pairs: Iterable[pa.Table],
    *,
    identify: Identify,
    open_matcher: OpenMatcher,
    languages: Collection[str],
    tally: Tally,
    opening_order: OpeningOrder = sorted,
    group_rows: int = GROUP_ROWS,
) -> pa.Table:
    """Match one unit: PAIR_SCHEMA tables → one MATCHED_SCHEMA table in stored order; columns beside those of PAIR_SCHEMA are carried along.

    Memory: the group in work (``group_rows`` pairs) and what the unit has matched so far.
    """
    matched = []
    for group in in_groups(pairs, group_rows):
        tally.read += len(group)
        group = drop_repeated(group, tally=tally)
        matched.append(
            match_group(group, identify=identify, open_matcher=open_matcher, languages=languages, tally=tally, opening_order=opening_order)
        )
    table = in_stored_order(matched, tally=tally)
    tally.emitted += len(table)
    return table
