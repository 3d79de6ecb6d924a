"""The automata of a finished entries stage, opened when a language first needs its own and held under a memory budget per process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq

from balancing.automaton import AutomatonError, Matcher, PyahocorasickMatcher, open_automaton
from metadata.text import rule_set
from pipelines import storage
from pipelines.cache import file_number, local_copy
from pipelines.errors import JobError
from pipelines.part import read_part

#: Keys of the schema metadata of ``entries/<lang>.parquet``: identity of the list, rule set, and how many entries can never match under it.
CHECKSUM, RULES, NEVER = b"entries_checksum", b"rules", b"never_matching"


def automaton_url(entries_url: str, lang: str) -> str:
    return storage.join(entries_url, "automata", lang)


def budget_line(budget: int, processes: int) -> str:
    """What automata may take of a machine's memory, for people."""
    one, together = (f"{n / (1 << 30):.3g} GB" for n in (budget, budget * processes))
    return f"automata may take {one} of memory in each process" + (f", {together} in {processes}" if processes > 1 else "")


def _about(entries_url: str, lang: str) -> tuple[str, str]:
    """Checksum and rule set of a language's entries."""
    with storage.open_read(storage.join(entries_url, f"{lang}.parquet")) as f:
        metadata = pq.read_schema(f).metadata
    return metadata[CHECKSUM].decode(), metadata[RULES].decode()


class Automata:
    """Opens matchers by language. Before one is loaded the least recently used go, until all together stay within ``budget`` bytes.

    ``entries_id``: the id of the finished stage that lies at ``entries_url``.

    Memory: the budget, or the largest automaton where that is larger; while one is loaded, the size of its file besides; and what threads
    still work with that had to go. An automaton takes as much memory as its file.
    """

    def __init__(self, entries_url: str, entries_id: str, engine: str, budget: int) -> None:
        self._url, self._id, self._engine, self._budget = entries_url, entries_id, engine, budget
        # Runners work on several units of a process at a time, in threads.
        self._lock = threading.Lock()
        self._held: OrderedDict[str, tuple[int, Matcher]] = OrderedDict()
        self.loads = self.loaded_bytes = self.evictions = 0

    @property
    def held_bytes(self) -> int:
        return sum(size for size, _ in self._held.values())

    def open(self, lang: str) -> Matcher:
        """The matcher of a language.

        Raises:
            JobError: its file is absent, damaged or belongs to other entries.
        """
        with self._lock:
            if lang not in self._held:
                size, matcher = self._build(lang) if self._engine == "pyahocorasick" else self._load(lang)
                self._held[lang] = size, matcher
                self.loads += 1
                self.loaded_bytes += size
            self._held.move_to_end(lang)
            return self._held[lang][1]

    def held_first(self, languages: Iterable[str]) -> list[str]:
        """The languages in the order in which opening them loads least: first those that are held.

        In one order every time, and more of them than fit, each would have gone just before its turn comes.
        """
        with self._lock:
            return sorted(languages, key=lambda lang: (lang not in self._held, lang))

    def _make_room(self, size: int) -> None:
        while self._held and self.held_bytes + size > self._budget:
            self._held.popitem(last=False)
            self.evictions += 1

    def _build(self, lang: str) -> tuple[int, Matcher]:
        _, rules = _about(self._url, lang)
        entries = read_part(storage.join(self._url, f"{lang}.parquet"), columns=["entry"])["entry"].to_pylist()
        matcher = PyahocorasickMatcher(entries, rule_set(rules))
        self._make_room(matcher.size)
        return matcher.size, matcher

    def _load(self, lang: str) -> tuple[int, Matcher]:
        checksum, _ = _about(self._url, lang)
        url = automaton_url(self._url, lang)
        # Not named by the entries' checksum: the same entries under another rule set have another automaton.
        name = f"{lang}-{self._id}.automaton"
        path = local_copy(url, name)
        number = file_number(path)
        try:
            try:
                return self._read(path, checksum)
            except (AutomatonError, FileNotFoundError):
                if storage.is_local(url):
                    raise
                # The stage may be whole, and the copy damaged or cleared away.
                return self._read(local_copy(url, name, not_file=number), checksum)
        except AutomatonError as error:
            raise JobError(f"{url}: {error}") from error
        except OSError as error:
            raise JobError(f"{path}: cannot be read ({error.strerror or error})") from error

    def _read(self, path: Path, checksum: str) -> tuple[int, Matcher]:
        # Without a buffer: the file is read in one piece.
        with path.open("rb", buffering=0) as file:
            size = path.stat().st_size
            self._make_room(size)
            return size, open_automaton(file, entries_checksum=checksum)


@cache
def automata(entries_url: str, entries_id: str, engine: str, budget: int) -> Automata:
    """One :class:`Automata` a process, whatever the number of units it works on. ``entries_id`` tells remade entries from the old."""
    return Automata(entries_url, entries_id, engine, budget)
