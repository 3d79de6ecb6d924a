from __future__ import annotations

import io
import pathlib
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from balancing.pairs import IMAGES_SCHEMA, image_keys
from balancing.sampling import CHOOSE, uniform
from tests.train.tiny import encode, image_row, square, write_images
from train.config import Config, InputError, parse
from train.data import EpochOrder, Reader, crop_box, decode, find_images, share


def tokenizer(texts: list[str]) -> torch.Tensor:
    """Two numbers per text: what it is a hash of, so that a sample is recognised."""
    return torch.from_numpy(image_keys(texts).view(np.int64).reshape(-1, 1).copy())


def samples(order: EpochOrder, streams: int, step: int = 0) -> list[list[tuple[int, int]]]:
    """(row group, row) of every sample of each stream from a step on."""
    return [[pair for g, r in order.blocks(s, step) for pair in zip(g.tolist(), r.tolist(), strict=True)] for s in range(streams)]


def shape(*, batch_size: int, streams: int, shuffle_rows: int, seed: int) -> Config:
    train, data = {"steps": 1, "batch_size": batch_size, "seed": seed}, {"streams": streams, "shuffle_rows": shuffle_rows}
    return parse({"model": {"name": ""}, "train": train, "data": data})


@st.composite
def orders(draw: st.DrawFn) -> tuple[np.ndarray, Config, EpochOrder]:
    rows = np.array(draw(st.lists(st.integers(0, 30), min_size=1, max_size=12)))
    streams, per_step = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    seed, shuffle_rows = draw(st.integers(0, 5)), draw(st.integers(1, 17))
    config = shape(batch_size=streams * per_step, streams=streams, shuffle_rows=shuffle_rows, seed=seed)
    return rows, config, EpochOrder(rows, config, draw(st.integers(0, 5)))


@given(orders())
@settings(max_examples=200, deadline=None)
def test_an_epoch_gives_each_sample_once_and_leaves_out_less_than_a_batch(drawn: tuple[np.ndarray, Config, EpochOrder]) -> None:
    rows, config, order = drawn
    per_stream = samples(order, config.data.streams)
    seen = [sample for stream in per_stream for sample in stream]
    everything = {(g, r) for g, n in enumerate(rows) for r in range(n)}
    assert {len(stream) for stream in per_stream} == {order.steps * order.per_step}
    assert len(set(seen)) == len(seen)
    assert set(seen) <= everything
    assert len(everything) - len(seen) == rows.sum() % config.train.batch_size


@given(orders(), st.integers(0, 40))
@settings(max_examples=200, deadline=None)
def test_from_a_step_on_is_the_end_of_the_whole(drawn: tuple[np.ndarray, Config, EpochOrder], step: int) -> None:
    _, config, order = drawn
    whole = samples(order, config.data.streams)
    assert samples(order, config.data.streams, step) == [stream[step * order.per_step :] for stream in whole]


@given(st.integers(1, 40), st.integers(1, 8), st.integers(1, 8))
def test_shares_laid_side_by_side_are_the_whole(n: int, ranks: int, workers: int) -> None:
    whole = [x for r in range(ranks) for w in range(workers) for x in share(share(range(n), r, ranks), w, workers)]
    assert whole == list(range(n))


def test_seed_and_epoch_change_the_order_and_nothing_else_does() -> None:
    rows = np.array([40, 40, 40])
    configs = [shape(batch_size=12, streams=3, shuffle_rows=16, seed=seed) for seed in (0, 0, 1, 0)]
    found = [samples(EpochOrder(rows, config, epoch), 3) for config, epoch in zip(configs, (0, 0, 0, 1), strict=True)]
    assert found[0] == found[1]
    assert len({str(order) for order in found}) == 3


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
        order = EpochOrder(found.rows, config(), epoch)
        streams = samples(order, 4)
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


@given(st.integers(1, 3000), st.integers(1, 3000), st.lists(st.floats(0, 1, exclude_max=True), min_size=4, max_size=4))
@settings(max_examples=300, deadline=None)
def test_a_crop_lies_in_the_image_and_has_an_allowed_ratio(width: int, height: int, draws: list[float]) -> None:
    left, top, w, h = crop_box(width, height, np.array(draws), (0.3, 1.0))
    assert left >= 0
    assert top >= 0
    assert left + w <= width * (1 + 1e-9)
    assert top + h <= height * (1 + 1e-9)
    assert 3 / 4 - 1e-6 <= w / h <= 4 / 3 + 1e-6
    if 3 / 4 <= width / height <= 4 / 3:
        assert w * h == pytest.approx(width * height * (0.3 + 0.7 * draws[0]), rel=1e-6)


@pytest.mark.parametrize(
    ("mode", "size", "kind"), [("L", (1, 1), "PNG"), ("CMYK", (40, 30), "JPEG"), ("P", (300, 7), "GIF"), ("RGBA", (9, 200), "PNG")]
)
def test_any_kind_of_image_becomes_rgb(mode: str, size: tuple[int, int], kind: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind)
    assert decode(buffer.getvalue(), 16, np.array([0.5, 0.5, 0.99, 0.99]), (0.9, 1.0)).shape == (16, 16, 3)


def test_a_jpeg_decoded_at_a_fraction_of_its_size_is_nearly_the_same_picture() -> None:
    x = np.linspace(0, 255, 640)
    picture = np.stack(np.broadcast_arrays(x[None, :], x[::-1, None], 100.0), axis=-1).astype(np.uint8)
    jpeg, png = io.BytesIO(), io.BytesIO()
    Image.fromarray(picture).save(jpeg, "JPEG", quality=95)
    Image.fromarray(picture).save(png, "PNG")
    draws = np.array([0.2, 0.4, 0.6, 0.8])
    fast, exact = (decode(b.getvalue(), 64, draws, (0.5, 1.0)).astype(int) for b in (jpeg, png))
    assert np.abs(fast - exact).max() <= 4
