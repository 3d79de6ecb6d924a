"""Pairs of one's own in webdataset shards: tar files in which the files of a sample share a name and differ in their extension."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, Self

import pyarrow as pa

from balancing.own import BATCH_ROWS, OWN_COLUMNS, OwnColumns, pairs_of_rows
from balancing.own_lines import json_object, text_of_field
from balancing.pairs import image_id_of_url
from metadata.tally import Tally

#: Longest text, or description, that is read of a sample.
MEMBER_BYTES = 1 << 20
#: What reading a damaged shard raises; the last of numbers in extended headers.
DAMAGE = (tarfile.TarError, EOFError, ValueError)
_IMAGES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp"})


class _Member(tarfile.TarInfo):
    """A member whose header is damaged is an error; tarfile alone takes it for the end of the file."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if any(buf):
                raise tarfile.ReadError(str(error)) from error
            raise


def open_shard(file: BinaryIO, mode: Literal["r:", "r|*"]) -> tarfile.TarFile:
    """A shard whose members are read in order; what :data:`DAMAGE` is raised then stands for damage of the file."""
    return tarfile.open(fileobj=file, mode=mode, tarinfo=_Member)


def members_of_shard(shard: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, str, str]]:
    """(member, key of its sample, extension) of the files that belong to samples.

    The extension is everything behind the first dot of the file's name, as webdataset has it.
    """
    for member in shard:
        folder, slash, file = member.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace").rpartition("/")
        stem, _, extension = file.partition(".")
        if member.isfile() and stem:
            yield member, f"{folder}{slash}{stem}", extension.lower()
        # The list of all members would grow with the shard.
        shard.members = []  # type: ignore[attr-defined]


def image_id_of_sample(key: str, about: dict[str, Any], *, id_field: str, url_field: str) -> str:
    """Id of the image of a sample: the field ``id_field`` of its description; or else made of its address; or else its key.

    ``id_field`` may be that of addresses: then ids are made of them.

    Raises:
        ValueError: a field holds no text.
    """
    given = text_of_field(about.get(id_field), id_field, carried=False) if id_field != url_field else None
    url = text_of_field(about.get(url_field), url_field, carried=False)
    return given or (image_id_of_url(url) if url else key)


@dataclass(kw_only=True)
class _Sample:
    key: str
    place: int
    text: bytes | None = None
    about: bytes | None = None
    image: bool = False
    problem: str = ""


def _samples(file: BinaryIO, *, tally: Tally) -> Iterator[_Sample]:
    """The samples of a shard in order. Damage is told to ``tally``, and stands for the sample in which it lies."""
    sample: _Sample | None = None
    place = 0
    try:
        with open_shard(file, "r|*") as shard:
            for member, key, extension in members_of_shard(shard):
                place = member.offset
                if sample is None or sample.key != key:
                    if sample:
                        yield sample
                    sample = _Sample(key=key, place=place)
                _put(sample, extension, member, shard)
    except DAMAGE as error:
        tally.damaged("damaged_tar", place=place, detail=str(error))
        return
    if sample:
        yield sample


def _put(sample: _Sample, extension: str, member: tarfile.TarInfo, shard: tarfile.TarFile) -> None:
    if extension in _IMAGES:
        sample.image = True
    elif extension in ("txt", "json"):
        if member.size > MEMBER_BYTES:
            sample.problem = f"{member.name} has {member.size} bytes, more than {MEMBER_BYTES}"
            return
        content = shard.extractfile(member)
        data = content.read() if content else b""
        if len(data) < member.size:
            raise tarfile.ReadError("unexpected end of data")
        if extension == "txt":
            sample.text = data
        else:
            sample.about = data


def read_own_tar(file: BinaryIO, *, tally: Tally, columns: OwnColumns = OWN_COLUMNS) -> Iterator[pa.Table]:
    """The pairs of a webdataset shard, as tables of :func:`balancing.own.pairs_of_rows`; images are passed over, not decoded.

    The text is the ``.txt`` file of a sample, or else the field ``columns.text`` of its ``.json`` file; the address is the field
    ``columns.url``; the id as :func:`image_id_of_sample` says. What is carried are fields as text.
    A sample without an image is dropped as ``no_image``. Dead letters: ``invalid_json``, ``not_utf8``, ``member_too_large``; the file is
    damaged as ``damaged_tar``, after what stands before. Memory: a batch of 65,536 rows.
    """
    names = ["image_id", "url", "text", *columns.carry]
    rows: list[list[str | None]] = []
    for sample in _samples(file, tally=tally):
        tally.read += 1
        payload = sample.key.encode("utf-8", "replace")
        if not sample.image:
            tally.drop("no_image")
        elif sample.problem:
            tally.dead_letter("member_too_large", place=sample.place, detail=sample.problem, payload=payload)
        else:
            try:
                rows.append(_row(sample, columns))
            except UnicodeDecodeError as error:
                tally.dead_letter("not_utf8", place=sample.place, detail=str(error), payload=payload)
            except ValueError as error:
                tally.dead_letter("invalid_json", place=sample.place, detail=str(error), payload=payload)
        if len(rows) == BATCH_ROWS:
            yield pairs_of_rows(rows, names, tally=tally)
            rows = []
    if rows:
        yield pairs_of_rows(rows, names, tally=tally)


def _row(sample: _Sample, columns: OwnColumns) -> list[str | None]:
    about = json_object(sample.about) if sample.about is not None else {}

    def text(name: str, carried: bool = False) -> str | None:
        return text_of_field(about.get(name), name, carried=carried)

    caption = sample.text.decode() if sample.text is not None else text(columns.text)
    image_id = image_id_of_sample(sample.key, about, id_field=columns.image_id, url_field=columns.url)
    return [image_id, text(columns.url), caption, *(text(name, True) for name in columns.carry)]
