"""Word segmentation: sentences cut and read word by word, round trip, lines, and no cut inside a syllable.

``golden_segments/<wiki>.tsv`` holds sentences made for this test, a line each: as they are cut and, where a reader of the language cuts
otherwise, his cut and the reason. What is asserted is the first: a change there changes the metadata and must change SEGMENT_VERSION.
Tibetan, Dzongkha, Shan, Mon and Pa'O are cut into syllables, and syllables are what was read; the lines of Pa'O are names and phrases.
"""

from __future__ import annotations

import unicodedata
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metadata.languages import all_languages
from metadata.segment import SEGMENT_VERSION, SEGMENTERS, segment
from metadata.text import PUNCTUATION

ALPHABET = (
    "ab1 中国日本東京あのカタプ𠮷😀กาเราที่ไทยฟาร์มຂ້ອຍພາສາລາວខ្ញុំស្រយុត្ដិធម៌កမြန်မာကမ္ဘာ့သည့်ၵူၼ်းမိူင်းတႆးမၞိဟ်သ္ဂောံပအိုဝ်ႏꩻ၁႑"
    "བོད་ཡིག༌།\u3000\u200b\u200d\u0301\t\n\x1f\0.,()「」。¿'_"
)
TEXTS = st.text(alphabet=st.sampled_from(ALPHABET) | st.characters(), max_size=40)
GOLDEN = Path(__file__).with_name("golden_segments")
SYLLABLES_ONLY = ("blk", "bo", "dz", "mnw", "shn")


def golden(code: str) -> list[tuple[str, str]]:
    """(cut, cut of a reader) of each sentence."""
    rows = [line.split("\t") for line in (GOLDEN / f"{code}.tsv").read_text(encoding="utf-8").splitlines()]
    assert {len(row) for row in rows} <= {1, 3}
    assert all(row[0] != row[1] and all(row) for row in rows if len(row) == 3)
    return [(row[0], row[1] if len(row) == 3 else row[0]) for row in rows]


UNSPACED = [code for code, lang in all_languages().items() if not lang.spaced]
SENTENCES = [(code, cut) for code in UNSPACED for cut, _ in golden(code)]


def test_every_language_without_spaces_has_sentences() -> None:
    assert sorted(path.stem for path in GOLDEN.iterdir()) == UNSPACED
    assert all(len(golden(code)) >= 5 for code in UNSPACED)


@pytest.mark.parametrize(("code", "cut"), SENTENCES)
def test_sentences(code: str, cut: str) -> None:
    assert segment(cut.replace("|", ""), all_languages()[code].segmenter) == cut.split("|")


def places(cut: str) -> set[int]:
    return {*accumulate(len(word) for word in cut.split("|")[:-1])}


# Of the cuts that a reader makes, and of those that we make, in percent: how many the other makes too.
@pytest.mark.parametrize(
    ("code", "found", "right"),
    [
        ("gan", 100, 93), ("ja", 95, 96), ("km", 96, 96), ("lo", 96, 100), ("my", 88, 95), ("th", 97, 89),
        ("wuu", 94, 88), ("zh", 88, 96), ("zh_classical", 85, 100), ("zh_yue", 100, 85),
    ],
)  # fmt: skip
def test_how_far_a_reader_agrees(code: str, found: int, right: int) -> None:
    ours, readers, both = (
        sum(len(pair) for pair in pairs)
        for pairs in zip(*((places(a), places(b), places(a) & places(b)) for a, b in golden(code)), strict=True)
    )
    assert all(a.replace("|", "") == b.replace("|", "") for a, b in golden(code))
    assert (round(100 * both / readers), round(100 * both / ours)) == (found, right)


@pytest.mark.parametrize("code", SYLLABLES_ONLY)
def test_syllables_are_a_readers_syllables(code: str) -> None:
    assert all(cut == readers for cut, readers in golden(code))


def test_characters_beyond_the_basic_plane_do_not_shift_the_rest() -> None:
    assert segment("東京😀𠮷野家で食べた。", "icu:ja") == ["東京", "😀", "𠮷", "野家", "で", "食", "べた", "。"]
    assert segment("ก😀ไทย😀😀ภาษา", "icu:th") == ["ก", "😀", "ไทย", "😀", "😀", "ภาษา"]


@pytest.mark.parametrize("segmenter", SEGMENTERS)
@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_segments_joined_are_the_text(segmenter: str, text: str) -> None:
    segments = segment(text, segmenter)
    assert "".join(segments) == text
    assert all(segments)


@pytest.mark.parametrize("segmenter", SEGMENTERS)
@settings(max_examples=60, deadline=None)
@given(first=TEXTS, second=TEXTS)
def test_lines_do_not_touch_each_other(segmenter: str, first: str, second: str) -> None:
    first, second = first.rstrip(), second.lstrip()
    assert segment(f"{first}\n{second}", segmenter) == [*segment(first, segmenter), "\n", *segment(second, segmenter)]


