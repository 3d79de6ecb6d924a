"""The output folder: one run's at a time, and its checkpoints: written whole or not at all, the newest whole one found again."""

from __future__ import annotations

import fcntl
import logging
import os
import zipfile
from pathlib import Path
from typing import Any, TextIO

import torch

from train.config import InputError

log = logging.getLogger("train")


def lock_folder(folder: Path) -> TextIO:
    """Takes a folder until the file that is returned is closed or the process ends, however. InputError where another run has it."""
    file = (folder / ".lock").open("a")
    try:
        # Not flock: that would pass to the workers of the data loader, which outlive a killed trainer by some seconds.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise InputError(f"another run is training in {folder}: wait until it ends, or give another --output") from None
    except OSError as error:
        log.warning("%s: this file system knows no locks (%s): see to it yourself that no other run trains there", folder, error.strerror)
    return file


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], *, keep: int) -> Path:
    """Writes ``state`` as the checkpoint of ``step`` and deletes all but the last ``keep``.

    The file takes its name when its bytes are on the disk: whenever the run is killed, what has the name is whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:010d}.pt"
    with path.with_suffix(".partial").open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            raise (error.__context__ or error) from None  # what the disk said, where torch's zip writer has the last word
        file.flush()
        os.fsync(file.fileno())
    os.replace(file.name, path)
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
        if changed := [f"{key} was {was.get(key)!r} and is {now!r}" for key, now in identity.items() if was.get(key) != now]:
            raise InputError(f"{path} is of another run ({'; '.join(changed)}): give another --output, or what it was")
        log.info("going on from %s", path)
        return state
    return None
