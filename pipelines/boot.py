"""``worldclip-worker``: starts the workers of an engine that is no Python program, such as Flink, where this package is installed.

An engine that starts processes itself (``--environment_type=PROCESS``) calls it with ``--id`` and ``--provision_endpoint``, as it would
call the ``boot`` of Beam's containers, and the process becomes one worker. For an engine that asks a side-car
(``--environment_type=EXTERNAL``), ``--serve PORT`` waits on this machine's loopback address and starts a worker whenever it is told to.

Beam has a pool for side-cars too. It listens on all interfaces, although whoever reaches it can run code, and it starts the first
``python`` of the PATH, which need not be the one with this package.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from apache_beam.portability.api import (
    beam_fn_api_pb2,
    beam_fn_api_pb2_grpc,
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
)
from google.protobuf import json_format, text_format

from pipelines import worker
from pipelines.processes import module_environment, python_module

#: How long an engine may take to answer, and a worker to end.
PATIENCE_S = 60.0
END_S = 10.0


def provision_info(endpoint: str, worker_id: str) -> beam_provision_api_pb2.ProvisionInfo:
    """What the engine has to say to the worker of that name. Raises grpc.RpcError where it does not answer."""
    with grpc.insecure_channel(endpoint) as channel:
        service = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        request = beam_provision_api_pb2.GetProvisionInfoRequest()
        answer = service.GetProvisionInfo(request, metadata=[("worker_id", worker_id)], timeout=PATIENCE_S, wait_for_ready=True)
    return answer.info


def worker_environment(worker_id: str, info: beam_provision_api_pb2.ProvisionInfo) -> dict[str, str]:
    """The environment variables from which Beam's worker takes all that it needs to know.

    What the job staged (``--setup_file``, ``--extra_package``) is passed over: the package is installed.
    """
    return {
        "WORKER_ID": worker_id,
        "PIPELINE_OPTIONS": json_format.MessageToJson(info.pipeline_options),
        "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(info.control_endpoint),
        "LOGGING_API_SERVICE_DESCRIPTOR": text_format.MessageToString(info.logging_endpoint),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
    }


class Pool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """Starts a process per worker that it is asked for. Names of workers must be unique: it serves one engine process, such as one
    TaskManager."""

    def __init__(self) -> None:
        self._workers: dict[str, subprocess.Popen[bytes]] = {}

    def StartWorker(self, request: Any, _: Any) -> beam_fn_api_pb2.StartWorkerResponse:
        self._end(request.worker_id)
        told = [f"--id={request.worker_id}", f"--provision_endpoint={request.provision_endpoint.url}"]
        try:
            self._workers[request.worker_id] = subprocess.Popen([*python_module("pipelines.boot"), *told], env=module_environment())
        except OSError as error:
            return beam_fn_api_pb2.StartWorkerResponse(error=f"no worker could be started: {error}")
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(self, request: Any, _: Any) -> beam_fn_api_pb2.StopWorkerResponse:
        self._end(request.worker_id)
        return beam_fn_api_pb2.StopWorkerResponse()

    def _end(self, worker_id: str) -> None:
        process = self._workers.pop(worker_id, None)
        if process is None:
            return
        process.terminate()
        try:
            process.wait(timeout=END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def close(self) -> None:
        for worker_id in list(self._workers):
            self._end(worker_id)


def serve(port: int) -> None:
    """Start workers for an engine on this machine until SIGTERM or SIGINT."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    pool = Pool()
    server = grpc.server(ThreadPoolExecutor(max_workers=8))
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    print(f"worldclip-worker: ready on 127.0.0.1:{bound}", flush=True)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        pass
    finally:
        server.stop(0)
        pool.close()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="worldclip-worker", description="Start workers for an engine such as Flink.", allow_abbrev=False)
    parser.add_argument("--serve", type=int, metavar="PORT", help="a side-car: start workers on request (0 takes a free port, and says it)")
    parser.add_argument("--id", help="the worker's name; engines say it")
    parser.add_argument("--provision_endpoint", metavar="HOST:PORT", help="where the worker asks what to do; engines say it")
    # Engines also say other addresses, which the provision service knows better.
    known, _ = parser.parse_known_args(argv)
    if known.serve is not None:
        serve(known.serve)
    elif known.id and known.provision_endpoint:
        os.environ.update(worker_environment(known.id, provision_info(known.provision_endpoint, known.id)))
        worker.main()
    else:
        parser.error("engines call this with --id and --provision_endpoint; by hand it takes --serve PORT")


if __name__ == "__main__":
    main()
