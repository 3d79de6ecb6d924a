from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from pipelines import patience, storage
from pipelines.errors import JobError


def _names(root: str, patterns: tuple[str, ...]) -> list[str]:
    return [storage.relative(f.url, root) for f in storage.expand(tuple(storage.join(root, p) for p in patterns))]


@pytest.fixture
def tree(place: str) -> str:
    for name in ("b.gz", "a.gz", "c.txt", ".hidden.gz", "deep/d.gz", "deep/er/e.gz"):
        storage.write_bytes(storage.join(place, name), name.encode())
    return place


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        (("b.gz", "a.gz"), ["a.gz", "b.gz"]),
        (("*.gz",), ["a.gz", "b.gz"]),
        (("[ab].gz",), ["a.gz", "b.gz"]),
        (("?.txt",), ["c.txt"]),
        (("",), ["a.gz", "b.gz", "c.txt"]),
        (("deep",), ["deep/d.gz"]),
        (("deep/",), ["deep/d.gz"]),
        (("**/*.gz",), ["a.gz", "b.gz", "deep/d.gz", "deep/er/e.gz"]),
        (("deep", "*.gz", "a.gz", "deep/d.gz", "deep/*"), ["a.gz", "b.gz", "deep/d.gz"]),
    ],
)
def test_expand_gives_each_file_once_and_sorted(tree: str, patterns: tuple[str, ...], found: list[str]) -> None:
    assert _names(tree, patterns) == found


@pytest.mark.parametrize("pattern", ["absent.gz", "*.xml", "absent/*", "nowhere/", ".hidden*"])
def test_expand_names_the_pattern_that_finds_nothing(tree: str, pattern: str) -> None:
    url = storage.join(tree, pattern)
    with pytest.raises(JobError) as error:
        storage.expand((storage.join(tree, "a.gz"), url))
    assert str(error.value) == f"--input {url}: no such file (globs are read by worldclip itself when they are quoted)"


def test_expand_follows_links(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "elsewhere").write_bytes(b"12345")
    (tmp_path / "in" / "link.gz").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "broken.gz").symlink_to(tmp_path / "nowhere")
    for pattern in ("in", "in/*.gz", "in/link.gz"):
        (found,) = storage.expand((str(tmp_path / pattern),))
        assert (found.url, found.size) == ((tmp_path / "in" / "link.gz").as_uri(), 5)


def test_expand_says_size_and_a_tag_that_changes_with_the_content(place: str) -> None:
    url = storage.join(place, "a")
    storage.write_bytes(url, b"12345")
    (before,) = storage.expand((url,))
    storage.write_bytes(url, b"54321")
    (after,) = storage.expand((url,))
    assert (before.size, after.size) == (5, 5)
    assert before.url == after.url
    assert before.etag
    assert before.etag != after.etag


def test_expand_accepts_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.gz").write_bytes(b"1")
    monkeypatch.chdir(tmp_path)
    assert storage.expand(("x.gz",)) == storage.expand((str(tmp_path / "x.gz"),)) == storage.expand((f"file://{tmp_path}/*.gz", "x.gz"))


