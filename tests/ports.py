"""Ports for servers that are started a moment after theirs are chosen."""

from __future__ import annotations

import itertools
import os
import socket

#: Below those that Linux gives to connections, which would take one before its server is there. Of these each process has 200.
_FIRST, _EACH, _PROCESSES = 20_000, 200, 60
_next = itertools.count()


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody listens on, and that this process has not named for long."""
    slot = _FIRST + os.getpid() % _PROCESSES * _EACH
    tried = (slot + next(_next) % _EACH for _ in range(_EACH))
    found = list(itertools.islice(filter(_is_free, tried), count))
    assert len(found) == count, f"no {count} free ports from {slot} on"
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
