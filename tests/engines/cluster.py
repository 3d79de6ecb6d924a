"""A Flink session cluster on this machine's loopback address: JobManager, TaskManagers and Beam's job server, each a process that a test
can kill and start again."""

from __future__ import annotations

import contextlib
import json
import pathlib
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psutil

from pipelines.processes import module_environment
from tests.engines.artifacts import jars
from tests.engines.processes import Started, start, wait_until
from tests.ports import free_ports

_CONFIG = pathlib.Path(__file__).resolve().parents[2] / "deploy" / "flink" / "config.yaml"
_JOB_MANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
_TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
_JOB_SERVER = "org.apache.beam.runners.flink.FlinkJobServerDriver"
_HIDDEN_JARS = pathlib.Path(__file__).with_name("HiddenJars.java")
#: What Flink needs of Java 17's modules.
_OPEN = "java.lang java.lang.reflect java.net java.io java.nio java.text java.time java.util java.util.concurrent "
_OPEN += "java.util.concurrent.atomic java.util.concurrent.locks sun.nio.ch"
_JAVA = [*(f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in _OPEN.split()), "-Dorg.slf4j.simpleLogger.showDateTime=true"]
#: Flink's start scripts would work these out from one figure.
_TASK_MANAGER_MEMORY = {
    "taskmanager.cpu.cores": "1.0",
    "taskmanager.memory.framework.heap.size": "128m",
    "taskmanager.memory.task.heap.size": "384m",
    "taskmanager.memory.framework.off-heap.size": "128m",
    "taskmanager.memory.task.off-heap.size": "0b",
    "taskmanager.memory.network.min": "192m",
    "taskmanager.memory.network.max": "192m",
    "taskmanager.memory.managed.size": "128m",
    "taskmanager.memory.jvm-metaspace.size": "256m",
    "taskmanager.memory.jvm-overhead.min": "192m",
    "taskmanager.memory.jvm-overhead.max": "192m",
}
#: Seconds until a JVM is up on a machine that does something else as well.
_UP_S = 180.0


