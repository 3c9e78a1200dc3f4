"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

try:
    import hypothesis
except ImportError:  # where few tests run: on machines with a GPU, and those of training
    pass
else:
    # The same examples each time, however long each of them takes: what fails once fails again.
    # pytest --hypothesis-profile=search looks for others.
    slow = hypothesis.HealthCheck.too_slow
    hypothesis.settings.register_profile(
        "same", derandomize=True, deadline=None, suppress_health_check=[slow]
    )
    hypothesis.settings.register_profile("search", deadline=None, suppress_health_check=[slow])
    hypothesis.settings.load_profile("same")

_SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real volumes and SCT's outputs, beside the checkout."""
    if not (_SHARED / "data").is_dir():
        pytest.skip("no ../shared/data beside the checkout")
    return _SHARED


@pytest.fixture(autouse=True)
def _only_the_projects_own_packs_and_engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Packs and engines that the developer has must not change what a test sees, nor tests what they have."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("FASTSEG_")]:
            patch.delenv(name)
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.getbasetemp() / "no-user-data"))
        patch.setenv("FASTSEG_ENGINES", str(tmp_path_factory.mktemp("engines")))
        yield
