"""Slurm on this machine's loopback address: munge, the controller and two nodes, which share the cores that there are."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
from dataclasses import dataclass, field

import psutil

from tests.engines.processes import Started, start, wait_until
from tests.ports import free_ports

#: Everything that Slurm would do through cgroups, systemd or accounts of users is done plainly or not at all.
_CONFIG = """\
ClusterName=worldclip
SlurmctldHost=localhost
SlurmctldPort={controller}
SlurmUser=root
AuthType=auth/munge
# Credentials live so many seconds, for which a job that is requeued has to wait.
AuthInfo=socket={root}/munge.socket,cred_expire=5
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
SlurmdTimeout=10
KillWait=10
NodeName={nodes[0]} NodeAddr=127.0.0.1 Port={first} CPUs=1
NodeName={nodes[1]} NodeAddr=127.0.0.1 Port={second} CPUs=1
PartitionName=train Nodes=ALL Default=YES PriorityTier=1 OverSubscribe=NO GraceTime=60
PartitionName=urgent Nodes=ALL PriorityTier=2
"""


@dataclass(kw_only=True)
class Slurm:
    """``nodes``: their names, which are names of this machine, so that jobs find one another by them."""

    root: pathlib.Path
    nodes: tuple[str, str] = field(default_factory=lambda: (socket.gethostname(), "localhost"))
    daemons: dict[str, Started] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """By which Slurm's commands find this cluster."""
        return {"SLURM_CONF": str(self.root / "slurm.conf")}

    def start(self) -> None:
        assert os.geteuid() == 0, "Slurm's daemons need root"
        missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if shutil.which(name) is None]
        assert not missing, f"no {', '.join(missing)}: apt-get install --no-install-recommends slurm-wlm munge"
        for folder in ("state", *(f"spool-{node}" for node in self.nodes)):
            (self.root / folder).mkdir(parents=True)
        ports = dict(zip(("controller", "first", "second"), free_ports(3), strict=True))
        (self.root / "slurm.conf").write_text(_CONFIG.format(root=self.root, nodes=self.nodes, **ports))
        key = self.root / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        files = [f"--{name}-file={self.root / f'munge.{name}'}" for name in ("key", "pid", "log", "seed")]
        self._start("munged", "munged", "--foreground", "--force", f"--socket={self.root / 'munge.socket'}", *files)
        wait_until((self.root / "munge.socket").exists, "munge's socket")
        self._start("slurmctld", "slurmctld", "-D")
        for node in self.nodes:
            self.start_node(node)
        wait_until(self._idle, "two idle nodes")

    def _idle(self) -> bool:
        try:
            return self.command("sinfo", "--noheader", "--Node", "--partition=train", "--format=%t").split() == ["idle"] * len(self.nodes)
        except subprocess.CalledProcessError:  # the controller is not up yet
            return False

    def _start(self, name: str, *command: str, node: str = "") -> None:
        # The variables mark the processes, those that Slurm starts too: see processes.
        marks = {**self.environment, **({"SLURMD_NODENAME": node} if node else {})}
        self.daemons[name] = start(["env", *(f"{key}={value}" for key, value in marks.items()), *command], self.root / f"{name}.log")

    def start_node(self, node: str) -> None:
        self._start(f"slurmd-{node}", "slurmd", "-D", "-N", node, node=node)

    def lose_node(self, node: str) -> None:
        """As if its power were cut."""
        lost = self.processes(node)
        # Slurm's own first, so that none of them can still tell what became of the others.
        for process in sorted(lost, key=lambda process: not process.name().startswith("slurm")):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.daemons.pop(f"slurmd-{node}").end()

    def command(self, *command: str) -> str:
        """What one of Slurm's commands prints."""
        environment = {**os.environ, **self.environment}
        return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout

    def job(self, number: str) -> dict[str, str]:
        """What the controller knows of a job: ``JobState``, ``Restarts``, ``ExitCode``, …"""
        return dict(item.partition("=")[::2] for item in self.command("scontrol", "show", "job", number).split())

    def processes(self, node: str = "") -> list[psutil.Process]:
        """Those of the cluster, its daemons and its jobs', or those of one node."""
        marks = {f"SLURM_CONF={self.environment['SLURM_CONF']}", *([f"SLURMD_NODENAME={node}"] if node else [])}
        found = []
        for process in psutil.process_iter():
            # Not psutil's environ(), which ends at the first gap: Slurm writes titles over the first variables.
            with contextlib.suppress(OSError, psutil.NoSuchProcess):
                if marks <= {*pathlib.Path(f"/proc/{process.pid}/environ").read_bytes().decode(errors="replace").split("\0")}:
                    found.append(process)
        return found

    def end(self) -> None:
        """End it with all its jobs, in whatever state they are."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for daemon in self.daemons.values():
            daemon.end()
