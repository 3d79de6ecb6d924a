"""download: Wikipedia dumps and page-view files from where they are published. No Beam: the hosts allow two connections, not a cluster."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar

import aiohttp
from yarl import URL

from metadata.languages import Language, all_languages, language, metadata_codes, metadata_language
from metadata.published import (
    MAX_PAGE_BYTES,
    SITE,
    NotPublishedError,
    PublishedFile,
    check_date,
    dump_dates,
    dump_files,
    hours_of,
    is_dump_of,
    listing_path,
    pageview_file,
    sample_hours,
    status_path,
)
from pipelines.errors import JobError, message_of
from pipelines.options import option, positive
from pipelines.progress import Progress, say, size_text
from pipelines.shelf import Found, Shelf, examine
from pipelines.transfer import Client, Partial, RetryPolicy, TransferError

ABOUT = """Fetch Wikipedia dumps and page views.

    worldclip download --languages lv,ltg --date latest --output dumps --contact you@example.org
    worldclip download --pageviews 2025 --pageview-sample 26d --output pageviews --contact you@example.org

Dumps are the pages-articles files, multistream with their indexes, in parts (…xml-p1p41242.bz2) where a Wikipedia is published in parts:
'dumps/*.xml*.bz2' are all of them. Page views are hourly files of all Wikipedias, 40 to 70 MB each; --pageviews says which hours (UTC):

    2025-01-01T00               an hour
    2025-01-01                  the 24 hours of a day; also 2025-01 and 2025
    2025-01-01..2025-03-31      from the first to the last, both included

and --pageview-sample takes 26 whole days (26d, as MetaCLIP did) or 100 single hours (100h) out of them, spread evenly, the same each time.

What is cut off goes on where it stopped, also when the same command is given again; files that are there and right are not fetched again.
Sizes and SHA-1 are checked against those published; page views have none, and are checked by the CRC that gzip carries. A Wikipedia
without such a dump, or a file that fails, does not stop the others: they are named at the end. download.json lists what was fetched.

Wikimedia asks that clients say whom to write to (--contact), and for no more than two connections."""

_LISTED = 20

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class DownloadConfig:
    languages: str = option("Wikipedias whose dumps to fetch: codes with commas, or all", default="", metavar="CODES")
    date: str = option("day of the dumps (20260101), or the newest dump of each Wikipedia that is done", default="latest", metavar="DATE")
    pageviews: tuple[str, ...] = option("hours of page views to fetch; see above", default=(), metavar="SPAN")
    pageview_sample: str = option("take only so many days (26d) or hours (100h) of them", default="", metavar="N")
    output: str = option("where the files go: a directory, local or a URL that fsspec knows (gs://, s3://)", metavar="DIR")
    mirror: str = option("where to fetch from: a mirror with the same paths below this URL", default=SITE, metavar="URL")
    checksums_from: str = option(
        f"where to read which files a dump has, their sizes and SHA-1: {SITE} for a mirror that you do not trust (default: the mirror)",
        default="",
        metavar="URL",
    )
    contact: str = option("your mail address or a URL: where the owner of the host can write to; sent along", default="", metavar="TEXT")
    connections: int = option("connections to a host at a time", default=2, parse=positive, metavar="N")
    dry_run: bool = option("list what would be fetched, with sizes, and fetch nothing", default=False)

    def __post_init__(self) -> None:
        if not self.languages and not self.pageviews:
            raise ValueError("give --languages for dumps, --pageviews for page views, or both")
        if self.pageview_sample and not self.pageviews:
            raise ValueError("--pageview-sample takes some of the hours that --pageviews names")
        if self.date != "latest":
            check_date(self.date)
        if not (self.contact.isascii() and self.contact.isprintable()):
            raise ValueError("--contact must be plain ASCII, on one line")
        hosts = [_check_root(root) for root in (self.mirror, self.status_root)]
        if not self.contact and any(host == "wikimedia.org" or host.endswith(".wikimedia.org") for host in hosts):
            raise ValueError(
                "--contact is missing: Wikimedia refuses clients that do not say whom to write to (your mail address or a URL)"
            )
        self.wikis()
        self.hours()

    @property
    def status_root(self) -> str:
        return self.checksums_from or self.mirror

    @property
    def user_agent(self) -> str:
        """As Wikimedia's policy has it: client (contact) library."""
        try:
            name = f"worldclip/{version('worldclip')}"
        except PackageNotFoundError:
            name = "worldclip"
        return " ".join(filter(None, [name, self.contact and f"({self.contact})", f"aiohttp/{aiohttp.__version__}"]))

    def wikis(self) -> list[Language]:
        """The Wikipedias asked for, in the order of the table. ``all`` are those of a full build."""
        if self.languages == "all":
            return [wiki for code, wiki in all_languages().items() if metadata_language(code) in metadata_codes()]
        codes = {language(code.strip()).code for code in self.languages.split(",") if code.strip()}
        return [wiki for code, wiki in all_languages().items() if code in codes]

    def hours(self) -> list[datetime]:
        """The hours asked for, sorted."""
        hours = hours_of(self.pageviews, now=datetime.now(UTC).replace(tzinfo=None))
        return sample_hours(hours, self.pageview_sample) if self.pageview_sample else hours


