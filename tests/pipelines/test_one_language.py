"""docs/one-language.md does what it says."""

from __future__ import annotations

import json
import pathlib
import re
import shlex
import textwrap

import pyarrow as pa
import pytest

from pipelines.jobs import read_command, run_job
from pipelines.part import read_part
from pipelines.run import commands, read_chain
from pipelines.stage import open_stage

GUIDE = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "one-language.md").read_text(encoding="utf-8")


def blocks() -> list[str]:
    """The indented blocks of the guide."""
    return [textwrap.dedent(block) for block in re.findall(r"(?:^    .*\n|^\n(?=    ))+", GUIDE, re.MULTILINE)]


def chain() -> str:
    (found,) = (block for block in blocks() if "work = " in block)
    return found


def guide_commands() -> list[list[str]]:
    lines = [line for block in blocks() for line in block.splitlines() if line.startswith("worldclip ")]
    return [shlex.split(line)[1:] for line in lines]


def test_every_command_and_the_chain_of_the_guide_can_be_read(tmp_path: pathlib.Path) -> None:
    assert [argv[0] for argv in guide_commands()] == ["download", "run", "coverage", "entries", "diff"]
    for job, *argv in guide_commands():
        assert read_command(job, argv)[1] == []
    for text in (chain(), re.sub(r"^# (?=[\[i])", "", chain(), flags=re.MULTILINE)):
        (tmp_path / "ltg.toml").write_text(text, encoding="utf-8")
        made = commands(read_chain(f"{tmp_path}/ltg.toml"))
        for job, argv in made:
            assert read_command(job, argv)[1] == []
    assert [job for job, _ in made] == ["ngrams", "titles", "wordnet", "entries"]


def test_metadata_for_latgalian(
    shared_data: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dumps").mkdir()
    (tmp_path / "dumps" / "ltgwiki-latest-pages-articles.xml.bz2").symlink_to(
        shared_data / "dumps" / "ltgwiki-latest-pages-articles.xml.bz2"
    )
    (tmp_path / "ltg.toml").write_text(chain(), encoding="utf-8")
    job = {argv[0]: argv for argv in guide_commands()}
    run_job(*_split(job["run"]))
    table = read_part("W/entries/lv.parquet")
    entries = table["entry"].to_pylist()
    assert json.loads(pathlib.Path("W/entries/lv.json").read_text(encoding="utf-8")) == entries
    sources = table["source"].cast(pa.string()).to_pylist()
    counted = [sources.count(source) for source in ("number", "wordnet", "unigram", "bigram", "title", "extra")]
    assert counted == [100, 0, counted[2], round(counted[2] * 100_646 / 251_465), 0, 0]
    (shown,) = re.findall(r"^    lv +100 .*", GUIDE, re.MULTILINE)
    # The figures that the guide shows move a little with every rule of text extraction.
    assert [int(x.replace(",", "")) for x in shown.split()[1:7]] == pytest.approx(counted, rel=0.05)

    words = [entry for entry in entries[100:2_000] if entry.isalpha()]
    captions = [" ".join(words[i : i + 4]) for i in range(0, 400, 4)]
    pathlib.Path("captions.txt").write_text("\n".join([*captions, "qxqx qxqx", "qxqx zyzy"]), encoding="utf-8")
    capsys.readouterr()
    run_job(*_split([*job["coverage"], "--json", "c.json"]))
    found = json.loads(pathlib.Path("c.json").read_text())["languages"]["lv"]
    assert (found["captions"], found["matched"], found["words"], found["words_missing"]) == (102, 100, 404, 4)
    assert found["by_matches"]["3-5"] + found["by_matches"]["6+"] == 100
    assert found["missing"] == [{"word": "qxqx", "count": 3}, {"word": "zyzy", "count": 1}]
    assert "language" in capsys.readouterr().out

    pathlib.Path("mine.txt").write_text("qxqx\nzyzy\n\nqxqx\n", encoding="utf-8")
    run_job(*_split(job["entries"]))
    assert open_stage("W/entries-2", "entries").counters["dropped"] == {"blank_entry": 1, "repeated_entry": 1}
    assert read_part("W/entries-2/lv.parquet")["entry"].to_pylist() == [*entries, "qxqx", "zyzy"]
    capsys.readouterr()
    run_job(*_split(job["diff"]))
    assert capsys.readouterr().out.splitlines()[3:] == [
        f"lv          {len(entries):12,}{len(entries) + 2:12,}{len(entries):12,}           0           2  extra +2",
        "lv          came  extra      qxqx",
        "lv          came  extra      zyzy",
    ]


def _split(argv: list[str]) -> tuple[str, list[str]]:
    return argv[0], argv[1:]
