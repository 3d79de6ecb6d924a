"""The job images on small sets: row groups, labels, parts, what is alive, and a web of hosts of every kind."""

from __future__ import annotations

import itertools
import socket
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from balancing.gather import WANTED_SCHEMA
from balancing.pairs import IMAGES_SCHEMA, image_id_of_url
from metadata.reasons import REASONS
from metadata.tally import Tally
from pipelines import fetch, image_part, images, patience
from pipelines.again import may_pass
from pipelines.errors import JobError
from pipelines.fetch import Fetched
from pipelines.image_part import ImageRules, Progress, prepare_images
from pipelines.images import ImagesConfig
from pipelines.jobs import run_job
from pipelines.part import read_part
from pipelines.progress import told
from pipelines.stage import Limits, Stage, Unit, open_stage
from tests.pipelines.conftest import contents
from tests.pipelines.image_sets import failed_of, make_images, picture, pixel_hash, rows_of, write_curated, write_files
from tests.pipelines.raw_server import Server, answer, drip, endless, redirect, reset, silence


def test_row_groups_end_at_their_images_and_at_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = [picture(i) if i != 3 else None for i in range(9)]
    labels = pa.array([["a", "b"]] + [[]] * 8, IMAGES_SCHEMA.field("labels").type)
    wanted = pa.table([[f"i{i}" for i in range(9)], [f"u{i}" for i in range(9)], [[]] * 9], schema=WANTED_SCHEMA)
    wanted = wanted.append_column("labels", labels)
    fetched = [Fetched(i, body, "" if body else "dns", "" if body else "no such host") for i, body in enumerate(bodies)]
    size = max(len(body) for body in bodies if body)
    for most, most_bytes, expected in (
        (4, 1 << 20, [["i0", "i1", "i2", "i4"], ["i5", "i6", "i7", "i8"]]),
        (5, size + 1, [["i0", "i1"], ["i2", "i4"], ["i5", "i6"], ["i7", "i8"]]),
    ):
        monkeypatch.setattr(image_part, "ROW_GROUP_IMAGES", most)
        monkeypatch.setattr(image_part, "ROW_GROUP_BYTES", most_bytes)
        tally, failed = Tally(), list[dict[str, str | None]]()
        progress = Progress("shard 1 of 1", len(wanted), tally)
        groups = list(prepare_images(wanted, fetched, rules=ImageRules(), failed=failed, tally=tally, progress=progress))
        assert progress.done == 9
        assert [group["image_id"].to_pylist() for group in groups] == expected
        assert [body for group in groups for body in group["jpeg"].to_pylist()] == [body for body in bodies if body]
        assert [of for group in groups for of in group["labels"].to_pylist()] == [["a", "b"]] + [[]] * 7
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
    with told(progress.line, every=0.001):
        printed = (capsys.readouterr().err for _ in range(100_000))
        assert any(text.startswith(f"{said}\n") for text in printed)
    capsys.readouterr()
    with told(progress.line, every=60):
        pass
    assert capsys.readouterr().err == ""


def test_what_may_be_fetched_is_a_setting(tmp_path: Path) -> None:
    curated, output = write_curated(tmp_path / "curated", write_files(tmp_path / "files", [picture(7)])), tmp_path / "images"
    with pytest.raises(JobError, match="none of the 1 images of shard 1 of 1 could be fetched \\(scheme 1\\): file:// addresses"):
        make_images(curated, output)
    with pytest.raises(JobError, match="allow_files was False and is True"):
        make_images(curated, output, "--allow-files")
    assert make_images(curated, tmp_path / "allowed", "--allow-files")["emitted"] == 1


@pytest.mark.parametrize(
    ("dropped", "emitted", "expected"),
    [
        ({"scheme": 1}, 0, True),
        ({"scheme": 1}, 1, False),
        ({"http_4xx": 3}, 0, False),
        ({"dns": 99}, 0, False),
        ({"dns": 50, "host_down": 50}, 0, True),
        ({"name_server": 100, "invalid_url": 1}, 0, True),
        ({"name_server": 99, "invalid_url": 1}, 0, False),
        ({"invalid_url": 3, "port": 1}, 0, False),
        ({"no_url": 2, "invalid_url": 1}, 0, True),
        ({"dns": 99, "http_4xx": 1}, 0, False),
        ({"label_dropped": 50, "dns": 99}, 0, False),
        ({"label_dropped": 50, "dns": 100}, 0, True),
        ({"label_dropped": 50}, 0, False),
        ({}, 0, False),
    ],
)
def test_dead_links_are_data_and_an_outage_is_not(dropped: dict[str, int], emitted: int, expected: bool) -> None:
    tally = Tally(read=sum(dropped.values()) + emitted, emitted=emitted)
    for reason, n in dropped.items():
        tally.drop(reason, n)
    assert image_part.never_tried(tally) is expected


