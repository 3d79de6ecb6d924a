from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urljoin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancing.urls import Resolver, clean_url, is_http

WORDS = "http: https: HTTP: ftp: data: // / . .. /../ /./ a b.jpg ü %20 ; ? # = & [ ] ::1 : 80 @ example.org \\ ~x - +"
PIECES = st.sampled_from([*WORDS.split(), " "])
ADDRESSES = st.lists(PIECES, max_size=8).map("".join)
PAGES = st.one_of(ADDRESSES, ADDRESSES.map("https://www.example.org/".__add__), ADDRESSES.map("http://a/b/../c/".__add__))


def outcome(function: Callable[..., str], *args: str) -> str | type[Exception]:
    try:
        return function(*args)
    except ValueError:
        return ValueError


@given(PAGES, ADDRESSES.map(clean_url).filter(bool))
def test_resolves_exactly_as_urljoin(page: str, url: str) -> None:
    page = clean_url(page)
    assert outcome(lambda: Resolver(page).resolve(url)) == outcome(urljoin, page, url)


@given(PAGES, ADDRESSES, ADDRESSES.map(clean_url).filter(bool))
def test_base_is_resolved_against_the_page(page: str, base: str, url: str) -> None:
    page = clean_url(page)
    expected = outcome(lambda: urljoin(urljoin(page, clean_url(base)), url))
    assert outcome(lambda: Resolver(page, base).resolve(url)) == expected


@pytest.mark.parametrize(
    ("base", "url", "expected"),
    [
        (None, "https://cdn.org/a.jpg?w=1", "https://cdn.org/a.jpg?w=1"),
        (None, "//cdn.org/a.jpg", "https://cdn.org/a.jpg"),
        (None, "/a/b.jpg", "https://x.org/a/b.jpg"),
        (None, "a/b.jpg", "https://x.org/p/q/a/b.jpg"),
        (None, "../b.jpg", "https://x.org/p/b.jpg"),
        ("https://other.org/z/", "b.jpg", "https://other.org/z/b.jpg"),
        ("/root/", "b.jpg", "https://x.org/root/b.jpg"),
        ("", "b.jpg", "https://x.org/p/q/b.jpg"),
    ],
)
def test_common_forms(base: str | None, url: str, expected: str) -> None:
    assert Resolver("https://x.org/p/q/page.html", base).resolve(url) == expected


def test_addresses_are_cleaned_as_browsers_do() -> None:
    assert clean_url("\x00 \n http://a/b\n c\t.jpg \r\n") == "http://a/b c.jpg"
    assert clean_url("\u00a0a.jpg") == "\u00a0a.jpg"


@pytest.mark.parametrize(
    ("url", "answer"), [("http://a", True), ("HTTPS://a/b", True), ("http:///b", False), ("ftp://a/b", False), ("a/b", False)]
)
def test_is_http(url: str, answer: bool) -> None:
    assert is_http(url) is answer
