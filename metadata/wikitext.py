"""Wikitext to plain text.

A handful of scans, each linear in the page, none recursive, and no regular expression that can backtrack. No table of localized namespaces
is needed: a file is told by its extension, a category by standing on a line of its own, a language link by the table of languages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from html.entities import html5

from metadata.dump import MAX_PAGE_CHARACTERS, DumpError, Page, read_pages, read_site
from metadata.languages import all_languages

__all__ = ["MAX_PAGE_CHARACTERS", "WIKITEXT_VERSION", "DumpError", "Page", "plain_text", "read_pages", "read_site"]

#: Grows whenever a rule below changes in a way that can change a text.
WIKITEXT_VERSION = 1

_Cut = tuple[int, int]

# Elements whose content is no running text. An element without an end keeps its content.
_DROPPED = (
    "categorytree|ce|chem|gallery|graph|hiero|imagemap|includeonly|indicator|inputbox|mapframe|maplink|math|pre|ref|references|score|source|"
    "style|syntaxhighlight|table|templatedata|templatestyles|timeline"
)
# Elements whose tags alone are markup; a name that MediaWiki does not know is text ("<stdio.h>").
_INLINE = (
    "abbr|b|bdi|bdo|big|cite|code|data|del|dfn|em|font|i|ins|kbd|mark|noinclude|nowiki|onlyinclude|q|rb|rp|rt|rtc|ruby|s|samp|section|small|"
    "span|strike|strong|sub|sup|time|tt|tvar|u|var|wbr"
)
_BLOCK = "blockquote|br|caption|center|dd|div|dl|dt|h[1-6]|hr|li|ol|p|poem|references|table|tbody|td|tfoot|th|thead|tr|translate|ul"
_MEDIA = re.compile(
    "apng|avif|bmp|djvu|flac|gif|jp2|jpe|jpeg|jpg|mid|midi|mkv|mov|mp3|mp4|mpeg|mpg|oga|ogg|ogv|opus|pdf|png|stl|svg|tiff?|wav|webm|webp|xcf"
)
# Prefixes that show nothing wherever they stand. A category within a line of text is known by the names of large Wikipedias only.
_SILENT_PREFIX = re.compile(
    "file|image|media|"
    "category|catégorie|categor[iy]a|categoría|categorie|kategorie|kategori|kategoria|kategória|kategorija|kategorio|kategooria|luokka|flokkur|"
    "thể loại|категория|категорія|катэгорыя|категорија|санат|κατηγορία|կատեգորիա|კატეგორია|קטגוריה|تصنيف|رده|زمرہ|"
    "श्रेणी|वर्ग|বিষয়শ্রেণী|பகுப்பு|వర్గం|ವರ್ಗ|വർഗ്ഗം|หมวดหมู่|カテゴリ|分类|分類|분류"
)

_OPENING = re.compile(rf"<!--|<({_DROPPED}|nowiki)(?:[\s/][^<>]*+)?>", re.IGNORECASE)
# What is literal inside <nowiki> waits as character references until all markup is gone.
_LITERAL = {ord(mark): f"&#{ord(mark)};" for mark in "!#'*-/:;<=>[]_{|}"}

_BRACES = re.compile(r"\{\{+|\{\||\|\}+|\}\}+")
_VARIANT = re.compile(r"-\{([^{}]*+)\}-")
_VARIANT_FLAGS = re.compile(r"[A-Za-z; \t-]*+")
_SILENT_FLAGS = frozenset({"H", "T", "-"})
_VARIANT_RULE = re.compile(r"\s*+[a-z]{2,3}(?:-[a-z]{2,8})*+\s*+:(?!//)\s*+([^;]*+)")
_CATEGORY_LINE = re.compile(r"^(?:[ \t]*+\[\[[^\[\]|:#\n]++:[^\s\[\]][^\[\]\n]*+\]\])++[ \t]*+$", re.MULTILINE)
_LINK_MARKS = re.compile(r"\[\[|\]\]")
_LINK_TARGET = re.compile(r"[^\[\]{}|\n]*+")
_MAGIC_WORD = re.compile(
    r"__(?:(?i:NOTOC|TOC|FORCETOC|NOEDITSECTION|NOGALLERY|HIDDENCAT|INDEX|NOINDEX)|[^\s_a-z<>\[\]|]++(?:_[^\s_a-z<>\[\]|]++)*+)__"
)
_SCHEME = r"(?i:(?:https?|ftps?|ircs?|sftp|git|svn|gopher|telnet|nntp|worldwind|mms)://|news:|mailto:|tel:|sip:)"
_EXTERNAL_LINK = re.compile(rf"\[(?:{_SCHEME}|//)[^\s\[\]]*+[ \t]*+([^\[\]\n]*+)\]")
_BARE_URL = re.compile(r"(?i:\b(?:https?|ftp)://)(?:[.,;:!?)]*+[^\s<>\[\]\"|.,;:!?)、。，；：「」（）]++)*+")
_BLOCK_TAG = re.compile(rf"</?(?:{_BLOCK})(?:[\s/][^<>]*+)?>", re.IGNORECASE)
_INLINE_TAG = re.compile(rf"</?(?:{_INLINE}|{_DROPPED})(?:[\s/][^<>]*+)?>", re.IGNORECASE)
_QUOTES = re.compile("''++")
_ELISIONS = (re.compile(r"(?<![^\W\d_])([^\W\d_])'''(?!')"), re.compile(r"([^\W\d_])'''(?!')"))
_ENTITY = re.compile(r"&(?:#([0-9]{1,8})|#[xX]([0-9a-fA-F]{1,6})|([a-zA-Z][a-zA-Z0-9]{1,31}));")
_SEPARATORS = " \t\n,;:،؛、，；："
_AFTER_BRACKET = re.compile(rf"([(（])[{_SEPARATORS}]++")
_BEFORE_BRACKET = re.compile(rf"[)）](?<=[{_SEPARATORS}].)")
# Not "main()": letters that may be a function's name keep their brackets.
_EMPTY_BRACKETS = re.compile(r"\((?<![A-Za-z0-9_&'(].)\)|（）")
_SPACES = re.compile(r"[ \t]{2,}+")


def plain_text(wikitext: str) -> str:
    """The running text of a page, one paragraph, heading or list item a line, without empty lines.

    Left out: comments, references, templates, tables, galleries, formulas, code, files with their captions, categories, language links,
    magic words, HTML tags, bare URLs. Links keep their labels. Entities are decoded once. Of a language variant (``-{zh-hans:…;…}-``) the
    first stays. What is not closed is text; only its marks go.

    Time and memory are linear in the text, whatever it holds; nothing is raised for any input.
    """
    text = _without_elements(wikitext)
    text = _without_braces(text)
    text = _VARIANT.sub(_first_variant, text)
    text = _CATEGORY_LINE.sub("", text)
    text = _with_labels(text)
    text = _MAGIC_WORD.sub("", text)
    text = _EXTERNAL_LINK.sub(r"\1", text)
    text = _BARE_URL.sub("", text)
    if "<" in text:
        text = _INLINE_TAG.sub("", _BLOCK_TAG.sub("\n", text))
    text = _without_quotes(text)
    for mark in ("[[", "]]", "{{", "}}"):
        text = text.replace(mark, "")
    text = "\n".join(filter(None, map(_without_line_marks, text.split("\n"))))
    text = _ENTITY.sub(_entity, text)
    return _tidied(text)


def _joined(text: str, cuts: Iterable[_Cut], *, glue: bool = True) -> str:
    """``text`` without the cuts, whose beginnings are ascending.

    Unless ``glue``, words that only a cut held apart are not run together ("10{{nbsp}}km").
    """
    pieces: list[str] = []
    at = 0
    for start, end in cuts:
        pieces.append(text[at:start])
        if not glue and text[start - 1 : start].isalnum() and text[end : end + 1].isalnum():
            pieces.append(" ")
        at = max(at, end)
    pieces.append(text[at:])
    return "".join(pieces)


@cache
def _closing_tag(name: str) -> re.Pattern[str]:
    return re.compile(rf"</{name}\s*+>", re.IGNORECASE)


def _without_elements(text: str) -> str:
    """Without comments and elements that hold no running text; what is inside ``<nowiki>`` stays, safe from the other rules."""
    pieces: list[str] = []
    at = 0
    unclosed: set[str] = set()
    opening = _OPENING.search(text)
    while opening:
        go_on = opening.end()
        if opening[1] is None:
            end = text.find("-->", go_on)
            pieces.append(text[at : opening.start()])
            at = go_on = len(text) if end < 0 else end + 3
        elif opening[0].endswith("/>"):
            pieces.append(text[at : opening.start()])
            at = go_on
        elif (name := opening[1].lower()) not in unclosed:
            closing = _closing_tag(name).search(text, go_on)
            if closing is None:
                unclosed.add(name)
            else:
                pieces.append(text[at : opening.start()])
                if name == "nowiki":
                    pieces.append(text[go_on : closing.start()].translate(_LITERAL))
                at = go_on = closing.end()
        opening = _OPENING.search(text, go_on)
    pieces.append(text[at:])
    return "".join(pieces)


def _begins_line(text: str, at: int) -> bool:
    while at and text[at - 1] in " \t:":
        at -= 1
    return not at or text[at - 1] == "\n"


def _without_braces(text: str) -> str:
    """Without balanced templates and arguments (counted brace by brace) and without tables, which begin and end at the start of a line.

    A table or template that is closed takes everything unclosed inside it along.
    """
    cuts: list[_Cut] = []
    # What is open: [position, braces still to be closed; 0 for a table]. Tables and templates are counted, so that a mark that closes
    # nothing costs nothing.
    open_marks: list[list[int]] = []
    open_tables = 0

    def cut(start: int, end: int) -> None:
        while cuts and cuts[-1][0] >= start:
            cuts.pop()
        if cuts and cuts[-1][1] == start:
            start = cuts.pop()[0]
        cuts.append((start, end))

    for mark in _BRACES.finditer(text):
        start, end = mark.span()
        first = text[start]
        braces = end - start
        if first == "{":
            if text[end - 1] == "{":
                open_marks.append([start, braces])
            elif _begins_line(text, start):
                open_marks.append([start, 0])
                open_tables += 1
            continue
        if first == "|":
            braces -= 1
            closes_template = braces > 1 and bool(open_marks) and open_marks[-1][1] > 0
            if open_tables and not closes_template and _begins_line(text, start):
                while open_marks[-1][1]:
                    open_marks.pop()
                table = open_marks.pop()
                open_tables -= 1
                braces -= 1
                cut(table[0], end - braces)
        while braces > 1 and len(open_marks) > open_tables:
            while not open_marks[-1][1]:
                open_marks.pop()
                open_tables -= 1
            template = open_marks[-1]
            closed = min(braces, template[1])
            template[1] -= closed
            braces -= closed
            cut(template[0] + template[1], end - braces)
            if template[1] < 2:
                open_marks.pop()
    return _joined(text, cuts, glue=False)


def _first_variant(match: re.Match[str]) -> str:
    """The text that a language conversion mark shows first; nothing for marks that only set rules."""
    flags, pipe, body = match[1].partition("|")
    if not pipe or not _VARIANT_FLAGS.fullmatch(flags):
        flags, body = "", match[1]
    if not _SILENT_FLAGS.isdisjoint(flag.strip() for flag in flags.split(";")):
        return ""
    rule = _VARIANT_RULE.match(body)
    return rule[1] if rule else body


@cache
def _link_prefixes() -> frozenset[str]:
    return frozenset(code for lang in all_languages().values() for code in (*lang.pageview_codes, lang.code))


def _is_no_text(target: str) -> bool:
    """Whether a link of this target shows nothing in the text: a file, a category or a link to another language."""
    prefix, colon, name = target.partition(":")
    if not colon or not prefix:
        return False
    prefix = prefix.strip().lower()
    extension = name.rpartition(".")[2].strip().lower()
    return prefix in _link_prefixes() or bool(_SILENT_PREFIX.fullmatch(prefix) or _MEDIA.fullmatch(extension))


def _with_labels(text: str) -> str:
    """Links become their labels, files with all that is inside them go; the brackets of what is no link stay."""
    cuts: list[_Cut] = []
    # Positions of "[[" not closed yet, and whether another link stands inside.
    open_links: list[tuple[int, int]] = []

    for mark in _LINK_MARKS.finditer(text):
        at = mark.start()
        if text[at] == "[":
            open_links.append((at, len(cuts)))
            continue
        if not open_links:
            continue
        start, outer_cuts = open_links.pop()
        target = _LINK_TARGET.match(text, start + 2)
        target_end = target.end() if target else start + 2
        pipe = text[target_end : target_end + 1] == "|"
        if not pipe and target_end != at:
            continue
        if _is_no_text(text[start + 2 : target_end]):
            del cuts[outer_cuts:]
            cuts.append((start, at + 2))
        elif len(cuts) == outer_cuts:
            cuts.append((start, target_end + 1 if pipe else start + 2 + (text[start + 2] == ":")))
            cuts.append((at, at + 2))
    return _joined(text, sorted([*cuts, *_unclosed_files(text, (start for start, _ in open_links))]))


def _unclosed_files(text: str, link_starts: Iterable[int]) -> Iterator[_Cut]:
    """A file whose end is missing ends with its line."""
    covered = 0
    for start in link_starts:
        target = _LINK_TARGET.match(text, start + 2)
        if start >= covered and target and _is_no_text(target[0]):
            line_end = text.find("\n", start)
            covered = len(text) if line_end < 0 else line_end
            yield start, covered


def _without_quotes(text: str) -> str:
    """Without the marks of bold and italic."""
    if "'''" in text:
        text = "\n".join(_with_elision(line) if "'''" in line else line for line in text.split("\n"))
    for mark in ("'''''", "'''", "''"):
        text = text.replace(mark, "")
    return text


def _with_elision(line: str) -> str:
    """Where bold and italic are both left open, three quotes are an apostrophe before italics (L'''amour''), as MediaWiki reads them."""
    runs = [len(run) for run in _QUOTES.findall(line)]
    bold = sum(run > 2 for run in runs)
    italic = sum(run == 2 or run > 4 for run in runs)
    if bold % 2 and italic % 2:
        for pattern in _ELISIONS:
            line, found = pattern.subn(r"\1&#39;''", line, count=1)
            if found:
                break
    return line


def _without_line_marks(line: str) -> str:
    """Without the marks of headings, lists, indents and rules; nothing of a line that is left over from a table."""
    line = line.strip()
    if line.startswith(("*", "#", ":", ";")):
        line = line.lstrip("*#:; \t")
    if line.startswith("==") or (line.startswith("=") and line.endswith("=")):
        return line.strip("= \t")
    if line.startswith(("|", "{|")):
        return ""
    if line.startswith("----"):
        return line.lstrip("- \t")
    return line


def _entity(match: re.Match[str]) -> str:
    decimal, hexadecimal, name = match.groups()
    if name:
        return html5.get(name + ";", match[0])
    code = int(decimal) if decimal else int(hexadecimal, 16)
    if code < 32 or 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000 or code > 0x10FFFF:
        return " "
    return chr(code)


def _tidied(text: str) -> str:
    """Without what the cuts left behind (empty brackets, doubled spaces, lone marks) and without invisible marks that stick to words."""
    text = text.replace("\xa0", " ")
    for invisible in ("\xad", "\u200e", "\u200f", "\ufeff"):
        text = text.replace(invisible, "")
    text = _without_separators_before_brackets(_AFTER_BRACKET.sub(r"\1", text))
    text = _EMPTY_BRACKETS.sub("", text.replace(" ()", ""))
    text = _SPACES.sub(" ", text)
    return "\n".join(line.strip() for line in text.split("\n") if any(map(str.isalnum, line)))


def _without_separators_before_brackets(text: str) -> str:
    pieces: list[str] = []
    at = 0
    for bracket in _BEFORE_BRACKET.finditer(text):
        pieces.append(text[at : bracket.start()].rstrip(_SEPARATORS))
        at = bracket.start()
    pieces.append(text[at:])
    return "".join(pieces)
