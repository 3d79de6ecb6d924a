"""Which web pages there are, and which images and texts each of them holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tests.world.vocabulary import JUNK_TEXTS, LANGUAGES, UNBUILT_CAPTIONS, Language

#: Share of captions per language, in the order of LANGUAGES.
LANGUAGE_SHARES = (0.42, 0.14, 0.14, 0.12, 0.1, 0.08)
#: Share of pictures that are captioned in one, two and three languages.
TEXTS_SHARES = (0.45, 0.35, 0.2)
REPEAT_SHARE = 0.08
SECOND_TEXT_SHARE = 0.1
IMAGES_PER_PAGE = 5

#: The attributes that a text may stand in.
SOURCES = ("alt", "title", "data-image-title")
#: How a page writes the addresses of its images.
STYLES = ("absolute", "rooted", "schemeless", "based")
_SITES = ("garten", "musee", "gallery", "ehon", "suwar", "atlas", "poster", "colours")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One candidate as a reader of the page should give it: ``url`` resolved, ``text`` normalized, ``source`` one of SOURCES.

    ``lang`` is the language that the caption was written in; "" for junk and for captions of languages without a dump.
    """

    url: str
    page_url: str
    text: str
    source: str
    lang: str


@dataclass(frozen=True, kw_only=True)
class ImageElement:
    """One ``img``: ``src`` as the page writes it, ``url`` resolved ("" for data URLs and for none), the attributes in order."""

    src: str | None
    url: str
    texts: tuple[tuple[str, str], ...]
    lang: str


@dataclass(frozen=True, kw_only=True)
class Page:
    """One web page. ``base``: the address in ``<base href>``, or ""; ``charset_in``: ``header`` or ``meta``."""

    url: str
    base: str
    language: Language
    encoding: str
    charset_in: str
    images: tuple[ImageElement, ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Mention:
    """An image somewhere in the web: its path under the base URL, its texts by attribute, and their language."""

    path: str
    texts: tuple[tuple[str, str], ...]
    language: Language
    lang: str


def pairs_of(page: Page) -> Iterable[Pair]:
    """The pairs of a page in document order."""
    for image in page.images:
        if image.url:
            for source, text in image.texts:
                if normalized := " ".join(text.split("\n")).strip():
                    yield Pair(url=image.url, page_url=page.url, text=normalized, source=source, lang=image.lang)


def noise_mentions(count: int, noise_images: int, rng: np.random.Generator) -> list[Mention]:
    """``count`` images whose texts are of no use: file names, and captions in languages that have no dump."""
    out = []
    for i in range(count):
        kind = JUNK_TEXTS[rng.integers(len(JUNK_TEXTS))] if rng.random() < 0.5 else UNBUILT_CAPTIONS[rng.integers(len(UNBUILT_CAPTIONS))]
        text = kind.format(n=i)
        path = f"/noise/{int(rng.integers(noise_images)):04d}.jpg"
        out.append(Mention(path=path, texts=(("alt", text),), language=LANGUAGES[rng.integers(len(LANGUAGES))], lang=""))
    return out


def _furniture(number: int) -> list[ImageElement]:
    """What else stands on a page: images without a text, a data URL, an image without an address."""
    out = [ImageElement(src=f"/static/icon-{number}.png", url="", texts=(), lang="")]
    if number % 2:
        out.append(ImageElement(src="/static/spacer.gif", url="", texts=(("alt", "  "),), lang=""))
    if number % 3 == 0:
        out.append(ImageElement(src="data:image/gif;base64,R0lGODlhAQABAAAAACw=", url="", texts=(("alt", "loading"),), lang=""))
    if number % 5 == 0:
        out.append(ImageElement(src=None, url="", texts=(("alt", "no address"),), lang=""))
    return out


def _image(mention: Mention, style: str, base_url: str, rng: np.random.Generator) -> ImageElement:
    url = base_url + mention.path
    src = {"absolute": url, "rooted": mention.path, "schemeless": url.removeprefix("http:"), "based": mention.path.removeprefix("/")}[style]
    texts = mention.texts
    # A line break inside an attribute, as hand-written pages have it; normalization makes it a space.
    if rng.random() < 0.05:
        texts = tuple((source, text.replace(" ", "\n", 1)) for source, text in texts)
    return ImageElement(src=src, url=url, texts=texts, lang=mention.lang)


def lay_out(mentions: Sequence[Mention], *, base_url: str, rng: np.random.Generator) -> list[Page]:
    """Pages that hold every mention once. A page has one language; the order of pages is random."""
    pages: list[Page] = []
    for language in LANGUAGES:
        own = [m for m in mentions if m.language is language]
        for turn, start in enumerate(range(0, len(own), IMAGES_PER_PAGE)):
            number = len(pages)
            # In turn and not at random, so that a small world has every kind of page too.
            style = STYLES[turn % len(STYLES)]
            encoding = language.encodings[-1] if turn % 3 == 1 else "utf-8"
            charset_in = ("header", "meta")[turn % 2]
            images = [_image(m, style, base_url, rng) for m in own[start : start + IMAGES_PER_PAGE]] + _furniture(number)
            site = f"http://www.{_SITES[rng.integers(len(_SITES))]}.example"
            pages.append(
                Page(
                    # A page whose addresses begin at the root must lie on the server of the pictures.
                    url=f"{base_url if style == 'rooted' else site}/{language.code}/{number}.html",
                    base=f"{base_url}/" if style == "based" else "",
                    language=language,
                    encoding=encoding,
                    charset_in=charset_in,
                    images=tuple(images[i] for i in rng.permutation(len(images))),
                )
            )
    return [pages[i] for i in rng.permutation(len(pages))]
