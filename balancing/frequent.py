"""The most frequent strings of a stream that may have more distinct ones than memory holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

#: What a counted string takes beside its characters: an object, a key and a count.
_ITEM_BYTES = 150
#: Bytes of counted strings up to which counts are exact.
MEMORY = 256 << 20


class Frequent:
    """Counts of strings, by group. They are exact while all strings together take at most ``memory`` bytes: 150 each and up to four a
    character, so with the default about 1.3 million words.

    Beyond, the rarest are forgotten until half of it is free again, and ``error`` grows by the count of the most frequent one among them:
    no count is ever too large, and none is too small by more than ``error``, those of strings that were forgotten included (lossy
    counting). The result depends on the order of the stream only where ``error`` is not 0. While it forgets it takes up to three times
    ``memory``.
    """

    def __init__(self, memory: int = MEMORY) -> None:
        self.error = 0
        self._memory = memory
        self._used = 0
        self._counts: dict[str, Counter[str]] = {}

    def add(self, group: str, counts: Mapping[str, int]) -> None:
        """Add counts of a group's strings."""
        held = self._counts.setdefault(group, Counter())
        for text, n in counts.items():
            if text not in held:
                self._used += _cost(text)
            held[text] += n
        if self._used > self._memory:
            self._forget()

    def counts(self, group: str) -> Counter[str]:
        """What is known of a group."""
        return self._counts.get(group, Counter())

    def _forget(self) -> None:
        ranking = sorted((-n, group, text) for group, held in self._counts.items() for text, n in held.items())
        kept: dict[str, Counter[str]] = {group: Counter() for group in self._counts}
        used = 0
        for negative, group, text in ranking:
            if used + _cost(text) > self._memory // 2:
                self.error += -negative
                break
            used += _cost(text)
            kept[group][text] = -negative
        self._counts, self._used = kept, used


def _cost(text: str) -> int:
    return _ITEM_BYTES + (len(text) if text.isascii() else 4 * len(text))


def most_frequent(counts: Mapping[str, int], n: int) -> list[tuple[str, int]]:
    """The ``n`` most frequent strings with their counts; of equally frequent ones the first by code point."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:n]
