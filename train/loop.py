"""One training run, from top to bottom: set up, fit, save."""

from __future__ import annotations

import hashlib
import logging
import math
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.distributed as dist

from balancing.epochs import share
from train.checkpoint import gather_state, load_newest, lock_folder, restore_state, save_checkpoint
from train.config import Config, InputError, NotFiniteError, OptimizerConfig
from train.data import Part, Reader, open_sources
from train.distributed import Ranks, find_layers, join_model, join_ranks, whole
from train.evaluation.tasks import evaluate, load_tasks
from train.logbook import Logbook, flatten, peak_flops
from train.model import (
    PROBE,
    Model,
    count_flops,
    create_model,
    create_tokenizer,
    find_architecture,
    image_size,
    load_pretrained,
    save_model,
)
from train.texts import PARTS, ShortTextCLIP, Texts, skip_padding

log = logging.getLogger("train")
#: Upper end of the logit scale, as in CLIP (arXiv 2103.00020, section 2.5).
LARGEST_LOGIT_SCALE = math.log(100)
#: Schedulers announce the end by these: a checkpoint is saved.
STOPPING = (signal.SIGTERM, signal.SIGUSR1)


def train(config: Config, output: Path) -> signal.Signals | None:
    """Trains, or goes on from the newest whole checkpoint in ``output``. Returns the signal that ended it before the last step, if one did.

    Raises InputError and NotFiniteError, with a message for the person who started the run.
    """
    received: list[int] = []
    for number in STOPPING:
        signal.signal(number, lambda number, _: received.append(number))
    run = Run(config, output, join_ranks(config.train.device))
    try:
        stopped = fit(run, received)
    finally:
        run.check_writing(wait=True)
    if not stopped:
        weights = gather_state(run.model, run.optimizer)["state_dict"]
        if run.ranks.rank == 0:
            save_model(run.model, weights, run.architecture, run.tokenizer, output, name=config.model.name)
            log.info('done; to use the model: open_clip.create_model_and_transforms("local-dir:%s")', output)
    if run.ranks.count > 1:
        dist.destroy_process_group()
    return stopped


