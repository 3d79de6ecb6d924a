"""Entries of a whole world: 300 made-up languages in several scripts, 30 million entries, their automata, and pairs matched against them.

Run as a program it is the process of its own in which the pairs are matched: ``ENTRIES PAIRS BUDGET``.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import ahocorasick
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from balancing.automaton import build_automaton
from balancing.match import match_pairs
from balancing.pairs import PAIR_SCHEMA
from metadata.tally import Tally
from metadata.text import pattern_of_entry
from pipelines.automata import CHECKSUM, RULES, Automata, automaton_url
from tests.benchmarks import naive
from tests.benchmarks.material import Material
from tests.benchmarks.measure import Row, long_benchmark, row
from tests.benchmarks.replicated import peak_memory

LANGUAGES = 300
#: Of the entries that the largest language has at most: all of them together, and what a process may hold of their automata, bytes.
_WORLD, _BUDGET = 60, (2 << 30) / 500_000
_UNLIMITED = 1 << 50
#: The pairs are matched as one unit, which is one group, and as several, as crawl files are.
_UNITS = 4
_ENTRIES_PER_TEXT = 6
_LATIN, _CYRILLIC, _ARABIC = "bcdfghjklmnprstvwz", "бвгджзклмнпрстфхцч", "ابتثجحخدرزسشصضطعغفقكلمنهوي"
_DEVANAGARI, _THAI = "कखगघचछजझटठडढतथदधनपफबभमयरलवशसह", "กขคงจชซดตถทนบปผพฟมยรลวสหอ"


@dataclass(frozen=True, kw_only=True)
class Script:
    """How words are made: of ``shortest`` to ``longest`` syllables, of which the first are the most frequent."""

    name: str
    syllables: tuple[str, ...]
    shortest: int
    longest: int
    joiner: str = " "


def _syllables(*parts: Sequence[str]) -> tuple[str, ...]:
    made = [""]
    for part in parts:
        made = [left + right for right in part for left in made]
    return tuple(made)


SCRIPTS = {
    script.name: script
    for script in (
        Script(name="latin", syllables=_syllables(_LATIN, "aeiou", ["", "n", "r", "s"]), shortest=1, longest=4),
        Script(name="cyrillic", syllables=_syllables(_CYRILLIC, "аеиоуыюя", ["", "н", "й"]), shortest=1, longest=4),
        Script(name="arabic", syllables=_syllables(_ARABIC, _ARABIC[:12]), shortest=1, longest=4),
        Script(name="devanagari", syllables=_syllables(_DEVANAGARI, ["ा", "ि", "ी", "ु", "े", "ो", ""]), shortest=1, longest=4),
        Script(name="thai", syllables=_syllables(_THAI, ["า", "ิ", "ี", "ุ", "ู", ""], ["", "น", "ง"]), shortest=1, longest=4, joiner=""),
        Script(name="han", syllables=tuple(map(chr, range(0x4E00, 0x4E00 + 3000))), shortest=1, longest=3, joiner=""),
        Script(name="kana", syllables=tuple(map(chr, range(0x30A1, 0x30F7))), shortest=2, longest=6, joiner=""),
        Script(name="hangul", syllables=tuple(map(chr, range(0xAC00, 0xD7A4, 7))), shortest=1, longest=4),
    )
}
#: The scripts of the languages, the largest first, over and over.
_CYCLE = [
    *("latin", "han", "latin", "cyrillic", "kana", "arabic", "latin", "devanagari"),
    *("hangul", "latin", "thai", "cyrillic", "latin", "arabic", "latin", "devanagari"),
]


def sizes(largest: int) -> list[int]:
    """Entries of each language: Zipf's law with an offset, by which the largest is no larger than the recipe's caps allow."""
    weights = 1.0 / (np.arange(LANGUAGES) + 21)
    return [int(n) for n in np.ceil(weights / weights.sum() * _WORLD * largest)]


def name_of(rank: int) -> str:
    return f"{SCRIPTS[_CYCLE[rank % len(_CYCLE)]].name}-{rank:03}"


def _zipf(n: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` numbers below ``n``, that of rank r with odds of about 1 / (r + 10)."""
    return (10.0 * ((n + 10.0) / 10.0) ** rng.random(count) - 10.0).astype(np.int64)


def _words(script: Script, count: int, rng: np.random.Generator) -> pa.Array:
    syllables = pa.array([*script.syllables, ""])
    lengths = rng.integers(script.shortest, script.longest + 1, size=count)
    columns = [
        syllables.take(pa.array(np.where(place < lengths, _zipf(len(script.syllables), count, rng), len(script.syllables))))
        for place in range(script.longest)
    ]
    return pc.unique(pc.binary_join_element_wise(*columns, ""))


