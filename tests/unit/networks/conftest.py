import pytest


@pytest.fixture
def packs(tmp_path, monkeypatch):
    """A folder of packs of our own, and no other but the built-in one."""
    folder = tmp_path / "packs"
    monkeypatch.setenv("FASTSEG_PACKS", str(folder))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return folder
