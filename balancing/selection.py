"""The decision: which rows of a matched part are in the curated set. Vectorised; offline curation and the trainer's online one share it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from balancing.counts import list_arrays, rows_by_language
from balancing.sampling import chosen, kept, place_among_languages, text_probabilities
from metadata.tally import Tally


def row_probabilities(matched: pa.Table, probability: Mapping[str, np.ndarray]) -> np.ndarray:
    """Probability with which each row's text is kept once it is chosen; 0 for a language that has none. float64, shape (rows,).

    ``matched`` needs the columns lang and entries, sorted by lang; ``probability``: per language, by entry id.

    Raises:
        ValueError: an entry id lies outside the language's list.
    """
    entries, offsets = list_arrays(matched.column("entries"))
    out = np.zeros(len(matched))
    for lang, first, end in rows_by_language(matched):
        if lang in probability:
            ids = entries[offsets[first] : offsets[end]]
            outside = ids[(ids < 0) | (ids >= len(probability[lang]))]
            if len(outside):
                raise ValueError(f"{lang}: entry id {outside[0]} is outside the list of {len(probability[lang])} entries")
            out[first:end] = text_probabilities(probability[lang], ids, offsets[first : end + 1] - offsets[first])
    return out


def _encode(names: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """Code per value, and the value of each code. Values that do not occur may be among them."""
    names = names.combine_chunks() if isinstance(names, pa.ChunkedArray) else names
    names = names if pa.types.is_dictionary(names.type) else names.dictionary_encode()
    return names.indices.to_numpy(), names.dictionary.to_pylist()


def chosen_rows(matched: pa.Table, siblings: pa.Table, *, selected: frozenset[str], seed: int, epoch: int) -> np.ndarray:
    """Whether each row is the text that is chosen of its image's unique texts in the selected languages. Boolean, shape (rows,)."""
    lists = siblings.column("n").combine_chunks()
    langs, counts = lists.flatten().flatten()
    (row_codes, row_names), (n_codes, n_names) = _encode(matched.column("lang")), _encode(langs)
    names = sorted({*row_names, *n_names})
    # Codes that ascend with the names.
    row_lang = np.array([names.index(name) for name in row_names], dtype=np.int32)[row_codes]
    n_lang = np.array([names.index(name) for name in n_names], dtype=np.int32)[n_codes]
    takes_part = np.array([name in selected for name in names], dtype=bool)
    offsets = lists.offsets.to_numpy()
    before, total = place_among_languages(row_lang, n_lang, counts.to_numpy(), offsets - offsets[0], takes_part)
    rank = np.where(takes_part[row_lang], siblings.column("rank").to_numpy(), -1)
    return chosen(matched.column("image_key").to_numpy(), rank, before, total, seed=seed, epoch=epoch)


def select_rows(
    matched: pa.Table, siblings: pa.Table, *, probability: Mapping[str, np.ndarray], seed: int, epoch: int = 0, tally: Tally
) -> tuple[np.ndarray, np.ndarray]:
    """The curated rows of one matched part: ascending row numbers, and the probability of each.

    ``matched`` needs the columns lang, entries, image_key, pair_key. A language without probabilities takes no part.
    Drops: duplicate, language_not_selected, not_chosen (another text of the image is), balanced_away.
    """
    selected = _selected_rows(matched, siblings, frozenset(probability), tally)
    is_chosen = chosen_rows(matched, siblings, selected=frozenset(probability), seed=seed, epoch=epoch) & selected
    candidates = np.flatnonzero(is_chosen)
    odds = _odds(matched, candidates, probability)
    stays = kept(matched.column("pair_key").to_numpy()[candidates], odds, seed=seed, epoch=epoch)
    tally.drop("not_chosen", int(np.count_nonzero(selected & ~is_chosen)))
    tally.drop("balanced_away", int(np.count_nonzero(~stays)))
    tally.emitted += int(np.count_nonzero(stays))
    return candidates[stays], odds[stays]


def sibling_rows(
    matched: pa.Table, siblings: pa.Table, *, probability: Mapping[str, np.ndarray], tally: Tally
) -> tuple[np.ndarray, np.ndarray]:
    """All rows of one matched part that :func:`select_rows` draws from, whatever the seed: as that, without a draw.

    Drops: duplicate, language_not_selected.
    """
    rows = np.flatnonzero(_selected_rows(matched, siblings, frozenset(probability), tally))
    tally.emitted += len(rows)
    return rows, _odds(matched, rows, probability)


def _selected_rows(matched: pa.Table, siblings: pa.Table, selected: frozenset[str], tally: Tally) -> np.ndarray:
    """Whether each row is the living copy of its pair, in a language that takes part. Counts all rows as read, the others as drops."""
    unique = siblings.column("keep").to_numpy()
    row_codes, row_names = _encode(matched.column("lang"))
    takes_part = np.array([name in selected for name in row_names], dtype=bool)[row_codes]
    tally.read += len(matched)
    tally.drop("duplicate", int(np.count_nonzero(~unique)))
    tally.drop("language_not_selected", int(np.count_nonzero(unique & ~takes_part)))
    return unique & takes_part


def _odds(matched: pa.Table, rows: np.ndarray, probability: Mapping[str, np.ndarray]) -> np.ndarray:
    return row_probabilities(matched.select(["lang", "entries"]).take(pa.array(rows)), probability)
