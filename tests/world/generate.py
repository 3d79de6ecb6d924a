"""Writes a whole world into a folder: what a curation of the web starts from, and the truth about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.world import server
from tests.world.crawl import CrawlTruth, write_warc, write_wat
from tests.world.dumps import DumpTruth, write_dump
from tests.world.pages import LANGUAGE_SHARES, REPEAT_SHARE, SECOND_TEXT_SHARE, SOURCES, TEXTS_SHARES, Mention, lay_out, noise_mentions
from tests.world.pageviews import PageviewTruth, write_pageviews
from tests.world.pictures import draw_picture
from tests.world.subjects import CLASSES, Subject, class_ranks, class_shares, draw_subject
from tests.world.vocabulary import LANGUAGES, Language, prompts
from tests.world.wordnets import lemmas_of, write_wordnets

#: The test pictures are the same in every world: drawn with a seed of their own, evenly over the classes.
TEST_SEED = 77_003
WARC_FILES = 3
WAT_FILES = 3
DEAD_SHARE = 0.02
NOISE_SHARE = 0.1

#: Each part draws from a stream of its own, so that one part's size does not move another.
_DUMPS, _VIEWS, _SUBJECTS, _PICTURES, _TEXTS, _PAGES, _NOISE = range(7)


@dataclass(frozen=True, kw_only=True)
class World:
    """Where everything lies, and what tests may assert of it.

    ``class_of_url``: the class of every picture by its URL, dead ones included; ``dead``: URLs that give no picture; ``odd``: the URLs of
    ``server.ODD_PATHS``. ``crawl_truth`` is keyed by file name, ``dump_truth`` by language.
    """

    root: Path
    dumps: Path
    pageviews: Path
    crawl: Path
    images: Path
    nltk_data: Path
    test: Path
    base_url: str
    languages: tuple[str, ...]
    dump_truth: Mapping[str, DumpTruth] = field(repr=False)
    pageview_truth: PageviewTruth = field(repr=False)
    crawl_truth: Mapping[str, CrawlTruth] = field(repr=False)
    lemmas: Mapping[str, tuple[str, ...]] = field(repr=False)
    class_of_url: Mapping[str, int] = field(repr=False)
    dead: tuple[str, ...] = field(repr=False)
    odd: tuple[str, ...] = field(repr=False)


def _rng(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def _caption(language: Language, subject: Subject, rng: np.random.Generator) -> tuple[tuple[str, str], ...]:
    """The texts of one image element: one, or two different ones, in different attributes."""
    first = int(rng.integers(len(language.captions)))
    source = ("alt", "alt", "alt", "alt", "title", "data-image-title")[rng.integers(6)]
    texts = [(source, language.caption(subject, first))]
    if rng.random() < SECOND_TEXT_SHARE:
        texts.append(("title" if source != "title" else "alt", language.caption(subject, first + 1)))
    return tuple(sorted(texts, key=lambda pair: SOURCES.index(pair[0])))


def _mentions(path: str, subject: Subject, rng: np.random.Generator) -> list[Mention]:
    count = 1 + int(rng.choice(len(TEXTS_SHARES), p=TEXTS_SHARES))
    chosen = rng.choice(len(LANGUAGES), size=count, replace=False, p=LANGUAGE_SHARES)
    return [Mention(path=path, texts=_caption(LANGUAGES[i], subject, rng), language=LANGUAGES[i], lang=LANGUAGES[i].code) for i in chosen]


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@dataclass(frozen=True, kw_only=True)
class _Picture:
    path: str
    class_index: int
    subject: Subject
    dead: bool


def _pictures(seed: int, count: int) -> list[_Picture]:
    """The pictures of the web: classes by Zipf's law. The first ones take the odd paths; some are dead links."""
    rng = _rng(seed, _SUBJECTS)
    classes = rng.choice(len(CLASSES), size=count, p=class_shares())
    out = []
    for i, class_index in enumerate(classes.tolist()):
        subject, dead = draw_subject(rng, class_index), bool(rng.random() < DEAD_SHARE)
        odd = i < len(server.ODD_PATHS)
        path = server.ODD_PATHS[i] if odd else f"/pictures/{i // 1000:03d}/{i:06d}.jpg"
        if odd:
            dead = path in (server.LOOP, server.NOT_AN_IMAGE, server.CUT_OFF, server.GONE)
        out.append(_Picture(path=path, class_index=class_index, subject=subject, dead=dead))
    return out


