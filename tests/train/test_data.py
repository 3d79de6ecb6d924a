from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from balancing.epochs import EpochOrder, Shuffle, share
from balancing.pairs import IMAGES_SCHEMA, image_keys
from balancing.sampling import CHOOSE, uniform
from tests.train.tiny import encode, image_row, square, write_images
from train.config import Config, InputError
from train.data import Reader, find_images


def tokenizer(texts: list[str]) -> torch.Tensor:
    """Two numbers per text: what it is a hash of, so that a sample is recognised."""
    return torch.from_numpy(image_keys(texts).view(np.int64).reshape(-1, 1).copy())


def read(config: Config, *, ranks: int, workers: int, first_step: int = 0) -> list[tuple[list[int], int]]:
    """Every global batch of a run as (what its texts hash to, sum of its pixels)."""
    config = _with(config, workers=workers)
    per_rank = []
    for rank in range(ranks):
        streams = share(range(config.data.streams), rank, ranks)
        reader = Reader(find_images(config.data.paths), config, streams, tokenizer=tokenizer, size=8, first_step=first_step)
        per_rank.append(list(reader.batches(pin_memory=False)))
    out = []
    for parts_of_ranks in zip(*per_rank, strict=True):
        parts = [part for parts in parts_of_ranks for part in parts]
        assert not any(part.bad for part in parts)
        assert len({sum(len(part.tokens) for part in parts) for parts in parts_of_ranks}) == 1
        out.append((torch.cat([p.tokens for p in parts]).flatten().tolist(), int(sum(p.images.long().sum() for p in parts))))
    return out


def _with(config: Config, **data: Any) -> Config:
    return msgspec.structs.replace(config, data=msgspec.structs.replace(config.data, **data))


def test_any_ranks_and_workers_give_the_same_batches_and_a_resume_gives_their_end(config: Callable[..., Config]) -> None:
    whole = read(config(), ranks=1, workers=0)
    assert len(whole) == 12
    assert read(config(), ranks=2, workers=0) == whole
    assert read(config(), ranks=4, workers=0, first_step=7) == whole[7:]
    assert read(config(), ranks=1, workers=3, first_step=3) == whole[3:]
    assert read(config(), ranks=2, workers=1, first_step=5) == whole[5:]


def test_samples_carry_their_own_text_drawn_anew_each_epoch(config: Callable[..., Config], images: pathlib.Path) -> None:
    batches = read(config(), ranks=1, workers=0)
    rows = [row for part in sorted(images.iterdir()) for row in pq.read_table(part).to_pylist()]
    found, groups = find_images([str(images)]), []
    start = 0
    for n in found.rows.tolist():
        groups.append(rows[start : start + n])
        start += n
    drawn = []
    for epoch in (0, 1):
        order = EpochOrder(found.rows, Shuffle(seed=0, batch_size=16, streams=4, shuffle_rows=5), epoch)
        streams = [[pair for g, r in order.blocks(s, 0) for pair in zip(g.tolist(), r.tolist(), strict=True)] for s in range(4)]
        for step in range(5):
            expected = []
            for stream in streams:
                for g, r in stream[step * 4 : step * 4 + 4]:
                    row = groups[g][r]
                    u = uniform(0, epoch, CHOOSE, image_keys([row["image_id"]]))[0]
                    expected.append(row["texts"][int(u * 2)]["text"])
                    drawn.append((row["image_id"], epoch, expected[-1]))
            assert tokenizer(expected).flatten().tolist() == batches[epoch * 5 + step][0]
    texts = {(image, epoch): text for image, epoch, text in drawn}
    both = [image for image, epoch in texts if epoch == 0 and (image, 1) in texts]
    changed = sum(texts[image, 0] != texts[image, 1] for image in both)
    assert 20 < changed < len(both) - 20


def test_what_cannot_be_read_is_named_with_its_file_and_row(config: Callable[..., Config], tmp_path: pathlib.Path) -> None:
    good = encode(square((9, 9, 9), 1))
    rows = [image_row(f"i{n}", good, ["text"]) for n in range(16)]
    rows[3] = image_row("i3", good[: len(good) // 2], ["text"])
    rows[5] = image_row("i5", b"", ["text"])
    rows[9] = image_row("i9", good, [])
    write_images(tmp_path, rows, parts=1, row_group_size=4)
    made = config(data={"paths": [str(tmp_path)]}, train={"steps": 1})
    [part] = Reader(find_images([str(tmp_path)]), made, range(4), tokenizer=tokenizer, size=8, first_step=0)
    named = sorted(what.partition("part-00000.parquet, ")[2].partition(":")[0] for what in part.bad)
    assert named == ["row group 0, row 3, i3", "row group 1, row 1, i5", "row group 2, row 1, i9"]
    assert part.images.shape == (16, 8, 8, 3)
    assert int((part.images.flatten(1).sum(1) == 0).sum()) == 3


def test_inputs_that_cannot_be_used_are_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="give --data"):
        find_images([])
    with pytest.raises(InputError, match=r"no part-\*\.parquet in"):
        find_images([str(tmp_path / "nowhere")])
    cut = write_images(tmp_path / "cut", [image_row("a", b"x", ["t"])], parts=1) / "part-00000.parquet"
    cut.write_bytes(cut.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"cut/part-00000\.parquet cannot be read as Parquet"):
        find_images([str(tmp_path / "cut")])
    (tmp_path / "other").mkdir()
    pq.write_table(pa.table({"image_id": ["a"], "url": ["u"]}), tmp_path / "other" / "part-0.parquet")
    with pytest.raises(InputError, match="has no column jpeg, texts"):
        find_images([str(tmp_path / "other")])
    write_images(tmp_path / "empty", [], parts=2)
    with pytest.raises(InputError, match="no images in"):
        find_images([str(tmp_path / "empty")])
    unfinished = write_images(tmp_path / "unfinished", [image_row("a", b"x", ["t"])], parts=1)
    (unfinished / "stage.json").write_text("{}")
    with pytest.raises(InputError, match="not finished"):
        find_images([str(unfinished)])


def test_parts_without_rows_and_single_files_are_fine(tmp_path: pathlib.Path, images: pathlib.Path) -> None:
    pq.write_table(IMAGES_SCHEMA.empty_table(), tmp_path / "part-9.parquet")
    found = find_images([str(tmp_path), str(images / "part-00001.parquet"), f"file://{images}"])
    assert (int(found.rows.sum()), len({file for file, _ in found.groups})) == (28 + 83, 5)
    assert found.fingerprint != find_images([str(images)]).fingerprint
