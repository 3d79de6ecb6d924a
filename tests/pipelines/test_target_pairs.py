"""thresholds --target-pairs on a pool: five targets, shares of languages, what cannot be had, and the same bytes however it is run."""

from __future__ import annotations

import json
import math
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import pipelines.expectation
from balancing.sampling import entry_probabilities
from balancing.selection import row_probabilities
from balancing.thresholds import TailCurve
from pipelines.errors import JobError
from pipelines.jobs import read_command, run_job
from pipelines.part import read_footer, read_part
from pipelines.run import commands
from pipelines.stage import open_stage
from pipelines.threshold_options import read_counts
from pipelines.thresholds import ThresholdsConfig
from tests.pipelines.conftest import contents
from tests.pipelines.pools import PoolShape, counted_pool, pairs_of, write_stage

SHAPE = PoolShape(pairs=60_000, parts=6, entries=4_000, texts=3)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return counted_pool(tmp_path_factory.mktemp("target"), SHAPE)


def aim(work: Path, output: Path, *options: str) -> dict[str, Any]:
    run_job("thresholds", ["--counts", f"{work}/counts", *pairs_of(work), *options, "--output", str(output)])
    body: dict[str, Any] = json.loads(output.read_text())
    return body


@cache
def parts_by_hand(work: Path) -> list[tuple[pa.Table, np.ndarray, np.ndarray]]:
    """Per part the matched pairs, the language of each one, and 1 / number of its image's texts, or 0 for a copy. Tests only read them."""
    out = []
    for part in open_stage(f"{work}/matched", "match").parts:
        matched, siblings = (read_part(f"{work}/{name}/{part['name']}") for name in ("matched", "siblings"))
        rows = zip(siblings["keep"].to_pylist(), siblings["n"].to_pylist(), strict=True)
        shares = [1 / sum(one["n"] for one in n) if keep else 0.0 for keep, n in rows]
        out.append((matched.select(["lang", "entries"]), np.array(matched["lang"].to_pylist()), np.array(shares)))
    return out


def expected_by_hand(work: Path, t: dict[str, float]) -> dict[str, float]:
    """The definition: the sum over unique pairs of probability / number of the image's texts."""
    counts = read_counts(open_stage(f"{work}/counts", "count"))
    probability = {lang: entry_probabilities(counts[lang], of) for lang, of in t.items()}
    out = dict.fromkeys(t, 0.0)
    for matched, langs, shares in parts_by_hand(work):
        expected = row_probabilities(matched, probability) * shares
        for lang in out:
            out[lang] += float(expected[langs == lang].sum())
    return out


def t_of(body: dict[str, Any]) -> dict[str, float]:
    return {lang: float(x["t"]) for lang, x in body["languages"].items()}


def largest_step(work: Path, p: float) -> float:
    """How much the expected number changes from the thresholds of p to the next ones below or above."""
    counts = read_counts(open_stage(f"{work}/counts", "count"))
    curves = {lang: TailCurve(of) for lang, of in counts.items()}

    def at(share: float) -> dict[str, float]:
        return {lang: float(curve.threshold(share)) for lang, curve in curves.items()}

    sets = []
    for factor in (1 - 1e-4, 1 + 1e-4):
        share = p
        while at(share) == at(p):
            share = min(1.0, share * factor)
        sets.append(sum(expected_by_hand(work, at(share)).values()))
    return max(abs(n - sum(expected_by_hand(work, at(p)).values())) for n in sets)


@pytest.mark.parametrize("target", [5_000, 8_000, 11_000, 14_000, 19_000])
def test_the_set_has_the_wanted_number_of_pairs(work: Path, tmp_path: Path, target: int, capsys: pytest.CaptureFixture[str]) -> None:
    body = aim(work, tmp_path / "t.json", "--target-pairs", str(target))
    printed = capsys.readouterr().out
    by_hand = expected_by_hand(work, t_of(body))
    expected = sum(by_hand.values())
    # What the file says is true, up to what lies between two thresholds that were looked at.
    assert body["expected_pairs"] == pytest.approx(by_hand, rel=1e-3, abs=1)
    step = largest_step(work, body["p"])
    assert abs(expected - target) <= step
    run_job("balance", [*pairs_of(work), "--thresholds", f"{tmp_path}/t.json", "--seed", "3", "--output", f"{tmp_path}/set"])
    drawn = open_stage(f"{tmp_path}/set", "balance").rows
    assert abs(drawn - expected) < 4 * math.sqrt(expected)
    assert abs(drawn - target) <= 4 * math.sqrt(target) + step
    assert f"{sum(body['expected_pairs'].values()):,}"[:-2] in printed
    assert f"{target:,} were asked for" in printed
    # The tail share that was found gives the same thresholds.
    said = printed.partition("--p ")[2].split()[0]
    run_job("thresholds", ["--counts", f"{work}/counts", "--p", said, "--output", f"{tmp_path}/p.json"])
    assert json.loads((tmp_path / "p.json").read_text())["languages"] == body["languages"]


