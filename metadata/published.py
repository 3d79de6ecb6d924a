"""What Wikimedia publishes and under which names: dumps by Wikipedia and date, page views by the hour. Nothing here asks anybody.

``<site>/<dbname>/`` lists the dates of a wiki's dumps; ``<dbname>/<date>/dumpstatus.json`` says of every job of a dump how far it is and
which files it made, with size and SHA-1. Page views lie in ``other/pageviews/<year>/<year>-<month>/``, a file per hour in UTC, without
checksums. Mirrors keep these paths below a root of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date as Date
from datetime import datetime, timedelta
from typing import Annotated

import msgspec

SITE = "https://dumps.wikimedia.org"
#: No dump status and no listing is near it: that of enwiki, with its thousands of files of the history, is about a megabyte.
MAX_PAGE_BYTES = 1 << 24
#: A page-view file is 40 to 70 MB.
MAX_PAGEVIEW_BYTES = 1 << 30
#: The hour from which there are page-view files of this form.
FIRST_HOUR = datetime(2015, 5, 1, 1)

#: Jobs that make pages-articles files, best first. ``…recombine`` makes one file of the parts in which large wikis are published; the parts
#: are there earlier, can be read in parallel, and a mishap costs one of them.
_JOBS = ("articlesmultistreamdump", "articlesmultistreamdumprecombine", "articlesdump", "articlesdumprecombine")
#: What a job is called that will not be done any more.
_GIVEN_UP = frozenset({"failed", "skipped"})

_LINK = re.compile(rb"""href\s*=\s*["']?(?:[^"'>\s]*/)?([0-9]{8})/?["'>\s]""", re.IGNORECASE)
_GOLDEN = 618_034  # of a million


class NotPublishedError(ValueError):
    """The dump is not there, or not done."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedFile:
    """One file. ``path``: below the root of the site or of a mirror, without a leading slash. ``date``: of the dump or the day of the page
    views, 20260101. ``wiki``: dbname of the dump, empty for page views. ``size`` in bytes and ``sha1`` in hexadecimal digits as published;
    None and empty where they are not."""

    name: str
    path: str
    date: str
    wiki: str = ""
    size: int | None = None
    sha1: str = ""

    @property
    def max_bytes(self) -> int:
        """More than this are not the file."""
        return MAX_PAGEVIEW_BYTES if self.size is None else self.size


# -- dumps -------------------------------------------------------------------------------------------------------------------------------


class _File(msgspec.Struct):
    size: Annotated[int, msgspec.Meta(gt=0)]
    # "sha1": "" and an absent one are told in other words than a malformed one.
    sha1: Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{40})?\Z")] = ""


class _Job(msgspec.Struct):
    status: str
    #: Decoded for the job that counts alone: files of jobs that are not done lack their sizes.
    files: msgspec.Raw = msgspec.Raw(b"{}")


class _Status(msgspec.Struct):
    jobs: dict[str, msgspec.Raw]


def check_date(text: str) -> str:
    """``text``, if it is a day as dumps are named by: 20260101.

    Raises:
        ValueError: it is not.
    """
    try:
        if not re.fullmatch(r"[0-9]{8}", text):
            raise ValueError
        Date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        raise ValueError(f"{text!r} is no date: write 20260101") from None
    return text


def dump_dates(listing: bytes) -> list[str]:
    """The dates that a wiki's directory page links to, newest first."""
    found = set()
    for match in _LINK.finditer(listing):
        try:
            found.add(check_date(match[1].decode()))
        except ValueError:
            continue
    return sorted(found, reverse=True)


def listing_path(dbname: str) -> str:
    return f"{dbname}/"


def status_path(dbname: str, date: str) -> str:
    return f"{dbname}/{date}/dumpstatus.json"


def dump_files(status: bytes, *, dbname: str, date: str) -> list[PublishedFile]:
    """The pages-articles files of a dump from its dumpstatus.json, sorted by name: multistream with the indexes, in parts where the wiki is
    published in parts.

    The first of the jobs that was not given up decides, so a dump that is not finished yet is not taken in another form than it will have.
    No name or path of the status is believed: a name must be one that such a file can have, and the path follows from it.

    Raises:
        NotPublishedError: the dump is not done.
        ValueError: this is no dump status, or it names files that this dump cannot have.
    """
    place = f"{dbname} {date}"
    try:
        jobs = msgspec.json.decode(status, type=_Status).jobs
        for name in _JOBS:
            if name not in jobs:
                continue
            job = msgspec.json.decode(jobs[name], type=_Job)
            if job.status in _GIVEN_UP:
                continue
            if job.status != "done":
                raise NotPublishedError(f"{place} is not finished ({name} is {job.status[:40]!r})")
            files = msgspec.json.decode(job.files, type=dict[str, _File])
            return [_dump_file(file, about, dbname=dbname, date=date) for file, about in sorted(files.items())]
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"the dumpstatus.json of {place} cannot be read ({error})") from error
    raise NotPublishedError(f"{place} has no pages-articles files")


