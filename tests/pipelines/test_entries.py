from __future__ import annotations

import bz2
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from balancing.automaton import open_automaton
from metadata.entries import ENTRIES_SCHEMA
from pipelines.automata import CHECKSUM, NEVER, RULES
from pipelines.errors import JobError
from pipelines.jobs import run_job
from pipelines.stage import FinishedStage, open_stage, read_part
from tests.pipelines.conftest import contents
from tests.world.generate import World, generate

ROOT = Path(__file__).resolve().parents[2]


def write_list(path: Path, entries: list[str]) -> Path:
    path.write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8")
    return path


def ready_made(output: Path, *lists: str, more: tuple[str, ...] = ()) -> FinishedStage:
    run_job("entries", [*(x for item in lists for x in ("--metadata-json", item)), "--output", str(output), *more])
    return open_stage(str(output), "entries")


# -- lists that are given ------------------------------------------------------------------------------------------------------------


def test_ready_made_lists_are_taken_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    english, japanese = ["photo of", "Red", "red", ",", "a"], ["犬", "赤い"]
    en, ja = write_list(tmp_path / "m.json", english), write_list(tmp_path / "ja.json", japanese)
    stage = ready_made(tmp_path / "out", f"en={en}", f"ja={ja}", more=("--json",))
    for lang, entries in (("en", english), ("ja", japanese)):
        table = read_part(stage.part_url(f"{lang}.parquet"))
        assert table["entry"].to_pylist() == entries
        assert table["id"].to_pylist() == [*range(len(entries))]
        assert json.loads((tmp_path / "out" / f"{lang}.json").read_text(encoding="utf-8")) == entries
        metadata = pq.read_schema(tmp_path / "out" / f"{lang}.parquet").metadata
        automaton = (tmp_path / "out" / "automata" / lang).read_bytes()
        matcher = open_automaton(automaton, entries_checksum=metadata[CHECKSUM].decode())
        assert (metadata[RULES], metadata[NEVER], matcher.rules.name) == (b"default", b"0", "default")
        ids, offsets = matcher.find([f" {entry} " for entry in entries])
        assert all(i in ids[offsets[i] : offsets[i + 1]] for i in range(len(entries)))
    assert (stage.counters["read"], stage.counters["emitted"], stage.manifest["rows"]) == (7, 7, 7)
    assert stage.parameters["recipe"] == "ready-made"
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[::7] for line in printed[1:4]] == [["en", "5"], ["ja", "2"], ["all", "7"]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('["a"', "the entries are no JSON: Expecting ',' delimiter: line 1 column 5 (char 4)"),
        ('{"a": 1}', "the entries must be a JSON list of strings, not dict"),
        ('["a", 1]', "item 1 of the entries is no string but int: 1"),
        ("[]", "the list of entries is empty"),
        ('["a", " "]', "item 1 of the entries is blank"),
        ('["\\ud800"]', "item 0 of the entries holds half a surrogate pair: '\\ud800'"),
    ],
)
def test_a_broken_list_is_told_with_its_file(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "m.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(JobError) as error:
        ready_made(tmp_path / "out", f"en={path}")
    assert str(error.value) == f"entries of en ({path}): {said}"
    assert not (tmp_path / "out" / "_SUCCESS").exists()


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        (("metadata.json",), "--metadata-json metadata.json: write LANG=FILE, for instance en=metadata.json"),
        (("en=",), "--metadata-json en=: write LANG=FILE, for instance en=metadata.json"),
        (("en={0}", "en={0}"), "--metadata-json names en twice"),
        (("en={0}x",), "{0}x: cannot be read (FileNotFoundError)"),
    ],
)
def test_wrong_lists_are_told(tmp_path: Path, lists: tuple[str, ...], said: str) -> None:
    path = write_list(tmp_path / "m.json", ["a"])
    with pytest.raises(JobError) as error:
        ready_made(tmp_path / "out", *(item.format(path) for item in lists))
    assert str(error.value) == said.format(path)
    assert not (tmp_path / "out").exists()


def test_an_unknown_language_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="xx"):
        ready_made(tmp_path / "out", f"xx={write_list(tmp_path / 'm.json', ['a'])}")


def test_a_changed_list_is_refused_in_the_same_directory(tmp_path: Path) -> None:
    path = write_list(tmp_path / "m.json", ["a"])
    ready_made(tmp_path / "out", f"en={path}")
    write_list(path, ["b"])
    with pytest.raises(JobError, match=r"was made with other settings .*: lists was .* and is "):
        ready_made(tmp_path / "out", f"en={path}")


def test_neither_or_both_kinds_of_source_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--metadata-json", "en=x", "--ngrams", "y"]):
        with pytest.raises(SystemExit):
            run_job("entries", [*more, "--output", str(tmp_path / "out")])
        assert capsys.readouterr().err.splitlines()[-1] == (
            "worldclip entries: error: give --ngrams, --titles and --wordnet (one of them at least), or --metadata-json"
        )