@pytest.mark.parametrize(
    ("options", "rows", "parts"),
    [
        ({}, 6_710, 1),  # 384 MB of 60 kB
        ({}, 6_711, 2),
        ({}, 0, 1),
        ({"part_size": 256 << 20}, 4_473, 1),
        ({"part_size": 1}, 5, 5),
        ({"max_side": 4_096}, 6_711, 2),
        ({"max_side": 256}, 20_480, 1),  # of 19.7 kB
        ({"max_side": 256}, 20_481, 2),
        ({"max_side": 1}, 10**6, 1),
        ({"images_per_part": 7}, 15, 3),
    ],
)
def test_how_many_parts_images_make(options: dict[str, int], rows: int, parts: int) -> None:
    assert ImagesConfig(curated="", output="", **options).shards(rows) == parts


@pytest.mark.parametrize("texts", [1, 3])
def test_images_are_counted_and_not_their_texts(tmp_path: Path, texts: int) -> None:
    wanted = [(f"id{i}", f"u{i}", [f"text {j}" for j in range(texts)]) for i in range(600)]
    curated = open_stage(write_curated(tmp_path / "curated", wanted, parts=3, keep_siblings=True), "balance")
    assert images.count_images(curated) == 600
    assert 590 <= images.count_images(curated, sample=60) <= 610
    assert images.count_images(curated, sample=1) in range(200, 600 * texts + 1)
    assert images.count_images(open_stage(write_curated(tmp_path / "none", [], keep_siblings=True), "balance")) == 0


def test_an_image_with_many_texts_counts_once_for_the_size_of_parts(tmp_path: Path) -> None:
    wanted = write_files(tmp_path / "files", [picture(i) for i in range(6)])
    wanted = [(id, url, ["one", "another", "a third"]) for id, url, _ in wanted]
    curated = write_curated(tmp_path / "curated", wanted, keep_siblings=True, seed=1)
    make_images(curated, tmp_path / "images", "--allow-files", "--images-per-part", "3")
    assert len(open_stage(str(tmp_path / "images"), "images").parts) == 2


def test_parts_hold_equal_ranges_of_the_keys_and_all_texts_of_an_image(tmp_path: Path) -> None:
    wanted = write_files(tmp_path / "files", [picture(i) for i in range(40)])
    wanted = [(id, url, [*texts, "another"] if i % 4 == 0 else texts) for i, (id, url, texts) in enumerate(wanted)]
    curated = write_curated(tmp_path / "curated", wanted, parts=3, seed=5)
    books = make_images(curated, tmp_path / "images", "--allow-files", "--images-per-part", "10")
    stage = open_stage(str(tmp_path / "images"), "images")
    assert (books["read"], books["emitted"], len(stage.parts)) == (40, 40, 5)
    assert stage.parameters["seed"] == 5
    rows = rows_of(tmp_path / "images")
    assert {row["image_id"]: sorted(text["text"] for text in row["texts"]) for row in rows} == {
        id: sorted(texts) for id, _, texts in wanted
    }
    assert [row["sha256"] for row in sorted(rows, key=lambda row: str(row["image_id"]))] == [pixel_hash(picture(i)) for i in range(40)]
    assert all(row["labels"] is None for row in rows)


@pytest.mark.parametrize(("option", "starts"), [([], [b"\xff\xd8", b"\x89PNG", b"RIFF", b"\xff\xd8"]), (["--to-jpeg"], [b"\xff\xd8"] * 4)])
def test_pictures_keep_their_format_unless_a_jpeg_is_asked(tmp_path: Path, option: list[str], starts: list[bytes]) -> None:
    bodies = [picture(1), picture(2, kind="PNG"), picture(3, kind="WEBP", lossless=True), picture(4, kind="GIF")]
    curated = write_curated(tmp_path / "curated", write_files(tmp_path / "files", bodies))
    make_images(curated, tmp_path / "images", "--allow-files", *option)
    rows = sorted(rows_of(tmp_path / "images"), key=lambda row: str(row["image_id"]))
    assert all(row["jpeg"].startswith(start) for row, start in zip(rows, starts, strict=True))
    assert rows[0]["jpeg"] == bodies[0]


