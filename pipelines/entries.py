"""entries: n-grams, titles and lemmas → one list of entries per language, and the automaton that finds them in a text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from balancing.automaton import FORMAT_VERSION as AUTOMATON_VERSION
from balancing.automaton import build_automaton
from metadata.entries import (
    ENTRIES_VERSION,
    SOURCES,
    Candidates,
    append_extra,
    entries_checksum,
    entries_from_json,
    entries_to_json,
    extra_from_text,
    merge_lists,
    never_matching,
    select_entries,
    strings_of_json,
)
from metadata.languages import OTHER, check_metadata_code, members, metadata_codes, metadata_language
from metadata.ngrams import NGRAM_SCHEMA
from metadata.recipes import RECIPES, Recipe, recipe
from metadata.tally import Tally
from metadata.text import RULE_SETS, TEXT_VERSION, rule_set
from metadata.wordnet import LEMMA_SCHEMA
from pipelines import storage
from pipelines.automata import CHECKSUM, NEVER, RULES, automaton_url
from pipelines.errors import JobError
from pipelines.graph import Begin, FinishStage, ProcessUnits, run
from pipelines.ngrams import BIGRAMS, UNIGRAMS
from pipelines.options import JobConfig, option
from pipelines.part import read_part
from pipelines.stage import FinishedStage, Stage, Unit, open_stage
from pipelines.wordnet import TABLE

ABOUT = """Make the lists of entries, one per language, and their automata.

Takes n-grams, titles and lemmas from the stages that are given; any of them may be absent. Wikipedias that language identification cannot
tell apart from another one are merged into its list, or into the list 'other'. With --metadata-json the lists are given as they are.

--extra-entries adds entries of your own behind all others: a text file with one entry a line, or a .json file with a list of strings, in
UTF-8. LANG is a list or a Wikipedia; those of a Wikipedia that is merged into a list follow the list's own, in the order of the language
table. A language for which there is nothing else gets a list all the same: the numbers and these entries."""

#: A PMI of more bits has never been seen: it would take 2**64 tokens.
_MOST_BITS = 64


METADATA_JSON, EXTRA_ENTRIES = "--metadata-json", "--extra-entries"


@dataclass(frozen=True, kw_only=True)
class EntriesConfig(JobConfig):
    ngrams: str = option("the finished stage of the job ngrams", default="", metavar="DIR")
    titles: str = option("the finished stage of the job titles", default="", metavar="DIR")
    wordnet: str = option("the finished stage of the job wordnet", default="", metavar="DIR")
    metadata_json: tuple[str, ...] = option(
        "a ready-made list instead of all these: a JSON list of strings, once per language", default=(), metavar="LANG=FILE"
    )
    extra_entries: tuple[str, ...] = option("entries of your own for a language, behind all others", default=(), metavar="LANG=FILE")
    recipe: str = option("the recipe that says what becomes an entry", default="metaclip2", choices=RECIPES)
    bigram_pmi_floor: float | None = option(
        "least PMI of a bigram in bits (default: none; the published 30 leaves words seen some 4 times in English, and nothing elsewhere)",
        default=None,
        metavar="BITS",
    )
    languages: str = option("codes of the lists to make, with commas, or all that there is material for", default="all", metavar="CODES")
    rules: str = option("the rule set by which entries meet texts (default: the recipe's)", default="", choices=("", *RULE_SETS))
    json: bool = option("also write every list as <lang>.json, for other implementations", default=False)

    def __post_init__(self) -> None:
        if bool(self.metadata_json) == bool(self.ngrams or self.titles or self.wordnet or self.extra_entries):
            raise ValueError("give --ngrams, --titles, --wordnet and --extra-entries (one of them at least), or --metadata-json alone")
        if self.bigram_pmi_floor is not None and not -_MOST_BITS <= self.bigram_pmi_floor <= _MOST_BITS:
            raise ValueError(f"--bigram-pmi-floor must lie between {-_MOST_BITS} and {_MOST_BITS} bits, not {self.bigram_pmi_floor}")

    @property
    def chosen(self) -> Recipe:
        named = recipe(self.recipe)
        return named if self.bigram_pmi_floor is None else replace(named, bigram_pmi_floor=self.bigram_pmi_floor)


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The stages that entries are made from; None where one is not given."""

    ngrams: FinishedStage | None
    titles: FinishedStage | None
    wordnet: FinishedStage | None

    def upstream(self) -> dict[str, str]:
        return {kind: stage.id for kind, stage in vars(self).items() if stage is not None}

    def wikis(self) -> set[str]:
        """The Wikipedias that the first given stage knows: a dump decides what is built, not a title that somebody looked up."""
        if self.ngrams:
            return {part["name"].removeprefix("part-").split("-")[0] for part in self.ngrams.parts}
        if self.wordnet:
            return {part["name"].removeprefix("part-").split("-")[0] for part in self.wordnet.parts}
        if not self.titles:
            return set()
        return {
            wiki
            for part in self.titles.parts
            for wiki in pc.unique(read_part(self.titles.part_url(part["name"]), columns=["lang"])["lang"]).to_pylist()
        }


