"""clean: what the intermediates of a chain take, and delete those that are named. Needs no Beam."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pipelines import storage
from pipelines.chain import LINKS, OUTPUTS
from pipelines.errors import JobError, did_you_mean
from pipelines.options import option
from pipelines.progress import size_text
from pipelines.stage import MERGED_FROM, STAGE_FILE, SUCCESS, Limits, Stage

ABOUT = """List the stages of a chain with their sizes, who still needs them, and what is lost without them; delete those that are named.

A stage is refused while one that is made from it is not finished, or while it is not finished itself and a job may be at work in it;
--force deletes it all the same. Only stages are deleted, never what lies elsewhere: a directory that is a link is left alone.

    worldclip clean W
    worldclip clean W --delete matched siblings ngrams/blocks"""

_BLOCKS, _PASSES = "blocks", "passes"
#: Behind the name of a file of thresholds: what its passes over the pairs found.
_OF_THRESHOLDS = ".passes"
#: A stage that this program cannot read: of a newer one, or damaged.
_UNKNOWN = "unknown"
#: What cannot be done any more, by the job whose stage is gone.
_WITHOUT = {
    "ngrams": "entries by another recipe, a card that starts from dumps",
    "titles": "entries by another recipe, a card that starts from page views",
    "wordnet": "entries by another recipe, a card that starts from wordnets",
    "entries": "matching more pairs, counting, explain, coverage, a card",
    "match": "de-duplication, counting, another t or seed, a card",
    "dedup": "counting, another t or seed, a card",
    "count": "another t or seed, a report with entries, a card",
    "balance": "images, a card, diff",
    "images": "training",
    # Parts of a stage that is finished.
    "ngrams/blocks": "more dumps without counting all again, a card that starts from dumps",
    "titles/blocks": "more page views without summing all again, a card that starts from page views",
    "dedup/passes": "-",
    "thresholds/passes": "other thresholds for a wanted number of pairs without passes over them",
}


@dataclass(frozen=True, kw_only=True)
class CleanConfig:
    work: str = option("the directory of the chain", metavar="DIR", positional=True)
    delete: tuple[str, ...] = option("stages to delete, by the names in the list", default=(), metavar="NAME")
    force: bool = option("delete also what others need, and what is not finished", default=False)


@dataclass(frozen=True, kw_only=True)
class Item:
    """A stage of the chain, or a part of one that can go alone. ``job``: what it is in the tables above. ``needed_by``: jobs of the chain
    that read it and are not finished."""

    name: str
    url: str
    job: str
    bytes: int
    finished: bool
    is_link: bool
    needed_by: tuple[str, ...] = ()


# -- what there is -------------------------------------------------------------------------------------------------------------------


def is_link(url: str) -> bool:
    return storage.is_local(url) and os.path.islink(storage.local_path(url).rstrip("/"))


def size_of(url: str) -> int:
    """Bytes of all files below a directory; links are not followed."""
    if not storage.is_local(url):
        with contextlib.suppress(JobError):  # there is none
            return sum(file.size for file in storage.expand((storage.join(url, "**"),)))
        return 0
    total = 0
    for folder, _, files in os.walk(storage.local_path(url)):
        total += sum(os.lstat(os.path.join(folder, name)).st_size for name in files)
    return total


def items_of(work: str) -> list[Item]:
    """Every stage directly in a directory, in the order of the chain, then others; behind each the parts of it that can go alone."""
    found: list[Item] = []
    for name in sorted(storage.listing(work), key=lambda name: (_rank(name), name)):
        url = storage.join(work, name)
        if name.endswith(_OF_THRESHOLDS) and storage.walk(url):
            is_made = storage.exists(url.removesuffix(_OF_THRESHOLDS))
            found.append(replace(_item(name, url, "thresholds/passes"), finished=is_made))
            continue
        if not storage.exists(storage.join(url, STAGE_FILE)):
            continue
        try:
            job = Stage.begun(url, Limits()).kind
        except JobError:
            job = _UNKNOWN
        found.append(_item(name, url, job))
        for part in (_BLOCKS,) if job in MERGED_FROM else (_PASSES,) if job == "dedup" else ():
            place = storage.join(url, part)
            if storage.walk(place):
                found.append(_item(f"{name}/{part}", place, f"{job}/{part}"))
    return [_with_needs(item, found, work) for item in found]


def _rank(name: str) -> int:
    places = [*OUTPUTS.values()]
    return places.index(name) if name in places else len(places)


def _item(name: str, url: str, job: str) -> Item:
    stage = storage.parent(url) if "/" in name else url
    return Item(
        name=name,
        url=url,
        job=job,
        bytes=size_of(url),
        finished=job != _UNKNOWN and storage.exists(storage.join(stage, SUCCESS)),
        is_link=is_link(url),
    )


def _with_needs(item: Item, found: Sequence[Item], work: str) -> Item:
    """The item with the jobs that still need it."""
    if "/" in item.job:
        # Parts of a stage serve it alone.
        needs = [] if item.finished else [item.job.partition("/")[0]]
    else:
        needs = [job for job in readers_of(item.job) if not _is_done(job, found, work)]
    return replace(item, needed_by=tuple(needs))


def readers_of(job: str) -> list[str]:
    """The jobs that read what a job makes, in the order of the chain. Thresholds say where the counts are, so that balance reads both."""
    return [reader for reader, links in LINKS.items() if job in links.values() or (reader, job) == ("balance", "count")]


def _is_done(job: str, found: Sequence[Item], work: str) -> bool:
    """Whether a job of the chain is finished. Of training nobody knows whether it goes on."""
    if OUTPUTS[job].endswith(".json"):
        return storage.exists(storage.join(work, OUTPUTS[job]))
    made = [item for item in found if item.job == job]
    return bool(made) and all(item.finished for item in made)


# -- deleting ------------------------------------------------------------------------------------------------------------------------


def chosen(config: CleanConfig, found: Sequence[Item]) -> list[Item]:
    """The items to delete.

    Raises:
        JobError: a name that is no stage, or one that may not be deleted.
    """
    by_name: Mapping[str, Item] = {item.name: item for item in found}
    out = []
    for name in dict.fromkeys(name.rstrip("/") for name in config.delete):
        if name not in by_name:
            raise JobError(f"--delete {name}: {config.work} has no such stage{did_you_mean(name, by_name)} (it has {', '.join(by_name)})")
        item = by_name[name]
        if item.is_link:
            raise JobError(f"--delete {name}: {item.url} is a link, and what it leads to is left alone: delete that by hand")
        if not item.finished and not config.force:
            raise JobError(
                f"--delete {name}: it is not finished, so that a job may be at work in it, or of a newer worldclip; "
                "--force deletes it all the same"
            )
        if item.needed_by and not config.force:
            readers = f"{' and '.join(item.needed_by)} {'is' if len(item.needed_by) == 1 else 'are'}"
            raise JobError(f"--delete {name}: {readers} not finished and will read it; --force deletes it all the same")
        out.append(item)
    return out


def delete(item: Item) -> None:
    """Delete a stage: first what says that it is finished, last what says that it is a stage, so that one that was half deleted is taken
    for neither a finished one nor a stranger. Links in it are removed, never followed."""
    if not storage.is_local(item.url):
        files = storage.walk(item.url)
        order = sorted(files, key=lambda url: (not url.endswith(f"/{SUCCESS}"), url.endswith(f"/{STAGE_FILE}"), url))
        for url in order:
            storage.remove(url)
        return
    folder = storage.local_path(item.url).rstrip("/")
    for name in sorted(os.listdir(folder), key=lambda name: (name != SUCCESS, name == STAGE_FILE, name)):
        path = os.path.join(folder, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    os.rmdir(folder)


# -- what is printed -----------------------------------------------------------------------------------------------------------------


def table(found: Sequence[Item]) -> Iterator[str]:
    """A line per item, and the sum."""
    width = max(len(item.name) for item in found) + 2
    yield f"{'stage':{width}}{'size':>12}  {'needed by':24}lost without it"
    for item in found:
        state = "a link, left alone" if item.is_link else "not finished" if not item.finished else ", ".join(item.needed_by) or "-"
        yield f"{item.name:{width}}{size_text(item.bytes):>12}  {state:24}{_WITHOUT.get(item.job, '')}".rstrip()
    whole = sum(item.bytes for item in found if "/" not in item.name and not item.is_link)
    yield f"{'all':{width}}{size_text(whole):>12}"


def main(config: CleanConfig, _: Sequence[str]) -> None:
    if storage.exists(storage.join(config.work, STAGE_FILE)):
        raise JobError(f"{config.work} is a stage itself: name the directory of the chain, and the stage with --delete")
    found = items_of(config.work)
    if not found:
        raise JobError(f"{config.work} holds no stage: there is no {STAGE_FILE} in any directory in it")
    if not config.delete:
        print("\n".join(table(found)))
        return
    going = chosen(config, found)
    for item in going:
        # A part of a stage may have gone with it.
        if storage.walk(item.url):
            delete(item)
            print(f"deleted {item.url} ({size_text(item.bytes)})")
    lost = dict.fromkeys(one for item in going for one in _WITHOUT.get(item.job, item.name).split(", ") if one != "-")
    print(f"lost with them: {', '.join(lost) or 'nothing'}")
    print(f"still there: {', '.join(item.name for item in items_of(config.work)) or 'no stage'}")