def _check_root(url: str) -> str:
    """The host of a root URL.

    Raises:
        ValueError: it is no plain HTTP URL.
    """
    try:
        parsed = URL(url)
    except ValueError:
        parsed = URL()
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.user is not None or parsed.query_string or parsed.fragment:
        raise ValueError(f"{url!r} is no URL of a mirror: write https://HOST/PATH, without user, ? and #")
    return parsed.host


def at(root: str, path: str) -> str:
    return f"{root.rstrip('/')}/{path}"


async def each(items: Sequence[T], work: Callable[[T], Awaitable[R]], *, at_once: int) -> list[R]:
    """The results of ``work`` on each item, in their order."""
    gate = asyncio.Semaphore(at_once)

    async def one(item: T) -> R:
        async with gate:
            return await work(item)

    return await asyncio.gather(*(one(item) for item in items))


# -- finding out what there is -------------------------------------------------------------------------------------------------------------


async def find_dump(wiki: Language, *, client: Client, config: DownloadConfig) -> list[PublishedFile]:
    """The files of a Wikipedia's dump.

    Raises:
        JobError: there is none of that date, or none that is done.
        TransferError: a page could not be had.
    """
    if config.date != "latest":
        try:
            return await read_status(wiki, config.date, client=client, config=config)
        except TransferError as error:
            if not error.missing:
                raise
        except NotPublishedError as error:
            raise JobError(f"{error}; give another --date") from error
        there = ", ".join((await list_dates(wiki, client=client, config=config))[:6]) or "none at all"
        raise JobError(f"{wiki.dbname} has no dump of {config.date} on {config.status_root}; there is {there}")
    dates = await list_dates(wiki, client=client, config=config)
    if not dates:
        raise JobError(f"{wiki.dbname} has no dumps on {config.mirror}")
    reasons = []
    for date in dates:
        try:
            return await read_status(wiki, date, client=client, config=config)
        except TransferError as error:
            if not error.missing:
                raise
            reasons.append(f"{wiki.dbname} {date} has no dumpstatus.json")
        except NotPublishedError as error:
            reasons.append(str(error))
    raise JobError(f"{wiki.dbname} has no dump that is done on {config.mirror}: {'; '.join(reasons[:3])}")


async def list_dates(wiki: Language, *, client: Client, config: DownloadConfig) -> list[str]:
    """The dates of a Wikipedia's dumps on the mirror, newest first; none where the mirror does not know the Wikipedia."""
    try:
        return dump_dates(await client.read(at(config.mirror, listing_path(wiki.dbname)), max_bytes=MAX_PAGE_BYTES))
    except TransferError as error:
        if not error.missing:
            raise
        return []


async def read_status(wiki: Language, date: str, *, client: Client, config: DownloadConfig) -> list[PublishedFile]:
    """The files of one dump, each with size and SHA-1.

    Raises:
        JobError: its status is damaged, odd, or lacks a SHA-1.
        NotPublishedError: it is not done.
        TransferError: the status could not be had.
    """
    url = at(config.status_root, status_path(wiki.dbname, date))
    status = await client.read(url, max_bytes=MAX_PAGE_BYTES)
    try:
        files = dump_files(status, dbname=wiki.dbname, date=date)
    except NotPublishedError:
        raise
    except ValueError as error:
        raise JobError(f"{url}: {error}") from error
    unchecked = [file.name for file in files if not file.sha1]
    if unchecked:
        raise JobError(f"{url} has no SHA-1 of {unchecked[0]}: --checksums-from {SITE} may have it")
    return files


