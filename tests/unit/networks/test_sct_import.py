"""SCT's files become a pack: any subset of them, whole or not at all."""

import os
import shutil
import sys
import threading

import numpy as np
import pytest

from fastseg.errors import NetworkError
from fastseg.networks import sct, store
from fastseg.networks.network import CONTRASTS, Role
from fastseg.networks.packs import find_pack, load_pack, read_svm, verify_pack
from fastseg.networks.sct import git_blob_id, import_sct
from tests.reference.keras_numpy import KerasFile
from tests.unit.networks.stand_ins import onnx_file, sct_folder, svm_values, yaml_file


def keras_file(path, shape=(64, 64, 1), *, channels_first=False):
    net = KerasFile(shape, channels_first=channels_first)
    net.activation(net.conv("input_1", 1), "sigmoid")
    return net.write(path)


def leftovers(packs):
    return sorted(path.name for path in packs.iterdir() if path.name.startswith("."))


def test_a_whole_sct_folder_becomes_a_pack_with_scts_constants(tmp_path, packs):
    report = import_sct(sct_folder(tmp_path / "data"), "sct")
    assert report.stored
    assert not report.missing
    assert not report.refused
    assert len(report.imported) == 15
    pack = find_pack("sct")
    assert pack == report.pack
    assert pack.folder == packs / "sct"
    thresholds = {"t1": 0.15, "t2": 0.7, "t2s": 0.89, "dwi": 0.01}
    for contrast in CONTRASTS:
        network = pack.network(Role.SEGMENT_2D, contrast)
        assert (network.spatial, network.channels_last) == ((64, 64), True)
        assert (network.mean, network.std) == (0.0, 1.0)
        assert network.thresholds == {contrast: thresholds[contrast]}
        detector = pack.network(Role.DETECT_BLOCKS, contrast)
        assert (detector.spatial, detector.channels_last) == ((80, 80), True)
        assert detector.thresholds == {contrast: 0.5}
        assert pack.has_svm(contrast)
    assert (detector.mean, detector.std) == (55.744, 45.003)
    blocks = pack.network(Role.SEGMENT_3D, "t2s")
    assert (blocks.spatial, blocks.channels_last) == ((96, 96, 48), False)
    assert (blocks.mean, blocks.std, blocks.thresholds) == (87.0212, 64.425, {"t2s": 0.89})
    assert not pack.has(Role.SEGMENT_3D, "dwi")
    assert not any(check.problem for check in verify_pack(pack))
    assert leftovers(packs) == []


def test_the_models_folder_the_optic_folder_and_a_flat_folder_will_do(tmp_path, packs):
    data = sct_folder(tmp_path / "data")
    assert len(import_sct(data / "deepseg_sc_models", "networks").imported) == 11
    assert len(import_sct(data / "optic_models", "svm").imported) == 4
    flat = tmp_path / "flat"
    shutil.copytree(data / "deepseg_sc_models", flat)
    shutil.copytree(data / "optic_models", flat, dirs_exist_ok=True)
    assert len(import_sct(flat, "flat").imported) == 15


def test_one_file_is_a_pack_and_the_rest_is_named_as_missing(tmp_path, packs):
    (tmp_path / "t2_sc.onnx").write_bytes(onnx_file((64, 64, 1)))
    report = import_sct(tmp_path, "one")
    assert [item.target for item in report.imported] == ["t2_sc.onnx"]
    assert len(report.missing) == 14
    assert "t1_sc" in report.missing
    assert "t1_model" in report.missing
    assert "dwi_sc_3D" not in report.missing


def test_unknown_names_are_told_and_ignored(tmp_path, packs):
    data = sct_folder(tmp_path / "data", networks=False)
    models = data / "deepseg_sc_models"
    models.mkdir()
    unknown = (
        "dataset.pkl",
        "t2_seg.h5",
        "dwi_sc_3D.onnx",
        "t2_sc.pt",
        "t2_model.h5",
        "T2_sc.onnx",
        ".hidden",
    )
    for name in unknown:
        (models / name).write_bytes(b"never read")
    report = import_sct(data, "svm")
    assert {path.name for path in report.unknown} == set(unknown)
    assert len(report.imported) == 4


