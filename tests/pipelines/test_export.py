"""Webdataset shards: their bytes, their books, and open_clip's own reader and trainer on them."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from balancing.gather import CURATED_COLUMNS, gather_images
from balancing.pairs import IMAGES_SCHEMA
from metadata.tally import Tally
from pipelines.errors import JobError
from pipelines.jobs import run_job
from pipelines.part import read_parts
from pipelines.stage import Stage, Unit, open_stage
from pipelines.verify import check
from tests.pipelines.conftest import contents
from tests.pipelines.image_sets import make_images, picture, rows_of, write_curated, write_files
from tests.pipelines.pools import PoolShape, write_pool

#: An image in four is a PNG, one in five has two texts.
BODIES = [picture(i, kind="PNG" if i % 4 == 0 else "JPEG") for i in range(48)]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("export")
    wanted = write_files(root / "files", BODIES)
    wanted = [(id, url, [*texts, "ein „zweiter“ Text"] if i % 5 == 0 else texts) for i, (id, url, texts) in enumerate(wanted)]
    make_images(write_curated(root / "curated", wanted), root / "images", "--allow-files", "--images-per-part", "20")
    export(root / "images", root / "tars")
    return root


def export(images: Path, output: Path, *more: str) -> dict[str, Any]:
    """Export; the books."""
    run_job("export", ["--images", str(images), "--output", str(output), *more])
    return dict(open_stage(str(output), "export").counters)


def members(place: Path) -> list[tuple[str, bytes]]:
    """Names and contents of all files in the shards, in order."""
    out = []
    for path in sorted(place.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file
                assert (member.mtime, member.uid, member.gid, member.uname, member.mode) == (0, 0, 0, "", 0o644)
                out.append((member.name, file.read()))
    return out


def test_every_image_becomes_a_sample_with_one_of_its_texts(work: Path) -> None:
    images, found = rows_of(work / "images"), members(work / "tars")
    books = open_stage(f"{work}/tars", "export").counters
    assert (books["read"], books["emitted"], books["dropped"]) == (58, 48, {"not_chosen": 10})
    assert len(found) == 3 * 48
    parts = open_stage(f"{work}/images", "images").parts
    assert len(parts) == 3
    keys = [f"{shard:05}{place:04}" for shard, part in enumerate(parts) for place in range(part["rows"])]
    listed = rows_of(work / "tars", "export")
    for key, image, row, *files in zip(keys, images, listed, found[::3], found[1::3], found[2::3], strict=True):
        kind = "png" if image["jpeg"].startswith(b"\x89PNG") else "jpg"
        assert [name for name, _ in files] == [f"{key}.{extension}" for extension in (kind, "txt", "json")]
        about = {name: image[name] for name in ("image_id", "url", "width", "height", "sha256")}
        caption = files[1][1].decode()
        assert files[0][1] == image["jpeg"]
        assert caption in {text["text"] for text in image["texts"]}
        assert json.loads(files[2][1]) == row == {**about, "key": key, "caption": caption, "lang": "en"}
    assert json.loads((work / "tars" / "sizes.json").read_text()) == {f"{i:05}.tar": part["rows"] for i, part in enumerate(parts)}
    # Both texts of an image are drawn.
    second = [row["caption"].startswith("ein") for row in listed if int(row["image_id"][3:]) % 5 == 0]
    assert 0 < sum(second) < len(second)


def test_all_texts(work: Path, tmp_path: Path) -> None:
    books = export(work / "images", tmp_path / "tars", "--texts", "all")
    assert (books["read"], books["emitted"], books["dropped"]) == (58, 58, {})
    wanted = Counter((row["image_id"], text["text"]) for row in rows_of(work / "images") for text in row["texts"])
    assert Counter((row["image_id"], row["caption"]) for row in rows_of(tmp_path / "tars", "export")) == wanted


def test_the_same_bytes_after_a_kill(work: Path, tmp_path: Path) -> None:
    expected = contents(work / "tars")
    shutil.copytree(work / "tars", tmp_path / "tars")
    # Killed before the second shard was listed, and in the middle of the third.
    for name in ("_SUCCESS", "manifest.json", "part-00001.parquet", "part-00002.parquet", "00002.tar", "sizes.json"):
        (tmp_path / "tars" / name).unlink()
    (tmp_path / "tars" / ".tmp-0").write_bytes(b"half a shard")
    kept = (tmp_path / "tars" / "00000.tar").stat().st_mtime_ns
    export(work / "images", tmp_path / "tars")
    assert contents(tmp_path / "tars") == expected
    assert (tmp_path / "tars" / "00000.tar").stat().st_mtime_ns == kept
    with pytest.raises(JobError, match="texts was 'chosen' and is 'all'"):
        export(work / "images", tmp_path / "tars", "--texts", "all")


def test_verify_finds_tars_that_are_not_those_that_are_listed(work: Path, tmp_path: Path) -> None:
    assert check(f"{work}/tars")[0].faults == []
    shutil.copytree(work / "tars", tmp_path / "tars")
    changed, gone = (tmp_path / "tars" / f"{i:05}.tar" for i in (0, 1))
    content = changed.read_bytes()
    changed.write_bytes(content.replace(b"\xff\xd9", b"\xff\xd8", 1))
    gone.unlink()
    (tmp_path / "tars" / "sizes.json").write_text("{}")
    before, after = (hashlib.sha256(data).hexdigest()[:12] for data in (content, changed.read_bytes()))
    assert check(f"{tmp_path}/tars")[0].faults == [
        f"00000.tar is another tar than part-00000.parquet lists (checksum {after}…, not {before}…)",
        "00001.tar is gone",
        "sizes.json does not hold the samples of each tar",
    ]


def test_images_to_leave_out_are_counted_by_their_texts(work: Path, tmp_path: Path) -> None:
    (tmp_path / "down.txt").write_text("id-0000\nid-0001\nid-0002\n")
    books = export(work / "images", tmp_path / "tars", "--drop-ids", str(tmp_path / "down.txt"))
    assert books["dropped"] == {"image_dropped": 4, "not_chosen": 9}
    assert {row["image_id"] for row in rows_of(tmp_path / "tars", "export")} == {f"id-{i:04}" for i in range(3, 48)}


def write_images(place: Path, rows: list[dict[str, Any]], **parameters: Any) -> None:
    """A finished stage of images, of which only what is exported matters."""
    stage = Stage(url=str(place), kind="images", parameters=parameters)
    stage.begin([Unit(name="00000", path="0"), Unit(name="00001", path="1")])
    for i, unit in enumerate(stage.units()):
        mine = [{"jpeg": b"\xff\xd8", "width": 1, "height": 1, "sha256": "00", **row} for row in rows[i::2]]
        stage.write_part(unit, pa.Table.from_pylist(mine, schema=IMAGES_SCHEMA), Tally(read=len(mine), emitted=len(mine)))
    stage.finish()


TEXT = {"text": "a", "lang": "en", "entries": [1], "pair_key": 1, "probability": 1.0}


def test_labels_drop_by_value(tmp_path: Path) -> None:
    labels = {"a": ["nsfw", "sketch"], "b": ["sketch"], "c": [], "d": None, "e": ["csam"]}
    write_images(tmp_path / "images", [{"image_id": id, "labels": of, "texts": [TEXT]} for id, of in labels.items()])
    books = export(tmp_path / "images", tmp_path / "tars", "--drop-labels", "csam,nsfw")
    assert (books["emitted"], books["dropped"]) == (3, {"label_dropped": 2})
    assert {row["image_id"] for row in rows_of(tmp_path / "tars", "export")} == {"b", "c", "d"}


def test_labels_that_no_image_has_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = {"a": ["nsfw"], "b": None, "c": [], "d": ["art"]}
    write_images(tmp_path / "images", [{"image_id": id, "labels": of, "texts": [TEXT]} for id, of in labels.items()])
    export(tmp_path / "images", tmp_path / "both", "--drop-labels", "nsfw,art")
    assert capsys.readouterr().err == ""
    books = export(tmp_path / "images", tmp_path / "one", "--drop-labels", "nsfw,nswf")
    assert books["dropped"] == {"label_dropped": 1}
    assert capsys.readouterr().err == "export: no image has the label nswf: --drop-labels leaves none out for it\n"


@pytest.mark.parametrize("column", [True, False])
def test_labels_of_images_of_which_nobody_said_anything_are_refused(tmp_path: Path, column: bool) -> None:
    stage = Stage(url=f"{tmp_path}/images", kind="images", parameters={})
    stage.begin([Unit(name="0", path="0")])
    rows = [{"image_id": "a", "jpeg": b"", "width": 1, "height": 1, "sha256": "", "texts": [TEXT]}]
    table = pa.Table.from_pylist(rows, schema=IMAGES_SCHEMA)
    stage.write_part(stage.units()[0], table if column else table.drop(["labels"]), Tally(read=1, emitted=1))
    stage.finish()
    with pytest.raises(JobError, match=r"--drop-labels nsfw: nobody has said anything of the images .* their labels are null"):
        export(tmp_path / "images", tmp_path / "tars", "--drop-labels", "nsfw")
    assert not (tmp_path / "tars").exists()


def test_shards_without_a_sample_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = {"a": ["nsfw"], "b": [], "c": ["nsfw"]}
    write_images(tmp_path / "images", [{"image_id": id, "labels": of, "texts": [TEXT]} for id, of in labels.items()])
    export(tmp_path / "images", tmp_path / "tars", "--drop-labels", "nsfw")
    assert capsys.readouterr().err == "export: 1 of 2 shards hold no sample: 00000.tar\n"
    assert json.loads((tmp_path / "tars" / "sizes.json").read_text()) == {"00000.tar": 0, "00001.tar": 1}


def test_a_set_that_keeps_all_texts_gives_the_set_that_balance_draws(tmp_path: Path) -> None:
    w = str(tmp_path)
    write_pool(w, PoolShape(pairs=2_000, parts=2, entries=200))
    pool = ["--matched", f"{w}/matched", "--siblings", f"{w}/siblings"]
    run_job("dedup", ["--matched", f"{w}/matched", "--output", f"{w}/siblings"])
    run_job("count", [*pool, "--entries", f"{w}/entries", "--output", f"{w}/counts"])
    run_job("thresholds", ["--counts", f"{w}/counts", "--t", "20", "--output", f"{w}/t.json"])
    for name, more in (("drawn", []), ("whole", ["--keep-siblings"])):
        run_job("balance", [*pool, "--thresholds", f"{w}/t.json", "--seed", "6", "--output", f"{w}/{name}", *more])
    whole = open_stage(f"{w}/whole", "balance")
    rows = gather_images(list(read_parts(whole, columns=CURATED_COLUMNS))).to_pylist()
    write_images(tmp_path / "images", rows, seed=6, keep_siblings=True)
    books = export(tmp_path / "images", tmp_path / "tars")
    got = [(row["image_id"], row["caption"], row["lang"]) for row in rows_of(tmp_path / "tars", "export")]
    drawn = [(row["image_id"], row["text"], row["lang"]) for row in rows_of(tmp_path / "drawn", "balance")]
    assert sorted(got) == sorted(drawn)
    assert len(got) > 300
    texts = sum(len(row["texts"]) for row in rows)
    assert books["read"] == whole.rows == texts
    dropped = {"not_chosen": texts - len(rows), "balanced_away": len(rows) - len(got)}
    assert (books["emitted"], books["dropped"]) == (len(got), dict(sorted(dropped.items())))


# -- open_clip -----------------------------------------------------------------------------------------------------------------------


TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
#: Arguments: a folder for what is found, the shards, and the trainer's own.
READ_AND_TRAIN = """
import hashlib, json, sys
from argparse import Namespace
import torch, open_clip
from open_clip_train.data import get_dataset_size, get_wds_dataset
from open_clip_train.main import main
def image_hash(image):
    return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
