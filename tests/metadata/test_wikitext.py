"""Wikitext to plain text: each rule by example, pages of our own in golden/, and nothing that a page can hold makes it fail or crawl."""

from __future__ import annotations

import pathlib
import re
from collections import Counter

import mwparserfromhell
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metadata.tally import Tally
from metadata.wikitext import plain_text, read_pages

RULES = {
    "plain prose": ("A river runs (slowly) to the sea; 3 < 4, a=b.", "A river runs (slowly) to the sea; 3 < 4, a=b."),
    "empty": ("", ""),
    # comments, references, elements
    "comment": ("one<!-- two [[x]] -->three", "onethree"),
    "comment without end": ("one <!-- two\nthree", "one"),
    "reference": ("stone.<ref>A book, p. 3 {{cite</ref> Next.", "stone. Next."),
    "named references": ('a<ref name="x y">b</ref> c<ref name=z /> d<ref name="q"/>.', "a c d."),
    "reference in capitals": ("a<REF>b</Ref >, c", "a, c"),
    "reference without end": ("a<ref>b and more", "ab and more"),
    "reference list": ("a\n<references>\n<ref>b</ref>\n</references>\n<references />\nc", "a\nc"),
    "not a reference": ("<referee>x</referee>", "<referee>x</referee>"),
    "gallery": ("a\n<gallery mode=packed>\nA.jpg|one\n</gallery>\nb", "a\nb"),
    "formulas": ("so <math>x^2 {</math> and <chem>H2O</chem>.", "so\nand."),
    "code": ("see\n<syntaxhighlight lang=py>\n[[x]]</syntaxhighlight>\n<pre>'''p'''</pre>\nend", "see\nend"),
    "inline code is text": ("the <code>for</code> loop", "the for loop"),
    "HTML table": ("a\n<table class=x><tr><td>b</td></tr></table>\nc", "a\nc"),
    "nested HTML tables": ("a <table>b<TABLE>c</TABLE>d</table> e <table>f<table>g</table>h", "a\ne h"),
    "nowiki": ("<nowiki>[[not]] ''a'' {{link}} <b></nowiki> l<nowiki/>a", "[[not]] ''a'' {{link}} <b> la"),
    "nowiki between quotes": ("L<nowiki>'</nowiki>''art''", "L'art"),
    "comment inside nowiki": ("<nowiki><!--</nowiki>a", "<!--a"),
    # templates and tables
    "template": ("The {{lang|la|flumen|{{x|[[y]]}}}}, runs.", "The, runs."),
    "template between words": ("10{{nbsp}}{{nbsp}}km {{a}}b", "10 km b"),
    "template instead of words": ("about {{convert|5|km}} long, [[a]] {{b}} {{c}} ''d''; (e {{f}} (g", "about\nlong, a\nd; (e (g"),
    "template between links": (
        "the [[a]]{{•}}[[b|c]]{{·}}[d] [[東]]{{•}}[[京]] [[e]]{{mdash}}f [[犬]]{{sfn}}が [[g]]<ref/>[[h]]s",
        "the a\nc\n[d] 東\n京 e f 犬が ghs",
    ),
    "note between words": ("one<ref>x</ref>two 三<ref>x</ref>四", "one two 三四"),
    "note before a mark": ("one <ref>x</ref>, two <ref/>।", "one, two।"),
    "template in brackets": ("Rīga ({{audio|x}}; 1201) and Rome ({{IPA|x}}), ( , old).", "Rīga (1201) and Rome, (old)."),
    "trailing mark in brackets": ("ベルリン（べるりん、{{lang|de}}）は首都", "ベルリン（べるりん）は首都"),
    "argument": ("a: {{{1|b}}} {{{{{x}}}|c}} d", "a: d"),
    "template without end": ("a {{b c\n\nd", "a b c\nd"),
    "end without template": ("a }} b }", "a b }"),
    "infobox": ("{{Infobox\n| a = {{b}}\n| c = [[File:x.png|thumb]]\n}}\nText.", "Text."),
    "table": ('{| class="w"\n|-\n! a\n| b\n|}\nText.', "Text."),
    "indented and nested tables": (":{|\n| a\n{|\n| b\n|}\n| c\n|}\nText.", "Text."),
    "table in template": ("{{box|\n{|\n| a\n|}}}\nText.", "Text."),
    "template in table": ("{|\n| {{a|b=|}}\n| {{c\n|}\nText.", "Text."),
    "table without end": ("a\n{|\n| b\n|-\nc", "a\nc"),
    "no table": ("a set {|x| > 1} here", "a set {|x| > 1} here"),
    # links
    "link": ("the [[river]]s of [[Latvia|the country]]", "the rivers of the country"),
    "label with a bar": ("[[a|b|c]]", "b|c"),
    "section link": ("[[River#Source|its source]] [[#History|history]]", "its source history"),
    "file": ("a [[File:Foo bar.JPG|thumb|left|The [[river]] by {{x}} ''night'']] b", "a b"),
    "file in other languages": (
        "[[Attēls:Upe.png|sīktēls|[[a]] b]]Upe [[ファイル:川.svg|200px]]tek [[תמונה:נהר.webm]]ātri",
        "Upe tek ātri",
    ),
    "file without end": ("[[File:x.jpg|thumb|a [[b]]\nText", "Text"),
    "file within a file": ("[[File:a.jpg|thumb|b [[File:c.png]] d]]e", "e"),
    "link to a file": ("see [[:File:x.jpg|the photo]]", "see the photo"),
    "category": ("Text\n[[Category:Rivers]]\n[[Category:Seas|*]]", "Text"),
    "category in other languages": ("Teksts\n[[Kategorija:Upes]] [[Nodaļa:Jūras| ]]\n[[Cheddar:Foo|x]]", "Teksts"),
    "category in a line": ("Text [[Категория:Реки]][[Category:X]]", "Text"),
    "link to a category": ("see [[:Category:Rivers]] and [[:Kategorie:Flüsse|Kategorie:Flüsse]]", "see Rivers and Flüsse"),
    "link to another language": (
        "see [[:en:River]], [[:de:Kategorie:Flüsse]], [[:en:Star Ferry: A Crossing]]",
        "see River, Flüsse, Star Ferry: A Crossing",
    ),
    "language links": ("Text [[lv:Upe]]\n[[zh-min-nan:X]]\n[[simple:River]]", "Text"),
    "project link": ("the [[wikt:river|river]]", "the river"),
    "title with a colon": (
        "* [[Re:Zero]]\nIn [[2001: A Space Odyssey]] and\n[[Episode: One]]",
        "Re:Zero\nIn 2001: A Space Odyssey and\nEpisode: One",
    ),
    "link without end": ("a [[b c", "a b c"),
    "end without link": ("a b]] c", "a b c"),
    "link around a link": ("[[a [[b]] c]]", "a b c"),
    "link over lines": ("[[a\nb]] [[c\n|d]]", "a\nb d"),
    "brackets of an external link around those of a link": ("[http://a.lv [[b|c]]] [[File:d.png|[http://e.lv f]]]g", "c g"),
    "external links": ("[https://a.lv/x?y the site] [//b.lv b] [http://c.lv] [mailto:a@b.c me]", "the site b me"),
    "bare URLs": ("See http://a.lv/x.y. Or (HTTPS://b.lv/), www.c.lv", "See . Or, www.c.lv"),
    "brackets": ("an [edit] and [1]", "an [edit] and [1]"),
    # marks
    "quotes": ("'''bold''' ''it'' '''''both''''' rock ''n'' roll's", "bold it both rock n roll's"),
    "elision": ("l'''amour'' et gras", "l'amour et gras"),
    "quotes that markup holds apart": ("''a''<sub>''b''</sub>''c'' '''d'''{{e}}'''f''' '''{{g}}''', h", "abc df, h"),
    "elision of a longer word": ("''y'' dell'''arte'' e ''z''", "y dell'arte e z"),
    "headings": ("== One ==\n===Two===<!-- x -->\n=Three=\n== Broken\nBroken ==", "One\nTwo\nThree\nBroken\nBroken"),
    "lists": ("* one\n** two\n# three\n: four\n; five : six\n*: seven", "one\ntwo\nthree\nfour\nfive : six\nseven"),
    "rule": ("a\n----\nb", "a\nb"),
    "magic words": ("__NOTOC__a __ИНДЕКС__ __БЕЗ_ОГЛ__b __toc__\n__目次強制__", "a b"),
    "not magic words": ("def __init__(self) and ____ blank", "def __init__(self) and ____ blank"),
    "HTML": ('<div class="x">a<br/>b</div><span>c</span> H<sub>2</sub>O <BR> d <font color=red>e</font>', "a\nb\nc H2O\nd e"),
    "unknown tags are text": ("<stdio.h> <b <i>x</i>", "<stdio.h> <b x"),
    "entities, once": (
        "a&amp;b &lt;i&gt; &amp;lt; &nbsp;c &#333;&#x14D; &ndash; &unknown; &#55555; &#0; &",
        "a&b <i> &lt; c ōō – &unknown; &",
    ),
    "invisible marks": ("so\xadft \u200eleft\u200f \ufeffx \u202ay\u202c", "soft left x y"),
    "joiners stay": ("می\u200cخواهم", "می\u200cخواهم"),
    "function names": ("call main() and ( ) and a () or [] or (()) or ([], x)", "call main() and and a or or or (x)"),
    "language variants": (
        "-{zh-hans:计算机; zh-hant:電腦}-和-{里}- -{T|zh-cn:甲;zh-tw:乙}--{H|zh:丙}- -{zh-hans|丁}- [[a|-{b}-]]",
        "计算机和里 丁 b",
    ),
    "lines without a word": ("a\n* {{cite}}.\n(,)\n* {{cite}}, p. 3\nb, {{c}}, {{d}}, e", "a\np. 3\nb, e"),
    "spaces": ("a  b\t\tc\n\n\n  d  \n", "a b c\nd"),
    "Windows line ends": ("== A ==\r\n* b\r\n", "A\nb"),
}