class Run:
    """Everything that a step needs, checked and restored from the newest checkpoint, and what the run leaves in ``output``.

    ``step``: how many are done; ``bad_images``: of this epoch, on all ranks; ``best``: what ``checkpoint.best`` names, at its greatest.
    """

    def __init__(self, config: Config, output: Path, ranks: Ranks) -> None:
        self.config, self.output, self.ranks, self.step, self.bad_images, self.best = config, output, ranks, 0, 0, -math.inf
        batch, streams, passes = config.train.batch_size, config.data.streams, config.train.accumulation
        if streams % ranks.count or batch % (ranks.count * passes):
            raise InputError(f"{ranks.count} ranks must divide data.streams ({streams}), and times train.accumulation the batch ({batch})")
        self.sources, self.tasks = open_sources(config, ranks), load_tasks(config.evaluate.tasks if config.evaluate.every_samples else ())
        given, best = [f"{task.name}/{language}" for task in self.tasks for language in task.languages], config.checkpoint.best
        if best and best.rpartition("/")[0] not in given:
            raise InputError(f"checkpoint.best: {best} is of no task and language; there are {', '.join(given)}")
        self.epochs = self.sources[0].epochs  # what is told by the epoch is told by the first set's
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
        self.model = skip_padding(create_model(config.model, self.architecture).to(ranks.device))
        self.mean, self.std = (
            torch.tensor(self.model.visual.preprocess_cfg[k], device=ranks.device).view(3, 1, 1) for k in ("mean", "std")
        )
        self.model.set_grad_checkpointing(config.train.activation_checkpointing)
        self.identity = self._identify()
        if saved := load_newest(output / "checkpoints", identity=self.identity):
            self.step, self.bad_images = saved["step"], saved["bad_images"]
            self.best = saved["best"].get(best, -math.inf)
        elif config.model.pretrained:
            load_pretrained(self.model, config.model, self.architecture)
        log.info("%s: %.1f M parameters; %s ranks", config.model.name, sum(p.numel() for p in self.model.parameters()) / 1e6, ranks.count)
        #: The model as the ranks train it together.
        self.shared: Model = join_model(self.model, ranks, parallel=config.train.parallel)
        self.optimizer, self.loss = create_optimizer(self.model, config.optimizer), create_loss(config.train.loss, ranks)
        if ranks.sum([self.step]) != [self.step * ranks.count]:
            raise InputError(f"the ranks see different checkpoints: --output must be on a disk that all of them share ({output})")
        if saved:
            restore_state(self.model, self.optimizer, saved)
        if config.train.compile:
            # Texts come in some lengths, and a module is compiled for each.
            torch._dynamo.config.recompile_limit = 32
            for module in find_compiled(self.model, ranks):
                module.compile(dynamic=False)
        peak = peak_flops(ranks.device) if config.train.precision != "fp32" else None
        #: Of an image and of a whole text, where their share of the peak is known.
        self.flops = count_flops(config.model, self.architecture) if peak else (0, 0)
        self.logbook = Logbook(config, output, step=self.step, peak=peak) if ranks.rank == 0 else None
        self._thread, self._writing = ThreadPoolExecutor(1), Future[Path]()
        self._writing.set_result(output)

    def _identify(self) -> dict[str, Any]:
        """What a run must share with the one that it goes on from: the model, the data and the order of the data."""
        model, data, train = self.config.model, self.config.data, self.config.train
        start = ("pretrained", "lock_image", "unlocked_groups", "lock_text", "unlocked_layers")
        return {
            "model": self.architecture,
            "tokenizer": self.tokenizer([PROBE])[0].tolist(),
            "preprocessing": self.model.visual.preprocess_cfg,
            **{f"model.{key}": getattr(model, key) for key in start},
            "images": "; ".join(of.identity for of in self.sources),
            **{f"data.{key}": getattr(data, key) for key in ("streams", "shuffle_rows")},
            **{f"train.{key}": getattr(train, key) for key in ("batch_size", "seed")},
        }

    def batches(self) -> Iterator[list[Part]]:
        """This rank's share of every batch from the next step on."""
        streams = share(range(self.config.data.streams), self.ranks.rank, self.ranks.count)
        reader = Reader(self.sources, self.config, streams, tokenizer=self.tokenizer, size=image_size(self.model), first_step=self.step)
        return reader.batches(pin_memory=self.ranks.device.type == "cuda")

    def prepare(self, tokens: torch.Tensor) -> Texts | torch.Tensor:
        """The texts of a pass as the model takes them, on its device, from tokens int64 (n, context) on the CPU."""
        # FSDP would gather and let go of the tower's weights for every part.
        sharded = self.shared is self.model and self.ranks.count > 1
        texts = self.model.sort(tokens, parts=1 if sharded else PARTS) if isinstance(self.model, ShortTextCLIP) else tokens
        if self.logbook:
            image, text = self.flops
            self.logbook.flops += len(tokens) * (image + text * (texts.share if isinstance(texts, Texts) else 1))
        return texts.to(self.ranks.device)

    def is_due(self, every: int, *, per_step: int = 1) -> bool:
        """Whether to do now what is done at the end and every ``every`` things, of which a step has ``per_step``; 0 is never."""
        return every > 0 and (self.step * per_step % every < per_step or self.step == self.config.train.steps)

    def save(self, *, best: bool) -> None:
        """Has a thread write a checkpoint while the training goes on, one at a time; every rank calls it."""
        state = gather_state(self.model, self.optimizer)
        if self.ranks.rank == 0:
            best_of = {self.config.checkpoint.best: self.best}
            state |= {"step": self.step, "bad_images": self.bad_images, "best": best_of, "identity": self.identity}
            self.check_writing(wait=True)
            folder, keep = self.output / "checkpoints", self.config.checkpoint.keep
            self._writing = self._thread.submit(save_checkpoint, folder, state, keep=keep, best=best)

    def check_writing(self, *, wait: bool = False) -> None:
        """Raises what went wrong in the thread, as soon as it is known, or with ``wait`` when it has ended."""
        if wait or self._writing.done():
            self._writing.result()

    def report(self, **values: float) -> None:
        """Tells how the steps since the last report went; every rank calls it."""
        values |= {"epoch": self.epochs.progress(self.step), "logit_scale": whole(self.model.logit_scale).exp().item()}
        if self.logbook:
            self.logbook.report(self.step, **values)

    def evaluate(self) -> bool:
        """Evaluates and logs a copy of the model, neither sharded nor compiled. Whether ``checkpoint.best`` was never greater."""
        start = time.perf_counter()
        model = create_model(self.config.model, self.architecture, device=self.ranks.device)
        model.load_state_dict({key: whole(value) for key, value in self.model.state_dict().items()})
        found = evaluate(model, self.tokenizer, self.tasks, self.ranks)
        if self.logbook:
            self.logbook.write(self.step, evaluation=found)
            self.logbook.paused += time.perf_counter() - start
        wanted, figures = self.config.checkpoint.best, dict(flatten(found))
        if wanted and wanted not in figures:
            raise InputError(f"checkpoint.best: the evaluation gives no {wanted}, but {', '.join(figures)}")
        before, self.best = self.best, max(self.best, figures.get(wanted, -math.inf))
        return self.best > before


def find_compiled(model: Model, ranks: Ranks) -> list[torch.nn.Module]:
    """What is compiled for itself: the image tower and the layers of the text tower, whose lengths vary.

    With several ranks it is the layers of both, so that the gradients of one travel while the next is computed.
    """
    layers, tower = find_layers(model), set(model.visual.modules())
    return layers if ranks.count > 1 else [model.visual, *(layer for layer in layers if layer not in tower)]


