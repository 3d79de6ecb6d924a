"""plan: its figures against counts by hand, its table whole, its picture well formed and the same every time."""

from __future__ import annotations

import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from balancing.expectation import guess_of_counts
from balancing.sampling import entry_probabilities
from balancing.selection import row_probabilities
from balancing.thresholds import solve_thresholds, threshold_of_share
from metadata.tally import Tally
from pipelines import costs
from pipelines.errors import JobError
from pipelines.jobs import run_job
from pipelines.part import read_part
from pipelines.plan import SHARES, Plan, PlanConfig, hours_text, lines_of, make_plan, unique_pairs
from pipelines.plan_picture import Picture, Point, draw
from pipelines.stage import Stage, Unit, open_stage
from pipelines.threshold_options import read_counts
from tests.pipelines.pools import PoolShape, counted_pool, pairs_of

SHAPE = PoolShape(pairs=9_000, parts=3, entries=400)
_SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return counted_pool(tmp_path_factory.mktemp("plan"), SHAPE)


def config(work: Path, *, pairs: bool = True, **more: object) -> PlanConfig:
    both = {"matched": (f"{work}/matched",), "siblings": f"{work}/siblings"} if pairs else {}
    return PlanConfig(counts=f"{work}/counts", **both, **more)  # type: ignore[arg-type]


def expected_by_hand(work: Path, t: dict[str, float]) -> dict[str, float]:
    counts = read_counts(open_stage(f"{work}/counts", "count"))
    probability = {lang: entry_probabilities(counts[lang], of) for lang, of in t.items()}
    out = dict.fromkeys(t, 0.0)
    for part in open_stage(f"{work}/matched", "match").parts:
        matched, siblings = (read_part(f"{work}/{name}/{part['name']}") for name in ("matched", "siblings"))
        odds = row_probabilities(matched, probability).tolist()
        rows = zip(matched["lang"].to_pylist(), siblings["keep"].to_pylist(), siblings["n"].to_pylist(), odds, strict=True)
        for lang, keep, n, p in rows:
            if keep:
                out[lang] += p / sum(one["n"] for one in n)
    return out


def test_the_curve_is_the_expected_number_at_every_share(work: Path) -> None:
    plan = make_plan(config(work, t_en=5.0))
    counts = read_counts(open_stage(f"{work}/counts", "count"))
    assert [point.p for point in plan.curve] == list(SHARES)
    for point in plan.curve:
        assert point.t == {lang: threshold_of_share(counts[lang], point.p) for lang in SHAPE.languages}
        assert dict(point.kept) == pytest.approx(expected_by_hand(work, dict(point.t)), rel=1e-5)
    p, solved = solve_thresholds(counts, t_en=5.0)
    assert (plan.p, plan.chosen.p) == (p, p)
    assert plan.chosen.t == {lang: x.t for lang, x in solved.items()}
    assert dict(plan.chosen.kept) == pytest.approx(expected_by_hand(work, dict(plan.chosen.t)), rel=1e-5)
    assert sum(plan.pairs.values()) == open_stage(f"{work}/siblings", "dedup").counters["emitted"]
    assert plan.main == plan.languages[0] == "de"


def test_a_whole_is_so_many_times_the_sample(work: Path) -> None:
    one, many = make_plan(config(work)), make_plan(config(work, times=50.0))
    assert many.chosen.total == pytest.approx(50 * one.chosen.total)
    assert many.unique == 50 * one.unique
    assert {lang: t / 50 for lang, t in many.chosen.t.items()} == one.chosen.t
    sizes = {what: size for what, size, _ in one.disk}
    grown = {what: size for what, size, _ in many.disk}
    assert grown["counts"] == sizes["counts"]
    for what in ("matched", "siblings", "curated", "images"):
        assert grown[what] == pytest.approx(50 * sizes[what])
    assert [n for _, n in many.work] == pytest.approx([50 * n for _, n in one.work])


def test_disk_and_work_are_what_lies_there(work: Path) -> None:
    plan = make_plan(config(work))
    matched, siblings = open_stage(f"{work}/matched", "match"), open_stage(f"{work}/siblings", "dedup")
    assert [what for what, _, _ in plan.disk] == ["matched", "siblings", "counts", "curated", "images"]
    sizes = {what: size for what, size, _ in plan.disk}
    assert sizes["matched"] == sum((work / "matched" / part["name"]).stat().st_size for part in matched.parts)
    assert sizes["siblings"] == sum((work / "siblings" / part["name"]).stat().st_size for part in siblings.parts)
    assert sizes["curated"] == pytest.approx(plan.chosen.total * (sizes["matched"] / SHAPE.pairs + 8))
    assert sizes["images"] == plan.chosen.total * costs.IMAGE_BYTES
    assert [(cost.stage, n) for cost, n in plan.work] == [
        ("match", SHAPE.pairs),
        ("dedup", SHAPE.pairs),
        ("count", SHAPE.pairs),
        ("thresholds", SHAPE.pairs),
        ("balance", SHAPE.pairs),
        ("images", plan.chosen.total),
    ]


