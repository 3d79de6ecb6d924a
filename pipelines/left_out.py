"""Which images a recount leaves out: read from the user's lists once, kept beside the counts, and read from there by all that use them.

Every list is a file in ``left_out/`` of the stage ``count``, which the machines of a job copy once and map into memory. Its checksum and
length stand among the stage's parameters, so other lists are other counts, and thresholds and curated sets know which they belong to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from balancing.filters import hosts_of
from balancing.left_out import LeftOut, keys_of_ids, sorted_keys
from pipelines import storage
from pipelines.cache import local_copy
from pipelines.errors import JobError
from pipelines.stage import STAGE_FILE, Stage, open_stage

#: The key of the stage's parameters, and the folder.
LEFT_OUT = "left_out"
_ALIVE, _DROPPED, _HOSTS = "alive", "dropped", "hosts"


def read_lists(*, alive: Sequence[str], drop_ids: Sequence[str], drop_hosts: Sequence[str]) -> LeftOut:
    """What the user's lists say. Takes 24 bytes per listed id, and a microsecond or less.

    Raises:
        JobError: a list is absent, is none, or says that no image is alive.
    """
    hosts: set[str] = set()
    for file in storage.expand(tuple(drop_hosts), flag="--drop-hosts"):
        try:
            hosts |= hosts_of(storage.read_bytes(file.url).decode("utf-8-sig").splitlines())
        except ValueError as error:
            raise JobError(f"--drop-hosts {file.url}: {error}") from error
    dropped = _keys(drop_ids, "--drop-ids") if drop_ids else None
    living = _keys(alive, "--alive") if alive else None
    if living is not None and not len(living):
        raise JobError(f"--alive {' '.join(alive)}: there is no image in it, so that no pair would be left")
    return LeftOut(alive=living, dropped=dropped if dropped is not None and len(dropped) else None, hosts=frozenset(hosts))


def _keys(paths: Sequence[str], flag: str) -> np.ndarray:
    """Keys of all ids that files list, or the images of a finished stage."""
    batches = []
    for path in paths:
        if storage.exists(storage.join(path, STAGE_FILE)):
            stage = open_stage(path, "images")
            urls = [stage.part_url(part["name"]) for part in stage.parts]
        else:
            urls = [file.url for file in storage.expand((path,), flag=flag)]
        for url in urls:
            try:
                with storage.open_read(url) as file:
                    batches += list(keys_of_ids(file))
            except ValueError as error:
                raise JobError(
                    f"{flag} {url}: {error}; it takes Parquet with a column image_id, text with an id a line, or a finished stage of images"
                ) from error
    return sorted_keys(batches)


def _files(left_out: LeftOut) -> dict[str, memoryview]:
    """The content of each list's file."""
    keys = {_ALIVE: left_out.alive, _DROPPED: left_out.dropped}
    files = {name: of.astype("<u8", copy=False).data.cast("B") for name, of in keys.items() if of is not None}
    if left_out.hosts:
        files[_HOSTS] = memoryview("".join(f"{host}\n" for host in sorted(left_out.hosts)).encode())
    return files


def parameters_of(left_out: LeftOut) -> dict[str, Any]:
    """What the lists are among the parameters of a stage; nothing where there are none."""
    about = {}
    for name, data in _files(left_out).items():
        about[name] = {"bytes": len(data), "digest": hashlib.blake2b(data, digest_size=16).hexdigest()}
    return {LEFT_OUT: about} if about else {}


def write_lists(left_out: LeftOut, stage: Stage) -> None:
    """Put the lists beside the counts that are made with them, for the workers."""
    for name, data in _files(left_out).items():
        with storage.writing(stage.at(LEFT_OUT, name)) as path:
            path.write_bytes(data)


def left_out_at(counts_url: str, parameters: Mapping[str, Any]) -> LeftOut:
    """What counts leave out; ``parameters``: those of their stage. The process keeps it, and its lists stay in mapped files."""
    about: Mapping[str, Any] = parameters.get(LEFT_OUT, {})
    return _open(counts_url, tuple((name, about[name]["bytes"], about[name]["digest"]) for name in sorted(about)))


@cache
def _open(url: str, files: tuple[tuple[str, int, str], ...]) -> LeftOut:
    found: dict[str, Any] = {}
    for name, size, digest in files:
        place = storage.join(url, LEFT_OUT, name)
        if not storage.exists(place):
            raise JobError(f"{place} is gone, and with it the list of what these counts leave out: count again into another --output")
        path = local_copy(place, f"{LEFT_OUT}-{digest}")
        if path.stat().st_size != size:
            raise JobError(f"{place} has {path.stat().st_size} bytes instead of {size}: count again into another --output")
        found[name] = hosts_of(path.read_text().splitlines()) if name == _HOSTS else np.memmap(path, dtype="<u8", mode="r")
    return LeftOut(**found)
