from __future__ import annotations

import importlib.metadata
import json
import math
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from balancing.counts import COUNTS_SCHEMA
from balancing.thresholds import Threshold
from metadata.tally import Tally
from pipelines import __main__ as command_line
from pipelines import storage
from pipelines.chain import OUTPUTS
from pipelines.errors import JobError
from pipelines.jobs import JOBS, read_command, run_job, summary
from pipelines.processes import module_environment, python_module
from pipelines.stage import Limits, Stage, Unit
from pipelines.thresholds import read_thresholds, table
from tests.pipelines.conftest import contents


def write_stage(url: str, *, kind: str = "dedup", limits: Limits | None = None, finish: bool = True) -> Stage:
    """A stage of one unit with something of everything in its books."""
    stage = Stage(url=url, kind=kind, parameters={}, limits=limits or Limits(bad_records=1))
    unit = Unit(name="x", path="in/x.gz")
    stage.begin([unit])
    tally = Tally(read=2_010, emitted=2_000)
    tally.drop("rare", 2)
    tally.drop("often", 5)
    tally.drop("also_rare", 2)
    tally.dead_letter("broken", place=7, detail="so", payload=b"what")
    stage.write_part(unit, pa.table({"row": [1, 2, 3]}), tally)
    if finish:
        stage.finish()
    return stage


def test_the_summary_says_what_was_read_and_what_became_of_it(place: str) -> None:
    stage = write_stage(storage.join(place, "out"))
    assert summary("dedup", stage.url, 1.26).splitlines() == [
        f"dedup: read 2,010, emitted 2,000 → {stage.url} (3 rows, 1.3 s)",
        "  dropped: often 5, also_rare 2, rare 2",
        "  dead letters: broken 1",
        f"  look at them in {stage.url}/dead_letters",
        "  what the reasons mean: worldclip reasons dedup",
    ]