def step_of_t(work: Path, lang: str, body: dict[str, Any]) -> float:
    """How much the expected number of a language changes from one t to the next."""
    t = body["languages"][lang]["t"]
    below, above = (expected_by_hand(work, {lang: float(max(1, t + d))})[lang] for d in (-1, 1))
    return above - below


def test_shares_of_languages_and_a_fixed_one(work: Path, tmp_path: Path) -> None:
    options = ["--target-pairs", "10000", "--language-share", "ja=25%", "--t", "en=40"]
    body = aim(work, tmp_path / "t.json", *options)
    by_hand = expected_by_hand(work, t_of(body))
    assert body["languages"]["en"]["t"] == 40
    assert abs(by_hand["ja"] - 2_500) <= step_of_t(work, "ja", body)
    assert abs(sum(by_hand.values()) - 10_000) <= step_of_t(work, "ja", body) + step_of_t(work, "de", body)
    counts = read_counts(open_stage(f"{work}/counts", "count"))
    assert body["languages"]["de"]["t"] == TailCurve(counts["de"]).threshold(body["p"])
    everything = aim(work, tmp_path / "all.json", "--target-pairs", "9000", "--language-share", "ja=0.2", "en=0.3", "de=0.5")
    for lang, n in expected_by_hand(work, t_of(everything)).items():
        assert abs(n - {"ja": 1800, "en": 2700, "de": 4500}[lang]) <= step_of_t(work, lang, everything)


def test_small_languages_are_kept_whole(work: Path, tmp_path: Path) -> None:
    counts = read_counts(open_stage(f"{work}/counts", "count"))
    least = int(counts["ja"].sum()) + 1
    body = aim(work, tmp_path / "t.json", "--target-pairs", "12000", "--min-language-matches", str(least))
    assert body["languages"]["ja"] == {"matches": least - 1, "p": 1.0, "t": "inf", "whole": True}
    by_hand = expected_by_hand(work, t_of(body))
    assert body["expected_pairs"] == pytest.approx(by_hand, rel=1e-3, abs=1)
    assert sum(by_hand.values()) == pytest.approx(12_000, rel=0.02)


