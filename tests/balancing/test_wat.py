from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancing.wat import images_of_odd_wat, images_of_wat

TEXTS = st.one_of(st.text(max_size=12), st.sampled_from(['a "b" {c}', "}{", "\\", 'IMG@/src","url":"x"}', "\ud800", "\x00"]))
ODD = st.one_of(
    st.none(), st.integers(), st.floats(), st.booleans(), st.lists(TEXTS, max_size=2), st.dictionaries(TEXTS, TEXTS, max_size=2)
)
VALUES = st.one_of(TEXTS, TEXTS, TEXTS, ODD)
PATHS = st.one_of(st.just("IMG@/src"), st.just("IMG@/srcset"), st.just("A@/href"), VALUES)
KEYS = ["url", "alt", "title", "data-image-title", "text"]


@st.composite
def links(draw: st.DrawFn) -> Any:
    keys = draw(st.lists(st.sampled_from(["path", *KEYS]), unique=True))
    return {key: draw(PATHS if key == "path" else VALUES) for key in keys}


LINKS = st.one_of(st.lists(st.one_of(links(), links(), ODD), max_size=5), VALUES)


def wat_record(links: Any, *, url: Any = "http://a/", head: Any = None) -> dict[str, Any]:
    html = {"Links": links} if head is None else {"Head": head, "Links": links}
    payload = {"HTTP-Response-Metadata": {"HTML-Metadata": html}}
    return {"Envelope": {"WARC-Header-Metadata": {"WARC-Target-URI": url}, "Payload-Metadata": payload}}


def oracle(record: Any) -> list[tuple[Any, ...]]:
    """Images as the recipe states them, by plain walking."""

    def get(value: Any, key: str) -> Any:
        return value.get(key) if isinstance(value, dict) else None

    html = get(get(get(get(record, "Envelope"), "Payload-Metadata"), "HTTP-Response-Metadata"), "HTML-Metadata")
    found = get(html, "Links")
    images = []
    for link in found if isinstance(found, list) else []:
        path = get(link, "path")
        if isinstance(path, str) and path.startswith("IMG@/src"):
            values = [get(link, key) for key in KEYS[:4]]
            src, *texts = (value if isinstance(value, str) else None for value in values)
            images.append((src, tuple(texts), False))
    return images


@given(LINKS, VALUES, st.one_of(st.none(), VALUES, st.fixed_dictionaries({"Base": VALUES})), st.booleans(), st.sampled_from([None, 1]))
def test_images_of_any_record(links: Any, url: Any, head: Any, ascii_only: bool, indent: int | None) -> None:
    record = wat_record(links, url=url, head=head)
    block = json.dumps(record, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    decoded = json.loads(block.decode("utf-8", "replace"))
    url, base, images = images_of_wat(block)
    assert images == oracle(decoded)
    assert (url, base, images) == images_of_odd_wat(block)


@given(st.recursive(VALUES, lambda inner: st.dictionaries(st.sampled_from(["Envelope", "Payload-Metadata", "Links"]), inner, max_size=3)))
def test_any_json_is_read(value: Any) -> None:
    block = json.dumps(value).encode()
    assert images_of_wat(block) == images_of_odd_wat(block)


def test_fields() -> None:
    links = [
        {"path": "IMG@/src", "url": "a.jpg", "alt": "one", "title": "two", "data-image-title": "three"},
        {"path": "A@/href", "url": "b.jpg", "alt": "no image"},
        {"url": "c.jpg"},
        {"path": "IMG@/src", "alt": "no address"},
    ]
    record = wat_record(links, head={"Base": "http://base/", "Title": "t"})
    expected = [("a.jpg", ("one", "two", "three"), False), (None, ("no address", None, None), False)]
    assert images_of_wat(json.dumps(record).encode()) == ("http://a/", "http://base/", expected)


@pytest.mark.parametrize(
    "block",
    [b"", b"{", b'{"Envelope": }', b"\xff\xfe", b'{"a":' * 100_000, b'{"Envelope":{"WARC-Header-Metadata":{"WARC-Target-URI":"x"}}} tail'],
)
def test_broken_json(block: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        images_of_wat(block)
