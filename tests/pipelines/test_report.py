from __future__ import annotations

import contextlib
import html.parser
import itertools
import json
import os
import re
import shutil
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancing.pairs import MATCHED_SCHEMA, image_id_of_url, image_keys, pair_keys
from balancing.sampling import uniform
from metadata.entries import ENTRIES_SCHEMA
from metadata.languages import metadata_codes
from metadata.tally import Tally
from pipelines.__main__ import main as worldclip
from pipelines.errors import JobError
from pipelines.jobs import run_job
from pipelines.page import ABSENT, ELSEWHERE, FINISHED, UNFINISHED, number, share, short, text
from pipelines.report import gather, training_lines
from pipelines.stage import Stage, Unit, open_stage

HOSTILE = (
    "</p><script>document.title='owned'</script>",
    '"><img src=https://evil.example/x.png onerror=alert(1)>',
    "$script_sha256 ${lead} & &lt;b&gt; 'quoted' \x07 \u202e reversed",
)
ENTRIES = {
    "en": [*HOSTILE, *(f"word {i}" for i in range(60))],
    "he": [f"מילה {i}" for i in range(40)],
    "zh": [f"词{i}" for i in range(30)],
    "other": ["alone"],
}


def stage(url: Path, kind: str, tables: dict[str, pa.Table], *, tally: Tally | None = None, **about: Any) -> Stage:
    """A finished stage of these parts; the first part has the account ``tally``."""
    made = Stage(url=str(url), kind=kind, parameters=about.get("parameters", {}), upstream=about.get("upstream", {}))
    units = [Unit(name=name, path=f"{name}.in") for name in tables]
    made.begin(units)
    for unit, table in zip(units, tables.values(), strict=True):
        made.write_part(unit, table, tally or Tally(read=len(table), emitted=len(table)))
        tally = None
    made.finish()
    return made


def matched_table(rows: list[tuple[str, str, str, list[int]]]) -> pa.Table:
    """Rows (lang, url, text, entry ids) as a matched part."""
    ids, texts = [image_id_of_url(url) for _, url, _, _ in rows], [caption for _, _, caption, _ in rows]
    table = pa.table(
        {
            "image_id": ids,
            "url": [url for _, url, _, _ in rows],
            "page_url": ["https://page.example/"] * len(rows),
            "text": texts,
            "source": ["alt"] * len(rows),
            "lid": [lang for lang, _, _, _ in rows],
            "lid_score": pa.array([0.9] * len(rows), pa.float32()),
            "lang": pa.array([lang for lang, _, _, _ in rows], pa.string()).dictionary_encode(),
            "entries": pa.array([entries for _, _, _, entries in rows], pa.list_(pa.int32())),
            "image_key": image_keys(ids),
            "pair_key": pair_keys(ids, texts),
        }
    ).cast(MATCHED_SCHEMA)
    order = sorted(range(len(rows)), key=lambda i: (rows[i][0], table["image_key"][i].as_py(), table["pair_key"][i].as_py()))
    return table.take(pa.array(order, pa.int64()))