def test_a_sample_only_says_where_to_look(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of six parts first, then one pass over all."""
    whole = aim(work, tmp_path / "whole.json", "--target-pairs", "11000")
    monkeypatch.setattr(pipelines.expectation, "SAMPLE_PAIRS", 20_000)
    body = aim(work, tmp_path / "sampled.json", "--target-pairs", "11000")
    assert body["languages"] == whole["languages"]
    passes = [open_stage(str(path), "expectation") for path in (tmp_path / "sampled.json.passes").iterdir()]
    parts = [stage.parameters["parts"] for stage in passes]
    assert parts.count("all") in (1, 2)
    assert all(which in ("all", [0, 3]) for which in parts)
    rows = {str(stage.parameters["parts"]): stage.counters["read"] for stage in passes}
    assert rows["all"] == open_stage(f"{work}/siblings", "dedup").counters["emitted"]


@pytest.mark.slow
def test_two_workers_and_what_is_there_already(work: Path, tmp_path: Path) -> None:
    """The same bytes; a pass that is there is not made again, after a kill in between neither."""
    (tmp_path / "one").mkdir()
    aim(work, tmp_path / "one" / "t.json", "--target-pairs", "9000", "--workers", "1")
    # Two workers make one of the passes: every one of them would start two processes of its own.
    shutil.copytree(tmp_path / "one" / "t.json.passes", tmp_path / "two" / "t.json.passes")
    shutil.rmtree(sorted((tmp_path / "two" / "t.json.passes").iterdir())[0])
    aim(work, tmp_path / "two" / "t.json", "--target-pairs", "9000", "--workers", "2")
    one, two = ({k: v for k, v in contents(tmp_path / name).items() if not k.startswith("..")} for name in ("one", "two"))
    for found in (one, two):
        body = json.loads(found["t.json"])
        assert body.pop("counts_path")
    assert one == two
    passes = tmp_path / "one" / "t.json.passes"
    before = {path: path.stat().st_mtime_ns for path in passes.rglob("*") if path.is_file()}
    first = sorted(passes.iterdir())[0]
    for path in (first / "_SUCCESS", first / "manifest.json"):
        path.unlink()
    aim(work, tmp_path / "one" / "t.json", "--target-pairs", "9000")
    after = {path: path.stat().st_mtime_ns for path in passes.rglob("*") if path.is_file()}
    assert contents(tmp_path / "one") == {**contents(tmp_path / "one"), **one}
    assert {path for path in before if before[path] != after[path]} <= set(first.iterdir())


def test_several_matched_stages_are_one_pool(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same parts in two stages: the same thresholds, whatever the order of the stages, from a sample as from all."""
    whole = aim(work, tmp_path / "whole.json", "--target-pairs", "11000")
    there = open_stage(f"{work}/matched", "match")
    pools = []
    for i in range(2):
        tables = ((part["name"][5:9], read_part(there.part_url(part["name"]))) for part in there.parts[i::2])
        pools.append(
            write_stage(f"{tmp_path}/matched-{i}", "match", tables, parameters=dict(there.parameters), upstream=dict(there.upstream))
        )
    matched = ["--matched", *(pool.url for pool in pools)]
    run_job("dedup", [*matched, "--output", f"{tmp_path}/siblings"])
    both = [*matched, "--siblings", f"{tmp_path}/siblings"]
    run_job("count", [*both, "--entries", f"{work}/entries", "--output", f"{tmp_path}/counts"])
    for order, sample in ((1, 10**6), (-1, 20_000)):
        monkeypatch.setattr(pipelines.expectation, "SAMPLE_PAIRS", sample)
        given = ["--matched", *[pool.url for pool in pools][::order], "--siblings", f"{tmp_path}/siblings"]
        output = tmp_path / f"t{order}.json"
        run_job("thresholds", ["--counts", f"{tmp_path}/counts", *given, "--target-pairs", "11000", "--output", str(output)])
        body = json.loads(output.read_text())
        assert body["languages"] == whole["languages"]
        assert sum(body["expected_pairs"].values()) == pytest.approx(sum(whole["expected_pairs"].values()), abs=3)


def test_in_a_chain_the_pairs_need_not_be_named() -> None:
    chain = {"work": "W", "all": {"workers": 2}, "count": {}, "thresholds": {"target_pairs": 5, "language_share": ["de=0.5"]}}
    job, argv = commands(chain)[-1]
    config, beam_args = read_command(job, argv)
    assert (job, beam_args) == ("thresholds", [])
    assert config == ThresholdsConfig(
        counts="W/counts",
        matched=("W/matched",),
        siblings="W/siblings",
        target_pairs=5,
        language_share=("de=0.5",),
        workers=2,
        output="W/thresholds.json",
    )
    plain = {"work": "W", "all": {"workers": 2}, "count": {}, "thresholds": {"t": ["20", "de=5"]}}
    config, _ = read_command(*commands(plain)[-1])
    assert config == ThresholdsConfig(counts="W/counts", t=("20", "de=5"), output="W/thresholds.json")


def test_every_bundle_twice_is_the_same(work: Path, tmp_path: Path) -> None:
    once = aim(work, tmp_path / "once.json", "--target-pairs", "9000")
    twice = aim(work, tmp_path / "twice.json", "--target-pairs", "9000", "--direct_runner_bundle_repeat=1")
    assert once == twice


@pytest.mark.parametrize(("target", "said"), [("100", "100 pairs are wanted"), ("999999", "999,999 pairs are wanted")])
def test_what_cannot_be_had_is_told(work: Path, tmp_path: Path, target: str, said: str) -> None:
    with pytest.raises(JobError, match=rf"^--target-pairs: {said} of .*, but between [\d,]+ \(every t the smallest count\) and [\d,]+ \("):
        aim(work, tmp_path / "t.json", "--target-pairs", target)
    assert not (tmp_path / "t.json").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--language-share", "xx=10%"], "a share is given for xx, of which there are no counts"),
        (["--t", "xx=5"], "t is given for xx, of which there are no counts"),
        (["--t", "de=5", "--language-share", "de=10%"], "both a t and a share are given for de"),
        (["--language-share", "de=0.6", "en=0.6"], "the shares of languages are 1.2 of the whole together"),
    ],
)
def test_languages_that_do_not_fit_are_told(work: Path, tmp_path: Path, options: list[str], said: str) -> None:
    with pytest.raises(JobError) as error:
        aim(work, tmp_path / "t.json", "--target-pairs", "9000", *options)
    assert str(error.value).startswith(f"{work}/counts: {said}")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--target-pairs", "0"], "argument --target-pairs: '0' is no whole number of at least 1"),
        (["--target-pairs", "5", "--p", "6%"], "give only one of --t-en, --p, --t and --target-pairs"),
        (["--target-pairs", "5", "--t-en", "5"], "give only one of --t-en, --p, --t and --target-pairs"),
        (["--target-pairs", "5", "--t", "inf"], "give only one of --t-en, --p, --t and --target-pairs"),
        (["--target-pairs", "5"], "--target-pairs needs --matched and --siblings: counts do not say which entries stand in one text"),
        (["--language-share", "de=5%"], "--language-share needs --target-pairs, of which it is a share"),
        (["--target-pairs", "5", "--language-share", "de"], "--language-share de: write LANG=..., for instance de=..."),
        (
            ["--target-pairs", "5", "--language-share", "de=2"],
            "--language-share de: '2' is no share between 0 and 100%: write 0.05 or 5%",
        ),
        (["--matched", "M"], "give --matched and --siblings together, or neither"),
        (["--t", "5", "7"], "--t 5 7: give one threshold for every language"),
        (["--t", "de=5", "de=6"], "--t names de twice"),
        (["--t", "=5"], "--t =5: write LANG=..., for instance de=..."),
        (["--t", "0"], "--t: t must be at least 1, not 0"),
        (["--t", "-3"], "--t: t must be at least 1, not -3"),
        (["--t", "de=0"], "--t de: t must be at least 1, not 0"),
        (["--t", "1.5"], "--t: t must be a whole number of at least 1, or inf; not '1.5'"),
        (["--t-en", "5", "--t", "en=6"], "--t-en and --t en=: give t for English once"),
        (["--t-en", "5", "--p", "6%"], "give only one of --t-en, --p and --t"),
        (["--p", "1.5"], "argument --p: '1.5' is no share between 0 and 100%: write 0.05 or 5%"),
        (["--p=-1%"], "argument --p: '-1%' is no share between 0 and 100%: write 0.05 or 5%"),
    ],
)
def test_options_that_cannot_be_meant(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_job("thresholds", ["--counts", "C", "--output", "t.json", *options])
    assert capsys.readouterr().err.splitlines()[-1] == f"worldclip thresholds: error: {said}"


def test_a_t_for_english_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_job("thresholds", ["--counts", "C", "--output", "t.json", "--t-en", "0"])
    assert capsys.readouterr().err.splitlines()[-1].startswith("worldclip thresholds: error: argument --t-en: ")


def test_the_share_that_is_printed_without_a_target(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = aim(work, tmp_path / "t.json", "--p", "10%", "--t", "de=30", "ja=inf")
    by_hand = expected_by_hand(work, t_of(body))
    unique = dict.fromkeys(by_hand, 0)
    for part in open_stage(f"{work}/counts", "count").parts:
        footer = read_footer(f"{work}/counts/{part['name']}")
        assert footer is not None
        unique[part["name"].removesuffix(".parquet")] = footer.counters["emitted"]
    lines = {line.split()[0]: line.split()[-1] for line in capsys.readouterr().out.splitlines()[1:4]}
    assert lines == {lang: f"{n / unique[lang]:.2%}" for lang, n in by_hand.items()}
    assert "expected_pairs" not in body
    assert (body["languages"]["de"]["t"], body["languages"]["ja"]["t"]) == (30, "inf")
