from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from pipelines.errors import JobError
from pipelines.jobs import run_job
from pipelines.part import read_part
from pipelines.stage import FinishedStage, open_stage
from tests.hostile.conftest import account
from tests.world.vocabulary import LANGUAGES
from tests.world.wordnets import lemmas_of, write_wordnets

OMW = [language for language in LANGUAGES if language.wordnet not in ("", "eng")]


@pytest.fixture
def nltk_data(tmp_path: Path) -> Path:
    corpora = tmp_path / "nltk_data" / "corpora"
    corpora.mkdir(parents=True)
    write_wordnets(corpora)
    return tmp_path / "nltk_data"


def wordnet(root: Path, output: Path) -> FinishedStage:
    run_job("wordnet", ["--input", str(root), "--output", str(output)])
    return open_stage(str(output), "wordnet")


def lemmas(stage: FinishedStage) -> dict[str, list[str]]:
    return {p["name"]: read_part(stage.part_url(p["name"]))["lemma"].to_pylist() for p in stage.parts}


def unpack(root: Path) -> None:
    for archive in sorted((root / "corpora").glob("*.zip")):
        with zipfile.ZipFile(archive) as members:
            members.extractall(root / "corpora")
        archive.unlink()


def test_every_table_becomes_a_part_per_wikipedia(nltk_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = wordnet(nltk_data, tmp_path / "out")
    found = lemmas(stage)
    english = next(language for language in LANGUAGES if language.wordnet == "eng")
    assert {name: found[name] for name in found if "-omw-" in name} == {
        f"part-{language.code}-omw-{language.wordnet}.parquet": list(lemmas_of(language)) for language in OMW
    } | {"part-simple-omw-eng.parquet": list(lemmas_of(english))}
    assert found["part-en-lemma_names.parquet"] == list(lemmas_of(english))
    # The first lemma of each synset names it, in lower case and with its spaces.
    assert set(found["part-en-synset_names.parquet"]) < {lemma.lower() for lemma in lemmas_of(english)}
    assert len(found) == 3 + len(OMW)
    counters = stage.counters
    assert counters["emitted"] == sum(map(len, found.values())) == stage.manifest["rows"]
    assert counters["read"] == counters["emitted"] + counters["dropped"]["repeated_lemma"]
    assert (counters["dead_letters"], counters["files"]) == (0, len(found))
    warning = capsys.readouterr().err
    assert warning.startswith("wordnet: no table for ")
    assert warning.endswith(": these languages take no lemmas from it\n")
    assert not {language.wordnet for language in OMW} & set(warning.split(" for ")[1].split(":")[0].split(", "))


def test_unpacked_corpora_give_the_same_bytes(nltk_data: Path, tmp_path: Path) -> None:
    packed = wordnet(nltk_data, tmp_path / "packed")
    unpack(nltk_data)
    unpacked = wordnet(nltk_data, tmp_path / "unpacked")
    assert packed.manifest == unpacked.manifest


@pytest.mark.parametrize("packed", [True, False])
def test_a_changed_table_is_read_again(nltk_data: Path, tmp_path: Path, packed: bool) -> None:
    if not packed:
        unpack(nltk_data)
    before = lemmas(wordnet(nltk_data, tmp_path / "out"))
    code = OMW[0].wordnet
    known = lemmas_of(OMW[0])[0]
    line = f"00000001-n\t{code}:lemma\tzzz new\n00000002-n\t{code}:lemma\t{known}\n"
    if packed:
        with zipfile.ZipFile(nltk_data / "corpora" / "omw-1.4.zip", "a") as archive:
            archive.writestr(f"omw-1.4/more/wn-data-{code}.tab", line)
    else:
        (table,) = (nltk_data / "corpora" / "omw-1.4").glob(f"*/wn-data-{code}.tab")
        table.write_text(table.read_text(encoding="utf-8") + line, encoding="utf-8")
    name = f"part-{OMW[0].code}-omw-{code}.parquet"
    stage = wordnet(nltk_data, tmp_path / "out")
    assert stage.counters["read"] == stage.counters["emitted"] + stage.counters["dropped"]["repeated_lemma"]
    assert stage.counters["emitted"] == stage.manifest["rows"]
    assert lemmas(stage) == before | {name: sorted([*before[name], "zzz new"])}


def _add_table(root: Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(root / "corpora" / "omw-1.4.zip", "a") as archive:
        archive.writestr(name, content)


def test_a_table_of_a_code_that_is_not_in_the_language_table_is_not_read(nltk_data: Path, tmp_path: Path) -> None:
    before = wordnet(nltk_data, tmp_path / "before")
    line = b"00000001-n\tlemma\tstrange\n"
    for name in ("zzz/wn-data-zzz.tab", "../wn-data-../../en.tab", "EN/wn-data-ENG.tab", "eng/wn-data-eng.tab", "ita/wn-wikt-ita.tab"):
        _add_table(nltk_data, f"omw-1.4/{name}", line)
    after = wordnet(nltk_data, tmp_path / "after")
    assert lemmas(after) == lemmas(before)
    assert after.counters == before.counters


def test_tables_of_a_language_are_one_list_each_and_bad_lines_are_kept(nltk_data: Path, tmp_path: Path) -> None:
    lines = [
        b"# Chinese\tcmn\thttps://example.org\tlicence",
        b"99999999-n\tcmn:lemma\t\xe7\x8c\xab",
        b"no offset\tcmn:lemma\t\xe7\x8c\xab",
        b"\tlemma\t\xe7\x8a\xac",
        b"00000001-n\tcmn:lemma",
        b"00000001-n\tcmn:lemma\t\xff",
        b"00000001-n\tcmn:def\t0\tanimal",
    ]
    _add_table(nltk_data, "omw-1.4/cow/wn-data-cmn.tab", b"\n".join(lines))
    _add_table(nltk_data, "omw-1.4/cwn/wn-data-qcn.tab", b"00000001-n\tqcn:lemma\t\xe8\xb2\x93\n")
    before = wordnet(nltk_data, tmp_path / "out")
    found = {name: words for name, words in lemmas(before).items() if name.startswith("part-zh")}
    assert found == {"part-zh-omw-cmn.parquet": ["犬", "猫"], "part-zh-omw-qcn.parquet": ["貓"]}
    counters, letters = account(str(tmp_path / "out"), "wordnet")
    assert (counters["dead_letters"], counters["dead_letter_reasons"]) == (2, {"invalid_utf8": 1, "too_few_fields": 1})
    assert counters["dropped"]["not_a_lemma"] == 1
    assert letters == [("zh", 5, "too_few_fields", lines[4] + b"\n"), ("zh", 6, "invalid_utf8", lines[5] + b"\n")]


#: Tables that are large; the tests of metadata.wordnet compare them, and WordNet itself, with what nltk reads of them, to the last line.
_COMPARED = ("arb", "cmn", "fra", "hrv", "nld", "slk")


def _shortened(corpora: Path, root: Path) -> Path:
    """The published archives, of which the large files that are compared elsewhere are cut to 10,000 lines."""
    (root / "corpora").mkdir(parents=True)
    for archive in sorted(corpora.glob("*.zip")):
        with zipfile.ZipFile(archive) as members, zipfile.ZipFile(root / "corpora" / archive.name, "w") as out:
            for name in (name for name in members.namelist() if "/data." in name or name.endswith(".tab")):
                content = members.read(name)
                if "/data." in name or name.removesuffix(".tab").rpartition("-")[2] in _COMPARED:
                    content = b"".join(content.splitlines(keepends=True)[:10_000])
                out.writestr(name, content)
    return root


@pytest.mark.slow
def test_the_published_tables_of_which_some_are_absent(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Some synsets of cmn and hrv do not exist; five languages have no table, and English has no table but WordNet itself."""
    stage = wordnet(_shortened(shared_data / "nltk_data" / "corpora", tmp_path / "nltk_data"), tmp_path / "out")
    assert "wordnet: no table for fin, ind, jpn, ron, tha: these languages take no lemmas from it\n" in capsys.readouterr().err
    assert stage.counters == {
        "read": 1_026_997,
        "emitted": 596_504,
        "dropped": {"empty_lemma": 1_346, "not_a_lemma": 81_646, "notation": 25, "repeated_lemma": 347_476},
        "dead_letters": 0,
        "dead_letter_reasons": {},
        "files": 30,
        "bad_files": 0,
    }
    rows = {p["name"].removeprefix("part-").removesuffix(".parquet"): p["rows"] for p in stage.parts}
    assert (rows["en-synset_names"], rows["en-lemma_names"], rows["simple-omw-eng"]) == (24_863, 40_344, 40_344)
    assert (rows["zh-omw-cmn"], rows["zh-omw-qcn"], rows["hr-omw-hrv"], rows["sq-omw-als"]) == (7_641, 3_206, 6_434, 5_987)
    assert "als-omw-als" not in rows


@pytest.mark.parametrize("name", ["wordnet", "omw-1.4"])
def test_a_missing_corpus_is_told_with_the_command_that_fetches_it(nltk_data: Path, tmp_path: Path, name: str) -> None:
    (nltk_data / "corpora" / f"{name}.zip").unlink()
    with pytest.raises(JobError) as error:
        wordnet(nltk_data, tmp_path / "out")
    assert str(error.value) == (
        f"{nltk_data}: neither corpora/{name}.zip nor corpora/{name}/ is there; fetch it with: python -m nltk.downloader {name}"
    )
    assert not (tmp_path / "out").exists()


def test_an_archive_that_is_none_is_told(nltk_data: Path, tmp_path: Path) -> None:
    (nltk_data / "corpora" / "omw-1.4.zip").write_bytes(b"<html>404</html>")
    with pytest.raises(JobError, match=r"omw-1\.4: no zip archive"):
        wordnet(nltk_data, tmp_path / "out")
    write_wordnets(nltk_data / "corpora")
    with zipfile.ZipFile(nltk_data / "corpora" / "wordnet.zip", "w") as archive:
        archive.writestr("wordnet/data.noun", "")
    with pytest.raises(JobError) as error:
        wordnet(nltk_data, tmp_path / "out")
    assert str(error.value) == (f"{nltk_data}: no WordNet: the archive lacks wordnet/data.adj, wordnet/data.adv, wordnet/data.verb")