async def find_files(client: Client, config: DownloadConfig, failed: dict[str, str]) -> list[PublishedFile]:
    """Everything that was asked for, dumps in the order of the language table. ``failed`` takes what cannot be had and why."""

    async def find(wiki: Language) -> list[PublishedFile]:
        try:
            return await find_dump(wiki, client=client, config=config)
        except (JobError, TransferError) as error:
            failed[wiki.dbname] = str(error)
            say(str(error))
            return []

    wikis = config.wikis()
    if len(wikis) > 1:
        say(f"looking for the dumps of {len(wikis)} Wikipedias")
    dumps = await each(wikis, find, at_once=config.connections)
    return [file for files in dumps for file in files] + [pageview_file(hour) for hour in config.hours()]


async def with_sizes(
    files: Sequence[PublishedFile], *, client: Client, config: DownloadConfig, failed: dict[str, str]
) -> list[PublishedFile]:
    """The files with the size that the mirror announces where none is published, without those that it does not have."""

    async def ask(file: PublishedFile) -> PublishedFile | None:
        if file.size is not None:
            return file
        try:
            return replace(file, size=await client.size_of(at(config.mirror, file.path)))
        except TransferError as error:
            failed[file.name] = str(error)
            say(str(error))
            return None

    return [file for file in await each(files, ask, at_once=config.connections) if file]


# -- fetching ------------------------------------------------------------------------------------------------------------------------------


def check_space(files: Sequence[PublishedFile], shelf: Shelf, *, at_once: int) -> None:
    """Raises JobError where the disk has too little room: for all files, or for those under way to an object store at a time."""
    lacking = [max((file.size or 0) - shelf.partial(file).size, 0) for file in files]
    needed = sum(lacking if shelf.is_local else sorted(lacking)[-at_once:])
    place = shelf.partials
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        remedy = "choose another --output" if shelf.is_local else "set WORLDCLIP_CACHE to a place with more room"
        raise JobError(f"{place}: {size_text(needed)} are needed and {size_text(free)} are free; {remedy}, or ask for less")


async def fetch_file(file: PublishedFile, *, client: Client, shelf: Shelf, mirror: str, reached: Callable[[int], None]) -> None:
    """Fetch, check and put in place one file; one that proves wrong is fetched once more.

    Raises:
        JobError: it is wrong again, or cannot be written.
        TransferError: it could not be had.
    """
    partial = shelf.partial(file)
    for again in (False, True):
        await client.fetch(at(mirror, file.path), partial, size=file.size, max_bytes=file.max_bytes, reached=reached)
        found = await asyncio.to_thread(_examined, partial, file)
        if not found.fault:
            await asyncio.to_thread(partial.move_to, shelf.at(file.name))
            shelf.add(file, found)
            return
        partial.discard()
        reached(0)
        if not again:
            say(f"{file.name} was fetched, but {found.fault}; it is fetched once more")
    raise JobError(
        f"{file.name} was fetched twice, but {found.fault}: {mirror} seems to hold a damaged copy; try another --mirror, or later"
    )


def _examined(partial: Partial, file: PublishedFile) -> Found:
    with open(partial.path, "rb") as opened:
        return examine(opened, file)


async def fetch_files(
    files: Sequence[PublishedFile], *, client: Client, shelf: Shelf, config: DownloadConfig, policy: RetryPolicy, failed: dict[str, str]
) -> None:
    begun = {file.name: shelf.partial(file).size for file in files}
    progress = Progress({file.name: file.size for file in files}, begun, policy.clock)

    async def fetch(file: PublishedFile) -> None:
        try:
            await fetch_file(
                file, client=client, shelf=shelf, mirror=config.mirror, reached=lambda n_bytes: progress.reached(file.name, n_bytes)
            )
            progress.finished()
        except Exception as error:
            # Not only JobErrors: an object store has exceptions of its own.
            reason = str(error) if isinstance(error, TransferError) else message_of(error)
            if reason is None:
                raise
            failed[file.name] = reason
            progress.gave_up(file.name)
            say(reason)

    try:
        await each(files, fetch, at_once=config.connections)
    finally:
        shelf.save()