@pytest.mark.parametrize("segmenter", SEGMENTERS)
@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet=st.sampled_from("ab中国あก་བ ကမ္()[]{}（）「」『』【】《》〈〉\u200d\u0301_'.1😀"), max_size=30))
def test_a_bracket_can_only_begin_a_segment(segmenter: str, text: str) -> None:
    brackets = set("()[]{}（）「」『』【】《》〈〉")
    assert brackets < PUNCTUATION
    assert not [s for s in segment(text, segmenter) if brackets.intersection(s[1:])]


def is_letter(character: str, script: str) -> bool:
    """Of the Thai, Lao, Khmer or Myanmar script, and neither figure nor mark nor the sign that repeats a word."""
    return unicodedata.name(character, "").startswith(script) and unicodedata.category(character)[0] in "LM" and character not in "ๆໆៗ"


def begins_a_syllable(text: str, place: int) -> bool:
    """Of two Myanmar letters, whether the second can begin a syllable: read character by character."""
    if text[place - 1] == "\u1039" or unicodedata.category(text[place])[0] == "M":
        return False
    after = text[place + 1 : place + 3]
    if after.startswith(("\u103a", "\u1037\u103a")):
        return False
    return not after.startswith("\u1039") or text[place - 1] in "\u1036\u1037\u1038\u103a"


LETTERS = {
    "THAI": "กขครลนมงยสอเแโใไะาำัิีุูๅ็่้์ๆ1 ",
    "LAO": "ກຂຄລນມງຍສອເແໂໃໄະາຳັິີຽົ່້ໆ1 ",
    "KHMER": "កខគតដនមយលសហអាិីុូេោ្ំះ់៌ៗ១ ",
    "MYANMAR": "ကမသဥ\u1031\u102d\u1036\u1037\u1038\u1039\u103a\u103b\u1082\u1088\uaa7bၵ၁။ ",
}


@pytest.mark.parametrize("segmenter", [name for name in SEGMENTERS if name != "tibetan"])
@settings(max_examples=200, deadline=None)
@given(text=st.sampled_from(sorted(LETTERS)).flatmap(lambda script: st.text(alphabet=LETTERS[script], max_size=25)))
def test_no_cut_is_inside_a_syllable(segmenter: str, text: str) -> None:
    for place in [*accumulate(map(len, segment(text, segmenter)))][:-1]:
        before, after = text[place - 1], text[place]
        for script in ("THAI", "LAO", "KHMER"):
            if is_letter(before, script) and is_letter(after, script) and segmenter != "myanmar":
                assert unicodedata.category(after)[0] != "M"
                assert after not in "ะาำๅະາຳຽ"
                assert before not in "เแโใไເແໂໃໄ\u17d2"
        if is_letter(before, "MYANMAR") and is_letter(after, "MYANMAR"):
            assert begins_a_syllable(text, place)


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet=LETTERS["MYANMAR"], max_size=25))
def test_the_myanmar_segmenter_cuts_before_every_syllable(text: str) -> None:
    cuts = {*accumulate(map(len, segment(text, "myanmar")))}
    for place in range(1, len(text)):
        if is_letter(text[place - 1], "MYANMAR") and is_letter(text[place], "MYANMAR"):
            assert (place in cuts) == begins_a_syllable(text, place)


@pytest.mark.parametrize("segmenter", ["icu:my", "myanmar"])
@pytest.mark.parametrize("text", ["က" + "မ္" * 30_000, "ฟ" + "\u0e32" * 60_000, "ꩻ" * 60_000])
def test_a_syllable_without_end_is_one_segment(text: str, segmenter: str) -> None:
    assert segment(text, segmenter) == [text]


@pytest.mark.parametrize("segmenter", SEGMENTERS)
def test_lone_surrogates_stay_where_they_are(segmenter: str) -> None:
    segments = segment("a\ud800 ไทย\udfff😀ภาษา", segmenter)
    assert "".join(segments) == "a\ud800 ไทย\udfff😀ภาษา"
    assert " " in segments


def test_empty_text() -> None:
    assert [segment("", name) for name in SEGMENTERS] == [[]] * len(SEGMENTERS)


@pytest.mark.parametrize("name", ["", "icu:en", "ja", "icu:"])
def test_unknown_segmenter(name: str) -> None:
    with pytest.raises(ValueError, match="known: icu:ja, icu:zh"):
        segment("text", name)


def test_version_names_library_and_dictionaries() -> None:
    own, library, dictionaries = SEGMENT_VERSION.split("/")
    assert own == "3"
    assert library == "icu4py-1.2.0"
    assert dictionaries.startswith("icu-78.")
