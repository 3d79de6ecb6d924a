from __future__ import annotations

import functools
import html
import io
import pathlib
import unicodedata
import zipfile
from collections.abc import Iterator
from itertools import accumulate, islice
from typing import TYPE_CHECKING

import mwparserfromhell
import pytest

from metadata.languages import all_languages
from metadata.tally import Tally
from metadata.wordnet import LEMMA_SCHEMA, english_lemma_names, english_synset_names, omw_lemmas, omw_tables, wikis_of_wordnet

if TYPE_CHECKING:
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

pytestmark = pytest.mark.filterwarnings("ignore:The multilingual functions", "ignore:No WordNet synset found")

_LICENCE = b"  1 This is a licence, and no synset.  \n"
_DATA = {
    "wordnet/data.adj": _LICENCE
    + b"00000001 00 a 02 Galore(ip) 0 in_plenty 0 000 | much | more  \n00000002 00 s 01 .22-caliber 0 000 | gun  \n",
    "wordnet/data.adv": _LICENCE + b"00000003 02 r 01 A.D. 0 000 | after  \n",
    "wordnet/data.noun": _LICENCE + b"00000004 03 n 02 New_York 0 in_plenty 0 000 | city  \n00000005 03 n 01 new_york 1 000 | state  \n",
    "wordnet/data.verb": _LICENCE
    + b"00000006 29 v 0b a 0 b 0 c 0 d 0 e 0 f 0 g 0 h 0 i 0 j 0 k 0 000 | eleven  \n00000007 29 v 02 one 0\n00000008 29 v x one 0\n\n",
}


def _zip(members: dict[str, bytes]) -> io.BytesIO:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in members.items():
            out.writestr(name, content)
    return archive


def test_synset_names_end_at_the_first_dot() -> None:
    tally = Tally()
    table = english_synset_names(_zip(_DATA), lang="en", tally=tally)
    assert table.schema == LEMMA_SCHEMA
    assert table["lemma"].to_pylist() == ["a", "galore", "new york"]
    assert set(table["lang"].to_pylist()) == {"en"}
    # ".22-caliber" has nothing before its first dot, "A.D." is "a" like the verb, both cities are one name.
    assert tally.counters() == {
        "read": 9,
        "emitted": 3,
        "dropped": {"empty_lemma": 1, "repeated_lemma": 2},
        "dead_letters": 3,
        "dead_letter_reasons": {"not_a_synset": 3},
        "files": 1,
        "bad_files": 0,
    }
    assert tally.balanced


def test_lemma_names_keep_their_case() -> None:
    tally = Tally()
    table = english_lemma_names(_zip(_DATA), lang="simple", tally=tally)
    assert table["lemma"].to_pylist() == [
        ".22-caliber",
        "A.D.",
        "Galore",
        "New York",
        *"abcdefghijk"[:8],
        "i",
        "in plenty",
        "j",
        "k",
        "new york",
    ]
    assert set(table["lang"].to_pylist()) == {"simple"}
    assert tally.counters()["dropped"] == {"repeated_lemma": 1}
    assert (tally.read, tally.emitted, tally.balanced) == (21, 17, True)
    assert [(letter.place, letter.payload[:9], letter.detail) for letter in tally.letters] == [
        (3, b"00000007 ", "wordnet/data.verb: 2 lemmas announced, 1 found"),
        (4, b"00000008 ", "wordnet/data.verb: invalid literal for int() with base 16: 'x'"),
        (5, b"\n", "wordnet/data.verb: too few fields"),
    ]


def test_another_archive_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lacks wordnet/data\.adv, wordnet/data\.verb"):
        english_synset_names(_zip({"wordnet/data.adj": b"", "wordnet/data.noun": b""}), lang="en", tally=Tally())
    with pytest.raises(ValueError, match="no zip archive"):
        english_synset_names(io.BytesIO(b"plain text"), lang="en", tally=Tally())
    with pytest.raises(ValueError, match="no zip archive"):
        list(omw_tables(io.BytesIO(b"")))


