"""The naive way from a crawl file to matched pairs: what one writes first, with the same result."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import ahocorasick
import fasttext
import pyarrow as pa
import pyarrow.parquet as pq
from selectolax.lexbor import LexborHTMLParser
from warcio.archiveiterator import ArchiveIterator
from warcio.exceptions import ArchiveLoadFailed

from balancing.lid import embedded_model
from metadata.languages import language_of_label
from metadata.text import pattern_of_entry, rule_set

RULES = rule_set("default")
_ATTRIBUTES = ("alt", "title", "data-image-title")

#: image id, URL, text.
Pair = tuple[str, str, str]


def automaton(entries: Sequence[str]) -> ahocorasick.Automaton:
    """With values of (id, entry), as the published code stores them."""
    built = ahocorasick.Automaton()
    for index, entry in enumerate(entries):
        built.add_word(pattern_of_entry(entry, RULES), (index, entry))
    built.make_automaton()
    return built


def find(built: ahocorasick.Automaton, text: str) -> list[int]:
    """Ids of the entries in a text."""
    for mark in ",.;:?!`":
        text = text.replace(mark, f" {mark} ")
    return sorted({index for _, (index, _) in built.iter(f" {text} ")})


def wat_pairs(path: Path) -> Iterator[Pair]:
    """Standard library only: gzip, and all of every record's JSON."""
    with gzip.open(path) as file:
        while line := file.readline():
            if not line.startswith(b"WARC/"):
                continue
            headers: dict[bytes, bytes] = {}
            while (line := file.readline().strip()) != b"":
                name, _, value = line.partition(b": ")
                headers[name.lower()] = value
            body = file.read(int(headers[b"content-length"]))
            if headers[b"content-type"] != b"application/json":
                continue
            envelope = json.loads(body)["Envelope"]
            html = envelope["Payload-Metadata"].get("HTTP-Response-Metadata", {}).get("HTML-Metadata", {})
            page = urljoin(envelope["WARC-Header-Metadata"]["WARC-Target-URI"], html.get("Head", {}).get("Base", ""))
            for link in html.get("Links", ()):
                if link["path"].startswith("IMG@/src") and "url" in link:
                    yield from _pairs(urljoin(page, link["url"]), [link.get(attribute) for attribute in _ATTRIBUTES])


def warc_pairs(path: Path) -> Iterator[Pair]:
    """warcio and selectolax."""
    with path.open("rb") as file:
        try:
            for record in ArchiveIterator(file):
                http = record.http_headers
                if record.rec_type == "response" and http and "html" in http.get_header("Content-Type", ""):
                    yield from _page_pairs(record.rec_headers.get_header("WARC-Target-URI"), record.content_stream().read())
        except (ArchiveLoadFailed, EOFError, OSError, ValueError):
            return  # cut off or odd: what came before counts


def _page_pairs(url: str, page: bytes) -> Iterator[Pair]:
    tree = LexborHTMLParser(page)
    base = tree.css_first("base[href]")
    if base is not None:
        url = urljoin(url, base.attributes["href"] or "")
    for image in tree.css("img[src]"):
        attributes = image.attributes
        yield from _pairs(urljoin(url, attributes["src"] or ""), [attributes.get(name) for name in _ATTRIBUTES])


def _pairs(url: str, texts: Iterable[str | None]) -> Iterator[Pair]:
    if not url.startswith("http"):
        return
    image_id = hashlib.sha224(url.replace("\t", "").replace(" ", "").encode()).hexdigest()[:24]
    for text in texts:
        if text:
            text = text.replace("\t", " ").replace("\n", " ").replace("\r", " ").strip()
            if text:
                yield image_id, url, text


class NaiveMatch:
    """Language identification and matching, one text at a time, over lists of entries by language."""

    def __init__(self, lists: Mapping[str, Sequence[str]]) -> None:
        self._automata = {lang: automaton(entries) for lang, entries in lists.items()}
        self._model = fasttext.load_model(str(embedded_model()))

    def run(self, pairs: Iterable[Pair]) -> list[dict[str, Any]]:
        """The pairs that match, as they come."""
        rows = []
        for image_id, url, text in pairs:
            (label,), (score,) = self._model.predict(text)
            lang = language_of_label("lid.176", label.removeprefix("__label__")) if score >= 0.2 else "other"
            if lang not in self._automata:
                continue
            ids = find(self._automata[lang], text)
            if ids:
                rows.append({"image_id": image_id, "url": url, "text": text, "lang": lang, "entries": ids})
        return rows

    def job(self, pairs: Iterable[Pair], output: Path) -> list[dict[str, Any]]:
        """The same, written as Parquet."""
        rows = self.run(pairs)
        pq.write_table(pa.Table.from_pylist(rows), output, compression="zstd")
        return rows
