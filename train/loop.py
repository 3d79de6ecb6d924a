"""One training run, from top to bottom: set up, fit, save."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from balancing.epochs import share
from train.checkpoint import load_newest, lock_folder, save_checkpoint
from train.config import Config, InputError, OptimizerConfig
from train.data import Part, Reader, find_images
from train.distributed import Ranks, join_ranks
from train.evaluate import evaluate
from train.model import Model, create_model, create_tokenizer, find_architecture, image_size, save_model

log = logging.getLogger("train")
#: Upper end of the logit scale, as in CLIP (arXiv 2103.00020, section 2.5).
LARGEST_LOGIT_SCALE = math.log(100)


class NotFiniteError(ArithmeticError):
    """The loss or the gradient is not a finite number; no weight was touched by it."""


def train(config: Config, output: Path) -> bool:
    """Trains, or goes on from the newest whole checkpoint in ``output``. True when the last step is done, False when SIGTERM ended it.

    Raises InputError and NotFiniteError, with a message for the person who started the run.
    """
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    run = Run(config, output, join_ranks(config.train.device))
    finished = fit(run, stop)
    if finished and run.ranks.rank == 0:
        save_model(run.model, run.architecture, run.tokenizer, output, name=config.model.name)
        log.info('done; to use the model: open_clip.create_model_and_transforms("local-dir:%s")', output)
    if run.ranks.count > 1:
        dist.destroy_process_group()
    return finished


class Run:
    """Everything that a step needs, checked and restored from the newest checkpoint, and what the run leaves in ``output``.

    ``step``: how many are done; ``bad_images``: of this epoch, on all ranks; ``waited``: seconds for data since the last report.
    """

    def __init__(self, config: Config, output: Path, ranks: Ranks) -> None:
        self.config, self.output, self.ranks, self.step, self.bad_images = config, output, ranks, 0, 0
        batch, streams, passes = config.train.batch_size, config.data.streams, config.train.accumulation
        if streams % ranks.count or batch % (ranks.count * passes):
            raise InputError(f"{ranks.count} ranks must divide data.streams ({streams}), and times train.accumulation the batch ({batch})")
        self.images = find_images(config.data.paths)
        rows = int(self.images.rows.sum())
        self.steps_per_epoch = rows // batch
        if not self.steps_per_epoch:
            raise InputError(f"{rows} images are less than one batch of {batch}")
        output.mkdir(parents=True, exist_ok=True)
        self._lock = lock_folder(output) if ranks.rank == 0 else None
        if ranks.device.type == "cpu":
            torch.set_num_threads(config.train.threads)
            torch.use_deterministic_algorithms(True)
        else:
            torch.set_float32_matmul_precision("high")
        self.architecture = find_architecture(config.model, loss=config.train.loss)
        self.tokenizer = create_tokenizer(config.model, self.architecture)
        torch.manual_seed(config.train.seed)
        self.model = create_model(self.architecture).to(ranks.device)
        self.model.set_grad_checkpointing(config.train.activation_checkpointing)
        self.optimizer = create_optimizer(self.model, config.optimizer)
        self.loss = create_loss(config.train.loss, ranks)
        #: What a run must share with the one that it goes on from: the model, the data and the order of the data.
        self.identity = {"model": self.architecture, "images": self.images.fingerprint, "train.batch_size": batch}
        self.identity |= {"train.seed": config.train.seed, "data.streams": streams, "data.shuffle_rows": config.data.shuffle_rows}
        if saved := load_newest(output / "checkpoints", identity=self.identity):
            self.model.load_state_dict(saved["state_dict"])
            # Of the optimizer only its memory: rates and decays are what the configuration says now.
            self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": saved["optimizer"]["state"]})
            self.step, self.bad_images = saved["step"], saved.get("bad_images", 0)
        if ranks.sum([self.step]) != [self.step * ranks.count]:
            raise InputError(f"the ranks see different checkpoints: --output must be on a disk that all of them share ({output})")
        if config.train.compile:
            self.model.compile()
        #: The model as the ranks train it together.
        self.shared: Model = DistributedDataParallel(self.model, broadcast_buffers=False) if ranks.count > 1 else self.model
        parameters = sum(p.numel() for p in self.model.parameters()) / 1e6
        log.info("%s: %.1f M parameters; %s images; %s ranks", config.model.name, parameters, rows, ranks.count)
        self._log, self._reported, self.waited = output / "log.jsonl", (self.step, time.perf_counter()), 0.0
        if ranks.rank == 0 and self._log.exists():
            # What was logged after the checkpoint that the run goes on from will happen again.
            lines = self._log.read_bytes().splitlines(keepends=True)
            partial = self._log.with_suffix(".partial")
            partial.write_bytes(b"".join(line for line in lines if line.endswith(b"\n") and json.loads(line)["step"] <= self.step))
            partial.replace(self._log)

    def batches(self) -> Iterator[list[Part]]:
        """This rank's share of every batch from the next step on."""
        streams = share(range(self.config.data.streams), self.ranks.rank, self.ranks.count)
        reader = Reader(self.images, self.config, streams, tokenizer=self.tokenizer, size=image_size(self.model), first_step=self.step)
        return reader.batches(pin_memory=self.ranks.device.type == "cuda")

    def is_due(self, every: int) -> bool:
        """Whether to do now what is done every ``every`` steps and at the end; 0 is never."""
        return every > 0 and (self.step % every == 0 or self.step == self.config.train.steps)

    def save(self) -> None:
        """Writes a checkpoint, on the first rank."""
        if self.ranks.rank == 0:
            # open_clip loads this file too, by path as ``pretrained``: it looks for weights under ``state_dict``.
            state = {"state_dict": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}
            state |= {"bad_images": self.bad_images, "identity": self.identity}
            log.info("saved %s", save_checkpoint(self.output / "checkpoints", self.step, state, keep=self.config.checkpoint.keep))

    def report(self, **values: float) -> None:
        """Tells how the steps since the last report went: in a line for people and in one of ``log.jsonl`` for programs."""
        first_step, start = self._reported
        seconds = time.perf_counter() - start
        values |= {"epoch": self.step / self.steps_per_epoch, "logit_scale": self.model.logit_scale.exp().item()}
        values["samples_per_second"] = (self.step - first_step) * self.config.train.batch_size / seconds
        values["data_wait"] = self.waited / seconds
        self._reported, self.waited = (self.step, time.perf_counter()), 0.0
        self.write(**values)
        log.info("step %s/%s  %s", self.step, self.config.train.steps, "  ".join(f"{key} {value:.4g}" for key, value in values.items()))

    def write(self, **values: Any) -> None:
        """Adds a line to ``log.jsonl``, on the first rank."""
        if self.ranks.rank == 0:
            line = {"step": self.step, "samples": self.step * self.config.train.batch_size, **values}
            with self._log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def create_optimizer(model: Model, config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW; gains, biases and the logit scale and bias, which have fewer than two dimensions, are not decayed (CLIP, section 2.5)."""
    gains, weights = ([p for p in model.parameters() if p.requires_grad and (p.ndim < 2) == small] for small in (True, False))
    groups: list[dict[str, Any]] = [{"params": gains, "weight_decay": 0.0}, {"params": weights, "weight_decay": config.weight_decay}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps, fused=True)


def create_loss(name: str, ranks: Ranks) -> torch.nn.Module:
    """A loss of (image_features, text_features, logit_scale[, logit_bias]) whose mean over the ranks is the loss of the global batch.

    DDP averages gradients over the ranks, so the gathered features must carry gradients: without them the result would be another.
    """
    if name == "siglip":
        return open_clip.loss.SigLipLoss(rank=ranks.rank, world_size=ranks.count)
    return open_clip.ClipLoss(local_loss=True, gather_with_grad=True, rank=ranks.rank, world_size=ranks.count)


def learning_rate(step: int, *, peak: float, warmup: int, steps: int) -> float:
    """Rate of a step (from 0): linear over ``warmup`` steps up to ``peak``, then half a cosine that would reach 0 at ``steps``."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def fit(run: Run, stop: threading.Event) -> bool:
    """Steps until the last one, or until ``stop`` is set on any rank; saves at either end. Whether the last step is done."""
    config, batches = run.config, run.batches()
    while run.step < config.train.steps:
        start = time.perf_counter()
        parts = next(batches)
        run.waited += time.perf_counter() - start
        unreadable = [what for part in parts for what in part.bad]
        for what in unreadable:
            log.error("bad image: %s", what)
        loss_here, norm = backward(run, parts)
        losses, bad, stopping = run.ranks.sum([loss_here, len(unreadable), stop.is_set()])
        loss = losses / run.ranks.count
        run.bad_images = int(bad) + (run.bad_images if run.step % run.steps_per_epoch else 0)
        if run.bad_images > config.data.max_bad:
            raise InputError(f"{run.bad_images} bad images in this epoch, and data.max_bad is {config.data.max_bad}; the log names them")
        rate = learning_rate(run.step, peak=config.optimizer.lr, warmup=config.schedule.warmup, steps=config.train.steps)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise NotFiniteError(
                f"step {run.step + 1}: loss {loss}, gradient norm {norm}, learning rate {rate:.3g}; this step changed no weight and the "
                "last checkpoint is good; a lower optimizer.lr or a longer schedule.warmup may help"
            )
        for group in run.optimizer.param_groups:
            group["lr"] = rate
        run.optimizer.step()
        with torch.no_grad():
            run.model.logit_scale.clamp_(0, LARGEST_LOGIT_SCALE)
        run.step += 1
        if run.is_due(config.train.log_every):
            run.report(loss=loss, lr=rate, gradient_norm=norm, bad_images=run.bad_images)
        if run.is_due(config.evaluate.every):
            run.write(zero_shot=evaluate(run.model, run.tokenizer, config.evaluate.images, config.evaluate.prompts, run.ranks))
        if run.is_due(config.checkpoint.every) or stopping:
            run.save()
        if stopping and run.step < config.train.steps:
            log.info("stopped by SIGTERM after step %s; the same command goes on from there", run.step)
            return False
    return True


def backward(run: Run, parts: list[Part]) -> tuple[torch.Tensor, float]:
    """Clipped gradients. Returns this rank's loss, whose mean over the ranks is the batch's, and the norm before clipping."""
    device, passes = run.ranks.device, run.config.train.accumulation
    images = torch.cat([part.images.to(device, non_blocking=True) for part in parts]).chunk(passes)
    tokens = torch.cat([part.tokens.to(device, non_blocking=True) for part in parts]).chunk(passes)
    run.optimizer.zero_grad(set_to_none=True)
    if passes > 1:
        loss = backward_in_passes(run, images, tokens)
    else:
        loss = run.loss(**forward(run, run.shared, *images, *tokens, number=0))
        loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.config.optimizer.clip_norm or math.inf)
    return loss.detach(), float(norm)


