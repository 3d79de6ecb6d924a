"""Entries and texts: the matcher and its file."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from balancing.automaton import Matcher, build_automaton, open_automaton
from metadata.text import space_texts
from tests.benchmarks import naive
from tests.benchmarks.material import Material
from tests.benchmarks.measure import Row, benchmark, compare, cpu_seconds, row


@benchmark
def match_only(material: Material) -> Iterator[Row]:
    """Distinct English texts → ids of the entries in them."""
    texts = material.english_texts
    matcher = open_automaton(BytesIO(build_automaton(material.english, naive.RULES, entries_checksum="")), entries_checksum="")
    built = naive.automaton(material.english)
    yield compare(
        "match_only",
        "texts/s",
        amount=len(texts),
        fast=lambda: matcher.find(space_texts(texts, naive.RULES)),
        naive=lambda: [naive.find(built, text) for text in texts],
        fast_result=lambda found: [found[0][a:b].tolist() for a, b in zip(found[1][:-1], found[1][1:], strict=True)],
        input=f"{len(texts):,} distinct English texts, {len(material.english):,} entries; naive: pyahocorasick with (id, entry) values",
        command="match_only",
    )


def _load(path: Path) -> Matcher:
    """As the job opens it."""
    with path.open("rb", buffering=0) as file:
        return open_automaton(file, entries_checksum="")


@benchmark
def automaton(material: Material) -> Iterator[Row]:
    """The automaton of the English entries: to build it, to load it, and its size."""
    entries = material.english
    seconds, data = cpu_seconds(lambda: build_automaton(entries, naive.RULES, entries_checksum=""))
    naive_seconds, built = cpu_seconds(lambda: naive.automaton(entries))
    about = f"{len(entries):,} English entries; naive: pyahocorasick with (id, entry) values"
    yield row("automaton_build", seconds, "s", naive_seconds, input=about, command="automaton", less_is_better=True)
    path, pickled = material.folder / "automaton", material.folder / "automaton.pickle"
    path.write_bytes(data)
    pickled.write_bytes(pickle.dumps(built))
    load, _ = cpu_seconds(lambda: _load(path))
    naive_load, _ = cpu_seconds(lambda: pickle.loads(pickled.read_bytes()))  # noqa: S301  its own bytes
    yield row("automaton_load", load * 1e3, "ms", naive_load * 1e3, input=f"{about}, unpickled", command="automaton", less_is_better=True)
    yield row(
        "automaton_size",
        len(data) / len(entries),
        "bytes/entry",
        pickled.stat().st_size / len(entries),
        input=f"{about}, pickled",
        command="automaton",
        less_is_better=True,
    )
