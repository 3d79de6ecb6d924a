"""The notebooks run from top to bottom, in their short versions, and show what they promise."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import nbclient
import nbformat
import pytest

pytest.importorskip("torch")
from tests.world.chain import Chain

pytestmark = pytest.mark.slow

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "notebooks"
#: Bars of a table as ``make toy`` writes it, with made-up figures.
TABLE = [
    {"arm": arm, "language": lang, "classes": classes, "mean": 0.1, "sd": 0.01}
    for arm in ("balanced", "unbalanced")
    for lang in ("en", "fr")
    for classes in ("head", "tail", "all")
]


NOTEBOOKS = ("look_into_a_curated_set", "train_and_probe", "why_balancing_works")
Outputs = tuple[str, int]


@pytest.fixture(scope="module")
def places(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the notebooks' environment says."""
    root = tmp_path_factory.mktemp("notebooks")
    toy = {"table": TABLE, "runs": [{}] * 5, "steps": 1500, "classes": {"head": 16, "tail": 64}}
    (root / "table.json").write_text(json.dumps(toy))
    short = {"WORLDCLIP_STEPS": "10", "WORLDCLIP_TOY": str(root / "table.json")}
    return {"WORLDCLIP_WORK": str(chain.work), "WORLDCLIP_MODEL": str(root / "model"), **short}


@pytest.fixture(scope="module")
def shown(places: dict[str, str]) -> dict[str, Outputs]:
    """What each notebook printed, and how many pictures it shows.

    One kernel runs them all, since what they import takes longer than what they do; it forgets every name between two of them.
    """
    notebooks = {name: nbformat.read(FOLDER / f"{name}.ipynb", as_version=4) for name in NOTEBOOKS}
    joined = nbformat.v4.new_notebook(metadata=notebooks[NOTEBOOKS[0]].metadata)
    for notebook in notebooks.values():
        joined.cells += [nbformat.v4.new_code_cell("%reset -f"), *notebook.cells]
    with pytest.MonkeyPatch.context() as patch:
        for key, value in places.items():
            patch.setenv(key, value)
        nbclient.NotebookClient(joined, timeout=300, resources={"metadata": {"path": str(FOLDER)}}).execute()
    return {name: outputs_of(notebook) for name, notebook in notebooks.items()}


def outputs_of(notebook: Any) -> Outputs:
    outputs: list[Any] = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    said = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    return said, sum("image/png" in output.get("data", {}) for output in outputs)


def test_there_is_no_other_notebook() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(NOTEBOOKS)


def test_why_balancing_works(shown: dict[str, Outputs]) -> None:
    said, pictures = shown["why_balancing_works"]
    assert "every caption of the smaller set is in the larger one: True" in said
    assert pictures == 3


def test_look_into_a_curated_set(shown: dict[str, Outputs]) -> None:
    said, pictures = shown["look_into_a_curated_set"]
    assert "probability" in said
    assert pictures == 3


def test_train_and_probe(shown: dict[str, Outputs], places: dict[str, str]) -> None:
    said, pictures = shown["train_and_probe"]
    assert "of the images have their own text nearest" in said
    assert pictures == 2
    assert (pathlib.Path(places["WORLDCLIP_MODEL"]) / "open_clip_model.safetensors").is_file()
