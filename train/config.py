"""What a training run is: one TOML file, checked before anything starts."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

#: The configurations that come with the package, found by file name alone.
SHIPPED = Path(__file__).parent / "configs"

Count = Annotated[int, Meta(ge=1)]
CountOrNone = Annotated[int, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0, le=sys.float_info.max)]
NotNegative = Annotated[float, Meta(ge=0, le=sys.float_info.max)]
Beta = Annotated[float, Meta(ge=0, lt=1)]
Share = Annotated[float, Meta(gt=0, le=1)]


class InputError(ValueError):
    """What was given cannot be used; the message names the file or the key."""


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of the file; its keys are the fields."""


class ModelConfig(Table, frozen=True):
    name: str  # a model of open_clip, or any name for the one that ``custom`` describes in open_clip's format
    tokenizer: str = ""  # the folder of a Hugging Face tokenizer, instead of the one that the model asks for
    custom: dict[str, Any] = {}


class DataConfig(Table, frozen=True):
    paths: tuple[str, ...] = ()  # directories of part-*.parquet, or files; local or fsspec URLs
    workers: CountOrNone = 2  # decoding processes per rank; 0: none
    prefetch: Count = 4  # batches that each worker keeps ready
    streams: Count = 16  # places of the epoch that a batch draws from; divides the batch, a multiple of every number of ranks to come
    shuffle_rows: Count = 1024  # a stream is shuffled within so many rows, on top of the shuffle of all row groups
    crop_scale: tuple[Share, Share] = (0.9, 1.0)  # shares of the image's area that a crop covers, least and most
    max_bad: CountOrNone = 0  # unreadable images per epoch before the run stops; a black one takes the place of each


class OptimizerConfig(Table, frozen=True):
    lr: Positive = 5e-4  # of AdamW, as all here
    beta1: Beta = 0.9
    beta2: Beta = 0.98
    eps: Positive = 1e-6
    weight_decay: NotNegative = 0.2  # spares gains, biases and the logit scale
    clip_norm: NotNegative = 1.0  # largest norm of the gradient; 0: no limit


class ScheduleConfig(Table, frozen=True):
    warmup: CountOrNone = 0  # steps of linear warm-up, before a cosine that would reach 0 one step after the last


class TrainConfig(Table, frozen=True):
    steps: Count
    batch_size: Count  # the pairs that are contrasted with one another, over all ranks and all ``accumulation`` passes of a step
    seed: int = 0
    accumulation: Count = 1
    loss: Literal["clip", "siglip"] = "clip"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 on CUDA, fp32 on a CPU
    compile: bool = False
    activation_checkpointing: bool = False
    threads: Count = 1  # of torch per process on a CPU; another number is another last digit
    log_every: Count = 10


class CheckpointConfig(Table, frozen=True):
    every: Count = 1000  # steps; and at the end
    keep: Count = 2  # the last so many stay


class EvaluateConfig(Table, frozen=True):
    every: CountOrNone = 0  # zero-shot classification after so many steps, and at the end; 0: never
    images: str = ""  # these two as in train.evaluate
    prompts: str = ""


class Config(Table, frozen=True):
    """One training run."""

    model: ModelConfig
    train: TrainConfig
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    def __post_init__(self) -> None:
        batch, streams, steps, warmup = self.train.batch_size, self.data.streams, self.train.steps, self.schedule.warmup
        if batch % streams:
            raise ValueError(f"data.streams ({streams}) must divide train.batch_size ({batch})")
        if warmup >= steps:
            raise ValueError(f"schedule.warmup ({warmup}) must be less than train.steps ({steps})")
        if self.data.crop_scale[0] > self.data.crop_scale[1]:
            raise ValueError(f"data.crop_scale must be ascending, not {list(self.data.crop_scale)}")
        if self.evaluate.every and not (self.evaluate.images and self.evaluate.prompts):
            raise ValueError("evaluate.every needs evaluate.images and evaluate.prompts")


def load_config(path: str | Path, *, overrides: Iterable[str] = (), data: Sequence[str] = ()) -> Config:
    """The configuration in a TOML file, or in the one of that name which comes with the package.

    ``overrides`` are ``table.key=value`` with the value in TOML (a bare word is a string); ``data`` replaces ``data.paths``.
    Raises InputError: no such file, not TOML, an unknown or missing key, a value of the wrong type or out of range.
    """
    file = Path(path) if Path(path).exists() else SHIPPED / Path(path).name
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
        return parse(reduce(_merged, [*map(_parse_override, overrides), {"data": {"paths": list(data)}} if data else {}], tables))
    except OSError as error:
        shipped = ", ".join(sorted(p.name for p in SHIPPED.glob("*.toml")))
        raise InputError(f"no configuration at {path} ({error.strerror}); those that come with the package: {shipped}") from None
    except ValueError as error:
        raise InputError(f"{file}: {error}") from None


def parse(tables: Mapping[str, Any]) -> Config:
    """A configuration from nested tables. Raises InputError."""
    try:
        return msgspec.convert(tables, Config)
    except msgspec.ValidationError as error:
        message = str(error).replace("`$.", "`")
    if unknown := re.search(r"unknown field `(.*?)`", message):
        keys = {table.name: table.type.__struct_fields__ for table in msgspec.structs.fields(Config)}
        known = {key: f"{table}.{key}" for table in keys for key in keys[table]} | {table: f"[{table}]" for table in keys}
        message += "".join(f"; did you mean {known[close]}?" for close in get_close_matches(unknown[1], known, n=1))
    raise InputError(message)


def _parse_override(override: str) -> dict[str, Any]:
    key, equals, value = override.partition("=")
    if not equals:
        raise InputError(f"an override is written table.key=value, not {override!r}")
    try:
        return tomllib.loads(override)
    except tomllib.TOMLDecodeError:
        return tomllib.loads(f"{key} = {json.dumps(value, ensure_ascii=False)}")


def _merged(old: Any, new: Any) -> Any:
    both_tables = isinstance(old, dict) and isinstance(new, dict)
    return {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}} if both_tables else new
