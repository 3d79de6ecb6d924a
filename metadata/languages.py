"""The one table of languages: what each Wikipedia is called in dumps, page views, language identification and wordnets.

``languages.csv`` holds one row per Wikipedia. A *metadata language* is a list of entries: most Wikipedias have a list of their own; one
that language identification takes for another language goes into that language's list: another orthography, a variety, or a language in a
script of which lid.176 knows one language only (every Tigrinya text is ``am`` to it, every Shan text ``my``, and would never meet entries
that lie elsewhere). Wikipedias that no label of lid.176 reaches go into the common list ``other``. Simple English has a list that no full
build holds.

The column ``glotlid`` serves every model whose labels are an ISO 639-3 code and a script. It holds the labels of GlotLID v3, and of older
versions, NLLB's and OpenLID's models where these differ (``zho_Hans``, ``pes_Arab``), for the language in any script and for the members of
its macrolanguage that have no Wikipedia of their own. A code may mean another language than it does as a Wikipedia's: in such labels
``als`` is Tosk Albanian, not Alemannic, and ``nrm`` is Narom, not Norman.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType

#: The list of all Wikipedias that no label of lid.176 reaches.
OTHER = "other"
#: Families of language identification models; the same label may mean different languages in two of them (``als``).
LID_FAMILIES = ("lid.176", "glotlid")

#: Wikipedias with a list of their own that is built only where it is named.
_ON_REQUEST = frozenset({"simple"})
#: Their words are cut at apostrophes, as published: the first recipe is English, and its lists are to be those of the paper.
_CUT_AT_APOSTROPHES = frozenset({"en", "simple"})
_LABEL_PREFIX = "__label__"


@dataclass(frozen=True, kw_only=True, slots=True)
class Language:
    """One Wikipedia.

    ``code``: its code with underscores, the key of the table. ``dbname``: the name of its dumps. ``pageview_codes``: its domain codes in
    page-view files, old and new. ``script``: main script, ISO 15924. ``spaced``: whether words are separated by spaces. ``segmenter``: how
    words are found where they are not (a name of ``metadata.segment``), else empty. ``lid176``, ``glotlid``: labels of the model
    family that mean this language. ``wordnets``: its codes in the Open Multilingual Wordnet 1.4; Chinese has a table of either script.
    ``merged_into``: the code of the list that its entries go to, empty for a list of its own.
    """

    code: str
    dbname: str
    pageview_codes: tuple[str, ...]
    name: str
    own_name: str
    script: str
    spaced: bool
    segmenter: str
    lid176: tuple[str, ...]
    glotlid: tuple[str, ...]
    wordnets: tuple[str, ...]
    merged_into: str

    @property
    def cut_apostrophes(self) -> bool:
        """Whether an apostrophe inside a word is a token of its own."""
        return self.code in _CUT_AT_APOSTROPHES


@cache
def all_languages() -> Mapping[str, Language]:
    """Every Wikipedia, by code, in the order of the table."""
    text = resources.files(__package__).joinpath("languages.csv").read_text(encoding="utf-8")
    table = {}
    for row in csv.DictReader(text.splitlines()):
        table[row["code"]] = Language(
            code=row["code"],
            dbname=row["dbname"],
            pageview_codes=tuple(row["pageview_codes"].split()),
            name=row["name"],
            own_name=row["own_name"],
            script=row["script"],
            spaced=row["spaced"] == "1",
            segmenter=row["segmenter"],
            lid176=tuple(row["lid176"].split()),
            glotlid=tuple(row["glotlid"].split()),
            wordnets=tuple(row["wordnets"].split()),
            merged_into=row["merged_into"],
        )
    return MappingProxyType(table)


def _unknown(what: str, code: str, known: Mapping[str, object] | tuple[str, ...]) -> ValueError:
    close = difflib.get_close_matches(code, list(known), n=5, cutoff=0.5)
    hint = f"; close to it: {', '.join(close)}" if close else ""
    return ValueError(f"unknown {what} {code!r}{hint}")


def language(code: str) -> Language:
    """The Wikipedia of that code.

    Raises:
        ValueError: no such Wikipedia; the message names close codes.
    """
    table = all_languages()
    if code not in table:
        raise _unknown("language code", code, table)
    return table[code]


@cache
def _by_dbname() -> Mapping[str, Language]:
    return {lang.dbname: lang for lang in all_languages().values()}


@cache
def _by_pageview_domain() -> Mapping[str, Language]:
    return {domain + suffix: lang for lang in all_languages().values() for domain in lang.pageview_codes for suffix in ("", ".m")}


@cache
def _members() -> Mapping[str, tuple[str, ...]]:
    lists: dict[str, list[str]] = {code: [code] for code, lang in all_languages().items() if not lang.merged_into}
    lists[OTHER] = []
    for code, lang in all_languages().items():
        if lang.merged_into:
            lists[lang.merged_into].append(code)
    return {code: tuple(wikis) for code, wikis in lists.items()}


@cache
def _by_label(family: str) -> Mapping[str, str]:
    if family not in LID_FAMILIES:
        raise ValueError(f"unknown model family {family!r}; known: {', '.join(LID_FAMILIES)}")
    labels: dict[str, str] = {}
    for code, lang in all_languages().items():
        for label in lang.lid176 if family == "lid.176" else lang.glotlid:
            labels[label] = metadata_language(code)
    return labels


def language_of_dbname(dbname: str) -> Language | None:
    """The Wikipedia whose dumps bear that name (``zh_min_nanwiki``), or None."""
    return _by_dbname().get(dbname)


def language_of_pageview_code(domain: str) -> Language | None:
    """The Wikipedia of a page-view file's domain code: ``xx`` (desktop) or ``xx.m`` (mobile); None for every other project."""
    return _by_pageview_domain().get(domain)


def metadata_language(code: str) -> str:
    """Code of the list that the entries of Wikipedia ``code`` go to; may be :data:`OTHER`.

    Raises:
        ValueError: no such Wikipedia.
    """
    return language(code).merged_into or code


def members(metadata_code: str) -> tuple[str, ...]:
    """Codes of the Wikipedias whose entries make up a list: the list's own Wikipedia first, then in the order of the table.

    Raises:
        ValueError: no such list.
    """
    return _members()[check_metadata_code(metadata_code)]


@cache
def metadata_codes() -> tuple[str, ...]:
    """All lists of a full build, in the order of the table, :data:`OTHER` last; without ``simple``."""
    return tuple(code for code in _members() if code not in _ON_REQUEST)


def language_of_label(family: str, label: str) -> str | None:
    """Metadata language of a model's label, with or without ``__label__``; None where the label's language has no Wikipedia.

    Raises:
        ValueError: ``family`` is not one of :data:`LID_FAMILIES`.
    """
    return _by_label(family).get(label.removeprefix(_LABEL_PREFIX))


def check_metadata_code(code: str) -> str:
    """``code``, if it names a list (``other`` and ``simple`` included): to be called before a code becomes part of a path.

    Raises:
        ValueError: no such list; the message says where a merged Wikipedia's entries are, or names close codes.
    """
    if code in _members():
        return code
    if code in all_languages():
        raise ValueError(f"{code!r} has no list of its own: its entries are in {metadata_language(code)!r}")
    raise _unknown("metadata language", code, tuple(_members()))
