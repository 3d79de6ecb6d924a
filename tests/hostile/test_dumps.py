from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import JobError
from pipelines.jobs import run_job
from pipelines.part import read_part
from pipelines.stage import open_stage
from tests.hostile.conftest import account

HEAD = "<mediawiki><siteinfo><dbname>simplewiki</dbname></siteinfo>\n"
END = "</mediawiki>"


def page(number: int, text: str = "red star", *, more: str = "") -> str:
    return f"<page><title>T{number}</title><ns>0</ns><id>{number}</id>{more}<revision><text>{text}</text></revision></page>\n"


PAGES = [page(i) for i in range(1, 7)]
DUMP = HEAD + "".join(PAGES) + END
COMPRESS: dict[str, Callable[[bytes], bytes]] = {"bz2": bz2.compress, "gz": lambda data: gzip.compress(data, mtime=0), "xz": lzma.compress}


def ngrams(folder: Path, files: dict[str, bytes], *more: str) -> tuple[dict[str, Any], list[tuple[str, int, str, bytes]]]:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    run_job("ngrams", ["--input", *(str(folder / name) for name in files), "--output", str(folder / "out"), *more])
    return account(str(folder / "out"), "ngrams")


def counted(folder: Path) -> dict[str, int]:
    """Unigrams of all languages."""
    stage = open_stage(str(folder / "out"), "ngrams")
    names = [part["name"] for part in stage.parts if "-unigrams-" in part["name"]]
    return {row["gram"]: row["count"] for name in names for row in read_part(stage.part_url(name)).to_pylist()}


#: Wikipedias whose texts are cut into words in the same way: a job takes a second, and as little for a dump of each.
WIKIS = ("bg", "cs", "da", "de", "el", "es", "et", "fi", "hr", "hu", "nl", "pl", "pt")


def counted_by_wiki(folder: Path) -> dict[str, dict[str, int]]:
    """Unigrams of each language, also of those that have none."""
    stage = open_stage(str(folder / "out"), "ngrams")
    parts = {name.split("-")[1]: stage.part_url(name) for name in (part["name"] for part in stage.parts) if "-unigrams-" in name}
    return {wiki: {row["gram"]: row["count"] for row in read_part(url).to_pylist()} for wiki, url in parts.items()}