def test_warc_files_cost_by_their_size(work: Path, tmp_path: Path) -> None:
    """The inputs of a stage match are in its units."""
    there = open_stage(f"{work}/matched", "match")
    stage = Stage(url=f"{tmp_path}/matched", kind="match", parameters=there.parameters, upstream=there.upstream)
    units = [Unit(name=f"{i:04}", path=f"crawl/{i}.warc.gz", url=f"s3://crawl/{i}.warc.gz", size=5_000_000) for i in range(3)]
    stage.begin(units)
    for unit, part in zip(units, there.parts, strict=True):
        stage.write_part(unit, read_part(there.part_url(part["name"])), Tally(read=part["rows"], emitted=part["rows"]))
    stage.finish()
    w = str(tmp_path)
    run_job("dedup", ["--matched", f"{w}/matched", "--output", f"{w}/siblings"])
    run_job("count", [*pairs_of(tmp_path), "--entries", f"{work}/entries", "--output", f"{w}/counts"])
    plan = make_plan(config(tmp_path, times=2.0))
    assert plan.disk[0] == ("inputs", 30_000_000, "as they were read")
    assert plan.work[0] == (costs.MATCH_WARC, 30.0)


def test_counts_alone_give_a_guess(work: Path) -> None:
    plan = make_plan(config(work, pairs=False))
    counts = read_counts(open_stage(f"{work}/counts", "count"))
    pairs = unique_pairs(open_stage(f"{work}/counts", "count"))
    for point in plan.curve:
        assert point.kept == {lang: guess_of_counts(counts[lang], pairs[lang], t) for lang, t in point.t.items()}
    assert plan.curve[-1].total == pytest.approx(plan.unique)
    assert [what for what, _, _ in plan.disk] == ["counts", "images"]
    assert "a guess from counts alone" in lines_of(plan)[0]


def test_a_sample_of_the_parts_stands_for_all(work: Path) -> None:
    whole, sampled = make_plan(config(work)), make_plan(config(work, sample_pairs=3_000))
    assert sampled.chosen.total != whole.chosen.total
    assert sampled.chosen.total == pytest.approx(whole.chosen.total, rel=0.1)
    assert sampled.pairs == whole.pairs


POINTS = [
    Point(p=p, t={"de": t, "lv": t / 10}, kept={"de": 400_000.0 * i, "lv": 1_000.0 * i})
    for i, (p, t) in enumerate([(0.01, 2_000.0), (0.06, 20_000.0), (1.0, 3_000_000.0)], 1)
]
PLAN = Plan(
    p=0.06,
    chosen=POINTS[1],
    curve=POINTS,
    main="de",
    pairs={"lv": 5_000.0, "de": 1_600_000.0},
    disk=[("matched", 3.2e9, "200 bytes a pair"), ("counts", 950.0, "as they are")],
    work=[(costs.MATCH, 4.1e9), (costs.COUNT, 2.2e7), (costs.IMAGES, 8e5)],
    exact=True,
    times=10,
)


def test_the_table() -> None:
    assert lines_of(PLAN) == [
        "1.60 M unique pairs in 2 languages, of a whole 10 times as large. Pairs kept: the expected number, from a sample.",
        "",
        "tail share        t of de   pairs kept  of unique",
        "     1.0 %          2,000        401 k     25.0 %",
        "     6.0 %         20,000        802 k     50.0 %  <- chosen",
        "   100.0 %      3,000,000       1.20 M     75.0 %",
        "",
        "language          pairs              t         kept  of pairs  of the set",
        "de               1.60 M         20,000        800 k    50.0 %      99.8 %",
        "lv                5,000          2,000        2,000    40.0 %       0.2 %",
        "",
        "disk               size",
        "matched          3.2 GB  200 bytes a pair",
        "counts        950 bytes  as they are",
        "",
        "stage         core time",
        "match           27.78 h  4.10 G candidate pairs (wat_natural: 41,000 texts/s)",
        "count             2.0 s  22.0 M matched pairs (the function that counts a part: 11 M/s)",
        "images           2.22 h  800 k curated pairs (19 ns a pixel to decode, half a million pixels)",
        "together        30.00 h  on one core, without waiting",
    ]


