"""Where the inputs that a card names lie now, and whether they are what they were."""

from __future__ import annotations

import contextlib
import posixpath
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from balancing.fingerprint import corpus_sha256
from pipelines import storage
from pipelines.books import first_few
from pipelines.datacard import CORPUS, FILE, Card, Input, StageRecord
from pipelines.errors import JobError, did_you_mean
from pipelines.origins import literal, sha256_of
from pipelines.progress import size_text
from pipelines.stage import STAGE_FILE, open_stage
from pipelines.wordnet import open_archive

#: Files that are read at a time.
_READERS = 4
#: Of what is told by its checksum alone nothing is larger: the largest model for language identification has 1.7 GB.
_SEARCHED_BYTES = 4 << 30
#: Suffixes of what is told by its checksum, looked at first.
_LIKELY = (".json", ".txt", ".bin", ".ftz", "/alive", "/dropped", "/hosts")


@dataclass(frozen=True, kw_only=True)
class Located:
    """Where the inputs of a stage lie: ``root`` of its files, ``found``: URL of those that are told by their checksum, by kind and name.
    ``given``: the stage itself, finished, where it is to be taken as it is."""

    root: str = ""
    found: Mapping[tuple[str, str], str] = field(default_factory=dict)
    given: str = ""


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where to look for the inputs of a stage: for its files by name in ``folders``, those of its own if it has any; for what is told by
    its checksum in ``more`` as well, all the others."""

    folders: Sequence[str]
    more: Sequence[str]


def locate(card: Card, items: Sequence[str]) -> dict[str, Located]:
    """Where the inputs of each stage lie, by the name of the stage. ``items``: PLACE, or STAGE=PLACE for one stage.

    A stage's files lie in a place as the card names them, or in a folder directly in it.

    Raises:
        JobError: some are nowhere; says which, and what to say.
    """
    places = _by_stage(card, items)
    out = {}
    for record in card.stages:
        given = _given(record, places[record.name].folders)
        if given:
            out[record.name] = Located(given=given)
        elif record.given:
            raise JobError(
                f"the card takes the {record.name} as they are (id {record.id}), and they are nowhere in "
                f"{_said(places[record.name].folders)}: --inputs {record.name}=DIR says where their stage lies"
            )
    skipped = {job for record in card.stages if record.name in out for job in record.upstream}
    for record in card.stages:
        if record.name not in out and record.job not in skipped and record.inputs:
            root = _root_of(record, places[record.name].folders)
            found = _search(record, [*places[record.name].folders, *places[record.name].more])
            out[record.name] = Located(root=root, found=found)
    return out


def _by_stage(card: Card, items: Sequence[str]) -> dict[str, Places]:
    """The places to look for the inputs of each stage: its own, and those that are said for all."""
    names = [record.name for record in card.stages]
    groups = {name.partition("-")[0] for name in names}
    said: dict[str, list[str]] = {"": []}
    for item in items:
        name, equals, place = item.partition("=")
        if equals and (name in names or name in groups):
            said.setdefault(name, []).append(place)
        elif equals and name.isidentifier() and not storage.exists(item):
            raise JobError(f"--inputs {item}: the card has no stage {name}{did_you_mean(name, names)} (it has {', '.join(names)})")
        else:
            said[""].append(item)
    out = {}
    for name in names:
        own = said.get(name) or said.get(name.partition("-")[0]) or []
        folders = [place for place in own if not _is_file(place)] or said[""]
        out[name] = Places(folders=folders, more=[place for place in (*own, *said[""]) if place not in folders])
    return out


def _is_file(place: str) -> bool:
    if not is_listed(place):
        return False
    with contextlib.suppress(JobError):
        found = storage.expand((literal(place.rstrip("/")),))
        return len(found) == 1 and found[0].url.endswith("/" + posixpath.basename(place.rstrip("/")))
    return False


def _said(places: Sequence[str]) -> str:
    return ", ".join(places) or "--inputs"


def is_listed(place: str) -> bool:
    """Whether the files in a place can be listed."""
    return not place.startswith(("http://", "https://"))


def _folders(places: Sequence[str]) -> Iterator[str]:
    """The places, each before the folders directly in it; those last that cannot be listed, since of them nobody knows what is there."""
    for place in filter(is_listed, places):
        yield place
        files = {posixpath.basename(url) for url in _files_in(place)}
        yield from (storage.join(place, name) for name in storage.listing(place) if name not in files)
    yield from (place for place in places if not is_listed(place))


def _files_in(folder: str) -> dict[str, int]:
    """URL → size of the files directly in a folder."""
    try:
        return {file.url: file.size for file in storage.expand((f"{literal(folder).rstrip('/')}/*",))}
    except JobError:
        return {}


def url_of(root: str, name: str) -> str:
    """Where an input lies.

    Raises:
        JobError: the name leads out of the root.
    """
    if ".." in name.split("/") or "::" in name or "://" in name or not name.strip("/"):
        raise JobError(f"the card names an input {name!r}, which is no name below a directory: it was not written by worldclip")
    return f"{root.rstrip('/')}/{name.lstrip('/')}"


# -- stages that are taken as they are -----------------------------------------------------------------------------------------------


def _given(record: StageRecord, places: Sequence[str]) -> str:
    """The finished stage itself, if it lies in one of the places: only entries may, the rest of a set is what is rebuilt."""
    if record.job != "entries":
        return ""
    for folder in _folders([place for place in places if is_listed(place)]):
        if storage.exists(storage.join(folder, STAGE_FILE)):
            with contextlib.suppress(JobError):  # of another kind, or not finished
                if open_stage(folder, record.job).id == record.id:
                    return folder
    return ""


# -- files by name -------------------------------------------------------------------------------------------------------------------


def names_of(record: StageRecord) -> list[str]:
    """The names of the files that a stage reads, corpora and what is told by its checksum left out."""
    return [x.name for x in record.inputs if x.kind == FILE]


def sizes_below(root: str, names: Sequence[str]) -> dict[str, int]:
    """Name → size of those of the files that lie below a root. One listing per folder."""
    wanted = {url_of("", name).lstrip("/"): name for name in names}
    found = {}
    for folder in sorted({posixpath.dirname(name) for name in wanted}):
        for url, size in _files_in(storage.join(root, folder) if folder else root).items():
            name = posixpath.join(folder, posixpath.basename(url))
            if name in wanted:
                found[wanted[name]] = size
    return found


def _root_of(record: StageRecord, places: Sequence[str]) -> str:
    """The directory below which all files of a stage lie; empty if it reads none by name."""
    names, corpora = names_of(record), [x.name for x in record.inputs if x.kind == CORPUS]
    for name in names:
        url_of("", name)
    if not names and not corpora:
        return ""
    sizes = {x.name: x.size for x in record.inputs if x.kind == FILE}
    whole, nearest, there = "", "", dict[str, int]()
    for folder in _folders(places):
        if not is_listed(folder) or (corpora and all(_has_corpus(folder, name) for name in corpora)):
            return folder
        found = sizes_below(folder, names)
        if names and len(found) == len(names):
            # Crawls may have files of the same names; those of the same sizes are likelier.
            if all(sizes[name] in (None, found[name]) for name in names):
                return folder
            whole = whole or folder
        if len(found) > len(there):
            nearest, there = folder, found
    if whole:
        return whole
    missing = [name for name in names if name not in there] or corpora
    where = f"{nearest} lacks {len(missing)} of" if nearest else f"neither {_said(places)} nor a folder in it has"
    raise JobError(
        f"{where} the {len(names) or len(corpora)} inputs of {record.name} ({first_few(missing, 3)}): "
        f"--inputs {record.name}=DIR says where they lie"
    )


def _has_corpus(root: str, name: str) -> bool:
    return any(storage.exists(storage.join(root, "corpora", place)) for place in (f"{name}.zip", name))


# -- files by checksum ---------------------------------------------------------------------------------------------------------------


def _search(record: StageRecord, places: Sequence[str]) -> dict[tuple[str, str], str]:
    """Where the inputs lie that are told by their checksum: the places themselves, files in them, and in the folders in them.

    Raises:
        JobError: one is not found.
    """
    wanted = [x for x in record.inputs if x.kind not in (FILE, CORPUS)]
    found: dict[tuple[str, str], str] = {}
    known = {posixpath.basename(name) for name in names_of(record)}
    for url in _candidates(places) if wanted else ():
        if posixpath.basename(url) in known:
            continue
        checksum = sha256_of(url)
        # The same list may serve several languages.
        found |= {(x.kind, x.name): url for x in wanted if x.sha256 == checksum}
        if len(found) == len(wanted):
            break
    for x in wanted:
        if (x.kind, x.name) not in found:
            raise JobError(
                f"{_said(places)} and the folders in it hold no file that is the {_KINDS[x.kind].format(x.name)} of {record.name} "
                f"(SHA-256 {x.sha256}): --inputs {record.name}=FILE says where it lies"
            )
    return found


def _candidates(places: Sequence[str]) -> list[str]:
    """The files in which something may be that is told by its checksum, the likely and the small ones first."""
    sizes: dict[str, int] = {}
    listed = [place for place in places if is_listed(place)]
    for place in listed:
        with contextlib.suppress(JobError):
            sizes |= {file.url: file.size for file in storage.expand((literal(place),))}
    for folder in _folders(listed):
        sizes |= _files_in(folder)
    return sorted((url for url in sizes if sizes[url] <= _SEARCHED_BYTES), key=lambda url: (not url.endswith(_LIKELY), sizes[url], url))


_KINDS = {
    "list": "list of entries for {}",
    "extra": "file of extra entries for {}",
    "model": "language identification model",
    "left_out": "list '{}' of what is left out",
}


# -- checking ------------------------------------------------------------------------------------------------------------------------


def check_inputs(card: Card, located: Mapping[str, Located], *, sizes_only: bool) -> list[str]:
    """What differs between the inputs and the card, a line each; empty if nothing does. Reads all of them unless ``sizes_only``.

    Four files are read at a time.
    """
    faults: list[str] = []
    todo: list[tuple[StageRecord, Input, str]] = []
    for record in card.stages:
        place = located.get(record.name)
        if not place or place.given:
            continue
        sizes = sizes_below(place.root, names_of(record)) if is_listed(place.root) else {}
        for x in record.inputs:
            if x.kind == FILE:
                size = sizes.get(x.name)
                if size is not None and x.size is not None and size != x.size:
                    faults.append(f"{record.name}: {url_of(place.root, x.name)} has {size:,} bytes, it had {x.size:,}")
                elif x.is_known and not sizes_only:
                    todo.append((record, x, url_of(place.root, x.name)))
            elif x.kind == CORPUS and x.is_known and not sizes_only:
                todo.append((record, x, place.root))
    if todo:
        size = sum(x.size or 0 for _, x, _ in todo)
        print(f"run: comparing the checksums of {len(todo):,} inputs, {size_text(size)}", file=sys.stderr)
    with ThreadPoolExecutor(_READERS) as pool:
        faults += filter(None, pool.map(lambda item: _fault(*item), todo))
    return faults


def _fault(record: StageRecord, x: Input, url: str) -> str:
    """How an input differs from what the card says of it; empty if it does not."""
    if x.kind == CORPUS:
        try:
            with open_archive(url, x.name) as archive:
                found = corpus_sha256(archive)
        except ValueError as error:
            found = str(error)
        return "" if found == x.sha256 else f"{record.name}: the corpus {x.name} in {url} is another one than it was"
    if not x.ranges:
        return "" if sha256_of(url) == x.sha256 else f"{record.name}: {url} is another file than it was"
    for part in x.ranges:
        if sha256_of(url, offset=part.offset, length=part.length) != part.sha256:
            return f"{record.name}: {url} is another file than it was, between bytes {part.offset:,} and {part.offset + part.length:,}"
    return ""
