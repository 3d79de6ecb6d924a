"""Several matched stages as one pool, and de-duplication in several passes: the same set as from one stage in one pass."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines.dedup
from pipelines.errors import JobError
from pipelines.jobs import run_job
from pipelines.part import read_parts
from pipelines.stage import open_stage
from tests.pipelines.conftest import contents

ANIMALS = ("dog", "cat", "cow", "owl", "fox")
#: Images by number; texts that overlap between the two crawls, some images with several.
FIRST = [(i, f"a photo of a {ANIMALS[i % 5]} in the green garden, number {i % 40}") for i in range(120)]
SECOND = [(i, f"a photo of a {ANIMALS[(i * 2) % 5]} in the green garden, number {i % 40}") for i in range(60, 200)]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Entries, and the two crawls matched apart (a, b) and together (both)."""
    root = tmp_path_factory.mktemp("pool")
    (root / "list.json").write_text('["dog", "cat", "cow", "owl", "fox", "photo"]')
    run_job("entries", ["--metadata-json", f"en={root}/list.json", "--output", f"{root}/entries"])
    for name, rows in (("a", FIRST), ("b", SECOND)):
        table = pa.table({"url": [f"http://x/{i}.jpg" for i, _ in rows], "text": [text for _, text in rows]})
        (root / name).mkdir()
        pq.write_table(table, root / name / "pairs.parquet", row_group_size=50)
        match(root, f"matched-{name}", f"{root}/{name}/pairs.parquet")
    match(root, "matched-both", f"{root}/a/pairs.parquet", f"{root}/b/pairs.parquet")
    return root


def match(root: Path, name: str, *inputs: str) -> None:
    run_job("match", ["--input", *inputs, "--format", "parquet", "--entries", f"{root}/entries", "--output", f"{root}/{name}"])


def curate(work: Path, out: Path, *matched: str, dedup: tuple[str, ...] = ()) -> None:
    """From matched to curated, in a directory of its own."""
    pool = ["--matched", *(f"{work}/{name}" for name in matched)]
    run_job("dedup", [*pool, "--output", f"{out}/siblings", *dedup])
    both = [*pool, "--siblings", f"{out}/siblings"]
    run_job("count", [*both, "--entries", f"{work}/entries", "--output", f"{out}/counts"])
    run_job("thresholds", ["--counts", f"{out}/counts", "--t", "20", "--output", f"{out}/thresholds.json"])
    run_job("balance", [*both, "--thresholds", f"{out}/thresholds.json", "--seed", "3", "--output", f"{out}/curated"])


@pytest.fixture(scope="module")
def pool(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set of both crawls, as two stages. Tests only read it."""
    root = tmp_path_factory.mktemp("curated")
    curate(work, root, "matched-a", "matched-b")
    return root


def curated_rows(out: Path) -> list[tuple[str, str, float]]:
    rows = [row for table in read_parts(open_stage(f"{out}/curated", "balance")) for row in table.to_pylist()]
    return sorted((row["image_id"], row["text"], row["probability"]) for row in rows)


def test_two_stages_give_the_set_of_one(work: Path, pool: Path, tmp_path: Path) -> None:
    curate(work, tmp_path, "matched-both")
    one, two = (open_stage(f"{out}/siblings", "dedup") for out in (tmp_path, pool))
    unique = len({*FIRST, *SECOND})
    assert two.counters["emitted"] == one.counters["emitted"] == unique
    assert two.counters["dropped"] == {"duplicate": len(FIRST) + len(SECOND) - unique}
    assert len(two.parts) == 2
    assert 0 < len(curated_rows(tmp_path)) < 200
    assert curated_rows(pool) == curated_rows(tmp_path)
    counts = [[table.to_pylist() for table in read_parts(open_stage(f"{out}/counts", "count"))] for out in (tmp_path, pool)]
    assert counts[0] == counts[1]


def test_the_order_of_stages_does_not_matter(work: Path, pool: Path, tmp_path: Path) -> None:
    curate(work, tmp_path, "matched-b", "matched-a")
    for stage in ("siblings", "counts", "curated"):
        one, other = (contents(out / stage) for out in (pool, tmp_path))
        assert {k: v for k, v in one.items() if k != "units.parquet"} == {k: v for k, v in other.items() if k != "units.parquet"}


def test_passes_change_nothing(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelines.dedup, "RANGE_RECORDS", 30)
    for name, options in (("one", ()), ("three", ("--passes", "3"))):
        run_job("dedup", ["--matched", f"{work}/matched-a", f"{work}/matched-b", "--output", f"{tmp_path}/{name}", *options])
    one, three = contents(tmp_path / "one"), contents(tmp_path / "three")
    passes = {name for name in three if name.startswith("passes/")}
    assert {name.split("/")[1] for name in passes} == {"0", "1", "2"}
    assert {name: data for name, data in three.items() if name not in passes} == one
    decided = [open_stage(f"{tmp_path}/three/passes/{turn}", "dedup_pass").counters for turn in range(3)]
    assert all(counters["read"] for counters in decided)
    assert sum(counters["read"] for counters in decided) == len(FIRST) + len(SECOND)


def test_a_large_pool_takes_passes_by_itself(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelines.dedup, "PASS_RECORDS", 150)
    run_job("dedup", ["--matched", f"{work}/matched-both", "--output", f"{tmp_path}/siblings"])
    assert sorted(path.name for path in (tmp_path / "siblings" / "passes").iterdir()) == ["0", "1"]


def test_pools_that_cannot_be(work: Path, pool: Path, tmp_path: Path) -> None:
    def refusal(*matched: str) -> str:
        with pytest.raises(JobError) as error:
            run_job("dedup", ["--matched", *matched, "--output", f"{tmp_path}/siblings"])
        return str(error.value)

    a = f"{work}/matched-a"
    assert refusal(a, a) == f"--matched {a} {a}: these are the same pairs, so all of them would be duplicates; name them once"
    run_job("entries", ["--metadata-json", f"en={work}/list.json", "--rules", "unicode", "--output", f"{tmp_path}/entries"])
    other = ["--input", f"{work}/b/pairs.parquet", "--format", "parquet", "--entries", f"{tmp_path}/entries"]
    run_job("match", [*other, "--output", f"{tmp_path}/matched"])
    said = refusal(a, f"{tmp_path}/matched")
    assert said.endswith(": match both with the same")
    assert a in said
    with pytest.raises(JobError, match=r"run dedup on them"):
        run_job("count", ["--matched", a, "--siblings", f"{pool}/siblings", "--entries", f"{work}/entries", "--output", f"{tmp_path}/c"])


def test_the_report_of_a_pool(work: Path, pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(pool, tmp_path, dirs_exist_ok=True)
    run_job("report", ["--work", str(tmp_path), "--matched", f"{work}/matched-a", f"{work}/matched-b"])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert f"{len({*FIRST, *SECOND}):,}" in page
    assert "than the one here" not in page
