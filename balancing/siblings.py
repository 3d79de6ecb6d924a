"""De-duplication: which copy of a pair lives, and how the texts of an image are numbered.

Works on small fixed-size records of one range of image keys, so that a range is a self-contained problem: an image never spans two.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from balancing.pairs import LANG_COUNT, SIBLINGS_SCHEMA

#: What de-duplication needs to know of a matched row: 28 bytes. ``lang`` is a code in ascending order of the language names.
RECORD = np.dtype([("image_key", "<u8"), ("pair_key", "<u8"), ("lang", "<i4"), ("part", "<i4"), ("row", "<i4")])

#: The answer for one row that lives: its rank, and where the counts of its image stand (first, how many) in the arrays beside.
VERDICT = np.dtype([("row", "<i4"), ("rank", "<i4"), ("n_first", "<i4"), ("n_length", "<i4")])


def range_of(image_keys: np.ndarray, ranges: int) -> np.ndarray:
    """The range, 0 … ranges − 1, that each uint64 image key falls into: equal slices of the key space, int64."""
    return ((image_keys >> np.uint64(32)) * np.uint64(ranges) >> np.uint64(32)).astype(np.int64)


def resolve(records: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decide all records of one range of images, whatever order they come in.

    ``records``: RECORD, shape (n,). Of equal pairs (same image_key and pair_key) the one with the smallest (part, row) lives.

    Returns the winners (RECORD, shape (w,), in the order of image, lang, pair key); their ranks (int32, shape (w,)); and the number of
    texts of each image in each of its languages: structured (image, lang, n), in the same order, images numbered from 0.
    """
    # Contiguous columns sort much faster than fields of a structure.
    place = records["part"].astype(np.int64) << 32 | records["row"]
    order = np.lexsort((place, records["pair_key"].copy(), records["image_key"].copy()))
    images, pairs = records["image_key"][order], records["pair_key"][order]
    new_image, first = np.ones((2, len(records)), dtype=bool)
    new_image[1:] = images[1:] != images[:-1]
    first[1:] = new_image[1:] | (pairs[1:] != pairs[:-1])
    winners, new_image = records[order[first]], new_image[first]

    # A second sort by language, since a text to which two matching runs gave different languages is still one pair.
    by_lang = np.argsort(np.cumsum(new_image) << 32 | winners["lang"], kind="stable")
    winners = winners[by_lang]
    new_lang = new_image.copy()
    new_lang[1:] |= winners["lang"][1:] != winners["lang"][:-1]
    starts = np.flatnonzero(new_lang)
    group = np.cumsum(new_lang) - 1
    rank = np.arange(len(winners)) - starts[group]

    image = np.cumsum(new_image) - 1
    counts = np.empty(len(starts), dtype=[("image", "<i4"), ("lang", "<i4"), ("n", "<i4")])
    counts["image"] = image[starts]
    counts["lang"] = winners["lang"][starts]
    counts["n"] = np.diff(np.append(starts, len(winners)))
    return winners, rank.astype(np.int32), counts


def verdicts_by_part(records: np.ndarray) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """The verdicts on one range of images, cut by part.

    Per part that has a living row: VERDICT rows, and the (lang, n) counts they point into as int32 of shape (m, 2).
    A row that is not mentioned is a copy of a pair that lives elsewhere.
    """
    winners, rank, counts = resolve(records)
    if not len(winners):
        return {}
    first_of_image = np.searchsorted(counts["image"], np.arange(counts["image"][-1] + 2))
    image_of_winner = np.repeat(counts["image"], counts["n"])
    first, length = first_of_image[image_of_winner], np.diff(first_of_image)[image_of_winner]
    out = {}
    by_part = np.argsort(winners["part"], kind="stable")
    parts, rows = np.unique(winners["part"], return_counts=True)
    for part, mine in zip(parts.tolist(), np.split(by_part, np.cumsum(rows)[:-1]), strict=True):
        lengths = length[mine]
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        gather = np.repeat(first[mine] - offsets[:-1], lengths) + np.arange(offsets[-1])
        verdicts = np.empty(len(mine), dtype=VERDICT)
        verdicts["row"], verdicts["rank"] = winners["row"][mine], rank[mine]
        verdicts["n_first"], verdicts["n_length"] = offsets[:-1], lengths
        out[part] = (verdicts, np.stack([counts["lang"][gather], counts["n"][gather]], axis=1).astype(np.int32))
    return out


def siblings_table(rows: int, answers: Sequence[tuple[np.ndarray, np.ndarray]], languages: Sequence[str]) -> pa.Table:
    """The ``siblings`` table of one matched part of ``rows`` rows, from the verdicts of all ranges, in any order."""
    rank = np.full(rows, -1, dtype=np.int32)
    first = np.zeros(rows, dtype=np.int64)
    length = np.zeros(rows, dtype=np.int64)
    lists, shift = [np.zeros((0, 2), dtype=np.int32)], 0
    for verdicts, counts in answers:
        rank[verdicts["row"]] = verdicts["rank"]
        first[verdicts["row"]] = verdicts["n_first"] + shift
        length[verdicts["row"]] = verdicts["n_length"]
        lists.append(counts)
        shift += len(counts)
    offsets = np.concatenate(([0], np.cumsum(length)))
    n = np.concatenate(lists)[np.repeat(first - offsets[:-1], length) + np.arange(offsets[-1])]
    names = pa.array(languages, pa.string()).take(pa.array(n[:, 0]))
    structs = pa.StructArray.from_arrays([names, pa.array(n[:, 1], pa.int32())], fields=list(LANG_COUNT))
    lists_type = SIBLINGS_SCHEMA.field("n").type
    n_column = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), structs, type=lists_type)
    return pa.Table.from_arrays([pa.array(rank >= 0), pa.array(rank), n_column], schema=SIBLINGS_SCHEMA)