# -- lists that are made -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A small world with a second English dump, so that the order of inputs could matter."""
    world = generate(tmp_path_factory.mktemp("world") / "w", pages=6, images=80, base_url="http://pictures.example", test_images=1)
    (english,) = world.dumps.glob("enwiki-*.xml.bz2")
    text = bz2.decompress(english.read_bytes()).replace(b"red", b"scarlet").replace(b"star", b"rectangle")
    (world.dumps / "enwiki-2.xml.bz2").write_bytes(bz2.compress(text))
    return world


@pytest.fixture(scope="module")
def sources(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("W")
    run_job("ngrams", ["--input", f"{world.dumps}/*.xml.bz2", "--output", f"{work}/ngrams", "--min-bigram-count", "2"])
    run_job("titles", ["--input", f"{world.pageviews}/*.gz", "--output", f"{work}/titles", "--max-bad-records", "5%"])
    run_job("wordnet", ["--input", str(world.nltk_data), "--output", f"{work}/wordnet"])
    return work


def from_sources(work: Path, *more: str) -> list[str]:
    return ["--ngrams", f"{work}/ngrams", "--titles", f"{work}/titles", "--wordnet", f"{work}/wordnet", *more]


def test_lists_take_something_of_every_source(world: World, sources: Path, tmp_path: Path) -> None:
    run_job("entries", from_sources(sources, "--output", f"{tmp_path}/out"))
    stage = open_stage(f"{tmp_path}/out", "entries")
    # One of the world's languages has no label of its own: its entries are those of the list of the others.
    assert "chr" in world.languages
    assert [p["name"].removesuffix(".parquet") for p in stage.parts] == sorted({"other", *world.languages} - {"chr"})
    english = read_part(stage.part_url("en.parquet"))
    assert english.schema.equals(ENTRIES_SCHEMA)
    assert set(english["source"].cast(pa.string()).to_pylist()) == {"number", "wordnet", "unigram", "bigram", "title"}
    assert english["entry"].to_pylist()[:100] == [str(i) for i in range(100)]
    assert set(world.lemmas["en"]) <= set(english["entry"].to_pylist())
    assert stage.upstream == {kind: open_stage(f"{sources}/{kind}", kind).id for kind in ("ngrams", "titles", "wordnet")}


def test_languages_may_be_chosen(sources: Path, tmp_path: Path) -> None:
    run_job("entries", from_sources(sources, "--output", f"{tmp_path}/out", "--languages", "ja, en"))
    assert [p["name"] for p in open_stage(f"{tmp_path}/out", "entries").parts] == ["en.parquet", "ja.parquet"]


@pytest.mark.parametrize(
    ("languages", "said"),
    [
        ("en,xx", "unknown metadata language 'xx'"),
        ("en,fi,sv", "--languages fi, sv: there is nothing of it in {0}/ngrams"),
        ("chr", "'chr'"),
        ("", "unknown metadata language ''"),
    ],
)
def test_languages_that_cannot_be_made_are_told(sources: Path, tmp_path: Path, languages: str, said: str) -> None:
    with pytest.raises(JobError, match=re.escape(said.format(sources))):
        run_job("entries", from_sources(sources, "--output", f"{tmp_path}/out", "--languages", languages))
    assert not (tmp_path / "out").exists()


def test_a_source_that_is_not_finished_is_told(sources: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError) as error:
        run_job("entries", ["--ngrams", f"{sources}/absent", "--output", f"{tmp_path}/out"])
    assert str(error.value) == f"{sources}/absent is no stage 'ngrams': there is no stage.json in it"
    with pytest.raises(JobError) as error:
        run_job("entries", ["--ngrams", f"{sources}/titles", "--output", f"{tmp_path}/out"])
    assert str(error.value) == f"{sources}/titles holds a stage 'titles', not 'ngrams'"


SCRIPT = """
import sys
from pipelines.jobs import run_job
dumps, views, wordnet, work = sys.argv[1].split(","), sys.argv[2].split(","), sys.argv[3], sys.argv[4]
run_job("ngrams", ["--input", *dumps, "--output", f"{work}/ngrams", "--min-bigram-count", "2"])
run_job("titles", ["--input", *views, "--output", f"{work}/titles", "--max-bad-records", "5%"])
run_job("entries", ["--ngrams", f"{work}/ngrams", "--titles", f"{work}/titles", "--wordnet", wordnet, "--output", f"{work}/entries"])
"""


def test_entries_do_not_depend_on_the_order_of_inputs_nor_on_the_hash_seed(world: World, sources: Path, tmp_path: Path) -> None:
    dumps, views = ([str(p) for p in sorted(d.glob(g))] for d, g in ((world.dumps, "*.xml.bz2"), (world.pageviews, "*.gz")))
    processes = []
    for seed in (0, 1):
        order = slice(None, None, 1 - 2 * seed)
        argv = [",".join(dumps[order]), ",".join(views[order]), f"{sources}/wordnet", f"{tmp_path}/W{seed}"]
        environment = os.environ | {"PYTHONHASHSEED": str(seed)}
        processes.append(subprocess.Popen([sys.executable, "-c", SCRIPT, *argv], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL))
    assert [process.wait(timeout=100) for process in processes] == [0, 0]
    first, second = ({n: d for n, d in contents(tmp_path / f"W{seed}").items() if "units.parquet" not in n} for seed in (0, 1))
    assert first == second
    assert len([name for name in first if name.startswith("entries/automata/")]) == len(world.languages)