def create_optimizer(model: Model, config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW; gains, biases and the logit scale and bias, which have fewer than two dimensions, are not decayed (CLIP, section 2.5)."""
    trained = [p for p in model.parameters() if p.requires_grad]
    gains, weights = ([p for p in trained if (p.ndim < 2) == small] for small in (True, False))
    groups: list[dict[str, Any]] = [{"params": gains, "weight_decay": 0.0}, {"params": weights, "weight_decay": config.weight_decay}]
    groups = [group for group in groups if group["params"]]
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


def fit(run: Run, received: list[int]) -> signal.Signals | None:
    """Steps until the last one, or until a signal is ``received`` on any rank, which it returns; saves at either end."""
    config, batches = run.config, run.batches()
    while run.step < config.train.steps:
        run.check_writing()
        start = time.perf_counter()
        parts = next(batches)
        if run.logbook:
            run.logbook.waited += time.perf_counter() - start
        unreadable = [what for part in parts for what in part.bad]
        for what in unreadable:
            log.error("bad image: %s", what)
        loss_here, norm = backward(run, parts)
        losses, bad, *signals = run.ranks.sum([loss_here, len(unreadable), *(number in received for number in STOPPING)])
        stopping = next((number for number, count in zip(STOPPING, signals, strict=True) if count), None)
        loss = losses / run.ranks.count
        run.bad_images = int(bad) + (run.bad_images if run.epochs.place(run.step)[1] else 0)
        if run.bad_images > config.data.max_bad:
            raise InputError(f"bad images in this epoch: {run.bad_images}, and data.max_bad is {config.data.max_bad}; the log names them")
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
        if run.is_due(config.log.every):
            run.report(loss=loss, lr=rate, gradient_norm=norm, bad_images=run.bad_images)
        try:
            best = run.is_due(config.evaluate.every_samples, per_step=config.train.batch_size) and run.evaluate()
        except InputError:
            run.save(best=False)
            raise
        if run.is_due(config.checkpoint.every) or stopping or best:
            run.save(best=best)
        if stopping and run.step < config.train.steps:
            log.info("stopped by %s after step %s; the same command goes on from there", stopping.name, run.step)
            return stopping
    return None


def backward(run: Run, parts: list[Part]) -> tuple[torch.Tensor, float]:
    """Clipped gradients. Returns this rank's loss, whose mean over the ranks is the batch's, and the norm before clipping."""
    device, passes = run.ranks.device, run.config.train.accumulation
    images = torch.cat([part.images.to(device, non_blocking=True) for part in parts]).chunk(passes)
    texts = [run.prepare(tokens) for tokens in torch.cat([part.tokens for part in parts]).chunk(passes)]
    run.optimizer.zero_grad(set_to_none=True)
    if passes > 1:
        loss = backward_in_passes(run, images, texts)
    else:
        loss = run.loss(**forward(run, run.shared, *images, *texts, number=0))
        loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.config.optimizer.clip_norm or math.inf)
    return loss.detach(), float(whole(norm))


def backward_in_passes(run: Run, images: Sequence[torch.Tensor], texts: Sequence[Texts | torch.Tensor]) -> torch.Tensor:
    """The gradients of one big batch in the memory of a small one (GradCache, arXiv 2101.06983).

    The loss of all features together gives the gradient at each feature; a second forward pass, part by part, carries it on to the weights.
    """
    with torch.no_grad():
        outputs = [forward(run, run.model, *part, number=i) for i, part in enumerate(zip(images, texts, strict=True))]
    features = ("image_features", "text_features")
    joined = {**outputs[0], **{key: torch.cat([output[key] for output in outputs]) for key in features}}
    leaves: dict[str, Any] = {key: value.detach().requires_grad_() for key, value in joined.items()}
    loss: torch.Tensor = run.loss(**leaves)
    loss.backward()
    for i, part in enumerate(zip(images, texts, strict=True)):
        last = i == len(images) - 1
        # The ranks exchange gradients once, with the last part; it also carries the gradients of logit scale and bias. FSDP's do with each:
        # no rank has room for all gradients.
        run.shared.require_backward_grad_sync = last
        output = forward(run, run.shared, *part, number=i)
        gradients = {key: leaf.grad.chunk(len(images))[i] if key in features else leaf.grad for key, leaf in leaves.items()}
        # Of a locked tower nothing is trained.
        keys = [key for key in (output if last else features) if output[key].requires_grad]
        torch.autograd.backward([output[key] for key in keys], [gradients[key] for key in keys])
    return loss


def forward(run: Run, model: Model, images: torch.Tensor, texts: Texts | torch.Tensor, *, number: int) -> dict[str, torch.Tensor]:
    """Features, logit scale and bias, fp32, in pass ``number``. ``images`` uint8 (n, size, size, 3), ``texts`` see Run.prepare."""
    # What is random in a model (patch dropout) depends on this alone, so that no generator's state has to be saved.
    key = f"{run.config.train.seed}/{run.step}/{run.ranks.rank}/{number}"
    torch.manual_seed(int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest(), "little"))
    precision, kind = run.config.train.precision, run.ranks.device.type
    with torch.autocast(kind, dtype=torch.bfloat16, enabled=precision == "bf16" or (precision == "auto" and kind == "cuda")):
        output = model((images.permute(0, 3, 1, 2) / 255 - run.mean) / run.std, texts)
    return {key: value.float() for key, value in output.items()}
