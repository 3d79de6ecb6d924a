from __future__ import annotations

import importlib
import shlex
from pathlib import Path
from typing import Any

import pytest

from pipelines import __main__ as command_line
from pipelines import run
from pipelines.chain import LINKS, OUTPUTS
from pipelines.errors import JobError
from pipelines.graph import check_beam_args
from pipelines.jobs import JOBS, read_command
from pipelines.part import read_part
from pipelines.run import ABOUT, RunConfig, commands, read_chain

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def chain_file(tmp_path: Path) -> Any:
    def write(text: str | bytes) -> str:
        (tmp_path / "chain.toml").write_bytes(text.encode() if isinstance(text, str) else text)
        return str(tmp_path / "chain.toml")

    return write


#: The chain in the help text is the example that people copy.
EXAMPLE = ABOUT[ABOUT.index('work = "W"') :]


def test_the_chain_of_the_help_text_stands_for_these_commands(chain_file: Any) -> None:
    chain = read_chain(chain_file(EXAMPLE))
    assert {*chain} == {"work", "all", *OUTPUTS, "report"}
    workers, matched, siblings = ["--workers", "2"], ["--matched", "W/matched"], ["--siblings", "W/siblings"]
    assert commands(chain) == [
        ("ngrams", [*workers, "--output", "W/ngrams", "--input", "dumps/*.xml.bz2"]),
        ("titles", [*workers, "--output", "W/titles", "--input", "pageviews/*.gz"]),
        ("wordnet", [*workers, "--output", "W/wordnet", "--input", "nltk_data"]),
        (
            "entries",
            [
                *(*workers, "--ngrams", "W/ngrams", "--titles", "W/titles", "--wordnet", "W/wordnet"),
                *("--output", "W/entries", "--recipe", "metaclip2"),
            ],
        ),
        ("match", [*workers, "--entries", "W/entries", "--output", "W/matched", "--input", "crawl/*.warc.gz"]),
        ("dedup", [*workers, *matched, "--output", "W/siblings"]),
        ("count", [*workers, *matched, *siblings, "--entries", "W/entries", "--output", "W/counts"]),
        ("thresholds", ["--counts", "W/counts", "--output", "W/thresholds.json", "--t-en", "20000"]),
        ("balance", [*workers, *matched, *siblings, "--thresholds", "W/thresholds.json", "--output", "W/curated", "--seed", "1"]),
        ("images", [*workers, "--curated", "W/curated", "--output", "W/images", "--contact", "https://example.org/who-we-are"]),
        (
            "train",
            [
                *("--data", "W/images", "--output", "W/model", "--config", "b32_metaclip1.toml"),
                *("--set", "train.steps=1000", "train.batch_size=512"),
            ],
        ),
        ("report", ["--work", "W"]),
    ]


