from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from balancing.automaton import ENGINES, Matcher, PyahocorasickMatcher, open_automaton
from metadata.text import rule_set, space_texts
from pipelines import storage
from pipelines.automata import Automata, automaton_url, budget_line
from pipelines.cache import local_copy
from pipelines.errors import JobError
from pipelines.jobs import run_job
from pipelines.part import read_parts
from pipelines.stage import open_stage


def entries_stage(url: str, entries: dict[str, list[str]], *, rules: str = "default") -> str:
    """A finished entries stage of ready-made lists; its id."""
    lists = []
    for lang, entries_of in entries.items():
        storage.write_bytes(f"{url}-{lang}.json", json.dumps(entries_of).encode())
        lists.append(f"{lang}={url}-{lang}.json")
    run_job("entries", ["--metadata-json", *lists, "--rules", rules, "--output", url])
    return open_stage(url, "entries").id


def test_the_same_entries_under_another_rule_set_have_another_automaton(
    place: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLDCLIP_CACHE", str(tmp_path_factory.mktemp("cache")))
    found = {}
    for rules in ("published", "published-v1"):
        url = storage.join(place, rules)
        matcher = Automata(url, entries_stage(url, {"en": ["東", "a"]}, rules=rules), "daachorse", 1 << 30).open("en")
        assert matcher.rules.name == rules
        found[rules] = matcher.find(space_texts(["東京 a"], matcher.rules))[0].tolist()
    assert found == {"published": [0, 1], "published-v1": [1]}


@pytest.mark.parametrize("engine", ["daachorse", "pyahocorasick"])
def test_languages_that_were_not_used_for_longest_go_first(tmp_path: Path, engine: str) -> None:
    url = str(tmp_path / "entries")
    entries_id = entries_stage(url, {lang: ["a"] for lang in ("de", "en", "fr")})
    size = automaton_size(url, "en")
    if engine == "pyahocorasick":
        size = PyahocorasickMatcher(["a"], rule_set("default")).size
    automata = Automata(url, entries_id, engine, 2 * size)
    held = [automata.open(lang) for lang in ("de", "en", "de", "fr", "de", "en")]
    assert held[0] is held[2] is held[4]
    assert (automata.loads, automata.evictions) == (4, 2)
    assert (automata.held_bytes, automata.loaded_bytes) == (2 * size, 4 * size)


def automaton_size(url: str, lang: str) -> int:
    return storage.expand((storage.join(url, "automata", lang),))[0].size


def test_an_automaton_larger_than_the_budget_is_held_alone(tmp_path: Path) -> None:
    url = str(tmp_path / "entries")
    automata = Automata(url, entries_stage(url, {"de": ["a"], "en": ["b"]}), "daachorse", 1)
    found = [automata.open(lang).find([" a b "])[0].tolist() for lang in ("de", "en", "en", "de")]
    assert found == [[0]] * 4
    assert (automata.loads, automata.evictions) == (3, 2)
    assert automata.held_bytes == automaton_size(url, "de")


def test_room_is_made_before_the_next_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = str(tmp_path / "entries")
    automata = Automata(url, entries_stage(url, {"de": ["a"], "en": ["b"]}), "daachorse", automaton_size_of_one(tmp_path))
    held = []

    def spy(file: BinaryIO, *, entries_checksum: str) -> Matcher:
        held.append(automata.held_bytes)
        return open_automaton(file, entries_checksum=entries_checksum)

    monkeypatch.setattr("pipelines.automata.open_automaton", spy)
    automata.open("de")
    automata.open("en")
    assert held == [0, 0]


def automaton_size_of_one(tmp_path: Path) -> int:
    url = str(tmp_path / "one")
    entries_stage(url, {"de": ["a"]})
    return automaton_size(url, "de")


def test_languages_whose_automata_are_held_come_first(tmp_path: Path) -> None:
    url = str(tmp_path / "entries")
    languages = ["cs", "de", "en", "fr", "it", "ja"]
    entries_id = entries_stage(url, {lang: ["a"] for lang in languages})
    automata = Automata(url, entries_id, "daachorse", 4 * automaton_size(url, "en"))
    assert automata.held_first(["fr", "de", "cs"]) == ["cs", "de", "fr"]
    loads = []
    for _ in range(4):
        before = automata.loads
        for lang in automata.held_first(languages):
            automata.open(lang)
        loads.append(automata.loads - before)
    # In the same order every time all six would be loaded each time.
    assert loads == [6, 2, 2, 2]
    assert automata.held_first(languages)[:4] == sorted(automata.held_first(languages)[:4])


def test_a_damaged_copy_in_the_cache_is_fetched_again(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("WORLDCLIP_CACHE", str(cache))
    entries_id = entries_stage(place + "/entries", {"en": ["a", "b"]})
    url, is_local = place + "/entries", storage.is_local(place)

    def found() -> list[int]:
        return Automata(url, entries_id, "daachorse", 1 << 30).open("en").find([" b "])[0].tolist()  # type: ignore[no-any-return]

    assert found() == [1]
    copies = [path for path in cache.glob("*") if not path.name.startswith(".")]
    assert [path.name for path in copies] == ([] if is_local else [f"en-{entries_id}.automaton"])
    whole = storage.read_bytes(automaton_url(url, "en"))
    for damaged in (b"", whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), b"x" * len(whole)):
        if is_local:
            storage.write_bytes(automaton_url(url, "en"), damaged)
            with pytest.raises(JobError, match=f"^{automaton_url(url, 'en')}: .*(damaged|not an automaton file)"):
                found()
        else:
            copies[0].write_bytes(damaged)
            assert found() == [1]
            assert copies[0].read_bytes() == whole
    if not is_local:
        # The stage's own file is damaged, and so is what is fetched.
        storage.write_bytes(automaton_url(url, "en"), whole[:-1])
        copies[0].unlink()
        with pytest.raises(JobError, match=f"^{automaton_url(url, 'en')}: the automaton is damaged"):
            found()


def test_an_absent_automaton_is_told(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLDCLIP_CACHE", str(tmp_path / "cache"))
    entries_id = entries_stage(place + "/entries", {"en": ["a"]})
    storage.remove(automaton_url(place + "/entries", "en"))
    with pytest.raises(JobError, match=r"entries/automata/en: cannot be read"):
        Automata(place + "/entries", entries_id, "daachorse", 1 << 30).open("en")


def test_engines_find_the_same(tmp_path: Path) -> None:
    url = str(tmp_path / "entries")
    entries_id = entries_stage(url, {"ja": ["東", "東京", "a", "a b", "カ"]}, rules="unicode")
    texts = space_texts(["東京 a b", "", "カ。東", "ab"], rule_set("unicode"))
    found = [Automata(url, entries_id, engine, 1 << 30).open("ja").find(texts) for engine in ENGINES]
    assert [[x.tolist() for x in both] for both in found] == [[[0, 1, 2, 3, 0, 4], [0, 4, 4, 6, 6]]] * 2


def test_the_budget_is_told() -> None:
    assert budget_line(2 << 30, 1) == "automata may take 2 GB of memory in each process"
    assert budget_line(3 << 29, 16) == "automata may take 1.5 GB of memory in each process, 24 GB in 16"


def test_the_job_says_what_automata_may_take(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    entries_stage(f"{tmp_path}/entries", {"en": ["a", "photo"]})
    pq.write_table(
        pa.table({"url": ["http://a.example/1.jpg"], "text": ["a photo of a red car in the street"]}), tmp_path / "pairs.parquet"
    )
    argv = ["--input", f"{tmp_path}/pairs.parquet", "--format", "parquet", "--entries", f"{tmp_path}/entries"]
    run_job("match", [*argv, "--automata-memory", "1.5GiB", "--output", f"{tmp_path}/matched"])
    assert "match: automata may take 1.5 GB of memory in each process\n" in capfd.readouterr().err
    assert pa.concat_tables(read_parts(open_stage(f"{tmp_path}/matched", "match")))["entries"].to_pylist() == [[0, 1]]


def test_threads_share_one_matcher_a_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = str(tmp_path / "entries")
    automata = Automata(url, entries_stage(url, {"de": ["a"], "en": ["a"]}), "daachorse", 1 << 30)

    def slow(file_url: str, name: str) -> Path:
        time.sleep(0.05)
        return local_copy(file_url, name)

    monkeypatch.setattr("pipelines.automata.local_copy", slow)
    with ThreadPoolExecutor(4) as pool:
        matchers = list(pool.map(automata.open, ["de", "en"] * 4))
    assert automata.loads == 2
    assert len(set(map(id, matchers))) == 2
