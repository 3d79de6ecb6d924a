"""Bytes that may be an image → the encoded image of the set, its size, and hashes of its pixels."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import imagehash
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

#: What browsers show and Pillow decodes by itself. Not TIFF: no page shows one, and its decoder is the largest target of all.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP")
#: MPO is a JPEG with more pictures after the first, as telephones write it.
_JPEGS = ("JPEG", "MPO")
#: What readers of training sets take beside JPEG; GIF and BMP they do not.
_ALSO_READ = ("PNG", "WEBP")
#: The longest side that the JPEG library writes.
JPEG_SIDE = 65_500
#: Each scan of a progressive JPEG visits every pixel and needs some hundred bytes only; encoders write about ten.
_JPEG_SCANS = 100
_START_OF_SCAN = b"\xff\xda"
_END_OF_JPEG = b"\xff\xd9"
_RESTART_INTERVAL = b"\xff\xdd"
#: Data behind a scan that would become pixels, by any table of codes, if pixels were missing.
_STRANGE_DATA = tuple(
    bytes((start + step * i) % 255 for i in range(1024)) for start, step in ((1, 1), (254, 254), (85, 0), (170, 0), (0, 0))
)
#: Rows hashed at a time, so that hashing needs no second copy of the pixels.
_STRIP = 512
#: Shorter side down to which a picture is averaged for its difference hash.
_HASHED_SIDE = 128
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(Exception):
    """The bytes cannot become an image of the set; ``reason`` is a stable snake_case name."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """An image of the set; ``width`` and ``height`` are those of ``jpeg``, which is a PNG or WebP where that kept its bytes.

    ``sha256`` (hexadecimal) is of the decoded pixels, as upright 8-bit RGB in full size, before any resizing or encoding, after the
    width and height: the same picture has the same hash whatever its file format, metadata, ``max_side`` or ``quality``.
    ``dhash`` (uint64) is the difference hash of the same pixels: whether the brightness rises from each cell of an 8 x 9 grid to the next.
    It differs in few bits between a picture and a smaller or more compressed copy, and is made of integers, the same on every processor.
    """

    jpeg: bytes
    width: int
    height: int
    sha256: str
    dhash: int


def prepare_image(
    body: bytes,
    *,
    max_side: int | None,
    to_jpeg: bool = False,
    quality: int = 90,
    max_pixels: int = 50_000_000,
    min_side: int = 1,
) -> Prepared:
    """Decode ``body`` wholly and give it back as an upright 8-bit RGB or gray image with no side above ``max_side`` pixels.

    A JPEG, PNG or WebP that is that already keeps its bytes (with ``to_jpeg`` a JPEG alone). Everything else is encoded anew as JPEG,
    without metadata and colour profile: the first frame of an animation, transparency over white, the high byte of 16-bit samples. The
    bytes depend on the Pillow version only.

    Size and format are read from the header first: memory is at most about 12 bytes · ``max_pixels`` beside ``body``, and 18 for a WebP.

    A JPEG that lacks nothing but its end mark, as some servers send them and browsers show them, gets it.

    Raises :class:`ImageError`: ``not_an_image`` (none of :data:`FORMATS`), ``too_many_pixels`` (or a side that JPEG cannot hold),
    ``too_small`` (a side below ``min_side``), ``too_many_scans`` (a JPEG made to keep a decoder busy), ``truncated_image`` (it does not
    decode to the end: cut off or broken).
    """
    source = _opened(body, max_pixels=max_pixels, min_side=min_side)
    kind = source.format
    try:
        source, body = _loaded(source, body)
        # Two copies of the canvas, kept for frames after the first.
        vars(source).pop("_decoder", None)
        plain = _eight_bits(source)
    except Exception as error:
        # Pillow's decoders raise nearly every class there is on broken bytes.
        raise ImageError("truncated_image", f"{type(error).__name__}: {error}") from error
    turn = _UPRIGHT.get(_orientation(source))
    upright = plain if turn is None else plain.transpose(turn)
    sha256, dhash = _pixel_hash(upright), _difference_hash(upright)
    width, height = upright.size
    too_long = max_side is not None and max(width, height) > max_side
    is_read = kind in _JPEGS or (kind in _ALSO_READ and not to_jpeg and not getattr(source, "is_animated", False))
    is_plain = source.mode in ("RGB", "L") and not source.has_transparency_data and not (kind == "PNG" and _has_16_bits(body))
    if is_read and is_plain and turn is None and not too_long:
        return Prepared(jpeg=body, width=width, height=height, sha256=sha256, dhash=dhash)
    if max_side is not None and too_long:
        scale = max_side / max(width, height)
        upright = upright.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.LANCZOS)
    jpeg = _encoded(upright, quality=quality)
    return Prepared(jpeg=jpeg, width=upright.width, height=upright.height, sha256=sha256, dhash=dhash)


def _opened(body: bytes, *, max_pixels: int, min_side: int) -> Image.Image:
    """The image with its header read and judged, no pixel decoded."""
    try:
        image = Image.open(io.BytesIO(body), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("too_many_pixels", str(error)) from error
    except UnidentifiedImageError as error:
        raise ImageError("not_an_image") from error
    except Exception as error:
        raise ImageError("not_an_image", f"{type(error).__name__}: {error}") from error
    size = f"{image.width} x {image.height}"
    if image.width * image.height > max_pixels or max(image.size) > JPEG_SIDE:
        raise ImageError("too_many_pixels", size)
    if min(image.size) < min_side:
        raise ImageError("too_small", size)
    if image.format in _JPEGS and body.count(_START_OF_SCAN) > _JPEG_SCANS:
        raise ImageError("too_many_scans", size)
    return image


def _loaded(image: Image.Image, body: bytes) -> tuple[Image.Image, bytes]:
    """The decoded image, and the bytes with an end mark if it was that alone that was missing; raises what Pillow raises."""
    try:
        image.load()
    except OSError:
        # The mark may be cut in its middle.
        scan = body.removesuffix(_END_OF_JPEG[:1])
        if image.format not in _JPEGS or not _lacks_only_its_end(image, scan):
            raise
        body = scan + _END_OF_JPEG
        image = _jpeg(body)
        image.load()
    return image, body


def _lacks_only_its_end(image: Image.Image, body: bytes) -> bool:
    """Whether a JPEG that does not decode has all its pixels, but no end mark.

    The decoder fills up what is missing without a word as soon as there is an end mark. So whatever stands before it must not matter: where
    all pixels are there, it is passed over. Not told where a whole interval or scan may be missing.
    """
    components_of_scan = body[body.rfind(_START_OF_SCAN) + 4]
    if image.info.get("progressive") or _RESTART_INTERVAL in body or components_of_scan != getattr(image, "layers", 0):
        return False
    pixels = _pixel_hash(_jpeg(body + _END_OF_JPEG))
    return all(_pixel_hash(_jpeg(body + data + _END_OF_JPEG)) == pixels for data in _STRANGE_DATA)


def _jpeg(body: bytes) -> Image.Image:
    return Image.open(io.BytesIO(body), formats=_JPEGS)


def _has_16_bits(png: bytes) -> bool:
    """Pillow opens a PNG of 16-bit colours as if it had 8 bits, and other readers do not."""
    return png[12:16] == b"IHDR" and png[24] == 16


def _eight_bits(image: Image.Image) -> Image.Image:
    """The decoded first frame as L or RGB."""
    if image.mode.startswith("I"):
        return image.convert("I").point(lambda sample: sample * (1 / 256) + 0).convert("L")
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        opaque = Image.new("RGB", clear.size, "white")
        opaque.paste(clear, mask=clear)
        return opaque
    if image.mode in ("L", "1"):
        return image.convert("L")
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        # A picture with broken metadata is still a picture.
        return 1


def _pixel_hash(image: Image.Image) -> str:
    width, height = image.size
    digest = hashlib.sha256(f"{width}x{height}\n".encode())
    for top in range(0, height, _STRIP):
        digest.update(image.crop((0, top, width, min(top + _STRIP, height))).convert("RGB").tobytes())
    return digest.hexdigest()


def _difference_hash(image: Image.Image) -> int:
    # Averaging whole blocks first takes a third of the time, and down to this side the same bits come out but for one in a hundred.
    small = image.reduce(max(1, min(image.size) // _HASHED_SIDE))
    return int.from_bytes(np.packbits(imagehash.dhash(small).hash).tobytes(), "big")


def _encoded(image: Image.Image, *, quality: int) -> bytes:
    # Pillow writes a comment that it finds in the image's info.
    image.info = {}
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()
