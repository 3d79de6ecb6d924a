"""Command-line options: one frozen dataclass a job, from which the parser, the help text and the keys of a chain's TOML file all come."""

from __future__ import annotations

import argparse
import dataclasses
import math
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, dataclass
from itertools import groupby
from typing import Any, NoReturn, TypeVar, get_type_hints

from pipelines.errors import JobError
from pipelines.stage import Limits

C = TypeVar("C")


def option(
    help: str,
    *,
    default: Any = MISSING,
    parse: Callable[[str], Any] | None = None,
    metavar: str | None = None,
    choices: Sequence[str] | None = None,
    positional: bool = False,
) -> Any:
    """A field that is a command-line option. Without a default it must be given; a tuple takes several values."""
    about = {"help": help, "parse": parse, "metavar": metavar, "choices": choices, "positional": positional}
    return dataclasses.field(default=default, metadata=about)


def share(text: str) -> float:
    """A share: ``1%`` or ``0.01``."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no share: write 1% or 0.01") from None
    if not 0 <= value <= 1 or math.isnan(value):
        raise argparse.ArgumentTypeError(f"{text!r} is no share between 0 and 100%: write 0.05 or 5%")
    return value


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


_SIZES = {"": 1, "B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}


def byte_size(text: str) -> int:
    """A size in bytes: ``2GB`` (or ``2GiB``: both 2 · 2^30), ``500MB`` or a plain number."""
    number = text.rstrip("KMGTIBkmgtib \t")
    try:
        value = float(number) * _SIZES[text[len(number) :].strip().upper().replace("IB", "B")]
    except (ValueError, KeyError):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write 2GB or 500MB") from None
    if not 1 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no size of at least a byte")
    return int(value)


def _size_text(n_bytes: int) -> str:
    unit = max((unit for unit, size in _SIZES.items() if n_bytes % size == 0), key=lambda unit: _SIZES[unit])
    return f"{n_bytes // _SIZES[unit]}{unit}"


#: How a default is shown in the help, by what reads it from the command line.
_SHOWN: dict[Any, Callable[[Any], str]] = {share: lambda value: f"{value * 100:g}%", byte_size: _size_text}


@dataclass(frozen=True, kw_only=True)
class LimitsConfig:
    """How much bad input is accepted."""

    max_bad_records: float = option("share of records that may be broken before the job fails", default=0.01, parse=share, metavar="SHARE")
    max_bad_files: float = option("share of files that may be damaged (one always may)", default=0.001, parse=share, metavar="SHARE")

    @property
    def limits(self) -> Limits:
        return Limits(bad_records=self.max_bad_records, bad_files=self.max_bad_files)


@dataclass(frozen=True, kw_only=True)
class JobConfig(LimitsConfig):
    """What every job takes that runs on Beam."""

    output: str = option("where the result goes: a directory, local or a URL that fsspec knows (gs://, s3://)", metavar="DIR")
    workers: int = option("processes of the embedded runner", default=1, parse=positive, metavar="N")
    dry_run: bool = option("say what would be read and written, and stop there", default=False)


_BEAM = "Options that are not listed here are handed to Apache Beam (for instance --runner, --project, --temp_location)."


def fill(text: str, width: int) -> str:
    """A text with its paragraphs filled to a width; lines that begin with a space, and the empty ones, stay as they are."""
    out: list[str] = []
    for plain, group in groupby(text.splitlines(), key=lambda line: bool(line.strip()) and not line.startswith(" ")):
        lines = list(group)
        out += textwrap.wrap(" ".join(lines), width, break_on_hyphens=False) if plain else lines
    return "\n".join(out)


class _Help(argparse.HelpFormatter):
    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return fill(text, width)


def option_names(config: type[Any]) -> list[str]:
    """The options of a config class as they are written, without their dashes."""
    return [field.name.replace("_", "-") for field in dataclasses.fields(config) if not field.metadata["positional"]]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def add_arguments(parser: argparse.ArgumentParser, config: type[Any]) -> None:
    """Add the options of a config class, those of its own before the ones that every job takes."""
    fields = dataclasses.fields(config)
    common = ["workers", "dry_run", *(f.name for f in dataclasses.fields(LimitsConfig))]
    hints = get_type_hints(config)
    for field in sorted(fields, key=lambda f: common.index(f.name) + 1 if f.name in common else 0):
        kind = str(hints[field.name])
        arguments: dict[str, Any] = {"help": field.metadata["help"], "dest": field.name}
        required = field.default is MISSING
        if kind == "<class 'bool'>":
            arguments["action"] = "store_true"
        else:
            arguments["type"] = field.metadata["parse"] or next((t for t in (int, float) if t.__name__ in kind), str)
            arguments["metavar"] = field.metadata["metavar"] or field.name.upper()
            if field.metadata["choices"]:
                arguments["choices"] = field.metadata["choices"]
                del arguments["metavar"]
            if kind.startswith("tuple"):
                arguments |= {"nargs": "+", "action": "extend"}
            elif not required and field.default not in (None, ""):
                plain = f"{field.default:g}" if isinstance(field.default, float) else field.default
                shown = _SHOWN.get(field.metadata["parse"], lambda _, plain=plain: plain)(field.default)
                arguments["help"] += f" (default: {shown})"
        arguments["help"] = arguments["help"].replace("%", "%%")
        if field.metadata["positional"]:
            del arguments["dest"]
            if not required:
                arguments |= {"nargs": "*" if kind.startswith("tuple") else "?", "default": argparse.SUPPRESS}
            parser.add_argument(field.name, **arguments)
        else:
            parser.add_argument(_flag(field.name), required=required, default=None if required else argparse.SUPPRESS, **arguments)


class _Parser(argparse.ArgumentParser):
    """``where``: the place in a file that the command line stands for; what is wrong is then a JobError that names it."""

    where = ""

    def error(self, message: str) -> NoReturn:
        if self.where:
            raise JobError(f"{self.where}: {message}")
        super().error(message)


def parse(config: type[C], argv: Sequence[str], *, job: str, about: str, where: str = "") -> tuple[C, list[str]]:
    """The config of a job from its command line, and the options that are left: Beam's own.

    Ends the process with argparse's message on a wrong option, as command lines do.

    Raises:
        JobError: a wrong option of a command line that stands for what is written at ``where``.
    """
    parser = _Parser(
        prog=f"worldclip {job}",
        description=about,
        epilog=_BEAM if issubclass(config, JobConfig) else None,
        formatter_class=_Help,
        allow_abbrev=False,
    )
    parser.where = where
    add_arguments(parser, config)
    known, rest = parser.parse_known_args(list(argv))
    stray = [a for a in rest[:1] if not a.startswith("-")]
    if stray:
        parser.error(f"unexpected argument {stray[0]!r}")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in vars(known).items()}
    try:
        return config(**values), rest
    except ValueError as error:
        parser.error(str(error))


def argv_of_table(table: Mapping[str, Any], *, own: Collection[str] | None = None) -> list[str]:
    """The command line that a TOML table stands for: keys are options, lists take several values, true is a flag.

    ``own``: the options that are written with dashes, all if it is not given. Others are Beam's, which have underscores.
    """
    argv: list[str] = []
    for key, value in table.items():
        flag = _flag(key) if own is None or key.replace("_", "-") in own else f"--{key}"
        if value is True:
            argv.append(flag)
        elif value is False:
            continue
        elif isinstance(value, list):
            argv += [flag, *map(str, value)]
        elif isinstance(value, str | int | float):
            argv += [flag, str(value)]
        else:
            raise JobError(f"{key}: a table cannot be an option")
    return argv