torch.set_num_threads(1)
folder, shards, *options = sys.argv[1:]
arguments = Namespace(val_data=shards, val_num_samples=48, batch_size=7, workers=0, world_size=1, seed=0)
loaded = get_wds_dataset(arguments, image_hash, is_train=False, tokenizer=lambda text: [text])
pairs = [pair for images, texts in loaded.dataloader for pair in zip(images, texts, strict=True)]
with open(f"{folder}/read.json", "w") as file:
    json.dump({"size": get_dataset_size(shards), "pairs": pairs}, file)
open_clip.add_model_config(f"{folder}/ViT-tiny.json")
main(options)
"""


@pytest.fixture(scope="module")
def open_clip(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a process of open_clip that reads the shards, and then trains on them: torch is imported once for both."""
    folder, shards = tmp_path_factory.mktemp("open_clip"), f"{work}/tars/{{00000..00002}}.tar"
    (folder / "ViT-tiny.json").write_text(json.dumps(TINY))
    options = ["--model", "ViT-tiny", "--dataset-type", "webdataset", "--train-data", shards, "--workers", "0"]
    options += ["--batch-size", "12", "--epochs", "5", "--warmup", "1", "--lr", "0.003", "--log-every-n-steps", "1", "--device", "cpu"]
    options += ["--logs", str(folder), "--name", "run", "--precision", "fp32", "--force-image-size", "32"]
    command = [sys.executable, "-c", READ_AND_TRAIN, str(folder), shards, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_open_clip_reads_every_sample(work: Path, open_clip: Path) -> None:
    read = json.loads((open_clip / "read.json").read_text())
    assert read["size"] == [48, 3]
    rows = zip(rows_of(work / "images"), rows_of(work / "tars", "export"), strict=True)
    assert read["pairs"] == [[image_hash(Image.open(io.BytesIO(image["jpeg"])).convert("RGB")), row["caption"]] for image, row in rows]


def image_hash(image: Image.Image) -> str:
    return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()


def test_open_clips_own_trainer_takes_twenty_steps(open_clip: Path) -> None:
    log = (open_clip / "run" / "out.log").read_text()
    losses = [float(line.partition("Loss: ")[2].split()[0]) for line in log.splitlines() if "Train Epoch" in line]
    assert len(losses) == 20
    assert sum(losses[-4:]) < sum(losses[:4])
