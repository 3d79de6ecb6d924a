"""Each rule on texts that it must drop and texts that it must not, and the books of a table."""

from __future__ import annotations

import pyarrow as pa
import pytest

from balancing.filters import RULES, Filters, filter_pairs, has_email, has_phone, hosts_of, is_file_name, is_frame
from balancing.pairs import PAIR_SCHEMA
from metadata.tally import Tally

URL = "http://x.example/photos/red_fox%2012.png?size=2#top"


@pytest.mark.parametrize(
    ("text", "url", "found"),
    [
        ("IMG_0012.JPG", "", True),
        ("Penny location 1.jpg", "", True),
        ("a.webp", "", True),
        ("red-fox-12", URL, True),
        ("Red_Fox_12", URL, True),
        ("red fox 12", URL, False),
        ("fox", "http://x/fox.jpg", False),
        ("fox2", "http://x/fox2.jpg", True),
        ("fox2", "http://x/fox2", True),
        ("a photo of a red fox, taken from behind the house.", URL, False),
        (".png", "", False),
        ("The jpg", "", False),
        ("x" * 200 + ".jpg", "", False),
        ("1", "http://[", False),
        ("-", "http://x/_.png", False),
    ],
)
def test_names_of_files(text: str, url: str, found: bool) -> None:
    assert is_file_name(text, url) is found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Logo", True),
        ("(Facebook icon)", True),
        ("4.50 out of 5 stars", True),
        ("20220428_164155", True),
        (";)", True),
        ("logo of the city", False),
        ("stars over Paris", False),
        ("写真", False),
        ("icône", True),
    ],
)
def test_frames_of_pages(text: str, found: bool) -> None:
    assert is_frame(text) is found


@pytest.mark.parametrize(
    ("text", "email", "phone"),
    [
        ("write to a.b+c@mail.example.org!", True, False),
        ("@somebody at 3", False, False),
        ("a@b", False, False),
        ("Tel.: +66 81 838 1390.", False, True),
        ("086-048.3713", False, True),
        ("call (030) 901820 now", False, True),
        ("07/2020", False, False),
        ("2019-11-19-at-1-01-55", False, False),
        ("1920x1080", False, False),
        ("0123", False, False),
        ("+1234567890123456789012345", False, False),
    ],
)
def test_addresses_of_people(text: str, email: bool, phone: bool) -> None:
    assert (has_email(text), has_phone(text)) == (email, phone)


def test_lists_of_hosts() -> None:
    assert hosts_of(["# ours", " Bad.example. # why", "", "ünder.example"]) == {"bad.example", "ünder.example"}
    with pytest.raises(ValueError, match="line 2 is no host name: http://x/"):
        hosts_of(["a", "http://x/"])


def test_reasons_in_their_order() -> None:
    filters = Filters(rules=("frames", "file-names"), min_characters=3, max_characters=12, hosts=hosts_of(["bad.example"]))
    for text, url, reason in (
        ("ab", "http://bad.example/", "text_too_short"),
        ("a" * 13, None, "text_over_limit"),
        ("a fox", "http://cdn.BAD.example:80/x", "blocked_host"),
        ("a fox", "http://notbad.example/x", None),
        ("logo", "http://good.example/logo.png", "frame_of_page"),
        ("a.png", None, "file_name"),
        ("a fox", "http://[", None),
        ("a fox", None, None),
    ):
        assert filters.reason(text, url) == reason
    assert Filters().off
    assert not filters.off


def test_rules_that_are_none() -> None:
    with pytest.raises(ValueError, match="no such rule: logos; there are file-names, frames, emails, phones"):
        Filters(rules=("logos",))


def test_tables_keep_their_order_and_their_books() -> None:
    texts = ["a fox", "logo", "an owl", "x.png", "logo"]
    rows = [{"image_id": str(i), "url": f"http://x/{i}", "page_url": None, "text": text, "source": "alt"} for i, text in enumerate(texts)]
    table, tally = pa.Table.from_pylist(rows, schema=PAIR_SCHEMA), Tally()
    found = pa.concat_tables(filter_pairs([table, table.slice(0, 0)], Filters(rules=tuple(RULES)), tally=tally))
    assert found.to_pylist() == [rows[0], rows[2]]
    assert (tally.read, tally.emitted, tally.dropped) == (5, 2, {"frame_of_page": 2, "file_name": 1})
