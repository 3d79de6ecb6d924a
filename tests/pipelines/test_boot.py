from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator

import grpc
import psutil
import pytest
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc, beam_provision_api_pb2, endpoints_pb2
from google.protobuf import struct_pb2

from pipelines import boot
from pipelines.processes import module_environment, python_module


@pytest.fixture
def pool() -> Iterator[tuple[subprocess.Popen[str], beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub]]:
    """A side-car on a free port, and how an engine speaks to it."""
    command = [*python_module("pipelines.boot"), "--serve", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=module_environment()) as process:
        assert process.stdout
        address = process.stdout.readline().split()[-1]
        with grpc.insecure_channel(address) as channel:
            yield process, beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)
        process.terminate()  # with its workers


def workers(pool: subprocess.Popen[str]) -> dict[str, psutil.Process]:
    """The workers that run, by the name they were given."""
    found = {}
    for child in psutil.Process(pool.pid).children():
        if child.status() != psutil.STATUS_ZOMBIE:
            found.update({argument.partition("=")[2]: child for argument in child.cmdline() if argument.startswith("--id=")})
    return found


def begin(stub: beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub, name: str) -> None:
    # Nobody answers there, so that the worker waits.
    nowhere = endpoints_pb2.ApiServiceDescriptor(url="127.0.0.1:1")
    assert not stub.StartWorker(beam_fn_api_pb2.StartWorkerRequest(worker_id=name, provision_endpoint=nowhere)).error


def test_a_pool_starts_and_ends_the_workers_that_it_is_asked_for(
    pool: tuple[subprocess.Popen[str], beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub],
) -> None:
    process, stub = pool
    begin(stub, "1-1")
    begin(stub, "2-1")
    first = workers(process)
    assert set(first) == {"1-1", "2-1"}
    stub.StopWorker(beam_fn_api_pb2.StopWorkerRequest(worker_id="1-1"))
    stub.StopWorker(beam_fn_api_pb2.StopWorkerRequest(worker_id="never started"))
    assert set(workers(process)) == {"2-1"}
    begin(stub, "2-1")  # an engine that starts anew gives the same names
    assert set(workers(process)) == {"2-1"}
    assert not first["2-1"].is_running()


def test_nothing_is_left_of_a_pool_that_ends(
    pool: tuple[subprocess.Popen[str], beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub],
) -> None:
    process, stub = pool
    begin(stub, "1-1")
    (worker,) = workers(process).values()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    assert not worker.is_running()


def test_a_pool_listens_on_this_machine_only(
    pool: tuple[subprocess.Popen[str], beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub],
) -> None:
    listening = [
        c.laddr.ip.removeprefix("::ffff:")
        for c in psutil.Process(pool[0].pid).net_connections(kind="inet")
        if c.status == psutil.CONN_LISTEN
    ]
    assert listening == ["127.0.0.1"]


def test_what_a_worker_is_told() -> None:
    options = struct_pb2.Struct()
    options["beam:option:parallelism:v1"] = "2"
    info = beam_provision_api_pb2.ProvisionInfo(
        pipeline_options=options,
        control_endpoint=endpoints_pb2.ApiServiceDescriptor(url="localhost:1"),
        logging_endpoint=endpoints_pb2.ApiServiceDescriptor(url="localhost:2"),
        runner_capabilities=["a", "b"],
    )
    told = boot.worker_environment("1-1", info)
    assert json.loads(told.pop("PIPELINE_OPTIONS")) == {"beam:option:parallelism:v1": "2"}
    assert told == {
        "WORKER_ID": "1-1",
        "CONTROL_API_SERVICE_DESCRIPTOR": 'url: "localhost:1"\n',
        "LOGGING_API_SERVICE_DESCRIPTOR": 'url: "localhost:2"\n',
        "RUNNER_CAPABILITIES": "a b",
    }


def test_by_hand_it_says_what_it_wants(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        boot.main(["--id", "1-1"])
    assert end.value.code == 2
    assert "--serve PORT" in capsys.readouterr().err