@dataclass(kw_only=True)
class Cluster:
    """``task_managers`` by number; a number that died is free again."""

    root: pathlib.Path
    ports: Mapping[str, int] = field(init=False)
    job_manager: Started = field(init=False)
    job_server: Started = field(init=False)
    task_managers: dict[int, Started] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        names = ("rest", "rpc", "blob", "job", "artifact", "expansion")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        own = {
            "jobmanager.rpc.address": "127.0.0.1",
            "jobmanager.rpc.port": self.ports["rpc"],
            "jobmanager.bind-host": "127.0.0.1",
            "blob.server.port": self.ports["blob"],
            "rest.address": "127.0.0.1",
            "rest.port": self.ports["rest"],
            "rest.bind-address": "127.0.0.1",
            "taskmanager.host": "127.0.0.1",
            "taskmanager.bind-host": "127.0.0.1",
            "taskmanager.numberOfTaskSlots": 1,
            "io.tmp.dirs": self.root / "tmp",
        }
        conf = self.root / "conf"
        conf.mkdir(exist_ok=True)
        (self.root / "tmp").mkdir(exist_ok=True)
        (conf / "config.yaml").write_text(_CONFIG.read_text() + "".join(f"{key}: {value}\n" for key, value in own.items()))
        # An engine wants one file that it can start.
        self.boot = self.root / "worldclip-worker"
        path = module_environment()["PYTHONPATH"]
        self.boot.write_text(f'#!/bin/sh\nexec env PYTHONPATH="{path}" "{sys.executable}" -P -m pipelines.boot "$@"\n')
        self.boot.chmod(0o755)
        self._loader = self._compiled_loader()

    def _compiled_loader(self) -> pathlib.Path:
        """The jar of the job server's class loader."""
        subprocess.run(["javac", "-d", self.root / "classes", _HIDDEN_JARS], check=True)
        with zipfile.ZipFile(self.root / "hidden.jar", "w") as jar:
            jar.write(self.root / "classes" / "HiddenJars.class", "HiddenJars.class")
        return self.root / "hidden.jar"

    def _java(self, name: str, *arguments: object, heap: str) -> Started:
        java = shutil.which("java")
        assert java, "no java: apt-get install openjdk-17-jdk-headless"
        memory = [f"-Xmx{heap}", "-XX:MaxDirectMemorySize=512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        return start([java, *_JAVA, *memory, *map(str, arguments)], self.root / f"{name}.log")

    def start_job_manager(self) -> None:
        conf = ("--configDir", self.root / "conf")
        self.job_manager = self._java("jobmanager", "-cp", f"{jars()}/*", _JOB_MANAGER, *conf, heap="384m")

    def start_job_server(self) -> None:
        ports = {f"{name}-port": self.ports[name] for name in ("job", "artifact", "expansion")}
        where = {"flink-master": f"127.0.0.1:{self.ports['rest']}", "flink-conf-dir": self.root / "conf", "job-host": "127.0.0.1"}
        options = {**where, **ports, "artifacts-dir": self.root / "artifacts"}
        hidden = ("-Djava.system.class.loader=HiddenJars", f"-Djars={':'.join(map(str, sorted(jars().glob('*.jar'))))}")
        # The log goes on from where the one that was killed left it.
        said = (self.root / "jobserver.log").stat().st_size if (self.root / "jobserver.log").exists() else 0
        told = [f"--{key}={value}" for key, value in options.items()]
        self.job_server = self._java("jobserver", *hidden, "-cp", self._loader, _JOB_SERVER, *told, heap="256m")
        up = "JobService started on"
        wait_until(lambda: up in self.job_server.log.read_text()[said:], f"{up} in {self.job_server.log}", _UP_S)

    def start_task_manager(self) -> int:
        number = next(n for n in range(1, 100) if n not in self.task_managers)
        told = [argument for key, value in _TASK_MANAGER_MEMORY.items() for argument in ("-D", f"{key}={value}")]
        conf = ("--configDir", self.root / "conf")
        self.task_managers[number] = self._java(f"taskmanager-{number}", "-cp", f"{jars()}/*", _TASK_MANAGER, *conf, *told, heap="512m")
        return number

    def start(self, task_managers: int = 2) -> None:
        self.start_job_manager()
        for _ in range(task_managers):
            self.start_task_manager()
        self.start_job_server()
        self.wait_for_task_managers(task_managers)

    def rest(self, path: str) -> Any:
        """The answer of Flink's REST interface, None while there is none."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['rest']}{path}", timeout=10) as answer:
                return json.load(answer)
        except (OSError, ValueError):
            return None

    def wait_for_task_managers(self, count: int) -> None:
        def registered() -> bool:
            overview = self.rest("/overview")
            return overview is not None and overview["taskmanagers"] == count

        wait_until(registered, f"{count} TaskManagers", _UP_S)

    def kill_task_manager(self, number: int) -> None:
        """SIGKILL, of the TaskManager alone; its Python worker finds out by itself."""
        self.task_managers.pop(number).kill()

    def jvms(self) -> list[psutil.Process]:
        """Flink's processes and the job server, those that are alive."""
        started = [self.job_manager, self.job_server, *self.task_managers.values()]
        return [psutil.Process(one.process.pid) for one in started if one.process.poll() is None]

    def workers(self) -> list[psutil.Process]:
        """The Python workers, which the TaskManagers start."""
        found = []
        for number in list(self.task_managers):
            with contextlib.suppress(psutil.NoSuchProcess):
                children = psutil.Process(self.task_managers[number].process.pid).children()
                found += [child for child in children if "pipelines.boot" in child.cmdline()]
        return found

    def beam_arguments(self, parallelism: int = 2) -> list[str]:
        """The options for a job to run here. The next step of a graph finds the workers of the one before, if it comes within 3 s."""
        where = ["--runner=PortableRunner", f"--job_endpoint=127.0.0.1:{self.ports['job']}", f"--parallelism={parallelism}"]
        worker = ["--environment_type=PROCESS", f"--environment_option=process_command={self.boot}"]
        return [*where, *worker, "--environment_cache_millis=3000"]

    def end(self) -> None:
        for name in ("job_server", "job_manager"):
            if hasattr(self, name):
                getattr(self, name).end()
        for number in list(self.task_managers):
            self.task_managers.pop(number).end()
