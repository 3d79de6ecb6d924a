"""Test sets of a few coloured squares in the published layouts, and a model that sees colours and reads their names."""

from __future__ import annotations

import io
import json
import pathlib
import tarfile
from collections.abc import Sequence
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from train.distributed import Ranks

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
#: In another language.
ROT, GRUEN, BLAU = WORDS = ("rot", "grün", "blau")
ALONE = Ranks(rank=0, count=1, device=torch.device("cpu"))


class Fake(torch.nn.Module):
    """Embeds an image as its mean colour, and a text as the colour that its token stands for."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = SimpleNamespace(preprocess_cfg={"size": 4, "mean": (0.0,) * 3, "std": (1.0,) * 3})
        self.modes: list[bool] = []

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        self.modes.append(self.training)
        return images.mean(dim=(2, 3))

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        return 7 * torch.eye(3)[tokens[:, 0]]


def tokenizer(texts: list[str]) -> torch.Tensor:
    """The last of the known words that occurs in each text."""
    words = [*COLOURS, *WORDS]
    return torch.tensor([[max((text.rfind(word), i % 3) for i, word in enumerate(words))[1]] for text in texts])


def picture(colour: str, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 5), COLOURS[colour]).save(buffer, kind)
    return buffer.getvalue()


def write(path: pathlib.Path, content: bytes | str | object) -> str:
    """A file; what is neither bytes nor text becomes JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, bytes):
        content = (content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)).encode()
    path.write_bytes(content)
    return str(path)


def write_tar(path: pathlib.Path, files: dict[str, bytes]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return str(path)


def write_cvqa(path: pathlib.Path, rows: Sequence[tuple[str, str, list[str], int, str]]) -> str:
    """Rows of subset, question, options, label and the colour of the image, as CVQA has them; two rows a group."""
    subsets, questions, options, labels, colours = map(list, zip(*rows, strict=True))
    columns = {
        "image": [{"bytes": picture(colour, "JPEG"), "path": f"{i}.jpg"} for i, colour in enumerate(colours)],
        "ID": [f"591_{i}" for i in range(len(rows))],
        "Subset": subsets,
        "Question": questions,
        "Translated Question": ["Which colour?"] * len(rows),
        "Options": options,
        "Translated Options": [[dict(zip(WORDS, COLOURS, strict=True))[word] for word in given] for given in options],
        "Label": labels,
        "Category": ["Objects"] * len(rows),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return str(path)
