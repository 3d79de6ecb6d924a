"""The account of one unit of work: what was read, what came out, what was dropped and why.

Every stage keeps the same books, ``read = emitted + dropped + dead letters``, so the pure functions in ``metadata`` and
``balancing`` take a :class:`Tally` and report to it; they know nothing of where the figures go.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

#: A dead letter keeps at most this many bytes of the record it stands for.
PAYLOAD_BYTES = 4096
#: Letters of one unit that keep a payload; later ones keep reason, place and detail only.
LETTERS_WITH_PAYLOAD = 1_000
#: Letters kept of one unit; later ones are counted, exactly, by reason. Bounds a unit's letters to about 40 MB.
LETTERS_KEPT = 100_000


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetter:
    """A record that could not be used, kept so that a person can look at it.

    ``place`` is the position in the input: a byte offset, a line number or a row, as the source counts.
    """

    reason: str
    place: int
    detail: str
    payload: bytes


@dataclass(kw_only=True)
class Tally:
    """Counters of one unit. ``bad_file`` is the reason why the file as a whole is damaged (cut off, not readable), or empty."""

    read: int = 0
    emitted: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)
    letters: list[DeadLetter] = field(default_factory=list)
    bad_file: str = ""

    def drop(self, reason: str, n: int = 1) -> None:
        """Count ``n`` records that a rule leaves out; ``reason`` is a stable snake_case name."""
        if n:
            self.dropped[reason] += n

    def dead_letter(self, reason: str, *, place: int, detail: str = "", payload: bytes = b"") -> None:
        """Count a record that is broken, and keep its beginning."""
        self.dead[reason] += 1
        if len(self.letters) >= LETTERS_KEPT:
            return
        kept = bytes(payload[:PAYLOAD_BYTES]) if len(self.letters) < LETTERS_WITH_PAYLOAD else b""
        self.letters.append(DeadLetter(reason=reason, place=place, detail=detail[:500], payload=kept))

    def damaged(self, reason: str, *, place: int, detail: str = "", payload: bytes = b"") -> None:
        """The file itself is damaged from ``place`` on: one record read, one dead letter, and the file counts as bad."""
        self.read += 1
        self.bad_file = self.bad_file or reason
        self.dead_letter(reason, place=place, detail=detail, payload=payload)

    @property
    def balanced(self) -> bool:
        """Whether the books close: read = emitted + dropped + dead letters."""
        return self.read == self.emitted + self.dropped.total() + self.dead.total()

    def counters(self) -> dict[str, Any]:
        """The figures as plain JSON, keys sorted."""
        return {
            "read": self.read,
            "emitted": self.emitted,
            "dropped": dict(sorted(self.dropped.items())),
            "dead_letters": self.dead.total(),
            "dead_letter_reasons": dict(sorted(self.dead.items())),
            "files": 1,
            "bad_files": int(bool(self.bad_file)),
        }


def add_counters(total: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Sum of two results of :meth:`Tally.counters`, keys sorted; neither argument is changed."""
    out: dict[str, Any] = {}
    for key in sorted({*total, *other}):
        a, b = total.get(key, 0), other.get(key, 0)
        if isinstance(a, dict) or isinstance(b, dict):
            out[key] = add_counters(a or {}, b or {})
        else:
            out[key] = a + b
    return out


def chain(first: Tally, then: Tally) -> Tally:
    """One account of two steps of which the second reads exactly what the first emits.

    Raises:
        ValueError: it does not: records were lost between them.
    """
    if first.emitted != then.read:
        raise ValueError(f"{first.emitted} records were emitted by the first step, but {then.read} read by the second")
    return Tally(
        read=first.read,
        emitted=then.emitted,
        dropped=first.dropped + then.dropped,
        dead=first.dead + then.dead,
        letters=[*first.letters, *then.letters],
        bad_file=first.bad_file or then.bad_file,
    )
