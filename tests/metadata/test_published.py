"""Names, places and checksums of what Wikimedia publishes."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metadata.published import (
    FIRST_HOUR,
    MAX_PAGEVIEW_BYTES,
    NotPublishedError,
    PublishedFile,
    check_date,
    dump_dates,
    dump_files,
    hours_of,
    is_dump_of,
    listing_path,
    pageview_file,
    sample_hours,
    status_path,
)

NOW = datetime(2026, 11, 25, 21)
SHA1 = "0123456789abcdef0123456789abcdef01234567"


def about(size: int = 7, sha1: str = SHA1) -> dict[str, Any]:
    return {"size": size, "sha1": sha1, "md5": "x", "url": "/somewhere/else"}


def status(**jobs: Any) -> bytes:
    return json.dumps({"version": "0.8", "jobs": jobs}).encode()


def files_of(content: bytes, dbname: str = "ltgwiki") -> list[PublishedFile]:
    return dump_files(content, dbname=dbname, date="20260101")


def job(*ends: str, state: str = "done", dbname: str = "ltgwiki") -> dict[str, Any]:
    return {"status": state, "files": {f"{dbname}-20260101-pages-articles{end}": about() for end in ends}}


# -- dumps -------------------------------------------------------------------------------------------------------------------------------


def test_the_files_of_a_dump() -> None:
    name = "ltgwiki-20260101-pages-articles-multistream"
    content = status(
        articlesmultistreamdump={"status": "done", "files": {f"{name}.xml.bz2": about(9), f"{name}-index.txt.bz2": about(1)}},
        articlesdump=job(".xml.bz2"),
        pagetable={"status": "waiting", "files": {"x": {}}},
        odd=[1, None],
    )
    same = {"date": "20260101", "wiki": "ltgwiki", "sha1": SHA1}
    assert files_of(content) == [
        PublishedFile(name=f"{name}-index.txt.bz2", path=f"ltgwiki/20260101/{name}-index.txt.bz2", size=1, **same),
        PublishedFile(name=f"{name}.xml.bz2", path=f"ltgwiki/20260101/{name}.xml.bz2", size=9, **same),
    ]
    assert [file.max_bytes for file in files_of(content)] == [1, 9]
    assert listing_path("ltgwiki") == "ltgwiki/"
    assert status_path("ltgwiki", "20260101") == "ltgwiki/20260101/dumpstatus.json"


PARTS = (
    "-multistream1.xml-p1p41242.bz2",
    "-multistream-index1.txt-p1p41242.bz2",
    "-multistream27.xml-p80000001p81500000.bz2",
    "-multistream-index27.txt-p80000001p81500000.bz2",
)


def test_parts_come_before_the_whole() -> None:
    whole = job("-multistream.xml.bz2", "-multistream-index.txt.bz2", dbname="enwiki")
    content = status(articlesmultistreamdumprecombine=whole, articlesmultistreamdump=job(*PARTS, dbname="enwiki"))
    assert [file.name for file in files_of(content, "enwiki")] == sorted(f"enwiki-20260101-pages-articles{end}" for end in PARTS)


@pytest.mark.parametrize(
    ("jobs", "taken"),
    [
        ({"articlesmultistreamdump": "failed", "articlesmultistreamdumprecombine": "done", "articlesdump": "done"}, "b"),
        ({"articlesmultistreamdump": "skipped", "articlesdump": "done"}, "c"),
        ({"articlesdump": "done", "articlesdumprecombine": "done"}, "c"),
        ({"articlesdumprecombine": "done"}, "d"),
        # It will be a multistream dump: what is done of it by now is another form of the same.
        ({"articlesmultistreamdump": "waiting", "articlesdump": "done"}, ""),
        ({"articlesmultistreamdump": "in-progress", "articlesmultistreamdumprecombine": "done"}, ""),
        ({"articlesmultistreamdump": "failed"}, ""),
        ({}, ""),
    ],
)
def test_the_first_job_that_was_not_given_up_decides(jobs: dict[str, str], taken: str) -> None:
    ends = {
        "articlesmultistreamdump": "-multistream1.xml-p1p2.bz2",
        "articlesmultistreamdumprecombine": "-multistream.xml.bz2",
        "articlesdump": "1.xml-p1p2.bz2",
        "articlesdumprecombine": ".xml.bz2",
    }
    content = status(**{name: job(ends[name], state=state) for name, state in jobs.items()})
    if taken:
        expected = ends[list(ends)["abcd".index(taken)]]
        assert [file.name for file in files_of(content)] == [f"ltgwiki-20260101-pages-articles{expected}"]
        return
    with pytest.raises(NotPublishedError, match=r"ltgwiki 20260101 (is not finished|has no pages-articles files)"):
        files_of(content)


@pytest.mark.parametrize(
    "name",
    [
        "../../../etc/passwd",
        "ltgwiki-20260101-pages-articles/../x.xml.bz2",
        "/ltgwiki-20260101-pages-articles.xml.bz2",
        "ltgwiki-20260101-pages-articles.xml.bz2\n",
        "ltgwiki-20260101-pages-articles.xml.bz2\0",
        "LTGWIKI-20260101-pages-articles.xml.bz2",
        "lvwiki-20260101-pages-articles.xml.bz2",
        "ltgwiki-20260102-pages-articles.xml.bz2",
        "ltgwiki-20260101-pages-meta-history.xml.bz2",
        "ltgwiki-20260101-pages-articles.xml.gz",
        "ltgwiki-20260101-pages-articles-multistream.xml-p1.bz2",
        "ltgwiki-20260101-pages-articles-multistream१.xml.bz2",
        "",
        ".",
    ],
)
def test_a_name_that_no_file_of_the_dump_can_have(name: str) -> None:
    content = status(articlesmultistreamdump={"status": "done", "files": {name: about()}})
    with pytest.raises(ValueError, match="which is no pages-articles file of that dump") as error:
        files_of(content)
    assert not isinstance(error.value, NotPublishedError)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>not found</html>",
        b"[]",
        b"null",
        b"{}",
        b'{"jobs": []}',
        b'{"jobs": {"articlesdump": []}}',
        b'{"jobs": {"articlesdump": {"status": 1}}}',
        b'{"jobs": {"articlesdump": {"status": "done", "files": []}}}',
        b"[" * 1_000_000,
        b'{"jobs": {"articlesdump": {"status": "done", "files": ' + b'{"a":' * 100_000,
        b'\xff{"jobs": {}}',
        *(
            status(articlesdump={"status": "done", "files": {"ltgwiki-20260101-pages-articles.xml.bz2": file}})
            for file in (
                {},
                {"sha1": SHA1},
                about(size=0),
                about(size=-1),
                {"size": 1.5, "sha1": SHA1},
                {"size": "7", "sha1": SHA1},
                about(sha1=SHA1 + "\n"),
                about(sha1=SHA1.upper()),
                about(sha1=SHA1[1:]),
            )
        ),
    ],
)
def test_what_is_no_dump_status(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"^the dumpstatus.json of ltgwiki 20260101 cannot be read \(") as error:
        files_of(content)
    assert not isinstance(error.value, NotPublishedError)


def test_a_missing_sha1_is_empty() -> None:
    name = "ltgwiki-20260101-pages-articles.xml.bz2"
    assert files_of(status(articlesdump={"status": "done", "files": {name: {"size": 7}}}))[0].sha1 == ""


@given(st.binary(max_size=200))
def test_any_bytes_give_files_or_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError, match="ltgwiki"):
        files_of(content)


NGINX = b"""<html><head><title>Index of /ltgwiki/</title></head><body><h1>Index of /ltgwiki/</h1><hr><pre><a href="../">../</a>
<a href="20251201/">20251201/</a>          20-Dec-2025 01:38       -
<a href="20260101/">20260101/</a>          02-Jan-2026 01:38       -
<a href="20260230/">20260230/</a>          02-Jan-2026 01:38       -
<a href="latest/">latest/</a>              02-Jan-2026 01:38       -
</pre><hr></body></html>"""
APACHE = b"""<table><tr><td><A HREF='/mirror/dumps/ltgwiki/20260101/'>20260101</A></td><td>2026-01-02 20251111</td></tr>
<tr><td><a  href = 20251201>x</a></td></tr><tr><td><a href="?C=N;O=D">20240101</a></td></tr>
<tr><td><a href="ltgwiki-20250101-x/">x</a><a href="202601011/">x</a><a href="20260102/../../etc">x</a></td></tr></table>"""


@pytest.mark.parametrize("page", [NGINX, APACHE])
def test_dates_of_a_listing(page: bytes) -> None:
    assert dump_dates(page) == ["20260101", "20251201"]
    assert dump_dates(b"") == []


@pytest.mark.parametrize("text", ["2026010", "20260132", "20261301", "2026-01-01", "latest", "", "20260101\n", "२०२६०१०१", "00000101"])
def test_no_date(text: str) -> None:
    with pytest.raises(ValueError, match="is no date: write 20260101"):
        check_date(text)


def test_which_files_are_counted_as_a_dump_of_a_wiki() -> None:
    assert is_dump_of("ltgwiki-20260101-pages-articles-multistream.xml.bz2", "ltgwiki")
    assert is_dump_of("enwiki-20260101-pages-articles1.xml-p1p41242.bz2", "enwiki")
    for name in ("ltgwiki-20260101-pages-articles-multistream-index.txt.bz2", "ltgwiki-20260101-pages-articles.xml.bz2.json", "x.xml.bz2"):
        assert not is_dump_of(name, "ltgwiki")
    assert not is_dump_of("ltgwiki-20260101-pages-articles.xml.bz2", "lvwiki")


# -- page views --------------------------------------------------------------------------------------------------------------------------


def hours(*spans: str) -> list[str]:
    return [f"{hour:%Y%m%d-%H}" for hour in hours_of(spans, now=NOW)]


def test_spans() -> None:
    assert hours("2025-01-31T23") == ["20250131-23"]
    assert hours("2025-01-31") == [f"20250131-{hour:02}" for hour in range(24)]
    assert hours("2025-01-31T22..2025-02-01T01") == ["20250131-22", "20250131-23", "20250201-00", "20250201-01"]
    assert hours("2025-01-02T03", "2025-01-01T00", "2025-01-02T03..2025-01-02T04") == ["20250101-00", "20250102-03", "20250102-04"]
    assert len(hours("2024-02")) == 29 * 24
    assert len(hours("2025-12")) == 31 * 24
    assert len(hours("2024")) == 366 * 24
    assert len(hours("2024-12..2025")) == (31 + 365) * 24
    assert hours("2015-05-01T00..2015-05-01T02") == ["20150501-01", "20150501-02"]
    assert hours("2026-11-25T20") == ["20261125-20"]


@pytest.mark.parametrize(
    ("span", "said"),
    [
        ("2025-1", "is no time"),
        ("2025-13", "is no time"),
        ("2025-00", "is no time"),
        ("2025-02-29", "is no time"),
        ("2025-01-00", "is no time"),
        ("2025-01-01T24", "is no time"),
        ("2025-01-01T00:00", "is no time"),
        ("2025-01-01..", "is no time"),
        ("..2025", "is no time"),
        ("2025..2025..2025", "is no time"),
        ("9999", "is no time"),
        ("9999-12-31", "is no time"),
        ("0000", "is no time"),
        ("", "is no time"),
        ("2025-02..2025-01", "ends before it begins"),
        ("2015-04-30", "begins before 2015-05-01"),
        ("2026-11-25", "has not passed yet: name hours before 2026-11-25T21 UTC"),
        ("2026-11-25T21", "has not passed yet"),
        ("2025..9998", "has not passed yet"),
    ],
)
def test_no_span(span: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        hours_of([span], now=NOW)
    assert str(error.value).startswith(repr(span)) or said == "is no time"


def test_twenty_six_days() -> None:
    days = sorted({hour.date() for hour in sample_hours(hours_of(["2025"], now=NOW), "26d")})
    # Day i of 26 lies in the days from i · 365 / 26 on, at the fraction of i · 0.618034 of them: 0, 14 + 8, 28 + 3, 42 + 11, 56 + 6 …
    assert [f"{day:%m-%d}" for day in days[:5]] == ["01-01", "01-23", "02-01", "02-23", "03-04"]
    assert len(days) == 26
    assert len({day.weekday() for day in days}) == 7


def test_hours_of_a_sample_meet_all_times_of_the_day() -> None:
    sample = sample_hours(hours_of(["2025"], now=NOW), "365h")
    assert [hour.date() for hour in sample] == [datetime(2025, 1, 1).date() + timedelta(days=i) for i in range(365)]
    per_hour = [sum(hour.hour == i for hour in sample) for i in range(24)]
    assert min(per_hour) >= 14
    assert max(per_hour) <= 17


@given(st.integers(1, 300), st.integers(1, 300))
def test_a_sample_has_one_hour_of_each_stretch(length: int, n: int) -> None:
    whole = [FIRST_HOUR + timedelta(hours=i) for i in range(length)]
    sample = sample_hours(whole, f"{n}h")
    places = [whole.index(hour) for hour in sample]
    if n >= length:
        assert sample == whole
    else:
        assert all(i * length // n <= place < (i + 1) * length // n for i, place in enumerate(places))
        assert len(places) == n


def test_a_sample_of_days_keeps_the_hours_that_were_named() -> None:
    named = hours_of(["2025-01-01T05", "2025-01-02T06..2025-01-02T07", "2025-01-03"], now=NOW)
    assert sample_hours(named, "3d") == named
    assert sample_hours(named, "99d") == named
    assert len({hour.date() for hour in sample_hours(named, "2d")}) == 2


@pytest.mark.parametrize("sample", ["", "26", "0d", "d", "-1h", "1.5d", "26D", "26 d", "9999999h", "२d"])
def test_no_sample(sample: str) -> None:
    with pytest.raises(ValueError, match="is no sample: write 26d"):
        sample_hours([], sample)


def test_the_file_of_an_hour() -> None:
    file = pageview_file(datetime(2025, 1, 1, 6))
    name = "pageviews-20250101-060000.gz"
    assert file == PublishedFile(name=name, path=f"other/pageviews/2025/2025-01/{name}", date="20250101")
    assert (file.size, file.sha1, file.wiki, file.max_bytes) == (None, "", "", MAX_PAGEVIEW_BYTES)