@pytest.mark.parametrize("rule", RULES)
def test_rule(rule: str) -> None:
    wikitext, expected = RULES[rule]
    assert plain_text(wikitext) == expected


GOLDEN = pathlib.Path(__file__).parent / "golden"
PAGES = sorted(file.stem for file in GOLDEN.iterdir() if file.suffix == ".wikitext")


@pytest.mark.parametrize("page", PAGES)
def test_page(page: str) -> None:
    wikitext, expected = ((GOLDEN / f"{page}{suffix}").read_text(encoding="utf-8") for suffix in (".wikitext", ".txt"))
    assert plain_text(wikitext) + "\n" == expected


def test_every_page_has_its_text() -> None:
    assert {file.name for file in GOLDEN.iterdir()} == {f"{page}{suffix}" for page in PAGES for suffix in (".wikitext", ".txt")}
    assert len(PAGES) >= 20


@pytest.mark.parametrize(
    ("wikitext", "expected"),
    [
        ("{{" * 10_000 + "x" + "}}" * 10_000 + "y", "y"),
        ("{{x" * 300_000, "x" * 300_000),
        ("}}" * 500_000 + "x", "x"),
        ("[[a:b.jpg|" * 100_000 + "x" + "]]" * 100_000 + "y", "y"),
        ("[[a:b.jpg" * 100_000, ""),
        ("[[a|" * 125_000, ("a|" * 125_000)),
        ("[[" * 150_000 + "]]" * 150_000, ""),
        ("\n{| {{" * 75_000 + "\n|} }}" * 75_000 + "\nx", "x"),
        ("<ref>" * 100_000, ""),
        ("<ref name=a " * 100_000 + "x", "<ref name=a " * 100_000 + "x"),
        ("<nowiki>" * 100_000, ""),
        ("<!--" * 200_000 + "x", ""),
        (" " * 1_000_000 + "x", "x"),
        ("x" + ", " * 400_000 + "y", "x, y"),
        ("x" + "; " * 400_000 + "y", "x" + "; " * 400_000 + "y"),
        ("a {{b}} " * 100_000, "a\n" * 99_999 + "a"),
        ("{{b}}" + "x" * 1_000_000 + "{{" * 200_000 + "}}" * 200_000, "x" * 1_000_000),
        ("a<ref/>" * 200_000, "a " * 199_999 + "a"),
        ("<table>" * 200_000 + "x", "x"),
        ("<table>" * 100_000 + "x" + "</table>" * 100_000 + "y", "y"),
        ("<table>x</table" * 50_000, "\n".join(["x</table"] * 50_000)),
        ("<table><table>x</table>" * 100_000, ""),
        ("[[:a:" * 200_000 + "x" + "]]" * 200_000, "a:" + ":a:" * 199_998 + "x"),
        ("[[" + "]" * 1_000_000 + "x", "x"),
        ("'" * 1_000_000 + "x", "x"),
        ("'''''a'' " * 200_000, ("a " * 200_000).strip()),
        ("( " * 150_000 + " )" * 150_000 + "x", "(" * 150_000 + ")" * 150_000 + "x"),
        ("[]" * 500_000 + "x", "[]" * 499_999 + "x"),
        ("=" * 1_000_000, ""),
        ("http://" + "." * 1_000_000 + "x", ""),
        ("-{" * 500_000 + "x", "-{" * 500_000 + "x"),
        ("__" + "A_" * 400_000 + "x", "__" + "A_" * 400_000 + "x"),
        ("''a" * 300_000, "a" * 300_000),
        ("&amp" * 200_000, "&amp" * 200_000),
    ],
    ids=lambda value: value[:12],
)
def test_hostile_pages_are_read_in_one_pass(wikitext: str, expected: str) -> None:
    # Anything quadratic would not come back within the patience of a test run.
    assert plain_text(wikitext) == expected


