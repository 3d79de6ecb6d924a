"""What the benchmarks are run on: real texts where they are at hand, else generated ones. Everything is made once and seeded."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from metadata.ngrams import merge_blocks
from metadata.tally import Tally
from metadata.wordnet import english_lemma_names
from pipelines.entries import EntriesConfig
from pipelines.entries import main as make_entries
from pipelines.ngrams import blocks_of_dump
from tests.world.crawl import write_warc
from tests.world.dumps import write_dump
from tests.world.pages import Mention, lay_out
from tests.world.subjects import CLASSES, draw_subject
from tests.world.vocabulary import BY_CODE, LANGUAGES

_ROOT = Path(__file__).resolve().parent.parent.parent
#: Languages that have entries beside English, where there are dumps of them.
_OTHER_LANGUAGES = ("cs", "de", "es", "fr", "it", "ja", "nl", "pl", "pt", "ru")
_EXTENSION = "xml.bz2"


def real_data() -> Path | None:
    """Real dumps, pages and captions, which are not part of the repository: WORLDCLIP_TEST_DATA or ../shared/data."""
    path = Path(os.environ.get("WORLDCLIP_TEST_DATA") or _ROOT.parent / "shared" / "data")
    return path if path.is_dir() else None


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of everything. ``pages`` of a WAT file, ``copies`` of the crawl files, ``pairs`` of a matched part, lines of page views."""

    entries: int = 500_000
    texts: int = 60_000
    pages: int = 10_000
    copies: int = 20
    articles: int = 2_000
    pairs: int = 1_000_000
    view_lines: int = 1_500_000