def _parts(stage: FinishedStage | None, prefix: str, schema: pa.Schema) -> list[pa.Table]:
    return (
        [read_part(stage.part_url(p["name"]), columns=schema.names) for p in stage.parts if p["name"].startswith(f"part-{prefix}")]
        if stage
        else []
    )


def candidates_of(wiki: str, sources: Sources, chosen: Recipe) -> Candidates:
    """Everything that the stages found for one Wikipedia."""
    unigrams, bigrams = (_parts(sources.ngrams, f"{wiki}-{group}-", NGRAM_SCHEMA) for group in (UNIGRAMS, BIGRAMS))
    titles = sources.titles
    found = [read_part(titles.part_url(p["name"]), filters=[("lang", "==", wiki)]) for p in titles.parts] if titles else []
    lemmas: list[pa.Table] = []
    if wiki == "en":
        lemmas = _parts(sources.wordnet, f"en-{chosen.english_wordnet}", LEMMA_SCHEMA)
    elif chosen.multilingual_wordnet:
        lemmas = _parts(sources.wordnet, f"{wiki}-{TABLE}-", LEMMA_SCHEMA)
    given: dict[str, pa.Table | list[str] | int] = {"wordnet": [x for table in lemmas for x in table["lemma"].to_pylist()]}
    if unigrams:
        given |= {"unigrams": pa.concat_tables(unigrams), "bigrams": pa.concat_tables(bigrams)}
        given["tokens"] = sum(pc.sum(table["count"]).as_py() or 0 for table in unigrams)
    if found:
        given["titles"] = pa.concat_tables(found)
    return Candidates(**given)  # type: ignore[arg-type]


def entries_of(lang: str, sources: Sources, chosen: Recipe, wikis: set[str]) -> pa.Table:
    """The list of one language: ENTRIES_SCHEMA. Caps apply per Wikipedia, then those that are merged into the language follow."""
    lists = [select_entries(candidates_of(wiki, sources, chosen), chosen) for wiki in members(lang) if wiki in wikis or wiki == lang]
    return merge_lists(lists or [select_entries(Candidates(), chosen)])


def files_by_language(flag: str, items: Sequence[str], check: Callable[[str], object]) -> dict[str, str]:
    """Language → file of an option whose values are LANG=FILE.

    Raises:
        JobError: no LANG=FILE, an unknown language, one named twice.
    """
    files: dict[str, str] = {}
    for item in items:
        lang, _, file = item.partition("=")
        if not file:
            raise JobError(f"{flag} {item}: write LANG=FILE, for instance en={'metadata.json' if flag == METADATA_JSON else 'mine.txt'}")
        _told(check, lang)
        if lang in files:
            raise JobError(f"{flag} names {lang} twice")
        files[lang] = file
    return files


def list_of(code: str) -> str:
    """The list that holds the entries of a Wikipedia or a list.

    Raises:
        ValueError: no such language.
    """
    return OTHER if code == OTHER else metadata_language(code)


