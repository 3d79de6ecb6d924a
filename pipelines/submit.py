"""submit: train on a Slurm cluster. Needs no Beam."""

from __future__ import annotations

import os
import pathlib
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.errors import JobError
from pipelines.options import option, positive
from pipelines.processes import python_module
from pipelines.train import CONFIGS as SHIPPED

ABOUT = """Train on a Slurm cluster, on as many nodes as it takes, through as many time limits as it takes.

Some time before the limit, and when the job is preempted, Slurm signals the trainers; they save, and the job goes back into the queue, from
where it goes on in the same folder. After the loss of a node it does so too. A run that fails is not tried again.

    worldclip submit --config h14_worldwide.toml --data W/images --output runs/h14 --nodes 2 --gpus 8 --time 72:00:00 --partition gpu

--output must lie on a disk that all nodes share, and so must this Python and what it has installed. deploy/slurm/README.md is a walk."""

#: What the first node of a job runs, behind the variables that :func:`script` sets. A trainer per GPU and no torchrun, which would hide
#: their status, and end before they have saved on the signals of Slurm, which go to all processes of a step.
_SCRIPT = r"""
export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_PORT=$((10000 + SLURM_JOB_ID % 20000))

# A trainer per GPU. One that has ended leaves the others 10 minutes. The first may still be saving; and if one was lost with its node,
# Slurm has to find that out (by default in 5 minutes) before the others fail, since only for a lost node it requeues a job.
srun --kill-on-bad-exit=0 --wait=600 ${SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK} bash -c '
  [ -d "$0" ] || { echo "$SLURMD_NODENAME has no folder $0: --output must lie on a disk that all nodes share"; exit 2; } >&2
  export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS
  exec "$@"' "$logs" "${trainer[@]}"
status=$?

# By SIGUSR1 (138) and SIGTERM (143) Slurm has trainers save and end: the time limit is near, or the job is preempted. A job that is
# cancelled or has lost a node is no longer running by now, and the latter is requeued by Slurm. Any other status is the end, or an error.
if [ $status = 138 ] || [ $status = 143 ]; then
  state=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)
  restarts=${SLURM_RESTART_COUNT:-0}
  if [ "$state" != RUNNING ] && [ "$state" != SIGNALING ]; then
    echo "stopped by signal $((status - 128)); the job is ${state:-unknown}: Slurm decides what comes next"
  elif [ "$restarts" -ge $max_restarts ]; then
    echo "stopped by signal $((status - 128)) after $restarts restarts, as many as --max-restarts allows; submit it again to go on"
  else
    echo "stopped by signal $((status - 128)); goes back into the queue, restart $((restarts + 1)) of at most $max_restarts"
    scontrol requeue "$SLURM_JOB_ID"
  fi
fi
exit $status"""


@dataclass(frozen=True, kw_only=True)
class SubmitConfig:
    config: str = option("TOML file of the trainer, or the name of one that comes with the package", metavar="FILE")
    data: tuple[str, ...] = option(
        "images: directories of part-*.parquet or files, local or fsspec URLs; without it data.paths of FILE", default=(), metavar="DIR"
    )
    output: str = option("folder for checkpoints, log.jsonl and the model, and slurm/ for the job's own log", metavar="DIR")
    set: tuple[str, ...] = option("overrides the file, e.g. train.steps=100", default=(), metavar="TABLE.KEY=VALUE")
    seeds: tuple[int, ...] = option("train once for each, as an array of jobs, in DIR/seed-N", default=(), metavar="N")
    nodes: int = option("machines", default=1, parse=positive, metavar="N")
    gpus: int = option("GPUs of each machine, with a trainer for each; 0: one trainer a machine, on its CPUs", default=8, metavar="N")
    cpus_per_gpu: int | None = option(
        "cores for each trainer: data.workers of FILE and one more", default=None, parse=positive, metavar="N"
    )
    mem: str = option("memory of each machine, e.g. 200G", default="", metavar="SIZE")
    time: str = option("how long the job may run before it has to go back into the queue, e.g. 72:00:00", metavar="TIME")
    partition: str = option("which machines", default="", metavar="NAME")
    account: str = option("who pays", default="", metavar="NAME")
    qos: str = option("quality of service", default="", metavar="NAME")
    constraint: str = option("what the machines must have", default="", metavar="FEATURES")
    sbatch: tuple[str, ...] = option("other options of sbatch, without dashes: exclusive nice=100", default=(), metavar="KEY[=VALUE]")
    setup: tuple[str, ...] = option("lines of shell that come first, e.g. 'module load cuda'", default=(), metavar="LINE")
    signal_seconds: int = option(
        "how long before its time limit a job is told to save, for which a step and a checkpoint take less; Slurm may be a minute early",
        default=120,
        parse=positive,
        metavar="SECONDS",
    )
    max_restarts: int = option("how often the job may go back into the queue, whoever sends it there", default=100, metavar="N")
    dry_run: bool = option("print the script that sbatch would get, and stop there", default=False)

    def __post_init__(self) -> None:
        for name in ("gpus", "max_restarts"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name.replace('_', '-')} must not be less than 0")
        if len({*self.seeds}) < len(self.seeds) or min(self.seeds, default=0) < 0:
            raise ValueError("--seeds must be different numbers from 0 on")


