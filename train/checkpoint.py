"""The output folder: one run's at a time, and its checkpoints: written whole or not at all, the newest whole one found again."""

from __future__ import annotations

import fcntl
import logging
import os
import zipfile
from copy import deepcopy
from pathlib import Path
from typing import Any, TextIO

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, get_state_dict, set_state_dict

from train.config import InputError
from train.model import Model

log = logging.getLogger("train")
#: Of one dimension in a model of ours (see create_model), of none in the files: open_clip writes them so.
SCALARS = ("logit_scale", "logit_bias")


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


def gather_state(model: Model, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A copy, on the CPU of the first rank, of the weights under ``state_dict``, where open_clip looks for them in a file given by path,
    and of the optimizer's memory under ``optimizer``, by the names of the weights. Every rank calls it; the others get nothing.
    """
    found: tuple[dict[str, Any], Any] = get_state_dict(model, optimizer, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    weights = {key: value.squeeze() if key in SCALARS else value for key, value in found[0].items()}
    state = {"state_dict": weights, "optimizer": found[1].get("state", {})}
    return deepcopy(state) if model.logit_scale.device.type == "cpu" else state


def restore_state(model: Model, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """The opposite: every rank takes its share. Rates and decays of the optimizer stay what they are."""
    weights = {k: v.reshape(1) if k in SCALARS else v for k, v in state["state_dict"].items()}
    memory = {**get_optimizer_state_dict(model, optimizer), "state": state["optimizer"]}
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=memory, options=StateDictOptions(full_state_dict=True))


def save_checkpoint(folder: Path, state: dict[str, Any], *, keep: int, best: bool = False) -> Path:
    """Writes ``state`` as the checkpoint of its ``step``, and as ``best.pt`` too if it is; deletes all but the last ``keep``.

    A file takes its name when its bytes are on the disk: whenever the run is killed, what has the name is whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    newest = folder / f"step-{state['step']:010d}.pt"
    # The best one first: a run that is killed between them goes on from the one before, and finds the best one again.
    for path in [folder / "best.pt", newest][not best :]:
        with path.with_suffix(".partial").open("wb") as file:
            try:
                torch.save(state, file)
            except RuntimeError as error:
                raise (error.__context__ or error) from None  # what the disk said, where torch's zip writer has the last word
            file.flush()
            os.fsync(file.fileno())
        os.replace(file.name, path)
        log.info("saved %s", path)
    # A broken one of a later step, which this run has passed over, must not push a whole one out.
    old = [found for found in sorted(folder.glob("step-*.pt")) if found <= newest][:-keep]
    for rest in [*old, *folder.glob("*.partial")]:  # those of a run that was killed
        rest.unlink()
    return newest


def load_newest(folder: Path, *, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The newest whole checkpoint, mapped into memory; None where there is none. Broken ones are named in the log and left where they are.

    Raises InputError where its ``identity`` is another, and where all are broken.
    """
    for path in (found := sorted(folder.glob("step-*.pt"), reverse=True)):
        try:
            with zipfile.ZipFile(path) as archive:
                # torch writes checksums but does not read them.
                if damaged := archive.testzip():
                    raise ValueError(f"checksum of {damaged}")
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            was = state["identity"]
        # On a torn file the zip reader, the unpickler or the file system raises, each its own way.
        except Exception as error:
            log.warning("%s is broken (%s: %s)", path, type(error).__name__, str(error).partition("\n")[0])
            continue
        if changed := [f"{key} was {was.get(key)!r} and is {now!r}" for key, now in identity.items() if was.get(key) != now]:
            raise InputError(f"{path} is of another run ({'; '.join(changed)}): give another --output, or what it was")
        log.info("going on from %s", path)
        return state
    if found:
        raise InputError(f"no checkpoint in {folder} can be read: mend the disk, or delete them to begin at step 0")
    return None
