from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import JobError
from pipelines.jobs import run_job
from pipelines.stage import open_stage
from tests.pipelines.test_jobs import write_stage


def make(tmp_path: Path, name: str, **lists: list[str]) -> str:
    """A stage whose lists are the numbers 0 to 99 and these."""
    more = []
    for lang, entries in lists.items():
        (tmp_path / f"{name}-{lang}.txt").write_text("\n".join(entries), encoding="utf-8")
        more += ["--extra-entries", f"{lang}={tmp_path}/{name}-{lang}.txt"]
    run_job("entries", [*more, "--output", f"{tmp_path}/{name}", "--json"])
    return f"{tmp_path}/{name}"


@pytest.fixture
def stages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    before = make(tmp_path, "A", en=["dog", "cat", "horse"], de=["Hund"], fr=["chien", "chat"], pl=["pies"], ja=["犬", "猫"])
    after = make(tmp_path, "B", en=["cat", "bird", "ox\x1b[1m", "dog"], de=["Hund"], fr=["chat", "chien"], lv=["suns"], ja=["猫"])
    capsys.readouterr()
    return before, after


def test_two_stages_language_by_language(stages: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = stages
    run_job("diff", [before, after, "--show", "2", "--json", f"{tmp_path}/d.json"])
    assert capsys.readouterr().out.splitlines() == [
        f"before: {before}",
        f"after:  {after}",
        "language          before       after        kept        went        came  by source",
        "en                   103         104         102           1           2  extra -1 +2",
        "ja                   102         101         101           1           0  extra -1",
        "fr                   102         102         102           0           0  in another order",
        "all of these         307         307         305           2           2  extra -2 +2",
        "the same entries with the same ids: 1 language",
        "en          went  extra      horse",
        "en          came  extra      bird",
        "en          came  extra      'ox\\x1b[1m'",
        "ja          went  extra      犬",
        "only before: pl (101)",
        "only after: lv (101)",
    ]
    body = json.loads(Path(f"{tmp_path}/d.json").read_text(encoding="utf-8"))
    assert {key: body[key] for key in body if key != "languages"} == {
        "format_version": 1,
        "kind": "entries",
        "before": {"path": before, "id": open_stage(before, "entries").id},
        "after": {"path": after, "id": open_stage(after, "entries").id},
        "only_before": {"pl": 101},
        "only_after": {"lv": 101},
    }
    assert {lang: x["same"] for lang, x in body["languages"].items()} == {"de": True, "en": False, "fr": False, "ja": False}
    assert body["languages"]["en"]["came"] == {
        "entries": 2,
        "by_source": {"extra": 2},
        "first": [{"entry": "bird", "source": "extra"}, {"entry": "ox\x1b[1m", "source": "extra"}],
    }


def test_nothing_changed(stages: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    before, _ = stages
    run_job("diff", [before, before])
    assert capsys.readouterr().out.splitlines()[2:] == ["the same entries with the same ids: 5 languages"]


def test_languages_may_be_chosen(stages: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    before, after = stages
    run_job("diff", [before, after, "--languages", "pl, ja"])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]] == ["language", "ja", "only"]
    with pytest.raises(JobError) as error:
        run_job("diff", [before, after, "--languages", "ja,fi,eo"])
    assert str(error.value) == f"--languages eo, fi: neither {before} nor {after} has it"


@pytest.mark.parametrize("form", ["json", "parquet"])
def test_a_list_in_a_file_is_compared_with_its_language(
    stages: tuple[str, str], tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = stages
    file = f"{after}/en.{form}"
    run_job("diff", [before, file])
    source = "extra -1, unknown +2" if form == "json" else "extra -1 +2"
    expected = [f"en                   103         104         102           1           2  {source}"]
    assert capsys.readouterr().out.splitlines()[3:] == expected
    metadata = tmp_path / f"metadata.{form}"
    metadata.write_bytes(Path(file).read_bytes())
    run_job("diff", [before, str(metadata), "--languages", "en"])
    assert capsys.readouterr().out.splitlines()[3:] == expected
    with pytest.raises(JobError) as error:
        run_job("diff", [before, str(metadata)])
    assert str(error.value) == f"{metadata}: which language is it? Say --languages CODE"
    with pytest.raises(JobError) as error:
        run_job("diff", [str(metadata), before, "--languages", "en,ja"])
    assert str(error.value) == f"{metadata}: which language is it? Say --languages CODE"


def test_two_files_are_compared_whatever_they_are_called(stages: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    before, after = stages
    run_job("diff", [f"{before}/ja.json", f"{after}/en.parquet", "--show", "1"])
    assert capsys.readouterr().out.splitlines()[3:] == [
        "list                 102         104         100           2           4  extra +4, unknown -2",
        "list        went  unknown    犬",
        "list        came  extra      cat",
    ]
    run_job("diff", [f"{before}/ja.json", f"{after}/ja.parquet"])
    assert capsys.readouterr().out.splitlines()[3].split()[:3] == ["ja", "102", "101"]


def test_sources_that_changed_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, sources in (("a", ["unigram", "title"]), ("b", ["unigram", "bigram"])):
        pq.write_table(pa.table({"entry": ["x", "y"], "source": sources}), tmp_path / f"{name}.parquet")
    run_job("diff", [f"{tmp_path}/a.parquet", f"{tmp_path}/b.parquet"])
    assert capsys.readouterr().out.splitlines()[3:] == [
        "list                   2           2           2           0           0  1 of another source"
    ]


def test_other_things_are_refused(stages: tuple[str, str], tmp_path: Path) -> None:
    before, _ = stages
    write_stage(f"{tmp_path}/dedup")
    write_stage(f"{tmp_path}/unfinished", kind="entries", finish=False)
    (tmp_path / "en.json").write_text('{"a": 1}')
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "captions.parquet")
    pq.write_table(pa.table({"entry": ["x", "x"]}), tmp_path / "twice.parquet")
    pq.write_table(pa.table({"entry": ["x", None]}), tmp_path / "null.parquet")
    pq.write_table(pa.table({"entry": [[1]]}), tmp_path / "numbers.parquet")
    for other, said in (
        ("dedup", "{0}/dedup holds a stage 'dedup'; diff compares entries"),
        ("unfinished", "{0}/unfinished is not finished (no _SUCCESS)"),
        ("absent", "{0}/absent is no stage: there is no stage.json in it"),
        ("absent.json", "{0}/absent.json: cannot be read (FileNotFoundError)"),
        ("en.json", "{0}/en.json: the entries must be a JSON list of strings, not dict"),
        ("broken.parquet", "{0}/broken.parquet: it is no Parquet file with a list of entries ("),
        ("captions.parquet", "{0}/captions.parquet: it has no column entry; there are text"),
        ("twice.parquet", f"en of {before} or {{0}}/twice.parquet: it is no list of entries: one occurs twice"),
        ("null.parquet", "{0}/null.parquet: it is no list of entries: one is null"),
        ("numbers.parquet", "{0}/numbers.parquet: it is no Parquet file with a list of entries ("),
    ):
        with pytest.raises(JobError) as error:
            run_job("diff", [before, f"{tmp_path}/{other}", "--languages", "en"])
        assert str(error.value).startswith(said.format(tmp_path))
    with pytest.raises(JobError, match="diff does not know --streaming"):
        run_job("diff", [before, before, "--streaming"])


def test_both_sides_must_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_job("diff", ["A"])
    assert capsys.readouterr().err.splitlines()[-1] == "worldclip diff: error: the following arguments are required: B"
