"""A set is published as a card, and made again elsewhere from the card and the inputs that it names."""

from __future__ import annotations

import json
import pathlib
import shutil

import pytest

from pipelines import __main__ as command_line
from pipelines.jobs import run_job
from pipelines.stage import open_stage
from tests.world.chain import PLACES, Chain, contents

PUBLISHED = [place for job, place in PLACES.items() if job != "images"]


@pytest.fixture(scope="module")
def card(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    place = tmp_path_factory.mktemp("published") / "datacard.json"
    run_job("card", ["--work", str(chain.work), "--output", str(place)])
    return place


@pytest.fixture
def inputs(chain: Chain, tmp_path: pathlib.Path) -> pathlib.Path:
    """The inputs of the world, elsewhere."""
    for folder in (chain.world.dumps, chain.world.pageviews, chain.world.crawl, chain.world.nltk_data):
        shutil.copytree(folder, tmp_path / "inputs" / folder.name)
    return tmp_path / "inputs"


def change(file: pathlib.Path) -> None:
    """Change a byte in the checksum at the end of a gzip file, so that its size stays."""
    data = bytearray(file.read_bytes())
    data[-6] ^= 1
    file.write_bytes(data)


def test_a_card_and_its_inputs_give_the_set_byte_for_byte(
    chain: Chain, card: pathlib.Path, inputs: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "W"
    run_job("run", ["--from-card", str(card), "--inputs", str(inputs), "--work", str(work)])
    body = json.loads(card.read_text())
    curated = open_stage(f"{work}/curated", "balance")
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"run: {work}/curated is the set of the card, byte for byte: {curated.rows} pairs in 6 languages, {len(curated.parts)} parts; "
        f"fingerprint {body['set']['fingerprint']}"
    )
    assert curated.rows == sum(x["kept"] for x in body["languages"].values()) > 0
    for place in PUBLISHED:
        if place.endswith(".json"):
            assert (work / place).read_bytes() == (chain.work / place).read_bytes()
        else:
            assert contents(work / place) == contents(chain.work / place), place
    run_job("verify", [str(work)])
    run_job("card", ["--work", str(work), "--output", str(tmp_path / "again.json")])
    assert (tmp_path / "again.json").read_bytes() == card.read_bytes()


def test_a_changed_input_is_named_before_anything_is_made(
    card: pathlib.Path, inputs: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = sorted((inputs / "crawl").iterdir())[1]
    change(file)
    argv = ["run", "--from-card", str(card), "--inputs", str(inputs), "--work", str(tmp_path / "W")]
    assert command_line.main(argv) == 1
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "worldclip run: 1 input is not what the set was made from",
        f"  matched: {file} is another file than it was",
    ]
    assert not (tmp_path / "W").exists()


def test_an_input_that_is_trusted_and_changed_is_named_by_the_stage_that_read_it(
    card: pathlib.Path, inputs: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = sorted((inputs / "crawl").iterdir())[1]
    change(file)
    argv = ["run", "--from-card", str(card), "--inputs", str(inputs), "--work", str(tmp_path / "W"), "--trust-inputs"]
    assert command_line.main(argv) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"worldclip run: matched is not what the card says: the input {file.name} is another file; ")
    assert said.endswith(". With --keep-going the rest is made all the same and compared by its fingerprint")
    assert sorted(path.name for path in (tmp_path / "W").iterdir()) == ["entries", "matched", "ngrams", "titles", "wordnet"]
    assert command_line.main([*argv, "--keep-going"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    # The damaged end of the file takes no pair with it: the same pairs, in other bytes.
    fingerprint = json.loads(card.read_text())["set"]["fingerprint"]
    assert said.startswith(
        f"worldclip run: {tmp_path}/W/curated has the pairs of the card (fingerprint {fingerprint}), but not its bytes: "
    )
    assert said.endswith(f"It was there before: delete {tmp_path}/W/matched, or choose another --work")
