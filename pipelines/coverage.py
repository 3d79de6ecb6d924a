"""coverage: hold captions of one's own against the entries. A single process; it needs no images and writes no stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from balancing.captions import read_captions
from balancing.coverage import BUCKETS, Coverage, CoverageCounter, ListsOf
from balancing.frequent import MEMORY
from metadata.languages import OTHER, Language, all_languages
from metadata.tally import Tally, chain
from pipelines import storage
from pipelines.automata import Automata
from pipelines.diff import printable
from pipelines.entries import list_of
from pipelines.errors import JobError
from pipelines.match import identify
from pipelines.options import byte_size, option, positive
from pipelines.part import read_part
from pipelines.stage import FinishedStage, open_stage

ABOUT = """Hold captions against the lists of entries: how many match, how many entries each, and what the lists lack.

Captions are lines of a text file (UTF-8, plain or .gz, .bz2, .xz), or a column of a Parquet file. Without --language the language of every
caption is identified as the job match does it, and captions of a language without a list are left out. Missing words are those of the
captions that are no entries, found by the rules by which n-grams are counted."""

FORMAT_VERSION = 1
AUTO = "auto"
#: Lists that are printed with a line, and those with their words and captions: the ones with most captions; --json has all.
_MOST_LINES, _MOST_DETAILED = 20, 5


@dataclass(frozen=True, kw_only=True)
class CoverageConfig:
    entries: str = option("the finished stage of the job entries", metavar="DIR")
    captions: tuple[str, ...] = option("files, globs or URLs of the captions", metavar="PATH")
    column: str = option("the column of a Parquet file that holds the captions", default="text", metavar="NAME")
    language: str = option("what the captions are written in: a language code, or auto to identify it", default=AUTO, metavar="CODE")
    lid_model: str | None = option("a fastText model file for auto instead of the embedded lid.176.ftz", default=None, metavar="FILE")
    lid_min_score: float = option("with auto, texts below this score go to the list 'other'", default=0.2, metavar="SCORE")
    top: int = option("how many missing words and captions without a match to show, per language", default=20, parse=positive, metavar="N")
    memory: int = option(
        "words, and captions without a match, are counted exactly while they take no more than this each",
        default=MEMORY,
        parse=byte_size,
        metavar="SIZE",
    )
    automata_memory: int = option("memory budget for automata", default=2 << 30, parse=byte_size, metavar="SIZE")
    json: str = option("write the result as JSON to this file too, with all languages", default="", metavar="FILE")

    def __post_init__(self) -> None:
        if not 0 <= self.lid_min_score <= 1:
            raise ValueError(f"--lid-min-score must lie between 0 and 1, not {self.lid_min_score}")


def lists_of(config: CoverageConfig, built: Sequence[str]) -> ListsOf:
    """What says against which list a caption is held.

    Raises:
        JobError: the language is unknown, or its list is not there.
    """
    if config.language == AUTO:
        return lambda texts: identify(texts, model=config.lid_model, min_score=config.lid_min_score)[2]
    try:
        name = list_of(config.language)
    except ValueError as error:
        raise JobError(f"--language: {error}") from error
    if name not in built:
        whose = f"{config.language}, whose entries are in the list {name}," if name != config.language else name
        raise JobError(f"{config.entries} has no list for {whose} but for {', '.join(built)}")
    return lambda texts: [name] * len(texts)


def written_in(config: CoverageConfig, name: str) -> Language | None:
    """The language by whose rules the words of a list's captions are found: the one that was named, else that of the list."""
    return all_languages().get(name if config.language in (AUTO, OTHER) else config.language)


def count(config: CoverageConfig, entries: FinishedStage) -> tuple[CoverageCounter, dict[str, Tally], Tally]:
    """Read all captions: what is known of them, the account of every file, and that of matching.

    Raises:
        JobError: a file cannot be used.
    """
    sizes = {part["name"].removesuffix(".parquet"): part["rows"] for part in entries.parts}
    choose = lists_of(config, sorted(sizes))
    automata = Automata(config.entries, entries.id, "daachorse", config.automata_memory)
    counter = CoverageCounter(sizes=sizes, open_matcher=automata.open, words_of=lambda name: written_in(config, name), memory=config.memory)
    reading: dict[str, Tally] = {}
    matching = Tally()
    for file in storage.expand(config.captions, flag="--captions"):
        reading[file.url] = Tally()
        try:
            with storage.open_read(file.url) as opened:
                for captions in read_captions(opened, column=config.column, tally=reading[file.url]):
                    counter.add(captions, choose, tally=matching)
        except ValueError as error:
            raise JobError(f"{file.url}: {error}") from error
    return counter, reading, matching


