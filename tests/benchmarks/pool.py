"""A synthetic pool of matched pairs: de-duplication and balancing, each against a loop over its pairs."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from balancing.counts import COUNTS_SCHEMA
from balancing.pairs import MATCHED_SCHEMA
from balancing.siblings import RECORD, siblings_table, verdicts_by_part
from metadata.tally import Tally
from pipelines.dedup import Cut, records_of_part
from pipelines.stage import Stage, Unit
from tests.benchmarks.material import Material

LANGUAGES = ("de", "en", "ja")
ENTRIES_PER_TEXT = 4
_ENTRIES = 50_000
_T = 200.0
RANGES = 4
_MASK = 2**64 - 1


class Pool:
    """Two matched parts that share a quarter of their pairs, and the second with its siblings. Most images have one or two texts."""

    def __init__(self, material: Material) -> None:
        self.folder = Path(material.output())
        self.rows = material.size.pairs
        self.seed = 1
        rng = material.rng(50)
        images = rng.integers(2**63, size=self.rows * 3 // 4, dtype=np.uint64)
        self.stage = Stage(url=str(self.folder / "matched"), kind="match", parameters={})
        units = [Unit(name=f"{i}", path=f"part-{i}.parquet", url=self.stage.at(f"part-{i}.parquet"), index=i) for i in range(2)]
        self.stage.begin(units)
        self.units = sorted(units, key=lambda unit: unit.index)
        pair_keys = rng.integers(2**63, size=2 * self.rows, dtype=np.uint64)
        for unit in self.units:
            self.stage.write_part(
                unit, self._matched(rng, images, pair_keys, unit.index * (self.rows * 3 // 4)), Tally(read=self.rows, emitted=self.rows)
            )
        # The first part wins every shared pair, so the second is the one with duplicates.
        self.unit = self.units[1]
        self.matched = pq.read_table(self.unit.url)
        self.records = np.concatenate([self._records(unit) for unit in self.units])
        answers = [verdicts_by_part(self.records)]
        self.siblings = siblings_table(self.rows, [a[self.unit.index] for a in answers], LANGUAGES)
        self._write_siblings()
        self.counts = {lang: self._counts(lang) for lang in LANGUAGES}
        (self.folder / "counts").mkdir()
        for lang, counts in self.counts.items():
            table = pa.table([pa.array(np.arange(_ENTRIES, dtype=np.int32)), pa.array(counts)], schema=COUNTS_SCHEMA)
            pq.write_table(table, self.folder / "counts" / f"{lang}.parquet")
        self.probability = {lang: np.where(c < _T, 1.0, _T / np.maximum(c, 1)) for lang, c in self.counts.items()}

    def _matched(self, rng: np.random.Generator, images: np.ndarray, pair_keys: np.ndarray, first: int) -> pa.Table:
        n = self.rows
        pairs = np.arange(first, first + n)
        # Image and language follow from the pair, so that a shared pair is the same in both parts.
        chosen, lang = pairs % len(images), pairs * 7 // 5 % len(LANGUAGES)
        image_key, pair_key = images[chosen], pair_keys[pairs]
        order = np.lexsort((pair_key, image_key, lang))
        lang, image_key, pair_key, chosen = lang[order], image_key[order], pair_key[order], chosen[order]
        entries = (rng.zipf(1.3, size=n * ENTRIES_PER_TEXT) - 1) % _ENTRIES
        numbers = chosen.tolist()
        urls = [f"https://images.example/{i}/a-picture-of-it.jpg" for i in numbers]
        texts = [f"A caption of picture {i} in so many words as captions have" for i in numbers]
        columns = [
            [f"{key:016x}{i:08x}" for key, i in zip(image_key.tolist(), numbers, strict=True)],
            urls,
            ["https://www.example/a/page.html"] * n,
            texts,
            ["alt"] * n,
            ["en"] * n,
            pa.array(np.full(n, 0.9, dtype=np.float32)),
            pa.DictionaryArray.from_arrays(pa.array(lang.astype(np.int32)), pa.array(LANGUAGES)),
            pa.ListArray.from_arrays(
                pa.array(np.arange(n + 1, dtype=np.int32) * ENTRIES_PER_TEXT),
                pa.array(np.sort(entries.reshape(n, -1), axis=1).ravel().astype(np.int32)),
                type=MATCHED_SCHEMA.field("entries").type,
            ),
            pa.array(image_key),
            pa.array(pair_key),
        ]
        return pa.table(columns, schema=MATCHED_SCHEMA)

    def _records(self, unit: Unit) -> np.ndarray:
        chunks = records_of_part(unit, languages=LANGUAGES, cut=Cut(ranges=1))
        return np.concatenate([as_records(data) for _, data in chunks])

    def _write_siblings(self) -> None:
        (self.folder / "siblings").mkdir()
        pq.write_table(self.siblings, self.folder / "siblings" / self.unit.path, compression="zstd")

    def _counts(self, lang: str) -> np.ndarray:
        rows = np.asarray(self.matched["lang"].cast(pa.string()).to_numpy(zero_copy_only=False) == lang)
        entries = self.matched["entries"].combine_chunks().values.to_numpy().reshape(self.rows, ENTRIES_PER_TEXT)[rows]
        return np.bincount(entries.ravel(), minlength=_ENTRIES).astype(np.int64)

    def balance_stage(self, output: str) -> Stage:
        t = {lang: str(_T) for lang in LANGUAGES}
        stage = Stage(url=output, kind="balance", parameters={"seed": self.seed, "thresholds": {"id": "", "t": t}}, upstream={"count": ""})
        stage.begin([self.unit])
        return stage


def as_records(data: bytes) -> np.ndarray:
    return np.frombuffer(data, dtype=RECORD)


def naive_uniform(salt: int, key: int) -> float:
    x = (key + (salt | 1) * 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return ((x ^ (x >> 31)) >> 11) * 2.0**-53


def _salt(seed: int, purpose: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/0/{purpose}".encode(), digest_size=8).digest(), "little")


def naive_decision(matched: pa.Table, siblings: pa.Table, probability: Mapping[str, list[float]], seed: int) -> list[tuple[int, float]]:
    """The rows that are kept and their probabilities, pair by pair."""
    choose, keep = _salt(seed, "choose"), _salt(seed, "keep")
    columns = [matched[name].to_pylist() for name in ("lang", "entries", "image_key", "pair_key")]
    out = []
    for row, (lang, entries, image, pair, unique, rank, n) in enumerate(
        zip(*columns, *(siblings[name].to_pylist() for name in ("keep", "rank", "n")), strict=True)
    ):
        if not unique or lang not in probability:
            continue
        total = sum(one["n"] for one in n if one["lang"] in probability)
        before = sum(one["n"] for one in n if one["lang"] in probability and one["lang"] < lang)
        if before + rank != math.floor(naive_uniform(choose, image) * total):
            continue
        miss = 1.0
        for entry in entries:
            miss *= 1.0 - probability[lang][entry]
        if naive_uniform(keep, pair) < 1.0 - miss:
            out.append((row, 1.0 - miss))
    return out


def naive_records(unit: Unit) -> dict[int, list[tuple[int, int, int, int, int]]]:
    """(image key, pair key, language, part, row) of every row, by range of image keys."""
    table = pq.read_table(unit.url, columns=["lang", "image_key", "pair_key"])
    ranges: dict[int, list[tuple[int, int, int, int, int]]] = defaultdict(list)
    columns = [table[name].to_pylist() for name in ("lang", "image_key", "pair_key")]
    for row, (lang, image, pair) in enumerate(zip(*columns, strict=True)):
        ranges[(image >> 32) * RANGES >> 32].append((image, pair, LANGUAGES.index(lang), unit.index, row))
    return ranges


def naive_verdicts(records: list[tuple[int, int, int, int, int]]) -> dict[tuple[int, int], tuple[int, dict[int, int]]]:
    """Per (part, row) that lives: its rank, and how many texts its image has per language."""
    winners: dict[tuple[int, int], tuple[int, int, int]] = {}
    for image, pair, lang, part, row in records:
        there = winners.get((image, pair))
        if there is None or (part, row) < there[1:]:
            winners[image, pair] = (lang, part, row)
    images: dict[int, dict[int, list[tuple[int, int, int]]]] = defaultdict(lambda: defaultdict(list))
    for (image, pair), (lang, part, row) in winners.items():
        images[image][lang].append((pair, part, row))
    out = {}
    for by_lang in images.values():
        n = {lang: len(texts) for lang, texts in by_lang.items()}
        for texts in by_lang.values():
            for rank, (_, part, row) in enumerate(sorted(texts)):
                out[part, row] = (rank, n)
    return out


def as_verdicts(answers: dict[int, tuple[np.ndarray, np.ndarray]]) -> dict[tuple[int, int], tuple[int, dict[int, int]]]:
    out: dict[tuple[int, int], Any] = {}
    for part, (verdicts, counts) in answers.items():
        pairs = counts.tolist()
        for row, rank, first, length in verdicts.tolist():
            out[part, row] = (rank, dict(pairs[first : first + length]))
    return out
