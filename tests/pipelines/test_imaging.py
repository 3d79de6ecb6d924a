"""prepare_image against Pillow's own encoders and hand-made headers."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from pipelines import imaging
from pipelines.imaging import ImageError, prepare_image
from tests.world.pictures import draw_picture
from tests.world.subjects import Subject

RED, BLUE = (200, 30, 30), (30, 30, 200)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def decoded(body: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(body))
    image.load()
    return image


def gradient(width: int = 40, height: int = 24) -> Image.Image:
    """A picture that no flip, turn or loss of a channel leaves the same."""
    image = Image.new("RGB", (width, height))
    image.putdata([(x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)) for y in range(height) for x in range(width)])
    return image


def rgb_hash(image: Image.Image) -> str:
    return hashlib.sha256(f"{image.width}x{image.height}\n".encode() + image.convert("RGB").tobytes()).hexdigest()


def rgb_png(width: int, height: int, samples: bytes, *, bits: int = 8) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(samples)) + chunk(b"IEND", b"")


def reason_of(body: bytes, **options: int) -> str:
    with pytest.raises(ImageError) as caught:
        prepare_image(body, max_side=None, **options)
    return caught.value.reason


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_plain_jpeg_keeps_its_bytes(mode: str, progressive: bool) -> None:
    body = encoded(gradient().convert(mode), "JPEG", progressive=progressive, comment=b"kept")
    got = prepare_image(body, max_side=40)
    assert got.jpeg == body
    assert (got.width, got.height) == (40, 24)
    assert got.sha256 == rgb_hash(decoded(body))


def test_a_jpeg_with_more_pictures_behind_the_first_keeps_its_bytes() -> None:
    body = encoded(gradient(), "MPO", save_all=True, append_images=[gradient(8, 8)])
    assert decoded(body).format == "MPO"
    assert prepare_image(body, max_side=None).jpeg == body


@pytest.mark.parametrize(("width", "height", "size"), [(40, 24, (20, 12)), (24, 40, (12, 20)), (400, 2, (20, 1)), (400, 1, (20, 1))])
def test_a_larger_image_is_made_smaller_and_keeps_its_hash(width: int, height: int, size: tuple[int, int]) -> None:
    body = encoded(gradient(width, height), "JPEG")
    got = prepare_image(body, max_side=20)
    assert decoded(got.jpeg).size == (got.width, got.height) == size
    assert got.sha256 == prepare_image(body, max_side=None).sha256


def test_the_hash_is_of_the_pixels_whatever_the_file() -> None:
    image = gradient(40, 1100)
    files = [encoded(image, "PNG"), encoded(image, "PNG", compress_level=0), encoded(image, "BMP"), encoded(image, "WEBP", lossless=True)]
    hashes = {prepare_image(body, max_side=side, quality=quality).sha256 for body in files for side, quality in [(None, 90), (16, 50)]}
    assert hashes == {rgb_hash(image)}
    assert prepare_image(encoded(gradient(20, 2200), "PNG"), max_side=None).sha256 not in hashes


def test_the_hash_of_gray_is_that_of_the_same_gray_in_rgb() -> None:
    gray = gradient().convert("L")
    assert (
        prepare_image(encoded(gray, "PNG"), max_side=None).sha256
        == prepare_image(encoded(gray.convert("RGB"), "PNG"), max_side=None).sha256
    )


def test_width_and_height_are_part_of_the_hash() -> None:
    flat = [prepare_image(encoded(Image.new("RGB", size, RED), "PNG"), max_side=None).sha256 for size in [(4, 6), (6, 4)]]
    assert flat[0] != flat[1]


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_plain_png_or_webp_keeps_its_bytes_unless_a_jpeg_is_asked(kind: str, mode: str) -> None:
    body = encoded(gradient().convert(mode), kind, lossless=True)
    kept, new = prepare_image(body, max_side=40), prepare_image(body, max_side=40, to_jpeg=True)
    assert kept.jpeg == body
    assert decoded(new.jpeg).format == "JPEG"
    assert (new.width, new.height, new.sha256, new.dhash) == (kept.width, kept.height, kept.sha256, kept.dhash)
    assert decoded(prepare_image(body, max_side=39).jpeg).format == "JPEG"


def other_than_plain() -> Iterator[tuple[str, bytes]]:
    clear, exif = gradient().convert("RGBA"), Image.Exif()
    clear.putalpha(128)
    exif[0x0112] = 6
    yield "transparency", encoded(clear, "PNG")
    yield "one transparent colour", encoded(gradient(), "PNG", transparency=(0, 0, 0))
    yield "transparency in a WebP", encoded(clear, "WEBP", lossless=True)
    yield "palette", encoded(gradient().convert("P"), "PNG")
    yield "16 bits", encoded(Image.new("I;16", (40, 24)), "PNG")
    yield "turned", encoded(gradient(), "PNG", exif=exif)
    for kind in ("PNG", "WEBP"):
        yield f"an animated {kind}", encoded(gradient(), kind, save_all=True, append_images=[gradient().rotate(180)])
    yield "GIF", encoded(gradient(), "GIF")
    yield "BMP", encoded(gradient(), "BMP")


@pytest.mark.parametrize(("name", "body"), other_than_plain(), ids=[name for name, _ in other_than_plain()])
def test_what_a_trainer_might_read_as_another_picture_becomes_a_jpeg(name: str, body: bytes) -> None:
    assert decoded(prepare_image(body, max_side=None).jpeg).format == "JPEG"


def test_the_difference_hash_is_that_of_its_definition() -> None:
    subject = Subject(colour="red", shape="tree", scene="snow", count=2, size="large")
    image = Image.open(io.BytesIO(draw_picture(subject, np.random.default_rng(3))))
    small = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.LANCZOS)).tolist()
    bits = "".join("01"[row[x + 1] > row[x]] for row in small for x in range(8))
    assert prepare_image(encoded(image, "PNG"), max_side=None).dhash == int(bits, 2)
    assert 16 < bits.count("1") < 48
    # Pictures that are large are averaged over blocks first.
    large = image.resize((450, 300), Image.Resampling.NEAREST)
    blocks = np.asarray(large).reshape(150, 2, 225, 2, 3).astype(int).sum(axis=(1, 3))
    halved = Image.fromarray(((blocks + 2) // 4).astype(np.uint8))
    assert prepare_image(encoded(large, "PNG"), max_side=None).dhash == prepare_image(encoded(halved, "PNG"), max_side=None).dhash
    assert prepare_image(encoded(Image.new("RGB", (30, 30), RED), "PNG"), max_side=None).dhash == 0
    assert prepare_image(encoded(gradient(), "PNG"), max_side=None).dhash == 2**64 - 1


def test_the_same_bytes_give_the_same_jpeg_and_quality_matters() -> None:
    body = encoded(gradient(), "BMP")
    assert prepare_image(body, max_side=None).jpeg == prepare_image(body, max_side=None).jpeg
    assert len(prepare_image(body, max_side=None, quality=30).jpeg) < len(prepare_image(body, max_side=None).jpeg)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    # Oracle: the file that holds the pixels of the inverse turn and says how to turn them back.
    inverse = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.ROTATE_90, Image.Transpose.FLIP_TOP_BOTTOM],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.ROTATE_90, Image.Transpose.FLIP_LEFT_RIGHT],
        8: [Image.Transpose.ROTATE_270],
    }
    upright, stored = gradient(), gradient()
    for step in inverse.get(orientation, []):
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    png = prepare_image(encoded(stored, "PNG", exif=exif), max_side=None)
    assert (png.width, png.height, png.sha256) == (40, 24, rgb_hash(upright))
    body = encoded(stored, "JPEG", quality=95, exif=exif)
    jpeg = prepare_image(body, max_side=None)
    assert (jpeg.jpeg == body) == (orientation == 1)
    assert (jpeg.width, jpeg.height) == decoded(jpeg.jpeg).size == (40, 24)
    # No second turn for whoever reads the orientation of what we wrote.
    assert orientation == 1 or not decoded(jpeg.jpeg).getexif()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"Exif\x00\x00", b"Exif\x00\x00MM\x00*\xff\xff\xff\xff", b"Exif\x00\x00garbage" * 9])
def test_broken_exif_does_not_lose_the_picture(exif: bytes) -> None:
    body = encoded(gradient(), "JPEG", exif=exif)
    assert prepare_image(body, max_side=None).jpeg == body


@pytest.mark.parametrize("value", [0, 9, 77])
def test_an_orientation_that_does_not_exist_is_ignored(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    body = encoded(gradient(), "JPEG", exif=exif)
    assert prepare_image(body, max_side=None).jpeg == body


def test_cmyk_becomes_rgb() -> None:
    body = encoded(Image.new("RGB", (16, 16), RED).convert("CMYK"), "JPEG", quality=95)
    assert decoded(body).mode == "CMYK"
    got = decoded(prepare_image(body, max_side=None).jpeg)
    assert got.mode == "RGB"
    assert all(abs(a - b) < 12 for a, b in zip(got.resize((1, 1)).tobytes(), RED, strict=True))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_over_white(mode: str) -> None:
    image = Image.new("RGBA", (32, 16), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (16, 0, 32, 16))
    body = encoded(image.convert(mode), "PNG")
    got = decoded(prepare_image(body, max_side=None, quality=95).jpeg).convert("L")
    assert min(got.crop((0, 0, 12, 16)).tobytes()) > 245
    assert max(got.crop((20, 0, 32, 16)).tobytes()) < 10


def test_half_transparency_is_half_white() -> None:
    got = prepare_image(encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 128)), "PNG"), max_side=None)
    assert got.sha256 == rgb_hash(Image.new("RGB", (8, 8), (127, 127, 127)))


@pytest.mark.parametrize("transparency", [None, 0])
def test_sixteen_bits_are_scaled_not_clipped(transparency: int | None) -> None:
    image = Image.new("I;16", (256, 4))
    for x in range(256):
        for y in range(4):
            image.putpixel((x, y), x << 8 | 0x7F)
    options = {} if transparency is None else {"transparency": transparency}
    got = prepare_image(encoded(image, "PNG", **options), max_side=None)
    expected = Image.new("L", (256, 4))
    expected.putdata(list(range(256)) * 4)
    assert got.sha256 == rgb_hash(expected)
    assert decoded(got.jpeg).mode == "L"


def test_colours_of_sixteen_bits_become_a_jpeg_of_their_high_bytes() -> None:
    rows = [[(x * 6, y * 10, 7) for x in range(40)] for y in range(24)]
    samples = b"".join(b"\0" + bytes(byte for colour in row for high in colour for byte in (high, 0xF3)) for row in rows)
    got = prepare_image(rgb_png(40, 24, samples, bits=16), max_side=None)
    assert decoded(got.jpeg).format == "JPEG"
    expected = Image.new("RGB", (40, 24))
    expected.putdata([colour for row in rows for colour in row])
    assert got.sha256 == rgb_hash(expected)


def test_one_bit_becomes_gray() -> None:
    got = decoded(prepare_image(encoded(Image.new("1", (16, 16), 1), "PNG"), max_side=None).jpeg)
    assert (got.mode, got.getpixel((8, 8))) == ("L", 255)


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_an_animation_gives_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, BLUE)]
    body = encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
    assert getattr(decoded(body), "n_frames", 1) == 2
    assert prepare_image(body, max_side=None).sha256 == rgb_hash(frames[0])


def test_comments_and_metadata_are_not_carried_over() -> None:
    body = encoded(gradient(), "JPEG", comment=b"a secret", icc_profile=b"profile" * 20, dpi=(300, 300))
    got = prepare_image(body, max_side=20)
    assert b"a secret" not in got.jpeg
    assert b"profile" not in got.jpeg


def test_one_pixel_is_an_image_unless_a_smallest_side_is_asked() -> None:
    body = encoded(Image.new("RGB", (1, 1), RED), "GIF")
    assert (prepare_image(body, max_side=512).width, prepare_image(body, max_side=512).height) == (1, 1)
    assert reason_of(body, min_side=2) == "too_small"
    assert reason_of(encoded(gradient(40, 24), "PNG"), min_side=25) == "too_small"
    assert prepare_image(encoded(gradient(40, 24), "PNG"), max_side=None, min_side=24).height == 24


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (7072, 7072), (2**31 - 1, 2**31 - 1), (70_000, 2)])
def test_a_header_that_promises_too_much_is_refused_before_decoding(
    width: int, height: int, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    def load(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    assert reason_of(rgb_png(width, height, bytes(1000))) == "too_many_pixels"


def test_the_pixel_limit_is_exact() -> None:
    body = encoded(gradient(40, 24), "PNG")
    assert prepare_image(body, max_side=None, max_pixels=960).width == 40
    assert reason_of(body, max_pixels=959) == "too_many_pixels"


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    body = encoded(gradient(), "JPEG", progressive=True)
    end = body.rindex(b"\xff\xda")
    assert reason_of(body[:end] + body[end:-2] * 200 + body[-2:]) == "too_many_scans"


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_a_jpeg_that_lacks_its_end_mark_alone_gets_it(mode: str, subsampling: str) -> None:
    image = gradient(37, 30)
    image.paste("white", (0, 16, 37, 30))
    body = encoded(image.convert(mode), "JPEG", subsampling=subsampling)
    for cut in (1, 2):
        got = prepare_image(body[:-cut], max_side=None)
        assert got.sha256 == prepare_image(body, max_side=None).sha256
        assert rgb_hash(decoded(got.jpeg)) == got.sha256 or mode == "CMYK"
    assert {reason_of(body[:-cut]) for cut in range(3, 40)} == {"truncated_image"}


@pytest.mark.parametrize("options", [{"progressive": True}, {"restart_marker_rows": 1}])
def test_a_jpeg_of_which_a_whole_scan_or_interval_may_be_missing_needs_its_end_mark(options: dict[str, object]) -> None:
    body = encoded(gradient(), "JPEG", **options)
    assert reason_of(body[:-2]) == "truncated_image"


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_of_a_webp_no_more_is_kept_than_its_pixels(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    monkeypatch.setattr(imaging, "_orientation", lambda image: kept.extend(name for name in vars(image) if "decoder" in name) or 1)
    prepare_image(encoded(gradient().convert(mode), "WEBP"), max_side=None)
    assert "_decoder" in vars(Image.open(io.BytesIO(encoded(gradient(), "WEBP"))))
    assert not [name for name in kept if name == "_decoder"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
def test_every_cut_is_refused_or_decodes_to_the_same_pixels(kind: str) -> None:
    body = encoded(gradient(16, 12), kind)
    whole = prepare_image(body, max_side=None).sha256
    reasons = set()
    for length in range(len(body)):
        try:
            got = prepare_image(body[:length], max_side=None)
        except ImageError as error:
            reasons.add(error.reason)
        else:
            assert got.sha256 == whole, length
            assert length > len(body) - 20, "only what follows the pixels may be missing"
    assert reasons >= {"not_an_image", "truncated_image"} or kind == "WEBP"
    assert reasons <= {"not_an_image", "truncated_image"}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
def test_a_flipped_byte_anywhere_is_an_image_or_a_reason(kind: str) -> None:
    body = encoded(gradient(16, 12), kind)
    reasons: list[str] = []
    for place in range(len(body)):
        broken = body[:place] + bytes([body[place] ^ 0xFF]) + body[place + 1 :]
        try:
            got = prepare_image(broken, max_side=32, max_pixels=100_000)
        except ImageError as error:
            reasons.append(error.reason)
        else:
            assert max(decoded(got.jpeg).size) <= 32
    assert len(reasons) > 4
    assert set(reasons) <= {"not_an_image", "truncated_image", "too_many_pixels", "too_small"}


@pytest.mark.parametrize("body", [b"", b"\xff\xd8\xff", b"<html>404</html>", b"GIF89a", b"\x00" * 5000, encoded(gradient(), "TIFF")])
def test_what_is_no_image_of_a_web_page_is_refused(body: bytes) -> None:
    assert reason_of(body) == "not_an_image"