def test_finish_does_by_hand_what_the_last_step_does(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    stage = write_stage(storage.join(place, "out"), finish=False)
    with pytest.raises(JobError, match=r"^1 of 2010 records could not be used \(broken 1\), more than --max-bad-records 0.010% allows"):
        run_job("finish", [stage.url, "--max-bad-records", "0.01%"])
    assert not storage.exists(stage.at("_SUCCESS"))
    run_job("finish", [stage.url])
    assert storage.exists(stage.at("_SUCCESS"))
    assert capsys.readouterr().out.startswith(f"finish: read 2,010, emitted 2,000 → {stage.url} (3 rows, ")
    with pytest.raises(JobError) as error:
        run_job("finish", [storage.join(place, "absent")])
    assert str(error.value) == f"{place}/absent is no stage: there is no stage.json in it"


def test_jobs_without_beam_refuse_its_options(tmp_path: Path) -> None:
    for job, argv in (("finish", ["W"]), ("thresholds", ["--counts", "W", "--output", "t.json"])):
        with pytest.raises(JobError) as error:
            run_job(job, [*argv, "--streaming"])
        assert str(error.value) == f"{job} does not know --streaming"


def test_a_misspelt_option_is_told_before_anything_is_written(tmp_path: Path) -> None:
    write_stage(f"{tmp_path}/matched", kind="match")
    with pytest.raises(JobError) as error:
        run_job("dedup", ["--matched", f"{tmp_path}/matched", "--output", f"{tmp_path}/out", "--max-bad-record", "5%"])
    assert str(error.value) == "neither the job nor Apache Beam knows the option --max-bad-record; did you mean --max-bad-records?"
    assert not (tmp_path / "out").exists()


def test_beams_own_options_are_left_to_it() -> None:
    config, rest = read_command("dedup", ["--matched", "M", "--output", "W", "--runner", "DirectRunner", "--direct_runner_bundle_repeat=2"])
    assert (config.matched, config.output) == (("M",), "W")
    assert rest == ["--runner", "DirectRunner", "--direct_runner_bundle_repeat=2"]


# -- the command line ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("argv", "code"), [([], 2), (["--help"], 0), (["-h"], 0), (["help"], 0)])
def test_usage_lists_every_job_in_the_order_of_the_flow(capsys: pytest.CaptureFixture[str], argv: list[str], code: int) -> None:
    assert command_line.main(argv) == code
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    chain, beside = lines.index("the chain, in the order in which data walks through it:"), lines.index("beside the chain:")
    of_chain, others = lines[chain + 1 : beside - 1], lines[beside + 1 :]
    assert [line[:14].strip() for line in of_chain] == [job for job in JOBS if job == "download" or job in OUTPUTS or job == "report"]
    assert [line[:14].strip() for line in (*of_chain, *others)] == [*JOBS]
    assert [line[14:] for line in (*of_chain, *others)] == [about for _, about in JOBS.values()]
    assert max(map(len, lines)) <= 100


def test_version(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert command_line.main(["--version"]) == 0
    assert re.fullmatch(r"worldclip \d+\.\d+\.\d+\n", capsys.readouterr().out)

    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert command_line.main(["--version"]) == 0
    assert capsys.readouterr().out == "worldclip, not installed: run from its sources\n"


@pytest.mark.parametrize(("job", "meant"), [("macth", "; did you mean match?"), ("threshold", "; did you mean thresholds?"), ("zzz", "")])
def test_an_unknown_job_is_named(capsys: pytest.CaptureFixture[str], job: str, meant: str) -> None:
    assert command_line.main([job]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"worldclip: there is no job {job!r}{meant}\n\n{command_line.usage()}\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("argv", [["--help"], ["run", "--help"], ["reasons"]])
def test_a_reader_that_has_gone_ends_it_silently(argv: list[str], unbuffered: str) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [*python_module("pipelines"), *argv]
    environment = {**module_environment(), "PYTHONUNBUFFERED": unbuffered}
    ended = subprocess.run(command, env=environment, stdout=write_end, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write_end)
    # argparse passes over what it cannot print.
    assert ended.returncode == (0 if unbuffered and argv[0] == "run" else 128 + signal.SIGPIPE)
    assert ended.stderr == ""


def test_a_broken_pipe_of_a_job_itself_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(job: str, argv: list[str]) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(command_line, "run_job", broken)
    assert command_line.main(["dedup"]) == 1
    assert capsys.readouterr().err.startswith("worldclip dedup: no answer, or a refusal (BrokenPipeError: [Errno 32] Broken pipe): mend ")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("KeyboardInterrupt in a worker")])
def test_an_interruption_says_that_the_job_can_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    def interrupted(job: str, argv: list[str]) -> None:
        raise error

    monkeypatch.setattr(command_line, "run_job", interrupted)
    assert command_line.main(["dedup"]) == 130
    assert capsys.readouterr().err == "worldclip dedup: interrupted; the same command goes on where it stopped\n"


def test_what_a_job_refuses_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert command_line.main(["dedup", "--matched", f"{tmp_path}/M", "--output", f"{tmp_path}/W"]) == 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"worldclip dedup: {tmp_path}/M is no stage 'match': there is no stage.json in it\n")


def test_an_unforeseen_exception_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(job: str, argv: list[str]) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(command_line, "run_job", broken)
    with pytest.raises(ZeroDivisionError):
        command_line.main(["dedup"])


# -- thresholds ----------------------------------------------------------------------------------------------------------------------


def write_counts(url: str, *, entries: str = "e") -> Stage:
    stage = Stage(url=url, kind="count", parameters={}, upstream={"match": "m", "dedup": "d", "entries": entries})
    counts = {"en": [100, 10, 5, 0], "de": [50, 1, 1, 0]}
    stage.begin([Unit(name=lang, path=lang) for lang in counts])
    for unit in stage.units():
        values = counts[unit.name]
        table = pa.table([pa.array(range(len(values)), pa.int32()), pa.array(values, pa.int64())], schema=COUNTS_SCHEMA)
        stage.write_part(unit, table, Tally())
    stage.finish()
    return stage


