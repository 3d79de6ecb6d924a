"""What is taken from a page: the images, and which of their attributes are texts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

#: The attributes that hold texts in the published recipe, in the order in which an image's pairs are given; also the values of ``source``.
PUBLISHED_TEXTS = ("alt", "title", "data-image-title")
#: All that can be taken; WAT files have the published ones only.
TEXTS = (*PUBLISHED_TEXTS, "aria-label", "figcaption")

#: Where scripts that load images late keep the address, the most frequent first.
LAZY_ADDRESSES = ("data-src", "data-lazy-src", "data-original", "data-lsrc", "data-lazy")
LAZY_SETS = ("srcset", "data-srcset", "data-lazy-srcset")

# https://html.spec.whatwg.org/multipage/images.html#parse-a-srcset-attribute, without the descriptors that no page uses.
_CANDIDATE = re.compile(r"[\s,]*+(\S*[^\s,])(?:\s+([\d.]++)[wx])?[^,]*+,?")


class Image(NamedTuple):
    """One image of a page. ``texts``: one per name asked for, None where the page has none. ``pixel``: the page shows it in one pixel, or
    in none, as counters of visits are."""

    src: str | None
    texts: tuple[str | None, ...]
    pixel: bool = False


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """What to take. ``texts``: some of ``TEXTS``. ``lazy``: where the page's script would load another image than stands in ``src``, which
    is a placeholder then, take that one; where there is no ``src``, the largest of the image's ``srcset``."""

    texts: tuple[str, ...] = PUBLISHED_TEXTS
    lazy: bool = False

    def __post_init__(self) -> None:
        if unknown := [name for name in self.texts if name not in TEXTS]:
            raise ValueError(f"no such text of an image: {', '.join(unknown)}; there are {', '.join(TEXTS)}")
        if not self.texts or len(set(self.texts)) < len(self.texts):
            raise ValueError(f"name one text of an image at least, and each once: {', '.join(TEXTS)}")


#: The published recipe.
PUBLISHED = Extraction()


def largest_of_srcset(srcset: str) -> str:
    """The address of the widest, or densest, image of a ``srcset``; the first of equals; empty where there is none."""
    best, largest = "", -1.0
    for address, size in _CANDIDATE.findall(srcset):
        try:
            number = float(size or 1)
        except ValueError:
            continue
        if number > largest:
            best, largest = address, number
    return best
