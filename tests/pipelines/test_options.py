from __future__ import annotations

import argparse
import dataclasses
import importlib
import math
import tomllib
from typing import Any

import pytest

from pipelines.errors import JobError
from pipelines.jobs import JOBS
from pipelines.options import JobConfig, argv_of_table, byte_size, option, parse, positive, share
from pipelines.stage import Limits

CONFIGS = {job: getattr(importlib.import_module(f"pipelines.{job}"), name) for job, (name, _) in JOBS.items() if name}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(JobConfig):
    input: tuple[str, ...] = option("what comes in, 100 % of it", metavar="PATH")
    extra: tuple[str, ...] = option("more", default=(), metavar="LANG=FILE")
    size: int = option("a size", default=2 << 30, parse=byte_size, metavar="SIZE")
    how: str = option("the way", default="fast", choices=("fast", "exact"))
    least: int | None = option("a limit", default=None, parse=positive, metavar="N")
    seed: int = option("a seed", default=0, metavar="N")
    weight: float = option("a weight", default=0.5, metavar="W")
    loud: bool = option("say more", default=False)

    def __post_init__(self) -> None:
        if self.weight > 1:
            raise ValueError("--weight must not pass 1")


def read(*argv: str) -> tuple[Config, list[str]]:
    return parse(Config, argv, job="test", about="About it.")


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as ended:
        read(*argv)
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(("text", "value"), [("1%", 0.01), ("0.01", 0.01), ("0", 0.0), ("100%", 1.0), ("1", 1.0), ("0.1%", 0.001)])
def test_share(text: str, value: float) -> None:
    assert share(text) == pytest.approx(value, abs=1e-15)


@pytest.mark.parametrize("text", ["", "%", "x", "101%", "1.1", "-1%", "nan", "inf", "1 percent"])
def test_no_share(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        share(text)


@pytest.mark.parametrize(
    ("text", "value"), [("2GB", 2**31), ("500MB", 500 * 2**20), ("1.5kb", 1536), ("1TB", 2**40), ("1000", 1000), ("2 GB", 2**31)]
)
def test_byte_size(text: str, value: int) -> None:
    assert byte_size(text) == value


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "0.1", "infGB", "inf", "nan", "2XB", "two"])
def test_no_byte_size(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        byte_size(text)


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("20000", 20_000)])
def test_positive(text: str, value: int) -> None:
    assert positive(text) == value


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "x", "1e3", "²"])
def test_not_positive(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        positive(text)


def test_defaults_are_those_of_the_class() -> None:
    config, rest = read("--input", "a", "--output", "W")
    assert config == Config(input=("a",), output="W")
    assert (config.limits, rest) == (Limits(bad_records=0.01, bad_files=0.001), [])


def test_everything_given() -> None:
    config, rest = read(
        *("--input", "a", "b", "--output=W", "--input", "c", "--extra", "en=x", "--extra", "de=y", "--size", "1MB", "--how", "exact"),
        *(
            "--least",
            "3",
            "--seed",
            "-4",
            "--weight",
            "0.25",
            "--loud",
            "--workers",
            "2",
            "--max-bad-records",
            "5%",
            "--max-bad-files",
            "1",
        ),
        *("--runner", "FlinkRunner", "--temp_location=gs://b"),
    )
    assert config == Config(
        input=("a", "b", "c"),
        output="W",
        extra=("en=x", "de=y"),
        size=1 << 20,
        how="exact",
        least=3,
        seed=-4,
        weight=0.25,
        loud=True,
        workers=2,
        max_bad_records=0.05,
        max_bad_files=1.0,
    )
    assert rest == ["--runner", "FlinkRunner", "--temp_location=gs://b"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--output", "W"), "the following arguments are required: --input"),
        (("--input", "a"), "the following arguments are required: --output"),
        (("--input", "--output", "W"), "argument --input: expected at least one argument"),
        (("--input", "a", "--output", "W", "--size", "big"), "argument --size: 'big' is no size: write 2GB or 500MB"),
        (("--input", "a", "--output", "W", "--how", "slow"), "argument --how: invalid choice: 'slow' (choose from 'fast', 'exact')"),
        (("--input", "a", "--output", "W", "--workers", "0"), "argument --workers: '0' is no whole number of at least 1"),
        (("--input", "a", "--output", "W", "--seed", "x"), "argument --seed: invalid int value: 'x'"),
        (("--input", "a", "--output", "W", "--weight", "2"), "--weight must not pass 1"),
        (("stray", "--input", "a", "--output", "W"), "unexpected argument 'stray'"),
        (("--input", "a", "--output", "W", "stray"), "unexpected argument 'stray'"),
        (
            ("--input", "a", "--output", "W", "--max-bad-records", "200%"),
            "argument --max-bad-records: '200%' is no share between 0 and 100%: write 0.05 or 5%",
        ),
    ],
)
def test_a_wrong_option_is_told_in_one_line(capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], said: str) -> None:
    assert refused(capsys, *argv) == f"worldclip test: error: {said}"