def test_the_help_says_where_relative_paths_start(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        read_command("run", ["--help"])
    printed = capsys.readouterr().out
    said = " ".join(printed.split())
    assert "Relative paths, that of work too, start from the directory in which worldclip is run, wherever the file is." in said
    assert all(len(line) <= 100 for line in printed.splitlines())
    assert EXAMPLE in printed


FULL = """
work = "gs://bucket/W/"
[all]
workers = 2
max-bad-records = "5%"
[report]
[train]
config = "toy.toml"
[images]
[balance]
seed = 3
output = "elsewhere"
[thresholds]
t = inf
[count]
[dedup]
workers = 1
[match]
input = ["a.gz", "b.gz"]
[entries]
json = true
[wordnet]
input = "nltk_data"
[titles]
input = ["views/*"]
max_bad_records = 0.5
[ngrams]
input = ["dumps/*"]
"""


def test_jobs_come_in_their_order_and_a_jobs_own_table_has_the_last_word(chain_file: Any) -> None:
    found = commands(read_chain(chain_file(FULL)))
    assert [job for job, _ in found] == [*OUTPUTS, "report"]
    given = {job: dict(zip(argv[::2], argv[1::2], strict=True)) for job, argv in found if job not in ("match", "entries")}
    assert given["titles"] == {"--workers": "2", "--max-bad-records": "0.5", "--output": "gs://bucket/W/titles", "--input": "views/*"}
    assert given["dedup"]["--workers"] == "1"
    assert given["balance"]["--output"] == "elsewhere"
    assert given["images"]["--curated"] == "elsewhere"
    assert given["thresholds"] == {"--counts": "gs://bucket/W/counts", "--output": "gs://bucket/W/thresholds.json", "--t": "inf"}
    assert given["train"] == {"--data": "gs://bucket/W/images", "--output": "gs://bucket/W/model", "--config": "toy.toml"}
    assert given["report"] == {"--work": "gs://bucket/W/"}
    entries = dict(found)["entries"]
    assert entries == [
        *("--workers", "2", "--max-bad-records", "5%", "--ngrams", "gs://bucket/W/ngrams", "--titles", "gs://bucket/W/titles"),
        *("--wordnet", "gs://bucket/W/wordnet", "--output", "gs://bucket/W/entries", "--json"),
    ]
    for job, argv in found:
        if job != "train":
            assert read_command(job, argv)[1] == []


def test_ready_made_lists_take_nothing_from_other_jobs(chain_file: Any) -> None:
    chain = read_chain(chain_file('work = "W"\n[ngrams]\ninput = "x"\n[entries]\nmetadata-json = ["en=a.json", "de=b.json"]\n'))
    assert dict(commands(chain))["entries"] == ["--output", "W/entries", "--metadata-json", "en=a.json", "de=b.json"]


def test_every_link_is_an_option_of_its_job_and_leads_to_the_output_of_another() -> None:
    for job, links in LINKS.items():
        for name, maker in links.items():
            assert list(OUTPUTS).index(maker) < list(OUTPUTS).index(job)
            if job != "train":
                assert name in importlib.import_module(f"pipelines.{job}").__dict__[JOBS[job][0]].__dataclass_fields__


MAY_HAVE = (
    "(it may have work, [all], [ngrams], [titles], [wordnet], [entries], [match], [dedup], [count], [thresholds], [balance], [images], "
    "[train], [report])"
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('wrok = "W"\n', f"a chain has no wrok; did you mean work? {MAY_HAVE}"),
        ("[ngrams]\n", 'the key `work` is missing: work = "DIR" says where everything goes'),
        ("work = 3\n", 'the key `work` is missing: work = "DIR" says where everything goes'),
        (
            'work = "W"\n[ngram]\n',
            f"a chain has no [ngram]; did you mean [ngrams]? {MAY_HAVE}",
        ),
        ('work = "W"\n[zzz]\n', f"a chain has no [zzz] {MAY_HAVE}"),
        ('work = "W"\nngrams = "dumps"\n', "ngrams must be a table: [ngrams]"),
        ('work = "W"\nall = 2\n', "all must be a table: [all]"),
        ('work = "W"\n[ngrams\n', None),
        (b'work = "\xff"\n', None),
    ],
)
def test_a_chain_that_cannot_be_read_is_told(chain_file: Any, text: str | bytes, said: str | None) -> None:
    url = chain_file(text)
    with pytest.raises(JobError) as error:
        read_chain(url)
    assert str(error.value) == f"{url}: {said}" if said else str(error.value).startswith(f"{url}: not valid TOML (")


def test_an_absent_chain_is_told(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"chain\.toml: cannot be read"):
        read_chain(str(tmp_path / "chain.toml"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[dedup]\n[balance]\nsead = 1\n",
            "[balance]: neither the job nor Apache Beam knows the option --sead; did you mean --seed?",
        ),
        (
            "[all]\nwokers = 2\n[dedup]\n",
            "[all]: neither the job nor Apache Beam knows the option --wokers; did you mean --workers?",
        ),
        ("[thresholds]\nt_enn = 2\n", "[thresholds]: neither the job nor Apache Beam knows the option --t-enn; did you mean --t-en?"),
        ("[dedup]\nrunner = 'FlinkRuner'\n", None),
        ("[report]\nwrok = 2\n", "[report]: report does not know --wrok; did you mean --work?"),
        ("[train]\nconfg = 'x'\n", "[train] does not know confg; did you mean config? (it may have config, data, output, set)"),
        ("[train]\n", '[train] has no config: config = "toy.toml", for instance; worldclip train --help lists those that are there'),
        ("[dedup]\n[balance]\nseed = 'x'\n", "[balance]: argument --seed: invalid int value: 'x'"),
        ("[ngrams]\n", "[ngrams]: the following arguments are required: --input"),
        ("[thresholds]\nt = 3\np = 0.1\n", "[thresholds]: give only one of --t-en, --p"),
        ("[dedup]\n[balance]\nseed = 1\ndeep = {er = 1}\n", "deep: a table cannot be an option"),
        ("[match]\ninput = 'x'\n", "[match] has no entries: add a table [entries], or say where to find it: entries = ... in [match]"),
        ("[match]\ninput = 'x'\nentries = 'E'\n[count]\n", "[count] has no siblings: add a table [dedup], or say where to find it: "),
        ("[dedup]\n", "[dedup] has no matched: add a table [match], or say where to find it: matched = ... in [dedup]"),
        ("[train]\nconfig = 'toy.toml'\n", "[train] has no data: add a table [images], or say where to find it: data = ... in [train]"),
    ],
)
def test_a_mistake_in_any_table_is_told_before_anything_runs(
    chain_file: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str | None
) -> None:
    monkeypatch.setattr(run, "run_job", lambda job, argv: pytest.fail(f"{job} ran"))
    with pytest.raises(JobError) as error:
        run.main(RunConfig(config=chain_file(f'work = "{tmp_path}/W"\n{text}')), [])
    told = str(error.value).removeprefix(f"{tmp_path}/chain.toml: ")
    assert told.startswith(
        said if said else "[dedup]: Apache Beam has no runner FlinkRuner; did you mean FlinkRunner? (it has DataflowRunner, "
    )
    assert not (tmp_path / "W").exists()


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """The jobs that are run, each with its command line, instead of running them."""
    out: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(run, "run_job", lambda job, argv: out.append((job, argv)))
    return out