def test_a_directory_of_hidden_files_holds_no_input(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").write_bytes(b"1")
    with pytest.raises(JobError, match="no such file"):
        storage.expand((str(tmp_path),))


def test_writing_puts_the_whole_file_or_nothing(place: str) -> None:
    url = storage.join(place, "deep/file")

    def broken() -> None:
        with storage.writing(url) as path:
            path.write_bytes(b"half")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        broken()
    assert storage.walk(place) == []
    with storage.writing(url) as path:
        path.write_bytes(b"first")
        assert not storage.exists(url)
    with pytest.raises(RuntimeError, match="in the middle"):
        broken()
    assert storage.read_bytes(url) == b"first"
    assert [storage.relative(u, place) for u in storage.walk(place)] == ["deep/file"]


def test_who_reads_a_file_while_it_is_written_anew_reads_the_old_one_whole(tmp_path: Path) -> None:
    url = str(tmp_path / "x")
    storage.write_bytes(url, b"old" * 100_000)
    with storage.open_read(url) as reader:
        start = reader.read(3)
        storage.write_bytes(url, b"new")
        assert start + reader.read() == b"old" * 100_000
    assert storage.read_bytes(url) == b"new"


def test_written_files_have_the_usual_permissions(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        storage.write_bytes(str(tmp_path / "x"), b"1")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640


def test_writing_in_threads_leaves_the_umask_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(_: int) -> int:
        raise AssertionError("the umask belongs to all threads")

    monkeypatch.setattr(os, "umask", touched)
    storage.write_bytes(str(tmp_path / "x"), b"1")
    assert (tmp_path / "x").read_bytes() == b"1"


def test_a_place_that_cannot_be_written_to_is_told_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    url = str(tmp_path / "file" / "out.json")
    with pytest.raises(JobError) as error:
        storage.write_bytes(url, b"1")
    assert str(error.value) == f"{url}: cannot be written to (File exists); choose another --output or mend its permissions"


def test_a_directory_in_the_way_is_told_with_the_remedy(tmp_path: Path) -> None:
    url = tmp_path / "out.json"
    url.mkdir()
    with pytest.raises(JobError) as error:
        storage.write_bytes(str(url), b"1")
    assert str(error.value) == f"{url}: cannot be written to (Is a directory); choose another --output or mend its permissions"
    assert list(tmp_path.iterdir()) == [url]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a file system that refuses even root")
def test_no_permission_is_told_with_the_remedy() -> None:
    with pytest.raises(JobError, match=r"^/proc/self/worldclip/x: cannot be written to \(.*\); choose another --output or mend its perm"):
        storage.write_bytes("/proc/self/worldclip/x", b"1")


@pytest.mark.parametrize("name", ["absent", "deep"])
def test_what_cannot_be_read_is_told(tree: str, name: str) -> None:
    url = storage.join(tree, name)
    with pytest.raises(JobError, match="cannot be read") as error:
        storage.read_bytes(url)
    assert str(error.value).startswith(f"{url}: ")


def test_json_goes_out_sorted_and_comes_back(place: str) -> None:
    url = storage.join(place, "x.json")
    storage.write_json(url, {"b": [1, "ä"], "a": None})
    assert storage.read_bytes(url) == '{\n "a": null,\n "b": [\n  1,\n  "ä"\n ]\n}\n'.encode()
    assert storage.read_json(url) == {"a": None, "b": [1, "ä"]}
    storage.write_bytes(url, b"{")
    with pytest.raises(JobError, match="not valid JSON"):
        storage.read_json(url)
    storage.write_bytes(url, b'"\xff"')
    with pytest.raises(JobError, match="not valid JSON"):
        storage.read_json(url)


def test_listing_shows_names_without_temporaries(tree: str) -> None:
    storage.write_bytes(storage.join(tree, ".tmp-killed"), b"half")
    assert storage.listing(tree) == [".hidden.gz", "a.gz", "b.gz", "c.txt", "deep"]
    assert storage.listing(storage.join(tree, "absent")) == []
    assert storage.listing(storage.join(tree, "a.gz", "below")) == []


def test_walk_gives_every_file_below(tree: str) -> None:
    assert [storage.relative(url, tree) for url in storage.walk(tree)] == [
        ".hidden.gz",
        "a.gz",
        "b.gz",
        "c.txt",
        "deep/d.gz",
        "deep/er/e.gz",
    ]
    assert storage.walk(storage.join(tree, "absent")) == []


def test_remove_forgets_a_file_and_does_not_mind_an_absent_one(tree: str) -> None:
    url = storage.join(tree, "a.gz")
    assert storage.exists(url)
    storage.remove(url)
    storage.remove(url)
    assert not storage.exists(url)


def test_remove_temporary_takes_only_temporaries(tmp_path: Path) -> None:
    for name in (".tmp-a", ".tmp-b", "kept", ".hidden"):
        (tmp_path / name).write_bytes(b"1")
    storage.remove_temporary(str(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == [".hidden", "kept"]
    storage.remove_temporary(str(tmp_path / "absent"))


@pytest.mark.parametrize(
    ("root", "parts", "joined"),
    [
        ("W", ("a",), "W/a"),
        ("W/", ("a", "b"), "W/a/b"),
        ("/", ("a",), "/a"),
        ("gs://bucket/W/", ("a",), "gs://bucket/W/a"),
        ("gs://bucket/W", ("s3://other/x",), "s3://other/x"),
        ("W", ("/abs",), "/abs"),
        ("gs://bucket/W/t", ("../counts",), "gs://bucket/W/counts"),
        ("W", (".", "../x/../counts"), "counts"),
        ("gs://bucket/W", ("a..b",), "gs://bucket/W/a..b"),
    ],
)
def test_join(root: str, parts: tuple[str, ...], joined: str) -> None:
    assert storage.join(root, *parts) == joined


def test_parent() -> None:
    assert [storage.parent(u) for u in ("a", "W/a", "/a", "gs://b/W/a")] == [".", "W", "/", "gs://b/W"]


def test_relative_is_undone_by_join(place: str, tmp_path: Path) -> None:
    counts, directory = storage.join(place, "x/counts"), storage.join(place, "y")
    assert storage.relative(counts, directory) == "../x/counts"
    assert storage.join(directory, storage.relative(counts, directory)) == counts
    assert storage.relative(directory, directory) == "."
    assert storage.relative("memory://b/x", str(tmp_path)) == "memory://b/x"


def test_is_local() -> None:
    assert [storage.is_local(u) for u in ("x", "/x", "file:///x", "memory://x")] == [True, True, True, False]
    assert storage.local_path("file:///a/b") == "/a/b"


class Refused(Exception):
    """As aiohttp and gcsfs say it."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An object store that is busy at first, and breaks every second connection in the middle of a file; what it was asked."""
    asked: list[str] = []
    really_open, really_put = MemoryFileSystem._open, MemoryFileSystem.put_file

    def open_(self: MemoryFileSystem, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        if mode != "rb":
            return really_open(self, path, mode, **kwargs)
        asked.append("open")
        if asked.count("open") <= 2:
            raise Refused(503)
        file = really_open(self, path, mode, **kwargs)
        breaks = asked.count("open") % 2

        class Connection:
            def seek(self, *place: int) -> int:
                return int(file.seek(*place))

            def read(self, size: int) -> bytes:
                if breaks and file.tell() > 100_000:
                    raise ConnectionResetError("reset by peer")
                return bytes(file.read(min(size, 60_000)))

            def close(self) -> None:
                pass

        return Connection()

    def put(self: MemoryFileSystem, source: str, target: str, **kwargs: Any) -> None:
        asked.append("put")
        if asked.count("put") <= 2:
            raise Refused(429)
        really_put(self, source, target, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "_open", open_)
    monkeypatch.setattr(MemoryFileSystem, "put_file", put)
    monkeypatch.setattr(patience, "PATIENCE", patience.Patience(sleep=lambda _: None))
    return asked


def test_a_store_that_refuses_for_a_while_is_asked_again(flaky: list[str]) -> None:
    data = bytes(range(256)) * 2_000
    storage.write_bytes("memory://flaky/x", data)
    assert flaky == ["put"] * 3
    assert storage.read_bytes("memory://flaky/x") == data
    assert flaky.count("open") == 4
    with storage.open_read("memory://flaky/x") as file:
        assert file.seek(-6, 2) == len(data) - 6
        assert file.read() == data[-6:]
        assert file.seek(150_000) == 150_000
        assert file.read(300) == data[150_000:150_300]
    with storage.open_hashing("memory://flaky/x") as (hashed, reader):
        assert hashed.read(10) == data[:10]
        assert reader.hexdigest() == hashlib.sha256(data).hexdigest()


#: Every question about an address that does not read a file, and the method of fsspec that asks it first.
QUESTIONS = [
    (storage.exists, "exists"),
    (storage.listing, "ls"),
    (storage.modified, "ls"),
    (storage.walk, "find"),
    (storage.remove, "rm_file"),
    (lambda url: storage.expand((url,)), "isdir"),
    (lambda url: storage.expand((f"{url}*",)), "glob"),
]


def refuse_at_first(monkeypatch: pytest.MonkeyPatch, method: str, error: Exception, times: int) -> list[str]:
    """Let a method of the memory file system fail; its calls."""
    asked: list[str] = []
    really = getattr(MemoryFileSystem, method)

    def answer(self: MemoryFileSystem, *args: Any, **kwargs: Any) -> Any:
        asked.append(method)
        if len(asked) <= times:
            raise error
        return really(self, *args, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, method, answer)
    return asked


@pytest.mark.parametrize(("question", "method"), QUESTIONS)
def test_a_question_is_asked_again_while_the_store_is_busy(monkeypatch: pytest.MonkeyPatch, question: Any, method: str) -> None:
    storage.write_bytes("memory://busy/x", b"1")
    expected = question("memory://busy/x")
    storage.write_bytes("memory://busy/x", b"1")
    pauses: list[float] = []
    monkeypatch.setattr(patience, "PATIENCE", patience.Patience(sleep=pauses.append))
    asked = refuse_at_first(monkeypatch, method, Refused(503), 2)
    found = question("memory://busy/x")
    assert (len(asked), len(pauses)) == (3, 2)
    if method in ("exists", "rm_file"):
        assert found == expected
    else:
        assert len(found) == len(expected)


@pytest.mark.parametrize(("question", "method"), QUESTIONS)
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError("Forbidden: b/x\nno access"), "a refusal (OSError: Forbidden: b/x no access): mend"),
        (ConnectionRefusedError("refused"), "no answer, or a refusal (ConnectionRefusedError: refused): mend"),
    ],
)
def test_a_question_that_is_refused_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, question: Any, method: str, error: Exception, said: str
) -> None:
    monkeypatch.setattr(patience, "PATIENCE", patience.Patience(sleep=lambda _: pytest.fail("slept")))
    refuse_at_first(monkeypatch, method, error, 99)
    with pytest.raises(JobError) as told:
        question("memory://refused/x")
    pattern = (
        "--input memory://refused/x*" if method == "glob" else "--input memory://refused/x" if method == "isdir" else "memory://refused/x"
    )
    assert str(told.value) == f"{pattern}: {said} the address, the network or the credentials, and run the same command again"


@pytest.mark.parametrize("error", [Refused(403), OSError("Forbidden: b/x")])
def test_who_may_not_write_is_told_at_once(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(patience, "PATIENCE", patience.Patience(sleep=lambda _: pytest.fail("slept")))
    asked = refuse_at_first(monkeypatch, "put_file", error, 99)
    with pytest.raises((JobError, Refused)):
        storage.write_bytes("memory://refused/x", b"1")
    assert len(asked) == 1


def test_an_upload_that_is_refused_to_the_end_names_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PATIENCE", patience.Patience(tries=3, sleep=lambda _: None))
    asked = refuse_at_first(monkeypatch, "put_file", ConnectionResetError("cut"), 99)
    with pytest.raises(JobError) as error:
        storage.write_bytes("memory://refused/x", b"1")
    assert len(asked) == 3
    said = "no answer, or a refusal (ConnectionResetError: cut): mend the address, the network or the credentials"
    assert str(error.value) == f"memory://refused/x: {said}, and run the same command again"


def test_no_file_system_keeps_its_listings() -> None:
    kept = fsspec.filesystem("http")
    kept.dircache.use_listings_cache = True
    kept.dircache["http://x.example/"] = []
    assert not storage.is_local("http://x.example/y")
    assert fsspec.filesystem("http") is kept
    assert (kept.dircache.use_listings_cache, len(kept.dircache)) == (False, 0)


def test_a_file_is_read_whole_in_large_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(256)) * 100
    storage.write_bytes("memory://whole/x", data)
    asked: list[int] = []
    really = storage._PersistentReader._read

    def read(self: storage._PersistentReader, size: int) -> bytes:
        asked.append(size)
        return really(self, size)

    monkeypatch.setattr(storage._PersistentReader, "_read", read)
    assert storage.read_bytes("memory://whole/x") == data
    assert asked == [len(data)]
    monkeypatch.setattr(storage, "_PIECE", 10_000)
    asked.clear()
    assert storage.read_bytes("memory://whole/x") == data
    assert asked == [10_000, 10_000, 5_600]
    with storage.open_read("memory://whole/x") as file:
        assert (file.read(3), file.read(), file.read()) == (data[:3], data[3:], b"")
        file.seek(10)
        assert file.read() == data[10:]


def test_open_if_there(tree: str) -> None:
    for name in ("absent", "absent/below"):
        assert storage.open_if_there(storage.join(tree, name)) is None
    with pytest.raises(JobError, match="cannot be read"):
        storage.open_if_there(storage.join(tree, "deep"))
    file = storage.open_if_there(storage.join(tree, "a.gz"))
    assert file is not None
    with file:
        assert file.read() == b"a.gz"


def test_an_address_that_does_not_answer_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr(MemoryFileSystem, "_open", refuse)
    monkeypatch.setattr(patience, "PATIENCE", patience.Patience(sleep=lambda _: pytest.fail("slept")))
    with pytest.raises(JobError, match="memory://flaky/y: no answer"):
        storage.open_read("memory://flaky/y")


@given(data=st.binary(max_size=5_000), cuts=st.lists(st.integers(0, 2_000), max_size=5))
def test_the_hashing_reader_knows_the_sha256_however_little_was_read(data: bytes, cuts: list[int]) -> None:
    storage.write_bytes("memory://hashing/x", data)
    with storage.open_hashing("memory://hashing/x") as (file, reader):
        seen = b"".join(file.read(n) for n in cuts)
        assert data.startswith(seen)
        assert len(seen) == min(len(data), sum(cuts))
        assert reader.hexdigest() == hashlib.sha256(data).hexdigest()
        assert reader.hexdigest() == hashlib.sha256(data).hexdigest()


def test_the_hashing_reader_hashes_more_than_a_buffer(place: str) -> None:
    data = bytes(range(256)) * 20_000
    url = storage.join(place, "x")
    storage.write_bytes(url, data)
    with storage.open_hashing(url) as (file, reader):
        assert file.readline(10) == data[:10]
        assert reader.hexdigest() == hashlib.sha256(data).hexdigest()
