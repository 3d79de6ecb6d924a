from __future__ import annotations

import itertools
import re

import pytest
import re2
from hypothesis import assume, given
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from balancing.extraction import PUBLISHED, PUBLISHED_TEXTS, TEXTS, Extraction, Image, largest_of_srcset
from balancing.html import MAX_VALUE
from balancing.html import images_of_html as images_of_bytes
from balancing.tags import MARKUP, tag_scanner


def images_of_html(page: str, take: Extraction = PUBLISHED) -> tuple[str | None, list[Image]]:
    return images_of_bytes(page.encode(), take)


def images_of_tree(page: str) -> tuple[str | None, list[Image]]:
    """The same by an independent library that builds the tree."""
    tree = LexborHTMLParser(page)
    base = tree.css_first("base[href]")
    images = [{name: value or "" for name, value in node.attributes.items()}.get for node in tree.css("img")]
    found = [Image(get("src"), tuple(get(name) for name in PUBLISHED_TEXTS)) for get in images]
    return (base.attributes.get("href") or "") if base and found else None, found


def test_images() -> None:
    page = """<head><base target=x><base href="/b/"><base href="/c/"></head>
        <img src="1.jpg" alt="Fish &amp;amp; chips" title='"q"'><IMG SRC=2.jpg ALT><image src=3.jpg alt=old>
        <noscript><img src=4.jpg alt="no script"></noscript> <img data-image-title="t" alt=''>
        <!-- <img src=x alt=comment> --><script>"<img src=x alt=script>"</script><textarea><img src=x alt=area></textarea>
        <template><img src=x alt=template></template><svg><image src=x /></svg><img src=5.jpg alt="never closed"""
    assert images_of_html(page) == (
        "/b/",
        [
            Image("1.jpg", ("Fish &amp; chips", '"q"', None)),
            Image("2.jpg", ("", None, None)),
            Image("3.jpg", ("old", None, None)),
            Image("4.jpg", ("no script", None, None)),
            Image(None, ("", None, "t")),
        ],
    )


def test_pages_without_images_are_not_parsed() -> None:
    assert images_of_html("<base href=/x/><p>imagine an <imgur> here") == (None, [])


def alts(page: str) -> list[str | None]:
    return [image.texts[0] for image in images_of_html(page)[1]]


@pytest.mark.parametrize(
    ("page", "found"),
    [
        # The tag: any case, any space, slashes between attributes, an end without any.
        ("<IMG\fALT = 'a'/><img/alt=b/><img alt=c/><imgalt=x><img\x0balt=x><img alt\n=\t'd'>", ["a", "b/", "c/", "d"]),
        ("<img alt=a<img alt=b>", ["a<img"]),
        ("< img alt=x><img alt=a", []),
        ("<img alt='a><img alt=b>", []),
        # The first of a name counts; quotation marks out of place are part of names and values.
        ("<img alt=a alt=b><img a\"lt=x \"alt=c alt=d'><img =alt=x alt==e><img alt=>", ["a", "d'", "=e", ""]),
        ("<img alt='a'title=b><img alt='<b>&quot;>'>", ["a", '<b>">']),
        # What other tags hold in their values, comments, and what looks like one of these.
        ("<a title=\"<img alt=x>\"><img alt=a></a title='>'><img alt=b>", ["a", "b"]),
        ("<a title='<img alt=x><img alt=y>", []),
        ("<!--<img alt=x>--><img alt=a><!--><img alt=b><!---><img alt=c><!-- --!><img alt=d><!--- -- -> <img alt=x>", ["a", "b", "c", "d"]),
        ("<!doctype html \"a>\"><?x <img alt=x><img alt=a></ <img alt=x><img alt=b></><img alt=c><![CDATA[<img alt=x>]]>", ["a", "b", "c"]),
        ("1 < 2 <img alt=a> <3 <img alt=b>", ["a", "b"]),
        # Elements of text.
        *(
            (f"<{name}><img alt=x></{name}x><img alt=x></{name.upper()}\n a='<img alt=x>'><img alt=a>", ["a"])
            for name in ("script", "style", "textarea", "title", "iframe", "xmp", "noembed", "noframes")
        ),
        ("<style><!-- </style><img alt=a> -->", ["a"]),
        ("<script><!-- </script><img alt=a> -->", ["a"]),
        ("<script><!-- <script></script><img alt=x> --></script><img alt=a>", ["a"]),
        ("<script><!-- <script> --> </script><img alt=a>", ["a"]),
        ("<script><!--> <script> </script><img alt=a>", ["a"]),
        ("<script><!-- <script></script></script><img alt=a> --></script>", ["a"]),
        ("<script/><img alt=x></script><img alt=a><script><img alt=x>", ["a"]),
        ("<img alt=a><plaintext><img alt=x></plaintext><img alt=x>", ["a"]),
        ("<template><template><img alt=x></template><img alt=x></template><img alt=a></template><img alt=b>", ["a", "b"]),
        # SVG: other rules for images, empty elements and CDATA.
        ("<svg><image alt=x /><svg></svg><image alt=x></svg><image alt=a>", ["a"]),
        ("<svg/><image alt=a>", ["a"]),
        ("<svg><title/><img alt=a><image alt=b>", ["a", "b"]),
        ("<svg><![CDATA[<img alt=x>]]></svg><img alt=a>", ["a"]),
        # Character references, by the rules for attributes.
        ("<img alt='&amp;lt; &AMP &copy; &copy=1 &copyx &notit; &CounterClockwiseContourIntegral; &nosuch; & &;'>",
         ["&lt; & © &copy=1 &copyx &notit; ∳ &nosuch; & &;"]),
        ("<img alt='&#65;&#x42;&#X43 &#68x &#0; &#xD800; &#x110000; &#99999999999; &#128; &#x81; &# &#x;'>",
         ["ABC Dx \ufffd \ufffd \ufffd \ufffd € \x81 &# &#x;"]),
        ("<img alt='a\r\nb\rc&#13;d\0'>", ["a\nb\nc\rd\ufffd"]),
    ],
)  # fmt: skip
def test_the_grammar_of_pages(page: str, found: list[str]) -> None:
    assert alts(page) == found
    assert images_of_tree(page)[1] == images_of_html(page)[1]


