"""The model and its tokenizer, by open_clip's names and formats, and the files that open_clip loads them from."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save
from torch.utils.flop_counter import FlopCounterMode

from train.config import InputError, ModelConfig

#: n texts to token ids, int64 (n, context).
Tokenizer = Callable[[list[str]], torch.Tensor]
#: What open_clip's models have beyond torch's Module (``visual``, ``encode_text``, ``logit_scale``, …) is not in their types.
Model = Any
# Where open_clip looks for the architecture and the weights of a ``local-dir:``.
CONFIG_FILE, WEIGHTS_FILE = "open_clip_config.json", "open_clip_model.safetensors"
#: A text by which tokenizers are told apart.
PROBE = "A cat; ein Hund, 1 кот и 山の写真 🐈"
#: Start of the logit scale and bias for the sigmoid loss (SigLIP, arXiv 2303.15343).
SIGLIP_START = {"init_logit_scale": math.log(10), "init_logit_bias": -10.0}


def find_architecture(config: ModelConfig, *, loss: str) -> dict[str, Any]:
    """The model's configuration in open_clip's format; for the sigmoid loss it has a logit bias. InputError where there is none.

    With a tokenizer of one's own it says so, and open_clip looks for that beside the model.
    """
    found = config.custom or open_clip.get_model_config(config.name)
    if not found:
        close = ", ".join(get_close_matches(config.name, open_clip.list_models())) or "none"
        raise InputError(f"model.name: open_clip has no model {config.name!r}; close names: {close}")
    if missing := {"embed_dim", "vision_cfg", "text_cfg"} - set(found):
        raise InputError(f"the configuration of the model {config.name} has no {', '.join(sorted(missing))}")
    if config.tokenizer:
        found = {**found, "text_cfg": {"hf_tokenizer_name": Path(config.tokenizer).name, **found["text_cfg"]}}
    return {**SIGLIP_START, **found} if loss == "siglip" else found


def find_preprocessing(config: ModelConfig) -> dict[str, Any]:
    """How the weights of ``config.pretrained``, published or in a local folder, want their images; empty: as open_clip's models do."""
    if not config.pretrained:
        return {}
    given = Path(config.pretrained)
    file = (given.parent if given.name == WEIGHTS_FILE else given) / CONFIG_FILE
    if file.is_file():
        wanted = json.loads(file.read_text(encoding="utf-8")).get("preprocess_cfg", {})
    else:
        wanted = open_clip.get_pretrained_cfg(config.name, config.pretrained)
    # The size is the architecture's.
    return {key: wanted[key] for key in ("mean", "std", "interpolation", "resize_mode", "fill_color") if wanted.get(key) is not None}


def create_model(config: ModelConfig, architecture: dict[str, Any], *, device: Any = "cpu") -> Model:
    """A model with random weights (torch's generator decides them) that returns a dict of features, logit scale and logit bias.

    Scale and bias have one dimension, of size 1: FSDP shards no scalars. What the configuration locks, as open_clip counts groups and
    layers, needs no gradient. Raises InputError where open_clip does not know a key of the architecture.
    """
    with tempfile.TemporaryDirectory() as folder, torch.device(device):
        about = {"model_cfg": architecture, "preprocess_cfg": find_preprocessing(config)}
        (Path(folder) / CONFIG_FILE).write_text(json.dumps(about), encoding="utf-8")
        options: dict[str, Any] = {"load_weights": False, "pretrained_text": False, "output_dict": True, "nonscalar_logit_scale": True}
        try:
            model: Model = open_clip.create_model(f"local-dir:{folder}", device=device, **options)
        except TypeError as error:
            raise InputError(f"the model's configuration has a key that open_clip does not know: {error}") from None
    if config.lock_image:
        model.lock_image_tower(unlocked_groups=config.unlocked_groups)
    if config.lock_text:
        model.lock_text_tower(unlocked_layers=config.unlocked_layers)
    return model


def load_pretrained(model: Model, config: ModelConfig, architecture: dict[str, Any]) -> None:
    """Fills the model with the weights that ``config.pretrained`` names; open_clip fits the positions of another image size.

    Raises InputError: no such weights, they cannot be fetched (the message says what to fetch), or they are of another architecture.
    """
    file = _find_weights(config, architecture)
    try:
        open_clip.load_checkpoint(model, str(file))
    # What is cut, or of another kind, fails each in its own way. torch lists the keys that do not fit from its second line on.
    except Exception as error:
        first = "; ".join(line.strip() for line in str(error).splitlines()[:2])
        raise InputError(f"model.pretrained: {file} does not fit the model {config.name} ({type(error).__name__}: {first:.300})") from None


