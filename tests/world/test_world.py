"""A generated world is the same for the same seed, and each file in it is what independent readers expect."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import nltk
import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType
from nltk.corpus.reader.api import CorpusReader
from nltk.corpus.reader.wordnet import WordNetCorpusReader
from PIL import Image, UnidentifiedImageError
from selectolax.lexbor import LexborHTMLParser

from tests.world import server
from tests.world.dumps import HIDDEN_WORDS
from tests.world.generate import World, generate
from tests.world.pages import SOURCES
from tests.world.subjects import CLASSES
from tests.world.vocabulary import BY_CODE, LANGUAGES

BASE_URL = "http://127.0.0.1:8123"
PAGES, IMAGES = 24, 150


def make(root: Path, *, seed: int = 1, images: int = IMAGES) -> World:
    return generate(root, seed=seed, pages=PAGES, images=images, base_url=BASE_URL, test_images=1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make(tmp_path_factory.mktemp("world"))


def hashes(root: Path, *folders: str) -> dict[str, str]:
    files = sorted(path for folder in folders or (".",) for path in (root / folder).rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_seed_same_bytes(world: World, tmp_path: Path) -> None:
    again = make(tmp_path / "again")
    assert hashes(again.root) == hashes(world.root)
    assert again.crawl_truth == world.crawl_truth
    assert again.dump_truth == world.dump_truth
    assert again.pageview_truth == world.pageview_truth


def test_another_seed_changes_all_but_test_set_and_wordnets(world: World, tmp_path: Path) -> None:
    other = make(tmp_path / "other", seed=2)
    for folder in ("test", "nltk_data"):
        assert hashes(other.root, folder) == hashes(world.root, folder)
    before, after = hashes(world.root), hashes(other.root)
    same = {name.split("/")[0] for name in before.keys() & after.keys() if before[name] == after[name]}
    assert same == {"test", "nltk_data"}


def test_refuses_what_it_cannot_make(world: World, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="not empty"):
        make(world.root)
    with pytest.raises(ValueError, match="14 images"):
        make(tmp_path, images=13)
    with pytest.raises(ValueError, match="base URL"):
        generate(tmp_path, pages=1, images=20, base_url="http://127.0.0.1:1/")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_dump_is_whole_and_its_index_points_at_streams(world: World, code: str) -> None:
    name = f"{code}wiki-20260901-pages-articles-multistream"
    data = (world.dumps / f"{name}.xml.bz2").read_bytes()
    root = ET.fromstring(bz2.decompress(data))
    space = {"m": root.tag[1:].split("}")[0]}
    assert root.findtext("m:siteinfo/m:dbname", namespaces=space) == f"{code}wiki"
    kinds: Counter[str] = Counter()
    for page in root.iterfind("m:page", space):
        text = page.findtext("m:revision/m:text", namespaces=space)
        redirect = page.find("m:redirect", space) is not None
        namespace = page.findtext("m:ns", namespaces=space)
        kinds["redirects" if redirect else "other_namespaces" if namespace != "0" else "articles" if text else "empty"] += 1
        element = page.find("m:revision/m:text", space)
        assert element is not None
        assert int(element.get("bytes", "")) == len((text or "").encode())
    truth = world.dump_truth[code]
    assert kinds == Counter(vars(truth))
    assert truth.articles == PAGES
    assert truth.pages == kinds.total()
    in_dump = [(p.findtext("m:id", namespaces=space), p.findtext("m:title", namespaces=space)) for p in root.iterfind("m:page", space)]
    assert len({title for _, title in in_dump}) == len(in_dump)

    index = [line.split(":", 2) for line in bz2.decompress((world.dumps / f"{name}-index.txt.bz2").read_bytes()).decode().splitlines()]
    in_streams = []
    offsets = sorted({int(offset) for offset, _, _ in index})
    for offset in offsets:
        stream = bz2.BZ2Decompressor().decompress(data[offset:])
        pages = ET.fromstring(b"<pages>" + stream + b"</pages>")
        assert len(pages) <= 10
        in_streams += [(str(offset), page.findtext("id"), page.findtext("title")) for page in pages]
    assert [(id_, title) for _, id_, title in in_streams] == in_dump
    assert [(offset, id_, title.replace("&amp;", "&")) for offset, id_, title in index] == in_streams
    assert any("&amp;" in title for _, _, title in index)


def test_hidden_words_stand_in_every_dump(world: World) -> None:
    for dump in sorted(world.dumps.glob("*stream.xml.bz2")):
        text = bz2.decompress(dump.read_bytes()).decode().lower()
        assert all(word in text for word in HIDDEN_WORDS)


def test_pageviews_add_up(world: World) -> None:
    files = sorted(world.pageviews.iterdir())
    assert [path.name for path in files] == [f"pageviews-20260901-0{hour}0000.gz" for hour in range(3)]
    lines = [line for path in files for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
    views: dict[str, Counter[str]] = {code: Counter() for code in BY_CODE}
    dropped: Counter[str] = Counter()
    dead: Counter[str] = Counter()
    for line in lines:
        match line.split(" "):
            case [domain, title, count, _] if count.isdigit():
                code = domain.removesuffix(".m")
                if code not in BY_CODE:
                    dropped["other_project"] += 1
                elif ":" in title:
                    dropped["title_with_colon"] += 1
                elif count == "0":
                    dropped["zero_views"] += 1
                else:
                    views[code][title.replace("_", " ")] += int(count)
            case [_, _, _, _]:
                dead["views_not_a_number"] += 1
            case _:
                dead["not_four_fields"] += 1
    truth = world.pageview_truth
    assert truth.lines == len(lines)
    assert dropped == truth.dropped
    assert dead == truth.dead_letters
    assert views == truth.views


#: Records, pairs (url, page URL, text, source), and dropped candidates of a crawl file.
Reading = tuple[int, list[tuple[str, str, str, str]], Counter[str]]


def judge(src: str | None, texts: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """(reason to drop or "", source, text) of each candidate of one image."""
    for source, text in texts.items():
        reason = "no_url" if not src else "data_url" if src.startswith("data:") else "" if text.strip() else "empty_text"
        yield reason, source, text.replace("\n", " ")
    if not texts:
        yield "no_text", "", ""


def read_warc(path: Path) -> Reading:
    records, pairs, dropped = 0, [], Counter[str]()
    with path.open("rb") as file:
        for record in ArchiveIterator(file, verify_digests=False):
            records += 1
            if record.record_type != WarcRecordType.response or "text/html" not in (record.http_content_type or ""):
                continue
            body = record.reader.read()
            encoding = record.http_charset or body.partition(b'<meta charset="')[2].partition(b'"')[0].decode()
            tree = LexborHTMLParser(body.decode(encoding))
            page_url = record.headers["WARC-Target-URI"]
            base = tree.css_first("base")
            root = page_url if base is None else base.attributes["href"] or ""
            for image in tree.css("img"):
                src = image.attributes.get("src")
                for reason, source, text in judge(src, {k: v or "" for k, v in image.attributes.items() if k in SOURCES}):
                    if reason:
                        dropped[reason] += 1
                    else:
                        pairs.append((urljoin(root, src or ""), page_url, text, source))
    return records, pairs, dropped


def read_wat(path: Path) -> Reading:
    records, pairs, dropped = 0, [], Counter[str]()
    with path.open("rb") as file:
        for record in ArchiveIterator(file):
            records += 1
            if record.record_type == WarcRecordType.warcinfo:
                continue
            envelope = json.loads(record.reader.read())["Envelope"]
            page_url = envelope["WARC-Header-Metadata"]["WARC-Target-URI"]
            html = envelope["Payload-Metadata"].get("HTTP-Response-Metadata", {}).get("HTML-Metadata", {})
            base = html.get("Head", {}).get("Base", page_url)
            for link in html.get("Links", []):
                if link["path"] != "IMG@/src":
                    continue
                for reason, source, text in judge(link.get("url"), {k: v for k, v in link.items() if k in SOURCES}):
                    if reason:
                        dropped[reason] += 1
                    else:
                        pairs.append((urljoin(base, link["url"]), page_url, text, source))
    return records, pairs, dropped


def test_crawl_files_hold_the_pairs_that_the_truth_lists(world: World) -> None:
    assert sorted(world.crawl_truth) == sorted(path.name for path in world.crawl.iterdir())
    for name, truth in world.crawl_truth.items():
        records, pairs, dropped = (read_wat if ".wat." in name else read_warc)(world.crawl / name)
        assert records == truth.records
        assert dropped == truth.dropped
        assert pairs == [(pair.url, pair.page_url, pair.text, pair.source) for pair in truth.pairs]


def test_every_record_is_a_gzip_member_of_its_own(world: World) -> None:
    for name, truth in world.crawl_truth.items():
        with (world.crawl / name).open("rb") as file:
            offsets = [record.stream_pos for record in ArchiveIterator(file)]
        data = (world.crawl / name).read_bytes()
        assert len(set(offsets)) == truth.records
        assert all(data[offset : offset + 2] == b"\x1f\x8b" for offset in offsets)


def test_crawl_has_the_variety_that_the_chain_is_tested_with(world: World) -> None:
    pairs = [(name, pair) for name, truth in world.crawl_truth.items() for pair in truth.pairs]
    assert {pair.lang for _, pair in pairs} == {*BY_CODE, ""}
    assert {pair.source for _, pair in pairs} == set(SOURCES)
    files_of: dict[tuple[str, str], set[str]] = {}
    languages_of: dict[str, set[str]] = {}
    for name, pair in pairs:
        files_of.setdefault((pair.url, pair.text), set()).add(name)
        languages_of.setdefault(pair.url, set()).add(pair.lang)
    assert any(len(files) > 1 for files in files_of.values()), "no pair stands in two files"
    assert any(len(languages) > 2 for languages in languages_of.values()), "no image has texts in three languages"
    assert set(world.odd) <= set(languages_of)
    warcs = b"".join(gzip.decompress(path.read_bytes()) for path in world.crawl.glob("*.warc.gz"))
    for part in (
        b"charset=shift_jis",
        b"charset=windows-1252",
        b"charset=windows-1256",
        b'charset="shift_jis',
        b"<base href",
        b'src="//127',
        b'src="/p',
    ):
        assert part in warcs
    assert {reason for truth in world.crawl_truth.values() for reason in truth.dropped} == {"no_text", "empty_text", "data_url", "no_url"}


def test_pictures_are_there_unless_their_links_are_dead(world: World) -> None:
    for url in world.class_of_url:
        path = world.images / url.removeprefix(f"{BASE_URL}/")
        if url in world.odd:
            continue
        assert path.is_file() == (url not in world.dead)
        if path.is_file():
            with Image.open(path) as image:
                assert (image.format, image.size, image.mode) == ("JPEG", (64, 64), "RGB")
    with pytest.raises((OSError, UnidentifiedImageError)):
        Image.open(io.BytesIO((world.images / server.CUT_OFF[1:]).read_bytes())).load()
    assert set(world.dead) - set(world.odd)


def test_test_set(world: World) -> None:
    assert sorted(int(path.name) for path in world.test.iterdir() if path.is_dir()) == list(range(len(CLASSES)))
    classes = json.loads((world.test / "classes.json").read_text(encoding="utf-8"))
    prompts = json.loads((world.test / "prompts.json").read_text(encoding="utf-8"))
    assert [(c["colour"], c["shape"]) for c in classes] == list(CLASSES)
    assert set(prompts) == set(world.languages)
    assert {len(texts) for texts in prompts.values()} == {len(CLASSES)}
    shown = {hashlib.sha256(path.read_bytes()).hexdigest() for path in world.images.rglob("*.jpg")}
    assert not shown & {hashlib.sha256(path.read_bytes()).hexdigest() for path in world.test.rglob("*.jpg")}


def test_nltk_reads_the_wordnets(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # The reader looks for index.sense of "wordnet" on nltk's own path, wherever it was opened itself.
    monkeypatch.setattr(nltk.data, "path", [str(world.nltk_data)])
    tables = CorpusReader(nltk.data.find("corpora/omw-1.4.zip/omw-1.4/"), r".*/wn-data-[a-z]{3}\.tab")
    reader = WordNetCorpusReader(nltk.data.find("corpora/wordnet.zip/wordnet/"), tables)
    assert reader.get_version() == "3.0"
    synsets = sorted(synset.name() for synset in reader.all_synsets())
    assert len(synsets) == 1 + 10 + 8 + 8 + len(CLASSES) + 8 + 2
    assert "red_star.n.01" in synsets
    star = reader.synset("red_star.n.01")
    assert [hypernym.name() for hypernym in star.hypernyms()] == ["star.n.01"]
    assert star in reader.synset("star.n.01").hyponyms()
    assert reader.synset("draw.v.01").lemma_names() == ["draw", "paint"]
    assert reader.morphy("leaves") == "leaf"
    for language in LANGUAGES:
        if language.wordnet == "eng":
            assert sorted(reader.all_lemma_names()) == sorted(lemma.replace(" ", "_").lower() for lemma in world.lemmas["en"])
        elif language.wordnet:
            names = [name.replace("_", " ") for name in reader.all_lemma_names(lang=language.wordnet)]
            assert sorted(set(names)) == sorted({lemma.lower() for lemma in world.lemmas[language.code]})
            assert set(star.lemma_names(language.wordnet)) == {n.replace(" ", "_") for n in language.names("red", "star")}
        else:
            assert world.lemmas[language.code] == ()
    assert sorted(tables.fileids()) == ["arb/wn-data-arb.tab", "fra/wn-data-fra.tab", "jpn/wn-data-jpn.tab"]