MARKUP = [
    "{{", "}}", "{|", "|}", "[[", "]]", "[", "]", "|", "\n", "==", "'''", "''", "<ref>", "</ref>", "<ref/>", "<!--", "-->", "<nowiki>",
    "</nowiki>", "-{", "}-", "File:a.jpg", "Category:", "lv:", ":", "*", "http://a.b", "__TOC__", "&amp;", "&#", "(", ")", " ", "x", "川",
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from(MARKUP)).map("".join)))
@example("\ud800 {{\ud800")
@example("[[a:b.jpg|[[c]]")
def test_nothing_raises_and_lines_are_clean(wikitext: str) -> None:
    text = plain_text(wikitext)
    assert text == text.strip()
    assert "\n\n" not in text
    assert "  " not in text


WORD = st.text(st.characters(categories=("Lu", "Ll", "Lo")), min_size=1, max_size=8)
SENTENCE = st.builds(
    lambda words, end: " ".join(words) + end, st.lists(WORD, min_size=1, max_size=6), st.sampled_from([".", "?", "!", " – x", ", y"])
)


@settings(deadline=None)
@given(st.lists(SENTENCE, max_size=5).map("\n".join))
def test_plain_prose_stays_as_it_is(prose: str) -> None:
    assert plain_text(prose) == prose


