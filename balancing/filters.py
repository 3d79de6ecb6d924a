"""Pairs that somebody does not want, by rules that the papers do not have: all are off unless asked for, and each has its own reason."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa

from metadata.tally import Tally

# A name with the ending of an image and nothing around it; long descriptions end in one as well, and hold spaces.
_FILE_NAME = re.compile(r"\S(?:.{0,100}\S)?\.(?:avif|bmp|gif|ico|jpe?g|jfif|png|svg|tiff?|webp)", re.IGNORECASE)
_WORDS = re.compile(r"[^\W\d_]+")
_JOINTS = re.compile(r"[\W_]+")
_EMAIL = re.compile(r"[\w.%+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){0,4}\.[^\W\d_]{2,24}\b")
# A leading + or 0, then groups of at least two digits, 8 to 15 in all: dates, sizes and numbers of articles are none.
_PHONE = re.compile(r"(?<![\w.-])(?:\+\d{1,3}|\(?0\d{1,4}\)?)(?:[ ()./-]{0,2}\d{2,9}){1,5}(?![\w-])")
_PHONE_DIGITS = range(8, 16)

#: Words of the frame of a page, not of a picture, out of the most frequent alt texts of a small real crawl. A text of nothing but these,
#: digits and marks ("logo", "Facebook icon", "4.50 out of 5 stars") says nothing of its image.
_FRAME_WORDS = (
    "ad advertisement alt an arrow article avatar back background banner bild bullet button by captcha close cover data download "
    "email facebook favicon feed flickr foto footer gallery google gravatar header here home icon icono icône illustration image imagen "
    "images imagem img immagine in instagram item link linkedin loading loader logo mail main map menu navigation next null of on open out "
    "photo photos pic picture pin pinterest placeholder play plus post preview previous print profile rating read rss screenshot search "
    "share slide spacer star stars teaser the thumb thumbnail title to toggle top twitter undefined untitled user vector video view vimeo "
    "website whatsapp wordpress youtube"
)
FRAME_WORDS = frozenset(_FRAME_WORDS.split())


def is_file_name(text: str, url: str) -> bool:
    """Whether a text is the name of an image file, or that of its own file: ``IMG_0012.JPG``, or ``red-fox`` of ``/red_fox.png``."""
    if _FILE_NAME.fullmatch(text):
        return True
    try:
        name = unquote(urlsplit(url).path.rpartition("/")[2])
    except ValueError:
        return False
    stem = name.rpartition(".")[0] or name
    # A caption of words that the file was named after is a caption: with spaces, or one word of letters.
    return not text.isalpha() and " " not in text and _JOINTS.sub("", text).casefold() == _JOINTS.sub("", stem).casefold() != ""


def is_frame(text: str) -> bool:
    """Whether a text holds no word but those of ``FRAME_WORDS``; one without any word is no caption either."""
    return all(word in FRAME_WORDS for word in map(str.casefold, _WORDS.findall(text)))


def has_email(text: str) -> bool:
    return "@" in text and _EMAIL.search(text) is not None


def has_phone(text: str) -> bool:
    return any(sum(map(str.isdigit, number[0])) in _PHONE_DIGITS for number in _PHONE.finditer(text))


#: Rules by the name that turns them on, each with the reason of its drops.
RULES: Mapping[str, tuple[str, Callable[[str, str], bool]]] = {
    "file-names": ("file_name", is_file_name),
    "frames": ("frame_of_page", lambda text, url: is_frame(text)),
    "emails": ("email", lambda text, url: has_email(text)),
    "phones": ("phone", lambda text, url: has_phone(text)),
}


def hosts_of(lines: Iterable[str]) -> frozenset[str]:
    """Host names out of a list, one a line; ``#`` begins a comment.

    Raises:
        ValueError: a line is no host name; says which.
    """
    hosts = set()
    for number, line in enumerate(lines, 1):
        host = line.partition("#")[0].strip().rstrip(".").casefold()
        if host and not re.fullmatch(r"[\w.-]+", host):
            raise ValueError(f"line {number} is no host name: {line.strip()[:80]}")
        if host:
            hosts.add(host)
    return frozenset(hosts)


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which pairs to drop. ``rules``: some of ``RULES``. ``hosts``: those of images, their subdomains among them."""

    rules: tuple[str, ...] = ()
    min_characters: int = 0
    max_characters: int | None = None
    hosts: frozenset[str] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        if unknown := [name for name in self.rules if name not in RULES]:
            raise ValueError(f"no such rule: {', '.join(unknown)}; there are {', '.join(RULES)}")

    def reason(self, text: str, url: str | None) -> str | None:
        """Why a pair is dropped, or None; the first reason in the order length, host, rules."""
        if len(text) < self.min_characters:
            return "text_too_short"
        if self.max_characters is not None and len(text) > self.max_characters:
            return "text_over_limit"
        if self.hosts and self._blocked(url):
            return "blocked_host"
        return next((RULES[name][0] for name in self.rules if RULES[name][1](text, url or "")), None)

    def _blocked(self, url: str | None) -> bool:
        try:
            labels = (urlsplit(url or "").hostname or "").rstrip(".").split(".")
        except ValueError:
            return False
        return any(".".join(labels[i:]) in self.hosts for i in range(len(labels)))

    @property
    def off(self) -> bool:
        return self == Filters()


def filter_pairs(tables: Iterable[pa.Table], filters: Filters, *, tally: Tally) -> Iterator[pa.Table]:
    """The pairs (PAIR_SCHEMA) that stay, in order; the others are drops by reason. Memory: that of a table."""
    for table in tables:
        tally.read += len(table)
        reasons = list(map(filters.reason, table["text"].to_pylist(), table["url"].to_pylist()))
        for reason, n in Counter(reasons).items():
            if reason is not None:
                tally.drop(reason, n)
        stays = table.filter(pa.array(np.array([reason is None for reason in reasons], dtype=bool)))
        tally.emitted += len(stays)
        yield stays
