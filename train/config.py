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


class NotFiniteError(ArithmeticError):
    """The loss or the gradient is not a finite number; no weight was touched by it."""


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of the file; its keys are the fields."""


class ModelConfig(Table, frozen=True):
    name: str  # a model of open_clip, or any name for the one that ``custom`` describes in open_clip's format
    tokenizer: str = ""  # the folder of a Hugging Face tokenizer, instead of the one that the model asks for
    custom: dict[str, Any] = {}
    pretrained: str = ""  # weights to start from: open_clip's tag for the name, or a file or folder of weights; empty: random ones
    lock_image: bool = False  # the image tower stays as it is (LiT, arXiv 2111.07991), but for its last groups of layers
    unlocked_groups: CountOrNone = 0
    lock_text: bool = False  # the text tower stays as it is, but for its last layers
    unlocked_layers: CountOrNone = 0


class SetConfig(Table, frozen=True):
    paths: tuple[str, ...]
    weight: Positive = 1.0  # of every batch the set has this share of the weights' sum, in whole streams


class DataConfig(Table, frozen=True):
    paths: tuple[str, ...] = ()  # directories of part-*.parquet, or files; local or fsspec URLs
    sets: tuple[SetConfig, ...] = ()  # instead of ``paths``: several sets, each of which goes through epochs of its own
    curation: Literal["offline", "online"] = "offline"  # online: each epoch draws anew from a set of `balance --keep-siblings`
    curation_seed: int = 0  # of online curation; epoch 0 is the set that `balance` draws with it
    language_temperature: Annotated[float, Meta(ge=1)] = 1.0  # T: an epoch has a language's images as n^(1/T); 1: as they are
    workers: CountOrNone = 2  # decoding processes per rank; 0: none
    prefetch: Count = 4  # batches that each worker keeps ready
    streams: Count = 16  # places of the epoch that a batch draws from; divides the batch, a multiple of every number of ranks to come
    shuffle_rows: Count = 1024  # a stream is shuffled within so many rows, on top of the shuffle of all row groups
    crop_scale: tuple[Share, Share] = (0.9, 1.0)  # shares of the image's area that a crop covers, least and most
    max_bad: CountOrNone = 0  # unreadable images per epoch before the run stops; a black one without a text takes the place of each
    cache: str = ""  # folder of this machine that keeps copies of remote files; what finds no room in it is read where it is
    cache_gb: NotNegative = 0.0  # the room, in 10^9 bytes: best that of all files, since every rank reads of all in each epoch

    def __post_init__(self) -> None:
        if self.paths and self.sets:
            raise ValueError("data.paths (--data) and data.sets exclude each other: give the paths of each set there")
        if bool(self.cache) != bool(self.cache_gb):
            raise ValueError("data.cache (a folder) and data.cache_gb (how much it may hold) need each other")


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
    parallel: Literal["ddp", "fsdp"] = "ddp"  # fsdp: each rank holds its share of weights and optimizer, for models too big for one GPU
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 on CUDA, fp32 on a CPU
    compile: bool = False
    activation_checkpointing: bool = False
    threads: Count = 1  # of torch per process on a CPU; another number is another last digit


class CheckpointConfig(Table, frozen=True):
    every: Count = 1000  # steps; and at the end
    keep: Count = 2  # the last so many stay
    best: str = ""  # task/language/metric of the evaluation: the checkpoint where it was greatest stays too, as best.pt


class LogConfig(Table, frozen=True):
    every: Count = 10  # steps; and at the end
    wandb: str = ""  # project at Weights & Biases that gets the figures too; needs the package wandb


class EvaluateConfig(Table, frozen=True):
    every_samples: CountOrNone = 0  # and at the end; 0: never
    tasks: tuple[dict[str, Any], ...] = ()  # tables as train.evaluation.layouts describes them


class Config(Table, frozen=True):
    """One training run."""

    model: ModelConfig
    train: TrainConfig
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    def __post_init__(self) -> None:
        model, data, train, warmup, best = self.model, self.data, self.train, self.schedule.warmup, self.checkpoint.best
        for wrong, message in (
            (train.batch_size % data.streams, f"data.streams ({data.streams}) must divide train.batch_size ({train.batch_size})"),
            (warmup >= train.steps, f"schedule.warmup ({warmup}) must be less than train.steps ({train.steps})"),
            (data.crop_scale[0] > data.crop_scale[1], f"data.crop_scale must be ascending, not {list(data.crop_scale)}"),
            (model.unlocked_groups and not model.lock_image, "model.unlocked_groups needs model.lock_image"),
            (model.unlocked_layers and not model.lock_text, "model.unlocked_layers needs model.lock_text"),
            (best and best.count("/") != 2, f"checkpoint.best must be task/language/metric, not {best}"),
            (best and not self.evaluate.every_samples, "checkpoint.best needs evaluate.every_samples"),
            (self.evaluate.every_samples and not self.evaluate.tasks, "evaluate.every_samples needs evaluate.tasks"),
        ):
            if wrong:
                raise ValueError(message)


def load_config(path: str | Path, *, overrides: Iterable[str] = (), data: Sequence[str] = ()) -> Config:
    """The configuration in a TOML file, or in the one of that name which comes with the package.

    ``overrides`` are ``table.key=value`` with the value in TOML (a bare word is a string); ``data`` replaces ``data.paths``.
    Raises InputError: no such file, not TOML, an unknown or missing key, a value of the wrong type or out of range.
    """
    given = Path(path)
    # A path to a folder that is mistyped must not become the configuration of that name here.
    file = SHIPPED / given if given == Path(given.name) and not given.exists() else given
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
