"""Packs are found by name or folder, checked before use, and never reach outside their folder."""

import os
import shutil
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from fastseg.errors import NetworkError
from fastseg.networks.network import CONTRASTS, Acceptance, EngineRecord, Precision, Role
from fastseg.networks.pack_toml import pack_toml
from fastseg.networks.packs import (
    Pack,
    find_pack,
    list_packs,
    load_pack,
    pack_digest,
    read_svm,
    search_path,
    verify_pack,
)
from tests.unit.networks.stand_ins import HEAD, make_pack, one_line, own_pack, svm_values


def test_a_pack_says_what_its_toml_says(tmp_path):
    pack = load_pack(make_pack(tmp_path / "mine"))
    assert (pack.name, pack.version, pack.licence, pack.source) == ("mine", "1", "MIT", "made by a test")
    (network,) = pack.networks
    assert network.name == "mine/net"
    assert (network.role, network.contrasts, network.spatial) == (Role.SEGMENT_2D, ("t2",), (64, 64))
    assert network.channels_last
    assert (network.mean, network.std, network.thresholds) == (0.0, 1.0, {"t2": 0.7})
    assert pack.svm("t1").path == tmp_path / "mine" / "svm.npy"
    assert pack.origins["net.onnx"].licence == "MIT"
    assert pack.card == tmp_path / "mine" / "MODEL_CARD.md"


def test_what_is_written_is_what_is_read(tmp_path):
    head = HEAD.replace("made by a test", 'a \\"quoted\\" \\\\ source\\twith \\u007f and é')
    pack = load_pack(make_pack(tmp_path / "mine", head=head))
    (tmp_path / "mine" / "pack.toml").write_text(pack_toml(pack), encoding="utf-8")
    assert load_pack(tmp_path / "mine") == pack


def test_the_built_in_pack_has_everything_for_every_contrast_and_none(packs):
    pack = find_pack("default")
    sizes = {
        Role.DETECT_SLICES: (0, 0),
        Role.SEGMENT_2D: (64, 64),
        Role.SEGMENT_2D_LIGHT: (64, 64),
        Role.SEGMENT_3D: (64, 64, 0),
    }
    for contrast in (*CONTRASTS, "auto"):
        for role, spatial in sizes.items():
            network = pack.network(role, contrast)
            assert (network.spatial, network.channels_last) == (spatial, False)
            assert 0 < network.thresholds[contrast] < 1
        assert pack.detectors(contrast) == ("cnn", "svm")
    assert pack.card.is_file()
    assert not any(check.problem for check in verify_pack(pack))


def test_the_built_in_pack_is_small(packs):
    pack = find_pack("default")
    assert sum(item.path.stat().st_size for item in pack.items) < 8e6


def test_every_precision_of_the_built_in_segmenters_was_measured(packs):
    for network in find_pack("default").networks:
        assert set(network.precision) == {"tf32", "fp16", "bf16", "int8"}
        assert network.macs_millions > 0


@pytest.mark.parametrize("count", [1, 3])
def test_the_built_in_networks_take_batches_of_any_length(packs, count):
    from fastseg.engines.select import open_engine

    pack = find_pack("default")
    batch = np.random.default_rng(0).uniform(0, 255, (count, 1, 64, 64)).astype(np.float32)
    with open_engine(pack.network(Role.SEGMENT_2D, "t2")) as engine:
        result = engine.infer(batch)
    assert result.shape == batch.shape
    assert result.min() >= 0
    assert result.max() <= 1
    slices = np.random.default_rng(0).uniform(0, 1.2, (count, 1, 48, 80)).astype(np.float32)
    with open_engine(pack.network(Role.DETECT_SLICES, "dwi")) as engine:
        assert engine.infer(slices).shape == (count, 1, 24, 40)  # pixels of 2 mm


def test_fastseg_packs_comes_before_the_users_folder_before_the_built_in(tmp_path, monkeypatch):
    first, second, user = tmp_path / "a", tmp_path / "b", tmp_path / "data" / "fastseg" / "packs"
    monkeypatch.setenv("FASTSEG_PACKS", f"{first}{os.pathsep}{os.pathsep}{second}")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert search_path()[:3] == (first, second, user)
    for folder in (user / "default", second / "same", first / "same", user / "own"):
        make_pack(folder)
    assert find_pack("same").folder == first / "same"
    assert find_pack("default").folder == user / "default"
    assert [p.name for p in list_packs() if isinstance(p, Pack)] == [
        "same", "same", "default", "own", "default",
    ]  # fmt: skip


