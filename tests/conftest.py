"""What all tests share."""

from __future__ import annotations

import os
import pathlib

import pytest
from hypothesis import settings

# The same examples in every run: whether a change passes must not depend on luck. HYPOTHESIS_PROFILE=search looks for new ones.
settings.register_profile("suite", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))

_ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """Real dumps, pages, captions and photos, which are not part of the repository: WORLDCLIP_TEST_DATA or ../shared/data."""
    path = pathlib.Path(os.environ.get("WORLDCLIP_TEST_DATA") or _ROOT.parent / "shared" / "data")
    if not path.is_dir():
        pytest.skip(f"no real data at {path}: set WORLDCLIP_TEST_DATA to run this test")
    return path
