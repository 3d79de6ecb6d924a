"""Word segmentation: round trip, lines, and sentences cut by hand and compared."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metadata.segment import SEGMENT_VERSION, SEGMENTERS, segment
from metadata.text import PUNCTUATION

ALPHABET = "ab1 中国日本東京あのカタプ𠮷😀กาเราที่ไทยខ្ញុំស្រពາສາລາວမြန်မာབོད་ཡིག༌།\u3000\u200b\u200d\u0301\t\n\x1f\0.,()「」。¿'_"
TEXTS = st.text(alphabet=st.sampled_from(ALPHABET) | st.characters(), max_size=40)

# Where ICU's dictionaries cut otherwise than a reader would (読み|ま|した for 読み|まし|た, 图书|馆 for 图书馆), ICU is what is asserted:
# a change here changes the metadata and must change SEGMENT_VERSION.
SENTENCES = [
    ("icu:ja", "私は昨日図書館で面白い本を読みました。", "私|は|昨日|図書館|で|面白い|本|を|読み|ま|した|。"),
    ("icu:ja", "今日は天気がいいので、公園を散歩します。", "今日|は|天気|が|いい|ので|、|公園|を|散歩|し|ます|。"),
    ("icu:ja", "東京（とうきょう）の首都", "東京|（|とう|きょう|）|の|首都"),
    ("icu:zh", "我们昨天在图书馆看书。", "我们|昨天|在|图书|馆|看书|。"),
    ("icu:zh", "他喜歡喝綠茶，不喜歡咖啡。", "他|喜歡|喝|綠茶|，|不喜歡|咖啡|。"),
    ("icu:th", "เด็กผู้หญิงกำลังกินข้าวในครัว", "เด็ก|ผู้|หญิง|กำลัง|กิน|ข้าว|ใน|ครัว"),
    ("icu:th", "วันนี้อากาศดีมาก", "วัน|นี้|อากาศ|ดี|มาก"),
    ("icu:km", "សិស្សរៀនភាសាខ្មែរនៅសាលា", "សិស្ស|រៀន|ភាសាខ្មែរ|នៅ|សាលា"),
    ("icu:km", "ខ្ញុំ\u200bស្រលាញ់\u200bប្រទេស", "ខ្ញុំ|\u200b|ស្រលាញ់|\u200b|ប្រទេស"),
    ("icu:lo", "ເດັກນ້ອຍກິນເຂົ້າຢູ່ເຮືອນ", "ເດັກນ້ອຍ|ກິນເຂົ້າ|ຢູ່|ເຮືອນ"),
    ("icu:lo", "ຂ້ອຍຮຽນພາສາລາວ", "ຂ້ອຍ|ຮຽນ|ພາສາ|ລາວ"),
    ("icu:my", "ကလေးများကျောင်းသို့သွားကြသည်။", "ကလေး|များ|ကျောင်း|သို့|သွား|ကြ|သည်|။"),
    ("tibetan", "བོད་ཡིག་ནི་བོད་མིའི་སྐད་ཡིག་ཡིན། །", "བོད་|ཡིག་|ནི་|བོད་|མིའི་|སྐད་|ཡིག་|ཡིན|།| |།"),
    ("tibetan", "ལྷ་ས་ (Lhasa) 3.5", "ལྷ་|ས་| |(|Lhasa|)| |3|.|5"),
]


@pytest.mark.parametrize(("segmenter", "text", "expected"), SENTENCES)
def test_sentences(segmenter: str, text: str, expected: str) -> None:
    assert segment(text, segmenter) == expected.split("|")


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
@given(text=st.text(alphabet=st.sampled_from("ab中国あก་བ ()[]{}（）「」『』【】《》〈〉\u200d\u0301_'.1😀"), max_size=30))
def test_a_bracket_can_only_begin_a_segment(segmenter: str, text: str) -> None:
    brackets = set("()[]{}（）「」『』【】《》〈〉")
    assert brackets < PUNCTUATION
    assert not [s for s in segment(text, segmenter) if brackets.intersection(s[1:])]


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
    assert own == "1"
    assert library == "icu4py-1.2.0"
    assert dictionaries.startswith("icu-78.")
