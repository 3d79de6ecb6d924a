"""Copies by hashes against every pair compared with every other, and on pictures that were made smaller or more compressed."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from balancing.duplicates import DISTANCE, TELLING_BITS, exact_duplicates, near_duplicates
from pipelines.imaging import prepare_image
from tests.world.pictures import draw_picture
from tests.world.subjects import COLOURS, SCENES, SHAPES, Subject


def tells(hash: int) -> bool:
    return TELLING_BITS <= hash.bit_count() <= 64 - TELLING_BITS


def are_near(one: int, other: int) -> bool:
    return tells(one) and tells(other) and (one ^ other).bit_count() <= DISTANCE


def stay_by_hand(hashes: list[int]) -> list[int]:
    """The images that stay, every one compared with all that stay before it."""
    out: list[int] = []
    for i, hash in enumerate(hashes):
        if not any(are_near(hashes[j], hash) for j in out):
            out.append(i)
    return out


def with_bits(hash: int, bits: list[int]) -> int:
    for bit in bits:
        hash ^= 1 << bit
    return hash


#: Few hashes and a few bits of each turned, so that chains of near ones come about; some have too few bits, or just enough.
HASHES = st.lists(
    st.builds(
        with_bits,
        st.sampled_from([0, 2**64 - 1, 2**TELLING_BITS - 1, 2**64 - 2**TELLING_BITS, 0x0123456789ABCDEF, 0xFFFF0000FFFF0000]),
        st.lists(st.integers(0, 63), max_size=5),
    ),
    max_size=40,
)
#: Each differs from the next in a bit.
CHAIN = [0x0123456789ABCDEF ^ (2**i - 1) << 3 for i in range(14)]


@given(HASHES)
@example(CHAIN)
@example(CHAIN[::3] + CHAIN)
def test_those_stay_that_are_near_to_none_that_stays_before_them(hashes: list[int]) -> None:
    found = near_duplicates(np.array(hashes, dtype=np.uint64)).tolist()
    assert [i for i, first in enumerate(found) if first == i] == stay_by_hand(hashes)
    # No copy is far from what it is a copy of, which stays.
    assert all(first == i or (first < i and found[first] == first and are_near(hashes[first], hashes[i])) for i, first in enumerate(found))


def test_a_chain_longer_than_the_rounds_leaves_out_no_picture_that_is_like_none() -> None:
    steps = 400
    rng = np.random.default_rng(2)
    chain = [0x0123456789ABCDEF]
    while len(chain) < steps:
        following = with_bits(chain[-1], rng.choice(64, 3, replace=False).tolist())
        if tells(following) and all(not are_near(following, before) for before in chain[:-1]):
            chain.append(following)
    found = near_duplicates(np.array(chain, dtype=np.uint64)).tolist()
    assert all(first == i or (found[first] == first and are_near(chain[first], chain[i])) for i, first in enumerate(found))
    assert sum(first != i for i, first in enumerate(found)) >= 30


@given(st.integers(0, 2**64 - 1), st.sets(st.integers(0, 63), min_size=1, max_size=5))
def test_any_bits_may_differ_and_no_more_than_three(hash: int, bits: set[int]) -> None:
    other = with_bits(hash, sorted(bits))
    found = near_duplicates(np.array([hash, other], dtype=np.uint64)).tolist()
    assert found == ([0, 0] if are_near(hash, other) else [0, 1])


@given(st.lists(st.integers(0, 5), max_size=30))
def test_exact_duplicates_are_the_first_of_their_hash(hashes: list[int]) -> None:
    assert exact_duplicates(np.array(hashes, dtype=np.uint64)).tolist() == [hashes.index(hash) for hash in hashes]


def test_a_long_run_of_hashes_that_agree_in_half_of_their_bits() -> None:
    rng = np.random.default_rng(5)
    # Below are bits enough for all, and above for both.
    hashes = rng.integers(1, 2**31, 3_200, dtype=np.uint64) << np.uint64(33) | np.uint64(2**14 - 1)
    hashes = hashes[np.bitwise_count(hashes) > TELLING_BITS + 1][:3_000]
    assert len(near_duplicates(hashes)) == 3_000
    # Far more than are compared with one another, and still the copies behind them are found: they agree in other bits too.
    found = near_duplicates(np.concatenate([hashes, hashes ^ np.uint64(1 << 40)]))
    assert (found[3_000:][found[:3_000] == np.arange(3_000)] < 3_000).all()


def variants(body: bytes) -> list[bytes]:
    image = Image.open(io.BytesIO(body)).resize((256, 256), Image.Resampling.BICUBIC)
    out = []
    for side, quality in ((256, 90), (256, 60), (192, 85), (128, 90)):
        buffer = io.BytesIO()
        image.resize((side, side), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=quality)
        out.append(buffer.getvalue())
    return out


def test_smaller_and_more_compressed_copies_are_found_and_other_pictures_are_not() -> None:
    looks = [{"colour": COLOURS[i % 8], "shape": SHAPES[i % 10], "scene": SCENES[i % 7], "count": 1 + i % 4} for i in range(40)]
    bodies = [variants(draw_picture(Subject(**of, size="medium"), np.random.default_rng(i))) for i, of in enumerate(looks)]  # type: ignore[arg-type]
    hashes = np.array([prepare_image(body, max_side=None).dhash for of in bodies for body in of], dtype=np.uint64)
    found = near_duplicates(hashes).reshape(40, 4) // 4
    own = np.arange(40)[:, None]
    assert (found == own).all()
    copies = near_duplicates(hashes).reshape(40, 4) == 4 * own
    assert copies[:, 1:].mean() > 0.85


def test_of_real_photos_nearly_all_copies_are_found_and_no_others(shared_data: Path) -> None:
    photos = sorted((shared_data / "images" / "flickr8k" / "images").glob("*.jpg"))[:200]
    bodies = [[photo.read_bytes(), *variants(photo.read_bytes())] for photo in photos]
    hashes = np.array([prepare_image(body, max_side=None).dhash for of in bodies for body in of], dtype=np.uint64).reshape(-1, 5)
    bits = np.bitwise_count(hashes[:, :1] ^ hashes[:, 1:])
    assert ((bits <= DISTANCE).mean(axis=0) > 0.96).all()
    assert near_duplicates(hashes[:, 0]).tolist() == list(range(len(photos)))
    assert (near_duplicates(hashes.ravel()).reshape(-1, 5)[:, 1:] == 5 * np.arange(len(photos))[:, None]).mean() > 0.95


#: Of pictures on a plain ground, in pixels.
SIZE = (240, 180)
FONT = ImageFont.load_default(SIZE[1] // 6)


def word(rng: np.random.Generator, ground: str, ink: str) -> Image.Image:
    image = Image.new("RGB", SIZE, ground)
    text = "".join(chr(97 + letter) for letter in rng.integers(0, 26, rng.integers(3, 11)))
    ImageDraw.Draw(image).text((SIZE[0] / 2, SIZE[1] / 2), text, fill=ink, font=FONT, anchor="mm")
    return image


def polygon(rng: np.random.Generator, radius: int, ground: str, ink: str) -> Image.Image:
    image = Image.new("RGB", SIZE, ground)
    corners = int(rng.integers(3, 8))
    angles, reach = np.sort(rng.uniform(0, 2 * np.pi, corners)), radius * rng.uniform(0.4, 1, corners)
    centre = [rng.integers(radius, side - radius) for side in SIZE]
    points = centre + reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    ImageDraw.Draw(image).polygon([(x, y) for x, y in points.tolist()], fill=ink)
    return image


@pytest.mark.parametrize(("ground", "ink"), [("white", "black"), ("navy", "yellow")])
@pytest.mark.parametrize(("radius", "most"), [(None, 0), (18, 0), (72, 1)])
def test_other_pictures_on_a_plain_ground_are_no_copies(radius: int | None, most: int, ground: str, ink: str) -> None:
    rng = np.random.default_rng(1)
    images = [word(rng, ground, ink) if radius is None else polygon(rng, radius, ground, ink) for _ in range(300)]
    hashes = np.array([prepare_image(encoded(image), max_side=None).dhash for image in images], dtype=np.uint64)
    assert np.count_nonzero(near_duplicates(hashes) != np.arange(300)) <= most
    # By three bits alone they would be.
    assert most or np.count_nonzero(np.bitwise_count(hashes[:, None] ^ hashes) <= DISTANCE) > 500


def encoded(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "BMP")
    return out.getvalue()


def cropped(body: bytes) -> bytes:
    """Without 3 % of the width and of the height, and smaller: half as wide."""
    image = Image.open(io.BytesIO(body))
    width, height = image.size
    left, top = round(0.015 * width), round(0.015 * height)
    out = io.BytesIO()
    image.crop((left, top, width - left, height - top)).resize((width // 2, height // 2)).save(out, "JPEG", quality=85)
    return out.getvalue()


def test_of_photos_that_were_cropped_a_little_more_than_half_are_found(shared_data: Path) -> None:
    photos = sorted((shared_data / "images" / "flickr8k" / "images").glob("*.jpg"))[:100]
    bodies = [body for photo in photos for body in (photo.read_bytes(), cropped(photo.read_bytes()))]
    hashes = np.array([prepare_image(body, max_side=None).dhash for body in bodies], dtype=np.uint64)
    found = near_duplicates(hashes).reshape(-1, 2)
    assert (found[:, 0] == found[:, 1]).mean() > 0.5
    assert (found // 2 == np.arange(len(photos))[:, None]).all()


@pytest.mark.parametrize("n", [0, 1])
def test_none_and_one(n: int) -> None:
    assert near_duplicates(np.ones(n, dtype=np.uint64)).tolist() == list(range(n))
