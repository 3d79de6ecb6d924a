"""Entries → matcher, and its file: a header that says what it was made of, then tables. Nothing in it is ever executed.

Layout, integers little endian: 7 bytes magic, the format version (uint8), length of the header (uint32), CRC-32C of the header (uint32),
header as JSON, then the sections, of which it says sizes and CRC-32C: keys (uint64) and values (int32) of :mod:`balancing.phrases`, ids of
the other patterns (int32), and these patterns and a newline in daachorse's own serialization, if there are any.

The checksums are looked at on every load, since daachorse itself refuses four of five damaged automata only: one in thirty gives wrong ids,
and a few never end. CRC-32C finds every change within 32 bits, and others but for one in 2^32; for 48 MB it takes 8 ms, SHA-256 takes 40.
It is against accidents: whoever can forge it can forge the entries as well.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, BinaryIO, Protocol

import ahocorasick
import daachorse
import google_crc32c
import numpy as np

from balancing.phrases import KEY, VALUE, Phrases, blocks, build_phrases
from metadata.text import RuleSet, pattern_of_entry, rule_set

MAGIC = b"WCLIPAC"
FORMAT_VERSION = 2
#: A header is no longer: so much is read before its checksum is known.
_MAX_HEADER = 1 << 16
#: Engines by name; both give the same result. The first is what files hold, and the second is made anew, since its files would be pickles.
ENGINES = ("daachorse", "pyahocorasick")


class Matcher(Protocol):
    """Finds entries in spaced texts (metadata.text.space_texts)."""

    rules: RuleSet

    def find(self, spaced: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ascending ids of the entries in each text: int32 ids, and int32 offsets of shape (n + 1,)."""


class AutomatonError(ValueError):
    """An automaton file is damaged, foreign or of another format than this code's."""


def patterns(entries: Sequence[str], rules: RuleSet) -> list[str]:
    """What is searched for each entry, in order of ids. Entries are stripped.

    Raises:
        ValueError: an entry is empty, or two of them are the same to the matcher.
    """
    if "" in entries:
        raise ValueError(f"entry {list(entries).index('')} is empty")
    found = [pattern_of_entry(entry, rules) for entry in entries]
    if len(set(found)) != len(found):
        twice = next(pattern for pattern, n in Counter(found).items() if n > 1)
        raise ValueError(f"an entry occurs twice: {twice!r}")
    return found


def build_automaton(entries: Sequence[str], rules: RuleSet, *, entries_checksum: str) -> bytes:
    """The file for a list of distinct entries.

    Raises:
        ValueError: an entry is empty or occurs twice.
    """
    searched = patterns(entries, rules)
    phrases, others = build_phrases(searched)
    automaton = b""
    if len(others):
        # Texts are searched several together, a newline between: a pattern that holds one, which is in no text, must not be found there.
        encoded_others = [(b"\xff" if _END in searched[i] else b"") + searched[i].encode() for i in others]
        automaton = daachorse.DoubleArrayAhoCorasick([*encoded_others, _END.encode()]).serialize()
    sections = [phrases.keys.tobytes(), phrases.values.tobytes(), others.astype(_ID).tobytes(), automaton]
    header = {
        "rules": rules.name,
        "entries": len(entries),
        "entries_checksum": entries_checksum,
        "sections": [len(section) for section in sections],
        "checksum": _checksum(sections),
    }
    encoded = json.dumps(header, sort_keys=True).encode()
    start = MAGIC + bytes([FORMAT_VERSION]) + _uint32(len(encoded))
    return b"".join([start, _uint32(_checksum([encoded])), encoded, *sections])


def _uint32(number: int) -> bytes:
    return number.to_bytes(4, "little")


def _checksum(sections: Sequence[bytes]) -> int:
    """CRC-32C of the sections one behind the other."""
    crc = 0
    for section in sections:
        crc = google_crc32c.extend(crc, section)
    return crc


def _read(file: BinaryIO) -> tuple[dict[str, Any], list[bytes]]:
    """Header and sections of an automaton file.

    Raises:
        AutomatonError: it is not one, damaged, or of another format.
    """
    start = file.read(len(MAGIC) + 9)
    if start[: len(MAGIC)] != MAGIC or len(start) < len(MAGIC) + 9:
        raise AutomatonError("not an automaton file: the magic bytes are missing")
    version, length, checksum = start[7], int.from_bytes(start[8:12], "little"), int.from_bytes(start[12:], "little")
    if version != FORMAT_VERSION:
        remedy = "update worldclip" if version > FORMAT_VERSION else "make the entries again"
        raise AutomatonError(f"the automaton has format {version} and this program reads {FORMAT_VERSION}: {remedy}")
    encoded = file.read(length) if length <= _MAX_HEADER else b""
    if len(encoded) != length or _checksum([encoded]) != checksum:
        raise AutomatonError("the automaton is damaged (checksum of its header): make the entries again")
    header = json.loads(encoded)
    # Each section is read into the very bytes that are used: they are large, and a copy takes as long as reading them.
    sections = [file.read(size) for size in header["sections"]]
    if [len(section) for section in sections] != header["sections"] or file.read(1) or _checksum(sections) != header["checksum"]:
        raise AutomatonError("the automaton is damaged (checksum): make the entries again")
    return header, sections