def _write_pictures(folder: Path, pictures: list[_Picture], noise_images: int, seed: int) -> None:
    for i, picture in enumerate(pictures):
        if picture.dead and picture.path != server.CUT_OFF:
            continue
        jpeg = draw_picture(picture.subject, _rng(seed, _PICTURES, i))
        path = server.MOVED_TO if picture.path == server.MOVED else picture.path
        _write(folder / path[1:], jpeg[: len(jpeg) // 3] if path == server.CUT_OFF else jpeg)
    rng = _rng(seed, _NOISE, 1)
    for i in range(noise_images):
        _write(folder / "noise" / f"{i:04d}.jpg", draw_picture(draw_subject(rng, int(rng.integers(len(CLASSES)))), rng))


def _write_crawl(folder: Path, pictures: list[_Picture], noise_images: int, *, seed: int, base_url: str) -> dict[str, CrawlTruth]:
    rng = _rng(seed, _TEXTS)
    mentions = [mention for picture in pictures for mention in _mentions(picture.path, picture.subject, rng)]
    mentions += [mentions[i] for i in rng.choice(len(mentions), size=max(1, int(len(mentions) * REPEAT_SHARE)), replace=False)]
    mentions += noise_mentions(max(4, int(len(mentions) * NOISE_SHARE)), noise_images, _rng(seed, _NOISE))
    pages = lay_out([mentions[i] for i in rng.permutation(len(mentions))], base_url=base_url, rng=_rng(seed, _PAGES))
    truth = {}
    files = WARC_FILES + WAT_FILES
    for i in range(files):
        is_warc = i < WARC_FILES
        name = f"crawl-{i:05d}.warc.gz" if is_warc else f"crawl-{i:05d}.warc.wat.gz"
        truth[name] = (write_warc if is_warc else write_wat)(folder / name, pages[i::files])
    return truth


def _write_test_set(folder: Path, per_class: int) -> None:
    for class_index in range(len(CLASSES)):
        for n in range(per_class):
            rng = _rng(TEST_SEED, class_index, n)
            _write(folder / str(class_index) / f"{n}.jpg", draw_picture(draw_subject(rng, class_index), rng))
    shares, ranks = class_shares().tolist(), class_ranks().tolist()
    classes = [
        {
            "index": i,
            "colour": colour,
            "shape": shape,
            "rank": ranks[i],
            "share": shares[i],
            "entries": {language.code: list(language.names(colour, shape)) for language in LANGUAGES},
        }
        for i, (colour, shape) in enumerate(CLASSES)
    ]
    texts = {language.code: [prompts(language, colour, shape) for colour, shape in CLASSES] for language in LANGUAGES}
    for name, value in (("classes.json", classes), ("prompts.json", texts)):
        (folder / name).write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8", newline="\n")


def generate(root: Path, *, seed: int = 1, pages: int, images: int, base_url: str, test_images: int = 8) -> World:
    """Write a world into ``root``, which must be empty or absent.

    ``pages``: articles per Wikipedia; ``images``: pictures in the web (at least twice the number of odd ones);
    ``test_images``: test pictures per class. The same arguments give the same bytes. Class frequencies and the test set do not
    depend on ``seed``.

    Layout: ``dumps/``, ``pageviews/``, ``crawl/``, ``images/`` (what a server under ``base_url`` serves), ``nltk_data/corpora/*.zip``,
    and ``test/`` with ``<class>/<n>.jpg``, ``classes.json`` (a list by class index: colour, shape, rank, share of the pictures, and per
    language the entries that name the class) and ``prompts.json`` (per language a list of prompts per class).

    Raises:
        ValueError: too few pages or images, or a base URL that does not begin with ``http://`` or ends with a slash.
        FileExistsError: ``root`` holds something.
    """
    if pages < 1 or images < 2 * len(server.ODD_PATHS):
        raise ValueError(f"a world needs a page and {2 * len(server.ODD_PATHS)} images")
    if not base_url.startswith("http://") or base_url.endswith("/"):
        raise ValueError(f"the base URL must be http:// without a slash at its end, not {base_url!r}")
    if root.exists() and any(root.iterdir()):
        raise FileExistsError(f"{root} is not empty")
    folders = {name: root / name for name in ("dumps", "pageviews", "crawl", "images", "nltk_data", "test")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    corpora = folders["nltk_data"] / "corpora"
    corpora.mkdir()
    write_wordnets(corpora)
    pictures = _pictures(seed, images)
    noise_images = max(4, images // 50)
    _write_pictures(folders["images"], pictures, noise_images, seed)
    _write_test_set(folders["test"], test_images)
    return World(
        root=root,
        **folders,
        base_url=base_url,
        languages=tuple(language.code for language in LANGUAGES),
        dump_truth={
            language.code: write_dump(folders["dumps"], language, pages, _rng(seed, _DUMPS, i)) for i, language in enumerate(LANGUAGES)
        },
        pageview_truth=write_pageviews(folders["pageviews"], LANGUAGES, pages + len(CLASSES), _rng(seed, _VIEWS)),
        crawl_truth=_write_crawl(folders["crawl"], pictures, noise_images, seed=seed, base_url=base_url),
        lemmas={language.code: lemmas_of(language) for language in LANGUAGES},
        class_of_url={base_url + picture.path: picture.class_index for picture in pictures},
        dead=tuple(base_url + picture.path for picture in pictures if picture.dead),
        odd=tuple(base_url + path for path in server.ODD_PATHS),
    )
