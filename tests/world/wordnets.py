"""A tiny database in the format of WordNet 3.0, and tables in the format of the Open Multilingual Wordnet 1.4."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.world.subjects import CLASSES, COLOURS, SCENES, SHAPES
from tests.world.vocabulary import BY_CODE, LANGUAGES, Language

# nltk looks for "WordNet <version> Copyright" in data.adj.
_HEADER = "".join(
    f"  {i} {line}  \n"
    for i, line in enumerate(
        (
            "A made-up database for tests, laid out like",
            "WordNet 3.0 Copyright of its entries: the authors of worldclip,",
            "under the licence of this project.",
        ),
        start=1,
    )
)
# Lexicographer files with the number of their part of speech.
_LEXNAMES = (
    ("adj.all", 3),
    ("adv.all", 4),
    ("noun.Tops", 1),
    ("noun.artifact", 1),
    ("noun.attribute", 1),
    ("noun.object", 1),
    ("verb.creation", 2),
)
_NUMBER_OF_NAME = {name: i for i, (name, _) in enumerate(_LEXNAMES)}
_PART_OF_SPEECH = {"n": ("noun", 1), "v": ("verb", 2), "a": ("adj", 3), "r": ("adv", 4)}


@dataclass(frozen=True, kw_only=True)
class Synset:
    """One synset: its lemmas in English (the first names it) and per OMW code, and the place of its hypernym among the nouns (-1: none)."""

    pos: str
    lexname: str
    lemmas: tuple[str, ...]
    gloss: str
    hypernym: int = -1
    others: tuple[tuple[str, tuple[str, ...]], ...] = ()


def synsets() -> tuple[Synset, ...]:
    """All synsets of the world, nouns first: a root, shapes, colours, scenes, and every class."""
    tables = tuple(language for language in LANGUAGES if language.wordnet not in ("", "eng"))
    english = BY_CODE["en"]

    def others(words: Mapping[str, tuple[str, ...]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return tuple((language.wordnet, words[language.code]) for language in tables)

    def named(pos: str, lexname: str, key: str, table: str, hypernym: int = -1) -> Synset:
        words = {language.code: (getattr(language, table)[key],) for language in tables}
        lemma = getattr(english, table)[key]
        return Synset(pos=pos, lexname=lexname, lemmas=(lemma,), gloss=f"what is called {lemma}", hypernym=hypernym, others=others(words))

    out = [Synset(pos="n", lexname="noun.Tops", lemmas=("entity",), gloss="what there is")]
    out += [named("n", "noun.artifact", shape, "shapes", 0) for shape in SHAPES]
    out += [named("n", "noun.attribute", colour, "colours", 0) for colour in COLOURS]
    out += [named("n", "noun.object", scene, "scene_titles", 0) for scene in SCENES]
    for colour, shape in CLASSES:
        names = {language.code: language.names(colour, shape) for language in tables}
        lemmas = english.names(colour, shape)
        hypernym = 1 + SHAPES.index(shape)
        out.append(
            Synset(pos="n", lexname="noun.artifact", lemmas=lemmas, gloss=f"one that is {colour}", hypernym=hypernym, others=others(names))
        )
    out += [named("a", "adj.all", colour, "colours") for colour in COLOURS]
    out.append(Synset(pos="v", lexname="verb.creation", lemmas=("draw", "paint"), gloss="make a picture"))
    out.append(Synset(pos="r", lexname="adv.all", lemmas=("brightly",), gloss="in a bright way"))
    return tuple(out)


def _words(lemmas: tuple[str, ...]) -> list[str]:
    return [lemma.replace(" ", "_") for lemma in lemmas]


def _data_line(offset: int, synset: Synset, pointers: list[tuple[str, int]]) -> str:
    words = " ".join(f"{word} 0" for word in _words(synset.lemmas))
    points = "".join(f" {symbol} {target:08d} n 0000" for symbol, target in pointers)
    frames = " 01 + 02 00" if synset.pos == "v" else ""
    number = _NUMBER_OF_NAME[synset.lexname]
    return (
        f"{offset:08d} {number:02d} {synset.pos} {len(synset.lemmas):02x} {words} {len(pointers):03d}{points}{frames} | {synset.gloss}  \n"
    )


def _pointers(group: list[Synset], offsets: list[int]) -> list[list[tuple[str, int]]]:
    """Hypernym and hyponym pointers of each synset of one part of speech."""
    out: list[list[tuple[str, int]]] = [[] for _ in group]
    for i, synset in enumerate(group):
        if synset.hypernym >= 0:
            out[i].insert(0, ("@", offsets[synset.hypernym]))
            out[synset.hypernym].append(("~", offsets[i]))
    return out


def _database() -> tuple[dict[str, str], dict[str, list[int]]]:
    """The files of the English database by name, and the offsets of its synsets per part of speech, in their order."""
    files: dict[str, str] = {}
    all_offsets: dict[str, list[int]] = {}
    sense_lines = []
    for pos, (suffix, number) in _PART_OF_SPEECH.items():
        group = [synset for synset in synsets() if synset.pos == pos]
        # An offset is written with eight digits whatever it is, so lines have their lengths before the offsets are known.
        lengths = [len(_data_line(0, s, p).encode()) for s, p in zip(group, _pointers(group, [0] * len(group)), strict=True)]
        offsets = [len(_HEADER.encode()) + sum(lengths[:i]) for i in range(len(group))]
        pointers = _pointers(group, offsets)
        lines = [_data_line(*row) for row in zip(offsets, group, pointers, strict=True)]
        files[f"data.{suffix}"] = _HEADER + "".join(lines)
        index: dict[str, list[int]] = {}
        for i, synset in enumerate(group):
            for word in _words(synset.lemmas):
                index.setdefault(word.lower(), []).append(i)
                lex = f"{word.lower()}%{number}:{_NUMBER_OF_NAME[synset.lexname]:02d}:00::"
                sense_lines.append(f"{lex} {offsets[i]:08d} {len(index[word.lower()])} 0\n")
        index_lines = []
        for word, places in sorted(index.items()):
            symbols = sorted({symbol for i in places for symbol, _ in pointers[i]})
            fields = [
                word,
                pos,
                str(len(places)),
                str(len(symbols)),
                *symbols,
                str(len(places)),
                "0",
                *(f"{offsets[i]:08d}" for i in places),
            ]
            index_lines.append(" ".join(fields) + "  \n")
        files[f"index.{suffix}"] = _HEADER + "".join(index_lines)
        files[f"{suffix}.exc"] = "leaves leaf\n" if pos == "n" else "drew draw\n" if pos == "v" else ""
        all_offsets[pos] = offsets
    files["index.sense"] = "".join(sorted(sense_lines))
    files["cntlist.rev"] = ""
    files["lexnames"] = "".join(f"{i:02d}\t{name}\t{pos}\n" for i, (name, pos) in enumerate(_LEXNAMES))
    return files, all_offsets


def _tables(offsets: dict[str, list[int]]) -> dict[str, str]:
    """One table per language that has one, by its path in the archive; lemma lines sorted by synset."""
    place = {pos: iter(values) for pos, values in offsets.items()}
    lines: dict[str, list[str]] = {}
    for synset in synsets():
        key = f"{next(place[synset.pos]):08d}-{synset.pos}"
        for code, lemmas in synset.others:
            lines.setdefault(code, []).extend(f"{key}\t{code}:lemma\t{lemma}\n" for lemma in lemmas)
    return {
        f"{code}/wn-data-{code}.tab": f"# Made-up wordnet\t{code}\thttps://example.org/\tApache-2.0\n" + "".join(sorted(rows))
        for code, rows in lines.items()
    }


def _write_archive(path: Path, files: Mapping[str, str]) -> None:
    """A zip file with one folder of its own name, the same bytes at any time."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in sorted(files.items()):
            member = zipfile.ZipInfo(f"{path.stem}/{name}", date_time=(2026, 9, 1, 0, 0, 0))
            archive.writestr(member, text.encode(), zipfile.ZIP_DEFLATED, 6)


def write_wordnets(corpora: Path) -> None:
    """Write ``wordnet.zip`` and ``omw-1.4.zip``, as nltk distributes them."""
    database, offsets = _database()
    _write_archive(corpora / "wordnet.zip", database)
    _write_archive(corpora / "omw-1.4.zip", _tables(offsets))


def lemmas_of(language: Language) -> tuple[str, ...]:
    """The distinct lemmas that the wordnet has for the language, sorted; empty where it has no table."""
    if language.wordnet == "eng":
        return tuple(sorted({lemma for synset in synsets() for lemma in synset.lemmas}))
    return tuple(sorted({lemma for synset in synsets() for code, lemmas in synset.others if code == language.wordnet for lemma in lemmas}))
