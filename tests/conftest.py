"""What all tests share."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.world.chain import Chain

# The same examples in every run: whether a change passes must not depend on luck. HYPOTHESIS_PROFILE=search (make fuzz) looks for new ones.
settings.register_profile("suite", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None, max_examples=1_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))

_ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def _quick_beam() -> None:
    if "apache_beam" in sys.modules:  # tests without it need not wait for it
        from tests.quick_beam import remember

        remember()


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """Real dumps, pages, captions and photos, which are not part of the repository: WORLDCLIP_TEST_DATA or ../shared/data."""
    path = pathlib.Path(os.environ.get("WORLDCLIP_TEST_DATA") or _ROOT.parent / "shared" / "data")
    if not path.is_dir():
        pytest.skip(f"no real data at {path}: set WORLDCLIP_TEST_DATA to run this test")
    return path


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """The generated world and its chain, made once for all tests of a process."""
    from tests.world.chain import make_chain  # imports Beam, which most tests need not wait for

    with make_chain(tmp_path_factory.mktemp("chain")) as made:
        yield made
