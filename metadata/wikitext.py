"""Wikitext to plain text.

A handful of scans, each linear in the page, none recursive, and no regular expression that can backtrack. In any language a file is told by
its extension, a category by standing on a line of its own and a language link by the table of languages; the names of their namespaces in
large Wikipedias are needed only for what is told by none of these.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from html.entities import html5

from metadata.dump import MAX_PAGE_CHARACTERS, DumpError, Page, read_pages, read_site
from metadata.languages import all_languages
from metadata.text import CJK_LIKE, PUNCTUATION

__all__ = ["MAX_PAGE_CHARACTERS", "WIKITEXT_VERSION", "DumpError", "Page", "plain_text", "read_pages", "read_site"]

#: Grows whenever a rule below changes in a way that can change a text.
WIKITEXT_VERSION = 3

_Cut = tuple[int, int]

#: Stands where something was left out between two words, until it becomes a line break.
_GAP = "\x1f"
#: Keeps the quotes at both sides of a cut apart, until it is taken out with the other invisible marks.
_APART = "\xad"

# Elements whose content is no running text. An element without an end keeps its content. Notes stand beside the text, the others in it.
_NOTES = frozenset(("indicator", "ref", "references", "style", "templatestyles"))
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
# Names of the namespaces of files and of categories: a link that begins with one shows nothing wherever it stands and however it ends.
_SILENT_NAMES = (
    "file|image|media|archivo|archivu|arkivo|attēls|berkas|bestand|bild|datei|datoteka|delwedd|dosiero|dosya|faidhle|fájl|"
    "fasciculus|fayl|fichier|fișier|ficheiro|ficheru|fil|fitxategi|fitxer|gambar|grafika|hình|imagem|imagen|imatge|immagine|íomhá|kuva|"
    "lêer|mynd|ofbyld|pilt|plaetje|plik|restr|rikcha|skeda|slika|soubor|súbor|talaksan|tập tin|tiedosto|vaizdas|"
    "αρχείο|εικόνα|выява|датотека|зображення|зураг|изображение|податотека|рәсем|слика|сурет|ӳкерчĕк|файл|պատկեր|ფაილი|"
    "קובץ|תמונה|پرونده|پەڕگە|تصویر|صورة|فائل|ملف|चित्र|চিত্র|ચિત્ર|ਤਸਵੀਰ|படிமம்|దస్త్రం|ಚಿತ್ರ|പ്രമാണം|ไฟล์|ภาพ|ስዕል|ファイル|画像|文件|档案|檔案|파일|그림|"
    "category|bólkur|catagóir|categori|categoria|categoría|categorie|catégorie|categorìa|categuria|categurìa|catigurìa|ẹ̀ka|flokkur|jamii|"
    "kaarangay|kategooria|kategoreja|kategori|kategoria|kategória|kategorie|kategorija|kategorio|kategoriya|kategory|kategorya|kategorî|"
    "kateqoriya|katiguriya|luokka|roinn-seòrsa|rummad|sokajy|thể loại|turkum|"
    "κατηγορία|ангилал|гурӯҳ|категори|категорија|категория|категорія|катэгорыя|санат|төркем|կատեգորիա|კატეგორია|"
    "קאַטעגאָריע|קטגוריה|بؤلمه|پۆل|تصنيف|رج|رده|زمرہ|گٹھ|श्रेणी|पुचः|वर्ग|वर्गः|বিষয়শ্রেণী|ਸ਼੍ਰੇਣੀ|શ્રેણી|ଶ୍ରେଣୀ|பகுப்பு|వర్గం|ವರ್ಗ|വർഗ്ഗം|"
    "ප්‍රවර්ගය|หมวดหมู่|ໝວດ|ကဏ္ဍ|ចំណាត់ថ្នាក់ក្រុម|መደብ|カテゴリ|分类|分類|분류"
)
_SILENT_PREFIXES = frozenset(_SILENT_NAMES.split("|"))

_TABLE_TAG = re.compile(r"</?table(?:[\s/][^<>]*+)?>", re.IGNORECASE)
_OPENING = re.compile(rf"<!--|<({_DROPPED}|nowiki)(?:[\s/][^<>]*+)?>", re.IGNORECASE)
# What is literal inside <nowiki> waits as character references until all markup is gone.
_LITERAL = {ord(mark): f"&#{ord(mark)};" for mark in "!#'*-/:;<=>[]_{|}"}

_BRACES = re.compile(r"\{\{+|\{\||\|\}+|\}\}+")
_VARIANT = re.compile(r"-\{([^{}]*+)\}-")
_VARIANT_FLAGS = re.compile(r"[A-Za-z; \t-]*+")
_SILENT_FLAGS = frozenset({"H", "T", "-"})
_VARIANT_RULE = re.compile(r"\s*+[a-z]{2,3}(?:-[a-z]{2,8})*+\s*+:(?!//)\s*+([^;]*+)")
_CATEGORY_LINE = re.compile(r"^(?:[ \t]*+\[\[[^\[\]|:#\n]++:[^\s\[\]][^\[\]\n]*+\]\])++[ \t]*+$", re.MULTILINE)
_LINK_MARKS = re.compile(r"\[\[|\]\]++")
_LINK_TARGET = re.compile(r"[^\[\]{}|\n]*+(?:\n(?=\|))?+")
_MAGIC_WORD = re.compile(
    r"__(?:(?i:NOTOC|TOC|FORCETOC|NOEDITSECTION|NOGALLERY|HIDDENCAT|INDEX|NOINDEX)|[^\s_a-z<>\[\]|]++(?:_[^\s_a-z<>\[\]|]++)*+)__"
)
_SCHEME = r"(?i:(?:https?|ftps?|ircs?|sftp|git|svn|gopher|telnet|nntp|worldwind|mms)://|news:|mailto:|tel:|sip:)"
_EXTERNAL_LINK = re.compile(rf"\[(?:{_SCHEME}|//)[^\s\[\]{_APART}]*+[ \t]*+([^\[\]\n]*+)\]")
_BARE_URL = re.compile(rf"(?i:\b(?:https?|ftp)://)(?:[.,;:!?)]*+[^\s<>\[\]\"|.,;:!?)、。，；：「」（）{_APART}]++)*+")
_BLOCK_TAG = re.compile(rf"</?(?:{_BLOCK})(?:[\s/][^<>]*+)?>", re.IGNORECASE)
_INLINE_TAG = re.compile(rf"</?(?:{_INLINE}|{_DROPPED})(?:[\s/][^<>]*+)?>", re.IGNORECASE)
_QUOTES = re.compile("''++")
_ELISIONS = (re.compile(r"(?<![^\W\d_])([^\W\d_])'''(?!')"), re.compile(r"([^\W\d_])'''(?!')"))
_ENTITY = re.compile(r"&(?:#([0-9]{1,8})|#[xX]([0-9a-fA-F]{1,6})|([a-zA-Z][a-zA-Z0-9]{1,31}));")
_SEPARATORS = " \t\n,;:،؛、，；："
_CLOSING_MARKS = frozenset(",.;:!?)،؛؟։।॥。、，；：！？）")
_MARKED_END, _MARKED_BEGIN = frozenset("]'"), frozenset("['")
_AFTER_BRACKET = re.compile(rf"([(（])[{_SEPARATORS}]++")
_BEFORE_BRACKET = re.compile(rf"[)）](?<=[{_SEPARATORS}].)")
# Not "main()": letters that may be a function's name keep their brackets.
_EMPTY_BRACKETS = re.compile(r"\((?<![A-Za-z0-9_&'(].)\)|（）")
_EMPTY_SQUARE_BRACKETS = re.compile(r"\[(?<![\w)\]].)\]")
# Marks of direction, soft hyphens and joiners of words stick to words; joiners of letters (U+200C, U+200D) are part of them.
_INVISIBLE = (_APART, "\u061c", "\u200e", "\u200f", *map(chr, range(0x202A, 0x202F)), "\u2060", *map(chr, range(0x2066, 0x206A)), "\ufeff")


def plain_text(wikitext: str) -> str:
    """The running text of a page, one paragraph, heading or list item a line, without empty lines.

    Left out: comments, references, templates, tables, galleries, formulas, code, files with their captions, categories, language links,
    magic words, HTML tags, bare URLs. Links keep their labels. Entities are decoded once. Of a language variant (``-{zh-hans:…;…}-``) the
    first stays. What is not closed is text; only its marks go. A line also ends where a template or formula between two words is left out,
    since those words are no neighbours.

    Time and memory are linear in the text, whatever it holds; nothing is raised for any input.
    """
    text = _without_elements(wikitext)
    text = _without_braces(text)
    # Before any other markup goes: marks that only markup holds apart would run together.
    text = _without_quotes(text)
    text = _VARIANT.sub(_first_variant, text)
    text = _CATEGORY_LINE.sub("", text)
    text = _with_labels(text)
    text = _MAGIC_WORD.sub("", text)
    text = _EXTERNAL_LINK.sub(r"\1", text)
    if "://" in text:
        text = _BARE_URL.sub("", text)
    if "<" in text:
        text = _INLINE_TAG.sub("", _BLOCK_TAG.sub("\n", text))
    for mark in ("[[", "]]", "{{", "}}"):
        text = text.replace(mark, "")
    text = "\n".join(filter(None, map(_without_line_marks, text.split("\n"))))
    text = _ENTITY.sub(_entity, text)
    return _tidied(text)


def _is_word(character: str) -> bool:
    return bool(character) and not character.isspace() and character not in PUNCTUATION


def _seam(before: str, after: str, *, words: bool) -> tuple[str, str]:
    """What becomes of ``before``, the text that ends at a cut, and what stands in place of the cut.

    ``after``: two characters behind it. ``words``: whether what was cut may have shown words ("is {{convert|5|km}} long"), so that its
    neighbours are none of each other; a note ("long<ref>…</ref> and") shows none.
    """
    left, right = before[-1:], after[:1]
    if left == " ":
        if right == " " and words:
            if (_is_word(before[-2:-1]) or before[-2:-1] in _MARKED_END) and (_is_word(after[1:]) or after[1:] in _MARKED_BEGIN):
                return before, _GAP
        elif right in _CLOSING_MARKS:
            return before.rstrip(" "), ""
    elif left == "'" == right:
        return before, _APART
    elif left == "]" and words:
        # "[[Kyiv]]{{•}}[[Lviv]]" is a list, "[[Kyiv]]{{mdash}}instead" a sentence.
        if right == "[":
            return before, _GAP
        if _is_word(right) and right not in CJK_LIKE:
            return before, " "
    elif _is_word(left) and (_is_word(right) or right == "（") and (words or left not in CJK_LIKE):
        return before, " "
    return before, ""


class _Rest:
    """What is left of a text from which things are cut."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._cut = self._words = False

    def keep(self, piece: str) -> None:
        if not piece:
            return
        if self._cut and self._pieces:
            self._pieces[-1], seam = _seam(self._pieces[-1], piece[:2], words=self._words)
            self._pieces.append(seam)
        self._cut = self._words = False
        self._pieces.append(piece)

    def cut(self, *, words: bool) -> None:
        """Here something is left out; see :func:`_seam`."""
        self._cut = True
        self._words |= words

    def text(self) -> str:
        return "".join(self._pieces)


