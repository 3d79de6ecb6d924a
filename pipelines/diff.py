"""diff: what came and what went between two results. Needs no Beam."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from balancing.overlap import LanguageOverlap, total
from balancing.own import is_damage
from metadata.difference import LIST_SCHEMA, Difference, compare_lists
from metadata.entries import SOURCES, entries_from_json
from metadata.languages import check_metadata_code
from metadata.tally import Tally
from pipelines import storage
from pipelines.errors import JobError
from pipelines.options import option, positive
from pipelines.overlap import compare_sets
from pipelines.part import read_part
from pipelines.stage import Limits, Stage, open_stage

ABOUT = """Compare two sets of entries, or two curated sets: what came and what went, per language.

A and B are finished stages of the job entries. Each may also be one list: <lang>.parquet of such a stage, or a JSON list of strings; it is
compared with the same language of the other side, which its file name says or --languages. Ids are positions in a list, so lists of the
same entries in another order are told too.

Or they are finished stages of the job balance. Pairs are the same if image and text are; with --entries, the entries of the pairs that
went and came are named as well. Takes about 50 bytes a pair of temporary disk space (TMPDIR says where).

    worldclip diff W/curated W2/curated --entries W/entries"""

FORMAT_VERSION = 1
#: A list that has no language: two files are compared whatever they are called.
_UNNAMED = "list"
_SUFFIXES = (".json", ".parquet")
#: Languages of one side only that are named.
_MOST_NAMED = 20
#: Entries of a language that are shown of the pairs that went, and of those that came, unless --show says how many.
_ENTRIES_SHOWN = 10
#: Languages of which they are shown: those with most changes.
_MOST_DETAILED = 5


@dataclass(frozen=True, kw_only=True)
class DiffConfig:
    before: str = option("what there was: a finished stage, or a list in a file", metavar="A", positional=True)
    after: str = option("what there is now", metavar="B", positional=True)
    languages: str = option("codes of the languages to compare, with commas (default: all)", default="", metavar="CODES")
    entries: tuple[str, ...] = option(
        "of curated sets: the entries that both were matched with, or those of A and those of B", default=(), metavar="DIR"
    )
    show: int | None = option(
        "also show the first N entries that went and that came, per language; of curated sets, those of most pairs that did",
        default=None,
        parse=positive,
        metavar="N",
    )
    json: str = option("write the comparison as JSON to this file too", default="", metavar="FILE")

    def __post_init__(self) -> None:
        if len(self.entries) > 2:
            raise ValueError("--entries takes one stage for both sets, or one for each")

    @property
    def wanted(self) -> frozenset[str]:
        """The languages to compare; empty: all."""
        return frozenset(code.strip() for code in self.languages.split(",") if code.strip())


@dataclass(frozen=True, kw_only=True)
class Side:
    """Lists by language, to be read one at a time (``LIST_SCHEMA``), and how many entries each has; ``id`` is that of the stage."""

    url: str
    id: str | None
    sizes: Mapping[str, int]
    read: Callable[[str], pa.Table]


# -- entries -------------------------------------------------------------------------------------------------------------------------


def compare_entries(config: DiffConfig) -> dict[str, Any]:
    """The comparison of two sets of entries as JSON, printed on the way."""
    if config.entries:
        raise JobError("--entries is for curated sets; these are entries themselves")
    before, after = open_sides(config)
    wanted = config.wanted or {*before.sizes, *after.sizes}
    absent = sorted(wanted - {*before.sizes, *after.sizes})
    if absent:
        raise JobError(f"--languages {', '.join(absent)}: neither {before.url} nor {after.url} has it")
    found = {}
    for lang in sorted(wanted & before.sizes.keys() & after.sizes.keys()):
        try:
            found[lang] = compare_lists(before.read(lang), after.read(lang), show=config.show or 0)
        except ValueError as error:
            raise JobError(f"{lang} of {before.url} or {after.url}: {error}") from error
    only_before = {lang: before.sizes[lang] for lang in sorted(wanted - after.sizes.keys())}
    only_after = {lang: after.sizes[lang] for lang in sorted(wanted - before.sizes.keys())}
    print(f"before: {before.url}\nafter:  {after.url}")
    print_differences(found)
    print_alone("before", only_before)
    print_alone("after", only_after)
    return {
        "format_version": FORMAT_VERSION,
        "kind": "entries",
        "before": {"path": before.url, "id": before.id},
        "after": {"path": after.url, "id": after.id},
        "languages": {lang: x.to_json() for lang, x in found.items()},
        "only_before": only_before,
        "only_after": only_after,
    }


def open_sides(config: DiffConfig) -> tuple[Side, Side]:
    """Both sides; a list in a file has the language of its file name, of --languages, or that of the other file."""
    urls = (config.before, config.after)
    named = [_language_of(url) for url in urls if is_file(url)]
    if len(named) == 2:
        lang = named[0] if named[0] == named[1] and named[0] else _UNNAMED
        lang = config.languages or lang
    elif named:
        lang = config.languages or named[0]
        if not lang or "," in lang:
            file = next(url for url in urls if is_file(url))
            raise JobError(f"{file}: which language is it? Say --languages CODE")
    before, after = (open_file(url, lang) if is_file(url) else open_lists(url) for url in urls)
    if len(named) == 1:
        # A stage is compared with a file in one language only.
        sides = [Side(url=s.url, id=s.id, sizes={k: n for k, n in s.sizes.items() if k == lang}, read=s.read) for s in (before, after)]
        return sides[0], sides[1]
    return before, after


def is_file(url: str) -> bool:
    return url.endswith(_SUFFIXES)


def _language_of(url: str) -> str:
    """The language that the name of a list's file says, or empty."""
    stem = posixpath.basename(url).partition(".")[0]
    try:
        return check_metadata_code(stem)
    except ValueError:
        return ""


