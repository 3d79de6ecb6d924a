"""The automata of a finished entries stage, opened when a language first needs its own and held under a memory budget per process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import cache

import pyarrow.parquet as pq

from balancing.automaton import AutomatonError, Matcher, PyahocorasickMatcher, open_automaton
from metadata.text import rule_set
from pipelines import storage
from pipelines.errors import JobError
from pipelines.stage import read_part

#: Keys of the schema metadata of ``entries/<lang>.parquet``: identity of the list, rule set, and how many entries can never match under it.
CHECKSUM, RULES, NEVER = b"entries_checksum", b"rules", b"never_matching"


def automaton_url(entries_url: str, lang: str) -> str:
    return storage.join(entries_url, "automata", lang)


def _about(entries_url: str, lang: str) -> tuple[str, str]:
    """Checksum and rule set of a language's entries."""
    with storage.open_read(storage.join(entries_url, f"{lang}.parquet")) as f:
        metadata = pq.read_schema(f).metadata
    return metadata[CHECKSUM].decode(), metadata[RULES].decode()


class Automata:
    """Opens matchers by language; the least recently used go when their files' sizes pass ``budget`` bytes together.

    ``entries_id``: the id of the finished stage that lies at ``entries_url``.
    """

    def __init__(self, entries_url: str, entries_id: str, engine: str, budget: int) -> None:
        self._url, self._id, self._engine, self._budget = entries_url, entries_id, engine, budget
        # Runners work on several units of a process at a time, in threads.
        self._lock = threading.Lock()
        self._held: OrderedDict[str, tuple[int, Matcher]] = OrderedDict()
        self.loads = 0

    def open(self, lang: str) -> Matcher:
        """The matcher of a language.

        Raises:
            JobError: its file is absent, damaged or belongs to other entries.
        """
        with self._lock:
            if lang not in self._held:
                size, matcher = self._load(lang)
                while self._held and sum(s for s, _ in self._held.values()) + size > self._budget:
                    self._held.popitem(last=False)
                self._held[lang] = size, matcher
                self.loads += 1
            self._held.move_to_end(lang)
            return self._held[lang][1]

    def _load(self, lang: str) -> tuple[int, Matcher]:
        checksum, rules = _about(self._url, lang)
        if self._engine == "pyahocorasick":
            entries = read_part(storage.join(self._url, f"{lang}.parquet"), columns=["entry"])["entry"].to_pylist()
            return 110 * len(entries), PyahocorasickMatcher(entries, rule_set(rules))
        url = automaton_url(self._url, lang)
        # Not named by the checksum: the same entries under another rule set have another automaton.
        data = storage.cached_copy(url, f"{lang}-{self._id}.automaton").read_bytes()
        try:
            return len(data), open_automaton(data, entries_checksum=checksum)
        except AutomatonError as error:
            raise JobError(f"{url}: {error}") from error


@cache
def automata(entries_url: str, entries_id: str, engine: str, budget: int) -> Automata:
    """One :class:`Automata` a process, whatever the number of units it works on. ``entries_id`` tells remade entries from the old."""
    return Automata(entries_url, entries_id, engine, budget)