@cache
def _closing_tag(name: str) -> re.Pattern[str]:
    return re.compile(rf"</{name}\s*+>", re.IGNORECASE)


def _end_of_table(text: str, at: int) -> int:
    """Where the HTML table ends that is open at ``at``, the tables inside it counted; -1: nowhere."""
    depth = 1
    for tag in _TABLE_TAG.finditer(text, at):
        depth += -1 if text[tag.start() + 1] == "/" else 1
        if not depth:
            return tag.end()
    return -1


class _Ends:
    """Finds where elements end, and remembers what has no end: it is looked for once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._unclosed: set[str] = set()
        self._tables_nest = True

    def find(self, name: str, at: int) -> tuple[int, int] | None:
        """End of the content and end of the element that is open at ``at``."""
        if name in self._unclosed:
            return None
        closing = _closing_tag(name).search(self._text, at)
        if closing is None:
            self._unclosed.add(name)
            return None
        end = closing.end()
        if name == "table" and self._tables_nest:
            outer_end = _end_of_table(self._text, at)
            self._tables_nest = outer_end >= 0
            end = max(end, outer_end)
        return closing.start(), end


def _without_elements(text: str) -> str:
    """Without comments and elements that hold no running text; what is inside ``<nowiki>`` stays, safe from the other rules."""
    rest = _Rest()
    ends = _Ends(text)
    at = 0
    opening = _OPENING.search(text)
    while opening:
        go_on = opening.end()
        name = (opening[1] or "").lower()
        if not name:
            comment_end = text.find("-->", go_on)
            rest.keep(text[at : opening.start()])
            at = go_on = len(text) if comment_end < 0 else comment_end + 3
        elif found := (go_on, go_on) if opening[0].endswith("/>") else ends.find(name, go_on):
            rest.keep(text[at : opening.start()])
            if name == "nowiki":
                rest.keep(text[go_on : found[0]].translate(_LITERAL) or _APART)
            else:
                rest.cut(words=name not in _NOTES)
            at = go_on = found[1]
        opening = _OPENING.search(text, go_on)
    rest.keep(text[at:])
    return rest.text()


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
        if cuts and start - cuts[-1][1] < 2 and text[cuts[-1][1] : start] in ("", " "):
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
    rest = _Rest()
    at = 0
    for start, end in cuts:
        rest.keep(text[at:start])
        rest.cut(words=True)
        at = end
    rest.keep(text[at:])
    return rest.text()


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
    prefix = prefix.strip(" \t\u200e\u200f").lower()
    extension = name.rpartition(".")[2].strip().lower()
    return prefix in _link_prefixes() or prefix in _SILENT_PREFIXES or bool(_MEDIA.fullmatch(extension))


def _without_namespaces(text: str, start: int, end: int) -> int:
    """Where the name begins in "Category:Rivers" or "en:Category:Rivers": namespaces that a link shows are no words of the text."""
    for _ in range(2):
        colon = text.find(":", start, end)
        if colon < 0 or colon + 1 == end or text[colon + 1].isspace():
            break
        start = colon + 1
    return start


def _with_labels(text: str) -> str:
    """Links become their labels, files with all that is inside them go; the brackets of what is no link stay."""
    # Start, end, and whether it is the brackets of a link that are cut rather than a whole file.
    cuts: list[tuple[int, int, bool]] = []
    # Positions of "[[" not closed yet, and whether another link stands inside.
    open_links: list[tuple[int, int]] = []

    for mark in _LINK_MARKS.finditer(text):
        if text[mark.start()] == "[":
            open_links.append((mark.start(), len(cuts)))
            continue
        # Of an odd number of brackets the first one closes an external link.
        for at in range(mark.end() - (len(mark[0]) & ~1), mark.end(), 2):
            if not open_links:
                break
            start, outer_cuts = open_links.pop()
            target = _LINK_TARGET.match(text, start + 2)
            target_end = target.end() if target else start + 2
            pipe = text[target_end] == "|"
            if not pipe and target_end != at:
                continue
            if _is_no_text(text[start + 2 : target_end]):
                del cuts[outer_cuts:]
                cuts.append((start, at + 2, False))
            elif len(cuts) == outer_cuts:
                shown = target_end + 1 if pipe else start + 2
                if text[start + 2] == ":":
                    shown = _without_namespaces(text, shown + (not pipe), at)
                cuts += (start, shown, True), (at, at + 2, True)
    cuts += ((start, end, False) for start, end in _unclosed_files(text, (start for start, _ in open_links)))

    rest = _Rest()
    at = 0
    for start, end, is_bracket in sorted(cuts):
        rest.keep(text[at:start])
        if not is_bracket:
            rest.cut(words=False)
        at = max(at, end)
    rest.keep(text[at:])
    return rest.text()


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
        text = text.replace(mark, _APART)
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
    if line.startswith("==") or line.endswith("==") or (line.startswith("=") and line.endswith("=")):
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
    text = text.replace("\xa0", " ").replace(_GAP, "\n")
    for invisible in _INVISIBLE:
        text = text.replace(invisible, "")
    if "[]" in text:
        text = _EMPTY_SQUARE_BRACKETS.sub("", text)
    text = _without_separators_before_brackets(_AFTER_BRACKET.sub(r"\1", text))
    text = text.replace(" (())", "").replace(" ()", "")
    if "()" in text or "（）" in text:
        text = _EMPTY_BRACKETS.sub("", text)
    text = text.replace("\t", " ")
    text = text.replace(" ,", ",").replace(" ،", "،")
    while ",," in text:
        text = text.replace(",,", ",")
    while "  " in text:
        text = text.replace("  ", " ")
    return "\n".join(line.lstrip(_SEPARATORS).rstrip() for line in text.split("\n") if any(map(str.isalnum, line)))


def _without_separators_before_brackets(text: str) -> str:
    pieces: list[str] = []
    at = 0
    for bracket in _BEFORE_BRACKET.finditer(text):
        pieces.append(text[at : bracket.start()].rstrip(_SEPARATORS))
        at = bracket.start()
    pieces.append(text[at:])
    return "".join(pieces)