def entries_of(script: Script, count: int, rng: np.random.Generator) -> list[str]:
    """So many distinct entries: half of them words, the others of two or three of these."""
    found = pa.array([], pa.string())
    drawn = count
    while len(found) < count:
        words = _words(script, drawn, rng).slice(0, (count + 1) // 2)
        several = [words.take(pa.array(_zipf(len(words), drawn, rng))) for _ in range(3)]
        third = pc.if_else(pa.array(rng.random(drawn) < 0.3), pc.binary_join_element_wise("", several[2], script.joiner), "")
        phrases = pc.binary_join_element_wise(pc.binary_join_element_wise(*several[:2], script.joiner), third, "")
        found = pc.unique(pa.concat_arrays([words, phrases]))
        drawn *= 2
    return found.slice(0, count).to_pylist()  # type: ignore[no-any-return]


def _once(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds and the result."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


@dataclass
class World:
    """The stage as :class:`Automata` reads it, and what was noted while it was made."""

    url: str
    seconds: float = 0.0
    entries: int = 0
    size: int = 0

    def add(self, lang: str, entries: Sequence[str]) -> None:
        seconds, data = _once(lambda: build_automaton(entries, naive.RULES, entries_checksum=lang))
        path = Path(automaton_url(self.url, lang))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        about = {CHECKSUM: lang.encode(), RULES: naive.RULES.name.encode()}
        pq.write_table(pa.table({"entry": pa.array([], pa.string())}).replace_schema_metadata(about), f"{self.url}/{lang}.parquet")
        self.seconds, self.entries, self.size = self.seconds + seconds, self.entries + len(entries), self.size + len(data)


def _texts(entries: Sequence[str], joiner: str, count: int, rng: np.random.Generator) -> pa.Array:
    some = pa.array([entries[i] for i in rng.integers(len(entries), size=20 * count)])
    return pc.binary_join_element_wise(*(some.take(pa.array(_zipf(len(some), count, rng))) for _ in range(_ENTRIES_PER_TEXT)), joiner)


def _write_pairs(path: Path, texts: pa.Array, langs: pa.Array) -> None:
    n = len(texts)
    ids = pa.array([f"{i:024x}" for i in range(n)])
    urls = pc.binary_join_element_wise("http://pictures.example/", ids, "")
    columns = [ids, urls, pa.nulls(n, pa.string()), texts, pa.array(["alt"] * n)]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table([*columns, langs], schema=pa.schema([*PAIR_SCHEMA, pa.field("language", pa.string())])), path)


def _naive(entries: Sequence[str]) -> tuple[float, float, int]:
    """Seconds to build and to load pyahocorasick's automaton, and its bytes in memory."""

    def build() -> ahocorasick.Automaton:
        built = ahocorasick.Automaton()
        for index, entry in enumerate(entries):
            built.add_word(pattern_of_entry(entry, naive.RULES), index)
        built.make_automaton()
        return built

    building, built = _once(build)
    pickled = pickle.dumps(built)
    loading, _ = _once(lambda: pickle.loads(pickled))  # noqa: S301  its own bytes
    return building, loading, int(built.get_stats()["total_size"])


@long_benchmark
def world_automata(material: Material) -> Iterator[Row]:
    """30 million entries: to build, to load, their size by script; and a million pairs matched under a budget, and without one."""
    largest, n_pairs = material.size.entries, material.size.pairs
    rng, budget = material.rng(7), int(_BUDGET * largest)
    folder = material.folder / "world-automata"
    world = World(str(folder / "entries"))
    drawn, langs = [], []
    by_naive = {}
    for rank, count in enumerate(sizes(largest)):
        lang, script = name_of(rank), SCRIPTS[_CYCLE[rank % len(_CYCLE)]]
        entries = entries_of(script, count, rng)
        before = world.size
        world.add(lang, entries)
        some = -(-n_pairs * count // (_WORLD * largest))
        drawn.append(_texts(entries, script.joiner, some, rng))
        langs += [lang] * some
        if script.name not in by_naive:
            by_naive[script.name] = (count, *_naive(entries))
            characters = sum(map(len, entries)) / count
            yield row(
                f"world_automata_size_{script.name}",
                (world.size - before) / count,
                "bytes/entry",
                by_naive[script.name][3] / count,
                input=f"{count:,} made-up entries of {characters:.1f} characters; baseline: pyahocorasick with ids, in memory",
                command="world_automata",
                less_is_better=True,
            )
    order = rng.permutation(len(langs))[:n_pairs]
    texts, lang_of = pa.concat_arrays(drawn).take(pa.array(order)), pa.array(langs).take(pa.array(order))
    edges = np.linspace(0, len(order), _UNITS + 1).astype(int)
    _write_pairs(folder / "one" / "0.parquet", texts, lang_of)
    for i, (first, end) in enumerate(pairwise(edges.tolist())):
        _write_pairs(folder / "several" / f"{i}.parquet", texts.slice(first, end - first), lang_of.slice(first, end - first))

    measured = sum(count for count, *_ in by_naive.values())
    naive_build, naive_load = (sum(figures[i] for figures in by_naive.values()) * world.entries / measured for i in (1, 2))
    about = f"{world.entries:,} made-up entries of {LANGUAGES} languages in {len(SCRIPTS)} scripts, {world.size / 1e9:.2f} GB on disk"
    scaled = f"{about}; baseline: pyahocorasick, from a list per script"
    yield row("world_automata_build", world.seconds, "s", naive_build, input=scaled, command="world_automata", less_is_better=True)
    yield from _matched(world, folder, budget, about, naive_load)


def _matched(world: World, folder: Path, budget: int, about: str, naive_load: float) -> Iterator[Row]:
    """The pairs as one unit and as several, and those with room for half of the automata, each beside a process with room for all."""
    ways = [("one", "one", budget), ("several", "several", budget), ("half", "several", world.size // 2)]
    free = {pairs: _match_apart(world.url, folder / pairs, _UNLIMITED) for pairs in ("one", "several")}
    yield row(
        "world_automata_load",
        free["one"]["loading"],
        "s",
        naive_load,
        input=f"{about}, each loaded once; baseline: pyahocorasick unpickled, from a list per script",
        command="world_automata",
        less_is_better=True,
    )
    for name, pairs, limit in ways:
        units = 1 if pairs == "one" else _UNITS
        all_of_them, held = free[pairs], _match_apart(world.url, folder / pairs, limit)
        if all_of_them["entries"] != held["entries"]:
            raise AssertionError("the budget shows in the result")
        if held["loads"] > LANGUAGES * units:
            raise AssertionError("an automaton was loaded more than once a group")
        how = f"{held['pairs']:,} pairs in {units} units, {about}; {limit / (1 << 30):.3g} GB for automata: {held['loads']} loads, "
        how += f"{held['evictions']} evictions, {held['loaded_bytes'] / 1e9:.2f} GB loaded"
        against = f"baseline: no limit, {all_of_them['loads']} loads"
        yield row(
            f"world_match_{name}",
            held["pairs"] / held["seconds"],
            "pairs/s",
            all_of_them["pairs"] / all_of_them["seconds"],
            input=f"{how}; {against}",
            command="world_automata",
        )
        yield row(
            f"world_match_{name}_memory",
            held["peak"] / 1e6,
            "MB",
            all_of_them["peak"] / 1e6,
            input=f"{how}; {held['before'] / 1e6:.0f} MB before the first, {held['all_held'] / 1e6:.0f} MB of them at the end; {against}",
            command="world_automata",
            less_is_better=True,
        )


def _match_apart(entries: str, pairs: Path, budget: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.benchmarks.world_automata", entries, str(pairs), str(budget)]
    return dict(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))


def match_units(entries: str, pairs: str, budget: int) -> dict[str, Any]:
    """Match every file of pairs as the job does a unit. Languages are known, and texts distinct: what costs is matching and loading."""
    automata = Automata(entries, "", "daachorse", budget)
    matching = loading = 0.0
    n_pairs = n_entries = 0
    before = peak_memory()

    def open_matcher(lang: str) -> Any:
        nonlocal loading
        seconds, matcher = _once(lambda: automata.open(lang))
        loading += seconds
        return matcher

    for path in sorted(Path(pairs).iterdir()):
        table = pq.read_table(path)
        language_of = dict(zip(table["text"].to_pylist(), table["language"].to_pylist(), strict=True))

        def identify(texts: Sequence[str], language_of: dict[str, str] = language_of) -> tuple[list[str], np.ndarray, list[str]]:
            return ["x"] * len(texts), np.ones(len(texts)), [language_of[text] for text in texts]

        start = time.process_time()
        matched = match_pairs(
            [table.select(PAIR_SCHEMA.names)],
            identify=identify,
            open_matcher=open_matcher,
            opening_order=automata.held_first,
            languages=sorted(set(language_of.values())),
            tally=Tally(),
        )
        matching += time.process_time() - start
        n_pairs += len(table)
        n_entries += sum(len(chunk.values) for chunk in matched["entries"].chunks)
    return {
        "pairs": n_pairs,
        "entries": n_entries,
        "seconds": matching,
        "loading": loading,
        "loads": automata.loads,
        "evictions": automata.evictions,
        "loaded_bytes": automata.loaded_bytes,
        "all_held": automata.held_bytes,
        "before": before,
        "peak": peak_memory(),
    }


if __name__ == "__main__":
    print(json.dumps(match_units(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