TOKENS = """
    < > / = " ' & ; ! - -- <!-- --> --!> <!--> ]]> <![CDATA[ # x a é &amp; &lt &copy= &#38; alt alt= src= src='a' title="b" <a <b> </b>
    <img <img> <img/> <IMG alt=c> <image alt=d> <base href=e> <script> </script> <script </script <style> </style> <title> </title>
    <svg> </svg> <svg/> <title/> <template> </template> <noscript> </noscript> <iframe> </iframe> <textarea> </textarea> <p> <div> <td>
    <!doctype html> <?x
"""
PIECES = st.sampled_from([*TOKENS.split(), *" \n\t\r\0"])


@given(st.lists(PIECES, max_size=30).map("".join))
def test_any_page_gives_what_a_tree_gives(page: str) -> None:
    page = f"<body><img alt=first>{page}"
    assume("<svg>" not in page or not re.search("<(script|style|t|iframe)", page))
    assert images_of_html(page) == images_of_tree(page)


@pytest.mark.parametrize(
    "piece",
    [
        "<div>",
        "<img ",
        "<a b='>' ",
        "<",
        "<!--",
        "<a b",
        '<a b="',
        "/",
        "<script>",
        "<script><!--<script></script>",
        "<style></style",
        "&a",
        "<svg><![CDATA[",
        "<textarea><!--</textarea>",
        "<figure><figcaption>",
    ],
)
def test_hostile_pages_take_linear_time(piece: str) -> None:
    """Each would take minutes if anything were read twice."""
    page = "<img alt=a>" + piece * (2_000_000 // len(piece))
    assert alts(page)[0] == "a"
    assert images_of_html(f"<figure><figcaption>{page}</figcaption>{page}", FIGURES)[1][0].texts[1] == "a"
    assert alts(f"<img alt='{page.replace(chr(39), '')}'>")[0] is not None


def test_values_longer_than_any_text_stay_as_they_are() -> None:
    assert alts(f"<img alt='&amp;{'a' * MAX_VALUE}'>") == [f"&amp;{'a' * MAX_VALUE}"]


def test_tags_are_found_by_an_automaton() -> None:
    """The library would hand a pattern that it cannot run to the standard one, which takes exponential time for these."""
    for figures, foreign in itertools.product((False, True), repeat=2):
        assert isinstance(tag_scanner(figures=figures, foreign=foreign), re2.Pattern)
    assert isinstance(MARKUP, re2.Pattern)


def test_bytes_that_are_no_text_stand_for_themselves() -> None:
    page = b"\xff<p title='\xe2\x82'><img src=\xe2.jpg alt='\xe2\x82\xac\xe2\x82' title='\xf0\x9f'>\xc3<img alt=b>"
    assert images_of_bytes(page)[1] == [Image("\ufffd.jpg", ("€\ufffd", "\ufffd", None)), Image(None, ("b", None, None))]


def test_images_shown_in_a_pixel_are_told() -> None:
    page = "<img width=1 height=1><img width=0 height='1px'><img width=1><img width=1 height=10><img height=1 width=100%>"
    assert [image.pixel for image in images_of_html(page)[1]] == [True, True, False, False, False]


FIGURES = Extraction(texts=("figcaption", "alt", "aria-label"))


@pytest.mark.parametrize(
    ("page", "texts"),
    [
        ("<figure><img alt=a><FIGCAPTION class=x>A <b>r</b>ed<br>star\n &amp; moon&sup2</figcaption></figure><img aria-label=b>",
         [("A red star & moon²", "a", None), (None, None, "b")]),
        ("<figure><figcaption>one</figcaption><img alt=a><picture><img alt=b></picture><figcaption>two</figcaption></figure>",
         [("one", "a", None), ("one", "b", None)]),
        # A figure ends where the next begins, or the page; a caption outside of a figure, or one that does not end, is none.
        ("<figcaption>x</figcaption><img alt=a><figure><img alt=b><figcaption>B</figcaption><figure><img alt=c><figcaption>C",
         [(None, "a", None), ("B", "b", None), (None, "c", None)]),
        ("<figure><img alt=a><figcaption>A<!-- <img> --><script>'<img>'</script><p>B<p>C</figcaption>", [("A B C", "a", None)]),
        ("<template><figure><img><figcaption>x</figcaption></figure></template><img alt=a>", [(None, "a", None)]),
        ("<figure><img alt=a><figcaption></figcaption></figure><figurex><img alt=b><figcaption>x</figcaption></figurex>",
         [("", "a", None), (None, "b", None)]),
    ],
)  # fmt: skip
def test_captions_of_figures(page: str, texts: list[tuple[str | None, ...]]) -> None:
    assert [image.texts for image in images_of_html(page, FIGURES)[1]] == texts


@given(
    st.lists(st.one_of(PIECES, st.sampled_from(["<figure>", "</figure>", "<figcaption>", "</figcaption>", "<f>"])), max_size=30).map(
        "".join
    )
)
def test_captions_change_nothing_else(page: str) -> None:
    page = f"<img alt=first>{page}"
    plain, captioned = (images_of_html(page, Extraction(texts=texts)) for texts in (("alt",), ("alt", "figcaption")))
    assert plain == (captioned[0], [image._replace(texts=image.texts[:1]) for image in captioned[1]])


@pytest.mark.parametrize(
    ("tag", "src"),
    [
        ("<img data-src=a>", "a"),
        ("<img src=' DATA:image/gif;base64,x' data-original=b data-lazy-src=a>", "a"),
        ("<img src=data:x srcset='s 1x, l 2x'>", "l"),
        ("<img src='' data-srcset='a 300w, b 1200w, c 600w'>", "b"),
        ("<img src=blank.gif data-src=a srcset='b 2x'>", "a"),
        ("<img src=real.jpg srcset='b 2x'>", "real.jpg"),
        ("<img src=real.jpg data-src='{\"w\": 80}' data-original=data:x>", "real.jpg"),
        ("<img src=' ' data-src='[a]' data-lazy=b>", "b"),
        ("<img src=data:x alt=a>", "data:x"),
        ("<img>", None),
    ],
)
def test_images_that_scripts_load(tag: str, src: str | None) -> None:
    assert [image.src for image in images_of_html(tag, Extraction(lazy=True))[1]] == [src]


@pytest.mark.parametrize(
    ("srcset", "largest"),
    [
        ("", ""),
        ("a.jpg", "a.jpg"),
        ("a.jpg, b.jpg 2x", "b.jpg"),
        ("a,b.jpg 1.5x,c.jpg 1.5x,", "a,b.jpg"),
        (" a.jpg 320w ,\n b.jpg 640w 480h, c.jpg 12.5.1w", "b.jpg"),
        (",,a.jpg", "a.jpg"),
        ("a.jpg -1x, b.jpg huge", "a.jpg"),
    ],
)
def test_largest_of_a_set(srcset: str, largest: str) -> None:
    assert largest_of_srcset(srcset) == largest


@pytest.mark.parametrize("texts", [(), ("alt", "alt"), ("alt", "longdesc")])
def test_texts_that_cannot_be_taken(texts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=", ".join(TEXTS)):
        Extraction(texts=texts)
