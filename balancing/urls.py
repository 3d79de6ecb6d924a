"""Image addresses as pages write them → absolute URLs."""

from __future__ import annotations

import re
from functools import cached_property
from urllib.parse import urljoin

#: Longer addresses are no image's: servers refuse them. Bounds what a page can make of its base.
MAX_URL = 8_192

_C0_AND_SPACE = "".join(map(chr, range(0x21)))
_LINE_CHARACTERS = str.maketrans("", "", "\t\n\r")
_TAIL = r"[^?#;]*(?:\?[^?#;][^#;]*)?(?:#[^;]+)?"
# Addresses that urljoin leaves as they are, or puts behind a fixed prefix: no dot segment, no parameters, no empty query or fragment.
_ABSOLUTE = re.compile(r"https?://[A-Za-z0-9.:_-]+(?:/" + _TAIL + ")?")
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.:_-]+(?=[/?#]|$)")
_ROOTED = re.compile(r"(?!.*/\.)/(?!/)" + _TAIL)
_RELATIVE = re.compile(r"(?!.*/[./])[A-Za-z0-9_%~-][^?#;:]*(?:\?[^?#;][^#;]*)?(?:#[^;]+)?")
_HTTP = re.compile(r"https?://[^/?#]", re.IGNORECASE)


def clean_url(url: str) -> str:
    """The address without white space and control characters at its ends and without tabs and line ends, as browsers read it."""
    url = url.strip(_C0_AND_SPACE)
    return url if url.isprintable() else url.translate(_LINE_CHARACTERS)


def is_http(url: str) -> bool:
    """Whether a resolved URL is http or https and names a host."""
    return _HTTP.match(url) is not None


class Resolver:
    """``urllib.parse.urljoin`` with one base, for many addresses of a page: the common forms without splitting them.

    ``page_url`` is the page's address, ``base`` its ``<base href>``, itself resolved against the page.

    Raises:
        ValueError: the base is no URL (an unclosed bracket, say).
    """

    def __init__(self, page_url: str, base: str | None = None) -> None:
        self.base = clean_url(page_url)
        if base is not None and (base := clean_url(base)):
            self.base = urljoin(self.base, base)
        origin = _ORIGIN.match(self.base)
        self._origin = origin[0] if origin else ""

    @cached_property
    def _folder(self) -> str:
        """What comes before a relative path; the same for every path without dot segments."""
        return urljoin(self.base, "x")[:-1]

    def resolve(self, url: str) -> str:
        """The absolute URL of a cleaned, non-empty address: exactly ``urljoin(base, url)``.

        Raises:
            ValueError: the address is no URL.
        """
        if _ABSOLUTE.fullmatch(url):
            return url
        if self._origin:
            if url[0] == "/":
                if _ROOTED.fullmatch(url):
                    return self._origin + url
                if _ABSOLUTE.fullmatch(absolute := self._origin[: self._origin.index(":") + 1] + url):
                    return absolute
            elif _RELATIVE.fullmatch(url):
                return self._folder + url
        return urljoin(self.base, url)