def test_a_cut_off_dump_counts_up_to_the_cut(tmp_path: Path) -> None:
    """Six pages of a stream each, the fifth stream cut short: four pages, and the dump beside it as if nothing was."""
    files = {"whole.xml": DUMP.encode()}
    for kind, compress in COMPRESS.items():
        streams = [compress(part.encode()) for part in (HEAD, *PAGES, END)]
        files[f"cut.xml.{kind}"] = b"".join(streams[:5]) + streams[5][: len(streams[5]) // 4]
    counters, letters = ngrams(tmp_path, files, "--max-bad-files", "75%")
    assert counters == {
        "read": 6 + 3 * 5,
        "emitted": 6 + 3 * 4,
        "dead_letters": 3,
        "dead_letter_reasons": {"truncated": 3},
        "files": 4,
        "bad_files": 3,
    }
    assert [(name, reason) for name, _, reason, _ in letters] == [(f"cut.xml.{kind}", "truncated") for kind in ("bz2", "gz", "xz")]
    place = len(HEAD + "".join(PAGES[:4]))
    assert all(place <= letter[1] <= place + len(PAGES[4]) for letter in letters)
    assert counted(tmp_path) == {"red": 18, "star": 18}


def test_damage_in_the_middle_of_a_dump_is_told(tmp_path: Path) -> None:
    """In bzip2 a page is lost, in gzip and xz all that follows."""
    files = {}
    for kind, compress in COMPRESS.items():
        streams = [bytearray(compress(part.encode())) for part in (HEAD, *PAGES, END)]
        streams[3][14:24] = bytes(10)
        files[f"bad.xml.{kind}"] = b"".join(streams)
    counters, letters = ngrams(tmp_path, files, "--max-bad-files", "100%")
    assert (counters["read"], counters["emitted"], counters["bad_files"]) == (6 + 2 * 3, 5 + 2 * 2, 3)
    assert [letter[2] for letter in letters] == ["invalid_compression"] * 3
    assert letters[0][1] == sum(len(bz2.compress(part.encode())) for part in (HEAD, *PAGES[:2])) + 4


def test_a_damaged_dump_in_many_units_is_one_bad_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipelines.ngrams.UNIT_BYTES", 300)
    streams = [bytearray(bz2.compress(part.encode())) for part in (HEAD, *(page(i, f"red {i}") for i in range(200)), END)]
    for i in (20, 100, 150):
        streams[i][14:24] = bytes(10)
    counters, letters = ngrams(
        tmp_path, {"bad.xml.bz2": b"".join(streams), "good.xml.bz2": bz2.compress(DUMP.encode())}, "--max-bad-records", "2%"
    )
    assert counters == {
        "read": 206,
        "emitted": 203,
        "dead_letters": 3,
        "dead_letter_reasons": {"invalid_compression": 3},
        "files": 2,
        "bad_files": 1,
    }
    assert [letter[1] for letter in letters] == [sum(map(len, streams[:i])) + 4 for i in (20, 100, 150)]
    assert len(list((tmp_path / "out" / "blocks").glob("part-*"))) > 30
    assert counted(tmp_path) == {"red": 203, "star": 6, **{str(i): 1 for i in range(200) if i not in (19, 99, 149)}}
    assert (
        "ngrams: 1 of 2 dumps are damaged (bad.xml.bz2: invalid_compression 3): what is whole in them was counted. "
        "With a good file in the place of one, the same command counts that one and its language again\n"
    ) in capsys.readouterr().err


def test_a_dump_cut_inside_a_page_counts_the_pages_before(tmp_path: Path) -> None:
    whole = HEAD + "".join(PAGES[:3])
    counters, letters = ngrams(tmp_path, {"cut.xml": (whole + PAGES[3][:60]).encode()})
    assert (counters["read"], counters["emitted"], counters["dead_letter_reasons"]) == (4, 3, {"truncated": 1})
    assert [letter[:1] + letter[2:] for letter in letters] == [("cut.xml", "truncated", b"")]
    assert counted(tmp_path) == {"red": 3, "star": 3}


def test_what_is_no_dump_of_a_wikipedia_is_a_damaged_file(tmp_path: Path) -> None:
    strange = {
        "bytes.xml": bytes(range(256)) * 8,
        "empty.xml": b"",
        "empty.xml.bz2": bz2.compress(b""),
        "page.xml": b"<html><body>404</body></html>",
        "project.xml": DUMP.replace("simplewiki", "simplewiktionary").encode(),
        "unknown.xml": DUMP.replace("simplewiki", "xxwiki").encode(),
    }
    counters, letters = ngrams(tmp_path, {**strange, "good.xml": DUMP.encode()}, "--max-bad-files", "90%")
    assert counters == {
        "read": 12,
        "emitted": 6,
        "dead_letters": 6,
        "dead_letter_reasons": {"unknown_wiki": 6},
        "files": 7,
        "bad_files": 6,
    }
    assert letters == [(name, 0, "unknown_wiki", b"") for name in strange]
    assert counted(tmp_path) == {"red": 6, "star": 6}


def test_two_damaged_files_are_too_many(tmp_path: Path) -> None:
    files = {"a.xml": b"", "b.xml": b"", "good.xml": DUMP.encode()}
    with pytest.raises(JobError) as error:
        ngrams(tmp_path, files)
    assert str(error.value) == (
        "2 of 3 files are damaged (a.xml: unknown_wiki 1; b.xml: unknown_wiki 1), more than --max-bad-files 0.100% allows; "
        f"see {tmp_path}/out/blocks/dead_letters. What was done is kept: run the same command with a higher --max-bad-files to accept it"
    )


def of_wiki(dbname: str, *words: str) -> str:
    return HEAD.replace("simplewiki", dbname) + "".join(page(i, word) for i, word in enumerate(words, start=1)) + END


def times(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in folder.glob("part-*")}


def test_dumps_that_fail_stop_no_other_language(tmp_path: Path) -> None:
    """Five dumps that cannot be read, each for another reason. Put right one by one they are done, and nothing else is."""
    files = {
        "dewiki-1.xml": of_wiki("dewiki", "rot", "blau").encode(),
        "enwiki-1.xml": of_wiki("enwiki", "red").encode()[:-60],
        "frwiki-1.xml": b"",
        "none.xml": of_wiki("nonewiki", "x").encode(),
        "page.xml": b"<html>404</html>",
        "skwiki-1.xml.bz2": bz2.compress(of_wiki("skwiki", "slovo").encode())[:-30],
    }
    with pytest.raises(JobError) as error:
        ngrams(tmp_path, files)
    assert str(error.value).startswith(
        "5 of 6 files are damaged (enwiki-1.xml: truncated 1; frwiki-1.xml: empty 1; none.xml: unknown_wiki 1; page.xml: unknown_wiki 1; "
        "skwiki-1.xml.bz2: truncated 1), more than --max-bad-files 0.100% allows; see "
    )
    blocks_before = times(tmp_path / "out" / "blocks")
    assert len(blocks_before) == 6
    # Once they are accepted, nothing is counted again.
    arguments = ["--input", *(str(tmp_path / name) for name in files), "--output", f"{tmp_path}/out", "--max-bad-files", "100%"]
    run_job("ngrams", arguments)
    counters, letters = account(f"{tmp_path}/out", "ngrams")
    assert counters["bad_files"] == 5
    assert times(tmp_path / "out" / "blocks") == blocks_before
    assert [(letter[0], letter[2]) for letter in letters] == [
        ("enwiki-1.xml", "truncated"),
        ("frwiki-1.xml", "empty"),
        ("none.xml", "unknown_wiki"),
        ("page.xml", "unknown_wiki"),
        ("skwiki-1.xml.bz2", "truncated"),
    ]
    assert counted(tmp_path) == {"rot": 1, "blau": 1}
    before = times(tmp_path / "out")
    assert sorted(name.split("-")[1] for name in before) == sorted(["de", "en", "fr", "sk"] * 2)

    files["page.xml"] = of_wiki("skwiki", "druhé", "slovo").encode()
    files["frwiki-1.xml"] = of_wiki("frwiki", "rouge").encode()
    changed = {name: files[name] for name in ("page.xml", "frwiki-1.xml")}
    for name, data in changed.items():
        (tmp_path / name).write_bytes(data)
    run_job("ngrams", arguments)
    assert counted(tmp_path) == {"rot": 1, "blau": 1, "rouge": 1, "druhé": 1, "slovo": 1}
    again = {name for name, time in times(tmp_path / "out").items() if before.get(name) != time}
    assert sorted(name.split("-")[1] for name in again) == ["fr", "fr", "sk", "sk"]
    assert len({name for name, time in times(tmp_path / "out" / "blocks").items() if blocks_before[name] != time}) == 2


def test_a_dump_with_the_head_of_another_wiki_is_believed_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counters, letters = ngrams(tmp_path, {"dewiki-20260901-pages-articles.xml": of_wiki("enwiki", "rot").encode()})
    assert (counters, letters) == ({"read": 1, "emitted": 1, "files": 1}, [])
    assert [name.split("-")[1] for name in times(tmp_path / "out")] == ["de", "de"]
    assert (
        "ngrams: 1 of 1 dumps say another wiki than their name (the first: dewiki-20260901-pages-articles.xml says enwiki): "
        "the name is believed\n"
    ) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a Wikipedia dump: no <siteinfo> with a <dbname> or a <base> address of a Wikipedia"),
        (b"<html/>", "not a Wikipedia dump: invalid_xml: the root element is <html>, not <mediawiki>"),
        (of_wiki("nonewiki", "x").encode(), "nonewiki is no Wikipedia that the language table knows"),
    ],
)
def test_no_dump_of_a_wikipedia_is_told_before_any_work(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(JobError) as error:
        ngrams(tmp_path, {"dump.xml": data})
    assert str(error.value) == f"no file is the dump of a known Wikipedia (the first, dump.xml: {says})"
    assert not (tmp_path / "out").exists()


def test_pages_that_cannot_be_used_are_dropped_one_by_one(tmp_path: Path) -> None:
    pages = [
        page(1),
        page(2, more='<redirect title="T1" />'),
        page(3).replace("<ns>0</ns>", "<ns>10</ns>"),
        page(4, " \n"),
        page(5).replace("<id>5</id>", "<id>five</id>"),
        page(6, "{{" * 10_000 + "[[" * 10_000 + "&lt;ref&gt;" * 1_000),
        page(7),
    ]
    counters, letters = ngrams(tmp_path, {"dump.xml": (HEAD + "".join(pages) + END).encode()}, "--max-bad-records", "20%")
    assert counters == {
        "read": 7,
        "emitted": 3,
        "dropped": {"empty_text": 1, "other_namespace": 1, "redirect": 1},
        "dead_letters": 1,
        "dead_letter_reasons": {"page_without_title_or_id": 1},
        "files": 1,
    }
    assert letters == [("dump.xml", len(HEAD + "".join(pages[:4])), "page_without_title_or_id", b"T5")]


def test_entity_bombs_are_not_unfolded(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE mediawiki [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>' + HEAD + page(1, "&b;") + page(2) + END
    counters, letters = ngrams(tmp_path, {"simplewiki-bomb.xml": bomb.encode()}, "--max-bad-records", "50%")
    assert counters["dead_letter_reasons"] == {"invalid_xml": 1, "xml_entities": 1}
    assert [letter[2] for letter in letters] == ["xml_entities", "invalid_xml"]
    assert counted(tmp_path) == {"red": 1, "star": 1}


LONG_WORDS = "\n".join(" ".join(f"w{i}" for i in range(1000)) for _ in range(400))
ODD_TEXTS = {
    "two million characters": (LONG_WORDS, {f"w{i}": 400 for i in range(1000)}),
    "two million characters in one word": ("a " + "x" * 2_000_000 + " b", {"a": 1, "b": 1}),
    "two million characters of a line of marks": ("a" + "." * 2_000_000, {"a": 1, ".": 2_000_000}),
    "braces that never end": ("{{" * 10_000 + "a b", {"a": 1, "b": 1}),
    "braces that never begin": ("a b" + "}}" * 10_000, {"a": 1, "b": 1}),
    "templates ten thousand deep": ("a " + "{{x|" * 10_000 + "hidden" + "}}" * 10_000 + " b", {"a": 1, "b": 1}),
    "links ten thousand deep": ("a " + "[[" * 10_000 + "b" + "]]" * 10_000 + " c", {"a": 1, "b": 1, "c": 1}),
    "bidi and zero width": ("\u202babc\u202c \u200fdef\u200e g\u200ch \ufeffi", {"abc": 1, "def": 1, "g\u200ch": 1, "i": 1}),
    "lone surrogates and controls by number": ("a &amp;#xD800; &amp;#xDFFF; b &amp;#0; c", {"a": 1, "b": 1, "c": 1}),
    "nothing but marks": ("{{x}} [[File:x.jpg]] &lt;!-- x --&gt;", {}),
    "beyond the first plane": ("𐍄𐌰 😀", {"𐍄𐌰": 1, "😀": 1}),
    "UTF-16": ("rød stjerne", {"rød": 1, "stjerne": 1}),
    "UTF-16, declared": ("rød stjerne", {"rød": 1, "stjerne": 1}),
}


def test_odd_texts_are_counted(tmp_path: Path) -> None:
    files, expected = {}, {}
    for wiki, (name, (text, words)) in zip(WIKIS, ODD_TEXTS.items(), strict=True):
        dump = of_wiki(f"{wiki}wiki", text, "last")
        declaration = '<?xml version="1.0" encoding="utf-16"?>' if name == "UTF-16, declared" else ""
        data = (declaration + dump).encode("utf-16") if name.startswith("UTF-16") else bz2.compress(dump.encode())
        files[f"{wiki}.xml"], expected[wiki] = data, {**words, "last": 1}
    counters, letters = ngrams(tmp_path, files)
    assert (counters, letters) == ({"read": 26, "emitted": 26, "files": 13}, [])
    assert counted_by_wiki(tmp_path) == expected


FORBIDDEN = ["\ud800", "&#xD800;", "&#0;", "\x00", "\x0b", "\ufffe"]


def test_characters_that_xml_forbids_cost_their_page(tmp_path: Path) -> None:
    wikis = WIKIS[: len(FORBIDDEN)]
    dumps = [of_wiki(f"{wiki}wiki", "red star", f"red {broken} star", "red star") for wiki, broken in zip(wikis, FORBIDDEN, strict=True)]
    files = {f"{wiki}.xml": dump.encode(errors="surrogatepass") for wiki, dump in zip(wikis, dumps, strict=True)}
    counters, letters = ngrams(tmp_path, files, "--max-bad-files", "100%")
    assert (counters["read"], counters["emitted"], counters["dead_letter_reasons"]) == (18, 12, {"invalid_xml": 6})
    assert [letter[0] for letter in letters] == [*files]
    for dump, broken, letter in zip(dumps, FORBIDDEN, letters, strict=True):
        assert dump.index("red " + broken) <= letter[1] <= dump.index("red " + broken) + 10
    assert counted_by_wiki(tmp_path) == {wiki: {"red": 2, "star": 2} for wiki in wikis}


NESTED = ["<page>", "<text>", "<title>", "<a>" * 100, "<mediawiki>", "<revision><text>x</text></revision>"]


def test_nested_tags_cost_their_page_at_most(tmp_path: Path) -> None:
    files, emitted = {}, {}
    for wiki, nested in zip(WIKIS, NESTED, strict=False):
        dump = of_wiki(f"{wiki}wiki", "red star", "red star", "red star").split("<revision>")
        files[f"{wiki}.xml"] = (dump[0] + "<revision>" + dump[1] + nested + "<revision>" + "<revision>".join(dump[2:])).encode()
        emitted[wiki] = 3 if nested.startswith("<revision") else 2
    counters, letters = ngrams(tmp_path, files, "--max-bad-records", "40%", "--max-bad-files", "100%")
    assert counters["emitted"] == sum(emitted.values()) == 13
    assert all(sum(letter[0] == name for letter in letters) <= 2 for name in files)
    assert counted_by_wiki(tmp_path) == {wiki: {"red": n, "star": n} for wiki, n in emitted.items()}


def test_index_files_only_are_no_input(tmp_path: Path) -> None:
    name = tmp_path / "simplewiki-20260901-pages-articles-multistream-index.txt.bz2"
    name.write_bytes(bz2.compress(b"1:1:A\n"))
    with pytest.raises(JobError) as error:
        run_job("ngrams", ["--input", str(name), "--output", f"{tmp_path}/out"])
    assert str(error.value) == f"--input {name}: no dump among them, only index files"
    assert not (tmp_path / "out").exists()


def test_no_permission_to_write_is_told_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "dump.xml").write_bytes(DUMP.encode())
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(JobError, match=r"/file/out/.*: cannot be written to \(.*\); choose another --output or mend its permissions"):
        run_job("ngrams", ["--input", f"{tmp_path}/dump.xml", "--output", f"{tmp_path}/file/out"])
