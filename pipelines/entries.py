"""entries: n-grams, titles and lemmas → one list of entries per language, and the automaton that finds them in a text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from balancing.automaton import FORMAT_VERSION as AUTOMATON_VERSION
from balancing.automaton import build_automaton
from metadata.entries import (
    ENTRIES_VERSION,
    SOURCES,
    Candidates,
    entries_checksum,
    entries_from_json,
    entries_to_json,
    merge_lists,
    never_matching,
    select_entries,
)
from metadata.languages import check_metadata_code, members, metadata_codes, metadata_language
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
from pipelines.stage import FinishedStage, Stage, Unit, open_stage, read_part
from pipelines.wordnet import TABLE

ABOUT = """Make the lists of entries, one per language, and their automata.

Takes n-grams, titles and lemmas from the stages that are given; any of them may be absent. Wikipedias that language identification cannot
tell apart from another one are merged into its list, or into the list 'other'. With --metadata-json the lists are given as they are."""


@dataclass(frozen=True, kw_only=True)
class EntriesConfig(JobConfig):
    ngrams: str = option("the finished stage of the job ngrams", default="", metavar="DIR")
    titles: str = option("the finished stage of the job titles", default="", metavar="DIR")
    wordnet: str = option("the finished stage of the job wordnet", default="", metavar="DIR")
    metadata_json: tuple[str, ...] = option(
        "a ready-made list instead of all these: a JSON list of strings, once per language", default=(), metavar="LANG=FILE"
    )
    recipe: str = option("the recipe that says what becomes an entry", default="metaclip2", choices=RECIPES)
    languages: str = option("codes of the lists to make, with commas, or all that there is material for", default="all", metavar="CODES")
    rules: str = option("the rule set by which entries meet texts (default: the recipe's)", default="", choices=("", *RULE_SETS))
    json: bool = option("also write every list as <lang>.json, for other implementations", default=False)

    def __post_init__(self) -> None:
        if bool(self.metadata_json) == bool(self.ngrams or self.titles or self.wordnet):
            raise ValueError("give --ngrams, --titles and --wordnet (one of them at least), or --metadata-json")


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
        assert self.titles is not None
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
    return merge_lists(
        select_entries(candidates_of(wiki, sources, chosen), chosen) for wiki in members(lang) if wiki in wikis or wiki == lang
    )


def ready_made(config: EntriesConfig) -> dict[str, str]:
    """Language → file of the lists that are given as they are.

    Raises:
        JobError: no LANG=FILE, an unknown language, one named twice.
    """
    files: dict[str, str] = {}
    for item in config.metadata_json:
        lang, _, file = item.partition("=")
        if not file:
            raise JobError(f"--metadata-json {item}: write LANG=FILE, for instance en=metadata.json")
        if _checked(lang) in files:
            raise JobError(f"--metadata-json names {lang} twice")
        files[lang] = file
    return files


def _checked(lang: str) -> str:
    try:
        return check_metadata_code(lang)
    except ValueError as error:
        raise JobError(str(error)) from error


def open_sources(config: EntriesConfig) -> Sources:
    return Sources(
        ngrams=open_stage(config.ngrams, "ngrams") if config.ngrams else None,
        titles=open_stage(config.titles, "titles") if config.titles else None,
        wordnet=open_stage(config.wordnet, "wordnet") if config.wordnet else None,
    )


def plan(config: EntriesConfig) -> tuple[Stage, list[Unit]]:
    """The stage, and a unit per language whose ``url`` is its ready-made list, if it has one."""
    parameters = {
        "recipe": asdict(recipe(config.recipe)),
        "rules": rule_set(config.rules or recipe(config.recipe).rules).name,
        "versions": {"entries": ENTRIES_VERSION, "text": TEXT_VERSION, "automaton": AUTOMATON_VERSION},
    }
    if config.metadata_json:
        files = ready_made(config)
        parameters |= {
            "recipe": "ready-made",
            "lists": {lang: hashlib.sha256(storage.read_bytes(f)).hexdigest() for lang, f in files.items()},
        }
        units = [Unit(name=lang, path=lang, url=file) for lang, file in files.items()]
        return Stage(url=config.output, kind="entries", parameters=parameters, limits=config.limits), units
    sources = open_sources(config)
    available = {metadata_language(wiki) for wiki in sources.wikis()} & {*metadata_codes()}
    wanted = available if config.languages == "all" else {_checked(code.strip()) for code in config.languages.split(",")}
    absent = sorted(wanted - available - {"simple"})
    if absent:
        raise JobError(f"--languages {', '.join(absent)}: there is nothing of it in {config.ngrams or config.wordnet or config.titles}")
    if not wanted:
        raise JobError(f"{config.ngrams or config.wordnet or config.titles} holds no language: there is nothing to make entries of")
    units = [Unit(name=lang, path=lang) for lang in sorted(wanted)]
    return Stage(url=config.output, kind="entries", parameters=parameters, upstream=sources.upstream(), limits=config.limits), units


def make_entries(unit: Unit, *, stage: Stage, config: EntriesConfig) -> None:
    """Make the list of one language and its automaton, which is written first: the part commits both."""
    rules, tally = rule_set(stage.parameters["rules"]), Tally()
    try:
        if unit.url:
            table = entries_from_json(storage.read_bytes(unit.url), tally=tally)
        else:
            sources = open_sources(config)
            table = entries_of(unit.path, sources, recipe(config.recipe), sources.wikis())
            tally.read = tally.emitted = len(table)
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
    """A line per language, entries by source; only the largest where there are many, and the sum."""
    rows = []
    for part in stage.parts:
        sources = pc.value_counts(read_part(stage.part_url(part["name"]), columns=["source"])["source"].cast(pa.string())).to_pylist()
        counted = {x["values"]: x["counts"] for x in sources}
        rows.append((part["name"].removesuffix(".parquet"), [counted.get(source, 0) for source in SOURCES]))
    rows.sort(key=lambda row: (-sum(row[1]), row[0]))
    print(f"{'language':12}" + "".join(f"{source:>10}" for source in SOURCES) + f"{'all':>12}")
    for lang, numbers in rows[:most]:
        print(f"{lang:12}" + "".join(f"{n:10,}" for n in numbers) + f"{sum(numbers):12,}")
    if len(rows) > most:
        print(f"… and {len(rows) - most} more languages")
    totals = [sum(column) for column in zip(*(numbers for _, numbers in rows), strict=True)]
    print(f"{'all':12}" + "".join(f"{n:10,}" for n in totals) + f"{sum(totals):12,}")


def main(config: EntriesConfig, beam_args: Sequence[str]) -> None:
    stage, units = plan(config)
    if stage.begin(units):
        run(partial(build, stage=stage, config=config), [stage], beam_args=beam_args, workers=config.workers)
    print_entries(open_stage(config.output, "entries"))
