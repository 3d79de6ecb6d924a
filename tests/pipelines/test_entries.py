from __future__ import annotations

import bz2
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from balancing.automaton import open_automaton
from metadata.entries import ENTRIES_SCHEMA
from metadata.languages import metadata_codes
from pipelines.automata import CHECKSUM, NEVER, RULES
from pipelines.entries import make_entries, plan
from pipelines.errors import JobError
from pipelines.jobs import read_command, run_job
from pipelines.part import read_part
from pipelines.stage import FinishedStage, open_stage
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
        matcher = open_automaton(io.BytesIO(automaton), entries_checksum=metadata[CHECKSUM].decode())
        assert (metadata[RULES], metadata[NEVER], matcher.rules.name) == (b"default", b"0", "default")
        ids, offsets = matcher.find([f" {entry} " for entry in entries])
        assert all(i in ids[offsets[i] : offsets[i + 1]] for i in range(len(entries)))
    assert (stage.counters["read"], stage.counters["emitted"], stage.manifest["rows"]) == (7, 7, 7)
    assert stage.parameters["recipe"] == "ready-made"
    printed = capsys.readouterr().out.splitlines()
    assert [line.split() for line in printed[:-1]] == [
        ["language", "number", "wordnet", "unigram", "bigram", "title", "extra", "all", "never"],
        ["en", "0", "0", "0", "0", "0", "5", "5", "0"],
        ["ja", "0", "0", "0", "0", "0", "2", "2", "0"],
        ["all", "0", "0", "0", "0", "0", "7", "7", "0"],
    ]


def test_entries_that_can_never_match_are_shown_by_language(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    en, de = write_list(tmp_path / "en.json", ["St. Louis", "a, b", "plain"]), write_list(tmp_path / "de.json", ["d.h.", "ok"])
    stage = ready_made(tmp_path / "out", f"en={en}", f"de={de}")
    assert {p["name"]: pq.read_schema(stage.part_url(p["name"])).metadata[NEVER] for p in stage.parts} == {
        "de.parquet": b"1",
        "en.parquet": b"2",
    }
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[::8] for line in printed[:4]] == [["language", "never"], ["en", "2"], ["de", "1"], ["all", "3"]]
    assert printed[4] == "never: entries that no text can match under the rules 'default'; they are kept, and match nothing"
    ready_made(tmp_path / "unicode", f"en={en}", more=("--rules", "unicode"))
    assert [line.split()[::8] for line in capsys.readouterr().out.splitlines()[:-1]] == [["language", "never"], ["en", "0"], ["all", "0"]]


def test_a_table_of_many_languages_shows_the_largest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codes = metadata_codes()[:23]
    lists = [f"{code}={write_list(tmp_path / f'{code}.json', [f'e{n}' for n in range(i + 1)])}" for i, code in enumerate(codes)]
    ready_made(tmp_path / "out", *lists)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[::7] for line in printed[1:21]] == [[code, str(n)] for code, n in zip(codes[:2:-1], range(23, 3, -1), strict=True)]
    assert printed[21:23] == ["… and 3 more languages", f"{'all':12}" + "         0" * 5 + "       276         276       0"]