# -- labels --------------------------------------------------------------------------------------------------------------------------


def test_labels_are_kept_beside_images_and_some_are_not_even_fetched(tmp_path: Path) -> None:
    server = Server()
    server.routes |= {f"{i}": answer(body=picture(i)) for i in range(8)}
    wanted = [(f"id{i}", server.url(f"{i}"), [f"text {i}"]) for i in range(8)]
    curated = write_curated(tmp_path / "curated", wanted)
    pq.write_table(
        pa.table({"image_id": ["id1", "id2", "id3", "id9", "id3"], "label": ["nsfw", "sketch", None, "nsfw", "art"]}), tmp_path / "1"
    )
    lists = pa.array([["csam", "nsfw"], ["sketch"], [], None], pa.list_(pa.large_string()))
    pq.write_table(pa.table({"image_id": ["id4", "id3", "id5", "id6"], "labels": lists}), tmp_path / "2")
    options = ["--allow-private", "--labels", str(tmp_path / "1"), str(tmp_path / "2"), "--drop-labels", "csam, nsfw"]
    books = make_images(curated, tmp_path / "images", *options)
    server.stop()
    assert books["read"] == 8
    assert books["dropped"] == {"label_dropped": 2}
    assert failed_of(tmp_path / "images") == {"id1": ("label_dropped", "nsfw"), "id4": ("label_dropped", "csam")}
    labels = {row["image_id"]: row["labels"] for row in rows_of(tmp_path / "images")}
    assert labels == {"id0": None, "id2": ["sketch"], "id3": ["art", "sketch"], "id5": [], "id6": None, "id7": None}
    assert sorted(server.paths()) == ["/0", "/2", "/3", "/5", "/6", "/7"]
    pq.write_table(pa.table({"image_id": ["id7"], "label": ["nsfw"]}), tmp_path / "2")
    with pytest.raises(JobError, match=r"made with other settings .*labels was"):
        make_images(curated, tmp_path / "images", *options)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            {"image_id": ["a"], "score": [0.5]},
            "no columns image_id and label, or labels, that hold text; there are image_id (string), score (double)",
        ),
        ({"image_id": [1], "label": ["a"]}, "no columns image_id and label, or labels"),
        ({"image_id": ["a"], "labels": [[1]]}, "no columns image_id and label, or labels"),
        (None, "no Parquet file, or a damaged one"),
    ],
)
def test_what_is_no_list_of_labels_is_told(tmp_path: Path, table: dict[str, list[object]] | None, said: str) -> None:
    place = tmp_path / "labels"
    if table is None:
        place.write_text("id1,nsfw")
    else:
        pq.write_table(pa.table(table), place)
    with pytest.raises(JobError) as error:
        list(images.cut_labels(str(place), shards=3))
    assert str(error.value).startswith(f"--labels {place}: {said}")