def test_onnx_beats_h5_and_needs_no_h5py(tmp_path, packs, monkeypatch):
    (tmp_path / "t2_sc.onnx").write_bytes(onnx_file((64, 64, 1)))
    (tmp_path / "t2_sc.h5").write_bytes(b"not even HDF5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    report = import_sct(tmp_path, "sct")
    assert [item.source.name for item in report.imported] == ["t2_sc.onnx"]
    assert report.superseded == ((tmp_path / "t2_sc.h5", "t2_sc.onnx is used instead"),)


def test_h5py_is_asked_for_when_an_h5_is_the_sole_source(tmp_path, packs, monkeypatch):
    (tmp_path / "t2_sc.onnx").write_bytes(onnx_file((64, 64, 1)))
    keras_file(tmp_path / "t1_sc.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(NetworkError, match=r"fastseg\[import\]"):
        import_sct(tmp_path, "sct")
    assert not (packs / "sct").exists()


def test_keras_and_onnx_files_go_into_one_pack(tmp_path, packs):
    (tmp_path / "t2_sc.onnx").write_bytes(onnx_file((64, 64, 1)))
    keras_file(tmp_path / "t1_sc.h5")
    keras_file(tmp_path / "t1_sc_3D.h5", (1, 64, 64, 48), channels_first=True)
    pack = import_sct(tmp_path, "mixed").pack
    assert pack.network(Role.SEGMENT_2D, "t2").channels_last
    converted = pack.network(Role.SEGMENT_2D, "t1")
    assert not converted.channels_last
    assert converted.thresholds == {"t1": 0.15}
    assert pack.network(Role.SEGMENT_3D, "t1").spatial == (64, 64, 48)
    assert "converted" in pack.origins["t1_sc.onnx"].source
    assert not any(check.problem for check in verify_pack(pack))


def test_a_channels_first_onnx_file_is_taken_as_what_it_is(tmp_path, packs):
    (tmp_path / "t2_sc.onnx").write_bytes(onnx_file((1, 64, 64)))
    (tmp_path / "t1_sc.onnx").write_bytes(onnx_file(("h", "w", "c")))
    pack = import_sct(tmp_path, "sct").pack
    assert not pack.network(Role.SEGMENT_2D, "t2").channels_last
    assert pack.network(Role.SEGMENT_2D, "t1").channels_last


def test_what_could_be_verified_by_git_is_told(tmp_path, packs, monkeypatch):
    original = yaml_file(svm_values())
    (tmp_path / "t1_model.yml").write_bytes(original)
    (tmp_path / "t2_model.yml").write_bytes(original)
    (tmp_path / "t2_sc.onnx").write_bytes(onnx_file((64, 64, 1)))
    monkeypatch.setitem(sct._BLOB_IDS, "t1_model.yml", git_blob_id(original))
    report = import_sct(tmp_path, "sct")
    assert {item.source.name: item.identity for item in report.imported} == {
        "t2_sc.onnx": "not verified: no id of SCT's file is known",
        "t1_model.yml": "identical to SCT's original",
        "t2_model.yml": "not a known original",
    }
    licences = {name: origin.licence for name, origin in report.pack.origins.items()}
    assert licences == {
        "t2_sc.onnx": "not stated upstream",
        "t1_svm.npy": "LGPL-3.0 (SCT)",
        "t2_svm.npy": "not known",
    }
    card = report.pack.card.read_text()
    assert git_blob_id(original) in card
    assert "not a medical device" in card


def test_the_same_content_again_succeeds_and_changes_nothing(tmp_path, packs):
    data = sct_folder(tmp_path / "data", networks=False)
    first = import_sct(data, "sct")
    before = (packs / "sct" / "pack.toml").stat().st_mtime_ns
    again = import_sct(data / "optic_models", "sct")
    assert (first.stored, again.stored) == (True, False)
    assert again.pack == first.pack
    assert (packs / "sct" / "pack.toml").stat().st_mtime_ns == before
    assert leftovers(packs) == []


def test_other_content_under_the_same_name_needs_force(tmp_path, packs):
    data = sct_folder(tmp_path / "data", networks=False)
    import_sct(data, "sct")
    (data / "optic_models" / "t1_model.yml").write_bytes(yaml_file(svm_values(99)))
    with pytest.raises(NetworkError, match="--force"):
        import_sct(data, "sct")
    np.testing.assert_array_equal(read_svm(find_pack("sct").svm("t1")), svm_values(0))
    assert import_sct(data, "sct", force=True).stored
    np.testing.assert_array_equal(read_svm(find_pack("sct").svm("t1")), svm_values(99))
    assert leftovers(packs) == []


def test_a_pack_that_prefers_another_detector_is_not_the_same(tmp_path, packs):
    data = sct_folder(tmp_path / "sct")
    toml = import_sct(data, "sct").pack.folder / "pack.toml"
    assert 'centerline = "svm"\n' in toml.read_text()
    toml.write_text(toml.read_text().replace('centerline = "svm"\n', ""))  # as imports once wrote it
    assert not import_sct(data, "sct").stored
    toml.write_text('centerline = "cnn"\n' + toml.read_text())
    with pytest.raises(NetworkError, match="--force"):
        import_sct(data, "sct")


def test_a_damaged_pack_is_not_the_same_content(tmp_path, packs):
    data = sct_folder(tmp_path / "data", networks=False)
    import_sct(data, "sct")
    (packs / "sct" / "t1_svm.npy").write_bytes(b"damaged")
    with pytest.raises(NetworkError, match="--force"):
        import_sct(data, "sct")
    import_sct(data, "sct", force=True)
    find_pack("sct").svm("t1")


def test_force_never_replaces_what_is_no_pack(tmp_path, packs):
    data = sct_folder(tmp_path / "data", networks=False)
    (packs / "precious").mkdir(parents=True)
    (packs / "precious" / "thesis.txt").write_text("years of work")
    (packs / "file").write_text("a file")
    for name in ("precious", "file"):
        with pytest.raises(NetworkError, match="no pack"):
            import_sct(data, name, force=True)
    assert (packs / "precious" / "thesis.txt").read_text() == "years of work"
    (packs / "empty").mkdir()
    assert import_sct(data, "empty").stored


def test_a_linked_pack_is_replaced_without_touching_what_it_leads_to(tmp_path, packs):
    data = sct_folder(tmp_path / "data", networks=False)
    import_sct(data, "sct")
    elsewhere = tmp_path / "elsewhere"
    (packs / "sct").rename(elsewhere)
    (packs / "sct").symlink_to(elsewhere)
    before = sorted(path.name for path in elsewhere.iterdir())
    assert not import_sct(data, "sct").stored
    (data / "optic_models" / "t1_model.yml").unlink()
    assert import_sct(data, "sct", force=True).stored
    assert not (packs / "sct").is_symlink()
    assert sorted(path.name for path in elsewhere.iterdir()) == before


def test_linked_sources_are_copied(tmp_path, packs):
    real = tmp_path / "real.yml"
    real.write_bytes(yaml_file(svm_values()))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "t1_model.yml").symlink_to(real)
    (tmp_path / "data" / "t2_model.yml").symlink_to(tmp_path / "gone")
    pack = import_sct(tmp_path / "data", "sct").pack
    assert pack.has_svm("t1")
    assert not pack.has_svm("t2")
    assert not (packs / "sct" / "t1_svm.npy").is_symlink()


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "/abs", "a\\b", "a b", "a\n", "é", "x" * 101]
)
def test_a_name_that_is_no_name_is_refused(tmp_path, packs, name):
    with pytest.raises(NetworkError, match="name of a pack"):
        import_sct(sct_folder(tmp_path / "data", networks=False), name)
    assert not packs.exists()


