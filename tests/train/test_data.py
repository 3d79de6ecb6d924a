from __future__ import annotations

import functools
import io
import multiprocessing
import os
import pathlib
import shutil
import signal
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from balancing.epochs import EpochOrder, Shuffle, share
from balancing.pairs import IMAGES_SCHEMA, image_keys, pair_keys
from balancing.sampling import CHOOSE, KEEP, uniform
from tests.train.tiny import encode, image_row, square, write_images
from train.config import Config, InputError
from train.data import Reader, find_images, open_sources
from train.distributed import Ranks

Make = Callable[..., Config]
ALONE = Ranks(rank=0, count=1, device=torch.device("cpu"))


def tokenizer(texts: list[str]) -> torch.Tensor:
    """Two numbers per text: what it is a hash of, so that a sample is recognised."""
    return torch.from_numpy(image_keys(texts).view(np.int64).reshape(-1, 1).copy())


def read(config: Config, *, ranks: int, workers: int, first_step: int = 0) -> list[tuple[list[int], int]]:
    """Every global batch of a run as (what its texts hash to, sum of its pixels)."""
    config = _with(config, workers=workers)
    per_rank, sources = [], open_sources(config, ALONE)
    for rank in range(ranks):
        streams = share(range(config.data.streams), rank, ranks)
        reader = Reader(sources, config, streams, tokenizer=tokenizer, size=8, first_step=first_step)
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


def test_any_ranks_and_workers_give_the_same_batches_and_a_resume_gives_their_end(config: Make) -> None:
    whole = read(config(), ranks=1, workers=0)
    assert len(whole) == 12
    assert read(config(), ranks=2, workers=0) == whole
    assert read(config(), ranks=4, workers=0, first_step=7) == whole[7:]
    assert read(config(), ranks=1, workers=3, first_step=3) == whole[3:]
    assert read(config(), ranks=2, workers=1, first_step=5) == whole[5:]


def test_workers_go_on_when_the_scheduler_signals_every_process(config: Make) -> None:
    """The trainer, which gets the signals too, needs its workers until it has saved."""
    reading = _with(config(), workers=2)
    sources, streams = open_sources(reading, ALONE), range(reading.data.streams)
    batches = Reader(sources, reading, streams, tokenizer=tokenizer, size=8, first_step=0).batches(pin_memory=False)
    found = [next(batches)]
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for worker in workers:
        for number in (signal.SIGTERM, signal.SIGUSR1):
            os.kill(worker.pid or 0, number)
    found += batches
    assert [torch.cat([part.tokens for part in parts]).flatten().tolist() for parts in found] == [
        tokens for tokens, _ in read(config(), ranks=1, workers=0)
    ]


def test_samples_carry_their_own_text_drawn_anew_each_epoch(config: Make, images: pathlib.Path) -> None:
    batches = read(config(), ranks=1, workers=0)
    rows = _rows(images)
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


# -- online curation -----------------------------------------------------------------------------------------------------------------


def text_of(image: str, number: int, lang: str, probability: float) -> dict[str, Any]:
    text = f"{lang} {image} {number}"
    return {"text": text, "lang": lang, "entries": [1], "pair_key": int(pair_keys([image], [text])[0]), "probability": probability}


