from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines import __main__ as command_line
from pipelines import storage
from pipelines.chain import OUTPUTS
from pipelines.clean import items_of, readers_of
from pipelines.jobs import run_job
from pipelines.stage import STAGE_FILE, SUCCESS
from tests.pipelines.conftest import contents
from tests.pipelines.test_jobs import write_stage

#: Jobs with a stage, and where it lies.
STAGES = {job: place for job, place in OUTPUTS.items() if job not in ("thresholds", "train")}


def write_chain(place: str, *jobs: str, unfinished: str = "") -> str:
    """A work directory in which these jobs are done, each stage 1 file of each kind; blocks and passes where there are some."""
    work = storage.join(place, "W")
    for job in jobs:
        if job == "thresholds":
            storage.write_json(storage.join(work, "thresholds.json"), {})
        else:
            write_stage(storage.join(work, STAGES[job]), kind=job, finish=job not in ("ngrams", "titles") and job != unfinished)
            if job in ("ngrams", "titles"):
                write_stage(storage.join(work, STAGES[job], "blocks"), kind="ngram_blocks" if job == "ngrams" else "title_blocks")
                storage.write_bytes(storage.join(work, STAGES[job], SUCCESS), b"")
            if job == "dedup":
                write_stage(storage.join(work, STAGES[job], "passes/0"), kind="dedup_pass")
    return work


def size(files: dict[str, bytes], name: str) -> int:
    return sum(len(data) for path, data in files.items() if path.startswith(f"{name}/"))


def refusal(capsys: pytest.CaptureFixture[str], work: str, *argv: str) -> str:
    assert command_line.main(["clean", work, *argv]) == 1
    return capsys.readouterr().err.removeprefix("worldclip clean: ").rstrip("\n")


