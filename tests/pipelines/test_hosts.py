"""download against a local server that plays the real one: hosts with limits, and hostile ones."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from functools import partial as partial_call
from pathlib import Path

import pytest
from yarl import URL

from pipelines.errors import JobError
from pipelines.transfer import Client, RetryPolicy, TransferError, _redirected
from tests.pipelines.downloads import DATE, MB, Clock, download, name_of, path_of, publish, some_bytes
from tests.world.wikimedia import Mishap, Served, Wikimedia, serve


@pytest.fixture
def host() -> Iterator[Wikimedia]:
    with serve() as host:
        yield host


# -- a host with limits --------------------------------------------------------------------------------------------------------------------


def test_the_host_says_how_long_to_wait(host: Wikimedia, tmp_path: Path) -> None:
    body, _ = publish(host)
    host.mishaps[path_of()] = [Mishap(status=429, headers={"Retry-After": "7"}), Mishap(status=503), Mishap(status=502)]
    clock = Clock()
    download(host, tmp_path, "--languages", "ltg", "--connections", "1", clock=clock)
    assert (tmp_path / name_of()).read_bytes() == body
    assert clock.slept == [7.0, 4.0, 8.0]
    assert host.ranges(path_of()) == [""] * 4


def test_a_busy_host_is_left_alone_by_all(host: Wikimedia, tmp_path: Path) -> None:
    for wiki in ("ltgwiki", "lvwiki", "bgwiki"):
        publish(host, wiki)
    host.mishaps[f"ltgwiki/{DATE}/dumpstatus.json"] = [Mishap(status=429, headers={"Retry-After": "100"})]
    clock = Clock()
    download(host, tmp_path, "--languages", "bg,ltg,lv", "--date", DATE, "--connections", "1", clock=clock)
    assert clock.slept == [100.0]
    assert len(list(tmp_path.glob("*.bz2"))) == 6


def test_a_host_that_asks_for_too_long_a_pause(host: Wikimedia, tmp_path: Path) -> None:
    publish(host)
    publish(host, "lvwiki")
    for wiki in ("ltgwiki", "lvwiki"):
        host.mishaps[f"{wiki}/{DATE}/dumpstatus.json"] = [Mishap(status=503, headers={"Retry-After": "3600"})] * 9
    clock = Clock()
    with pytest.raises(JobError, match=r"^2 of what") as error:
        download(host, tmp_path, "--languages", "ltg,lv", "--date", DATE, "--connections", "1", clock=clock)
    url = f"{host.base_url}/ltgwiki/{DATE}/dumpstatus.json"
    assert str(error.value).splitlines()[1:] == [
        f"  {url} answered 503, come again in 3600 s; given up after 1 attempts in a row",
        f"  {host.base_url}/lvwiki/{DATE}/dumpstatus.json: not asked, since its host is of no use now "
        f"({url} answered 503, come again in 3600 s)",
    ]
    assert clock.slept == []
    assert len(host.asked) == 1


def test_a_host_that_is_not_there_is_tried_for_one_file_only(tmp_path: Path) -> None:
    clock = Clock()
    nowhere = Wikimedia(base_url="http://127.0.0.1:9")
    with pytest.raises(JobError) as error:
        download(nowhere, tmp_path, "--languages", "ltg,lv,bg", "--connections", "1", clock=clock)
    assert str(error.value).startswith("3 of what was asked for could not be had")
    assert clock.slept == [2.0, 4.0, 8.0, 16.0, 32.0]


def test_a_host_that_sends_is_of_use_even_if_it_refuses_a_second_connection(host: Wikimedia, tmp_path: Path) -> None:
    body, _ = publish(host)
    publish(host, "lvwiki")
    host.partials = tmp_path / ".partial"
    index, refused = (path_of(wiki, "-multistream-index.txt.bz2") for wiki in ("ltgwiki", "lvwiki"))
    more, partial = threading.Semaphore(0), tmp_path / ".partial" / name_of()

    def in_pieces(body: bytes) -> Iterator[bytes]:
        for i in range(6):
            assert more.acquire(timeout=30)
            yield body[i * 100 : (i + 1) * 100]
        assert more.acquire(timeout=30)
        yield body[600:]

    def after_a_piece(n_bytes: int) -> None:
        more.release()
        host.wait_for_client(path_of(), n_bytes)
        assert partial.stat().st_size == n_bytes

    host.mishaps[path_of()] = [Mishap(pieces=in_pieces)]
    # All that the host answers before it is told to wait: the large file has begun.
    host.mishaps[index] = [Mishap(before=lambda: host.wait_for_client(path_of(), 0))]
    host.mishaps[refused] = [Mishap(status=429, before=partial_call(after_a_piece, (i + 1) * 100)) for i in range(6)]
    host.mishaps[path_of("lvwiki")] = [Mishap(before=more.release)]
    with pytest.raises(JobError) as error:
        download(host, tmp_path, "--languages", "ltg,lv")
    assert str(error.value).splitlines() == [
        "1 of what was asked for could not be had; the same command goes on with it:",
        f"  {host.base_url}/{refused} answered 429; given up after 6 attempts in a row",
    ]
    assert (tmp_path / name_of()).read_bytes() == body
    assert [path.name for path in tmp_path.glob("lvwiki*")] == [name_of("lvwiki")]


@pytest.mark.parametrize("connections", [1, 2])
def test_no_more_connections_than_allowed(host: Wikimedia, tmp_path: Path, connections: int) -> None:
    for wiki in ("ltgwiki", "lvwiki", "bgwiki", "afwiki"):
        publish(host, wiki)
    together = threading.Barrier(connections, timeout=30)
    # Every request waits for as many others as are allowed at a time.
    host.at_file = together.wait
    download(host, tmp_path, "--languages", "af,bg,ltg,lv", "--connections", str(connections))
    assert host.most_connections == connections
    assert len(list(tmp_path.glob("*.bz2"))) == 8


def test_a_client_by_itself_opens_no_more_connections(host: Wikimedia) -> None:
    publish(host)
    paths = ["ltgwiki/", f"ltgwiki/{DATE}/dumpstatus.json", path_of(), path_of(end="-multistream-index.txt.bz2")]

    async def read_all() -> list[bytes]:
        async with Client(user_agent="x", connections=1, policy=RetryPolicy()) as client:
            return await asyncio.gather(*(client.read(f"{host.base_url}/{path}", max_bytes=MB) for path in paths))

    assert asyncio.run(read_all()) == [host.files[path].body for path in paths]
    assert host.most_connections == 1


# -- hostile hosts -------------------------------------------------------------------------------------------------------------------------


def test_names_of_a_status_do_not_become_paths(host: Wikimedia, tmp_path: Path) -> None:
    publish(host)
    publish(host, "lvwiki")
    status = host.status("ltgwiki", DATE)
    status["jobs"]["articlesmultistreamdump"]["files"]["../../evil.bz2"] = {"size": 1, "sha1": "0" * 40, "url": "/evil.bz2"}
    host.put_status("ltgwiki", DATE, status)
    with pytest.raises(JobError) as error:
        download(host, tmp_path / "a" / "b", "--languages", "ltg,lv")
    assert str(error.value).splitlines()[1:] == [
        f"  {host.base_url}/ltgwiki/{DATE}/dumpstatus.json: the dumpstatus.json of ltgwiki {DATE} names '../../evil.bz2', "
        "which is no pages-articles file of that dump"
    ]
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {
        "download.json",
        name_of("lvwiki"),
        name_of("lvwiki", "-multistream-index.txt.bz2"),
    }


def test_the_url_of_a_status_is_not_followed(host: Wikimedia, tmp_path: Path) -> None:
    publish(host)
    status = host.status("ltgwiki", DATE)
    for file in status["jobs"]["articlesmultistreamdump"]["files"].values():
        file["url"] = "http://127.0.0.1:9/x"
    host.put_status("ltgwiki", DATE, status)
    download(host, tmp_path, "--languages", "ltg")
    assert (tmp_path / name_of()).exists()


def test_a_status_without_sha1_is_refused(host: Wikimedia, tmp_path: Path) -> None:
    body, _ = publish(host)
    with serve() as mirror:
        mirror.files |= host.files
        status = host.status("ltgwiki", DATE)
        del status["jobs"]["articlesmultistreamdump"]["files"][name_of()]["sha1"]
        mirror.put_status("ltgwiki", DATE, status)
        with pytest.raises(JobError, match=f"has no SHA-1 of {name_of()}: --checksums-from https://dumps.wikimedia.org may have it"):
            download(mirror, tmp_path, "--languages", "ltg")
        # What the mirror says of its own files does not count then.
        mirror.files[path_of()] = Served(body=some_bytes(len(body), "evil"))
        mirror.add_dump("ltgwiki", DATE, {"-multistream.xml.bz2": mirror.files[path_of()].body})
        with pytest.raises(JobError, match=f"{mirror.base_url} seems to hold a damaged copy"):
            download(mirror, tmp_path, "--languages", "ltg", "--checksums-from", host.base_url)
    assert not (tmp_path / name_of()).exists()


def test_redirects_are_followed_some_way(host: Wikimedia, tmp_path: Path) -> None:
    body, _ = publish(host)
    with serve() as other:
        other.files["elsewhere"] = host.files[path_of()]
        host.mishaps[path_of()] = [Mishap(status=302, headers={"Location": f"{other.base_url}/elsewhere"})]
        host.mishaps[f"ltgwiki/{DATE}/dumpstatus.json"] = [Mishap(status=301, headers={"Location": "dumpstatus.json"})] * 5
        download(host, tmp_path, "--languages", "ltg")
    assert (tmp_path / name_of()).read_bytes() == body


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("/ltgwiki/", "leads to more than 5 redirects"),
        ("ftp://127.0.0.1/x", "leads to ftp://127.0.0.1/x, which is not followed"),
        ("file:///etc/passwd", "which is not followed"),
        ("http://me:secret@127.0.0.1/", "which is not followed"),
        ("http://[", "leads to a URL that is none: 'http://['"),
    ],
)
def test_redirects_that_lead_nowhere(host: Wikimedia, tmp_path: Path, location: str, said: str) -> None:
    host.mishaps["ltgwiki/"] = [Mishap(status=302, headers={"Location": location})] * 9
    with pytest.raises(JobError) as error:
        download(host, tmp_path, "--languages", "ltg")
    assert said in str(error.value)
    assert len(host.asked) == (6 if location.startswith("/") else 1)


def test_a_redirect_is_as_safe_as_before() -> None:
    safe = URL("https://dumps.wikimedia.org/a/b")
    assert _redirected(safe, "../c") == URL("https://dumps.wikimedia.org/c")
    assert _redirected(safe, "//mirror.example/x") == URL("https://mirror.example/x")
    assert _redirected(URL("http://mirror.example/x"), "https://mirror.example/x") == URL("https://mirror.example/x")
    with pytest.raises(TransferError, match=r"leads to http://dumps.wikimedia.org/a, which is not followed$"):
        _redirected(safe, "http://dumps.wikimedia.org/a")


def test_a_page_without_end(host: Wikimedia, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.download.MAX_PAGE_BYTES", 1_000)
    host.files["ltgwiki/"] = Served(body=bytes(100_000), length=False)
    with pytest.raises(JobError, match="/ltgwiki/ is longer than 1,000 bytes"):
        download(host, tmp_path, "--languages", "ltg")
    assert len(host.asked) == 1