def extra_of(lang: str, files: Mapping[str, str], checksums: Mapping[str, str]) -> list[str]:
    """The extra entries of a list as they stand in the files: its own first, then those of its other Wikipedias.

    Raises:
        JobError: a file cannot be used, or changed since it was looked at.
    """
    lines: list[str] = []
    for code in dict.fromkeys([lang, *members(lang)]):
        if code in files:
            file = files[code]
            try:
                lines += (strings_of_json if file.endswith(".json") else extra_from_text)(read_unchanged(file, checksums[code]))
            except ValueError as error:
                raise JobError(f"{EXTRA_ENTRIES} {code}={file}: {error}") from error
    return lines


def checksums_of(files: Mapping[str, str]) -> dict[str, str]:
    return {lang: hashlib.sha256(storage.read_bytes(file)).hexdigest() for lang, file in files.items()}


def read_unchanged(file: str, checksum: str) -> bytes:
    """The content of a file whose checksum is part of the stage's fingerprint.

    Raises:
        JobError: it is not what it was.
    """
    data = storage.read_bytes(file)
    if hashlib.sha256(data).hexdigest() != checksum:
        raise JobError(f"{file} was changed while the job ran: choose another --output, or delete the directory")
    return data


def _told(check: Callable[[str], object], lang: str) -> None:
    try:
        check(lang)
    except ValueError as error:
        raise JobError(str(error)) from error


def open_sources(config: EntriesConfig) -> Sources:
    return Sources(
        ngrams=open_stage(config.ngrams, "ngrams") if config.ngrams else None,
        titles=open_stage(config.titles, "titles") if config.titles else None,
        wordnet=open_stage(config.wordnet, "wordnet") if config.wordnet else None,
    )


@lru_cache(maxsize=1)
def sources_of(config: EntriesConfig, fingerprint: str) -> Sources:
    """The sources of a stage, opened once by a process: the manifest of a full build's n-grams has tens of thousands of parts.

    ``fingerprint``: of the stage; it tells sources that were made anew from the old.
    """
    return open_sources(config)


def plan(config: EntriesConfig) -> tuple[Stage, list[Unit]]:
    """The stage, and a unit per language: ``url`` is its ready-made list, if it has one, ``group`` its Wikipedias that there are."""
    parameters: dict[str, Any] = {
        "recipe": asdict(config.chosen),
        "rules": rule_set(config.rules or config.chosen.rules).name,
        "versions": {"entries": ENTRIES_VERSION, "text": TEXT_VERSION, "automaton": AUTOMATON_VERSION},
    }
    if config.metadata_json:
        files = files_by_language(METADATA_JSON, config.metadata_json, check_metadata_code)
        parameters |= {"recipe": "ready-made", "lists": checksums_of(files)}
        units = [Unit(name=lang, path=lang, url=file) for lang, file in files.items()]
        return Stage(url=config.output, kind="entries", parameters=parameters, limits=config.limits), units
    extra = files_by_language(EXTRA_ENTRIES, config.extra_entries, list_of)
    if extra:
        parameters["extra"] = checksums_of(extra)
    sources = open_sources(config)
    wikis = sources.wikis()
    wanted = wanted_lists(config, {metadata_language(wiki) for wiki in wikis}, {list_of(code) for code in extra})
    for lang in sorted(wanted):
        extra_of(lang, extra, parameters.get("extra", {}))  # a mistake in a file is told before anything is written
    units = [Unit(name=lang, path=lang, group=" ".join(sorted(wikis & {*members(lang)}))) for lang in sorted(wanted)]
    return Stage(url=config.output, kind="entries", parameters=parameters, upstream=sources.upstream(), limits=config.limits), units


def wanted_lists(config: EntriesConfig, available: set[str], extra: set[str]) -> set[str]:
    """The lists to make, of those that there is material for and those that have entries of the user's own.

    Raises:
        JobError: there is none, or nothing of one that was named, or one that has entries of its own was not named.
    """
    place = config.ngrams or config.wordnet or config.titles
    if config.languages == "all":
        # Simple English is in no build unless asked for; entries of one's own do ask.
        wanted = available & {*metadata_codes()} | extra
        if not wanted:
            raise JobError(f"{place} holds no language: there is nothing to make entries of")
        return wanted
    wanted = {code.strip() for code in config.languages.split(",")}
    for code in sorted(wanted):
        _told(check_metadata_code, code)
    absent = sorted(wanted - available - extra)
    if absent:
        raise JobError(f"--languages {', '.join(absent)}: there is nothing of it in {place or EXTRA_ENTRIES}")
    left_out = sorted(extra - wanted)
    if left_out:
        raise JobError(f"{EXTRA_ENTRIES} has entries for {', '.join(left_out)}, which --languages leaves out: name it there too")
    return wanted


