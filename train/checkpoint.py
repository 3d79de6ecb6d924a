"""Checkpoints: written whole or not at all, the newest whole one found again."""

from __future__ import annotations

import logging
import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from train.config import InputError

log = logging.getLogger("train")


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], *, keep: int) -> Path:
    """Writes ``state`` as the checkpoint of ``step`` and deletes all but the last ``keep``.

    The file takes its name when its bytes are on the disk: whenever the run is killed, what has the name is whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:010d}.pt"
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    # A broken one of a later step, which this run has passed over, must not push a whole one out.
    for old in [found for found in sorted(folder.glob("step-*.pt")) if found <= path][:-keep]:
        old.unlink()
    return path


def load_newest(folder: Path, *, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The newest whole checkpoint, on the CPU; None where there is none. Broken ones are named in the log and left where they are.

    Raises InputError where its ``identity`` is another.
    """
    for path in sorted(folder.glob("step-*.pt"), reverse=True):
        try:
            with zipfile.ZipFile(path) as archive:
                # torch writes checksums but does not read them.
                if damaged := archive.testzip():
                    raise ValueError(f"checksum of {damaged}")
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        # On a torn file the zip reader, the unpickler or the file system raises, each its own way.
        except Exception as error:
            log.warning("%s is broken, the one before it is tried (%s: %s)", path, type(error).__name__, str(error).partition("\n")[0])
            continue
        was = state["identity"]
        changed = [f"{key} was {was.get(key)!r} and is {now!r}" for key, now in identity.items() if was.get(key) != now]
        if changed:
            raise InputError(f"{path} is of another run ({'; '.join(changed)}): give another --output, or what it was")
        log.info("going on from %s", path)
        return state
    return None