def test_no_abbreviations() -> None:
    config, rest = read("--input", "a", "--output", "W", "--see", "3")
    assert (config.seed, rest) == (0, ["--see", "3"])


def test_a_table_gives_the_config_that_the_command_line_gives() -> None:
    table = tomllib.loads(
        """
        input = ["a b", "c"]
        output = "W"
        size = "1MB"
        seed = -4
        weight = 0.25
        loud = true
        max-bad-records = 0.05
        max_bad_files = "1%"
        workers = 2
        """
    )
    argv = argv_of_table(table)
    assert argv == [
        *("--input", "a b", "c", "--output", "W", "--size", "1MB", "--seed", "-4", "--weight", "0.25", "--loud"),
        *("--max-bad-records", "0.05", "--max-bad-files", "1%", "--workers", "2"),
    ]
    assert read(*argv) == (
        Config(
            input=("a b", "c"),
            output="W",
            size=1 << 20,
            seed=-4,
            weight=0.25,
            loud=True,
            max_bad_records=0.05,
            max_bad_files=0.01,
            workers=2,
        ),
        [],
    )
    assert argv_of_table({"loud": False, "t": math.inf, "small": 1e-7}) == ["--t", "inf", "--small", "1e-07"]


def test_a_value_that_is_no_option_is_told() -> None:
    with pytest.raises(JobError, match="deep: a table cannot be an option"):
        argv_of_table({"deep": {"er": 1}})


def help_of(config: type[Any], job: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        parse(config, ["--help"], job=job, about=importlib.import_module(f"pipelines.{job}").ABOUT)
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("job", CONFIGS)
def test_every_help_explains_every_option(job: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    config = CONFIGS[job]
    text = help_of(config, job, capsys)
    assert text.startswith(f"usage: worldclip {job} ")
    assert importlib.import_module(f"pipelines.{job}").ABOUT in text
    explained = " ".join(text.partition("options:")[0].split() + text.partition("options:")[2].split())
    for field in dataclasses.fields(config):
        about, default = field.metadata, field.default
        value = f"{{{','.join(about['choices'])}}}" if about["choices"] else about["metavar"]
        if isinstance(default, tuple) or str(field.type).startswith("tuple"):
            value = f"{value} [{value} ...]"
        flag = "" if about["positional"] else "--" + field.name.replace("_", "-")
        line = " ".join(part for part in (flag, None if isinstance(default, bool) else value, about["help"]) if part)
        if isinstance(default, int | float | str) and not isinstance(default, bool) and default != "":
            line += f" (default: {default:g})" if isinstance(default, float) else f" (default: {default})"
            assert line in explained
        else:
            assert line in explained
            assert line + " (default" not in explained
    assert ("handed to Apache Beam" in text) == issubclass(config, JobConfig)


@pytest.mark.parametrize("job", CONFIGS)
def test_every_default_is_what_its_own_parser_gives(job: str) -> None:
    for field in dataclasses.fields(CONFIGS[job]):
        parser, default = field.metadata["parse"], field.default
        if parser and default is not dataclasses.MISSING and default is not None:
            assert parser(str(default)) == default, field.name
        if field.metadata["choices"] and default is not dataclasses.MISSING:
            assert default in field.metadata["choices"], field.name
