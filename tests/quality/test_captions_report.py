"""The tables on a few captions, counted by hand, and those of the document that no list of entries decides."""

from __future__ import annotations

import gzip
import json
import pathlib
import re
import sys

import pytest

from pipelines.jobs import run_job
from tests.quality import captions_report
from tests.quality.captions_report import languages, print_table, read, shown

DOCUMENT = pathlib.Path(__file__).resolve().parents[2] / "docs" / "captions-report.md"

CAPTIONS = {
    "en": ["A black dog runs on the white beach", "A high-flying kite, in the blue sky"],
    "de": ["Ein schwarzer Hund rennt am weißen Strand", ""],
    "fr": ["Un chien noir court sur la plage d'une ville", "Un homme vêtu d'une veste court sur la plage"],
    "cs": ["Černý pes běží po bílé pláži", "Muž ve žlutém tričku běží po pláži"],
}
PAGES = [
    "A black dog runs on the white beach",
    "Un e\u0301te\u0301 sur la plage de la ville, le chien court",
    "A black dog runs on the white beach",
]
ENTRIES = {"en": ["dog", "flying", "a"], "fr": ["d", "une", "plage", "été", "e\u0301cole"]}


def packed(path: pathlib.Path, lines: list[str]) -> None:
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("captions")
    for lang, (train, val) in CAPTIONS.items():
        packed(folder / f"multi30k-train.{lang}.gz", [train])
        packed(folder / f"multi30k-val.{lang}.gz", [val])
    packed(folder / "multi30k-train.images.txt.gz", ["1.jpg"])
    packed(folder / "multi30k-val.images.txt.gz", ["2.jpg"])
    packed(folder / "crawl-alts.txt.gz", PAGES)
    return folder