def test_beams_options_go_to_the_jobs_that_use_beam(chain_file: Any, tmp_path: Path, ran: list[tuple[str, list[str]]]) -> None:
    work = tmp_path / "W"
    for place in ("matched", "counts"):
        (work / place).mkdir(parents=True)
    text = f'work = "{work}"\n[all]\ntemp_location = "gs://b"\n[dedup]\n[thresholds]\np = 0.1\n[report]\n'
    run.main(RunConfig(config=chain_file(text)), ["--runner", "DirectRunner"])
    assert ran == [
        (
            "dedup",
            [
                *("--temp_location", "gs://b", "--matched", f"{work}/matched", "--output", f"{work}/siblings"),
                *("--runner", "DirectRunner"),
            ],
        ),
        ("thresholds", ["--counts", f"{work}/counts", "--output", f"{work}/thresholds.json", "--p", "0.1"]),
        ("report", ["--work", str(work)]),
    ]


def test_an_option_of_another_runner_is_left_to_it(chain_file: Any, tmp_path: Path, ran: list[tuple[str, list[str]]]) -> None:
    (tmp_path / "matched").mkdir()
    text = f'work = "{tmp_path}"\n[dedup]\nnum_workers = 3\nsome-flag = "x"\n'
    run.main(RunConfig(config=chain_file(text)), ["--runner", "FlinkRunner"])
    assert ran[0][1][4:] == ["--num_workers", "3", "--some_flag", "x", "--runner", "FlinkRunner"]


def test_what_one_table_says_of_an_input_holds_for_those_after_it(chain_file: Any) -> None:
    text = """
        work = "W"
        [match]
        input = ["a.gz"]
        entries = "elsewhere/entries"
        [dedup]
        matched = ["W/matched", "other/matched"]
        [count]
        [balance]
        siblings = "mine"
    """
    found = dict(commands(read_chain(chain_file(text))))
    assert found["match"] == ["--output", "W/matched", "--input", "a.gz", "--entries", "elsewhere/entries"]
    matched = ["--matched", "W/matched", "other/matched"]
    assert found["count"] == [*matched, "--siblings", "W/siblings", "--entries", "elsewhere/entries", "--output", "W/counts"]
    assert found["balance"] == [*matched, "--thresholds", "W/thresholds.json", "--output", "W/curated", "--siblings", "mine"]


def test_a_chain_of_the_metadata_alone(chain_file: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pages = "".join(
        f"<page><title>T{i}</title><ns>0</ns><id>{i}</id><revision><text>Sarkans suns un vārds{i}.</text></revision></page>"
        for i in range(1, 30)
    )
    site = "<siteinfo><dbname>lvwiki</dbname></siteinfo>"
    (tmp_path / "lvwiki-20260101-pages-articles.xml").write_text(f"<mediawiki>{site}{pages}</mediawiki>", encoding="utf-8")
    text = f'work = "{tmp_path}/W"\n[ngrams]\ninput = ["{tmp_path}/*.xml"]\n[entries]\nlanguages = "lv"\n'
    run.main(RunConfig(config=chain_file(text)), [])
    assert sorted(path.name for path in (tmp_path / "W").iterdir()) == ["entries", "ngrams"]
    entries = read_part(f"{tmp_path}/W/entries/lv.parquet")["entry"].to_pylist()
    assert (entries[99], {"Sarkans", "suns", "un"} <= {*entries}) == ("99", True)
    first = capsys.readouterr().out
    run.main(RunConfig(config=chain_file(text)), [])
    again = capsys.readouterr().out.splitlines()
    assert f"ngrams: already finished → {tmp_path}/W/ngrams" in again
    assert f"entries: already finished → {tmp_path}/W/entries" in again
    assert f"entries: read {len(entries)}, emitted {len(entries)} → " in first


def test_what_a_job_of_the_chain_refuses_names_the_job(chain_file: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = f'work = "{tmp_path}/W"\n[ngrams]\ninput = ["{tmp_path}/no*.xml"]\n'
    assert command_line.main(["run", "--config", chain_file(text)]) == 1
    told = f"worldclip run: ngrams: --input {tmp_path}/no*.xml: no such file (globs are read by worldclip itself when they are quoted)\n"
    assert capsys.readouterr().err == told


# -- what README says ----------------------------------------------------------------------------------------------------------------


def readme_commands() -> list[list[str]]:
    """The worldclip lines of README's code blocks, which are indented by four spaces."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("    worldclip ")]


def test_every_command_of_the_readme_is_one() -> None:
    found = readme_commands()
    assert {argv[0] for argv in found} >= {*JOBS} - {"finish"}
    for job, *argv in found:
        if JOBS[job][0]:
            _, beam_args = read_command(job, argv)
            assert ("--runner" in argv) == bool(beam_args)
            check_beam_args(beam_args)