def test_the_folder_of_packs_is_made_and_open_to_whoever_the_umask_lets_in(tmp_path, packs):
    before = os.umask(0o022)
    try:
        import_sct(sct_folder(tmp_path / "data", networks=False), "sct")
    finally:
        os.umask(before)
    assert (packs / "sct").stat().st_mode & 0o777 == 0o755
    assert (packs / "sct" / "t1_svm.npy").stat().st_mode & 0o777 == 0o644


def test_without_fastseg_packs_the_users_folder_is_written(tmp_path, packs, monkeypatch):
    monkeypatch.delenv("FASTSEG_PACKS")
    report = import_sct(sct_folder(tmp_path / "sct", networks=False), "sct")
    assert report.pack.folder == tmp_path / "data" / "fastseg" / "packs" / "sct"


def test_a_user_without_any_folder_is_told_what_to_set(tmp_path, monkeypatch):
    monkeypatch.delenv("FASTSEG_PACKS", raising=False)
    monkeypatch.setattr(store, "user_folder", lambda: None)
    monkeypatch.setattr(store, "search_path", lambda: (tmp_path,))
    with pytest.raises(NetworkError, match="set FASTSEG_PACKS"):
        import_sct(sct_folder(tmp_path / "data", networks=False), "sct")


def test_a_target_that_cannot_be_written_is_one_clear_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FASTSEG_PACKS", str(tmp_path / "file" / "packs"))
    with pytest.raises(NetworkError, match="cannot be written") as caught:
        import_sct(sct_folder(tmp_path / "data", networks=False), "sct")
    assert "FASTSEG_PACKS" in str(caught.value)