def test_thresholds_write_the_same_file_twice(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    counts, output = write_counts(storage.join(place, "W/counts")), storage.join(place, "W/thresholds.json")
    run_job("thresholds", ["--counts", counts.url, "--t", "20", "--output", output])
    first = storage.read_bytes(output)
    body = json.loads(first)
    assert {lang: x["t"] for lang, x in body["languages"].items()} == {"de": 20, "en": 20}
    assert (body["counts_path"], body["upstream"]) == ("counts", {"match": "m", "dedup": "d", "entries": "e"})
    assert capsys.readouterr().out == f"{TABLE}\n{WORDS}"
    run_job("thresholds", ["--counts", counts.url, "--t", "20", "--output", output])
    assert storage.read_bytes(output) == first
    assert capsys.readouterr().out == f"{TABLE}\n{WORDS}\nThe same thresholds were there before.\n"


TABLE = """\
language            matches            t  tail share  matches kept
en                      115           20      13.04%        30.43%
de                       52           20       3.85%        42.31%
"""
WORDS = """\
t             an entry that t pairs or more match keeps each of them with probability t / count, a rarer one all
tail share    share of all matches that fall on the rarer ones
matches kept  share of all matches that are kept
              more of the pairs are: most have several entries, and one is enough (--matched says how many)
"""


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (["--t", "5"], "t rose in 0 of 2 languages and fell in 2. With the same seed the new set is a part of the one before;"),
        (["--t", "50"], "t rose in 2 of 2 languages and fell in 0. With the same seed the new set is more than the one before;"),
        (
            ["--t", "30", "de=1"],
            "t rose in 1 of 2 languages and fell in 1. With the same seed the new set is neither a part of nor more than the one before;",
        ),
        (["--t", "en=20", "de=20"], "t is what it was in every language: with the same seed the set is the same."),
    ],
)
def test_thresholds_say_how_they_differ_from_those_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], now: list[str], said: str
) -> None:
    counts, output = write_counts(f"{tmp_path}/counts"), f"{tmp_path}/thresholds.json"
    run_job("thresholds", ["--counts", counts.url, "--t", "20", "--output", output])
    capsys.readouterr()
    run_job("thresholds", ["--counts", counts.url, *now, "--output", output])
    printed = capsys.readouterr().out
    t = {lang: x["t"] for lang, x in json.loads(Path(output).read_bytes())["languages"].items()}
    rows = [line.split() for line in printed.splitlines()[:3]]
    assert rows[0][1:5] == ["matches", "t", "t", "before"]
    assert [row[:4] for row in rows[1:]] == [["en", "115", str(t["en"]), "20"], ["de", "52", str(t["de"]), "20"]]
    _, _, after = printed.partition(WORDS)
    assert after.startswith(f"\n{said}\n")
    assert after.endswith("give balance another --output for it.\n") == said.endswith(";")


def test_thresholds_of_other_counts_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = f"{tmp_path}/thresholds.json"
    for place, entries in (("counts", "e"), ("others", "f")):
        counts = write_counts(f"{tmp_path}/{place}", entries=entries)
        run_job("thresholds", ["--counts", counts.url, "--t", "20", "--output", output])
    said = "Those that were there before were made from other counts: a set drawn with these is another one.\n"
    assert capsys.readouterr().out.endswith(f"\n{said}")
    Path(output).write_text("{}")
    run_job("thresholds", ["--counts", counts.url, "--t", "20", "--output", output])
    assert capsys.readouterr().out == f"{TABLE}\n{WORDS}"


def test_only_the_largest_languages_are_shown() -> None:
    solved = {f"l{i:02}": Threshold(t=5, p=0.5, matches=100 - i, whole=i == 3) for i in range(23)}
    kept = {lang: 0.75 for lang in solved if lang != "l01"}
    lines = table(solved, matches=dict.fromkeys(solved, 0.25), kept=kept, before={"l00": math.inf})
    assert lines[:5] == [
        "language            matches            t     t before  tail share  matches kept  pairs kept",
        "l00                     100            5          inf      50.00%        25.00%      75.00%",
        "l01                      99            5            -      50.00%        25.00%           -",
        "l02                      98            5            -      50.00%        25.00%      75.00%",
        "l03                      97            5            -      50.00%        25.00%      75.00%  kept whole",
    ]
    assert (len(lines), lines[-1]) == (22, "... and 3 more languages")


