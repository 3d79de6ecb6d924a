"""Wikipedia dumps in the published layout: multistream bz2 of the export schema 0.11, with the index of its streams."""

from __future__ import annotations

import bz2
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from tests.world.subjects import CLASSES, COLOURS, SCENES, SHAPES, Subject, class_ranks, draw_subject
from tests.world.vocabulary import Language, capital

DATE = "20260901"
PAGES_PER_STREAM = 10
REDIRECT_EVERY = 7
CATEGORY_EVERY = 11

#: Words that stand only in markup which is not text: comment, reference, template, table, formula, file name. None may become an entry.
HIDDEN_WORDS = ("qxcomment", "qxreference", "qxtemplate", "qxtable", "qxformula", "qxfile")

_NAMESPACES = {
    -2: "Media",
    -1: "Special",
    0: "",
    1: "Talk",
    2: "User",
    3: "User talk",
    4: "Wikipedia",
    5: "Wikipedia talk",
    6: "File",
    7: "File talk",
    10: "Template",
    11: "Template talk",
    12: "Help",
    13: "Help talk",
    14: "Category",
    15: "Category talk",
    828: "Module",
    829: "Module talk",
}


@dataclass(frozen=True, kw_only=True)
class DumpTruth:
    """Pages of one dump by what becomes of them. ``empty`` articles have no text at all."""

    articles: int
    redirects: int
    other_namespaces: int
    empty: int

    @property
    def pages(self) -> int:
        return self.articles + self.redirects + self.other_namespaces + self.empty


@dataclass(frozen=True, kw_only=True)
class _Page:
    title: str
    namespace: int
    text: str
    model: str = "wikitext"
    redirect: str = ""


def titles(language: Language) -> Iterator[str]:
    """Titles of articles, an endless supply without repeats: shapes, colours and scenes, classes by rank, then classes in pairs."""
    seen = set()
    by_rank = [CLASSES[i] for i in np.argsort(class_ranks())]
    names = [language.names(*pair)[0] for pair in by_rank]
    single = [
        *(language.shapes[k] for k in SHAPES),
        *(language.colours[k] for k in COLOURS),
        *(language.scene_titles[k] for k in SCENES),
        *names,
    ]
    paired = (f"{a}{language.joiner}{b}" for a in names for b in names if a != b)
    numbered = (f"{name} ({n})" for n in range(1, 1_000_000) for name in names)
    for words in (single, paired, numbered):
        for word in words:
            title = capital(word)
            if title not in seen:
                seen.add(title)
                yield title


def _article(language: Language, title: str, rng: np.random.Generator) -> str:
    """Wikitext with every kind of markup that a reader has to take away."""
    file, template, category = language.namespaces
    hidden = dict(zip(("comment", "reference", "template", "table", "formula", "file"), HIDDEN_WORDS, strict=True))

    def subject() -> Subject:
        return draw_subject(rng, int(rng.integers(len(CLASSES))))

    def text(sentences: int) -> str:
        return language.full_stop[1:].join(language.sentence(subject(), int(rng.integers(1000))) for _ in range(sentences))

    linked = subject()
    name = language.names(linked.colour, linked.shape)[0]
    link = f"[[{capital(name)}|{name}]]"
    tail = f'<ref name="a" /> {link}{language.joiner}{language.shapes[linked.shape]}.&nbsp;{text(1)}'
    note = f'<ref name="a">{hidden["reference"]} {{{{cite|title={hidden["template"]}}}}}</ref>'
    parts = [
        f"{{{{{template}:Infobox |name={title} |note={{{{small|{hidden['template']}}}}} |image={hidden['file'].capitalize()}.svg}}}}",
        f"[[{file}:{hidden['file'].capitalize()}.jpg|thumb|220px|{language.caption(subject(), int(rng.integers(1000)))}]]",
        f"'''{title}'''<!-- {hidden['comment']} -->: ''{language.caption(subject(), 0)}''"
        f"{note}{language.full_stop}{text(int(rng.integers(3, 7)))}",
        f"== {link} ==\n{text(int(rng.integers(2, 6)))}{tail}",
        f'{{| class="wikitable"\n! {hidden["table"]} !! 1\n|-\n| {hidden["table"]} || <math>{hidden["formula"]}^2</math>\n|}}',
        f"* {text(1)}<br />{text(1)}\n* <math>{hidden['formula']}_1</math> {text(1)}",
        f"[[{category}:{language.shapes[linked.shape]}]]",
    ]
    return "\n\n".join(parts)