def _dump_file(name: str, about: _File, *, dbname: str, date: str) -> PublishedFile:
    form = rf"{re.escape(dbname)}-{date}-pages-articles(-multistream(-index)?)?[0-9]{{0,4}}\.(xml|txt)(-p[0-9]{{1,12}}p[0-9]{{1,12}})?\.bz2"
    if not re.fullmatch(form, name):
        raise ValueError(f"the dumpstatus.json of {dbname} {date} names {name[:200]!r}, which is no pages-articles file of that dump")
    return PublishedFile(name=name, path=f"{dbname}/{date}/{name}", date=date, wiki=dbname, size=about.size, sha1=about.sha1)


def is_dump_of(name: str, dbname: str) -> bool:
    """Whether a file is called as articles of that wiki are, of whichever date; its indexes are not."""
    return bool(re.fullmatch(rf"{re.escape(dbname)}-[0-9]{{8}}-pages-articles[^/]*\.xml[^/]*\.bz2", name))


# -- page views --------------------------------------------------------------------------------------------------------------------------

_MOMENT = re.compile(r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2})(?:T([0-9]{2}))?)?)?")
_HOUR = timedelta(hours=1)


def _bounds(text: str) -> tuple[datetime, datetime]:
    """First hour of a year, month, day or hour, and the first one after it."""
    match = _MOMENT.fullmatch(text)
    try:
        if not match:
            raise ValueError
        year, month, day, hour = (None if part is None else int(part) for part in match.groups())
        assert year is not None
        if month is None:
            return datetime(year, 1, 1), datetime(year + 1, 1, 1)
        if day is None:
            return datetime(year, month, 1), datetime(year + month // 12, month % 12 + 1, 1)
        if hour is None:
            return datetime(year, month, day), datetime(year, month, day) + timedelta(days=1)
        return datetime(year, month, day, hour), datetime(year, month, day, hour) + _HOUR
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no time: write 2025, 2025-01, 2025-01-31, 2025-01-31T00 or two of them as FIRST..LAST") from None


def hours_of(spans: Iterable[str], *, now: datetime) -> list[datetime]:
    """The hours that spans name, in UTC, sorted, each once.

    A span is a year, month, day or hour, or ``FIRST..LAST`` of these, both included. The hour is the one in the file's name.

    Raises:
        ValueError: one is no span, ends before it begins, begins before :data:`FIRST_HOUR` or has not passed ``now``.
    """
    hours: set[datetime] = set()
    for span in spans:
        first, dots, last = span.partition("..")
        start, end = _bounds(first)[0], _bounds(last if dots else first)[1]
        if end <= start:
            raise ValueError(f"{span!r} ends before it begins")
        if start.date() < FIRST_HOUR.date():
            raise ValueError(f"{span!r} begins before {FIRST_HOUR:%Y-%m-%d}: page views of this form are published from then on")
        if end > now:
            raise ValueError(f"{span!r} has not passed yet: name hours before {now:%Y-%m-%dT%H} UTC")
        hours.update(start + i * _HOUR for i in range((end - start) // _HOUR))
    return sorted(hour for hour in hours if hour >= FIRST_HOUR)


def sample_hours(hours: Sequence[datetime], sample: str) -> list[datetime]:
    """``26d``: as many whole days out of sorted ``hours``; ``100h``: as many single hours. All of them where there are no more.

    One of each of as many equal stretches of time. Its place in the stretch moves on by the golden section: at equal distances the sample
    would hold one day of the week only, or one hour of the day.

    Raises:
        ValueError: ``sample`` is neither.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,5})([dh])", sample)
    if not match:
        raise ValueError(f"{sample!r} is no sample: write 26d for 26 whole days or 100h for 100 single hours")
    n = int(match[1])
    if match[2] == "h":
        return [hours[i] for i in _spread(len(hours), n)]
    days = sorted({hour.date() for hour in hours})
    chosen = {days[i] for i in _spread(len(days), n)}
    return [hour for hour in hours if hour.date() in chosen]


def _spread(length: int, n: int) -> list[int]:
    """``n`` places in [0, length), one in each of n stretches; integers only, so the same everywhere."""
    if n >= length:
        return list(range(length))
    starts = [i * length // n for i in range(n + 1)]
    return [starts[i] + i * _GOLDEN % 1_000_000 * (starts[i + 1] - starts[i]) // 1_000_000 for i in range(n)]


def pageview_file(hour: datetime) -> PublishedFile:
    """The page-view file that bears an hour in its name."""
    name = f"pageviews-{hour:%Y%m%d-%H}0000.gz"
    return PublishedFile(name=name, path=f"other/pageviews/{hour:%Y/%Y-%m}/{name}", date=f"{hour:%Y%m%d}")