@pytest.fixture(scope="module")
def work(folder: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Entries and matched pairs by both rule sets."""
    work = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch, (work / "pairs.jsonl").open("w") as file:
        patch.setattr(sys, "argv", ["captions_report", "pairs", "--captions", str(folder)])
        patch.setattr(sys, "stdout", file)
        captions_report.main()
    for lang, entries in ENTRIES.items():
        (work / f"{lang}.json").write_text(json.dumps(entries))
    for rules in ("published", "unicode"):
        lists = [f"{lang}={work}/{lang}.json" for lang in ENTRIES]
        run_job("entries", ["--metadata-json", *lists, "--rules", rules, "--output", f"{work}/entries-{rules}"])
        pairs = ["--format", "jsonl", "--carry", "truth", "--input", f"{work}/pairs.jsonl"]
        run_job("match", [*pairs, "--entries", f"{work}/entries-{rules}", "--output", f"{work}/{rules}"])
    return work


def run(argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["captions_report", *argv])
    captions_report.main()
    return capsys.readouterr().out.splitlines()


def test_pairs_are_captions_with_their_images_and_each_text_of_a_page_once(work: pathlib.Path) -> None:
    pairs = [json.loads(line) for line in (work / "pairs.jsonl").read_text().splitlines()]
    texts = [(lang, f"{i}.jpg", text) for lang, two in CAPTIONS.items() for i, text in enumerate(two, 1) if text]
    expected = [*texts, ("crawl", "crawl-0", PAGES[0]), ("crawl", "crawl-1", PAGES[1])]
    assert pairs == [
        {"url": f"https://captions.example.org/{image}", "image_id": image, "text": text, "truth": truth} for truth, image, text in expected
    ]


def test_languages_found(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["languages", "--captions", str(folder)], monkeypatch, capsys) == [
        "| language | captions | its list | other | the rest |",
        "|---|---|---|---|---|",
        "| en | 2 | 100.0% | 0.0% |  |",
        "| de | 1 | 100.0% | 0.0% |  |",
        "| fr | 2 | 100.0% | 0.0% |  |",
        "| cs | 2 | 100.0% | 0.0% |  |",
        "| crawl | 2 | - | 0.0% | en 1, fr 1 |",
        "",
    ]


def arguments(folder: pathlib.Path, work: pathlib.Path) -> list[str]:
    matched = [f"{rules}={work}/{rules}" for rules in ("published", "unicode")]
    return ["--captions", str(folder), "--entries", f"{work}/entries-published", "--matched", *matched]


def test_matches(folder: pathlib.Path, work: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["matches", *arguments(folder, work), "--show", "2"], monkeypatch, capsys) == [
        "| language | captions | rules | matched | share | entries per caption |",
        "|---|---|---|---|---|---|",
        "| en | 2 | published | 1 | 50.0% | 1.00 |",
        "| en | 2 | unicode | 2 | 100.0% | 1.00 |",
        "| de | 1 | published | 0 | 0.0% | 0.00 |",
        "| de | 1 | unicode | 0 | 0.0% | 0.00 |",
        "| fr | 2 | published | 2 | 100.0% | 1.00 |",
        "| fr | 2 | unicode | 2 | 100.0% | 3.00 |",
        "| cs | 2 | published | 0 | 0.0% | 0.00 |",
        "| cs | 2 | unicode | 0 | 0.0% | 0.00 |",
        "| crawl | 2 | published | 2 | 100.0% | 1.00 |",
        "| crawl | 2 | unicode | 2 | 100.0% | 1.00 |",
        "",
        "| language | entries |",
        "|---|---|",
        "| en | dog 1 |",
        "| de |  |",
        "| fr | plage 2 |",
        "| cs |  |",
        "",
    ]


def test_differences(folder: pathlib.Path, work: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(["differences", *arguments(folder, work)], monkeypatch, capsys)
    french = found.pop(4)
    assert found == [
        "| language | published alone | unicode alone | of one character | longer ones |",
        "|---|---|---|---|---|",
        "| en | 0 | 1 | 0 | `A high-[flying] kite, i…` |",
        "| de | 0 | 0 | 0 |  |",
        "| cs | 0 | 0 | 0 |  |",
        "| crawl | 0 | 0 | 0 |  |",
        "",
        "| language | texts that unicode alone matches | by one character | others |",
        "|---|---|---|---|",
        "| en | 1 | 0 | `A high-flying kite, in the bl…` |",
        "| de | 0 | 0 |  |",
        "| fr | 0 | 0 |  |",
        "| cs | 0 | 0 |  |",
        "| crawl | 0 | 0 |  |",
        "",
    ]
    examples = "`…plage d'[une] ville`", "`… vêtu d'[une] veste c…`"
    assert french in {f"| fr | 0 | 4 | 2 | {', '.join(order)} |" for order in (examples, examples[::-1])}


def test_nfc(folder: pathlib.Path, work: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["nfc", *arguments(folder, work)], monkeypatch, capsys) == [
        "| language | captions | changed | other list in NFC | other list in NFD "
        "| matched | matched NFC | matched NFD | entries | entries NFC | entries NFD |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        "| en | 2 | 0 | 0 | 0 | 1 | 1 | 1 | 1 | 1 | 1 |",
        "| de | 1 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 |",
        "| fr | 2 | 0 | 0 | 0 | 2 | 2 | 2 | 2 | 2 | 2 |",
        "| cs | 2 | 0 | 0 | 2 | 0 | 0 | 0 | 0 | 0 | 0 |",
        "| crawl | 2 | 1 | 0 | 0 | 2 | 2 | 2 | 2 | 3 | 2 |",
        "",
        "| list | entries | changed |",
        "|---|---|---|",
        "| en | 3 | 0 |",
        "| fr | 5 | 1 |",
        "| all 2 | 8 | 1 |",
        "",
    ]


@pytest.mark.parametrize(
    ("entry", "text", "expected"),
    [
        ("at", "a cat at the door", "a cat [at] the doo…"),
        ("t", "don't stop here now", "don'[t] stop he…"),
        ("猫", "黒い猫がいる", "黒い[猫]がいる"),
        ("a", "a", "[a]"),
    ],
)
def test_an_example_shows_the_entry_as_a_word_if_it_is_one(entry: str, text: str, expected: str) -> None:
    assert shown(entry, text) == expected


def test_a_bar_does_not_end_a_cell(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([["a", "b"], ["x|y", 1]])
    assert capsys.readouterr().out == "| a | b |\n|---|---|\n| x\\|y | 1 |\n\n"


def test_the_languages_of_the_document(shared_data: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_table(languages(list(read(shared_data / "captions"))))
    assert capsys.readouterr().out in DOCUMENT.read_text(encoding="utf-8")


def test_the_captions_of_the_document_that_nfc_changes(shared_data: pathlib.Path) -> None:
    captions = list(read(shared_data / "captions"))
    rows = re.findall(r"^\| (\w+) \| ([\d,]+) \| ([\d,]+)(?: \| [\d,]+){8} \|$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    expected = []
    for truth in captions_report.TRUTHS:
        texts = [caption.text for caption in captions if caption.truth == truth]
        expected.append((truth, f"{len(texts):,}", f"{captions_report.changed(texts):,}"))
    assert rows == expected