def pool(part: int) -> list[tuple[str, str, str, list[int]]]:
    """A few hundred rows with a head and a tail; some pairs lie in both parts, some images have several texts."""
    draw = np.random.default_rng(part)
    rows = []
    for lang, names in ENTRIES.items():
        for i in range({"en": 300, "he": 60, "zh": 40, "other": 2}[lang]):
            ids = sorted({int(x) for x in draw.zipf(1.6, size=3) - 1 if x < len(names)} or {0})
            url = f"https://images.example/{lang}/{i % 200 if lang == 'en' else i}?a=1&b=<{part if i % 5 else 'both'}>"
            rows.append((lang, url, f"{i} " + " ".join(names[x] for x in ids), ids))
    rows.append(("en", "https://images.example/same", "in both parts", [0, 1]))
    return rows


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished chain from entries to curated: the first stages made by hand, the others by their jobs."""
    root = tmp_path_factory.mktemp("work")
    lists = {}
    for lang, names in ENTRIES.items():
        source = pa.array(["extra"] * len(names)).dictionary_encode()
        lists[lang] = pa.table(
            {"id": pa.array(range(len(names)), pa.int32()), "entry": names, "source": source, "score": pa.nulls(len(names))}
        ).cast(ENTRIES_SCHEMA)
    entries = stage(root / "entries", "entries", lists, parameters={"recipe": "<by hand>"})
    parts = {f"{i}": matched_table(pool(i)) for i in range(2)}
    tally = Tally(read=len(parts["0"]) + 8, emitted=len(parts["0"]))
    tally.drop("no_match", 5)
    tally.drop("<b>reason</b>", 2)
    tally.dead.update(["broken"])
    upstream = {"entries": open_stage(str(root / "entries"), "entries").id}
    stage(root / "matched", "match", parts, tally=tally, upstream=upstream, parameters={"languages": sorted(ENTRIES)})
    assert entries.fingerprint
    w = str(root)
    run_job("dedup", ["--matched", f"{w}/matched", "--output", f"{w}/siblings"])
    run_job("count", ["--matched", f"{w}/matched", "--siblings", f"{w}/siblings", "--entries", f"{w}/entries", "--output", f"{w}/counts"])
    run_job("thresholds", ["--counts", f"{w}/counts", "--t-en", "20", "--output", f"{w}/thresholds.json"])
    pairs = ["--matched", f"{w}/matched", "--siblings", f"{w}/siblings"]
    run_job("balance", [*pairs, "--thresholds", f"{w}/thresholds.json", "--seed", "1", "--output", f"{w}/curated"])
    return root


def rows_of(directory: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(directory.glob("*.parquet")) if path.name.startswith("part-") for row in pq.read_table(path).to_pylist()]


def report(work: Path, output: Path | None = None) -> str:
    run_job("report", ["--work", str(work), *(["--output", str(output)] if output else [])])
    return (output or work / "report.html").read_text(encoding="utf-8")


class Page(html.parser.HTMLParser):
    """The page as a browser reads it: tags with their attributes, and what is to be read in each section and class."""

    VOID = frozenset({"meta", "link", "br", "line", "rect", "polyline"})

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = defaultdict(list)
        self.rows: dict[str, list[list[str]]] = defaultdict(list)
        self.feed(source)
        self.close()
        assert not self.open, "a tag is left open"

    def section(self) -> str:
        return next((a["id"] or "" for tag, a in self.open if tag == "section"), "")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in self.VOID:
            return
        self.open.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows[self.section()].append([])
        elif tag in ("td", "th"):
            self.rows[self.section()][-1].append("")
        for name in (dict(attrs).get("class") or tag).split():
            self.texts[name].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in self.VOID
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            tag, attrs = self.open[-1]
            for name in (attrs.get("class") or tag).split():
                self.texts[name][-1] += data
        if any(tag in ("td", "th") for tag, _ in self.open):
            self.rows[self.section()][-1][-1] += data


def test_the_figures_are_those_of_a_count_by_hand(work: Path) -> None:
    figures = gather(str(work))
    matched, siblings, curated = rows_of(work / "matched"), rows_of(work / "siblings"), rows_of(work / "curated")
    unique = [row for row, sibling in zip(matched, siblings, strict=True) if sibling["keep"]]
    assert 0 < len(curated) < len(unique) < len(matched)
    pairs = {name: Counter(row["lang"] for row in rows) for name, rows in (("m", matched), ("u", unique), ("c", curated))}
    before, after = (Counter((row["lang"], i) for row in rows for i in row["entries"]) for rows in (unique, curated))
    thresholds = json.loads((work / "thresholds.json").read_text())["languages"]
    assert [x.code for x in figures.languages] == sorted(ENTRIES, key=lambda lang: -pairs["u"][lang])
    for x in figures.languages:
        assert (x.matched, x.unique, x.kept) == (pairs["m"][x.code], pairs["u"][x.code], pairs["c"][x.code])
        assert (x.t, x.tail_share) == (thresholds[x.code]["t"], thresholds[x.code]["p"])
        assert (x.entries, x.unmatched) == (len(ENTRIES[x.code]), sum((x.code, i) not in before for i in range(len(ENTRIES[x.code]))))
    largest = sorted(before, key=lambda key: (-before[key], key))[:30]
    lost = [k for k in sorted(before, key=lambda key: (after[key] - before[key], key)) if before[k] > after[k]][:30]
    for found, wanted in ((figures.largest, largest), (figures.lost, lost)):
        assert [(x.entry, x.lang, x.before, x.after) for x in found] == [(ENTRIES[k[0]][k[1]], k[0], before[k], after[k]) for k in wanted]
    together, english = figures.curves
    for curve, langs in ((together, [*ENTRIES]), (english, ["en"])):
        for line, counts in ((curve.before, before), (curve.after, after)):
            ordered = sorted((n for (lang, _), n in counts.items() if lang in langs), reverse=True)
            assert line is not None
            assert all(ordered[rank - 1] == n for rank, n in line)
            assert line[-1][0] == len(ordered)
    assert english.t == (20.0, 20.0)
    ts = [x["t"] for x in thresholds.values()]
    assert together.t == (min(ts), max(ts))
    head = {k: n for k, n in before.items() if n >= thresholds[k[0]]["t"]}
    size = sum(map(len, ENTRIES.values()))
    assert f"{len(head)} entries, {len(head) / size:.1%}".replace("%", " %") in together.note
    assert f"with {sum(head.values()) / sum(before.values()):.1%} of".replace("%", " %") in together.note


def test_the_pairs_to_read_are_those_with_the_smallest_draws(work: Path) -> None:
    figures = gather(str(work))
    curated = rows_of(work / "curated")
    draws = uniform(0, 0, "show", np.array([row["pair_key"] for row in curated], dtype=np.uint64))
    ordered = [row for _, row in sorted(zip(draws.tolist(), curated, strict=True), key=lambda item: item[0])]
    for lang, shown in figures.pairs.items():
        wanted = [row for row in ordered if row["lang"] == lang][:10]
        assert [(x.caption, x.url, x.probability) for x in shown] == [(row["text"], row["url"], row["probability"]) for row in wanted]
        assert [x.entries for x in shown] == [[ENTRIES[lang][i] for i in row["entries"]] for row in wanted]
    assert set(figures.pairs) == {row["lang"] for row in curated}


def test_the_page_says_the_figures(work: Path, tmp_path: Path) -> None:
    page = Page(report(work, tmp_path / "r.html"))
    matched, curated = open_stage(str(work / "matched"), "match"), open_stage(str(work / "curated"), "balance")
    read, unique, kept = (
        matched.counters["read"],
        curated.counters["read"] - curated.counters["dropped"]["duplicate"],
        curated.counters["emitted"],
    )
    (lead,) = page.texts["lead"]
    assert lead == (
        f"Of {read} candidate pairs that were read, {matched.counters['emitted']} matched an entry of their language, {unique} of these "
        f"were unique and {kept} were kept in the balanced set: {kept / read:.1%} of what was read, {kept / unique:.1%} of the unique."
    ).replace("%", " %")
    numbers = dict(zip(page.texts["dt"][:7], page.texts["dd"][:7], strict=True))
    shown = [numbers[x] for x in ("pairs read", "matched", "unique", "kept", "entries", "languages", "images")]
    assert shown == [str(n) for n in (read, matched.counters["emitted"], unique, kept, 134, 4, "–")]
    flow = {row[0]: row for row in page.rows["flow"][1:]}
    assert flow["matchedcandidate pairs"][1:] == [str(read), str(read - 8), "no match5<b>reason</b>2", "broken1", "close"]
    assert flow["countsunique pairs"][1:] == [str(unique), str(unique), "–", "–", "close"]
    assert flow["imagesimages of curated pairs"][1:] == ["not there "]
    english = next(row for row in page.rows["languages"] if row[0] == "English en")
    x = gather(str(work)).languages[0]
    assert english[1:4] == [str(x.matched), str(x.unique), str(x.kept)]
    assert english[5] == "20"
    assert sum(tag == "svg" for tag, _ in page.tags) == 3
    assert sum(tag == "polyline" for tag, _ in page.tags) == 4


def test_books_that_do_not_close_are_shown_as_such(work: Path, tmp_path: Path) -> None:
    broken = tmp_path / "W"
    shutil.copytree(work, broken)
    manifest = json.loads((broken / "siblings" / "manifest.json").read_text())
    manifest["counters"]["dropped"]["duplicate"] -= 3
    (broken / "siblings" / "manifest.json").write_text(json.dumps(manifest))
    page = Page(report(broken))
    assert page.texts["bad"] == ["do not close: +3"]
    assert Page(report(work, tmp_path / "good.html")).texts["bad"] == []


def test_hostile_text_stays_text(work: Path, tmp_path: Path) -> None:
    source = report(work, tmp_path / "r.html")
    page = Page(source)
    assert Counter(tag for tag, _ in page.tags)["script"] == 1
    assert not {"img", "b", "iframe", "object", "a", "form"} & {tag for tag, _ in page.tags}
    assert not [a for _, attrs in page.tags for a in attrs if a.startswith("on") or a == "src"]
    assert [attrs["href"] for _, attrs in page.tags if "href" in attrs] == ["data:,"]
    # All hostile entries are met and shown, to the letter except for what cannot be printed.
    for entry in HOSTILE:
        assert entry.replace("\x07", "\ufffd") in page.texts["entry"]
    captions = page.texts["caption"]
    assert all(any(entry.replace("\x07", "\ufffd") in caption for caption in captions) for entry in HOSTILE)
    assert any(url.endswith("<both>") for url in page.texts["url"])
    assert all(attrs["dir"] == "auto" for tag, attrs in page.tags if attrs.get("class") in ("caption", "entry"))
    policy = next(attrs["content"] for _, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none';")


@given(st.text(), st.integers(1, 20))
def test_escaped_text_is_read_back_as_it_was(value: str, longest: int) -> None:
    shown = text(value)
    assert not set("<>\"'") & set(shown)
    assert html.unescape(shown) == re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\ufffd", value)
    assert len(html.unescape(text(value, longest))) == min(len(value), longest)


def test_the_same_set_gives_the_same_bytes_wherever_it_lies(work: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "W"
    shutil.copytree(work, moved)
    assert report(work, tmp_path / "a.html") == report(moved)
    assert str(tmp_path) not in report(moved)
    assert (moved / "report.html").exists()


ORDER = ("entries", "matched", "siblings", "counts", "thresholds.json", "curated")


@pytest.mark.parametrize("there", range(1, len(ORDER)))
def test_what_is_absent_is_said(work: Path, tmp_path: Path, there: int) -> None:
    part = tmp_path / "W"
    part.mkdir()
    for name in ORDER[:there]:
        (part / name).symlink_to(work / name)
    figures = gather(str(part))
    states = {s.name: s.state for s in figures.stages}
    assert [states[name.removesuffix(".json")] for name in ORDER] == [FINISHED] * there + [ABSENT] * (len(ORDER) - there)
    page = Page(report(part))
    said = " ".join(page.texts["absent"])
    assert "There is no balanced set here yet" in said
    assert ("Nothing has been counted here yet" in said) == (there < 4)
    assert ("No pairs have been matched here yet." in said) == (there < 2)
    whole = gather(str(work))
    by_code = {x.code: x for x in figures.languages}
    for x in whole.languages:
        assert by_code[x.code].matched == (x.matched if there > 1 else None)
        assert by_code[x.code].unique == (x.unique if there > 2 else None)
        assert by_code[x.code].unmatched == (x.unmatched if there > 3 else None)
        assert by_code[x.code].t == (x.t if there > 4 else None)
        assert by_code[x.code].kept is None
    assert [x.before for x in figures.largest] == ([x.before for x in whole.largest] if there > 3 else [])
    assert all(x.after is None for x in figures.largest)


def test_a_stage_that_is_not_finished_is_not_read(work: Path, tmp_path: Path) -> None:
    part = tmp_path / "W"
    shutil.copytree(work, part)
    (part / "curated" / "_SUCCESS").unlink()
    figures = gather(str(part))
    assert figures.stage("curated").state == UNFINISHED
    assert all(x.kept is None for x in figures.languages)


def test_a_set_that_the_trainer_draws_from_is_not_called_balanced(work: Path, tmp_path: Path) -> None:
    part, w = tmp_path / "W", str(work)
    shutil.copytree(work, part, ignore=shutil.ignore_patterns("curated", "report.html"))
    pairs = ["--matched", f"{w}/matched", "--siblings", f"{w}/siblings", "--thresholds", f"{w}/thresholds.json", "--seed", "1"]
    run_job("balance", [*pairs, "--keep-siblings", "--output", f"{part}/curated"])
    page, kept = Page(report(part)), open_stage(f"{part}/curated", "balance").counters["emitted"]
    assert f" and {kept} were kept for a trainer that draws from them anew in each epoch: " in page.texts["lead"][0]
    assert dict(zip(page.texts["dt"][:7], page.texts["dd"][:7], strict=True))["to draw from"] == str(kept)


def test_a_stage_of_other_entries_is_named_and_not_read(work: Path, tmp_path: Path) -> None:
    part = tmp_path / "W"
    part.mkdir()
    for name in ORDER:
        (part / name).symlink_to(work / name)
    (part / "counts").unlink()
    stage(part / "counts", "count", {"en": pa.table({"id": pa.array([0], pa.int32()), "count": [1]})}, upstream={"entries": "another"})
    figures = gather(str(part))
    states = {s.name: s.state for s in figures.stages}
    assert states["counts"] == ELSEWHERE
    assert figures.stage("counts").detail == f"entries (another) than the one here ({open_stage(str(work / 'entries'), 'entries').id})"
    assert figures.curves == []
    assert "made from another entries (another)" in report(part)


def test_an_empty_directory_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(JobError, match="holds none of ngrams, titles"):
        gather(str(tmp_path))
    assert worldclip(["report", "--work", str(tmp_path)]) == 1
    assert "--work is the directory in which the stages lie" in capsys.readouterr().err


def test_an_entry_that_is_not_in_the_list_is_a_mistake(work: Path, tmp_path: Path) -> None:
    part = tmp_path / "W"
    shutil.copytree(work, part)
    names = pa.table({"entry": ENTRIES["en"][:1]})
    pq.write_table(names, part / "entries" / "en.parquet")
    with pytest.raises(JobError, match="en has 1 entries, but a pair matches number"):
        gather(str(part))


def test_three_hundred_languages(tmp_path: Path) -> None:
    codes = metadata_codes()
    rows = [(lang, f"https://i.example/{lang}/{i}", f"caption {i}", [0]) for n, lang in enumerate(codes) for i in range(1 + n % 3)]
    parameters = {"languages": sorted(codes)}
    stage(tmp_path / "matched", "match", {"0": matched_table(rows)}, parameters=parameters, upstream={"entries": "e"})
    page = Page(report(tmp_path))
    assert len(page.rows["languages"]) == len(codes) + 1
    assert len(page.texts["name"]) == 40


def test_training_is_told_without_times(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    records = [
        {"step": 50, "samples": 6400, "loss": 3.5, "samples_per_second": 17.25, "data_wait": 0.1},
        {"step": 100, "samples": 12800, "loss": 2.25, "samples_per_second": 18.5, "data_wait": 0.1},
        {"step": 50, "samples": 6400, "evaluation": {"shapes": {"en": {"accuracy": 0.5}}}},
        {
            "step": 100,
            "samples": 12800,
            "evaluation": {
                "shapes": {"en": {"accuracy": 0.625, "accuracy@5": 0.9, "per_class": [0.5, 0.75], "images": 16}},
                "captions": {"fr": {"image_to_text@1": 0.25, "text_to_image@1": 0.125, "image_to_text@5": 0.5}},
            },
        },
    ]
    log.write_text("\n".join(map(json.dumps, records)) + '\n{"step": 150, "lo')
    assert training_lines(str(log)) == [
        ("step", "100"),
        ("samples", "12,800"),
        ("loss", "2.25"),
        ("shapes: accuracy, English, step 100", "62.5 %"),
        ("captions: image to text@1, French, step 100", "25.0 %"),
        ("captions: text to image@1, French, step 100", "12.5 %"),
    ]
    assert training_lines(str(tmp_path / "absent")) == []


def test_numbers_in_words() -> None:
    assert [number(x) for x in (None, 0, 1234567, float("inf"))] == ["–", "0", "1,234,567", "∞"]
    assert [short(x) for x in (0, 9999, 10_000, 123_456, 1_500_000, 2_500_000_000)] == ["0", "9,999", "10.0 k", "123 k", "1.50 M", "2.50 G"]
    assert [share(*x) for x in ((1, 7), (None, 7), (1, 0), (4, 10_000), (0, 5), (5, 5))] == [
        "14.3 %",
        "–",
        "–",
        "0.04 %",
        "0.0 %",
        "100.0 %",
    ]


# -- in a browser --------------------------------------------------------------------------------------------------------------------


class Browser:
    """A headless Chromium that is spoken to over a pipe, in the DevTools protocol."""

    def __init__(self, program: str, profile: Path) -> None:
        (child_in, self._out), (self._in, child_out) = os.pipe(), os.pipe()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        flags += ["--disable-sync", "--no-first-run", f"--user-data-dir={profile}", "--remote-debugging-pipe"]
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{child_in} 4>&{child_out}', "bash", program, *flags],
            pass_fds=(child_in, child_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(child_in)
        os.close(child_out)
        self._buffer, self._numbers = b"", itertools.count(1)
        self.events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            data = os.read(self._in, 1 << 16)
            assert data, "the browser is gone"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        n = next(self._numbers)
        session = {"sessionId": self.session} if hasattr(self, "session") else {}
        os.write(self._out, json.dumps({"id": n, "method": method, "params": params, **session}).encode() + b"\0")
        while (message := self._read()).get("id") != n:
            self.events.append(message)
        assert "error" not in message, message
        return dict(message["result"])

    def open(self, page: Path) -> None:
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        self.ask("Page.navigate", url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def value(self, expression: str) -> Any:
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def close(self) -> None:
        os.close(self._out)
        os.close(self._in)
        self._process.kill()
        self._process.wait()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    program = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium here: the page was not opened in a browser")
    opened = Browser(program, tmp_path / "profile")
    with contextlib.closing(opened):
        yield opened


def test_in_a_browser_nothing_is_asked_for_nothing_fails_and_the_table_sorts(work: Path, tmp_path: Path, browser: Browser) -> None:
    page = tmp_path / "r.html"
    report(work, page)
    browser.open(page)
    column = '[...document.querySelectorAll("table.sortable tbody tr")].map((row) => row.cells[{}].dataset.v)'

    def click(i: int) -> list[Any]:
        browser.value(f'document.querySelectorAll("table.sortable th button")[{i}].click()')
        return list(browser.value(column.format(i)))

    for i, attribute in ((1, "matched"), (3, "kept"), (5, "t"), (7, "entries")):
        values = [getattr(x, attribute) for x in gather(str(work)).languages]
        assert [float(v) for v in click(i)] == sorted(values, reverse=True)
        assert [float(v) for v in click(i)] == sorted(values)
    assert click(0) == ["Chinese", "English", "Hebrew", "Other languages"]
    assert click(0) == ["Other languages", "Hebrew", "English", "Chinese"]
    assert browser.value('document.querySelector("th[aria-sort]").textContent') == "language"
    assert browser.value("document.title") == "worldclip: what went in and what came out"
    assert browser.value('getComputedStyle(document.querySelector("polyline.after")).strokeWidth') == "2px"
    assert browser.value('[...document.querySelectorAll("svg")].every((x) => x.getBoundingClientRect().width > 100)')
    browser.ask("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
    assert browser.value("document.documentElement.scrollWidth") == 390
    trouble = [e for e in browser.events if e["method"] in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")]
    assert trouble == []
    asked_for = [e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked_for if not url.startswith("data:")] == [page.as_uri()]
