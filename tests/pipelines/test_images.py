from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from balancing.gather import WANTED_SCHEMA
from balancing.pairs import CURATED_SCHEMA, IMAGES_SCHEMA
from metadata.tally import Tally
from pipelines import images, storage
from pipelines.errors import JobError
from pipelines.fetch import FetchConfig, Fetched
from pipelines.images import ImagesConfig, Progress, fetch_images
from pipelines.stage import Stage, Unit, open_stage


def jpeg(red: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (red, 0, 0)).save(out, "JPEG")
    return out.getvalue()


def test_row_groups_end_at_their_images_and_at_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = [jpeg(red) if red != 3 else None for red in range(9)]
    wanted = pa.table([[f"i{i}" for i in range(9)], [f"u{i}" for i in range(9)], [[]] * 9], schema=WANTED_SCHEMA)

    def fetch_all(urls: Sequence[str], config: FetchConfig) -> Iterator[Fetched]:
        for i, body in enumerate(bodies):
            yield Fetched(i, body, "" if body else "dns", "no such host")

    monkeypatch.setattr(images, "fetch_all", fetch_all)
    config = ImagesConfig(curated="", output="")
    for most, size, expected in (
        (4, 1 << 20, [["i0", "i1", "i2", "i4"], ["i5", "i6", "i7", "i8"]]),
        (5, 2 * len(jpeg(0)), [["i0", "i1"], ["i2", "i4"], ["i5", "i6"], ["i7", "i8"]]),
    ):
        monkeypatch.setattr(images, "ROW_GROUP_IMAGES", most)
        monkeypatch.setattr(images, "ROW_GROUP_BYTES", size)
        tally, failed = Tally(), list[dict[str, str]]()
        progress = Progress("shard 1 of 1", len(wanted), tally)
        groups = list(fetch_images(wanted, config=config, failed=failed, tally=tally, progress=progress))
        assert progress.done == 9
        assert [group["image_id"].to_pylist() for group in groups] == expected
        assert [body for group in groups for body in group["jpeg"].to_pylist()] == [body for body in bodies if body]
        assert all(group.schema.equals(IMAGES_SCHEMA) for group in groups)
        assert failed == [{"image_id": "i3", "url": "u3", "reason": "dns", "detail": "no such host"}]
        assert tally == Tally(read=9, emitted=8, dropped={"dns": 1})  # type: ignore[arg-type]


def test_progress_says_what_is_done_and_failed_and_how_long_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    tally, now = Tally(), [100.0]
    progress = Progress("shard 3 of 12", 5_000, tally, clock=lambda: now[0])
    assert progress.line() == "images: shard 3 of 12: 0 of 5,000 images, 0.0 a second; failed: none"
    now[0] += 40
    progress.done = 1_200
    tally.drop("http_4xx", 12)
    tally.drop("dns", 1_030)
    said = "images: shard 3 of 12: 1,200 of 5,000 images, 30.0 a second, 2 min left; failed: dns 1,030, http_4xx 12"
    assert progress.line() == said
    with progress.told(every=0.001):
        printed = (capsys.readouterr().err for _ in range(100_000))
        assert any(text.startswith(f"{said}\n") for text in printed)
    capsys.readouterr()
    with progress.told(every=60):
        pass
    assert capsys.readouterr().err == ""


def test_what_may_be_fetched_is_a_setting(tmp_path: Path) -> None:
    curated, output = str(tmp_path / "curated"), str(tmp_path / "images")
    stage, unit = Stage(url=curated, kind="balance", parameters={}), Unit(name="a", path="a")
    stage.begin([unit])
    path = tmp_path / "picture.jpg"
    path.write_bytes(jpeg(7))
    row = {"image_id": "i", "url": path.as_uri(), "text": "a", "source": "own", "lid": "en", "lid_score": 1.0, "lang": "en"}
    row |= {"entries": [1], "image_key": 5, "pair_key": 6, "probability": 1.0}
    stage.write_part(unit, pa.Table.from_pylist([row], schema=CURATED_SCHEMA), Tally(read=1, emitted=1))
    stage.finish()
    with pytest.raises(JobError, match="none of the 1 images"):
        images.main(ImagesConfig(curated=curated, output=output), [])
    with pytest.raises(JobError, match="allow_files was False and is True"):
        images.main(ImagesConfig(curated=curated, output=output, allow_files=True), [])
    images.main(ImagesConfig(curated=curated, output=storage.join(output, "../allowed"), allow_files=True), [])
    assert open_stage(str(tmp_path / "allowed"), "images").counters["emitted"] == 1


@pytest.mark.parametrize(
    ("dropped", "emitted", "expected"),
    [
        ({"scheme": 1}, 0, True),
        ({"scheme": 1}, 1, False),
        ({"http_4xx": 3}, 0, False),
        ({"dns": 99}, 0, False),
        ({"dns": 50, "host_down": 50}, 0, True),
        ({"dns": 99, "http_4xx": 1}, 0, False),
        ({}, 0, False),
    ],
)
def test_dead_links_are_data_and_an_outage_is_not(dropped: dict[str, int], emitted: int, expected: bool) -> None:
    tally = Tally(read=sum(dropped.values()) + emitted, emitted=emitted)
    for reason, n in dropped.items():
        tally.drop(reason, n)
    assert images.never_tried(tally) is expected