@settings(deadline=None)
@given(
    st.lists(WORD, min_size=1, max_size=6),
    st.lists(st.sampled_from(["{{%s}}", "<ref>%s</ref>", "<!--%s-->", "[[File:%s.png|x]]"]), max_size=6),
)
def test_dropped_markup_leaves_the_words_around_it(words: list[str], markup: list[str]) -> None:
    pieces = [f"{word} {mark % 'hidden'} " for word, mark in zip(words, markup, strict=False)]
    text = plain_text("".join(pieces) + " ".join(words[len(pieces) :]))
    assert text.split() == words
    # Where a template stood between two words, they are no neighbours.
    assert [line.split() for line in text.split("\n")] == [line.split() for line in _lines(words, markup)]


def _lines(words: list[str], markup: list[str]) -> list[str]:
    """The words in the lines that templates leave of them."""
    seams = ["\n" if mark.startswith("{{") else " " for mark in markup[: len(words) - 1]]
    return "".join(word + seam for word, seam in zip(words, [*seams, *[" "] * len(words)], strict=False)).split("\n")


def test_the_words_are_those_that_another_parser_finds(shared_data: pathlib.Path) -> None:
    word = re.compile(r"[^\W\d_]{2,}")
    for name in ("enwiki", "dewiki", "ruwiki", "arwiki", "elwiki", "frwiki", "hewiki", "trwiki", "ukwiki", "viwiki"):
        with (shared_data / "dumps" / f"{name}-mini.xml.bz2").open("rb") as file:
            pages = list(read_pages(file, tally=Tally()))[:3]
        for page in pages:
            ours = Counter(word.findall(plain_text(page.text)))
            theirs = Counter(word.findall(mwparserfromhell.parse(page.text).strip_code()))
            # It keeps captions, tables and categories; we keep nothing that it does not.
            assert (ours & theirs).total() >= 0.99 * ours.total()
            assert ours.total() >= 0.5 * theirs.total()


def test_no_markup_is_left_of_real_pages(shared_data: pathlib.Path) -> None:
    left = re.compile(r"\{\{|\}\}|\[\[|\]\]|<ref|<br|'''|^[=*#|]|https?://|&nbsp;|\.(?:jpg|svg|png)\|", re.MULTILINE)
    pages = dirty = 0
    for dump in sorted((shared_data / "dumps").glob("*-mini.xml.bz2")):
        with dump.open("rb") as file:
            for page in read_pages(file, tally=Tally()):
                pages += 1
                dirty += bool(left.search(plain_text(page.text)))
    assert pages > 100
    assert dirty <= pages // 100
