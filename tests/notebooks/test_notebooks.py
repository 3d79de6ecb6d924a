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

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "notebooks"
#: Bars of a table as ``make toy`` writes it, with made-up figures.
TABLE = [
    {"arm": arm, "language": lang, "classes": classes, "mean": 0.1, "sd": 0.01}
    for arm in ("balanced", "unbalanced")
    for lang in ("en", "fr")
    for classes in ("head", "tail", "all")
]


def run_notebook(name: str, monkeypatch: pytest.MonkeyPatch, **environment: str) -> tuple[str, int]:
    """Run a notebook; what it printed, and how many pictures it shows."""
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(FOLDER)}}).execute()
    outputs: list[Any] = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    said = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    return said, sum("image/png" in output.get("data", {}) for output in outputs)


def test_there_is_no_other_notebook() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == ["look_into_a_curated_set", "train_and_probe", "why_balancing_works"]


def test_why_balancing_works(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = {"table": TABLE, "runs": [{}] * 5, "steps": 1500, "classes": {"head": 16, "tail": 64}}
    (tmp_path / "table.json").write_text(json.dumps(toy))
    said, pictures = run_notebook("why_balancing_works", monkeypatch, WORLDCLIP_TOY=str(tmp_path / "table.json"))
    assert "every caption of the smaller set is in the larger one: True" in said
    assert pictures == 3


def test_look_into_a_curated_set(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    said, pictures = run_notebook("look_into_a_curated_set", monkeypatch, WORLDCLIP_WORK=str(chain.work))
    assert "probability" in said
    assert pictures == 3


def test_train_and_probe(chain: Chain, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = {"WORLDCLIP_WORK": str(chain.work), "WORLDCLIP_MODEL": str(tmp_path / "model")}
    said, pictures = run_notebook("train_and_probe", monkeypatch, **places, WORLDCLIP_STEPS="10")
    assert "of the images have their own text nearest" in said
    assert pictures == 2
    assert (tmp_path / "model" / "open_clip_model.safetensors").is_file()