@pytest.mark.parametrize(("option", "said"), [({"drop_labels": "a"}, "--labels"), ({"image_id": "key"}, "--take-from")])
def test_options_that_need_others(option: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ImagesConfig(curated="", output="", **option)


# -- what is alive -------------------------------------------------------------------------------------------------------------------


def test_dead_links_are_left_out_of_counts_and_set_without_matching_or_fetching_again(tmp_path: Path) -> None:
    server, w = Server(), str(tmp_path)
    animals = ("dog", "cat", "owl")
    server.routes |= {f"{i}": answer(body=picture(i)) if i % 3 else answer(status="410 Gone") for i in range(30)}
    urls = [server.url(f"{i}") for i in range(30)]
    pq.write_table(pa.table({"url": urls, "text": [f"a {animals[i % 7 % 3]} number {i}" for i in range(30)]}), tmp_path / "pairs.parquet")
    (tmp_path / "list.json").write_text('["dog", "cat", "owl", "number"]')
    run_job("entries", ["--metadata-json", f"en={w}/list.json", "--output", f"{w}/entries"])
    with_entries = ["--entries", f"{w}/entries"]
    run_job(
        "match", ["--input", f"{w}/pairs.parquet", "--format", "parquet", *with_entries, "--lid-min-score", "0", "--output", f"{w}/matched"]
    )
    pool = ["--matched", f"{w}/matched", "--siblings", f"{w}/siblings"]
    run_job("dedup", ["--matched", f"{w}/matched", "--output", f"{w}/siblings"])

    def curate(name: str, t: str, *count: str) -> str:
        run_job("count", [*pool, *with_entries, "--output", f"{w}/counts-{name}", *count])
        run_job("thresholds", ["--counts", f"{w}/counts-{name}", "--t", t, "--output", f"{w}/{name}.json"])
        run_job("balance", [*pool, "--thresholds", f"{w}/{name}.json", "--seed", "2", "--output", f"{w}/curated-{name}"])
        return f"{w}/curated-{name}"

    whole = curate("whole", "inf")
    tried = {row["image_id"] for row in rows_of(whole, "balance")}
    books = make_images(whole, tmp_path / "images", "--allow-private", "--retries", "0", "--per-host", "9")
    server.stop()
    alive = tried & {image_id_of_url(url) for i, url in enumerate(urls) if i % 3}
    assert {row["image_id"] for row in rows_of(tmp_path / "images")} == alive
    assert (books["read"], books["emitted"], books["dropped"]) == (len(tried), len(alive), {"http_4xx": len(tried) - len(alive)})
    assert len(tried) > 25

    matched = contents(tmp_path / "matched")
    one = curate("alive", "5", "--alive", f"{w}/images")
    other = curate("dead", "5", "--drop-ids", f"{w}/images/failed/*.parquet")
    assert open_stage(f"{w}/counts-alive", "count").counters["dropped"] == {"image_not_alive": len(tried) - len(alive)}
    assert contents(tmp_path / "matched") == matched
    curated = {row["image_id"] for row in rows_of(one, "balance")}
    assert curated == {row["image_id"] for row in rows_of(other, "balance")}
    assert curated < alive
    # The server is gone: what is wanted now is there already.
    books = make_images(one, tmp_path / "balanced", "--take-from", f"{w}/images")
    assert (books["read"], books["emitted"]) == (len(curated), len(curated))
    whole_images = {row["image_id"]: row for row in rows_of(tmp_path / "images")}
    for row in rows_of(tmp_path / "balanced"):
        before = whole_images[row["image_id"]]
        assert (row["jpeg"], row["sha256"], row["dhash"]) == (before["jpeg"], before["sha256"], before["dhash"])
        assert row["texts"][0]["probability"] < before["texts"][0]["probability"] == 1.0


# -- what may pass -------------------------------------------------------------------------------------------------------------------


def test_every_reason_that_may_pass_is_explained_as_such() -> None:
    assert {reason for reason, says in REASONS["images"].items() if says.endswith("May pass.")} == image_part.PASSING


def test_images_without_an_address_are_told_from_files_that_are_not_allowed(tmp_path: Path) -> None:
    wanted = [("own-1", "", ["a text"]), ("own-2", "", ["a text"])]
    with pytest.raises(JobError, match=r"\(no_url 2\): they have no addresses: --take-from"):
        make_images(write_curated(tmp_path / "curated", wanted), tmp_path / "images", "--allow-files")


def test_what_failed_for_a_reason_that_may_pass_is_asked_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = Server()
    large = {i: picture(i, side=60) for i in range(40)}
    server.routes |= {f"{i}": answer(body=body) for i, body in large.items()}
    server.routes |= {f"{i}": answer(status="500 Oh") for i in range(0, 40, 4)}
    server.routes |= {f"{i}": answer(status="404 Gone") for i in range(1, 40, 8)}
    wanted = [(f"id{i}", server.url(f"{i}"), [f"text {i}", f"again {i}"]) for i in range(40)]
    pq.write_table(pa.table({"image_id": ["id2", "id3"], "label": ["nsfw", "art"]}), tmp_path / "labels")
    curated, output = write_curated(tmp_path / "curated", wanted), tmp_path / "images"
    options = ["--allow-private", "--retries", "0", "--images-per-part", "20", "--max-side", "40"]
    options += ["--labels", str(tmp_path / "labels"), "--drop-labels", "nsfw"]
    books = make_images(curated, output, *options)
    assert books["dropped"] == {"http_4xx": 5, "http_5xx": 10, "label_dropped": 1}
    assert "images: 10 failed for reasons that may pass; --retry-failed" in capsys.readouterr().err
    before = contents(output)

    server.requests.clear()
    assert make_images(curated, output, *options)["emitted"] == 24
    make_images(curated, output, *options, "--retry-failed", "--dry-run")
    assert (server.requests, contents(output)) == ([], before)

    server.routes |= {f"{i}": answer(body=large[i]) for i in range(0, 40, 8)}
    books = make_images(curated, output, *options, "--retry-failed")
    assert sorted(server.paths()) == sorted(f"/{i}" for i in range(0, 40, 4))
    assert (books["read"], books["emitted"]) == (40, 29)
    assert books["dropped"] == {"http_4xx": 5, "http_5xx": 5, "label_dropped": 1}

    server.routes |= {f"{i}": answer(body=large[i]) for i in range(40)}
    make_images(curated, output, *options, "--retry-failed")
    make_images(curated, tmp_path / "at-once", *options)
    server.stop()
    again, at_once = ({row["image_id"]: row for row in rows_of(place)} for place in (output, tmp_path / "at-once"))
    assert again == {id: row for id, row in at_once.items() if id in again}
    assert failed_of(output).keys() == at_once.keys() - again.keys() | {"id2"}
    assert {reason for reason, _ in failed_of(output).values()} == {"http_4xx", "label_dropped"}
    stage = Stage.begun(str(output), Limits())
    unit = stage.units()[0]
    assert not may_pass(stage, unit)
    pq.write_table(image_part.FAILED_SCHEMA.empty_table(), output / "failed" / stage.part_name(unit))
    assert may_pass(stage, unit)


@pytest.mark.parametrize("threads", [4])
def test_threads_of_a_process_share_what_is_allowed_at_a_time(tmp_path: Path, threads: int) -> None:
    server, together, most = Server(), 0, 0
    lock = threading.Lock()

    def counted(connection: socket.socket) -> None:
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        server.over.wait(0.03)
        with lock:
            together -= 1
        answer(body=picture(1))(connection)

    server.routes["page"] = counted
    curated = write_curated(tmp_path / "curated", [])
    config = ImagesConfig(curated=curated, output=str(tmp_path / "images"), per_host=1, allow_private=True)
    stage = Stage(url=config.output, kind="images", parameters={})
    units = [Unit(name=f"{i}", path=f"shard {i}", index=i) for i in range(threads)]
    stage.begin(units)

    def fetch_one(unit: Unit) -> None:
        pairs = [(f"id-{unit.name}-{i}", server.url("page"), ["a text"]) for i in range(5)]
        place = write_curated(tmp_path / f"curated-{unit.name}", pairs, parts=1)
        (part,) = open_stage(place, "balance").units()
        images.fetch_shard((unit.index, {"unit": [unit], "pairs": [read_part(part.url)]}), stage=stage, config=config)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fetch_one, units))
    server.stop()
    assert (len(server.requests), most) == (5 * threads, 1)
    assert stage.finish()["emitted"] == 5 * threads