def test_a_damaged_member_is_reported_and_what_stands_before_it_counts() -> None:
    content = b"".join(b"%08d-n\tlemma\tword%d\n" % (number, number * number) for number in range(20_000))
    archive = bytearray(_zip({"omw-1.4/als/wn-data-als.tab": content}).getvalue())
    archive[len(archive) // 2] ^= 0xFF
    [(code, tally, lemmas)] = [
        (code, tally, omw_lemmas(table, lang="sq", tally=tally)["lemma"].to_pylist())
        for tally in [Tally()]
        for code, table in omw_tables(io.BytesIO(bytes(archive)))
    ]
    assert (code, tally.bad_file, tally.balanced) == ("als", "corrupt_archive", True)
    # Zip tells damage by a checksum over the whole member, so what was read in between may be wrong.
    assert {f"word{number * number}" for number in range(5_000)} <= set(lemmas)


def test_a_table_of_the_multilingual_wordnet() -> None:
    lines = [
        b"# Wordnet\tals\thttps://example.org\tlicence",
        b"",
        b"00000001-n\tlemma\tpik\xc3\xab",
        b"00000001-n\tals:lemma\tpik\xc3\xab",
        b"99999999-n\tals:lemma\tbig_red+s apple \r",
        b"00000001-n\tals:def\t0\tpoint",
        b"00000001-n\tals:lemma:root\tpk",
        b"00000001-n\tlemma\t",
        b"00000001-n\tlemma\t+",
        b"00000001-n\tlemma",
        b"00000001-n\tlemma\t\xff",
        b"00000002-n\tlemma\tA",
    ]
    tally = Tally()
    table = omw_lemmas(io.BytesIO(b"\n".join(lines)), lang="sq", tally=tally)
    assert table.to_pydict() == {"lang": ["sq"] * 3, "lemma": ["A", "big reds apple", "pikë"]}
    assert table.schema == LEMMA_SCHEMA
    assert tally.counters() == {
        "read": 10,
        "emitted": 3,
        "dropped": {"empty_lemma": 2, "not_a_lemma": 2, "repeated_lemma": 1},
        "dead_letters": 2,
        "dead_letter_reasons": {"invalid_utf8": 1, "too_few_fields": 1},
        "files": 1,
        "bad_files": 0,
    }
    assert [(letter.reason, letter.place) for letter in tally.letters] == [("too_few_fields", 10), ("invalid_utf8", 11)]


@pytest.mark.parametrize(
    ("lemma", "plain"),
    [
        ("New_York", "New York"),
        ("白+色", "白色"),
        ("  two   spaces ", "two spaces"),
        ("בִּירָה", "בירה"),
        ('בֵּי"ת', 'בי"ת'),
        ("עָבַד־עַל", "עבד־על"),
        ("!רַעְיוֹנִי", "רעיוני"),
        ("أجْبَرَ", "أجبر"),
        ("الرّقم_الذّرِّي_53", "الرقم الذري 53"),
        ("هٰذا", "هذا"),
        ("بِـ", "ب"),
        ("آب", "آب"),
        ("!?streha", "streha"),
        ("???", None),
        ("GAP!", None),
        ("PSEUDOGAP!", None),
        ("puiku!", "puiku!"),
        ("¡hola!", "¡hola!"),
        ("*account", "account"),
        ("gasnúť (oheň)", "gasnúť"),
        ("béluga (animal)|fr: béluga", "béluga"),
        ("moteur#moteur thermique", "moteur"),
        ("([[arme]]) [[luis]]", "luis"),
        ("chlorek_rtęci(II)", "chlorek rtęci(II)"),
        ("encender(se)", "encender(se)"),
        ("(arbeids)verzuim", "verzuim"),
        ("(oheň)", None),
        ("(slang.) úžasný (človek)", "úžasný"),
        ("« big band »", "big band"),
        ('"γατάκι"', "γατάκι"),
        ("'tinnitus'", "tinnitus"),
        ("„Walt”", "Walt"),
        ("'hood", "'hood"),
        ("rock 'n' roll", "rock 'n' roll"),
        ('maczeta "Bolo"', 'maczeta "Bolo"'),
        ("vitamine b&lt;sub&gt;9&lt;/sub&gt;", "vitamine b9"),
        ("Milan &lt;!--gender?--&gt;", "Milan"),
        ("fr&amp;eacute;n&amp;eacute;sie", "frénésie"),
        ("AT&T", "AT&T"),
        ("Bahamas ''f pl''", "Bahamas"),
        ("gå ''til", "gå til"),
        ("capital{{m}}", "capital"),
        ("(''academic spelling'') Tōkyō", "Tōkyō"),
        ("&lt;b&gt;=&lt;/b&gt;", None),
        ("\x9cuvre", "œuvre"),
        ("časť\x9d steny", "časť steny"),
        ("سخت\u200cترین مرحله", "سخت\u200cترین مرحله"),
    ],
)
def test_what_is_not_written_in_a_text_is_left_out(lemma: str, plain: str | None) -> None:
    tally = Tally()
    table = omw_lemmas(io.BytesIO(f"00000001-n\tlemma\t{lemma}\n".encode()), lang="sq", tally=tally)
    assert table["lemma"].to_pylist() == ([plain] if plain else [])
    assert (tally.read, tally.emitted, dict(tally.dropped)) == (1, int(bool(plain)), {} if plain else {"empty_lemma": 1})
    assert _plain(lemma) == (plain or "")
    assert not plain or not _has_notation(plain)


@pytest.mark.parametrize(
    "lemma",
    [
        "((bailleur)) m", "(Ath", "2)", "nightbird (album", "serpe ; serpette", "尘[粉]状的", "osmrtnica]", "<HTML>", "-520", "$L",
        "P\ufffdtria", '"dæma sekan', 'ákæra"',
    ],
)  # fmt: skip
def test_a_dictionarys_notation_is_dropped(lemma: str) -> None:
    tally = Tally()
    table = omw_lemmas(io.BytesIO(f"00000001-n\tlemma\t{lemma}\n00000001-n\tlemma\tchloran(V) sodu\n".encode()), lang="sq", tally=tally)
    assert table["lemma"].to_pylist() == ["chloran(V) sodu"]
    assert (tally.read, tally.emitted, dict(tally.dropped)) == (2, 1, {"notation": 1})
    assert _has_notation(_plain(lemma))


def test_lemmas_that_become_alike_are_one() -> None:
    tally = Tally()
    lines = "".join(f"00000001-n\tlemma\t{lemma}\n" for lemma in ("كتاب", "كِتاب", "كِتَاب", "كتاب (x)"))
    assert omw_lemmas(io.BytesIO(lines.encode()), lang="ar", tally=tally)["lemma"].to_pylist() == ["كتاب"]
    assert (tally.read, tally.emitted, dict(tally.dropped)) == (4, 1, {"repeated_lemma": 3})


def test_tables_come_with_their_codes_in_the_order_of_their_names() -> None:
    names = ["omw-1.4/iwn/wn-data-ita.tab", "omw-1.4/als/wn-data-als.tab", "omw-1.4/ita/wn-data-ita.tab", "omw-1.4/als/README"]
    archive = _zip({**{name: name.encode() for name in names}, "omw-1.4/arb/wn-nodia-arb.tab": b""})
    assert [(code, table.read()) for code, table in omw_tables(archive)] == [
        ("als", b"omw-1.4/als/wn-data-als.tab"),
        ("ita", b"omw-1.4/ita/wn-data-ita.tab"),
        ("ita", b"omw-1.4/iwn/wn-data-ita.tab"),
    ]


def test_als_is_tosk_albanian() -> None:
    assert wikis_of_wordnet("als") == ("sq",)
    assert "en" in wikis_of_wordnet("eng")
    assert wikis_of_wordnet("cmn") == wikis_of_wordnet("qcn") == ("zh",)
    assert wikis_of_wordnet("zzz") == wikis_of_wordnet("") == ()
    assert all_languages()["als"].wordnets == ()


@pytest.fixture(scope="module")
def archives(shared_data: pathlib.Path) -> pathlib.Path:
    return shared_data / "nltk_data" / "corpora"


@pytest.fixture(scope="module")
def nltk_reader(archives: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WordNetCorpusReader]:
    # Takes seconds to import, which the collection of all tests need not wait for.
    import nltk.data
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    class Reader(WordNetCorpusReader):
        def map_wn(self, version: str = "wordnet") -> None:
            """Tables and WordNet are both of version 3.0. With a map nltk leaves out the lemmas of invalid offsets."""

    root = tmp_path_factory.mktemp("wordnet")
    with zipfile.ZipFile(archives / "wordnet.zip") as archive:
        archive.extractall(root)
    with pytest.MonkeyPatch.context() as patch:
        # nltk reads nothing outside its own search path.
        patch.setattr(nltk.data, "path", [str(root)])
        yield Reader(str(root / "wordnet"), None)


_NOT_WRITTEN = ("HEBREW ACCENT ", "HEBREW POINT ", "HEBREW MARK ", "ARABIC TATWEEL", "ARABIC LETTER SUPERSCRIPT ALEF")


def _without_markup(text: str) -> str:
    """By another parser of wikitext; of marks of italics that close, what is between them goes as well."""
    pieces = html.unescape(html.unescape(text)).split("''")
    text = "".join(pieces[::2] if len(pieces) % 2 else pieces)
    return str(mwparserfromhell.parse(text).strip_code()).strip("=& ")


def _has_notation(text: str) -> bool:
    """Whether brackets or quotes do not pair, or something else says that a lemma is none."""
    depths = [*accumulate((character == "(") - (character == ")") for character in text)]
    quotes = text.count('"') == 1 and '"' in (text[0], text[-1])
    code = text[0] == "-" and text[1:].isdigit()
    return code or quotes or depths[-1] != 0 or min(depths) < 0 or text[0] in "($" or bool({*"[]<>{};\ufffd"} & {*text})


@functools.cache
def _is_written(character: str) -> bool:
    return character != "+" and not unicodedata.name(character, "").startswith(_NOT_WRITTEN) and not "\u064b" <= character <= "\u0652"


def _plain(name: str) -> str:
    """A lemma without what is not written in a text, character by character and word by word."""
    if "GAP!" in name:
        return ""
    name = name.replace("\x9c", "œ").replace("\x9d", "")
    if {"<", "&"} & {*name} or "''" in name or "{{" in name:
        name = _without_markup(name)
    text = "".join(" " if c == "_" else c for c in name if _is_written(c))
    words = text.removeprefix("*").split("|")[0].split("#")[0].replace("[[", "").replace("]]", "").split()
    opening = max((place for place, word in enumerate(words) if "(" in word), default=0)
    ending = " ".join(words[opening:])
    if opening and ending[0] == "(" and ending[-1] == ")" and ending.count("(") == ending.count(")") == 1:
        words = words[:opening]
    text = " ".join(words)
    if text.startswith("(") and ")" in text and "(" not in text[1 : text.index(")")]:
        text = text.partition(")")[2].strip()
    if len(text) > 1 and text[0] + text[-1] in ('""', "''", "«»", "“”", "„”", "„“") and not {*"\"'«»“”„"} & {*text[1:-1]}:
        text = text[1:-1].strip()
    return text.lstrip("!? ")


def test_the_published_number_of_entries(archives: pathlib.Path) -> None:
    """86,654 is the published figure of version 1's numbers and synset names together."""
    with (archives / "wordnet.zip").open("rb") as archive:
        tally = Tally()
        names = english_synset_names(archive, lang="en", tally=tally)["lemma"].to_pylist()
    assert (tally.read, len(names), len({*names, *map(str, range(100))})) == (117_659, 86_554, 86_654)
    assert not tally.dead


def test_every_word_of_nltks_index_is_a_lemma(archives: pathlib.Path, nltk_reader: WordNetCorpusReader) -> None:
    with (archives / "wordnet.zip").open("rb") as archive:
        lemmas = english_lemma_names(archive, lang="en", tally=Tally())["lemma"].to_pylist()
    assert len(lemmas) == 148_730
    assert {lemma.lower() for lemma in lemmas} == {_plain(name) for name in nltk_reader.all_lemma_names()}


def test_synsets_are_what_nltk_reads(archives: pathlib.Path, nltk_reader: WordNetCorpusReader) -> None:
    """Adjectives, which have the syntactic markers, and adverbs, 3,000 of each: nltk takes long for the rest."""
    data = {"wordnet/data.noun": b"", "wordnet/data.verb": b""}
    with zipfile.ZipFile(archives / "wordnet.zip") as members:
        for name in ("wordnet/data.adj", "wordnet/data.adv"):
            lines = members.read(name).splitlines(keepends=True)
            licence = sum(line.startswith(b"  ") for line in lines)
            data[name] = b"".join(lines[: licence + 3_000])
    archive = _zip(data)
    synsets = [synset for part in "ar" for synset in islice(nltk_reader.all_synsets(part), 3_000)]
    assert len(synsets) == 6_000
    names = english_synset_names(archive, lang="en", tally=Tally())["lemma"].to_pylist()
    assert names == sorted({_plain(synset.name().split(".")[0]) for synset in synsets} - {""})
    lemmas = english_lemma_names(archive, lang="en", tally=Tally())["lemma"].to_pylist()
    assert lemmas == sorted({_plain(lemma) for synset in synsets for lemma in synset.lemma_names()})


@pytest.mark.parametrize("wanted", ["als", "arb", "cmn", "fra", "heb", "hrv", "nld", "qcn", "slk"])
def test_a_published_table_is_what_nltk_reads(archives: pathlib.Path, nltk_reader: WordNetCorpusReader, wanted: str) -> None:
    tally = Tally()
    with (archives / "omw-1.4.zip").open("rb") as archive:
        [content] = [table.read() for code, table in omw_tables(archive) if code == wanted]
    lemmas = omw_lemmas(io.BytesIO(content), lang=wanted, tally=tally)["lemma"].to_pylist()
    nltk_reader.custom_lemmas(io.BytesIO(content), wanted)
    plain = {_plain(name) for offset in nltk_reader._lang_data[wanted][0].values() for name in offset} - {""}
    assert lemmas == sorted(lemma for lemma in plain if not _has_notation(lemma))
    assert not tally.dead
    assert tally.balanced