@pytest.mark.parametrize(("seconds", "said"), [(0.04, "0.0 s"), (35, "35.0 s"), (36, "0.01 h"), (3600, "1.00 h"), (3.6e6, "1,000 h")])
def test_core_time(seconds: float, said: str) -> None:
    assert hours_text(seconds) == said


def picture(**changes: object) -> Picture:
    about: dict[str, object] = {
        "title": "802 k of 1.60 M pairs kept",
        "note": "a note",
        "main": "de",
        "curve": POINTS,
        "chosen": POINTS[1],
        "pairs": PLAN.pairs,
        "languages": ["de", "lv"],
        "disk": [("matched", "3.2 GB")],
        "work": [("match", "27.78 h")],
    }
    return Picture(**{**about, **changes})  # type: ignore[arg-type]


NOTHING = Point(p=1.0, t={"de": 1.0}, kept={"de": 0.0})


def numbers(element: ElementTree.Element) -> list[float]:
    return [float(x) for name in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height") if (x := element.get(name))]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"title": "<script>alert(1)</script> & \" ' \x07"},
        {"chosen": POINTS[2]},
        {"curve": POINTS[:1], "chosen": POINTS[0]},
        {"curve": [NOTHING], "chosen": NOTHING, "pairs": {"de": 1.0}, "languages": ["de"]},
        {"languages": [f"l{i}" for i in range(12)], "pairs": {f"l{i}": 10.0**i for i in range(12)}},
    ],
)
def test_the_picture_is_whole(changes: dict[str, object]) -> None:
    drawn = draw(picture(**changes))
    root = ElementTree.fromstring(drawn)
    _, _, width, height = map(float, (root.get("viewBox") or "").split())
    for element in root.iter():
        assert element.tag.removeprefix(_SVG) in {"svg", "title", "style", "rect", "text", "line", "polyline", "circle"}
        assert all(-1e-6 <= x <= max(width, height) for x in numbers(element)), ElementTree.tostring(element)
        for point in (element.get("points") or "").split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height
    # Nothing is fetched and nothing runs.
    assert not re.search(rb"href|url\(|<script|@import|onload", drawn.replace(b"&lt;script", b""))
    assert drawn == draw(picture(**changes))


def test_the_picture_says_what_the_table_says() -> None:
    texts = ["".join(e.itertext()) for e in ElementTree.fromstring(draw(picture())).iter(f"{_SVG}text")]
    bars = ("German", "800 k / 1.60 M, 50.0 %", "Latvian", "2,000 / 5,000, 40.0 %")
    for said in ("802 k of 1.60 M pairs kept", "t = 20.0 k: 802 k pairs", *bars, "matched", "3.2 GB", "match", "27.78 h"):
        assert said in texts
    assert [x for x in texts if re.fullmatch(r"[\d.]+ %", x)] == ["1 %", "6 %", "100 %"]
    lines = [e for e in ElementTree.fromstring(draw(picture())).iter(f"{_SVG}polyline") if e.get("class") == "all"]
    xs, ys = zip(*(map(float, point.split(",")) for point in (lines[0].get("points") or "").split()), strict=True)
    assert xs == tuple(sorted(xs))
    assert ys == tuple(sorted(ys, reverse=True))
    # Equal steps of the logarithm are equal steps of the picture.
    assert (xs[1] - xs[0]) / (xs[2] - xs[0]) == pytest.approx(math.log(10) / math.log(1500), abs=1e-3)


def test_the_command(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--counts", f"{work}/counts", *pairs_of(work), "--times", "3", "--output", f"{tmp_path}/plan.svg"]
    run_job("plan", argv)
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == f"plan: {tmp_path}/plan.svg"
    first = (tmp_path / "plan.svg").read_bytes()
    run_job("plan", argv)
    assert (tmp_path / "plan.svg").read_bytes() == first
    assert ElementTree.fromstring(first).tag == f"{_SVG}svg"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--times", "0"], "argument --times: '0' is no number above 0"),
        (["--times", "x"], "argument --times: 'x' is no number above 0"),
        (["--matched", "M"], "give --matched and --siblings together, or neither"),
        (["--t", "-1"], "--t: t must be at least 1, not -1"),
        (["--t", "5", "--p", "5%"], "give only one of --t-en, --p and --t"),
    ],
)
def test_options_that_cannot_be_meant(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_job("plan", ["--counts", "C", *options])
    assert capsys.readouterr().err.splitlines()[-1] == f"worldclip plan: error: {said}"


def test_damaged_counts_are_told(work: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="is no stage 'count'"):
        make_plan(PlanConfig(counts=f"{tmp_path}/absent"))
