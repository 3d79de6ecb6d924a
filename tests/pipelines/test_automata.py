from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from metadata.text import space_texts
from pipelines import storage
from pipelines.automata import Automata
from pipelines.jobs import run_job
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


def test_languages_that_were_not_used_for_longest_go_first(tmp_path: Path) -> None:
    url = str(tmp_path / "entries")
    entries_id = entries_stage(url, {lang: ["a"] for lang in ("de", "en", "fr")})
    size = storage.expand((storage.join(url, "automata/en"),))[0].size
    automata = Automata(url, entries_id, "daachorse", 2 * size)
    held = [automata.open(lang) for lang in ("de", "en", "de", "fr", "de", "en")]
    assert held[0] is held[2] is held[4]
    assert automata.loads == 4


def test_threads_share_one_matcher_a_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = str(tmp_path / "entries")
    automata = Automata(url, entries_stage(url, {"de": ["a"], "en": ["a"]}), "daachorse", 1 << 30)
    read = storage.cached_copy

    def slow(file_url: str, name: str) -> Path:
        time.sleep(0.05)
        return read(file_url, name)

    monkeypatch.setattr(storage, "cached_copy", slow)
    with ThreadPoolExecutor(4) as pool:
        matchers = list(pool.map(automata.open, ["de", "en"] * 4))
    assert automata.loads == 2
    assert len(set(map(id, matchers))) == 2