# -- a web of all kinds --------------------------------------------------------------------------------------------------------------

ADDRESS = "127.0.0.2"
#: More images of a host would make it one that is not asked again.
PER_HOST = 4


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server on 127.0.0.2, which counts as public here. All names are it, but for those that are gone or lie inside."""
    real = fetch.is_public

    def lookup(host: str, port: int, family: int) -> list[tuple[int, str]]:
        if host.startswith("gone"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, "10.0.0.1" if host.startswith("inside") else ADDRESS)]

    monkeypatch.setattr(fetch, "is_public", lambda address: address == ADDRESS or real(address))
    monkeypatch.setattr(fetch, "lookup", lookup)
    server = Server(ADDRESS)
    yield server
    server.stop()


def names_until(monkeypatch: pytest.MonkeyPatch, fails: Callable[[int], bool]) -> None:
    """Name servers that fail for a while, by the number of the question."""
    asked = itertools.count()

    def lookup(host: str, port: int, family: int) -> list[tuple[int, str]]:
        if fails(next(asked)):
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(socket.AF_INET, ADDRESS)]

    monkeypatch.setattr(fetch, "lookup", lookup)


def test_an_outage_in_the_middle_of_a_part_costs_no_image(web: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    web.routes["page"] = answer(body=picture(1))
    curated = write_curated(tmp_path / "curated", [(f"id{i}", f"http://host{i}.example:{web.port}/page", ["a text"]) for i in range(300)])
    how = [curated, tmp_path / "images", "--retries", "0"]
    monkeypatch.setattr(patience, "PATIENCE", patience.Patience(tries=2, sleep=lambda _: None))
    names_until(monkeypatch, lambda asked: asked >= 50)
    with pytest.raises(JobError, match="no host answers any more"):
        make_images(*how)
    assert not list((tmp_path / "images").glob("part-*"))
    # Every try asks at least one host more, so that the outage is over before the last.
    monkeypatch.setattr(patience, "PATIENCE", patience.Patience(tries=200, sleep=lambda _: None))
    names_until(monkeypatch, lambda asked: 50 <= asked < 200)
    books = make_images(*how)
    assert (books["read"], books["emitted"]) == (300, 300)


def huge_png() -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)) + chunk(b"IDAT", b"")


def hosts_of_every_kind(server: Server) -> dict[str, tuple[int, str, Callable[[socket.socket], None] | None]]:
    """Kind of host → images, the reason that is expected, and how the server answers."""
    away = f"http://127.0.0.1:{server.port}/fine"

    def late(connection: socket.socket) -> None:
        server.over.wait(0.2)
        answer(body=picture(3))(connection)

    return {
        "fine": (1_300, "", answer(body=picture(1))),
        "png": (60, "", answer(body=picture(2, kind="PNG"))),
        "moved": (60, "", redirect("/fine")),
        "late": (40, "", late),
        "gone": (80, "dns", None),
        "inside": (30, "private_address", None),
        "closed": (40, "refused", None),
        "silent": (24, "timeout", silence(server)),
        "dripping": (16, "timeout", drip(server, b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n")),
        "reset": (20, "connection", reset),
        "absent": (100, "http_4xx", answer(status="404 Not Found")),
        "broken": (20, "http_5xx", answer(status="500 Oh")),
        "odd": (10, "protocol", lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")),
        "loop": (20, "too_many_redirects", redirect("/loop")),
        "inward": (30, "private_address", redirect(away)),
        "metadata": (10, "private_address", redirect("http://169.254.169.254/latest/meta-data/")),
        "filed": (10, "scheme", redirect("file:///etc/passwd")),
        "mail": (10, "port", redirect("http://fine0.example:25/")),
        "optout": (30, "opt_out", answer("X-Robots-Tag: noai", body=picture(4))),
        "raw": (10, "opt_out", answer("X-Robots-Tag: noai, \xff", body=picture(4))),
        "page": (20, "not_an_image_type", answer("Content-Type: text/html", body=b"<html>")),
        "rawpage": (10, "not_an_image_type", answer("Content-Type: video/\xe9", body=b"<html>")),
        "bomb": (5, "content_encoding", answer("Content-Encoding: gzip", body=bytes(99))),
        "rawbomb": (5, "content_encoding", answer("Content-Encoding: \xff\xfe", body=bytes(99))),
        "endless": (2, "too_large", endless(b"HTTP/1.1 200 OK\r\n\r\n", bytes(1 << 20))),
        "large": (6, "too_large", answer(length=10**9)),
        "text": (12, "not_an_image", answer(body=b"no picture at all")),
        "cut": (10, "truncated_image", answer(body=picture(5)[:-40])),
        "huge": (10, "too_many_pixels", answer(body=huge_png())),
    }


@pytest.mark.slow
def test_two_thousand_images_of_hosts_of_every_kind_are_all_accounted_for(web: Server, tmp_path: Path) -> None:
    kinds = hosts_of_every_kind(web)
    web.routes |= {kind: send for kind, (_, _, send) in kinds.items() if send}
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        closed = int(probe.getsockname()[1])
        wanted, expected = [], {}
        for kind, (images_of_kind, reason, _) in kinds.items():
            for i in range(images_of_kind):
                port = closed if kind == "closed" else web.port
                wanted.append((f"{kind}-{i}", f"http://{kind}{i // PER_HOST}.example:{port}/{kind}?{i}", ["a text"]))
                expected[f"{kind}-{i}"] = reason
        assert len(wanted) == 2_000
        curated = write_curated(tmp_path / "curated", wanted)
        books = make_images(curated, tmp_path / "images", "--timeout", "7", "--concurrency", "32", "--retries", "0")
    got = {id: reason for id, (reason, _) in failed_of(tmp_path / "images").items()}
    assert got == {id: reason for id, reason in expected.items() if reason}
    assert {row["image_id"] for row in rows_of(tmp_path / "images")} == {id for id, reason in expected.items() if not reason}
    reasons = Counter(reason for reason in expected.values() if reason)
    assert books["dropped"] == dict(sorted(reasons.items()))
    assert (books["read"], books["emitted"], books["dead_letters"]) == (2_000, 2_000 - reasons.total(), 0)
    assert not [path for path in web.paths() if path.partition("?")[0].strip("/") not in web.routes]