def open_lists(url: str) -> Side:
    """The lists of a finished stage."""
    stage = open_stage(url, "entries")
    sizes = {part["name"].removesuffix(".parquet"): part["rows"] for part in stage.parts}

    def read(lang: str) -> pa.Table:
        return read_part(stage.part_url(f"{lang}.parquet"), columns=LIST_SCHEMA.names).cast(LIST_SCHEMA)

    return Side(url=url, id=stage.id, sizes=sizes, read=read)


def open_file(url: str, lang: str) -> Side:
    """The list of one file.

    Raises:
        JobError: it holds no list of entries.
    """
    try:
        table = _table_of_json(url) if url.endswith(".json") else _table_of_parquet(url)
    except ValueError as error:
        raise JobError(f"{url}: {error}") from error
    return Side(url=url, id=None, sizes={lang: len(table)}, read=lambda _: table)


def _table_of_json(url: str) -> pa.Table:
    entries = entries_from_json(storage.read_bytes(url), tally=Tally())["entry"]
    # A plain list does not say where its entries come from.
    return pa.table([entries, pa.nulls(len(entries), pa.string())], schema=LIST_SCHEMA)


def _table_of_parquet(url: str) -> pa.Table:
    with storage.open_read(url) as f:
        try:
            table = pq.read_table(f)
            if "entry" not in table.column_names:
                raise ValueError(f"it has no column entry; there are {', '.join(table.column_names)}")
            entries = table["entry"].cast(pa.string())
            sources = table["source"].cast(pa.string()) if "source" in table.column_names else pa.nulls(len(table), pa.string())
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and not is_damage(error):
                raise
            raise ValueError(f"it is no Parquet file with a list of entries ({error})") from error
    if entries.null_count:
        raise ValueError("it is no list of entries: one is null")
    return pa.table([entries, sources], schema=LIST_SCHEMA)


# -- curated sets --------------------------------------------------------------------------------------------------------------------


def compare_curated(config: DiffConfig) -> dict[str, Any]:
    """The comparison of two curated sets as JSON, printed on the way."""
    if config.show and not config.entries:
        raise JobError("--show needs the lists of the entries of curated sets: --entries DIR")
    show = config.show or _ENTRIES_SHOWN
    found = compare_sets(config.before, config.after, languages=config.wanted, entries=config.entries, show=show)
    print(f"before: {config.before}\nafter:  {config.after}")
    changed = {lang: x for lang, x in found.languages.items() if not x.same}
    order = sorted(changed, key=lambda lang: (-changed[lang].went - changed[lang].came, lang))
    if order:
        print(f"{'language':12}" + "".join(f"{name:>12}" for name in ("before", "after", "kept", "went", "came")))
    for lang in order:
        print(_pairs_line(lang, changed[lang]))
    if len(order) > 1:
        print(_pairs_line("all of these", total(changed)))
    if len(found.languages) > len(changed):
        same = {lang: x for lang, x in found.languages.items() if x.same}
        print(f"the same pairs: {len(same)} {'language' if len(same) == 1 else 'languages'} ({total(same).kept:,} pairs)")
    detailed = order if config.show else order[:_MOST_DETAILED]
    for lang in detailed:
        for name, changes in (("went", found.went), ("came", found.came)):
            for change in changes.get(lang, ()):
                print(f"{lang:12}{name}{change.pairs:12,}  {printable(change.entry)}")
    if config.entries and len(order) > len(detailed):
        print(f"entries of {len(order) - len(detailed)} more languages: see --json, or --show N for all")
    return found.to_json()


