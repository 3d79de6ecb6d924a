"""n-grams of a large language: 200 million tokens with 100 million distinct bigrams, of the order that the whole of English has.

Run as a program it is the process of its own that counts and merges: ``DUMPS OUTPUT``.
"""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines import ngrams
from pipelines.part import read_parts
from pipelines.stage import Stage, Unit, open_stage
from tests.benchmarks.material import Material
from tests.benchmarks.measure import Row, long_benchmark, row
from tests.benchmarks.replicated import peak_memory

#: Tokens for each pair that the other benchmarks have.
_TOKENS = 200
_TOKENS_PER_PAGE = 500
_TOKENS_PER_DUMP = 10_000_000
_TOKENS_AT_A_TIME = 1_000_000
_SYLLABLES = pa.array([a + b for a in "bdfgklmnprstv" for b in "aeiou"])


@dataclass(frozen=True)
class Corpus:
    """So many tokens, each drawn alone: the word of rank r has odds of 1 / (r + 3), and there are a fortieth as many words as tokens."""

    tokens: int
    rng: np.random.Generator

    @cached_property
    def _words(self) -> pa.Array:
        """The words by rank, a space behind each: those of one syllable, of two and so on. The third is a full stop and a line break."""
        levels, missing = [_SYLLABLES], self.tokens // 40 - len(_SYLLABLES)
        while missing > 0:
            heads = np.repeat(np.arange(len(levels[-1])), len(_SYLLABLES))[:missing]
            tails = np.tile(np.arange(len(_SYLLABLES)), len(levels[-1]))[:missing]
            levels.append(pc.binary_join_element_wise(levels[-1].take(pa.array(heads)), _SYLLABLES.take(pa.array(tails)), ""))
            missing -= len(levels[-1])
        words = pc.binary_join_element_wise(pa.concat_arrays(levels), "", " ")
        return pa.concat_arrays([words.slice(0, 2), pa.array([".\n"]), words.slice(3)])

    def _pages(self, tokens: int) -> Iterator[bytes]:
        words = self._words
        for first in range(0, tokens, _TOKENS_AT_A_TIME):
            count = min(_TOKENS_AT_A_TIME, tokens - first)
            ranks = 3.0 * np.exp(self.rng.random(count) * np.log(len(words) / 3.0)) - 3.0
            text = words.take(pa.array(np.minimum(ranks.astype(np.int64), len(words) - 1)))
            ends = np.frombuffer(text.buffers()[1], np.int32)[: count + 1]
            data = memoryview(text.buffers()[2])
            for start, end in pairwise([*range(0, count, _TOKENS_PER_PAGE), count]):
                yield bytes(data[ends[start] : ends[end]])

    def write(self, folder: Path) -> int:
        """Write the corpus as dumps; the bytes of its text. In gzip, since bzip2 would take longer than all that is measured."""
        folder.mkdir()
        size = number = 0
        for first in range(0, self.tokens, _TOKENS_PER_DUMP):
            with gzip.open(folder / f"enwiki-20260901-part{first // _TOKENS_PER_DUMP:03}.xml.gz", "wb", compresslevel=1) as file:
                file.write(b"<mediawiki><siteinfo><dbname>enwiki</dbname></siteinfo>\n")
                for text in self._pages(min(_TOKENS_PER_DUMP, self.tokens - first)):
                    size, number = size + len(text), number + 1
                    about = b"<title>T%d</title><ns>0</ns><id>%d</id>" % (number, number)
                    file.write(b"<page>%b<revision><text>%b</text></revision></page>\n" % (about, text))
                file.write(b"</mediawiki>\n")
        return size


def naive_ngrams(folder: Path) -> Counter[tuple[str, ...]]:
    """ElementTree, split and a Counter: what all of it would take tens of gigabytes for."""
    grams: Counter[tuple[str, ...]] = Counter()
    for path in sorted(folder.iterdir()):
        with gzip.open(path) as file:
            for _, element in ElementTree.iterparse(file):
                if element.tag == "text":
                    # A line without a letter is no text.
                    for line in filter(re.compile(r"\w").search, (element.text or "").split("\n")):
                        tokens = line.replace(".", " .").split()
                        grams.update((token,) for token in tokens)
                        grams.update((a, b) for a, b in pairwise(tokens) if "." not in (a, b))
                    element.clear()
    return grams


def _in_a_process(dumps: Path, output: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.benchmarks.ngrams_scale", str(dumps), output]
    return dict(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))


@long_benchmark
def ngrams_scale(material: Material) -> Iterator[Row]:
    """Dumps → n-grams, the job as it runs with one worker, and its peak memory: both must not depend on how much there is. Some ten minutes
    on a core of its own."""
    tokens = _TOKENS * material.size.pairs
    folders = {n: material.folder / f"zipf-{n}" for n in (tokens // 200, tokens // 10, tokens)}
    sizes = {n: Corpus(n, material.rng(7)).write(folder) for n, folder in folders.items()}
    small, tenth, whole = folders
    output = material.output()
    _in_a_process(folders[small], output)
    expected = naive_ngrams(folders[small])
    found = {tuple(gram.split(" ")): n for t in read_parts(open_stage(output, "ngrams")) for gram, n in zip(*_columns(t), strict=True)}
    if found != {gram: n for gram, n in expected.items() if len(gram) == 1 or n >= ngrams.min_bigram_count(small)}:
        raise AssertionError("the job and the naive way count differently")
    part, all_of_it = (_in_a_process(folders[n], material.output()) for n in (tenth, whole))
    about = (
        f"{all_of_it['tokens']:,} tokens, {sizes[whole] / 1e6:,.0f} MB of text, {all_of_it['unigrams']:,} distinct words, "
        f"{all_of_it['bigrams']:,} distinct bigrams"
    )
    yield row(
        "ngrams_scale",
        all_of_it["tokens"] / all_of_it["seconds"],
        "tokens/s",
        part["tokens"] / part["seconds"],
        input=f"{about}; CPU: {all_of_it['counting']:.0f} s to count, {all_of_it['seconds'] - all_of_it['counting']:.0f} s to merge; "
        "baseline: the same job over a tenth as many",
        command="ngrams_scale",
    )
    yield row(
        "ngrams_scale_memory",
        all_of_it["peak"] / 1e6,
        "MB",
        part["peak"] / 1e6,
        input=f"{about}; baseline: peak memory of the same job over a tenth as many",
        command="ngrams_scale",
        less_is_better=True,
    )


def _columns(table: pa.Table) -> tuple[list[str], list[int]]:
    return table["gram"].to_pylist(), table["count"].to_pylist()


def main() -> None:
    """Run the job on a folder of dumps, and say how long it took, how much memory, and how much there was to count."""
    dumps, output = sys.argv[1:]
    about: dict[str, float] = dict.fromkeys(("tokens", ngrams.UNIGRAMS, ngrams.BIGRAMS, "counting"), 0)
    merged_run, started = ngrams.merged_run, time.process_time()

    def counted(unit: Unit, blocks: Stage) -> Iterator[pa.Table]:
        about["counting"] = about["counting"] or time.process_time() - started
        for table in merged_run(unit, blocks):
            about[unit.group] += table.num_rows
            if unit.group == ngrams.UNIGRAMS:
                about["tokens"] += pc.sum(table["count"]).as_py()
            yield table

    ngrams.merged_run = counted
    ngrams.main(ngrams.NgramsConfig(input=(dumps,), output=output), [])
    print(json.dumps({**about, "seconds": time.process_time() - started, "peak": peak_memory()}))


if __name__ == "__main__":
    main()
