"""Lemmas out of WordNet 3.0 and the tables of the Open Multilingual Wordnet 1.4, as nltk distributes them.

The files are read as they are, without nltk: what is needed of a line are its first few fields, nltk parses the whole and keeps it
in memory. The offset of a line says which synset a lemma belongs to; it is not used, so the invalid ones of the published tables do
no harm.

In every lemma ``_`` becomes a space and ``+``, which marks morphemes in the Chinese table, is left out. So is what a lemma carries that is
not written in a text: the vowel points of the Hebrew and Arabic tables (of 5,325 pointed Hebrew lemmas not one occurs in 24,000 characters
of Wikipedia, without points 184 do), doubts ("!" and "?" at the beginning), an explanation in brackets at either end, quotation marks
around the whole, and remains of wikitext and HTML. A lemma in which a dictionary's notation is left all the same is dropped.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from typing import IO

import pyarrow as pa

from metadata.languages import all_languages
from metadata.tally import Tally
from metadata.wikitext import plain_text

#: Grows whenever a rule below changes in a way that can change a result.
WORDNET_VERSION = 3

#: ``lang`` is a wiki code. Sorted by lemma, each once.
LEMMA_SCHEMA = pa.schema([pa.field("lang", pa.string(), nullable=False), pa.field("lemma", pa.string(), nullable=False)])

_SYNSET_FILES = ("wordnet/data.adj", "wordnet/data.adv", "wordnet/data.noun", "wordnet/data.verb")
_TABLE_NAME = re.compile(r"omw-1\.4/[^/]+/wn-data-([a-z]{3})\.tab")
#: "galore(ip)": where an adjective may stand.
_SYNTACTIC_MARKER = re.compile(r"\([^()]*\)$")
#: Characters of lemmas that become others or, in most cases, nothing. Points of Hebrew; vowel signs and the stretching stroke of Arabic;
#: what is left of characters that a table had in another encoding.
_TRANSLATION: dict[int, str | None] = {
    ord("_"): " ",
    **dict.fromkeys([ord("+"), *range(0x591, 0x5BE), 0x5BF, 0x5C1, 0x5C2, 0x5C4, 0x5C5, 0x5C7]),
    **dict.fromkeys([0x640, *range(0x64B, 0x653), 0x670]),
    0x9C: "œ",
    0x9D: None,
}
#: "arabette|lt=vaistutis", "moteur#moteur thermique", "[[geboren]] [[worden]]", "*account"
_WIKITEXT = re.compile(r"[|#].*|\[\[|\]\]|^\*")
_MARKUP = re.compile(r"[<&]|''|\{\{")
#: "Bahamas ''f pl''"
_REMARK = re.compile(r"''+[^']+''+")
#: "gasnúť (oheň)", "(slang.) úžasný"; not "chlorek rtęci(II)"
_EXPLANATION = re.compile(r" \([^()]*\)$|^\([^()]*\) ?")
#: "« big band »"
_QUOTED = re.compile(r"""["'«“„] ?([^"'«»“”„]*?) ?["'»“”]""")
#: "(Ath", "2)"; "serpe ; serpette", "尘[粉]状的"; "útenginn; gefin\""; "-520", "$L"
_NOTATION = re.compile(r"""^[($]|\([^()]*$|^[^()]*\)|[][<>{};\ufffd]|^"[^"]*$|^[^"]*"$|^-\d+$""")
#: What tables hold where a language has no word.
_NO_WORD = frozenset({"GAP!", "PSEUDOGAP!"})
#: A longer line counts as several. The longest one of WordNet 3.0 takes 13 kB, of the tables 3 kB.
_LINE_BYTES = 1 << 16


def wikis_of_wordnet(code: str) -> tuple[str, ...]:
    """Codes of the Wikipedias whose wordnet has that code (``als`` is Tosk Albanian, Wikipedia ``sq``), in the order of the table."""
    return tuple(lang.code for lang in all_languages().values() if code in lang.wordnets)


def english_synset_names(archive: IO[bytes], *, lang: str, tally: Tally) -> pa.Table:
    """Version 1's source: every synset name up to its first dot, as ``LEMMA_SCHEMA``.

    A synset is named by its first lemma in lower case, a part of speech and a number.

    Args:
        archive: an opened, seekable ``wordnet.zip``.
        lang: what the column ``lang`` says.
        tally: ``read`` are synsets, ``emitted`` the distinct names.

    Raises:
        ValueError: the archive is no zip file or lacks a data file of WordNet.
    """
    return _table((lemmas[0].lower().partition(".")[0] for lemmas in _synsets(archive, tally)), lang=lang, tally=tally)


def english_lemma_names(archive: IO[bytes], *, lang: str, tally: Tally) -> pa.Table:
    """Every lemma name of WordNet in its own case ("New York"), as the Open Multilingual Wordnet lists English.

    Arguments and errors are those of :func:`english_synset_names`, but ``read`` are lemmas, each as often as synsets have it.
    """
    return _table((lemma for lemmas in _synsets(archive, tally) for lemma in lemmas), lang=lang, tally=tally)


def omw_tables(archive: IO[bytes]) -> Iterator[tuple[str, IO[bytes]]]:
    """(wordnet code, opened table) of an opened, seekable ``omw-1.4.zip``, in the order of their names.

    Each table is closed when the next one is asked for. A code may have two tables, as Italian has; every lemma of both counts.

    Raises:
        ValueError: the archive is no zip file.
    """
    with _opened(archive) as members:
        for name in sorted(members.namelist()):
            if match := _TABLE_NAME.fullmatch(name):
                with members.open(name) as table:
                    yield match[1], table


def omw_lemmas(table: IO[bytes], *, lang: str, tally: Tally) -> pa.Table:
    """The lemmas of one table of the Open Multilingual Wordnet, as ``LEMMA_SCHEMA``.

    A line is ``offset TAB label TAB lemma``; the label is ``lemma``, also behind a language code. Comments begin with ``#``.

    Args:
        table: opened table.
        lang: what the column ``lang`` says.
        tally: ``read`` are lines that are no comments, ``emitted`` the distinct lemmas. ``place`` of a dead letter is its line, from 1.
    """
    return _table(_lemmas_of_table(table, tally), lang=lang, tally=tally)


def _lemmas_of_table(table: IO[bytes], tally: Tally) -> Iterator[str]:
    for number, line in _lines(table, tally):
        if line.startswith(b"#") or not line.strip():
            continue
        # Stripped as a whole, the line would lose an empty last field.
        fields = line.rstrip(b"\r\n").split(b"\t")
        if len(fields) < 3:
            _bury(tally, "too_few_fields", number, line)
        elif fields[1].rpartition(b":")[2] != b"lemma":
            tally.read += 1
            tally.drop("not_a_lemma")
        else:
            try:
                lemma = fields[2].decode()
            except UnicodeDecodeError:
                _bury(tally, "invalid_utf8", number, line)
            else:
                yield lemma


def _synsets(archive: IO[bytes], tally: Tally) -> Iterator[list[str]]:
    """The lemmas of each synset, without syntactic markers."""
    with _opened(archive) as members:
        missing = sorted({*_SYNSET_FILES} - {*members.namelist()})
        if missing:
            raise ValueError(f"no WordNet: the archive lacks {', '.join(missing)}")
        for name in _SYNSET_FILES:
            with members.open(name) as file:
                for number, line in _lines(file, tally):
                    # The licence, which opens each file, is indented.
                    if line.startswith(b"  "):
                        continue
                    try:
                        yield _synset(line)
                    except ValueError as error:
                        _bury(tally, "not_a_synset", number, line, detail=f"{name}: {error}")


def _synset(line: bytes) -> list[str]:
    """Lemmas of a line ``offset file type count lemma id lemma id ...``; count is hexadecimal."""
    fields = line.partition(b"|")[0].decode("ascii").split()
    if len(fields) < 4:
        raise ValueError("too few fields")
    count = int(fields[3], 16)
    lemmas = fields[4 : 4 + 2 * count : 2]
    if not 0 < count == len(lemmas):
        raise ValueError(f"{count} lemmas announced, {len(lemmas)} found")
    return [_SYNTACTIC_MARKER.sub("", lemma) for lemma in lemmas]


def _opened(archive: IO[bytes]) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(archive)
    except zipfile.BadZipFile as error:
        raise ValueError(f"no zip archive: {error}") from error


def _lines(file: IO[bytes], tally: Tally) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line); what is damaged ends the file."""
    number = 0
    try:
        for line in iter(partial(file.readline, _LINE_BYTES), b""):
            number += 1
            yield number, line
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        tally.damaged("corrupt_archive", place=number + 1, detail=str(error))


def _bury(tally: Tally, reason: str, place: int, line: bytes, *, detail: str = "") -> None:
    tally.read += 1
    tally.dead_letter(reason, place=place, detail=detail, payload=line)


def _plain(lemma: str) -> str:
    """The lemma as it stands in a text; empty where it is no word."""
    lemma = lemma.translate(_TRANSLATION)
    if _MARKUP.search(lemma):
        # Twice, since tags may be written as entities.
        lemma = plain_text(plain_text(_REMARK.sub("", lemma)))
    lemma = _EXPLANATION.sub("", " ".join(_WIKITEXT.sub("", lemma).split()))
    if quoted := _QUOTED.fullmatch(lemma):
        lemma = quoted[1]
    return "" if lemma in _NO_WORD else lemma.lstrip("!? ")


def _table(lemmas: Iterable[str], *, lang: str, tally: Tally) -> pa.Table:
    """Distinct lemmas as ``LEMMA_SCHEMA``; each one that comes is read."""
    distinct: set[str] = set()
    read = empty = notation = 0
    for lemma in lemmas:
        read += 1
        plain = _plain(lemma)
        if not plain:
            empty += 1
        elif _NOTATION.search(plain):
            notation += 1
        else:
            distinct.add(plain)
    tally.read += read
    tally.emitted += len(distinct)
    tally.drop("empty_lemma", empty)
    tally.drop("notation", notation)
    tally.drop("repeated_lemma", read - empty - notation - len(distinct))
    ordered = sorted(distinct)
    return pa.table([pa.array([lang] * len(ordered), pa.string()), pa.array(ordered, pa.string())], schema=LEMMA_SCHEMA)