def backward_in_passes(run: Run, images: Sequence[torch.Tensor], tokens: Sequence[torch.Tensor]) -> torch.Tensor:
    """The gradients of one big batch in the memory of a small one (GradCache, arXiv 2101.06983).

    The loss of all features together gives the gradient at each feature; a second forward pass, part by part, carries it on to the weights.
    """
    with torch.no_grad():
        outputs = [forward(run, run.model, *part, number=i) for i, part in enumerate(zip(images, tokens, strict=True))]
    features = ("image_features", "text_features")
    joined = {**outputs[0], **{key: torch.cat([output[key] for output in outputs]) for key in features}}
    leaves: dict[str, Any] = {key: value.detach().requires_grad_() for key, value in joined.items()}
    loss: torch.Tensor = run.loss(**leaves)
    loss.backward()
    for i, part in enumerate(zip(images, tokens, strict=True)):
        last = i == len(images) - 1
        # The ranks exchange gradients once, with the last part; it also carries the gradients of logit scale and bias.
        run.shared.require_backward_grad_sync = last
        output = forward(run, run.shared, *part, number=i)
        gradients = {key: leaf.grad.chunk(len(images))[i] if key in features else leaf.grad for key, leaf in leaves.items()}
        keys = list(output) if last else features
        torch.autograd.backward([output[key] for key in keys], [gradients[key] for key in keys])
    return loss


def forward(run: Run, model: Model, images: torch.Tensor, tokens: torch.Tensor, *, number: int) -> dict[str, torch.Tensor]:
    """Features, logit scale and bias, fp32, in pass ``number``. ``images`` uint8 (n, size, size, 3), ``tokens`` int64 (n, context)."""
    # What is random in a model (patch dropout) depends on this alone, so that no generator's state has to be saved.
    key = f"{run.config.train.seed}/{run.step}/{run.ranks.rank}/{number}"
    torch.manual_seed(int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest(), "little"))
    mean, std = (torch.tensor(run.model.visual.preprocess_cfg[k], device=images.device).view(3, 1, 1) for k in ("mean", "std"))
    precision, kind = run.config.train.precision, run.ranks.device.type
    with torch.autocast(kind, dtype=torch.bfloat16, enabled=precision == "bf16" or (precision == "auto" and kind == "cuda")):
        output = model((images.permute(0, 3, 1, 2) / 255 - mean) / std, tokens)
    return {key: value.float() for key, value in output.items()}
