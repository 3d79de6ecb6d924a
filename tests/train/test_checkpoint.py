from __future__ import annotations

import os
import pathlib
from typing import Any

import pytest
import torch

from train.checkpoint import load_newest, save_checkpoint
from train.config import InputError

IDENTITY: dict[str, Any] = {"seed": 1}


def state(step: int) -> dict[str, Any]:
    return {"step": step, "identity": IDENTITY, "state_dict": {"w": torch.full((1000,), float(step))}}


def test_the_last_are_kept_and_the_newest_is_loaded(tmp_path: pathlib.Path) -> None:
    assert load_newest(tmp_path, identity=IDENTITY) is None
    for step in (5, 10, 900, 1000):
        save_checkpoint(tmp_path, state(step), keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-0000000900.pt", "step-0000001000.pt"]
    found = load_newest(tmp_path, identity=IDENTITY)
    assert found is not None
    assert found["step"] == 1000
    assert torch.equal(found["state_dict"]["w"], torch.full((1000,), 1000.0))


def test_the_best_one_is_kept_beside_the_last(tmp_path: pathlib.Path) -> None:
    for step in (5, 10, 15):
        save_checkpoint(tmp_path, state(step), keep=1, best=step == 10)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.pt", "step-0000000015.pt"]
    assert torch.load(tmp_path / "best.pt", weights_only=True)["step"] == 10
    found = load_newest(tmp_path, identity=IDENTITY)
    assert found is not None
    assert found["step"] == 15


def test_any_damage_leads_to_the_one_before(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    save_checkpoint(tmp_path, state(1), keep=9)
    path = save_checkpoint(tmp_path, state(2), keep=9)
    whole = path.read_bytes()
    middle = whole.index(torch.full((4,), 2.0).numpy().tobytes()) + 400
    for damaged in (b"", whole[:100], whole[:-1], whole[: len(whole) // 2], whole[:middle] + b"\xff" + whole[middle + 1 :]):
        path.write_bytes(damaged)
        found = load_newest(tmp_path, identity=IDENTITY)
        assert found is not None
        assert found["step"] == 1
    assert caplog.text.count("is broken") == 5


def test_a_broken_newer_one_does_not_push_out_a_whole_one(tmp_path: pathlib.Path) -> None:
    save_checkpoint(tmp_path, state(1), keep=1)
    (tmp_path / "step-0000000009.pt").write_bytes(b"broken")
    save_checkpoint(tmp_path, state(2), keep=1)
    found = load_newest(tmp_path, identity=IDENTITY)
    assert found is not None
    assert found["step"] == 2


def test_what_a_killed_run_left_goes_and_the_best_one_is_there_before_the_newest(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "step-0000000001.partial").write_bytes(b"cut")
    save_checkpoint(tmp_path, state(2), keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000000002.pt"]
    taken: list[str] = []

    def replace(_: str, path: pathlib.Path) -> None:
        taken.append(path.name)

    monkeypatch.setattr(os, "replace", replace)
    save_checkpoint(tmp_path, state(3), keep=1, best=True)
    assert taken == ["best.pt", "step-0000000003.pt"]


def test_a_file_of_another_program_is_broken(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    save_checkpoint(tmp_path, state(1), keep=1)
    torch.save({"step": 2}, tmp_path / "step-0000000002.pt")
    found = load_newest(tmp_path, identity=IDENTITY)
    assert found is not None
    assert found["step"] == 1
    assert "step-0000000002.pt is broken (KeyError: 'identity')" in caplog.text


def test_a_save_that_fails_leaves_the_old_ones(tmp_path: pathlib.Path) -> None:
    save_checkpoint(tmp_path, state(1), keep=1)
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(tmp_path, {"step": 2, "state_dict": lambda: None}, keep=1)
    assert load_newest(tmp_path, identity=IDENTITY) is not None


def test_a_full_disk_is_named_and_leaves_the_old_ones(tmp_path: pathlib.Path) -> None:
    save_checkpoint(tmp_path, state(1), keep=1)
    (tmp_path / "step-0000000002.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        save_checkpoint(tmp_path, state(2), keep=1)
    assert [path.name for path in tmp_path.glob("step-*.pt")] == ["step-0000000001.pt"]


def test_no_code_is_run_from_a_checkpoint(tmp_path: pathlib.Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (tmp_path.joinpath("ran").touch, ())

    torch.save({"step": Evil()}, tmp_path / "step-0000000001.pt")
    with pytest.raises(InputError, match=r"no checkpoint in .* can be read: mend the disk, or delete them to begin at step 0"):
        load_newest(tmp_path, identity=IDENTITY)
    assert not (tmp_path / "ran").exists()


def test_another_identity_is_an_error(tmp_path: pathlib.Path) -> None:
    save_checkpoint(tmp_path, state(1), keep=1)
    with pytest.raises(InputError, match="seed was 1 and is 2"):
        load_newest(tmp_path, identity={"seed": 2})