class Material:
    """The inputs, made when a benchmark first asks for them, under ``folder``; ``data`` is real material, or None."""

    def __init__(self, folder: Path, *, size: Size, data: Path | None) -> None:
        self.folder, self.size, self.data = folder, size, data
        folder.mkdir(parents=True, exist_ok=True)
        self._outputs = itertools.count()

    def output(self) -> str:
        """A directory that does not exist yet."""
        return str(self.folder / f"output-{next(self._outputs)}")

    def rng(self, salt: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([20_260_901, salt]))

    # -- entries -----------------------------------------------------------------------------------------------------------------

    def _grams(self, lang: str) -> list[str]:
        """Unigrams and bigrams of a language's dumps, the most frequent first, unigrams before bigrams."""
        assert self.data is not None
        dumps = [p for p in sorted((self.data / "dumps").glob(f"{lang}wiki-*.{_EXTENSION}")) if "truncated" not in p.name]
        blocks: list[pa.Table] = []
        for path in dumps:
            with path.open("rb") as file:
                blocks += blocks_of_dump(file, lang, tally=Tally())
        grams: list[str] = []
        merged = merge_blocks(blocks)
        for n in (1, 2):
            mine = merged.filter(pc.equal(merged["n"], n)).sort_by([("count", "descending"), ("gram", "ascending")])
            grams += mine["gram"].to_pylist()
        joiner = "" if lang == "ja" else " "
        return [gram.replace("\x1f", joiner) for gram in grams]

    def _world_words(self, lang: str) -> list[str]:
        language = BY_CODE[lang]
        names = [name for pair in CLASSES for name in language.names(*pair)]
        texts = [language.caption(draw_subject(self.rng(1), i), j) for i in range(len(CLASSES)) for j in range(len(language.captions))]
        return list(dict.fromkeys([*language.shapes.values(), *language.colours.values(), *names, *" ".join(texts).split()]))

    @cached_property
    def english(self) -> list[str]:
        """So many English entries: lemmas of WordNet, unigrams and bigrams of the dumps at hand, and pairs of their words to fill up."""
        if self.data is None:
            entries = self._world_words("en")
        else:
            with (self.data / "nltk_data" / "corpora" / "wordnet.zip").open("rb") as archive:
                lemmas = english_lemma_names(archive, lang="en", tally=Tally())["lemma"].to_pylist()
            entries = [*lemmas, *self._grams("en")]
        found = dict.fromkeys(entry for entry in entries if entry.strip() == entry and entry)
        words = [entry for entry in found if " " not in entry]
        rng = self.rng(2)
        while len(found) < self.size.entries:
            left, right = rng.integers(len(words), size=(2, self.size.entries))
            number = rng.integers(1_000, size=self.size.entries)
            found.update(
                dict.fromkeys(f"{words[a]} {words[b]} {n}" for a, b, n in zip(left.tolist(), right.tolist(), number.tolist(), strict=True))
            )
        return list(found)[: self.size.entries]

    @cached_property
    def lists(self) -> dict[str, list[str]]:
        """Entries per language."""
        others = [language.code for language in LANGUAGES if language.code in ("de", "fr", "ja")] if self.data is None else _OTHER_LANGUAGES
        words = self._world_words if self.data is None else self._grams
        lists = {lang: list(dict.fromkeys(word.strip() for word in words(lang) if word.strip())) for lang in others}
        return {"en": self.english, **lists}

    @cached_property
    def entries(self) -> str:
        """The stage ``entries`` of these lists."""
        files = []
        for lang, entries in self.lists.items():
            path = self.folder / f"{lang}.json"
            path.write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8")
            files.append(f"{lang}={path}")
        output = self.output()
        make_entries(EntriesConfig(metadata_json=tuple(files), output=output), [])
        return output

    # -- texts -------------------------------------------------------------------------------------------------------------------

    @cached_property
    def texts(self) -> list[str]:
        """Distinct captions, as many as the size says or as there are."""
        if self.data is None:
            return list(itertools.islice(self._world_captions(), self.size.texts))
        captions = [self._caption_lines(f"multi30k-train.{lang}.gz") for lang in ("en", "de", "fr", "cs")]
        mixed = [text.strip() for group in zip(*captions, strict=True) for text in group]
        return list(dict.fromkeys(text for text in [*self.alternative_texts, *mixed] if text))[: self.size.texts]

    @cached_property
    def alternative_texts(self) -> list[str]:
        """Alternative texts of pages in order, repeats included."""
        if self.data is None:
            return self.texts[: len(self.texts) // 4]
        return [text.strip() for text in self._caption_lines("crawl-alts.txt.gz") if text.strip()]

    @cached_property
    def english_texts(self) -> list[str]:
        """Distinct English captions."""
        if self.data is None:
            return list(itertools.islice((f"{text} {i}" for i, text in enumerate(self._world_captions(("en",)))), self.size.texts))
        return list(dict.fromkeys(text.strip() for text in self._caption_lines("multi30k-train.en.gz")))[: self.size.texts]

    @cached_property
    def web_texts(self) -> list[str]:
        """What pages of the web say of their images."""
        if self.data is None:
            return self.english_texts
        return [text.strip() for text in self._caption_lines("crawl-alts.txt.gz") if text.strip()]

    def _caption_lines(self, name: str) -> list[str]:
        assert self.data is not None
        return gzip.decompress((self.data / "captions" / name).read_bytes()).decode().split("\n")

    def _world_captions(self, codes: tuple[str, ...] = ("en", "de", "fr", "ja")) -> Iterator[str]:
        rng = self.rng(3)
        for serial in itertools.count():
            language = BY_CODE[codes[serial % len(codes)]]
            yield f"{language.caption(draw_subject(rng, int(rng.integers(len(CLASSES)))), serial)} {serial}"

    # -- crawl files -------------------------------------------------------------------------------------------------------------

    def wat(self, mix: str, *, pages: int, seed: int = 1) -> Path:
        """A WAT file. Of ``natural`` texts about half repeat, ``distinct`` ones occur once."""
        path = self.folder / f"{mix}-{pages}-{seed}.warc.wat.gz"
        tool = self.data.parent / "tools" / "gen_wat.py" if self.data else None
        if path.exists():
            return path
        if tool and tool.is_file():
            arguments = [str(path), "--pages", str(pages), "--mix", mix, "--seed", str(seed)]
            subprocess.run([sys.executable, str(tool), *arguments], check=True, stdout=subprocess.DEVNULL)
        else:
            self._write_wat(path, mix, pages, seed)
        return path

    def _write_wat(self, path: Path, mix: str, pages: int, seed: int) -> None:
        """As Common Crawl writes them: 20 KB of JSON a page, most of it links that are no images; 8 image texts."""
        rng = self.rng(100 + seed)
        texts = itertools.cycle(self.texts if mix == "distinct" else self.alternative_texts)
        with path.open("wb") as file:
            for number in range(pages):
                url = f"https://www.site{number % 997}.example/news/{number}.html"
                links = [
                    {"path": "A@/href", "url": f"/topic/{i}/read-on-about-this.html", "text": "Read on about this topic"}
                    for i in range(120)
                ]
                for i in range(8):
                    host = "" if i % 3 == 0 else f"https://images{number % 97}.example"
                    image = {"path": "IMG@/src", "url": f"{host}/pictures/{seed}-{number}-{i}.jpg?w=300", "alt": next(texts)}
                    links.insert(int(rng.integers(len(links))), image)
                links.append({"path": "IMG@/src", "url": "/static/logo.png"})
                head = {"Title": "News", "Metas": [{"name": f"m{i}", "content": "width=device-width, initial-scale=1"} for i in range(30)]}
                response = {"Response-Message": {"Status": "200"}, "HTML-Metadata": {"Head": head, "Links": links}}
                header = {"WARC-Type": "response", "WARC-Target-URI": url}
                payload = {"Actual-Content-Type": "application/http; msgtype=response", "HTTP-Response-Metadata": response}
                envelope = {"Format": "WARC", "WARC-Header-Metadata": header, "Payload-Metadata": payload}
                body = json.dumps({"Envelope": envelope}, ensure_ascii=False).encode()
                about = f"WARC/1.0\r\nWARC-Type: metadata\r\nWARC-Target-URI: {url}\r\nContent-Type: application/json\r\n"
                record = f"{about}Content-Length: {len(body)}\r\n\r\n".encode() + body + b"\r\n\r\n"
                file.write(gzip.compress(record, 6, mtime=0))

    @cached_property
    def warcs(self) -> list[Path]:
        """WARC files of pages in many languages."""
        if self.data is not None:
            return sorted(p for p in (self.data / "crawl").glob("*.gz") if not p.name.endswith((".wat.gz", ".wet.gz")))
        mentions = [
            Mention(path=f"/{i}.jpg", texts=(("alt", text),), language=BY_CODE["en"], lang="en")
            for i, text in enumerate(self.texts[: self.size.pages])
        ]
        path = self.folder / "generated.warc.gz"
        write_warc(path, lay_out(mentions, base_url="http://pictures.example", rng=self.rng(4)))
        return [path]

    # -- Wikipedia ---------------------------------------------------------------------------------------------------------------

    @cached_property
    def dumps(self) -> list[Path]:
        """English dumps."""
        if self.data is not None:
            return sorted((self.data / "dumps").glob(f"enwiki-*.{_EXTENSION}"))
        write_dump(self.folder, BY_CODE["en"], self.size.articles, self.rng(5))
        return sorted(self.folder.glob(f"enwiki-*.{_EXTENSION}"))

    @cached_property
    def pageviews(self) -> tuple[Path, int]:
        """An hour of page views in the published format, and its size in bytes once decompressed."""
        rng, n = self.rng(6), self.size.view_lines
        titles = sorted(entry.replace(" ", "_") for entry in self.english if ":" not in entry and "%" not in entry)
        domains = ("commons.m", "de", "de.m", "en", "en.b", "en.m", "fr", "fr.m", "ja", "ja.m", "meta.m", "ru", "ru.m")
        lines: list[str] = []
        for domain in domains:
            chosen, views = np.sort(rng.integers(len(titles), size=n // len(domains))), rng.geometric(0.3, size=n // len(domains))
            lines += [f"{domain} {titles[i]} {v} 0\n" for i, v in zip(chosen.tolist(), views.tolist(), strict=True)]
        data = "".join(lines).encode()
        path = self.folder / "pageviews.gz"
        path.write_bytes(gzip.compress(data, 6, mtime=0))
        return path, len(data)
