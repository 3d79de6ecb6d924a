from __future__ import annotations

import pytest

from balancing.encoding import codec_of_label, utf8_of_html


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
def test_utf8_of_html(page: bytes, content_type: str, text: str) -> None:
    assert utf8_of_html(page, content_type).decode("utf-8", "replace") == text