def main(config: SubmitConfig, beam_args: Sequence[str] = ()) -> None:
    """Submit a job, and say how to look after it; with ``dry_run`` print its script.

    Raises:
        JobError: submitit or Slurm is not there, an input is missing, or Slurm refuses the job.
    """
    try:
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError
    except ImportError:
        raise JobError("submitting needs submitit: pip install 'worldclip[slurm]'") from None
    if missing := [name for name in ("sbatch", "srun") if shutil.which(name) is None]:
        raise JobError(f"no {' and no '.join(missing)} here: submit where Slurm's commands are, for instance on a login node")
    output = pathlib.Path(config.output).absolute()
    executor = SlurmExecutor(output / "slurm")
    executor.update_parameters(**parameters(config, output))
    body = script(config, output)
    if config.dry_run:
        print(executor._make_submission_file_text(body, ""), end="")
        return
    executor.folder.mkdir(parents=True, exist_ok=True)
    try:
        # Not submit(), which has the nodes load a pickled function from a file.
        job = executor._submit_command(body).job_id
    except FailedJobError:
        raise JobError("sbatch has not taken the job, and has said why") from None
    print(f"submit: job {job} → {output}")
    print(f"  log     {executor.folder}/{job}{'_SEED' if config.seeds else ''}.log")
    print(f"  script  {executor.folder}/{job}_submission.sh")
    print(f"  look    squeue --jobs={job}")
    print(f"  cancel  scancel {job}", flush=True)


def parameters(config: SubmitConfig, output: pathlib.Path) -> dict[str, Any]:
    """What submitit writes as options of sbatch, and how it is to write the script."""
    plain = {name: getattr(config, name) or None for name in ("mem", "partition", "account", "qos", "constraint")}
    tasks = {"ntasks_per_node": max(config.gpus, 1), "gpus_per_node": config.gpus or None, "cpus_per_task": config.cpus_per_gpu}
    more: dict[str, Any] = {"requeue": True, "signal": f"USR1@{config.signal_seconds}", "output": f"{output}/slurm/%j.log"}
    if config.seeds:
        more |= {"array": ",".join(map(str, config.seeds)), "output": f"{output}/slurm/%A_%a.log"}
    for text in config.sbatch:
        key, equals, value = text.partition("=")
        more[key] = value if equals else True
    how = {"setup": list(config.setup) or None, "use_srun": False, "stderr_to_stdout": True, "wckey": None, "additional_parameters": more}
    return {"job_name": output.name, "nodes": config.nodes, "time": config.time, **tasks, **plain, **how}


def script(config: SubmitConfig, output: pathlib.Path) -> str:
    """The body of the script.

    Raises:
        JobError: no such configuration or data.
    """
    data = ["--data", *map(_data, config.data)] if config.data else []
    trainer = [*python_module("train"), "--config", _configuration(config.config), *data, "--output"]
    words = [*map(shlex.quote, trainer), '"$output"']
    if config.set or config.seeds:
        words += ["--set", *map(shlex.quote, config.set), *(["train.seed=$SLURM_ARRAY_TASK_ID"] if config.seeds else [])]
    seed = "/seed-$SLURM_ARRAY_TASK_ID" if config.seeds else ""
    variables = {
        "logs": shlex.quote(f"{output}/slurm"),
        "output": shlex.quote(str(output)) + seed,
        "trainer": f"({' '.join(words)})",
        "max_restarts": config.max_restarts,
    }
    return "\n".join(f"{name}={value}" for name, value in variables.items()) + "\n" + _SCRIPT


def _configuration(name: str) -> str:
    if (file := pathlib.Path(name)).is_file():
        return str(file.absolute())
    if (SHIPPED / file.name).is_file():
        return file.name
    shipped = ", ".join(sorted(path.name for path in SHIPPED.glob("*.toml")))
    raise JobError(f"--config {name}: no such file; those that come with the package: {shipped}")


def _data(place: str) -> str:
    if "://" in place:
        return place
    if not os.path.exists(place):
        raise JobError(f"--data {place}: no such directory or file")
    return os.path.abspath(place)
