"""What stands in a card, what is refused when one is made or read, and sets of every kind made again from theirs."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines.locate
import pipelines.ngrams
import pipelines.rebuild
from balancing.lid import embedded_model
from metadata.recipes import recipe
from pipelines import storage
from pipelines.datacard import card_schema, read_card, sealed
from pipelines.errors import JobError
from pipelines.inputs import sampled
from pipelines.jobs import run_job
from pipelines.origins import inputs_of, sha256_of
from pipelines.part import read_parts
from pipelines.stage import open_stage, units_of_files
from tests.balancing.test_fingerprint import by_hand
from tests.pipelines.conftest import contents, unpacked
from tests.pipelines.curated import ENTRIES, FIRST, curate, make_entries, make_set, match, write_inputs
from tests.world.dumps import write_dump
from tests.world.vocabulary import LANGUAGES
from tests.world.wordnets import write_wordnets

SCHEMA = Path(pipelines.locate.__file__).with_name("datacard.schema.json")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs (in), the set that was made from them (W), and its card."""
    root = tmp_path_factory.mktemp("set")
    write_inputs(root / "in")
    make_set(root / "W", root / "in")
    make_card(root / "W", root / "card.json")
    return root


def make_card(work: Path, output: Path, *more: str) -> dict[str, Any]:
    run_job("card", ["--work", str(work), "--output", str(output), *more])
    body: dict[str, Any] = json.loads(output.read_text())
    return body


def rebuild(card: Path, work: Path, *inputs: str, more: tuple[str, ...] = ()) -> None:
    run_job("run", ["--from-card", str(card), "--inputs", *inputs, "--work", str(work), *more])


def refusal(work: Callable[..., Any], *args: Any, **more: Any) -> str:
    with pytest.raises(JobError) as error:
        work(*args, **more)
    return str(error.value)


def write_card(path: Path, body: dict[str, Any], change: Callable[[dict[str, Any]], Any]) -> Path:
    """A card that was changed, and whose checksum was made anew."""
    body = json.loads(json.dumps(body))
    change(body)
    path.write_text(json.dumps(sealed(body)))
    return path


# -- what stands in it ---------------------------------------------------------------------------------------------------------------


def test_what_a_card_says(made: Path) -> None:
    card = json.loads((made / "card.json").read_text())
    curated = open_stage(f"{made}/W/curated", "balance")
    rows = [row for table in read_parts(curated) for row in table.to_pylist()]
    counted = {entry: sum(f" {entry} " in f" {text.replace(',', ' ')} " for _, text in FIRST) for entry in ENTRIES}
    after = {entry: sum(f" {entry} " in f" {row['text'].replace(',', ' ')} " for row in rows) for entry in ENTRIES}
    assert card["languages"] == {
        "en": {
            "entries": 8,
            "checksum": checksum_in(made / "W/entries/en.parquet"),
            "matched": 60,
            "unique": 60,
            "kept": len(rows),
            "entries_without_match": 1 / 8,
            "top": [{"entry": x, "before": counted[x], "after": after[x]} for x in ("photo", "garden", "dog", "cat", "cow")],
            "tail": [],
        }
    }
    assert 0 < len(rows) < 60
    files = [made / "W/curated" / part["name"] for part in curated.parts]
    assert card["set"] == {
        "pairs": len(rows),
        "seed": 3,
        "fingerprint_method": "sha256-of-sorted-pair-sha256",
        "fingerprint": by_hand([(row["image_id"], row["text"], row["probability"]) for row in rows]),
        "parts": [
            {"name": f.name, "rows": pq.read_metadata(f).num_rows, "bytes": f.stat().st_size, "sha256": sha256_of(str(f))} for f in files
        ],
    }
    thresholds = json.loads((made / "W/thresholds.json").read_text())
    assert card["thresholds"] == {**{k: v for k, v in thresholds.items() if k != "counts_path"}, "expected_pairs": None}
    assert [(x["name"], x["job"]) for x in card["stages"]] == [
        ("entries", "entries"),
        ("matched", "match"),
        ("siblings", "dedup"),
        ("counts", "count"),
        ("curated", "balance"),
    ]
    for record in card["stages"]:
        manifest = json.loads((made / "W" / record["name"] / "manifest.json").read_text())
        assert record["parts"] == {part["name"]: part["data_sha256"] for part in manifest["parts"]}
        for key in ("id", "fingerprint", "parameters", "upstream", "counters", "rows", "format_version"):
            assert record[key] == manifest[key], key
    assert [record["packs"] for record in card["stages"]] == [[], [["0.parquet", "1.parquet"]], [], [], []]
    inputs = {x["name"]: x for record in card["stages"] for x in record["inputs"]}
    assert inputs == {
        "en": {"kind": "list", "name": "en", "size": None, "sha256": sha256_of(f"{made}/in/lists/english.json"), "ranges": []},
        **{
            name: {
                "kind": "file",
                "name": name,
                "size": (made / "in/one" / name).stat().st_size,
                "sha256": sha256_of(f"{made}/in/one/{name}"),
                "ranges": [],
            }
            for name in ("0.parquet", "1.parquet")
        },
    }