# -- the job -------------------------------------------------------------------------------------------------------------------------------


async def sort_out(files: Sequence[PublishedFile], shelf: Shelf, *, at_once: int) -> list[PublishedFile]:
    """The files that are not there, or not right."""

    async def is_missing(file: PublishedFile) -> bool:
        found = await asyncio.to_thread(shelf.find, file)
        if found and found.fault:
            say(f"{file.name} is there, but {found.fault}; it is fetched again")
        elif found:
            shelf.add(file, found)
        return not found or bool(found.fault)

    n_there = len({file.name for file in files}.intersection(shelf.names()))
    if n_there:
        say(f"comparing {n_there} files that are there with what is published")
    wanted = await each(files, is_missing, at_once=at_once)
    return [file for file, missing in zip(files, wanted, strict=True) if missing]


def print_plan(files: Sequence[PublishedFile], missing: Sequence[PublishedFile], shelf: Shelf) -> None:
    """A line per file: what would be fetched."""
    wanted = {file.name: file for file in missing}
    for file in files:
        size = wanted.get(file.name, file).size
        state = "there" if file.name not in wanted else "go on" if shelf.partial(file).size else "fetch"
        print(f"{state:5} {'?' if size is None else f'{size:,}':>16}  {file.name}")


def tell_of_others(files: Sequence[PublishedFile], shelf: Shelf) -> None:
    """Say what else lies there: dumps that would be counted together with those asked for, and what nobody may come back for."""
    names = {file.name for file in files}
    there = shelf.names()
    for wiki in sorted({file.wiki for file in files if file.wiki}):
        others = [name for name in there if name not in names and is_dump_of(name, wiki)]
        if others:
            say(f"note: {shelf.url} also holds {others[0]}, of another dump of {wiki}: ngrams would count both. Delete one of them")
    unfinished = {name: size for name, size in shelf.unfinished().items() if name not in names}
    if unfinished:
        say(f"note: {shelf.partials} holds {len(unfinished)} unfinished files of other downloads, {size_text(sum(unfinished.values()))}")


async def bring(config: DownloadConfig, policy: RetryPolicy) -> None:
    """Find, compare, fetch.

    Raises:
        JobError: something could not be had; everything else was brought.
    """
    failed: dict[str, str] = {}
    with Shelf.opened(config.output, read_only=config.dry_run) as shelf:
        async with Client(user_agent=config.user_agent, connections=config.connections, policy=policy) as client:
            files = await find_files(client, config, failed)
            missing = await sort_out(files, shelf, at_once=config.connections)
            there = len(files) - len(missing)
            missing = await with_sizes(missing, client=client, config=config, failed=failed)
            size = size_text(sum(file.size or 0 for file in missing))
            if config.dry_run:
                print_plan([file for file in files if file.name not in failed], missing, shelf)
                print(f"download: {len(missing)} files to fetch, {size}; {there} are there and right", flush=True)
            else:
                check_space(missing, shelf, at_once=config.connections)
                say(f"{len(missing)} files to fetch, {size}; {there} are there and right")
                await fetch_files(missing, client=client, shelf=shelf, config=config, policy=policy, failed=failed)
                fetched = sum(file.name not in failed for file in missing)
                tell_of_others(files, shelf)
                print(f"download: {fetched} files fetched, {there} were there and right → {config.output}", flush=True)
    if failed:
        lines = [f"  {reason}" for reason in list(failed.values())[:_LISTED]]
        more = [f"  and {len(failed) - _LISTED} more"] if len(failed) > _LISTED else []
        head = f"{len(failed)} of what was asked for could not be had; the same command goes on with it:"
        raise JobError("\n".join([head, *lines, *more]))


def main(config: DownloadConfig, beam_args: Sequence[str]) -> None:
    if beam_args:
        raise JobError(f"download does not know {beam_args[0]}")
    asyncio.run(bring(config, RetryPolicy()))
