from __future__ import annotations

import argparse
import dataclasses
import importlib
import math
import re
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
    ("text", "value"),
    [
        *(("2GB", 2**31), ("2GiB", 2**31), ("2gib", 2**31), ("500MB", 500 * 2**20), ("512MiB", 2**29), ("1.5kb", 1536), ("1TB", 2**40)),
        *(("1000", 1000), ("1000B", 1000), ("2 GB", 2**31), ("1e3", 1000)),
    ],
)
def test_byte_size(text: str, value: int) -> None:
    assert byte_size(text) == value


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "0.1", "infGB", "inf", "nan", "2XB", "two", "2BG", "2iG", "2GBB", "G2"])
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
    assert " ".join(importlib.import_module(f"pipelines.{job}").ABOUT.split()) in " ".join(text.split())
    explained = " ".join(text.partition("options:")[0].split() + text.partition("options:")[2].split())
    for field in dataclasses.fields(config):
        about, default = field.metadata, field.default
        value = f"{{{','.join(about['choices'])}}}" if about["choices"] else about["metavar"]
        if str(field.type).startswith("tuple") and not about["positional"]:
            value = f"{value} [{value} ...]"
        flag = "" if about["positional"] else "--" + field.name.replace("_", "-")
        line = " ".join(part for part in (flag, None if isinstance(default, bool) else value, about["help"]) if part)
        _, found, after = explained.partition(line)
        assert found
        shown = re.match(r" \(default: (.*?)\)", after)
        if isinstance(default, int | float | str) and not isinstance(default, bool) and default != "":
            # What is shown is what one would write.
            assert shown
            assert (about["parse"] or type(default))(shown[1]) == default
        else:
            assert not shown
    assert ("handed to Apache Beam" in text) == issubclass(config, JobConfig)


@pytest.mark.parametrize("job", CONFIGS)
def test_every_help_fits_a_terminal_of_100_columns(job: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    long = [line for line in help_of(CONFIGS[job], job, capsys).splitlines() if len(line) > 100]
    # A command that is to be copied stays in one line.
    assert [line for line in long if not line.startswith("    worldclip ")] == []


def test_defaults_are_shown_as_people_write_them(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        parse(Config, ["--help"], job="test", about="About it, in a line.\n\n    kept as it is\n\nA paragraph\nthat is filled.")
    assert capsys.readouterr().out == HELP


HELP = """\
usage: worldclip test [-h] --output DIR --input PATH [PATH ...]
                      [--extra LANG=FILE [LANG=FILE ...]] [--size SIZE] [--how {fast,exact}]
                      [--least N] [--seed N] [--weight W] [--loud] [--workers N] [--dry-run]
                      [--max-bad-records SHARE] [--max-bad-files SHARE]

About it, in a line.

    kept as it is

A paragraph that is filled.

options:
  -h, --help            show this help message and exit
  --output DIR          where the result goes: a directory, local or a URL that fsspec knows
                        (gs://, s3://)
  --input PATH [PATH ...]
                        what comes in, 100 % of it
  --extra LANG=FILE [LANG=FILE ...]
                        more
  --size SIZE           a size (default: 2GB)
  --how {fast,exact}    the way (default: fast)
  --least N             a limit
  --seed N              a seed (default: 0)
  --weight W            a weight (default: 0.5)
  --loud                say more
  --workers N           processes of the embedded runner (default: 1)
  --dry-run             say what would be read and written, and stop there
  --max-bad-records SHARE
                        share of records that may be broken before the job fails (default: 1%)
  --max-bad-files SHARE
                        share of files that may be damaged (one always may) (default: 0.1%)

Options that are not listed here are handed to Apache Beam (for instance --runner, --project,
--temp_location).
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Names:
    one: str = option("one", default="all", metavar="ONE", positional=True)
    names: tuple[str, ...] = option("some", default=(), metavar="NAME", positional=True)


def test_positional_arguments_may_be_left_out() -> None:
    assert parse(Names, [], job="test", about="")[0] == Names()
    assert parse(Names, ["a", "b", "c"], job="test", about="")[0] == Names(one="a", names=("b", "c"))


def test_what_stands_in_a_file_is_refused_with_its_place() -> None:
    for argv, said in (
        (["--output", "W"], "the following arguments are required: --input"),
        (["--input", "a", "--output", "W", "--size", "big"], "argument --size: 'big' is no size: write 2GB or 500MB"),
        (["--input", "a", "--output", "W", "--weight", "2"], "--weight must not pass 1"),
    ):
        with pytest.raises(JobError) as error:
            parse(Config, argv, job="test", about="", where="chain.toml: [test]")
        assert str(error.value) == f"chain.toml: [test]: {said}"


def test_keys_that_are_no_options_of_the_job_are_written_as_beam_has_them() -> None:
    table = {"t_en": 3, "temp_location": "gs://b", "t-all": 4}
    assert argv_of_table(table, own=["t-en", "t-all"]) == ["--t-en", "3", "--temp_location", "gs://b", "--t-all", "4"]
    assert argv_of_table(table) == ["--t-en", "3", "--temp-location", "gs://b", "--t-all", "4"]


@pytest.mark.parametrize("job", CONFIGS)
def test_every_default_is_what_its_own_parser_gives(job: str) -> None:
    for field in dataclasses.fields(CONFIGS[job]):
        parser, default = field.metadata["parse"], field.default
        if parser and default is not dataclasses.MISSING and default is not None:
            assert parser(str(default)) == default, field.name
        if field.metadata["choices"] and default is not dataclasses.MISSING:
            assert default in field.metadata["choices"], field.name