def test_without_xdg_the_users_folder_is_where_the_platform_has_it(tmp_path, monkeypatch):
    monkeypatch.delenv("FASTSEG_PACKS", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert search_path()[0] == tmp_path / ".local/share/fastseg/packs"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert search_path()[0] == tmp_path / "Library/Application Support/fastseg/packs"


def test_a_user_without_a_home_still_has_the_built_in_pack(monkeypatch):
    monkeypatch.delenv("FASTSEG_PACKS", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError))
    assert find_pack("default").name == "default"


def test_a_pack_is_found_by_its_folder_absolute_or_relative(tmp_path, packs, monkeypatch):
    make_pack(tmp_path / "elsewhere" / "mine")
    monkeypatch.chdir(tmp_path / "elsewhere")
    for wanted in (tmp_path / "elsewhere" / "mine", "mine", "./mine", "../elsewhere/mine/"):
        pack = find_pack(wanted)
        assert pack.name == "mine"
        assert pack.networks[0].path.is_absolute()


def test_a_name_beats_a_folder_of_the_same_name(tmp_path, packs, monkeypatch):
    make_pack(packs / "mine")
    make_pack(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    assert find_pack("mine").folder == packs / "mine"
    assert find_pack("./mine").folder == tmp_path / "mine"


@pytest.mark.parametrize(
    "wanted", ["nobody", "", "no/such/folder", "/", "~/nothing", "~nobody/x", "..", "a\0b"]
)
def test_an_unknown_pack_is_told_with_the_known_ones(packs, wanted):
    with pytest.raises(NetworkError) as caught:
        find_pack(wanted)
    assert "default" in one_line(caught) or "pack.toml" in one_line(caught)


def test_fastseg_packs_that_is_a_pack_itself_is_pointed_out(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTSEG_PACKS", str(make_pack(tmp_path / "mine")))
    with pytest.raises(NetworkError, match="set its parent"):
        find_pack("mine-too")


def test_a_missing_network_is_told_with_what_the_pack_has(tmp_path):
    pack = load_pack(make_pack(tmp_path / "mine"))
    with pytest.raises(NetworkError) as caught:
        pack.network(Role.SEGMENT_3D, "t2")
    message = one_line(caught)
    assert "segment_3d network for contrast t2" in message
    assert "segment_2d for t2; svm for t1" in message
    assert "--models" in message
    with pytest.raises(NetworkError, match="no SVM for contrast t2"):
        pack.svm("t2")
    assert (pack.has(Role.SEGMENT_2D, "t2"), pack.has(Role.SEGMENT_2D, "t1")) == (True, False)
    assert (pack.has_svm("t1"), pack.has_svm("t2")) == (True, False)


@pytest.mark.parametrize(
    ("centerline", "svm", "expected"),
    [
        (None, True, ("svm", "cnn")),
        ("svm", True, ("svm", "cnn")),
        ("cnn", True, ("cnn", "svm")),
        (None, False, ("cnn",)),
        ("svm", False, ("cnn",)),
        ("cnn", False, ("cnn",)),
    ],
)
def test_a_pack_says_which_of_its_detectors_comes_first_else_the_svm_does(
    tmp_path, centerline, svm, expected
):
    folder = own_pack(tmp_path / "own", svm=svm, centerline=centerline or "svm")
    toml = folder / "pack.toml"
    if centerline is None:
        toml.write_text(toml.read_text().replace('centerline = "svm"\n', ""))
        assert "centerline" not in toml.read_text()
    pack = load_pack(folder)
    assert pack.detectors("t2") == pack.detectors("auto") == expected
    assert pack.detectors("t1") == ()


def test_a_pack_serves_a_contrast_that_is_not_given_only_if_it_says_so(tmp_path):
    pack = load_pack(own_pack(tmp_path / "own"))
    assert pack.network(Role.SEGMENT_2D, "auto").thresholds["auto"] == 0.61
    assert pack.svm("auto").path.name == "auto_svm.npy"
    pack = load_pack(make_pack(tmp_path / "mine"))
    with pytest.raises(NetworkError) as caught:
        pack.network(Role.SEGMENT_2D, "auto")
    assert "'mine' needs to know the contrast for its segment_2d network" in one_line(caught)
    assert "give it with -c, one of t2, or choose another pack" in one_line(caught)
    with pytest.raises(NetworkError, match="contrast for its SVM: give it with -c, one of t1"):
        pack.svm("auto")
    with pytest.raises(
        NetworkError, match="no segment_3d network for any contrast; it has segment_2d for t2"
    ):
        pack.network(Role.SEGMENT_3D, "auto")


def test_everything_that_a_pack_may_say_is_read_and_written(tmp_path):
    folder = own_pack(tmp_path / "own", centerline="cnn")
    toml = folder / "pack.toml"
    facts = """
macs_millions = 36.5
[network.precision.fp16]
max_difference = 0.0012
flipped_per_million = 3
dice = 0.9999
[network.precision.int8]
max_difference = 0.2
flipped_per_million = 1250.5
dice = 0.99
[network.acceptance]
flipped_per_million = 10
dice = 0.9999
[[network.engine]]
name = "openvino fp32"
capability = "avx2"
max_difference = 1e-6
flipped_per_million = 0
dice = 1
speed = 1.25
[[network.engine]]
name = "tensorrt fp16"
capability = "sm_90"
max_difference = 2e-3
flipped_per_million = 11
dice = 0.99995
speed = 100
"""
    head, first, *rest = toml.read_text().split("[[network]]")
    toml.write_text("[[network]]".join([head, first.rstrip() + facts, *rest]))
    pack = load_pack(folder)
    with_facts, without, *_ = pack.networks
    assert with_facts.macs_millions == 36.5
    assert with_facts.precision == {
        "fp16": Precision(0.0012, 3.0, 0.9999),
        "int8": Precision(0.2, 1250.5, 0.99),
    }
    fp32 = EngineRecord("openvino fp32", "avx2", 1e-6, 0.0, 1.0, 1.25)
    fp16 = EngineRecord("tensorrt fp16", "sm_90", 2e-3, 11.0, 0.99995, 100.0)
    assert with_facts.engines == (fp32, fp16)
    assert with_facts.acceptance == Acceptance(10.0, 0.9999)
    assert [with_facts.acceptance.takes(record) for record in with_facts.engines] == [True, False]
    assert (without.macs_millions, without.precision) == (None, {})
    assert (without.acceptance, without.engines) == (None, ())
    assert pack.network(Role.SEGMENT_3D, "t2").spatial == (64, 64, 0)
    assert pack.has(Role.SEGMENT_2D_LIGHT, "auto")
    toml.write_text(pack_toml(pack))
    assert load_pack(folder) == pack
    assert not any(check.problem for check in verify_pack(pack))


def test_a_broken_pack_is_listed_as_its_error_and_hides_nothing(packs):
    make_pack(packs / "good")
    (packs / "bad").mkdir()
    (packs / "bad" / "pack.toml").write_text("no toml")
    (packs / ".half-made").mkdir()
    (packs / ".half-made" / "pack.toml").write_text("no toml")
    bad, good, _ = list_packs()
    assert isinstance(bad, NetworkError)
    assert isinstance(good, Pack)
    with pytest.raises(NetworkError, match="bad"):
        find_pack("bad")


def test_a_pack_that_is_reached_twice_is_listed_once(tmp_path, packs, monkeypatch):
    make_pack(packs / "mine")
    (tmp_path / "link").symlink_to(packs)
    monkeypatch.setenv("FASTSEG_PACKS", f"{packs}{os.pathsep}{tmp_path / 'link'}")
    assert len(list_packs()) == 2


def test_a_linked_file_counts_when_its_digest_is_right(tmp_path):
    """Nix, uv and DataLad install files as links; what they lead to is checked all the same."""
    folder = make_pack(tmp_path / "mine")
    shutil.move(folder / "net.onnx", tmp_path / "net.onnx")
    (folder / "net.onnx").symlink_to(tmp_path / "net.onnx")
    load_pack(folder).network(Role.SEGMENT_2D, "t2")
    (tmp_path / "net.onnx").write_bytes(b"other")
    with pytest.raises(NetworkError, match="sha256"):
        load_pack(folder).network(Role.SEGMENT_2D, "t2")


def test_the_svm_is_read_exactly(tmp_path):
    pack = load_pack(make_pack(tmp_path / "mine"))
    values = read_svm(pack.svm("t1"))
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, svm_values())


def test_a_packs_digest_depends_on_its_files_only(tmp_path):
    one = load_pack(make_pack(tmp_path / "one"))
    two = load_pack(make_pack(tmp_path / "two", head=HEAD.replace("made", "written")))
    assert pack_digest(one) == pack_digest(two)
    other = make_pack(tmp_path / "other", network={"sha256": f'"{"0" * 64}"'})
    assert pack_digest(load_pack(other)) != pack_digest(one)


def test_the_built_in_pack_toml_is_what_the_writer_would_write(packs):
    pack = find_pack("default")
    text = (pack.folder / "pack.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text) == tomllib.loads(pack_toml(pack))
