"""Entries → matcher, and its file: a header that says what it was made of, then the automaton. Nothing in it is ever executed.

Layout: 8 bytes magic, SHA-256 of all that follows, uint32 (little endian) length of the header, header as JSON, payload (daachorse's own
serialization).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Protocol

import ahocorasick
import daachorse
import numpy as np

from metadata.text import RuleSet, pattern_of_entry, rule_set

MAGIC = b"WCLIPAC\x01"
FORMAT_VERSION = 1
_BODY = len(MAGIC) + hashlib.sha256().digest_size
#: Engines by name; all give the same result. Only daachorse is stored: loading the other from a file would need pickle.
ENGINES = ("daachorse", "pyahocorasick")


class Matcher(Protocol):
    """Finds entries in spaced texts (metadata.text.space_texts)."""

    rules: RuleSet

    def find(self, spaced: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ascending ids of the entries in each text: int32 ids, and int32 offsets of shape (n + 1,)."""


class AutomatonError(ValueError):
    """An automaton file is damaged, foreign or newer than this code."""


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
    payload = b""
    if entries:
        payload = daachorse.DoubleArrayAhoCorasick([p.encode() for p in patterns(entries, rules)]).serialize()
    header = {
        "version": FORMAT_VERSION,
        "engine": "daachorse",
        "rules": rules.name,
        "entries": len(entries),
        "entries_checksum": entries_checksum,
    }
    encoded = json.dumps(header, sort_keys=True).encode()
    body = len(encoded).to_bytes(4, "little") + encoded + payload
    return MAGIC + hashlib.sha256(body).digest() + body


def read_header(data: bytes) -> tuple[dict[str, Any], int]:
    """Header of an automaton file and where its payload begins.

    Raises:
        AutomatonError: it is not one, damaged, or newer.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise AutomatonError("not an automaton file: the magic bytes are missing")
    body = memoryview(data)[_BODY:]
    if hashlib.sha256(body).digest() != data[len(MAGIC) : _BODY]:
        raise AutomatonError("the automaton is damaged (checksum): build the entries again")
    start = _BODY + 4
    end = start + int.from_bytes(data[_BODY:start], "little")
    try:
        header = json.loads(data[start:end])
        version = int(header["version"])
    except (ValueError, KeyError, TypeError) as error:
        raise AutomatonError("the header of the automaton is damaged: build the entries again") from error
    if version > FORMAT_VERSION:
        raise AutomatonError(f"the automaton has format {version}, newer than {FORMAT_VERSION} of this program: update worldclip")
    return header, end


def open_automaton(data: bytes, *, entries_checksum: str) -> Matcher:
    """The matcher of an automaton file that was made from the entries with that checksum.

    Raises:
        AutomatonError: damaged, foreign, newer, or made from other entries.
    """
    header, start = read_header(data)
    if header.get("entries_checksum") != entries_checksum:
        raise AutomatonError(f"the automaton belongs to other entries ({header.get('entries_checksum')}, not {entries_checksum})")
    payload = data[start:]
    try:
        automaton = daachorse.DoubleArrayAhoCorasick.deserialize(payload) if payload else None
        return DaachorseMatcher(automaton, rule_set(header["rules"]))
    except (ValueError, KeyError, TypeError) as error:
        raise AutomatonError(f"the automaton cannot be used ({error}): build the entries again") from error


#: Texts whose matches are sorted together: few enough that they stay in the processor's cache.
_BLOCK_TEXTS = 256
#: A match of daachorse is (start, end, id).
_entry_id = itemgetter(2)


def _as_arrays(found: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.zeros(len(found) + 1, dtype=np.int32)
    np.cumsum([len(ids) for ids in found], out=offsets[1:])
    return np.fromiter(chain.from_iterable(found), dtype=np.int32, count=offsets[-1]), offsets


class DaachorseMatcher:
    """Byte-wise double-array automaton; ``automaton`` is None for an empty list."""

    def __init__(self, automaton: daachorse.DoubleArrayAhoCorasick | None, rules: RuleSet) -> None:
        self.rules = rules
        self._automaton = automaton

    def find(self, spaced: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        if self._automaton is None:
            return np.zeros(0, dtype=np.int32), np.zeros(len(spaced) + 1, dtype=np.int32)
        blocks = [self._find_block(spaced[start : start + _BLOCK_TEXTS]) for start in range(0, len(spaced), _BLOCK_TEXTS)]
        offsets = np.zeros(len(spaced) + 1, dtype=np.int32)
        np.cumsum(np.concatenate([offsets[:0], *(counts for _, counts in blocks)]), out=offsets[1:])
        return np.concatenate([offsets[:0], *(ids for ids, _ in blocks)]), offsets

    def _find_block(self, spaced: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of the entries in each text, and how many each text has."""
        assert self._automaton is not None
        find = self._automaton.find_overlapping
        found: list[int] = []
        matches: list[int] = []
        for text in spaced:
            of_text = find(text.encode())
            found += map(_entry_id, of_text)
            matches.append(len(of_text))
        keys = np.repeat(np.arange(len(spaced)) << 32, matches) | np.array(found, dtype=np.int64)
        keys.sort()
        first = np.ones(len(keys), dtype=bool)
        first[1:] = keys[1:] != keys[:-1]
        keys = keys[first]
        return (keys & 0xFFFFFFFF).astype(np.int32), np.bincount(keys >> 32, minlength=len(spaced))


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
        if self._empty:
            return np.zeros(0, dtype=np.int32), np.zeros(len(spaced) + 1, dtype=np.int32)
        find = self._automaton.iter
        return _as_arrays([sorted({index for _, index in find(text)}) for text in spaced])