def make_entries(unit: Unit, *, stage: Stage, config: EntriesConfig) -> None:
    """Make the list of one language and its automaton, which is written first: the part commits both.

    Memory: the candidates of one Wikipedia at a time and about as much again; 2.0 GB in all for 15 million distinct unigrams, 8 million
    bigrams and 5 million titles, measured.
    """
    rules, tally = rule_set(stage.parameters["rules"]), Tally()
    try:
        if unit.url:
            table = entries_from_json(read_unchanged(unit.url, stage.parameters["lists"][unit.path]), tally=tally)
        else:
            table = entries_of(unit.path, sources_of(config, stage.fingerprint), config.chosen, {*unit.group.split()})
            tally.read = tally.emitted = len(table)
            extra = files_by_language(EXTRA_ENTRIES, config.extra_entries, list_of)
            lines = extra_of(unit.path, extra, stage.parameters.get("extra", {}))
            table = append_extra(table, lines, max_characters=config.chosen.max_characters, tally=tally)
        checksum = entries_checksum(table)
        automaton = build_automaton(table["entry"].to_pylist(), rules, entries_checksum=checksum)
    except ValueError as error:
        raise JobError(f"entries of {unit.path}{f' ({unit.url})' if unit.url else ''}: {error}") from error
    storage.write_bytes(automaton_url(stage.url, unit.path), automaton)
    if config.json:
        storage.write_bytes(stage.at(f"{unit.path}.json"), entries_to_json(table))
    about = {CHECKSUM: checksum, RULES: rules.name, NEVER: str(never_matching(table, rules))}
    stage.write_part(unit, table.replace_schema_metadata(about), tally)


def build(pipeline: beam.Pipeline, stage: Stage, config: EntriesConfig) -> None:
    work = partial(make_entries, stage=stage, config=config)
    _ = pipeline | "Begin" >> Begin() | "MakeEntries" >> ProcessUnits(stage, work) | "FinishEntries" >> FinishStage(stage)


def print_entries(stage: FinishedStage, most: int = 20) -> None:
    """A line per language, entries by source and how many can never match; only the largest where there are many, and the sum."""
    rows = []
    for part in stage.parts:
        table = read_part(stage.part_url(part["name"]), columns=["source"])
        counted = {x["values"]: x["counts"] for x in pc.value_counts(table["source"].cast(pa.string())).to_pylist()}
        by_source = [counted.get(source, 0) for source in SOURCES]
        never = int((table.schema.metadata or {}).get(NEVER, 0))
        rows.append((part["name"].removesuffix(".parquet"), [*by_source, sum(by_source), never]))
    rows.sort(key=lambda row: (-row[1][-2], row[0]))
    totals = [sum(column) for column in zip(*(numbers for _, numbers in rows), strict=True)]
    widths = [10] * len(SOURCES) + [12, 8]

    def line(name: str, numbers: Sequence[int]) -> str:
        return f"{name:12}" + "".join(f"{n:{width},}" for n, width in zip(numbers, widths, strict=True))

    print(f"{'language':12}" + "".join(f"{name:>{width}}" for name, width in zip((*SOURCES, "all", "never"), widths, strict=True)))
    for lang, numbers in rows[:most]:
        print(line(lang, numbers))
    if len(rows) > most:
        print(f"… and {len(rows) - most} more languages")
    print(line("all", totals))
    if totals[-1]:
        print(f"never: entries that no text can match under the rules '{stage.parameters['rules']}'; they are kept, and match nothing")


def main(config: EntriesConfig, beam_args: Sequence[str]) -> None:
    stage, units = plan(config)
    if stage.begin(units):
        run(partial(build, stage=stage, config=config), [stage], beam_args=beam_args, workers=config.workers)
    print_entries(open_stage(config.output, "entries"))