def test_a_read_only_target_is_one_clear_line(tmp_path, packs):
    packs.mkdir()
    packs.chmod(0o500)
    if os.access(packs, os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(NetworkError, match="cannot be written"):
        import_sct(sct_folder(tmp_path / "data", networks=False), "sct")


def test_a_full_disk_leaves_nothing_behind(tmp_path, packs, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NetworkError, match="No space left"):
        import_sct(sct_folder(tmp_path / "data", networks=False), "sct")
    assert list(packs.iterdir()) == []


def test_a_failed_replacement_keeps_the_old_pack(tmp_path, packs, monkeypatch):
    data = sct_folder(tmp_path / "data", networks=False)
    import_sct(data, "sct")
    (data / "optic_models" / "t1_model.yml").unlink()
    rename = type(packs).rename

    def failing(path, target):
        if path.name == "sct" and path.parent.name.startswith("."):
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(type(packs), "rename", failing)
    with pytest.raises(NetworkError, match="Input/output"):
        import_sct(data, "sct", force=True)
    assert find_pack("sct").has_svm("t1")
    assert leftovers(packs) == []


def test_two_imports_at_once_leave_one_whole_pack(tmp_path, packs):
    folders = [sct_folder(tmp_path / str(i), networks=False) for i in range(4)]
    for i, folder in enumerate(folders[1:]):
        (folder / "optic_models" / "t1_model.yml").write_bytes(yaml_file(svm_values(50 + i)))
    errors = []

    def work(folder):
        try:
            for _ in range(3):
                import_sct(folder, "sct", force=True)
        except Exception as error:  # whatever it is, the test tells it
            errors.append(error)

    threads = [threading.Thread(target=work, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert not any(check.problem for check in verify_pack(find_pack("sct")))
    assert leftovers(packs) == []


def test_the_same_import_twice_at_once_succeeds_both_times(tmp_path, packs, monkeypatch):
    data = sct_folder(tmp_path / "data", networks=False)
    import_sct(data, "sct")
    (packs / "sct").rename(tmp_path / "other")
    lexists, first = os.path.lexists, []

    def late(path):
        # Somebody who knows of no lock puts the pack there between the look and the rename.
        if not first and not lexists(path):
            first.append(True)
            shutil.copytree(tmp_path / "other", packs / "sct")
            return False
        return lexists(path)

    monkeypatch.setattr(os.path, "lexists", late)
    assert not import_sct(data, "sct").stored
    assert load_pack(packs / "sct").has_svm("t1")


def test_nothing_recognised_says_what_is_looked_for(tmp_path, packs):
    (tmp_path / "README.txt").write_text("hello")
    with pytest.raises(NetworkError) as caught:
        import_sct(tmp_path, "sct")
    message = str(caught.value)
    for word in ("deepseg_sc_models", "optic_models", "_model.yml", "onnx", "h5"):
        assert word in message
    with pytest.raises(NetworkError, match="not a folder"):
        import_sct(tmp_path / "README.txt", "sct")
    assert not packs.exists()


def test_the_same_name_twice_is_taken_once_when_equal_and_refused_when_not(tmp_path, packs):
    data = sct_folder(tmp_path / "data", networks=False)
    shutil.copy(data / "optic_models" / "t1_model.yml", data / "t1_model.yml")
    report = import_sct(data, "sct")
    assert len(report.imported) == 4
    assert any("the same as" in why for _, why in report.superseded)
    (data / "t1_model.yml").write_bytes(yaml_file(svm_values(9)))
    with pytest.raises(NetworkError, match="differ"):
        import_sct(data, "other")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("t2_sc.onnx", onnx_file((64, 64, 1))[:-30], "onnxruntime cannot load"),
        ("t2_sc.onnx", b"", "onnxruntime cannot load"),
        ("t2_sc.onnx", onnx_file((80, 80, 1)), r"input is \(any, 80, 80, 1\)"),
        ("t2_sc_3D.onnx", onnx_file((1, 96, 96, 48)), "input is"),
        ("t2_sc.h5", b"not HDF5", "not a readable HDF5"),
        ("t2_model.yml", b"%YAML:1.0\nHOG: 3\n", "SVMDetector"),
    ],
)
def test_a_damaged_file_is_left_out_and_named_and_alone_is_an_error(tmp_path, packs, name, content, problem):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(NetworkError, match=problem) as caught:
        import_sct(tmp_path, "sct")
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    (tmp_path / "t1_model.yml").write_bytes(yaml_file(svm_values()))
    report = import_sct(tmp_path, "sct")
    ((path, why),) = report.refused
    assert path.name == name
    assert [item.target for item in report.imported] == ["t1_svm.npy"]
    assert "\n" not in why


def test_a_network_with_weights_in_other_files_is_refused(tmp_path, packs, monkeypatch):
    import onnx

    model = onnx.load_from_string(onnx_file((64, 64, 1)))
    (factor,) = model.graph.initializer
    (tmp_path / "secret.bin").write_bytes(np.float32(3).tobytes())
    onnx.external_data_helper.set_external_data(factor, "secret.bin")
    factor.ClearField("raw_data")
    factor.data_location = onnx.TensorProto.EXTERNAL
    (tmp_path / "t2_sc.onnx").write_bytes(model.SerializeToString())
    for place in (tmp_path, tmp_path.parent):
        monkeypatch.chdir(place)
        with pytest.raises(NetworkError, match=r"t2_sc\.onnx"):
            import_sct(tmp_path, "sct")


def test_a_file_far_too_large_is_refused_unread(tmp_path, packs, monkeypatch):
    monkeypatch.setattr(sct, "_MAX_BYTES", 100)
    (tmp_path / "t2_sc.onnx").write_bytes(onnx_file((64, 64, 1)))
    with pytest.raises(NetworkError, match="far larger"):
        import_sct(tmp_path, "sct")


def test_the_blob_id_is_gits():
    assert git_blob_id(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"