def checksum_in(part: Path) -> str:
    return str(pq.read_schema(part).metadata[b"entries_checksum"].decode())


def test_nothing_of_this_machine_is_in_it(made: Path, tmp_path: Path) -> None:
    """Elsewhere and later, the same bytes."""
    shutil.copytree(made / "W", tmp_path / "elsewhere")
    make_card(tmp_path / "elsewhere", tmp_path / "card.json")
    text = (made / "card.json").read_text()
    assert (tmp_path / "card.json").read_text() == text
    assert str(made) not in text
    assert os.uname().nodename not in text


def test_the_schema_is_that_of_the_code_and_holds(made: Path) -> None:
    schema = json.loads(SCHEMA.read_text())
    assert schema == card_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    card = json.loads((made / "card.json").read_text())
    validator.validate(card)
    for change in (
        lambda x: x.pop("set"),
        lambda x: x.update(kind="card"),
        lambda x: x["set"].update(pairs=-1),
        lambda x: x["stages"][0].update(name="../entries"),
        lambda x: x["stages"][0].update(job="train"),
        lambda x: x["stages"][1]["inputs"][0].update(sha256="f" * 63),
        lambda x: x["thresholds"]["languages"]["en"].update(t=0),
    ):
        wrong = json.loads(json.dumps(card))
        change(wrong)
        assert not validator.is_valid(wrong)