def test_what_there_is_what_it_takes_and_who_needs_it(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    work = write_chain(place, "ngrams", "wordnet", "entries", "match", "dedup", unfinished="match")
    files = contents(work)
    run_job("clean", [work])
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    assert [[cell.strip() for cell in line if cell.strip()] for line in lines] == [
        ["stage", "size", "needed by", "lost without it"],
        ["ngrams", kb(size(files, "ngrams")), "-", "entries by another recipe, a card that starts from dumps"],
        ["ngrams/blocks", kb(size(files, "ngrams/blocks")), "-", "more dumps without counting all again, a card that starts from dumps"],
        ["wordnet", kb(size(files, "wordnet")), "-", "entries by another recipe, a card that starts from wordnets"],
        ["entries", kb(size(files, "entries")), "match, count", "matching more pairs, counting, explain, coverage, a card"],
        ["matched", kb(size(files, "matched")), "not finished", "de-duplication, counting, another t or seed, a card"],
        ["siblings", kb(size(files, "siblings")), "count, balance", "counting, another t or seed, a card"],
        ["siblings/passes", kb(size(files, "siblings/passes")), "-", "-"],
        ["all", kb(sum(size(files, STAGES[job]) for job in ("ngrams", "wordnet", "entries", "match", "dedup")))],
    ]
    assert contents(work) == files


def test_passes_of_thresholds_go_once_these_are_made(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    work = write_chain(place, "entries")
    write_stage(storage.join(work, "thresholds.json.passes/ab12"), kind="expectation")
    [passes] = [item for item in items_of(work) if item.job == "thresholds/passes"]
    assert (passes.name, passes.finished, passes.needed_by) == ("thresholds.json.passes", False, ("thresholds",))
    said = "--delete thresholds.json.passes: it is not finished, so that a job may be at work in it"
    assert refusal(capsys, work, "--delete", "thresholds.json.passes").startswith(said)
    storage.write_json(storage.join(work, "thresholds.json"), {})
    run_job("clean", [work, "--delete", "thresholds.json.passes"])
    assert "lost with them: other thresholds for a wanted number of pairs without passes over them" in capsys.readouterr().out
    assert not storage.walk(storage.join(work, "thresholds.json.passes"))


def kb(n_bytes: int) -> str:
    return f"{n_bytes / 1000:.1f} kB"


def test_what_is_named_is_deleted_and_nothing_else(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    work = write_chain(place, *STAGES, "thresholds")
    files = contents(work)
    run_job("clean", [work, "--delete", "matched", "siblings/", "siblings/passes", "ngrams/blocks", "matched"])
    assert contents(work) == {
        name: data for name, data in files.items() if not name.startswith(("matched/", "siblings/", "ngrams/blocks/"))
    }
    out = capsys.readouterr().out.splitlines()
    assert out == [
        f"deleted {work}/matched ({kb(size(files, 'matched'))})",
        f"deleted {work}/siblings ({kb(size(files, 'siblings'))})",
        f"deleted {work}/ngrams/blocks ({kb(size(files, 'ngrams/blocks'))})",
        "lost with them: de-duplication, counting, another t or seed, a card, more dumps without counting all again, "
        "a card that starts from dumps",
        "still there: ngrams, titles, titles/blocks, wordnet, entries, counts, curated, images",
    ]
    if storage.is_local(work):
        assert not os.path.exists(f"{work}/matched")


def test_all_may_go(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    work = write_chain(place, "dedup")
    run_job("clean", [work, "--delete", "siblings", "--force"])
    assert contents(work) == {}
    assert capsys.readouterr().out.splitlines()[-1] == "still there: no stage"
    assert refusal(capsys, work) == f"{work} holds no stage: there is no stage.json in any directory in it"


def test_what_others_need_is_refused_without_force(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    work = write_chain(place, "ngrams", "match", "dedup", "count", "balance", unfinished="dedup")
    files = contents(work)
    for name, said in (
        ("matched", "dedup is not finished and will read it; --force deletes it all the same"),
        ("counts", "thresholds is not finished and will read it; --force deletes it all the same"),
        ("ngrams", "entries is not finished and will read it; --force deletes it all the same"),
        ("curated", "images is not finished and will read it; --force deletes it all the same"),
        ("siblings", "it is not finished, so that a job may be at work in it, or of a newer worldclip; --force deletes it all the same"),
        (
            "siblings/passes",
            "it is not finished, so that a job may be at work in it, or of a newer worldclip; --force deletes it all the same",
        ),
    ):
        # What may go does not either.
        assert refusal(capsys, work, "--delete", "ngrams/blocks", name) == f"--delete {name}: {said}"
    assert contents(work) == files
    run_job("clean", [work, "--delete", "matched", "siblings", "--force"])
    assert {name.split("/")[0] for name in contents(work)} == {"ngrams", "counts", "curated"}


def test_what_is_no_stage_is_refused(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    work = write_chain(place, "ngrams", "entries", "match")
    storage.write_bytes(storage.join(work, "zzz", "x.txt"), b"mine")
    storage.write_bytes(storage.join(place, "other", STAGE_FILE), b"{}")
    files = contents(place)
    there = "(it has ngrams, ngrams/blocks, entries, matched)"
    for name, near in (("zzz", ""), ("thresholds.json", ""), ("../other", ""), (".", ""), ("", ""), ("match", "; did you mean matched?")):
        expected = f"--delete {name}: {work} has no such stage{near} {there}"
        assert refusal(capsys, work, "--delete", name, "--force") == expected
    assert refusal(capsys, f"{work}/matched", "--delete", "x") == (
        f"{work}/matched is a stage itself: name the directory of the chain, and the stage with --delete"
    )
    assert contents(place) == files


def test_a_stage_that_cannot_be_read_needs_force(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    work = write_chain(place, "wordnet", "entries")
    storage.write_bytes(storage.join(work, "wordnet", STAGE_FILE), b"{")
    assert [(item.name, item.finished) for item in items_of(work)] == [("wordnet", False), ("entries", True)]
    assert refusal(capsys, work, "--delete", "wordnet").startswith("--delete wordnet: it is not finished, so that")
    run_job("clean", [work, "--delete", "wordnet", "--force"])
    assert not storage.walk(storage.join(work, "wordnet"))


def test_links_are_never_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = write_chain(str(tmp_path), "entries", "match", "dedup", "count", "thresholds", "balance")
    elsewhere = write_chain(str(tmp_path / "elsewhere"), "match")
    os.symlink(f"{elsewhere}/matched", f"{work}/linked")
    os.symlink(elsewhere, f"{work}/matched/inner")
    os.symlink(f"{elsewhere}/matched/part-x.parquet", f"{work}/matched/part-y.parquet")
    os.symlink(f"{work}/entries", f"{work}/siblings/blocks")
    before = contents(elsewhere)
    assert refusal(capsys, work, "--delete", "linked", "--force") == (
        f"--delete linked: {work}/linked is a link, and what it leads to is left alone: delete that by hand"
    )
    sizes = {item.name: item.bytes for item in items_of(work)}
    own = sum(os.lstat(path).st_size for path in Path(work, "matched").rglob("*") if path.is_symlink() or path.is_file())
    assert sizes["matched"] < own  # a link to a directory counts for nothing
    run_job("clean", [work, "--delete", "matched", "siblings"])
    assert contents(elsewhere) == before
    assert Path(work, "entries", STAGE_FILE).is_file()
    assert sorted(os.listdir(work)) == ["counts", "curated", "entries", "linked", "thresholds.json"]


def test_a_stage_that_was_half_deleted_can_be_deleted(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    work = write_chain(place, "entries", "match", "dedup", "count", "thresholds", "balance")
    removed: list[str] = []

    def stop(path: str) -> None:
        if len(removed) == 2:
            raise KeyboardInterrupt
        removed.append(path)

    remove, unlink = storage.remove, os.unlink
    monkeypatch.setattr(storage, "remove", lambda url: (stop(url), remove(url)))
    monkeypatch.setattr(os, "unlink", lambda path, **more: (stop(str(path)), unlink(path, **more)))
    with pytest.raises(KeyboardInterrupt):
        run_job("clean", [work, "--delete", "matched"])
    monkeypatch.undo()
    assert removed[0].endswith(f"/{SUCCESS}")
    assert not storage.exists(storage.join(work, "matched", SUCCESS))
    assert storage.exists(storage.join(work, "matched", STAGE_FILE))
    run_job("clean", [work, "--delete", "matched", "--force"])
    assert "matched" not in {name.split("/")[0] for name in contents(work)}


def test_who_reads_what() -> None:
    assert {job: readers_of(job) for job in OUTPUTS} == {
        "ngrams": ["entries"],
        "titles": ["entries"],
        "wordnet": ["entries"],
        "entries": ["match", "count"],
        "match": ["dedup", "count", "balance"],
        "dedup": ["count", "balance"],
        "count": ["thresholds", "balance"],
        "thresholds": ["balance"],
        "balance": ["images"],
        "images": ["train"],
        "train": [],
    }