def _pairs_line(lang: str, x: LanguageOverlap) -> str:
    over = [f"{n:,} {what}" for n, what in ((x.went_over, "went to another language"), (x.came_over, "came from another one")) if n]
    return (
        f"{lang:12}" + "".join(f"{n:12,}" for n in (x.before, x.after, x.kept, x.went, x.came)) + (f"  {'; '.join(over)}" if over else "")
    )


# -- what is printed -----------------------------------------------------------------------------------------------------------------


def print_differences(found: Mapping[str, Difference]) -> None:
    """A line per language that changed, most changes first, and the sum; then the entries that are to be shown."""
    changed = {lang: x for lang, x in found.items() if not x.same or x.other_source}
    order = sorted(changed, key=lambda lang: (-changed[lang].went.entries - changed[lang].came.entries, lang))
    if order:
        print(f"{'language':12}" + "".join(f"{name:>12}" for name in ("before", "after", "kept", "went", "came")) + "  by source")
    for lang in order:
        x = changed[lang]
        print(_line(lang, (x.before, x.after, x.kept, x.went.entries, x.came.entries), _by_source([x]), x))
    if len(order) > 1:
        every = list(changed.values())
        sums = [sum(n) for n in zip(*((x.before, x.after, x.kept, x.went.entries, x.came.entries) for x in every), strict=True)]
        print(_line("all of these", sums, _by_source(every)))
    if len(found) > len(changed):
        same = len(found) - len(changed)
        print(f"the same entries with the same ids: {same} {'language' if same == 1 else 'languages'}")
    for lang in order:
        for name, change in (("went", changed[lang].went), ("came", changed[lang].came)):
            for entry, source in change.first:
                print(f"{lang:12}{name}  {source:10} {printable(entry)}")


def _line(lang: str, numbers: Iterable[int], by_source: str, x: Difference | None = None) -> str:
    notes = [by_source] if by_source else []
    if x and x.other_source:
        notes.append(f"{x.other_source:,} of another source")
    if x and not (x.same or x.went.entries or x.came.entries):
        notes.append("in another order")
    return f"{lang:12}" + "".join(f"{n:12,}" for n in numbers) + (f"  {'; '.join(notes)}" if notes else "")


def _by_source(differences: Sequence[Difference]) -> str:
    """``unigram -3 +5, title +1``, in the order of merging."""
    said = []
    names = {name for x in differences for change in (x.went, x.came) for name in change.by_source}
    for name in sorted(names, key=lambda name: (SOURCES.index(name) if name in SOURCES else len(SOURCES), name)):
        went = sum(x.went.by_source.get(name, 0) for x in differences)
        came = sum(x.came.by_source.get(name, 0) for x in differences)
        said.append(name + (f" -{went:,}" if went else "") + (f" +{came:,}" if came else ""))
    return ", ".join(said)


def print_alone(side: str, sizes: Mapping[str, int]) -> None:
    """The languages that only one side has, largest first."""
    if not sizes:
        return
    largest = sorted(sizes, key=lambda lang: (-sizes[lang], lang))
    named = ", ".join(f"{lang} ({sizes[lang]:,})" for lang in largest[:_MOST_NAMED])
    more = f" and {len(sizes) - _MOST_NAMED} more" if len(sizes) > _MOST_NAMED else ""
    print(f"only {side}: {named}{more}")


def printable(text: str) -> str:
    """A text out of data as a terminal may show it: control characters are escaped."""
    return text if text.isprintable() else repr(text)


# -- the job -------------------------------------------------------------------------------------------------------------------------

#: What can be compared, by the kind of stage.
COMPARE: dict[str, Callable[[DiffConfig], dict[str, Any]]] = {"entries": compare_entries, "balance": compare_curated}


def kind_of(url: str) -> str:
    """The kind of the stage in a directory; a list in a file is entries.

    Raises:
        JobError: there is no stage, or one of a kind that is not compared.
    """
    kind = "entries" if is_file(url) else Stage.begun(url, Limits()).kind
    if kind not in COMPARE:
        raise JobError(f"{url} holds a stage '{kind}'; diff compares {', '.join(COMPARE)}")
    return kind


def main(config: DiffConfig, beam_args: Sequence[str]) -> None:
    if beam_args:
        raise JobError(f"diff does not know {beam_args[0]}")
    before, after = kind_of(config.before), kind_of(config.after)
    if before != after:
        raise JobError(f"{config.before} holds {before} and {config.after} {after}: they cannot be compared")
    body = COMPARE[before](config)
    if config.json:
        storage.write_json(config.json, body)
