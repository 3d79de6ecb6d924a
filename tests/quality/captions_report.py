"""What becomes of captions whose language is known: the languages found, the entries matched by two rule sets, and what NFC would change.

``pairs`` writes the captions as pairs of one's own, to be matched once by each rule set; ``languages``, ``matches``, ``differences`` and
``nfc`` print the tables of docs/captions-report.md.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from metadata.text import normalize_text, space_texts
from pipelines.automata import automata
from pipelines.match import MatchConfig, identify
from pipelines.part import read_part, read_parts
from pipelines.stage import FinishedStage, open_stage

LANGUAGES = ("en", "de", "fr", "cs")
#: What stands in the place of a language for texts of pages, whose language nobody said.
CRAWL = "crawl"
#: Captions in a language, and the distinct texts of pages.
TRUTHS = (*LANGUAGES, CRAWL)
#: Characters that are shown at each side of an entry.
AROUND = 8
#: Most characters of a text that is shown by itself.
QUOTE = 30
#: What is read of matched pairs.
MATCHED = pa.schema([("truth", pa.string()), ("text", pa.string()), ("lang", pa.string()), ("entries", pa.list_(pa.int32()))])

T = TypeVar("T")
Row = Sequence[str | int]


@dataclass(frozen=True, kw_only=True)
class Caption:
    """A caption of an image. ``truth``: its language, or ``crawl``."""

    image: str
    text: str
    truth: str


def lines(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        return [normalize_text(line) for line in file]


def read(folder: Path) -> Iterator[Caption]:
    """The captions in ``multi30k-*.gz``, language by language, and the distinct texts in ``crawl-alts.txt.gz``; none that is empty."""
    images = [image for part in ("train", "val") for image in lines(folder / f"multi30k-{part}.images.txt.gz")]
    for lang in LANGUAGES:
        texts = [text for part in ("train", "val") for text in lines(folder / f"multi30k-{part}.{lang}.gz")]
        yield from (Caption(image=image, text=text, truth=lang) for image, text in zip(images, texts, strict=True) if text)
    texts = list(dict.fromkeys(lines(folder / "crawl-alts.txt.gz")))
    yield from (Caption(image=f"{CRAWL}-{i}", text=text, truth=CRAWL) for i, text in enumerate(texts) if text)


def by_truth(items: Iterable[tuple[str, T]]) -> dict[str, list[T]]:
    groups: dict[str, list[T]] = {truth: [] for truth in TRUTHS}
    for truth, item in items:
        groups[truth].append(item)
    return groups


def share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def lists_of(texts: Sequence[str]) -> list[str]:
    """The list of entries that each text is held against."""
    return identify(texts, model=None, min_score=MatchConfig.lid_min_score)[2]


# -- languages -----------------------------------------------------------------------------------------------------------------------


def languages(captions: Sequence[Caption], *, others: int = 5) -> Iterator[Row]:
    """Of each language how many captions get its list, the list ``other``, and the most frequent of the rest."""
    yield ["language", "captions", "its list", "other", "the rest"]
    for truth, texts in by_truth((caption.truth, caption.text) for caption in captions).items():
        found = Counter(lists_of(texts))
        rest = sorted(((lang, n) for lang, n in found.items() if lang not in (truth, "other")), key=lambda item: (-item[1], item[0]))
        named = ", ".join(f"{lang} {n:,}" for lang, n in rest[:others])
        its = share(found[truth], len(texts)) if truth in LANGUAGES else "-"
        yield [truth, f"{len(texts):,}", its, share(found["other"], len(texts)), named]


# -- matches -------------------------------------------------------------------------------------------------------------------------


def entries_of(stage: FinishedStage, lang: str) -> list[str]:
    entries: list[str] = read_part(stage.part_url(f"{lang}.parquet"), columns=["entry"])["entry"].to_pylist()
    return entries


def read_matched(url: str) -> pa.Table:
    """All matched pairs of a stage."""
    tables = read_parts(open_stage(url, "match"), columns=MATCHED.names)
    return pa.concat_tables([table.cast(MATCHED) for table in tables])


def matches(captions: Sequence[Caption], matched: dict[str, pa.Table]) -> Iterator[Row]:
    """Of each language and rule set: captions, those that match, and entries per caption that matches."""
    yield ["language", "captions", "rules", "matched", "share", "entries per caption"]
    totals = Counter(caption.truth for caption in captions)
    for truth in TRUTHS:
        for rules, table in matched.items():
            entries = table.filter(pc.equal(table["truth"], truth))["entries"]
            mean = pc.mean(pc.list_value_length(entries)).as_py() or 0
            yield [truth, f"{totals[truth]:,}", rules, f"{len(entries):,}", share(len(entries), totals[truth]), f"{mean:.2f}"]


def top_entries(matched: pa.Table, entries: FinishedStage, *, count: int) -> Iterator[Row]:
    """Of each language the entries of its list that most of its captions hold, and how many do."""
    yield ["language", "entries"]
    for truth in LANGUAGES:
        mine = matched.filter(pc.and_(pc.equal(matched["truth"], truth), pc.equal(matched["lang"], truth)))
        found = Counter(mine["entries"].combine_chunks().flatten().to_pylist())
        ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))[:count]
        names = entries_of(entries, truth) if ranked else []
        yield [truth, ", ".join(f"{names[i]} {n:,}" for i, n in ranked)]


# -- differences ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Find:
    """An entry of a list in a text."""

    lang: str
    text: str
    entry: str


def finds_by_truth(matched: pa.Table, entries: FinishedStage) -> dict[str, set[Find]]:
    """The finds of each language; the same text counts once."""
    names = {lang: entries_of(entries, lang) for lang in sorted(pc.unique(matched["lang"]).to_pylist())}
    rows = zip(*(matched[name].to_pylist() for name in ("truth", "lang", "text", "entries")), strict=True)
    finds = ((truth, Find(lang=lang, text=text, entry=names[lang][i])) for truth, lang, text, found in rows for i in found)
    return {truth: set(found) for truth, found in by_truth(finds).items()}


def drawn(finds: Iterable[Find], count: int) -> list[Find]:
    """Those with the least hashes."""
    return sorted(finds, key=lambda find: hashlib.blake2b(f"{find.lang}\0{find.entry}\0{find.text}".encode(), digest_size=8).digest())[
        :count
    ]


def shown(entry: str, text: str) -> str:
    """The entry in square brackets, where it stands as a word if it does, and what is beside it."""
    whole = re.search(rf"(?<!\w){re.escape(entry)}(?!\w)", text)
    start = whole.start() if whole else max(0, text.find(entry))
    end = start + len(entry)
    before, after = text[max(0, start - AROUND) : start], text[end : end + AROUND]
    return f"{'…' * (start > AROUND)}{before}[{text[start:end]}]{after}{'…' * (end + AROUND < len(text))}"


def differences(ours: dict[str, set[Find]], theirs: dict[str, set[Find]], *, names: tuple[str, str], examples: int) -> Iterator[Row]:
    """Of each language how many finds each rule set has alone; of those of the second the ones of one character, and some longer ones."""
    yield ["language", *(f"{name} alone" for name in names), "of one character", "longer ones"]
    for truth in TRUTHS:
        more = theirs[truth] - ours[truth]
        longer = [find for find in more if len(find.entry) > 1]
        numbers = (len(ours[truth] - theirs[truth]), len(more), len(more) - len(longer))
        yield [truth, *(f"{n:,}" for n in numbers), ", ".join(f"`{shown(find.entry, find.text)}`" for find in drawn(longer, examples))]


def texts_gained(ours: dict[str, set[Find]], theirs: dict[str, set[Find]], *, name: str, examples: int) -> Iterator[Row]:
    """Of each language how many texts the second rule set alone matches, how many of them by entries of one character, and some others."""
    yield ["language", f"texts that {name} alone matches", "by one character", "others"]
    for truth in TRUTHS:
        before = {find.text for find in ours[truth]}
        longest: dict[str, Find] = {}
        for find in theirs[truth]:
            if find.text not in before:
                longest[find.text] = max(find, longest.get(find.text, find), key=lambda found: (len(found.entry), found.entry))
        others = [find for find in longest.values() if len(find.entry) > 1]
        shown_texts = (f"`{find.text if len(find.text) <= QUOTE else f'{find.text[: QUOTE - 1]}…'}`" for find in drawn(others, examples))
        yield [truth, f"{len(longest):,}", f"{len(longest) - len(others):,}", ", ".join(shown_texts)]


# -- NFC -----------------------------------------------------------------------------------------------------------------------------


def changed(texts: Iterable[str]) -> int:
    """How many of the texts are others in NFC."""
    return sum(not unicodedata.is_normalized("NFC", text) for text in texts)


def in_form(texts: Sequence[str], form: Literal["NFC", "NFD"]) -> list[str]:
    return [unicodedata.normalize(form, text) for text in texts]


def count_finds(texts: Sequence[str], lists: Sequence[str], entries: FinishedStage) -> np.ndarray:
    """How many entries of its list are in each text."""
    matchers = automata(entries.url, entries.id, "daachorse", MatchConfig.automata_memory)
    there = {part["name"].removesuffix(".parquet") for part in entries.parts}
    found = np.zeros(len(texts), dtype=np.int64)
    for lang in sorted(there & set(lists)):
        mine = [i for i, name in enumerate(lists) if name == lang]
        matcher = matchers.open(lang)
        found[mine] = np.diff(matcher.find(space_texts([texts[i] for i in mine], matcher.rules))[1])
    return found


def nfc_of_captions(captions: Sequence[Caption], entries: FinishedStage) -> Iterator[Row]:
    """Of each language the captions that NFC changes; those that another list gets, those that match, and the entries found, as the
    captions are, were all in NFC, and were all in NFD."""
    moved = [f"other list in {form}" for form in ("NFC", "NFD")]
    yield [
        "language",
        "captions",
        "changed",
        *moved,
        *(f"{what}{form}" for what in ("matched", "entries") for form in ("", " NFC", " NFD")),
    ]
    for truth, texts in by_truth((caption.truth, caption.text) for caption in captions).items():
        forms = (texts, in_form(texts, "NFC"), in_form(texts, "NFD"))
        lists = [lists_of(form) for form in forms]
        found = [count_finds(form, names, entries) for form, names in zip(forms, lists, strict=True)]
        other = [sum(a != b for a, b in zip(lists[0], names, strict=True)) for names in lists[1:]]
        numbers = (len(texts), changed(texts), *other, *(int((n > 0).sum()) for n in found), *(int(n.sum()) for n in found))
        yield [truth, *(f"{n:,}" for n in numbers)]


def nfc_of_entries(entries: FinishedStage) -> Iterator[Row]:
    """How many entries NFC changes: of the languages of captions, of others where it changes any, and of all lists."""
    yield ["list", "entries", "changed"]
    listed = {lang: entries_of(entries, lang) for lang in sorted(part["name"].removesuffix(".parquet") for part in entries.parts)}
    counts = {lang: (len(texts), changed(texts)) for lang, texts in listed.items()}
    yield from ([lang, *(f"{n:,}" for n in row)] for lang, row in counts.items() if lang in LANGUAGES or row[1])
    yield [f"all {len(counts)}", *(f"{sum(column):,}" for column in zip(*counts.values(), strict=True))]


# -- the command ---------------------------------------------------------------------------------------------------------------------


def print_table(rows: Iterable[Row]) -> None:
    """As Markdown; a vertical bar in a cell is escaped."""
    for i, row in enumerate(rows):
        print("|", " | ".join(str(cell).replace("|", r"\|") for cell in row), "|")
        if i == 0:
            print("|" + "---|" * len(row))
    print()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.quality.captions_report", description=__doc__)
    parser.add_argument("what", choices=("pairs", "languages", "matches", "differences", "nfc"), help="what to print")
    parser.add_argument("--captions", metavar="DIR", type=Path, required=True, help="where multi30k-*.gz and crawl-alts.txt.gz lie")
    parser.add_argument("--entries", metavar="DIR", help="the finished stage of the job entries")
    parser.add_argument("--matched", metavar="NAME=DIR", nargs="+", help="of each rule set, what matching the pairs gave")
    parser.add_argument("--show", metavar="N", type=int, default=10, help="entries and examples to show (default: 10)")
    arguments = parser.parse_args()
    captions = list(read(arguments.captions))
    if arguments.what == "pairs":
        for caption in captions:
            url = f"https://captions.example.org/{caption.image}"
            pair = {"url": url, "image_id": caption.image, "text": caption.text, "truth": caption.truth}
            print(json.dumps(pair, ensure_ascii=False))
        return
    if arguments.what == "languages":
        print_table(languages(captions))
        return
    entries = open_stage(arguments.entries, "entries")
    if arguments.what == "nfc":
        print_table(nfc_of_captions(captions, entries))
        print_table(nfc_of_entries(entries))
        return
    matched = {name: read_matched(url) for name, _, url in (item.partition("=") for item in arguments.matched)}
    if arguments.what == "matches":
        print_table(matches(captions, matched))
        print_table(top_entries(next(iter(matched.values())), entries, count=arguments.show))
    else:
        one, two = list(matched)
        ours, theirs = (finds_by_truth(table, entries) for table in matched.values())
        print_table(differences(ours, theirs, names=(one, two), examples=arguments.show))
        print_table(texts_gained(ours, theirs, name=two, examples=2 * arguments.show))


if __name__ == "__main__":
    main()