def _find_weights(config: ModelConfig, architecture: dict[str, Any]) -> Path:
    given, name = Path(config.pretrained), config.name
    if given.is_file():
        return given
    if inside := [*given.glob(WEIGHTS_FILE), *sorted(given.glob("checkpoints/step-*.pt"), reverse=True)]:
        return inside[0]
    published = open_clip.get_pretrained_cfg(name, config.pretrained)
    if not published:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
        places = f"no file, no folder with {WEIGHTS_FILE} or checkpoints/step-*.pt, and no tag"
        raise InputError(f"model.pretrained: {given} is {places}; open_clip's tags for {name}: {tags}")
    if bool(published.get("quick_gelu")) != bool(architecture.get("quick_gelu")):
        raise InputError(f"model.pretrained: {given} and {name} differ in QuickGELU; take the other of {name} and {name}-quickgelu")
    try:
        return Path(open_clip.download_pretrained(published))
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        fetch = f"run `hf download {published['hf_hub'].rstrip('/')} {WEIGHTS_FILE} --local-dir FOLDER` where there is a network"
        raise InputError(f"model.pretrained: {given} cannot be fetched ({type(error).__name__}); {fetch} and set it to FOLDER") from None


def count_flops(config: ModelConfig, architecture: dict[str, Any]) -> tuple[int, int]:
    """Floating-point operations of an image's, and of a whole context's, forward and backward pass; a multiply-add is two.

    Without the loss, whose part grows with the batch (0.5 % for ViT-B-32 at 32,768), and without what activation checkpointing does again.
    """
    model, context = create_model(config, architecture, device="meta"), architecture["text_cfg"].get("context_length", 77)

    def count(encode: Callable[[torch.Tensor], torch.Tensor], one: torch.Tensor) -> int:
        with FlopCounterMode(display=False) as counter:
            features = encode(one)
            if features.requires_grad:
                features.sum().backward()
        return int(counter.get_total_flops())

    image = torch.empty(1, 3, image_size(model), image_size(model), device="meta")
    return count(model.encode_image, image), count(model.encode_text, torch.zeros(1, context, dtype=torch.int64, device="meta"))


def image_size(model: Model) -> int:
    """Side of the square images that the model takes, in pixels. InputError where they are not square."""
    height, width = open_clip.utils.to_2tuple(model.visual.preprocess_cfg["size"])
    if height != width:
        raise InputError(f"the model takes images of {height} x {width} pixels; only square ones are trained here")
    return int(width)


def create_tokenizer(config: ModelConfig, architecture: dict[str, Any]) -> Tokenizer:
    """The tokenizer of the architecture, or the one in the folder ``config.tokenizer``.

    open_clip's own is byte-level: it needs no network and takes any script. Others come from Hugging Face.
    Raises InputError where it is not on this machine and cannot be fetched (the message says what to fetch), and where it does not end
    texts as the text tower expects.
    """
    text = architecture["text_cfg"]
    options = {"context_length": text.get("context_length", 77), **text.get("tokenizer_kwargs", {})}
    source = config.tokenizer or text.get("hf_tokenizer_name")
    if not source:
        return open_clip.SimpleTokenizer(**options)
    try:
        tokenizer: Tokenizer = open_clip.tokenizer.HFTokenizer(source, tokenizer_mode=text.get("tokenizer_mode"), **options)
    except ImportError as error:
        raise InputError(f"the tokenizer {source} needs the package transformers ({error}): pip install transformers") from None
    except (OSError, ValueError) as error:
        cause = f"the tokenizer {source} cannot be loaded ({type(error).__name__}: {str(error).splitlines()[0]})"
        fetch = f"run `hf download {source} --local-dir FOLDER` where there is a network and set model.tokenizer to the folder"
        raise InputError(f"{cause}; {'it must be the folder of a tokenizer' if config.tokenizer else fetch}") from None
    tokens, pool = tokenizer([PROBE])[0], text.get("pool_type", "argmax")
    end = int((tokens if pool == "argmax" else tokens == text.get("eos_id", 2)).int().argmax())
    # Behind the end there is nothing but padding.
    if pool in ("argmax", "eos") and "hf_model_name" not in text and (end == 0 or len(set(tokens[end + 1 :].tolist())) > 1):
        wanted = "the token with the greatest number" if pool == "argmax" else f"token {text.get('eos_id', 2)}"
        remedy = 'set pool_type = "eos" and eos_id in text_cfg of [model.custom]'
        raise InputError(f"the tokenizer {source} does not end texts with {wanted}, which {config.name} pools: {remedy}")
    return tokenizer


def save_model(
    model: Model, weights: dict[str, torch.Tensor], architecture: dict[str, Any], tokenizer: Tokenizer, folder: Path, *, name: str
) -> None:
    """Writes weights, configuration and tokenizer as ``open_clip.create_model("local-dir:FOLDER")`` reads them.

    A model that open_clip does not know by ``name`` also gets ``<name>.json``, for ``open_clip.add_model_config``.
    """
    about = {"model_cfg": architecture, "preprocess_cfg": model.visual.preprocess_cfg}
    (folder / CONFIG_FILE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    if open_clip.get_model_config(name) != architecture:
        (folder / f"{name.replace('/', '-')}.json").write_text(json.dumps(architecture, indent=2) + "\n", encoding="utf-8")
    if hasattr(tokenizer, "save_pretrained"):
        tokenizer.save_pretrained(str(folder))
    partial = folder / "open_clip_model.partial"
    partial.write_bytes(save({key: value.contiguous() for key, value in weights.items()}))
    partial.replace(folder / WEIGHTS_FILE)
