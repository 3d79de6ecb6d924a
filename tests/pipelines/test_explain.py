"""explain and status: what they print, whole."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import JobError
from pipelines.jobs import run_job
from pipelines.stage import Limits, Stage
from tests.pipelines.conftest import unpacked

DOGS = [f"a photo of a dog in the green garden, number {i}" for i in range(40)]
OWLS = [f"a photo of an owl in the old tree, number {i}" for i in range(4)]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A chain up to the curated set, on pairs of one's own."""
    w = str(tmp_path_factory.mktemp("W"))
    Path(w, "list.json").write_text('["dog", "owl", "photo", "fox, red"]')
    texts = DOGS + OWLS
    pq.write_table(pa.table({"url": [f"http://x/{i}.jpg" for i in range(len(texts))], "text": texts}), f"{w}/own.parquet")
    run_job("entries", ["--metadata-json", f"en={w}/list.json", "--output", f"{w}/entries"])
    run_job("match", ["--input", f"{w}/own.parquet", "--format", "parquet", "--entries", f"{w}/entries", "--output", f"{w}/matched"])
    run_job("dedup", ["--matched", f"{w}/matched", "--output", f"{w}/siblings"])
    both = ["--matched", f"{w}/matched", "--siblings", f"{w}/siblings"]
    run_job("count", [*both, "--entries", f"{w}/entries", "--output", f"{w}/counts"])
    run_job("thresholds", ["--counts", f"{w}/counts", "--t", "10", "--output", f"{w}/thresholds.json"])
    run_job("balance", [*both, "--thresholds", f"{w}/thresholds.json", "--seed", "7", "--output", f"{w}/curated"])
    return w


def explained(capsys: pytest.CaptureFixture[str], *argv: str) -> list[str]:
    capsys.readouterr()
    run_job("explain", list(argv))
    return [re.sub(r"a score of \d\.\d\d", "a score of S", line) for line in capsys.readouterr().out.splitlines()]


def test_a_text_that_matches(work: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = explained(capsys, "A photo of an owl,\nand of a dog", "--work", work)
    assert lines == [
        "text      A photo of an owl, and of a dog",
        "language  en (English): the label en with a score of S",
        "as read   “ A photo of an owl ,  and of a dog ”",
        "entries   id  count  probability  source  entry",
        "           1      4            1  extra   owl",
        "           0     40         0.25  extra   dog",
        "           2     44       0.2273  extra   photo",
        "          t = 10: an entry that more pairs match has the probability t / count",
        "result    kept with probability 1, if it is the one that is chosen of its image's texts",
    ]


def test_the_draw_of_a_pair_is_that_of_the_curated_set(work: str, capsys: pytest.CaptureFixture[str]) -> None:
    kept = set(pq.read_table(next(Path(work, "curated").glob("part-*")))["text"].to_pylist())
    assert 0 < len(kept & set(DOGS)) < len(DOGS)
    for i, text in enumerate(DOGS):
        *_, probability, draw = explained(capsys, text, "--work", work, "--url", f"http://x/{i}.jpg")
        assert probability == "result    kept with probability 0.4205, if it is the one that is chosen of its image's texts"
        assert draw.endswith(" kept" if text in kept else " left out")
        assert "and seed 7 the draw is" in draw


@pytest.mark.parametrize(
    ("argv", "last"),
    [
        (["nothing of it is here, and it is English"], "result    dropped: no entry of en is in it"),
        ([" \t "], "result    dropped: empty_text"),
        (["ein Hund", "--language", "de"], "result    dropped: language_not_built; there are entries of en"),
        (["a dog", "--language", "en"], "result    kept with probability 0.25, if it is the one that is chosen of its image's texts"),
    ],
)
def test_what_else_may_become_of_a_text(work: str, capsys: pytest.CaptureFixture[str], argv: list[str], last: str) -> None:
    assert explained(capsys, *argv, "--work", work)[-1] == last


def test_without_counts(work: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_job("entries", ["--metadata-json", f"en={work}/list.json", "--output", f"{tmp_path}/entries"])
    lines = explained(capsys, "a dog", "--work", str(tmp_path), "--language", "en")
    assert lines == [
        "text      a dog",
        "language  en (English), as asked for",
        "as read   “ a dog ”",
        "entries   id  source  entry",
        "           0  extra   dog",
        "result    it matches; there are no counts, which a probability needs",
    ]


def test_what_cannot_be_explained(work: str, tmp_path: Path) -> None:
    for argv, said in (
        (["a", "--work", str(tmp_path)], "is no stage 'entries'"),
        (["a", "--work", work, "--language", "xx"], "unknown"),
        (["a", "--work", work, "--lid-model", f"{tmp_path}/none"], "no such file"),
    ):
        with pytest.raises(JobError, match=said):
            run_job("explain", argv)


def status(capsys: pytest.CaptureFixture[str], directory: str) -> list[str]:
    capsys.readouterr()
    run_job("status", [directory])
    return capsys.readouterr().out.splitlines()


def test_status_of_a_chain(work: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = status(capsys, work)
    assert [line for line in lines if not line.startswith(" ")] == [
        f"{work}/{name}: {kind}, finished"
        for name, kind in (("entries", "entries"), ("matched", "match"), ("siblings", "dedup"), ("counts", "count"), ("curated", "balance"))
    ]
    assert lines[3:6] == [f"{work}/matched: match, finished", "  units: 1", "  read 44, emitted 44"]
    assert status(capsys, f"{work}/matched") == lines[3:6]


def test_status_of_a_stage_that_is_not_finished(work: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(4):
        pq.write_table(pa.table({"url": [f"http://x/{i}.jpg"] * 3, "text": [DOGS[i], "", OWLS[i]]}), tmp_path / f"{i}.parquet")
    out = f"{tmp_path}/matched"
    with unpacked():
        run_job("match", ["--input", f"{tmp_path}/*.parquet", "--format", "parquet", "--entries", f"{work}/entries", "--output", out])
    stage = Stage.begun(out, Limits())
    Path(out, "_SUCCESS").unlink()
    assert [re.sub(r"\d+ seconds|[\d,]+ units an hour", "N", line) for line in status(capsys, out)] == [
        f"{out}: match, all units done, not finished",
        "  units: 4 of 4 done (100%), 0 left",
        "  read 12, emitted 8",
        "  dropped: empty_text 4",
        "  last part N ago; N",
        f"  its job ended before its last step: run it again, or worldclip finish {out}",
    ]
    parts = [stage.part_url(unit) for unit in stage.units()]
    Path(parts[0]).unlink()
    Path(parts[1]).write_bytes(Path(parts[1]).read_bytes()[:-9])
    assert status(capsys, out)[:4] == [
        f"{out}: match, not finished",
        "  units: 2 of 4 done (50%), 2 left",
        "  read 6, emitted 4",
        "  dropped: empty_text 2",
    ]


def test_status_tells_what_will_be_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "views").write_bytes(b"en A 1 0\n" + b"broken\n" * 5)
    with pytest.raises(JobError):
        run_job("titles", ["--input", f"{tmp_path}/views", "--output", f"{tmp_path}/titles"])
    lines = status(capsys, f"{tmp_path}/titles")
    assert lines[0] == f"{tmp_path}/titles/blocks: title_blocks, all units done, not finished"
    assert "  dead letters: not_four_fields 5" in lines
    assert any(line.startswith("  will not be finished as it stands: 5 of 6 records could not be used") for line in lines)


def test_status_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"is no stage and holds none: there is no stage\.json in it"):
        run_job("status", [str(tmp_path)])
