"""What can be said of Dataflow without its cloud: graphs that stay small whatever is asked of them, made of nothing but importable code."""

from __future__ import annotations

import base64
import bz2
import json
import pathlib
import pickletools
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.transforms.environments import DockerEnvironment

from metadata.languages import metadata_codes
from pipelines import balance, count, dedup, entries, images, match, ngrams, titles, wordnet
from pipelines.jobs import run_job
from pipelines.processes import module_environment
from pipelines.stage import Stage, digest
from tests.pipelines.pools import PoolShape, write_pool
from tests.world.chain import contents

#: Dataflow takes 10 MB, as JSON with what it adds.
MOST_BYTES = 1 << 20
ROOT = pathlib.Path(__file__).resolve().parents[2]
OURS = tuple(f"{ROOT / room}/" for room in ("metadata", "balancing", "pipelines", "tests"))
LANGUAGES = sorted(metadata_codes())
#: A crawl's files by name, as a shell writes them where a glob is not quoted.
NAMED = tuple(f"gs://bucket/crawl/segments/1700000000000.{i % 100:02}/warc/crawl-{i:05}.warc.gz" for i in range(90_000))

Build = Callable[[beam.Pipeline], None]


def stage(kind: str, **parameters: Any) -> Stage:
    return Stage(url=f"gs://bucket/W/{kind}", kind=kind, parameters=parameters, upstream={"entries": digest(kind), "count": digest("c")})


def builds(languages: list[str], inputs: tuple[str, ...]) -> dict[str, Build]:
    """The graph of every job, for these languages and inputs."""
    out = "gs://bucket/W/out"
    t = {"id": digest("t"), "t": dict.fromkeys(languages, "12345.678")}
    matched = ("gs://bucket/W/matched",)
    return {
        "ngrams": partial(
            ngrams.build, blocks=stage("ngram_blocks"), stage=stage("ngrams"), config=ngrams.NgramsConfig(output=out, input=inputs)
        ),
        "titles": partial(titles.build, blocks=stage("title_blocks"), stage=stage("titles")),
        "wordnet": partial(wordnet.build, stage=stage("wordnet"), config=wordnet.WordnetConfig(output=out, input="gs://bucket/nltk_data")),
        "entries": partial(entries.build, stage=stage("entries"), config=entries.EntriesConfig(output=out, ngrams="gs://bucket/W/ngrams")),
        "match": partial(
            match.build, stage=stage("match", languages=languages), config=match.MatchConfig(output=out, entries="gs://e", input=inputs)
        ),
        "dedup": partial(dedup.build, stage=stage("dedup"), cut=dedup.Cut(ranges=25_000), languages=languages),
        "count": partial(
            count.build, stage=stage("count"), config=count.CountConfig(output=out, matched=matched, siblings="gs://s", entries="gs://e")
        ),
        "balance": partial(
            balance.build,
            stage=stage("balance", thresholds=t, seed=1),
            config=balance.BalanceConfig(output=out, matched=matched, siblings="gs://s", thresholds="gs://t"),
            counts_url="gs://c",
        ),
        "images": partial(
            images.build, stage=stage("images"), config=images.ImagesConfig(output=out, curated="gs://curated"), shards=1_000_000
        ),
    }


JOBS = sorted(builds(["en"], ("gs://bucket/one.gz",)))


def graph_of(build: Build) -> beam_runner_api_pb2.Pipeline:
    """The graph as Dataflow is sent it."""
    pipeline = beam.Pipeline()
    build(pipeline)
    return pipeline.to_runner_api(default_environment=DockerEnvironment(container_image="worldclip:test"))


@cache
def great_graph(job: str) -> beam_runner_api_pb2.Pipeline:
    """The graph of a job for all languages and a whole crawl. Tests only read it."""
    return graph_of(builds(LANGUAGES, NAMED)[job])


def code_by_value(graph: beam_runner_api_pb2.Pipeline) -> list[str]:
    """Traces of code in a graph that workers cannot import: what is defined in __main__ or inside of a function, as a lambda is, travels by
    value, with the place of its source."""
    found = []
    for transform in graph.components.transforms.values():
        if transform.spec.urn == "beam:transform:pardo:v1":
            payload = beam_runner_api_pb2.ParDoPayload.FromString(transform.spec.payload).do_fn.payload
            pickle = bz2.decompress(base64.b64decode(payload))
            words = [argument for _, argument, _ in pickletools.genops(pickle) if isinstance(argument, str)] if pickle else []
            found += [word for word in words if word.startswith((*OURS, "__main__"))]
    return found


@pytest.mark.parametrize("job", JOBS)
def test_a_graph_stays_small_for_all_languages_and_a_whole_crawl(job: str) -> None:
    few, many = graph_of(builds(LANGUAGES[:2], NAMED[:2])[job]), great_graph(job)
    assert many.ByteSize() < MOST_BYTES
    assert len(many.components.transforms) == len(few.components.transforms)


@pytest.mark.parametrize("job", JOBS)
def test_workers_can_import_the_code_of_a_graph(job: str) -> None:
    assert not code_by_value(great_graph(job))


def test_code_that_they_cannot_import_is_seen() -> None:
    graph = graph_of(lambda pipeline: pipeline | beam.Create([1]) | beam.Map(lambda x: x + 1))
    assert set(code_by_value(graph)) == {__file__}


def test_a_flex_template_starts_a_job(tmp_path: pathlib.Path) -> None:
    """As its launcher does, which puts parameters of its own between; here with the embedded runner."""
    write_pool(str(tmp_path), PoolShape(pairs=300))
    argv = ["--matched", f"{tmp_path}/matched", "--output"]
    run_job("dedup", [*argv, f"{tmp_path}/siblings"])
    parameters = [f"--options={shlex.join([*argv, f'{tmp_path}/out'])}", "--runner=FnApiRunner", "--job=dedup"]
    launcher = [sys.executable, str(ROOT / "deploy" / "dataflow" / "launch.py"), *parameters, "--temp_location=gs://bucket/tmp"]
    subprocess.run(launcher, check=True, env=module_environment())
    assert contents(tmp_path / "out") == contents(tmp_path / "siblings") != {}


def test_the_template_offers_the_jobs_that_there_are() -> None:
    template = json.loads((ROOT / "deploy" / "dataflow" / "template.json").read_text())
    pattern = re.compile(template["metadata"]["parameters"][0]["regexes"][0])
    assert [job for job in JOBS if not pattern.fullmatch(job)] == ["entries"]