def in_all(tallies: Iterable[Tally]) -> Tally:
    """One account of several files, without their dead letters."""
    total = Tally()
    for tally in tallies:
        total.read += tally.read
        total.emitted += tally.emitted
        total.dropped.update(tally.dropped)
        total.dead.update(tally.dead)
    return total


# -- what is printed -----------------------------------------------------------------------------------------------------------------


def print_account(tally: Tally, reading: Mapping[str, Tally]) -> None:
    share = f" ({tally.emitted / tally.read:.2%})" if tally.read else ""
    print(f"captions: read {tally.read:,}, matched {tally.emitted:,}{share}")
    for name, reasons in (("dropped", tally.dropped), ("dead letters", tally.dead)):
        if reasons:
            most = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
            print(f"  {name}: " + ", ".join(f"{reason} {n:,}" for reason, n in most))
    broken = next(((url, letter) for url, file in reading.items() for letter in file.letters), None)
    if broken:
        url, letter = broken
        print(f"  the first dead letter: {url}, place {letter.place:,}: {letter.reason} ({letter.detail})")


def print_table(found: dict[str, Coverage]) -> None:
    """A line per list: how many captions, how many of them match how many entries."""
    head = "".join(f"{name:>8}" for name, _, _ in BUCKETS)
    print(f"{'language':12}{'captions':>12}{'matched':>9}{head}{'mean':>8}{'median':>8}{'entries':>11}{'of them met':>13}")
    for lang, x in list(found.items())[:_MOST_LINES]:
        shares = "".join(f"{n / x.captions:8.1%}" for n in x.by_matches.values())
        print(f"{lang:12}{x.captions:12,}{x.matched / x.captions:9.1%}{shares}{x.mean:8.2f}{x.median:8g}{x.entries:11,}{x.entries_met:13,}")


def print_details(lang: str, x: Coverage, *, words_error: int, captions_error: int) -> None:
    """The most frequent words that are no entries, and captions without a match."""
    if x.missing:
        least = "at least " if words_error else ""
        print(f"\n{lang}: frequent words that are no entries; with repeats {least}{x.words_missing:,} of {x.words:,} words")
        print_counts(x.missing, words_error)
    if x.unmatched:
        print(f"\n{lang}: frequent captions without a match, of {x.captions - x.matched:,}")
        print_counts(x.unmatched, captions_error)


def print_counts(counts: Sequence[tuple[str, int]], error: int) -> None:
    if error:
        print(f"  too many to count exactly: a count may be too small by {error:,}; a larger --memory counts more")
    for text, n in counts:
        print(f"{n:10,}  {printable(text)}")


def main(config: CoverageConfig, beam_args: Sequence[str]) -> None:
    if beam_args:
        raise JobError(f"coverage does not know {beam_args[0]}")
    entries = open_stage(config.entries, "entries")
    counter, reading, matching = count(config, entries)
    tally = chain(in_all(reading.values()), matching)
    found = {
        lang: counter.coverage(lang, read_part(entries.part_url(f"{lang}.parquet"), columns=["entry"])["entry"], config.top)
        for lang in counter.lists()
    }
    print_account(tally, reading)
    if found:
        print_table(found)
    for lang in list(found)[:_MOST_DETAILED]:
        print_details(lang, found[lang], words_error=counter.words.error, captions_error=counter.unmatched.error)
    if len(found) > _MOST_DETAILED:
        print(f"\nwords and captions of {len(found) - _MOST_DETAILED} more languages: see --json")
    if config.json:
        counters = tally.counters() | {"files": len(reading), "bad_files": sum(bool(file.bad_file) for file in reading.values())}
        letters = [
            {"input": url, "place": letter.place, "reason": letter.reason, "detail": letter.detail}
            for url, file in reading.items()
            for letter in file.letters
        ]
        body = {
            "format_version": FORMAT_VERSION,
            "entries": entries.id,
            "counters": counters,
            "dead_letters": letters,
            "words_error": counter.words.error,
            "captions_error": counter.unmatched.error,
            "languages": {lang: x.to_json() for lang, x in found.items()},
        }
        storage.write_json(config.json, body)