def _pages(language: Language, articles: int, rng: np.random.Generator) -> Iterator[_Page]:
    supply = titles(language)
    for i in range(articles):
        title = next(supply)
        # One article of each dump has an ampersand in its title, which XML and the index write as &amp;.
        if i == articles - 1:
            title += " & more"
        yield _Page(title=title, namespace=0, text=_article(language, title, rng))
        if i % REDIRECT_EVERY == REDIRECT_EVERY - 1:
            yield _Page(title=f"{title} (2)", namespace=0, text=f"{language.redirect} [[{title}]]", redirect=title)
        if i % CATEGORY_EVERY == CATEGORY_EVERY - 1:
            yield _Page(title=f"{language.namespaces[2]}:{title}", namespace=14, text=language.caption(draw_subject(rng, 0), i))
    yield _Page(title=f"{language.namespaces[1]}:Infobox", namespace=10, text=f"<includeonly>{HIDDEN_WORDS[2]}</includeonly>")
    yield _Page(title="Module:Qx", namespace=828, text=f"return '{HIDDEN_WORDS[2]}'", model="Scribunto")
    yield _Page(title=f"{next(supply)} (0)", namespace=0, text="")


def _sha1_base36(text: str) -> str:
    number, digits = int(hashlib.sha1(text.encode()).hexdigest(), 16), ""
    while number:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits.rjust(31, "0")


def _page_xml(page: _Page, page_id: int) -> str:
    size, sha1 = len(page.text.encode()), _sha1_base36(page.text)
    redirect = f'    <redirect title="{escape(page.redirect, {chr(34): "&quot;"})}" />\n' if page.redirect else ""
    body = f'<text bytes="{size}" sha1="{sha1}" xml:space="preserve"' + (f">{escape(page.text)}</text>" if page.text else " />")
    content_format = "text/x-wiki" if page.model == "wikitext" else "text/plain"
    return f"""\
  <page>
    <title>{escape(page.title)}</title>
    <ns>{page.namespace}</ns>
    <id>{page_id}</id>
{redirect}    <revision>
      <id>{page_id + 1000}</id>
      <parentid>{page_id + 500}</parentid>
      <timestamp>2026-08-31T12:00:00Z</timestamp>
      <contributor>
        <username>Generator</username>
        <id>1</id>
      </contributor>
      <comment>generated</comment>
      <origin>{page_id + 1000}</origin>
      <model>{page.model}</model>
      <format>{content_format}</format>
      {body}
      <sha1>{sha1}</sha1>
    </revision>
  </page>
"""


def _siteinfo(language: Language) -> str:
    local = dict(zip((6, 10, 14), language.namespaces, strict=True))
    names = "".join(
        f'      <namespace key="{key}" case="first-letter"' + (f">{local.get(key, name)}</namespace>\n" if name else " />\n")
        for key, name in _NAMESPACES.items()
    )
    return (
        '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
        ' xsi:schemaLocation="http://www.mediawiki.org/xml/export-0.11/ http://www.mediawiki.org/xml/export-0.11.xsd"'
        f' version="0.11" xml:lang="{language.code}">\n  <siteinfo>\n    <sitename>{language.sitename}</sitename>\n'
        f"    <dbname>{language.dbname}</dbname>\n    <base>https://{language.code}.wikipedia.org/wiki/Main</base>\n"
        "    <generator>MediaWiki 1.45.0-wmf.1</generator>\n    <case>first-letter</case>\n"
        f"    <namespaces>\n{names}    </namespaces>\n  </siteinfo>\n"
    )


def write_dump(folder: Path, language: Language, articles: int, rng: np.random.Generator) -> DumpTruth:
    """Write ``<dbname>-20260901-pages-articles-multistream.xml.bz2`` and its index into ``folder``."""
    pages = list(_pages(language, articles, rng))
    streams: list[bytes] = [bz2.compress(_siteinfo(language).encode())]
    index: list[str] = []
    offset = len(streams[0])
    for start in range(0, len(pages), PAGES_PER_STREAM):
        group = list(enumerate(pages[start : start + PAGES_PER_STREAM], start=start))
        index += [f"{offset}:{10 + 3 * i}:{escape(page.title)}\n" for i, page in group]
        streams.append(bz2.compress("".join(_page_xml(page, 10 + 3 * i) for i, page in group).encode()))
        offset += len(streams[-1])
    streams.append(bz2.compress(b"</mediawiki>\n"))
    name = f"{language.dbname}-{DATE}-pages-articles-multistream"
    (folder / f"{name}.xml.bz2").write_bytes(b"".join(streams))
    (folder / f"{name}-index.txt.bz2").write_bytes(bz2.compress("".join(index).encode()))
    return _truth(pages)


def _truth(pages: Iterable[_Page]) -> DumpTruth:
    kinds = ["redirects" if p.redirect else "other_namespaces" if p.namespace else "articles" if p.text else "empty" for p in pages]
    return DumpTruth(**{kind: kinds.count(kind) for kind in ("articles", "redirects", "other_namespaces", "empty")})
