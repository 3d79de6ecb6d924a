from __future__ import annotations

import importlib
import shlex
from pathlib import Path
from typing import Any

import pytest

from pipelines import run
from pipelines.errors import JobError
from pipelines.jobs import JOBS, read_command
from pipelines.run import ABOUT, LINKS, OUTPUTS, RunConfig, commands, read_chain

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
    assert commands(read_chain(chain_file(EXAMPLE))) == [
        ("ngrams", ["--output", "W/ngrams", "--input", "dumps/*.xml.bz2"]),
        ("entries", ["--ngrams", "W/ngrams", "--output", "W/entries", "--recipe", "metaclip2"]),
        ("match", ["--entries", "W/entries", "--output", "W/matched", "--input", "crawl/*.warc.gz"]),
        ("dedup", ["--matched", "W/matched", "--output", "W/siblings"]),
        ("count", ["--matched", "W/matched", "--siblings", "W/siblings", "--entries", "W/entries", "--output", "W/counts"]),
        ("thresholds", ["--counts", "W/counts", "--output", "W/thresholds.json", "--t-en", "20000"]),
        (
            "balance",
            [
                *("--matched", "W/matched", "--siblings", "W/siblings", "--thresholds", "W/thresholds.json"),
                *("--output", "W/curated", "--seed", "1"),
            ],
        ),
    ]


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
        for name, (place, maker) in links.items():
            assert place == OUTPUTS[maker]
            assert list(OUTPUTS).index(maker) < list(OUTPUTS).index(job)
            if job != "train":
                assert name in importlib.import_module(f"pipelines.{job}").__dict__[JOBS[job][0]].__dataclass_fields__


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[ngrams]\n", 'the key `work` is missing: work = "DIR" says where everything goes'),
        ("work = 3\n", 'the key `work` is missing: work = "DIR" says where everything goes'),
        (
            'work = "W"\n[ngram]\n',
            "there is no job [ngram]; a chain may have all, balance, count, dedup, entries, images, match, ngrams, report, thresholds, "
            "titles, train, wordnet",
        ),
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
        ("[dedup]\n[balance]\nsead = 1\n", "[balance] does not know sead; did you mean seed?"),
        ("[all]\nwokers = 2\n[dedup]\n", "[dedup] does not know wokers; did you mean workers?"),
        ("[dedup]\n[balance]\nseed = 1\ndeep = {er = 1}\n", "deep: a table cannot be an option"),
    ],
)
def test_a_misspelt_key_is_named_before_anything_runs(
    chain_file: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    monkeypatch.setattr(run, "run_job", lambda job, argv: pytest.fail(f"{job} ran"))
    with pytest.raises(JobError) as error:
        run.main(RunConfig(config=chain_file(f'work = "{tmp_path}/W"\n{text}')), [])
    assert str(error.value).removeprefix(f"{tmp_path}/chain.toml: ") == said
    assert not (tmp_path / "W").exists()


def test_a_wrong_value_is_told_before_anything_runs(
    chain_file: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "run_job", lambda job, argv: pytest.fail(f"{job} ran"))
    with pytest.raises(SystemExit):
        run.main(RunConfig(config=chain_file('work = "W"\n[dedup]\n[balance]\nseed = "x"\n')), [])
    assert capsys.readouterr().err.splitlines()[-1] == "worldclip balance: error: argument --seed: invalid int value: 'x'"


def test_beams_options_go_to_the_jobs_that_use_beam(chain_file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    monkeypatch.setattr(run, "run_job", lambda job, argv: ran.append((job, argv)))
    run.main(RunConfig(config=chain_file('work = "W"\n[dedup]\n[thresholds]\np = 0.1\n[report]\n')), ["--runner", "DirectRunner"])
    assert ran == [
        ("dedup", ["--matched", "W/matched", "--output", "W/siblings", "--runner", "DirectRunner"]),
        ("thresholds", ["--counts", "W/counts", "--output", "W/thresholds.json", "--p", "0.1"]),
        ("report", ["--work", "W"]),
    ]


# -- what README says ----------------------------------------------------------------------------------------------------------------


def readme_commands() -> list[list[str]]:
    """The worldclip lines of README's code blocks, which are indented by four spaces."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("    worldclip ")]


def test_every_command_of_the_readme_is_one() -> None:
    found = readme_commands()
    assert {argv[0] for argv in found} >= {*JOBS} - {"finish"}
    for job, *argv in found:
        if job != "train":
            assert read_command(job, argv)[1] == []
