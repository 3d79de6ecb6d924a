"""The language identification model of a stage is the same on every machine that works on it."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from balancing.lid import BatchIdentifier, embedded_model
from pipelines.errors import JobError
from pipelines.jobs import run_job
from pipelines.match import MatchConfig, identifier, match_unit, plan
from tests.world.models import ONE_VS_ALL, write_model


@pytest.fixture(autouse=True)
def _a_new_process() -> Iterator[None]:
    """A process opens a model once."""
    identifier.cache_clear()
    yield
    identifier.cache_clear()


def config_of(place: Path, model: Path | None) -> MatchConfig:
    (place / "m.json").write_text(json.dumps(["red star"]), encoding="utf-8")
    run_job("entries", ["--metadata-json", f"en={place}/m.json", "--output", f"{place}/entries"])
    (place / "a.warc.gz").write_bytes(b"")
    chosen = None if model is None else str(model)
    return MatchConfig(input=(f"{place}/a.warc.gz",), entries=f"{place}/entries", output=f"{place}/out", lid_model=chosen)


def test_another_model_on_a_worker_fails_the_job(tmp_path: Path) -> None:
    model = Path(shutil.copy(embedded_model(), tmp_path / "model.ftz"))
    config = config_of(tmp_path, model)
    stage, units = plan(config)
    begun = hashlib.sha256(model.read_bytes()).hexdigest()
    assert (stage.parameters["lid"], stage.parameters["lid_method"]) == (begun, BatchIdentifier.method)
    stage.begin(units)
    # The library reads no further than the last number that it needs: this is another file with the same answers, and nobody could know.
    model.write_bytes(model.read_bytes() + b"\0")
    other = hashlib.sha256(model.read_bytes()).hexdigest()
    identifier.cache_clear()
    with pytest.raises(JobError) as error:
        match_unit(units[0], stage=stage, config=config)
    assert str(error.value) == (
        f"{platform.node()}: --lid-model {model} is another one (SHA-256 {other[:12]}…) than where the job began ({begun[:12]}…): "
        "name a file that every machine sees, such as a gs:// URL"
    )
    assert not stage.has_part(units[0])


def test_another_embedded_model_or_method_on_a_worker_fails_the_job(tmp_path: Path) -> None:
    config = config_of(tmp_path, None)
    stage, units = plan(config)
    stage.begin(units)
    for parameter, said in (
        ("lid", "is another one (SHA-256 "),
        ("lid_method", f"is evaluated by another method ({BatchIdentifier.method}) than where the job began (x), and scores would differ "),
    ):
        elsewhere = replace(stage, parameters={**stage.parameters, parameter: "x"})
        with pytest.raises(JobError) as error:
            match_unit(units[0], stage=elsewhere, config=config)
        assert str(error.value).startswith(f"{platform.node()}: the embedded language identification model {said}")
        assert str(error.value).endswith(": install the same packages on every machine")
    match_unit(units[0], stage=stage, config=config)
    assert stage.has_part(units[0])


def test_a_model_that_takes_longer_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path / "model.bin", loss=ONE_VS_ALL)
    stage, _ = plan(config_of(tmp_path, model))
    assert stage.parameters["lid_method"] == "library"
    said = f"match: the model {model} is evaluated a text at a time, which takes longer: its loss is one vs all, over 9 labels\n"
    assert capsys.readouterr().err.endswith(said)