def open_automaton(file: BinaryIO, *, entries_checksum: str) -> Matcher:
    """The matcher of an automaton file that was made from the entries with that checksum.

    ``file`` is read from where it stands to its end. One without a buffer of its own saves a copy.

    Memory: the size of the file, and as much again of daachorse's section until this returns.

    Raises:
        AutomatonError: damaged, foreign, of another format, or made from other entries.
    """
    try:
        header, (keys, values, others, automaton) = _read(file)
        if header["entries_checksum"] != entries_checksum:
            raise AutomatonError(f"the automaton belongs to other entries ({header['entries_checksum']}, not {entries_checksum})")
        return StoredMatcher(
            Phrases(np.frombuffer(keys, dtype=KEY), np.frombuffer(values, dtype=VALUE)),
            daachorse.DoubleArrayAhoCorasick.deserialize(automaton) if automaton else None,
            np.frombuffer(others, dtype=_ID),
            entries=int(header["entries"]),
            rules=rule_set(header["rules"]),
        )
    except AutomatonError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise AutomatonError(f"the automaton cannot be used ({error}): make the entries again") from error


#: Ends every text that daachorse searches, and is searched for itself: its id, the one after the last pattern's, parts the ids of one text
#: from those of the next. Normalized texts hold none, and no pattern ends in one.
_END = "\n"
_ID = np.dtype("<i4")
#: Texts that it searches in one call: with more its list of matches would no longer be made of memory that was used just before.
_TOGETHER = 32
#: A match of daachorse is (start, end, id).
_entry_id = itemgetter(2)


def _each_once(ascending: np.ndarray) -> np.ndarray:
    """Of sorted numbers. numpy's ``unique`` puts integers into a hash table first, which takes ten times as long."""
    first = np.ones(len(ascending), dtype=bool)
    np.not_equal(ascending[1:], ascending[:-1], out=first[1:])
    return ascending[first]


class StoredMatcher:
    """Finds patterns with a space at both ends by their hashes (:mod:`balancing.phrases`), in half the time and a quarter of the memory of
    an automaton; and the ``others``, which have these ids, by daachorse's automaton of them and of :data:`_END`.

    Nothing in Python runs per text or match but functions in C.
    """

    def __init__(
        self, phrases: Phrases, automaton: daachorse.DoubleArrayAhoCorasick | None, others: np.ndarray, *, entries: int, rules: RuleSet
    ) -> None:
        self.rules = rules
        self._phrases, self._automaton, self._others = phrases, automaton, others
        self._ids_of_a_text = np.uint32(max(1, entries))

    def find(self, spaced: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        # Number of a text in its block and id together fit 32 bits.
        parts = [self._find_block(spaced[start:end]) for start, end in blocks(spaced, (1 << 32) // int(self._ids_of_a_text))]
        offsets = np.zeros(len(spaced) + 1, dtype=np.int32)
        np.cumsum(np.concatenate([offsets[:0], *(counts for _, counts in parts)]), out=offsets[1:])
        return np.concatenate([offsets[:0], *(ids for ids, _ in parts)]), offsets

    def _find_block(self, spaced: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of the entries in each text, and how many each text has."""
        text, ids = self._phrases.find(spaced)
        keys = text * self._ids_of_a_text + ids.astype(np.uint32)
        if self._automaton:
            keys = np.concatenate([keys, self._find_others(self._automaton, spaced)])
        keys.sort()
        text, ids = np.divmod(_each_once(keys), self._ids_of_a_text)
        return ids.astype(np.int32), np.bincount(text, minlength=len(spaced))

    def _find_others(self, automaton: daachorse.DoubleArrayAhoCorasick, spaced: Sequence[str]) -> np.ndarray:
        starts = range(0, len(spaced), _TOGETHER)
        matches = map(automaton.find_overlapping, [(_END.join(spaced[i : i + _TOGETHER]) + _END).encode() for i in starts])
        found = np.fromiter(map(_entry_id, chain.from_iterable(matches)), dtype=np.uint32)
        is_end = found == len(self._others)
        text = np.cumsum(is_end, dtype=np.uint32)[~is_end]
        return text * self._ids_of_a_text + self._others[found[~is_end]].astype(np.uint32)


class PyahocorasickMatcher:
    """The second engine, built in memory from the entries each time."""

    def __init__(self, entries: Sequence[str], rules: RuleSet) -> None:
        self.rules = rules
        self._automaton = ahocorasick.Automaton()
        for index, pattern in enumerate(patterns(entries, rules)):
            self._automaton.add_word(pattern, index)
        self._automaton.make_automaton()
        self._empty = not entries

    def find(self, spaced: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        offsets = np.zeros(len(spaced) + 1, dtype=np.int32)
        if self._empty:
            return offsets[:0], offsets
        find = self._automaton.iter
        found = [sorted({index for _, index in find(text)}) for text in spaced]
        np.cumsum([len(ids) for ids in found], out=offsets[1:])
        return np.fromiter(chain.from_iterable(found), dtype=np.int32, count=offsets[-1]), offsets

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return int(self._automaton.get_stats()["total_size"])