def test_the_share_of_pairs_that_is_told_is_what_balance_keeps(
    small_chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    w = f"{small_chain}/W"
    capsys.readouterr()
    read = ["--matched", f"{w}/matched", "--siblings", f"{w}/siblings"]
    run_job("thresholds", ["--counts", f"{w}/counts", "--t", "inf", *read, "--output", f"{tmp_path}/again.json"])
    # Nine pairs of four images, one text of each.
    assert capsys.readouterr().out.splitlines()[1].split()[-1] == "44.44%"
    with pytest.raises(SystemExit):
        run_job("thresholds", ["--counts", f"{w}/counts", "--matched", f"{w}/matched", "--output", f"{tmp_path}/again.json"])
    assert capsys.readouterr().err.endswith("worldclip thresholds: error: give --matched and --siblings together, or neither\n")


def test_only_one_way_to_set_thresholds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_job("thresholds", ["--counts", "W", "--output", "x", "--t", "1", "--p", "5%"])
    assert capsys.readouterr().err.splitlines()[-1].startswith("worldclip thresholds: error: give only one of --t-en, --p and --t")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "is no thresholds file of worldclip (TypeError"),
        (b"{}", "is no thresholds file of worldclip (KeyError"),
        (b'{"format_version": 99}', "was written by a newer worldclip: update worldclip"),
        (b'{"format_version": 1, "languages": {"en": {"t": "many"}}}', "is no thresholds file of worldclip (ValueError"),
        (b'{"format_version": 1, "languages": {"en": {"t": 2}}}', "is no thresholds file of worldclip (KeyError"),
    ],
)
def test_a_file_that_is_no_thresholds_is_told(tmp_path: Path, body: bytes, said: str) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(body)
    with pytest.raises(JobError) as error:
        read_thresholds(str(path))
    assert str(error.value).startswith(str(path))
    assert said in str(error.value)


# -- anywhere ------------------------------------------------------------------------------------------------------------------------


def run_small_chain(root: str) -> dict[str, bytes]:
    """Own pairs from match to balance; the bytes of everything that was made, but for the units, which say where the inputs lay."""
    storage.write_bytes(f"{root}/en.json", b'["red star", "house", "tree"]')
    sentences = ["A red star over the house", "The house in the evening and a tree", "There is a tree in front of the house"]
    pairs = pa.table({"url": [f"http://a.example/{i % 4}" for i in range(9)], "text": [sentences[i % 3] for i in range(9)]})
    with storage.writing(f"{root}/own.parquet") as path:
        pq.write_table(pairs, path)
    run_job("entries", ["--metadata-json", f"en={root}/en.json", "--output", f"{root}/W/entries"])
    run_job(
        "match",
        ["--input", f"{root}/own.parquet", "--format", "parquet", "--entries", f"{root}/W/entries", "--output", f"{root}/W/matched"],
    )
    matched = ["--matched", f"{root}/W/matched"]
    run_job("dedup", [*matched, "--output", f"{root}/W/siblings"])
    run_job("count", [*matched, "--siblings", f"{root}/W/siblings", "--entries", f"{root}/W/entries", "--output", f"{root}/W/counts"])
    run_job("thresholds", ["--counts", f"{root}/W/counts", "--t", "inf", "--output", f"{root}/W/thresholds.json"])
    thresholds = ["--thresholds", f"{root}/W/thresholds.json"]
    run_job("balance", [*matched, "--siblings", f"{root}/W/siblings", *thresholds, "--output", f"{root}/W/curated"])
    return made_by_small_chain(root)


def made_by_small_chain(root: str) -> dict[str, bytes]:
    return {name: data for name, data in contents(f"{root}/W").items() if not name.endswith("units.parquet")}


@pytest.fixture(scope="module")
def small_chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the small chain was run, with a cache of its own beside it; tests only read it."""
    root = tmp_path_factory.mktemp("small-chain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLDCLIP_CACHE", str(root / "cache"))
        run_small_chain(str(root))
        yield root


def test_the_chain_gives_the_same_bytes_on_disk_and_in_an_object_store(small_chain: Path) -> None:
    local, remote = made_by_small_chain(str(small_chain)), run_small_chain("memory://chain")
    assert remote == local
    assert len([name for name in local if name.endswith("_SUCCESS")]) == 5
    # Every image keeps one of its texts where nothing is balanced away.
    assert json.loads(local["curated/manifest.json"])["rows"] == 4
    assert len(list((small_chain / "cache").glob("en-*"))) == 1
