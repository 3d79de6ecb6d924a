from __future__ import annotations

import pytest

from balancing import html
from balancing.html import MAX_ATTRIBUTES, MAX_UNCLOSED, PageTooComplex, codec_of_label, decode_html, images_of_html


@pytest.mark.parametrize(
    ("label", "codec"),
    [
        ("utf8", "utf-8"),
        (" UTF-8 ", "utf-8"),
        ("iso-8859-1", "cp1252"),
        ("latin1", "cp1252"),
        ("us-ascii", "cp1252"),
        ("iso-8859-2", "iso8859-2"),
        ("iso-8859-9", "cp1254"),
        ("gb2312", "gb18030"),
        ("gbk", "gb18030"),
        ("shift_jis", "cp932"),
        ("x-sjis", "cp932"),
        ("euc-kr", "cp949"),
        ("ks_c_5601-1987", "cp949"),
        ("euc-jp", "euc_jp"),
        ("iso-2022-jp", "iso2022_jp"),
        ("big5", "big5hkscs"),
        ("tis-620", "cp874"),
        ("koi8-r", "koi8-r"),
        ("windows-1251", "cp1251"),
        ("utf-16", "utf-16-le"),
        ("utf-7", None),
        ("rot13", None),
        ("zip", None),
        ("a\0b", None),
        ("no such", None),
    ],
)
def test_encoding_labels(label: str, codec: str | None) -> None:
    assert codec_of_label(label) == codec


TEXT = "<p>Grüße €"


@pytest.mark.parametrize(
    ("page", "content_type", "text"),
    [
        (TEXT.encode(), "", TEXT),
        (TEXT.encode("cp1252"), "", TEXT),
        (TEXT.encode("cp1252"), "text/html; charset=ISO-8859-1", TEXT),
        (b'<meta charset="iso-8859-1">' + TEXT.encode("cp1252"), "", '<meta charset="iso-8859-1">' + TEXT),
        (
            "<meta http-equiv=x content='text/html; charset=gb2312'>图".encode("gbk"),
            "",
            "<meta http-equiv=x content='text/html; charset=gb2312'>图",
        ),
        ("<meta charset=shift_jis>①".encode("cp932"), "", "<meta charset=shift_jis>①"),
        ("<meta charset=shift_jis>日".encode(), "text/html;charset='utf-8'", "<meta charset=shift_jis>日"),
        ("<!-- <meta charset=gbk> --><meta charset=utf-8>日".encode(), "", "<!-- <meta charset=gbk> --><meta charset=utf-8>日"),
        ('<?xml version="1.0" encoding="euc-kr"?>한'.encode("cp949"), "", '<?xml version="1.0" encoding="euc-kr"?>한'),
        (b"\xef\xbb\xbf" + TEXT.encode(), "text/html; charset=koi8-r", TEXT),
        (b"\xff\xfe" + TEXT.encode("utf-16-le"), "", TEXT),
        ("<meta charset=utf-16>日".encode(), "", "<meta charset=utf-16>日"),
        (b"<meta charset=nonsense>" + TEXT.encode(), "text/html; charset=rubbish", "<meta charset=nonsense>" + TEXT),
        (b"a\xffb", "text/html; charset=utf-8", "a\ufffdb"),
    ],
)
def test_decode_html(page: bytes, content_type: str, text: str) -> None:
    assert decode_html(page, content_type) == text


def test_images() -> None:
    page = """<head><base target=x><base href="/b/"><base href="/c/"></head>
        <img src="1.jpg" alt="Fish &amp;amp; chips" title='"q"'><IMG SRC=2.jpg ALT><image src=3.jpg alt=old>
        <noscript><img src=4.jpg alt="no script"></noscript> <img data-image-title="t" alt=''>
        <!-- <img src=x alt=comment> --><script>"<img src=x alt=script>"</script><textarea><img src=x alt=area></textarea>
        <template><img src=x alt=template></template><svg><image src=x /></svg><img src=5.jpg alt="never closed"""
    assert images_of_html(page) == (
        "/b/",
        [
            ("1.jpg", "Fish &amp; chips", '"q"', None),
            ("2.jpg", "", None, None),
            ("3.jpg", "old", None, None),
            ("4.jpg", "no script", None, None),
            (None, "", None, "t"),
        ],
    )


def test_pages_without_images_are_not_parsed() -> None:
    assert images_of_html("<base href=/x/><p>imagine an <imgur> here") == (None, [])


@pytest.mark.parametrize(
    "page",
    [
        "<div>" * (MAX_UNCLOSED + 1),
        "<a " + "b='>' " * MAX_ATTRIBUTES + ">",
        "<a " + "b/" * MAX_ATTRIBUTES + ">",
        "<b></b>" * 100_001,
        "<p>" * 500_001,
    ],
    ids=["depth", "quoted attributes", "bare attributes", "tags", "marks"],
)
def test_pages_that_would_take_minutes(page: str) -> None:
    with pytest.raises(PageTooComplex):
        images_of_html("<img src=a alt=b>" + page)


@pytest.mark.parametrize("page", ["<a" * 2_000 + ">", "<a b='>' " * 900 + "z" * 300_000], ids=["tags in a tag", "quotes"])
def test_pages_whose_tags_do_not_end_are_not_read_again_and_again(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(images_of_html("<img src=a alt=b>" + page)[1]) == 1
    monkeypatch.setattr(html, "MAX_SCANNED", 1_000_000)
    with pytest.raises(PageTooComplex):
        images_of_html("<img src=a alt=b>" + page)


def test_long_flat_pages_are_parsed() -> None:
    page = "<ul>" + "<li><a href='x'><img src=a alt=b></a><br><p>x" * 20_000
    assert len(images_of_html(page)[1]) == 20_000