def test_a_list_written_as_json_and_given_back_is_the_same_list(tmp_path: Path) -> None:
    entries = ['say "hi"', "back\\slash", "Köln", "犬", "😀", "a\u2028b", "x/y", "b", "a"]
    first = ready_made(tmp_path / "one", f"en={write_list(tmp_path / 'en.json', entries)}", more=("--json",))
    again = ready_made(tmp_path / "two", f"en={tmp_path}/one/en.json", more=("--json",))
    assert (tmp_path / "two" / "en.json").read_bytes() == (tmp_path / "one" / "en.json").read_bytes()
    assert read_part(again.part_url("en.parquet"))["entry"].to_pylist() == entries
    assert (tmp_path / "two" / "automata" / "en").read_bytes() == (tmp_path / "one" / "automata" / "en").read_bytes()
    assert again.parts[0]["data_sha256"] == first.parts[0]["data_sha256"]


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
    for more in ([], ["--metadata-json", "en=x", "--ngrams", "y"], ["--metadata-json", "en=x", "--extra-entries", "en=y"]):
        with pytest.raises(SystemExit):
            run_job("entries", [*more, "--output", str(tmp_path / "out")])
        assert capsys.readouterr().err.splitlines()[-1] == (
            "worldclip entries: error: give --ngrams, --titles, --wordnet and --extra-entries (one of them at least), "
            "or --metadata-json alone"
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
        ("simple", "--languages simple: there is nothing of it in {0}/ngrams"),
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


def test_lists_that_were_made_come_back_from_their_json(sources: Path, tmp_path: Path) -> None:
    run_job("entries", from_sources(sources, "--output", f"{tmp_path}/made", "--json"))
    made = open_stage(f"{tmp_path}/made", "entries")
    langs = [p["name"].removesuffix(".parquet") for p in made.parts]
    again = ready_made(tmp_path / "again", *(f"{lang}={tmp_path}/made/{lang}.json" for lang in langs))
    assert len(langs) == len(again.parts) >= 4
    for lang in langs:
        one, two = (read_part(stage.part_url(f"{lang}.parquet"), columns=["id", "entry"]) for stage in (made, again))
        assert one.equals(two)
        about = [pq.read_schema(stage.part_url(f"{lang}.parquet")).metadata for stage in (made, again)]
        assert [about[0][key] for key in (CHECKSUM, RULES, NEVER)] == [about[1][key] for key in (CHECKSUM, RULES, NEVER)]
        assert (tmp_path / "made/automata" / lang).read_bytes() == (tmp_path / "again/automata" / lang).read_bytes()


def test_the_published_floor_of_pmi_is_an_option(sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {}
    for floor in ("none", "2", "30"):
        more = [] if floor == "none" else ["--bigram-pmi-floor", floor]
        run_job("entries", from_sources(sources, "--languages", "en", "--recipe", "metaclip1", "--output", f"{tmp_path}/{floor}", *more))
        table = read_part(f"{tmp_path}/{floor}/en.parquet")
        found[floor] = table.filter(pc.equal(table["source"].cast(pa.string()), "bigram"))
    assert open_stage(f"{tmp_path}/2", "entries").parameters["recipe"]["bigram_pmi_floor"] == 2
    scores = found["none"]["score"].to_pylist()
    assert 0 == len(found["30"]) < len(found["2"]) == sum(score >= 2 for score in scores) < len(scores)
    with pytest.raises(SystemExit):
        run_job("entries", from_sources(sources, "--bigram-pmi-floor", "nan", "--output", f"{tmp_path}/nan"))
    assert capsys.readouterr().err.splitlines()[-1] == (
        "worldclip entries: error: --bigram-pmi-floor must lie between -64 and 64 bits, not nan"
    )


# -- extra entries -------------------------------------------------------------------------------------------------------------------


def extra(work: Path, lang: str) -> list[str]:
    table = read_part(f"{work}/{lang}.parquet")
    mine = pc.equal(table["source"].cast(pa.string()), "extra").to_pylist()
    assert mine == sorted(mine)  # behind all others
    return table.filter(pa.array(mine))["entry"].to_pylist()


def test_extra_entries_stand_behind_all_others(sources: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("\ufeffmine\r\n\n0\nmine\n also mine \n...\n", encoding="utf-8")
    run_job("entries", from_sources(sources, "--languages", "en,ja", "--output", f"{tmp_path}/plain"))
    run_job(
        "entries",
        from_sources(sources, "--languages", "en,ja", "--extra-entries", f"en={tmp_path}/mine.txt", "--output", f"{tmp_path}/out"),
    )
    assert extra(tmp_path / "out", "en") == ["mine", "also mine"]
    assert extra(tmp_path / "out", "ja") == []
    before, after = (read_part(f"{tmp_path}/{name}/en.parquet") for name in ("plain", "out"))
    assert after.slice(0, len(before)).drop("source").equals(before.drop("source"))
    counters = open_stage(f"{tmp_path}/out", "entries").counters
    plain = open_stage(f"{tmp_path}/plain", "entries").counters
    assert counters["read"] - plain["read"] == 6
    assert counters["emitted"] - plain["emitted"] == 2
    assert counters["dropped"] == {"blank_entry": 1, "only_punctuation": 1, "repeated_entry": 2}


def test_extra_entries_of_a_merged_wikipedia_follow_those_of_the_list(tmp_path: Path) -> None:
    lv, ltg, own, chr_ = (tmp_path / name for name in ("lv.json", "ltg.txt", "other.txt", "chr.txt"))
    write_list(lv, ["Rīga", "Daugava"])
    ltg.write_text("Daugova\nRīga\n", encoding="utf-8")
    own.write_text("own\n", encoding="utf-8")
    chr_.write_text("ᏣᎳᎩ\nown\n", encoding="utf-8")
    given = [f"ltg={ltg}", f"chr={chr_}", f"other={own}", f"lv={lv}"]
    for name, order in (("one", given), ("two", given[::-1])):
        run_job("entries", [*(x for item in order for x in ("--extra-entries", item)), "--output", f"{tmp_path}/{name}"])
    assert extra(tmp_path / "one", "lv") == ["Rīga", "Daugava", "Daugova"]
    assert extra(tmp_path / "one", "other") == ["own", "ᏣᎳᎩ"]
    assert contents(tmp_path / "one").keys() == contents(tmp_path / "two").keys()
    for name in ("lv.parquet", "other.parquet", "manifest.json", "stage.json", "automata/lv", "automata/other"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    # There is nothing else of these languages: the numbers and what is one's own.
    assert read_part(f"{tmp_path}/one/other.parquet")["entry"].to_pylist() == [*map(str, range(100)), "own", "ᏣᎳᎩ"]
    assert [p["name"] for p in open_stage(f"{tmp_path}/one", "entries").parts] == ["lv.parquet", "other.parquet"]


def test_a_language_that_has_only_extra_entries_joins_the_others(sources: Path, tmp_path: Path) -> None:
    for code in ("haw", "simple"):
        (tmp_path / f"{code}.txt").write_text("aloha\n", encoding="utf-8")
    more = [x for code in ("haw", "simple") for x in ("--extra-entries", f"{code}={tmp_path}/{code}.txt")]
    run_job("entries", from_sources(sources, "--output", f"{tmp_path}/plain"))
    run_job("entries", from_sources(sources, *more, "--output", f"{tmp_path}/out"))
    plain, out = (open_stage(f"{tmp_path}/{name}", "entries") for name in ("plain", "out"))
    # Hawaiian has no label: its list is that of the others, which there is anyway.
    assert {p["name"] for p in out.parts} - {p["name"] for p in plain.parts} == {"simple.parquet"}
    assert extra(tmp_path / "out", "other") == extra(tmp_path / "out", "simple") == ["aloha"]


def test_changed_extra_entries_are_refused_in_the_same_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.txt").write_text("one\n")
    argv = ["--extra-entries", f"en={tmp_path}/mine.txt", "--output", f"{tmp_path}/out"]
    run_job("entries", argv)
    (tmp_path / "mine.txt").write_text("two\n")
    with pytest.raises(JobError, match=r"was made with other settings .*: extra was .* and is "):
        run_job("entries", argv)
    stage, units = plan(config := read_command("entries", [*argv[:-1], f"{tmp_path}/new"])[0])
    stage.begin(units)
    (tmp_path / "mine.txt").write_text("three\n")
    with pytest.raises(JobError) as error:
        make_entries(units[0], stage=stage, config=config)
    assert str(error.value) == f"{tmp_path}/mine.txt was changed while the job ran: choose another --output, or delete the directory"


@pytest.mark.parametrize(
    ("items", "said"),
    [
        (["mine.txt"], "--extra-entries mine.txt: write LANG=FILE, for instance en=mine.txt"),
        (["en={0}/a.txt", "en={0}/a.txt"], "--extra-entries names en twice"),
        (["xx={0}/a.txt"], "unknown language code 'xx'"),
        (["en={0}/absent.txt"], "{0}/absent.txt: cannot be read (FileNotFoundError)"),
        (["en={0}/latin.txt"], "--extra-entries en={0}/latin.txt: line 2 is no UTF-8 (invalid start byte): save the file as UTF-8"),
        (["en={0}/a.json"], "--extra-entries en={0}/a.json: the entries must be a JSON list of strings, not dict"),
        (["fr={0}/a.txt"], "--extra-entries has entries for fr, which --languages leaves out: name it there too"),
    ],
)
def test_wrong_extra_entries_are_told_before_anything_is_written(sources: Path, tmp_path: Path, items: list[str], said: str) -> None:
    (tmp_path / "a.txt").write_text("mine\n")
    (tmp_path / "latin.txt").write_bytes(b"a\nK\xf6ln\n")
    (tmp_path / "a.json").write_text('{"a": 1}')
    more = [x for item in items for x in ("--extra-entries", item.format(tmp_path))]
    with pytest.raises(JobError) as error:
        run_job("entries", from_sources(sources, "--languages", "en", *more, "--output", f"{tmp_path}/out"))
    assert str(error.value).startswith(said.format(tmp_path))
    assert not (tmp_path / "out").exists()


# -- the same bytes ------------------------------------------------------------------------------------------------------------------

SCRIPT = """
import sys
from metadata.ending import end_process
from pipelines.jobs import run_job
if __name__ == "__main__":
    dumps, views, extra, nltk_data, work, workers = (x.split(",") for x in sys.argv[1:])
    work, more = work[0], ["--workers", *workers]
    # Its tests run this with two workers, another seed and another order.
    run_job("ngrams", ["--input", *dumps, "--output", f"{work}/ngrams", "--min-bigram-count", "2"])
    run_job("titles", ["--input", *views, "--output", f"{work}/titles", "--max-bad-records", "5%", *more])
    # Its units are those of one input; the tests of the whole chain run it with two workers.
    run_job("wordnet", ["--input", *nltk_data, "--output", f"{work}/wordnet"])
    made = ["--ngrams", f"{work}/ngrams", "--titles", f"{work}/titles", "--wordnet", f"{work}/wordnet", "--extra-entries", *extra]
    run_job("entries", [*made, "--json", "--output", f"{work}/entries", *more])
    end_process(0)
"""


@pytest.mark.slow
def test_entries_do_not_depend_on_order_workers_or_hash_seed(world: World, tmp_path: Path) -> None:
    dumps, views = ([str(p) for p in sorted(d.glob(g))] for d, g in ((world.dumps, "*.xml.bz2"), (world.pageviews, "*.gz")))
    for code in ("en", "chr", "other"):
        (tmp_path / f"{code}.txt").write_text(f"mine\n{code} of mine\n", encoding="utf-8")
    extra_files = [f"{code}={tmp_path}/{code}.txt" for code in ("en", "chr", "other")]
    processes = []
    for seed in (0, 1):
        order = slice(None, None, 1 - 2 * seed)
        inputs = [",".join(files[order]) for files in (dumps, views, extra_files)]
        argv = [*inputs, str(world.nltk_data), f"{tmp_path}/W{seed}", str(seed + 1)]
        environment = os.environ | {"PYTHONHASHSEED": str(seed)}
        processes.append(subprocess.Popen([sys.executable, "-c", SCRIPT, *argv], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL))
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    first, second = ({n: d for n, d in contents(tmp_path / f"W{seed}").items() if "units.parquet" not in n} for seed in (0, 1))
    assert first == second
    assert len([name for name in first if name.startswith("entries/automata/")]) == len(world.languages)
    assert extra(tmp_path / "W0" / "entries", "other") == ["mine", "other of mine", "chr of mine"]