@pytest.fixture(scope="session")
def siblings(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """150 images with 1 to 5 texts in three languages, each with a probability of its own; one part has no rows."""
    rng, rows = np.random.default_rng(5), []
    for i in range(150):
        row = image_row(f"image {i}", encode(square((i, 99, 99), i)), [])
        langs = sorted(rng.choice(["de", "en", "zh"], rng.integers(1, 6), p=[0.2, 0.7, 0.1]).tolist())
        row["texts"] = [text_of(f"image {i}", n, lang, float(rng.random())) for n, lang in enumerate(langs)]
        rows.append(row)
    folder = write_images(tmp_path_factory.mktemp("siblings"), rows)
    pq.write_table(IMAGES_SCHEMA.empty_table(), folder / "part-00007.parquet")
    return folder


def drawn_by_a_loop(folder: pathlib.Path, *, seed: int, epoch: int) -> list[str]:
    """The texts that an epoch of online curation takes."""
    out = []
    for row in _rows(folder):
        text = row["texts"][int(uniform(seed, epoch, CHOOSE, image_keys([row["image_id"]]))[0] * len(row["texts"]))]
        if uniform(seed, epoch, KEEP, np.array([text["pair_key"]], dtype=np.uint64))[0] < text["probability"]:
            out.append(text["text"])
    return out


def test_online_every_epoch_has_what_is_drawn_for_it_each_once(config: Make, siblings: pathlib.Path) -> None:
    made = config(data={"paths": [str(siblings)], "curation": "online", "curation_seed": 3}, train={"steps": 30, "seed": 9})
    batches, step, lengths = read(made, ranks=1, workers=0), 0, []
    [source] = open_sources(made, ALONE)
    for epoch in range(20):
        expected = tokenizer(drawn_by_a_loop(siblings, seed=3, epoch=epoch)).flatten().tolist()
        steps = len(expected) // 16
        assert [source.epochs.place(step + i) for i in range(steps) if step + i < 30] == [(epoch, i) for i in range(min(steps, 30 - step))]
        seen = [text for texts, _ in batches[step : step + steps] for text in texts]
        assert len(set(seen)) == len(seen)
        assert set(seen) <= set(expected)
        lengths.append(len(expected))
        step += steps
        if step >= 30:
            break
    assert step >= 30
    assert len(set(lengths)) > 3
    assert 16 < min(lengths) <= max(lengths) < 120


def test_online_any_ranks_and_workers_give_the_same_batches_and_a_resume_gives_their_end(config: Make, siblings: pathlib.Path) -> None:
    def made(steps: int = 20) -> Config:
        online = {"paths": [str(siblings)], "curation": "online", "language_temperature": 1.5}
        return config(data=online, train={"steps": steps, "batch_size": 8})

    whole = read(made(), ranks=1, workers=0)
    assert len(whole) == 20
    assert read(made(), ranks=2, workers=2) == whole
    assert read(made(9), ranks=1, workers=0) == whole[:9]
    for first_step in (1, 7, 12, 19):
        assert read(made(), ranks=4 if first_step % 2 else 1, workers=0, first_step=first_step) == whole[first_step:]
    assert read(made(), ranks=1, workers=3, first_step=5) == whole[5:]


def test_what_is_drawn_is_part_of_what_a_run_is(config: Make, siblings: pathlib.Path, images: pathlib.Path) -> None:
    def identity(**data: Any) -> str:
        return "; ".join(of.identity for of in open_sources(config(data={"paths": [str(siblings)], **data}, train={"steps": 1}), ALONE))

    plain = find_images([str(siblings)]).fingerprint
    assert identity() == plain
    assert identity(curation="online", curation_seed=4) == f"{plain}, online with seed 4"
    assert identity(language_temperature=2) == f"{plain}, language temperature 2"
    sets = [{"paths": [str(siblings)], "weight": 3}, {"paths": [str(images)]}]
    assert identity(paths=[], sets=sets) == f"{plain}, 3 streams; {find_images([str(images)]).fingerprint}, 1 streams"


def test_languages_are_thinned_out_in_either_curation(config: Make, tmp_path: pathlib.Path) -> None:
    langs = ["en"] * 320 + ["de"] * 80
    rows = [image_row(f"{i}", b"", []) | {"texts": [text_of(f"{i}", 0, lang, 1.0)]} for i, lang in enumerate(langs)]
    write_images(tmp_path, rows, row_group_size=50)
    for curation in ("offline", "online"):
        data = {"paths": [str(tmp_path)], "curation": curation, "language_temperature": 2, "streams": 1}
        made = config(data=data, train={"steps": 8, "batch_size": 60})
        [source] = open_sources(made, ALONE)
        assert source.draw.languages == {"en": 0.5, "de": 1.0}
        reader = Reader([source], made, range(1), tokenizer=tokenizer, size=8, first_step=0)
        for epoch in range(len(source.epochs.rows)):
            taken = [text for group in range(len(source.images.groups)) for text in reader.read(source, epoch, group).texts.to_pylist()]
            german = sum(text.startswith("de") for text in taken)
            assert german == 80
            assert abs(len(taken) - german - 160) < 5 * 80**0.5


# -- several sets --------------------------------------------------------------------------------------------------------------------


def test_sets_share_every_batch_by_weight_and_go_through_their_own_epochs(
    config: Make, siblings: pathlib.Path, images: pathlib.Path
) -> None:
    def made(weights: tuple[float, float]) -> Config:
        sets = [{"paths": [str(folder)], "weight": weight} for folder, weight in zip((siblings, images), weights, strict=True)]
        return config(data={"paths": [], "sets": sets}, train={"steps": 20})

    batches = read(made((3.0, 1.0)), ranks=1, workers=0)
    assert read(made((30.0, 10.0)), ranks=2, workers=2, first_step=3) == batches[3:]
    assert read(made((3.0, 1.0)), ranks=4, workers=0, first_step=11) == batches[11:]
    first, second = ([text for texts, _ in batches for text in texts[place]] for place in (slice(12), slice(12, 16)))
    image_of = {text: row["image_id"] for row in _rows(siblings) for text in _texts(row)}
    # 150 images are 12 batches of 12 in an epoch, 83 are 20 of 4.
    assert len({image_of[text] for text in first[:144]}) == 144
    assert len({image_of[text] for text in first[144:]}) == 96
    assert first[:96] != first[144:]
    assert len(second) == 80
    assert set(second) <= {text for row in _rows(images) for text in _texts(row)}


def _rows(folder: pathlib.Path) -> list[dict[str, Any]]:
    return [row for part in sorted(folder.iterdir()) for row in pq.read_table(part).to_pylist()]


def _texts(row: dict[str, Any]) -> list[int]:
    return tokenizer([text["text"] for text in row["texts"]]).flatten().tolist()


def test_one_set_is_the_same_as_paths(config: Make, images: pathlib.Path) -> None:
    alone = config(data={"paths": [], "sets": [{"paths": [str(images)], "weight": 0.3}]})
    assert read(alone, ranks=1, workers=0) == read(config(), ranks=1, workers=0)


def test_sets_that_cannot_be_used_are_told(config: Make, images: pathlib.Path, siblings: pathlib.Path) -> None:
    sets = [{"paths": [str(images)], "weight": 100}, {"paths": [str(siblings)]}]
    with pytest.raises(InputError, match=r"the set .*siblings0 has too small a weight for one of 4 data\.streams: give more of either"):
        open_sources(config(data={"paths": [], "sets": sets}), ALONE)
    with pytest.raises(InputError, match=r"data\.paths \(--data\) and data\.sets exclude each other"):
        config(data={"sets": sets})
    with pytest.raises(InputError, match="need each other"):
        config(data={"cache": "/somewhere"})
    with pytest.raises(InputError, match=r"^83 images are less than one batch of 96$"):
        open_sources(config(data={"paths": [], "sets": [sets[0], {**sets[1], "weight": 100 / 3}]}, train={"batch_size": 128}), ALONE)
    with pytest.raises(InputError, match=r"^\d+ images in epoch 0 are less than one batch of 128$"):
        open_sources(config(data={"paths": [str(siblings)], "curation": "online"}, train={"batch_size": 128}), ALONE)


# -- bad input -----------------------------------------------------------------------------------------------------------------------


@functools.cache
def picture(mode: str, size: tuple[int, int], kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("curation", ["offline", "online"])
def test_what_cannot_be_read_is_named_with_its_file_and_row(config: Make, tmp_path: pathlib.Path, curation: str) -> None:
    good = encode(square((9, 9, 9), 1))
    rows = [image_row(f"i{n}", good, ["text"]) for n in range(16)]
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("white", "red", "blue")]
    frames[0].save(tmp_path / "animation.gif", save_all=True, append_images=frames[1:])
    rows[1]["jpeg"] = picture("CMYK", (30, 20), "JPEG")
    rows[2]["jpeg"] = (tmp_path / "animation.gif").read_bytes()
    rows[3]["jpeg"] = good[: len(good) // 2]
    rows[4]["jpeg"] = picture("RGB", (1, 1), "PNG")
    rows[5]["jpeg"] = b""
    rows[6]["jpeg"] = picture("1", (20_000, 20_000), "PNG")
    rows[7]["jpeg"] = picture("1", (8_000, 8_000), "PNG")
    rows[9]["texts"] = []
    rows[10] = image_row("i10", good, [""])
    write_images(tmp_path, rows, parts=1, row_group_size=4)
    made = config(data={"paths": [str(tmp_path)], "curation": curation}, train={"steps": 1})
    [part] = Reader(open_sources(made, ALONE), made, range(4), tokenizer=tokenizer, size=8, first_step=0)
    named = dict(what.partition("part-00000.parquet, ")[2].split(": ", 1) for what in part.bad)
    assert len(part.bad) == len(named)
    assert sorted(named) == [
        "row group 0, row 3, i3",
        "row group 1, row 1, i5",
        "row group 1, row 2, i6",
        "row group 1, row 3, i7",
        "row group 2, row 1, i9",
        "row group 2, row 2, i10",
    ]
    assert "400000000 pixels" in named["row group 1, row 2, i6"]
    assert named["row group 1, row 3, i7"] == "8000 x 8000 are more than 50000000 pixels"
    assert named["row group 2, row 1, i9"] == named["row group 2, row 2, i10"] == "no text"
    assert part.images.shape == (16, 8, 8, 3)


@pytest.mark.parametrize(
    ("field", "said"),
    [("pair_key", "pair_key"), ("probability", "probability"), ("lang", "lang"), ("text", "text")],
)
def test_a_set_without_what_curation_needs_is_told(config: Make, tmp_path: pathlib.Path, field: str, said: str) -> None:
    kept = [{key: value for key, value in text_of("a", 0, "en", 0.5).items() if key != field}]
    pq.write_table(pa.table({"image_id": ["a"], "jpeg": [b""], "texts": [kept]}), tmp_path / "part-0.parquet")
    data = {"paths": [str(tmp_path)], "curation": "online", "language_temperature": 2}
    with pytest.raises(InputError, match=rf"part-0\.parquet has texts without {said} \(list<.*; the job images writes all that"):
        open_sources(config(data=data), ALONE)


def test_texts_that_are_only_strings_and_a_missing_probability_are_told(config: Make, tmp_path: pathlib.Path) -> None:
    pq.write_table(pa.table({"image_id": ["a"], "jpeg": [b""], "texts": [["a text"]]}), tmp_path / "part-0.parquet")
    with pytest.raises(InputError, match="has texts without text"):
        find_images([str(tmp_path)])
    texts = [text_of("a", n, "en", 0.5) | {"pair_key": n} for n in range(2)]
    rows = {"image_id": ["a"], "jpeg": [b""], "texts": [[*texts, texts[0] | {"probability": None}]]}
    pq.write_table(pa.table(rows), tmp_path / "part-0.parquet")
    with pytest.raises(InputError, match=r"part-0\.parquet, row groups 0 to 0: a text has no probability"):
        open_sources(config(data={"paths": [str(tmp_path)], "curation": "online"}), ALONE)


def test_a_file_that_changes_while_a_run_reads_it_is_told(config: Make, siblings: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shutil.copytree(siblings, tmp_path, dirs_exist_ok=True)
    made = config(data={"paths": [str(tmp_path)], "curation": "online"})
    [source] = open_sources(made, ALONE)
    sure = pq.read_table(tmp_path / "part-00000.parquet").to_pylist()
    for row in sure:
        row["texts"] = [text | {"probability": 1.0} for text in row["texts"]]
    pq.write_table(pa.Table.from_pylist(sure, schema=IMAGES_SCHEMA), tmp_path / "part-00000.parquet", row_group_size=7)
    reader = Reader([source], made, range(4), tokenizer=tokenizer, size=8, first_step=0)
    with pytest.raises(InputError, match=r"part-00000\.parquet is another one than when the run began"):
        list(reader.batches(pin_memory=False))


def test_inputs_that_cannot_be_used_are_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="give --data"):
        find_images([])
    with pytest.raises(InputError, match="gs2://x: Protocol not known: gs2"):
        find_images(["gs2://x"])
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
