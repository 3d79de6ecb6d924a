"""Copies by hashes against every pair compared with every other, and on pictures that were made smaller or more compressed."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from balancing.duplicates import DISTANCE, exact_duplicates, near_duplicates
from pipelines.imaging import prepare_image
from tests.world.pictures import draw_picture
from tests.world.subjects import COLOURS, SCENES, SHAPES, Subject


def by_hand(hashes: list[int]) -> list[int]:
    """The first image that each leads to, every pair compared."""
    first: list[int] = []
    for i, hash in enumerate(hashes):
        near = [j for j in range(i) if hash and hashes[j] and (hash ^ hashes[j]).bit_count() <= DISTANCE]
        first.append(first[near[0]] if near else i)
    return first


def with_bits(hash: int, bits: list[int]) -> int:
    for bit in bits:
        hash ^= 1 << bit
    return hash


#: Few hashes and a few bits of each turned, so that chains of near ones come about.
HASHES = st.lists(
    st.builds(
        with_bits,
        st.sampled_from([0, 2**64 - 1, 0x0123456789ABCDEF, 0xFFFF0000FFFF0000]),
        st.lists(st.integers(0, 63), max_size=5),
    ),
    max_size=40,
)


@given(HASHES)
def test_near_duplicates_are_those_of_every_pair(hashes: list[int]) -> None:
    assert near_duplicates(np.array(hashes, dtype=np.uint64)).tolist() == by_hand(hashes)


@given(st.integers(1, 2**64 - 1), st.sets(st.integers(0, 63), min_size=1, max_size=5))
def test_any_bits_may_differ_and_no_more_than_three(hash: int, bits: set[int]) -> None:
    other = with_bits(hash, sorted(bits))
    if other:
        found = near_duplicates(np.array([hash, other], dtype=np.uint64)).tolist()
        assert found == ([0, 0] if len(bits) <= DISTANCE else [0, 1])


@given(st.lists(st.integers(0, 5), max_size=30))
def test_exact_duplicates_are_the_first_of_their_hash(hashes: list[int]) -> None:
    assert exact_duplicates(np.array(hashes, dtype=np.uint64)).tolist() == [hashes.index(hash) for hash in hashes]


def test_a_long_run_of_hashes_that_agree_in_half_of_their_bits() -> None:
    rng = np.random.default_rng(5)
    hashes = rng.integers(1, 2**31, 3_000, dtype=np.uint64) << np.uint64(33)
    assert len(near_duplicates(hashes)) == 3_000
    # Far more than are compared with one another, and still the copies behind them are found: they agree in other bits too.
    both = np.concatenate([hashes, hashes ^ np.uint64(1 << 40)])
    assert (near_duplicates(both)[3_000:] < 3_000).all()


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
    assert copies[:, 1:].mean() > 0.9


def test_of_real_photos_nearly_all_copies_are_found_and_no_others(shared_data: Path) -> None:
    photos = sorted((shared_data / "images" / "flickr8k" / "images").glob("*.jpg"))[:250]
    bodies = [[photo.read_bytes(), *variants(photo.read_bytes())] for photo in photos]
    hashes = np.array([prepare_image(body, max_side=None).dhash for of in bodies for body in of], dtype=np.uint64).reshape(-1, 5)
    bits = np.bitwise_count(hashes[:, :1] ^ hashes[:, 1:])
    assert ((bits <= DISTANCE).mean(axis=0) > 0.96).all()
    assert near_duplicates(hashes[:, 0]).tolist() == list(range(len(photos)))


@pytest.mark.parametrize("n", [0, 1])
def test_none_and_one(n: int) -> None:
    assert near_duplicates(np.ones(n, dtype=np.uint64)).tolist() == list(range(n))