def test_a_checksum_that_was_not_taken_and_cannot_be_taken_is_empty(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(made / "in", tmp_path / "in")
    # What follows the match is that of the same pairs, and knows nothing of where they came from.
    shutil.copytree(made / "W", tmp_path / "W")
    shutil.rmtree(tmp_path / "W/matched")
    match(tmp_path / "W", "matched", tmp_path / "in/one")
    (tmp_path / "in/one/0.parquet").unlink()
    os.utime(tmp_path / "in/one/1.parquet", (1, 1))
    capsys.readouterr()
    card = make_card(tmp_path / "W", tmp_path / "card.json")
    assert [x["sha256"] for x in card["stages"][1]["inputs"]] == ["", ""]
    assert capsys.readouterr().err == (
        f"card: no checksum is known of 2 inputs of {tmp_path}/W/matched (the first: 0.parquet): none was taken while they were read, and "
        "they are gone, or it cannot be told that they are the same still. A rebuild compares what is made of them\n"
    )
    # The sizes are known; what was read is told by what was made of it.
    rebuild(tmp_path / "card.json", tmp_path / "W2", str(made / "in"))


def test_a_dump_that_was_read_in_ranges_has_a_checksum_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dumps").mkdir()
    write_dump(tmp_path / "dumps", LANGUAGES[0], 12, np.random.default_rng(1))
    (dump,) = (tmp_path / "dumps").glob("*.xml.bz2")
    monkeypatch.setattr(pipelines.ngrams, "UNIT_BYTES", dump.stat().st_size // 2)
    run_job("ngrams", ["--input", str(dump), "--output", f"{tmp_path}/ngrams"])
    (found,) = inputs_of(open_stage(f"{tmp_path}/ngrams", "ngrams"))
    assert (found.name, found.size, found.sha256, len(found.ranges)) == (dump.name, dump.stat().st_size, "", 3)
    end = 0
    for part in found.ranges:
        assert part.offset == end
        assert part.sha256 == sha256_of(str(dump), offset=part.offset, length=part.length)
        end = part.offset + part.length
    assert end == dump.stat().st_size


# -- what is refused -----------------------------------------------------------------------------------------------------------------


def test_what_is_no_card(made: Path, tmp_path: Path) -> None:
    body = json.loads((made / "card.json").read_text())
    deep = "[" * 100_000
    for text, said in (
        ("{", "{0}: not valid JSON (Input data was truncated)"),
        (deep, "{0}: not valid JSON ("),
        ("[]", "{0} is no card of worldclip: worldclip card --work DIR writes one"),
        ('{"kind": "x"}', "{0} is no card of worldclip: worldclip card --work DIR writes one"),
        (
            json.dumps({**body, "format_version": 3}),
            "{0} was written by a newer worldclip (card format 3, this one reads 2): update worldclip",
        ),
        (
            json.dumps({**body, "set": {**body["set"], "seed": 4}}),
            "{0} is not as it was written: its checksum does not fit what it says. It was edited or damaged; take it as it was "
            "published, or make another one with worldclip card",
        ),
        (json.dumps({k: v for k, v in body.items() if k != "checksum"}), "{0} is not as it was written: "),
        (json.dumps(sealed({**body, "set": 1})), "{0} is no card of worldclip: Expected `object`, got `int` - at `$.set`"),
        (
            json.dumps(sealed({**body, "format_version": "1"})),
            "{0} is no card of worldclip: Expected `int`, got `str` - at `$.format_version`",
        ),
    ):
        (tmp_path / "x.json").write_text(text)
        assert refusal(read_card, f"{tmp_path}/x.json").startswith(said.format(f"{tmp_path}/x.json"))
    assert refusal(read_card, f"{tmp_path}/absent.json") == f"{tmp_path}/absent.json: cannot be read (FileNotFoundError)"


def test_stages_that_do_not_belong_together_make_no_card(made: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (made / "in" / "lists" / "other.json").write_text('["dog", "owl"]')
    run_job("entries", ["--metadata-json", f"en={made}/in/lists/other.json", "--output", f"{other}/entries"])
    match(other, "matched", made / "in" / "two")
    curate(other, ["matched"], t="5")
    curated = f"{made}/W/curated"
    for flag, place, kind in (
        ("counts", "counts", "count"),
        ("siblings", "siblings", "dedup"),
        ("matched", "matched", "match"),
        ("entries", "entries", "entries"),
    ):
        ids = [open_stage(f"{x}/{place}", kind).id for x in (made / "W", other)]
        assert refusal(make_card, made / "W", tmp_path / "c.json", f"--{flag}", f"{other}/{place}") == (
            f"{curated} was made from {flag} {ids[0]}, but {other}/{place} is {ids[1]}: say with --{flag} where the right one lies"
        )
    ids = [json.loads((x / "thresholds.json").read_text())["id"] for x in (made / "W", other)]
    assert refusal(make_card, made / "W", tmp_path / "c.json", "--thresholds", f"{other}/thresholds.json") == (
        f"{curated} was made from thresholds {ids[0]}, but {other}/thresholds.json is {ids[1]}: "
        "say with --thresholds where the right one lies"
    )
    # All of the other set: the card is that of it.
    card = make_card(other, tmp_path / "c.json")
    parts = [
        arg for flag, place in (("curated", "curated"), ("thresholds", "thresholds.json")) for arg in (f"--{flag}", f"{other}/{place}")
    ]
    parts += [arg for flag in ("counts", "siblings", "matched", "entries") for arg in (f"--{flag}", f"{other}/{flag}")]
    assert make_card(tmp_path / "nowhere", tmp_path / "d.json", *parts) == card
    assert refusal(make_card, tmp_path / "nowhere", tmp_path / "d.json") == (
        f"{tmp_path}/nowhere/curated is no stage 'balance': there is no stage.json in it"
    )


def test_a_set_or_thresholds_that_were_changed_make_no_card(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "W", tmp_path / "W")
    thresholds = tmp_path / "W/thresholds.json"
    body = json.loads(thresholds.read_text())
    thresholds.write_text(json.dumps({**body, "p": 0.5}))
    said = "the thresholds are not as they were written (their id is not that of their content): make them again"
    assert refusal(make_card, tmp_path / "W", tmp_path / "c.json") == said
    thresholds.write_text(json.dumps(body))
    manifest = tmp_path / "W/matched/manifest.json"
    content = manifest.read_text()
    manifest.write_text(content.replace('"emitted": 60', '"emitted": 61'))
    assert refusal(make_card, tmp_path / "W", tmp_path / "c.json") == (
        f"{manifest} is not as it was written: worldclip verify {tmp_path}/W/matched says more"
    )
    manifest.write_text(content)
    part = sorted((tmp_path / "W/curated").glob("part-*"))[0]
    table = pq.read_table(part)
    pq.write_table(table, part)
    assert refusal(make_card, tmp_path / "W", tmp_path / "c.json") == (
        f"{part} is not as it was written: worldclip verify {tmp_path}/W/curated says more"
    )
    assert not (tmp_path / "c.json").exists()


# -- made again ----------------------------------------------------------------------------------------------------------------------


def same(a: Path, b: Path) -> None:
    """All but where the inputs lay, and the lists that a rebuild makes of its card."""
    one, other = (
        {name: data for name, data in contents(x).items() if not name.endswith("units.parquet") and not name.startswith("from-card/")}
        for x in (a, b)
    )
    assert one == other


def test_own_pairs_and_a_ready_made_list(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The list is told by its checksum, whatever it is called; the two crawls have files of the same names.
    shutil.copytree(made / "in", tmp_path / "in")
    os.rename(tmp_path / "in/lists/english.json", tmp_path / "in/lists/renamed.json")
    os.rename(tmp_path / "in/one", tmp_path / "in/zzz")
    rebuild(made / "card.json", tmp_path / "W", f"{tmp_path}/in")
    assert "byte for byte" in capsys.readouterr().out.splitlines()[-1]
    same(made / "W", tmp_path / "W")
    before = contents(tmp_path / "W")
    rebuild(made / "card.json", tmp_path / "W", f"{tmp_path}/in")
    assert contents(tmp_path / "W") == before


def test_a_pool_with_filters_and_lists_of_what_is_left_out(made: Path, tmp_path: Path) -> None:
    work = tmp_path / "W"
    make_entries(work, made / "in")
    (tmp_path / "blocked.txt").write_text("host2.org\n")
    match(work, "matched-a", made / "in/one", "--blocked-hosts", f"{tmp_path}/blocked.txt", "--drop", "emails", "--max-characters", "500")
    match(work, "matched-b", made / "in/two", "--min-characters", "3", "--lid-min-score", "0.1")
    ids = [row["image_id"] for table in read_parts(open_stage(f"{work}/matched-b", "match")) for row in table.to_pylist()]
    (tmp_path / "gone.txt").write_text("\n".join(ids[:10]))
    (tmp_path / "hosts.txt").write_text("host1.org\n")
    left_out = ("--drop-ids", f"{tmp_path}/gone.txt", "--drop-hosts", f"{tmp_path}/hosts.txt")
    curate(work, ["matched-a", "matched-b"], count=left_out)
    card = make_card(work, tmp_path / "c.json", "--matched", f"{work}/matched-a", f"{work}/matched-b")
    names = [record["name"] for record in card["stages"]]
    assert names == ["entries", "matched-0", "matched-1", "siblings", "counts", "curated"]
    assert [(x["kind"], x["name"]) for x in card["stages"][4]["inputs"]] == [("left_out", "dropped"), ("left_out", "hosts")]
    # The two lie in places of their own; the lists are those that the counts keep.
    of_stage = {record["name"]: record["parameters"] for record in card["stages"]}
    first, second = ("one", "two") if of_stage["matched-0"].get("filters", {}).get("hosts") else ("two", "one")
    places = [f"matched-0={made}/in/{first}", f"matched-1={made}/in/{second}", f"entries={made}/in/lists"]
    rebuild(tmp_path / "c.json", tmp_path / "again", *places, f"counts={work}/counts/left_out")
    for there, here in (("entries", "entries"), ("siblings", "siblings"), ("counts", "counts"), ("curated", "curated")):
        same(work / there, tmp_path / "again" / here)
    assert refusal(rebuild, tmp_path / "c.json", tmp_path / "no", *places).startswith(
        "--inputs and the folders in it hold no file that is the list 'dropped' of what is left out of counts (SHA-256 "
    )


def test_a_draw_of_json_lines(made: Path, tmp_path: Path) -> None:
    work = tmp_path / "W"
    make_entries(work, made / "in")
    (tmp_path / "in/deep").mkdir(parents=True)
    lines = [json.dumps({"url": f"http://x/{i}.jpg", "text": text}) + "\n" for i, text in FIRST]
    (tmp_path / "in/deep/a.jsonl").write_text("".join(lines[:30]))
    (tmp_path / "in/b.jsonl").write_text("".join(lines[30:]))
    files = [f"{tmp_path}/in/deep/a.jsonl", f"{tmp_path}/in/b.jsonl"]
    # The draw leaves one of the two, whose name still says in which folder it lies.
    assert [unit.path for unit in sampled(units_of_files(storage.expand(tuple(files))), 0.33)] == ["deep/a.jsonl"]
    argv = ["--input", *files, "--format", "jsonl", "--sample-inputs", "33%", "--entries", f"{work}/entries", "--output", f"{work}/matched"]
    with unpacked():
        run_job("match", argv)
    curate(work, ["matched"])
    card = make_card(work, tmp_path / "c.json")
    assert [x["name"] for x in card["stages"][1]["inputs"]] == ["deep/a.jsonl"]
    rebuild(tmp_path / "c.json", tmp_path / "again", f"{tmp_path}/in", f"{made}/in")
    same(work, tmp_path / "again")


def test_a_model_of_ones_own_is_told_by_its_checksum(made: Path, tmp_path: Path) -> None:
    work, model = tmp_path / "W", tmp_path / "models/mine.ftz"
    model.parent.mkdir()
    # Behind its last number a model may hold anything: another file with the same answers.
    model.write_bytes(embedded_model().read_bytes() + b"\0")
    make_entries(work, made / "in")
    match(work, "matched", made / "in/one", "--lid-model", str(model))
    curate(work, ["matched"])
    card = make_card(work, tmp_path / "c.json")
    assert card["stages"][1]["inputs"][-1] == {"kind": "model", "name": "lid", "size": None, "sha256": sha256_of(str(model)), "ranges": []}
    rebuild(tmp_path / "c.json", tmp_path / "again", f"{made}/in", f"matched={model}")
    same(work, tmp_path / "again")
    assert refusal(rebuild, tmp_path / "c.json", tmp_path / "no", f"{made}/in") == (
        f"{made}/in and the folders in it hold no file that is the language identification model of matched (SHA-256 "
        f"{sha256_of(str(model))}): --inputs matched=FILE says where it lies"
    )


# -- entries that are given ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_entries_whose_sources_are_gone_are_taken_as_given(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpora, work = tmp_path / "nltk/corpora", tmp_path / "W"
    corpora.mkdir(parents=True)
    write_wordnets(corpora)
    (tmp_path / "mine.txt").write_text("dog\ncat\ncow\n")
    run_job("wordnet", ["--input", f"{tmp_path}/nltk", "--output", f"{work}/wordnet"])
    extra = ["--extra-entries", f"en={tmp_path}/mine.txt"]
    run_job(
        "entries", ["--wordnet", f"{work}/wordnet", "--languages", "en,fr", *extra, "--recipe", "metaclip1", "--output", f"{work}/entries"]
    )
    match(work, "matched", made / "in/one")
    curate(work, ["matched"])
    whole = make_card(work, tmp_path / "whole.json")
    assert [(x["kind"], x["name"]) for x in whole["stages"][0]["inputs"]] == [("corpus", "omw-1.4"), ("corpus", "wordnet")]
    assert [(x["kind"], x["name"]) for x in whole["stages"][1]["inputs"]] == [("extra", "en")]
    assert all(x["sha256"] for x in whole["stages"][0]["inputs"])
    rebuild(tmp_path / "whole.json", tmp_path / "again", str(tmp_path), f"matched={made}/in")
    same(work, tmp_path / "again")
    shutil.copytree(tmp_path / "nltk", tmp_path / "changed/nltk")
    with zipfile.ZipFile(tmp_path / "changed/nltk/corpora/omw-1.4.zip", "a") as corpus:
        corpus.writestr("omw-1.4/LICENSE", b"another")
    assert refusal(
        rebuild, tmp_path / "whole.json", tmp_path / "no", str(tmp_path), f"wordnet={tmp_path}/changed", f"matched={made}/in"
    ) == (f"1 input is not what the set was made from\n  wordnet: the corpus omw-1.4 in {tmp_path}/changed/nltk is another one than it was")
    shutil.rmtree(tmp_path / "changed")

    shutil.rmtree(work / "wordnet")
    capsys.readouterr()
    card = make_card(work, tmp_path / "c.json")
    assert capsys.readouterr().err == (
        f"card: {work}/wordnet, from which the entries were made, is not there: "
        "the card takes the entries as given, and a rebuild needs them\n"
    )
    assert [(x["name"], x["given"], x["inputs"]) for x in card["stages"]][:1] == [("entries", True, [])]
    said = refusal(rebuild, tmp_path / "c.json", tmp_path / "no", f"{made}/in")
    assert said == (
        f"the card takes the entries as they are (id {card['stages'][0]['id']}), and they are nowhere in {made}/in: "
        "--inputs entries=DIR says where their stage lies"
    )
    rebuild(tmp_path / "c.json", tmp_path / "given", f"{made}/in", f"entries={work}/entries")
    same(work / "curated", tmp_path / "given/curated")
    assert not (tmp_path / "given/entries").exists()
    # They may be given also where the card could do without, and then nobody asks by which rules their sources were made.
    old = write_card(tmp_path / "old.json", whole, lambda x: x["stages"][0]["parameters"]["versions"].update(wordnet=1))
    assert refusal(rebuild, old, tmp_path / "no", str(tmp_path / "nltk"), f"{made}/in", str(tmp_path)).startswith(
        "the wordnet of the card were"
    )
    rebuild(old, tmp_path / "given-too", f"{made}/in", f"entries={work}")
    assert sorted(path.name for path in (tmp_path / "given-too").iterdir()) == [
        "counts",
        "curated",
        "matched",
        "siblings",
        "thresholds.json",
    ]
    (work / "entries/automata/en").unlink()
    said = refusal(rebuild, tmp_path / "c.json", tmp_path / "no", f"{made}/in", f"entries={work}/entries")
    assert said == f"1 input is not what the set was made from\n  {work}/entries: automata/en is gone"


# -- cards that do not fit -----------------------------------------------------------------------------------------------------------


def test_other_rules_settings_and_models_are_told_before_anything_is_made(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    body = json.loads((made / "card.json").read_text())

    def said(change: Callable[[dict[str, Any]], Any]) -> str:
        return refusal(rebuild, write_card(tmp_path / "c.json", body, change), tmp_path / "W", f"{made}/in")

    version = body["libraries"]["worldclip"]
    made_with = f"The card was made with worldclip {version}, this is {version}"
    assert said(lambda x: x["stages"][1]["parameters"].update(blur=3)) == (
        f"this worldclip does not know the setting blur of the card's matched. {made_with}"
    )
    assert said(lambda x: x["stages"][0]["parameters"]["versions"].update(text=0)) == (
        f"the entries of the card were made by version 0 of the rules 'text', this worldclip has 1: the bytes would differ. {made_with}"
    )
    assert said(lambda x: x["stages"][1]["parameters"].update(pairs_version=7)).startswith(
        "the matched of the card were made by version 7 of"
    )
    assert said(lambda x: x["stages"][2].update(format_version=9)).startswith(
        "the siblings of the card were made by version 9 of the rules 'stage'"
    )
    assert said(lambda x: x["stages"][1]["parameters"].update(lid_method="guess")).startswith(
        "the texts of matched were identified by the model "
    )
    assert said(lambda x: x["stages"][1]["inputs"][0].update(name="../one/0.parquet")) == (
        "the card names an input '../one/0.parquet', which is no name below a directory: it was not written by worldclip"
    )
    assert said(lambda x: x["stages"][1]["inputs"][0].update(name="a::http://x")).startswith(
        "the card names an input 'a::http://x', which is"
    )
    assert said(lambda x: x["stages"][1]["parameters"].pop("lid_min_score")) == (
        f"{tmp_path}/c.json: matched: its settings are not those of a stage (KeyError: 'lid_min_score')"
    )
    assert said(lambda x: x["stages"][1]["parameters"]["read"].update(blur=1)).startswith(
        f"{tmp_path}/c.json: matched: this worldclip takes the setting read for "
    )
    assert said(lambda x: x["stages"][4]["parameters"].update(seed="x")) == (
        f"{tmp_path}/c.json: curated: argument --seed: invalid int value: 'x'"
    )
    other = {"recipe": {**asdict(recipe("metaclip2")), "numbers": 7}, "lists": None}
    assert said(lambda x: (x["stages"][0]["parameters"].update(other), x["stages"][0]["parameters"].pop("lists"))) == (
        f"the recipe metaclip2 of the card is another one than that of this worldclip, {version}"
    )
    assert not [name for name in contents(tmp_path) if name.endswith(".parquet")]
    capsys.readouterr()
    shutil.copytree(made / "W", tmp_path / "W")  # stages that are there are compared as new ones are, and not made again
    card = write_card(tmp_path / "c.json", body, lambda x: x["libraries"].update(pyarrow="1.0", unheard="2"))
    rebuild(card, tmp_path / "W", f"{made}/in")
    here = body["libraries"]["pyarrow"]
    assert f"run: the card was made with other versions, so bytes may differ: pyarrow 1.0, here {here}\n" in capsys.readouterr().err


def test_another_set_than_that_of_the_card_is_told(made: Path, tmp_path: Path) -> None:
    body = json.loads((made / "card.json").read_text())
    card = write_card(tmp_path / "c.json", body, lambda x: x["stages"][1]["parts"].update(dict.fromkeys(x["stages"][1]["parts"], "0" * 64)))
    rebuild(card, tmp_path / "W", f"{made}/in")  # the id says it all: the parts only say where it differs
    card = write_card(
        tmp_path / "c.json",
        body,
        lambda x: (x["stages"][4].update(id="0" * 32), x["set"].update(fingerprint="0" * 64), x["languages"]["en"].update(kept=7)),
    )
    said = refusal(rebuild, card, tmp_path / "W", f"{made}/in")
    assert said.startswith("curated is not what the card says: ")
    kept = body["set"]["pairs"]
    assert said == (
        f"curated is not what the card says: its id is {body['stages'][4]['id']}, in the card {'0' * 32}; pairs by language: en {kept} "
        f"instead of 7. It was there before: delete {tmp_path}/W/curated, or choose another --work. "
        "With --keep-going the rest is made all the same and compared by its fingerprint"
    )


def test_places_and_options_that_are_wrong(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = made / "card.json"
    assert refusal(rebuild, card, tmp_path / "W", f"{made}/in", f"match={made}/in") == (
        f"--inputs match={made}/in: the card has no stage match; did you mean matched? (it has entries, matched, siblings, counts, curated)"
    )
    assert refusal(rebuild, card, tmp_path / "W", f"{made}/in", f"matched={made}/in/lists") == (
        f"neither {made}/in/lists nor a folder in it has the 2 inputs of matched (0.parquet; 1.parquet): "
        "--inputs matched=DIR says where they lie"
    )
    (tmp_path / "half").mkdir()
    shutil.copy(made / "in/one/0.parquet", tmp_path / "half")
    assert refusal(rebuild, card, tmp_path / "W", f"{made}/in", f"matched={tmp_path}/half") == (
        f"{tmp_path}/half lacks 1 of the 2 inputs of matched (1.parquet): --inputs matched=DIR says where they lie"
    )
    pq.write_table(pa.table({"url": ["http://x/"], "text": ["a dog"], "rank": [1]}), tmp_path / "half/1.parquet")
    size, had = (tmp_path / "half/1.parquet").stat().st_size, (made / "in/one/1.parquet").stat().st_size
    assert refusal(rebuild, card, tmp_path / "W", f"{made}/in", f"matched={tmp_path}/half", more=("--trust-inputs",)) == (
        f"1 input is not what the set was made from\n  matched: {tmp_path}/half/1.parquet has {size:,} bytes, it had {had:,}"
    )
    for argv, wrong in (
        ([], "give --config, or --from-card with --inputs and --work"),
        (["--config", "a", "--from-card", "b"], "give --config, or --from-card with --inputs and --work"),
        (["--from-card", "b", "--work", "W"], "--inputs and --work belong to --from-card, which needs both"),
        (["--config", "a", "--work", "W"], "--inputs and --work belong to --from-card, which needs both"),
    ):
        with pytest.raises(SystemExit):
            run_job("run", argv)
        assert capsys.readouterr().err.splitlines()[-1] == f"worldclip run: error: {wrong}"
