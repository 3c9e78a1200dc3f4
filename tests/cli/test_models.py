"""fastseg models list, info, verify and import: what they print and how they exit."""

import json
import shutil
import sys

import pytest

from fastseg.cli import main
from fastseg.networks.packs import find_pack
from tests.unit.networks.stand_ins import onnx_file, own_pack, sct_folder, svm_values, yaml_file


@pytest.fixture
def packs(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTSEG_PACKS", str(tmp_path / "packs"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "packs"


@pytest.fixture
def models(packs, capsys):
    """Run `fastseg models ...`; gives exit code, stdout and stderr."""

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main(["models", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return caught.value.code, out, err

    return run


def test_list_shows_the_built_in_pack(models):
    code, out, err = models("list")
    assert (code, err) == (0, "")
    assert out.startswith("default  ")
    assert "segment_2d" in out
    assert "t1 t2 t2s dwi" in out


def test_list_as_json_can_be_read_by_programs(models, tmp_path):
    models("import", "--sct", sct_folder(tmp_path / "sct", networks=False), "--name", "sct")
    code, out, _ = models("list", "--json")
    first, second = json.loads(out)
    assert code == 0
    assert (first["name"], first["hidden"], first["contrasts"]) == (
        "sct",
        False,
        {"svm": ["t1", "t2", "t2s", "dwi"]},
    )
    assert second["name"] == "default"
    assert len(second["digest"]) == 64


def test_list_shows_hidden_and_broken_packs_as_such(models, packs):
    shutil.copytree(find_pack("default").folder, packs / "default")
    (packs / "bad").mkdir()
    (packs / "bad" / "pack.toml").write_text("no toml")
    code, out, _ = models("list")
    assert code == 0
    assert "(broken)" in out
    assert "hidden by the pack of the same name" in out
    broken, shown, hidden = json.loads(models("list", "--json")[1])
    assert "not valid TOML" in broken["error"]
    assert (shown["hidden"], hidden["hidden"]) == (False, True)


def test_info_tells_all_there_is_to_know(models, tmp_path):
    models("import", "--sct", sct_folder(tmp_path / "sct"), "--name", "sct")
    code, out, err = models("info", "sct")
    assert (code, err) == (0, "")
    for fact in ("t2s_sc_3D.onnx", "96 96 48", "64.425", "t2s 0.89", "t1_svm.npy", "not stated upstream"):
        assert fact in out
    facts = json.loads(models("info", "sct", "--json")[1])
    (network,) = [n for n in facts["networks"] if n["file"] == "t2_sc.onnx"]
    assert (network["role"], network["thresholds"], network["channels_last"]) == (
        "segment_2d",
        {"t2": 0.7},
        True,
    )
    assert len(facts["svm_models"]) == 4
    assert facts["card"].endswith("MODEL_CARD.md")


def test_info_shows_what_other_precisions_lose_and_what_a_network_costs(models, tmp_path):
    toml = own_pack(tmp_path / "own", centerline="cnn") / "pack.toml"
    facts = (
        "macs_millions = 36.5\n"
        "precision.fp16 = { max_difference = 0.0012, flipped_per_million = 3.4, dice = 0.9999 }\n"
    )
    toml.write_text(toml.read_text().replace("[[network]]\n", f"[[network]]\n{facts}", 1))
    code, out, err = models("info", tmp_path / "own")
    assert (code, err) == (0, "")
    assert "centerline  cnn\n" in out
    assert out.count("    macs_millions  36.5\n") == 1
    assert out.count("    fp16           max_difference 0.0012, flipped_per_million 3.4, dice 0.9999\n") == 1
    assert "segment_2d_light" in out
    first, second, *_ = json.loads(models("info", tmp_path / "own", "--json")[1])["networks"]
    assert first["precision"]["fp16"] == {
        "max_difference": 0.0012,
        "flipped_per_million": 3.4,
        "dice": 0.9999,
    }
    assert (second["precision"], second["macs_millions"]) == ({}, None)


def test_list_shows_what_needs_no_contrast(models, packs):
    own_pack(packs / "own")
    code, out, _ = models("list")
    assert code == 0
    for line in ("detect_slices     t2 auto", "segment_2d_light  t2 auto", "svm               t2 auto"):
        assert f"    {line}\n" in out


def test_info_takes_a_folder(models):
    code, out, _ = models("info", find_pack("default").folder)
    assert code == 0
    assert "any any" in out


def test_an_unknown_pack_is_a_usage_error_on_one_line(models):
    code, out, err = models("info", "nobody")
    assert (code, out) == (2, "")
    assert err.startswith("fastseg: error: no pack")
    assert err.count("\n") == 1


def test_verify_checks_all_packs_or_those_named(models, tmp_path):
    models("import", "--sct", sct_folder(tmp_path / "sct"), "--name", "sct")
    code, out, _ = models("verify")
    assert code == 0
    assert out.count(" ok\n") == 15 + len(find_pack("default").items)
    code, out, _ = models("verify", "default")
    assert (code, out.count(" ok\n")) == (0, len(find_pack("default").items))


def test_verify_fails_with_1_and_prints_its_table_when_something_is_wrong(models, packs, tmp_path):
    models("import", "--sct", sct_folder(tmp_path / "sct", networks=False), "--name", "sct")
    (packs / "sct" / "t2_svm.npy").write_bytes(b"damaged")
    code, out, _ = models("verify", "sct")
    assert code == 1
    assert out.count(" ok\n") == 3
    assert "sha256" in out
    (packs / "sct" / "pack.toml").write_text("no toml")
    code, out, _ = models("verify")
    assert code == 1
    assert "(broken)" in out
    assert out.count(" ok\n") == len(find_pack("default").items)


def test_import_says_what_it_took_left_out_and_missed(models, packs, tmp_path):
    (tmp_path / "t2_model.yml").write_bytes(yaml_file(svm_values()))
    (tmp_path / "t2_sc.onnx").write_bytes(onnx_file((64, 64, 1)))
    (tmp_path / "t2_sc.h5").write_bytes(b"")
    (tmp_path / "t1_sc.onnx").write_bytes(b"broken")
    (tmp_path / "dataset.pkl").write_bytes(b"")
    code, out, err = models("import", "--sct", tmp_path, "--name", "mine")
    assert code == 0
    assert "t2_model.yml    -> t2_svm.npy      not a known original" in out
    assert "ignored: t2_sc.h5 (t2_sc.onnx is used instead)" in out
    assert "ignored, not known: dataset.pkl" in out
    assert "not there: t1_ctr" in out
    assert f"mine: stored in {packs / 'mine'}" in out
    assert "--models mine" in out
    assert "t1_sc.onnx was left out" in err


def test_import_twice_is_fine_and_other_content_needs_force(models, tmp_path):
    data = sct_folder(tmp_path / "sct", networks=False)
    arguments = ("import", "--sct", data, "--name", "sct")
    assert models(*arguments)[0] == 0
    code, out, _ = models(*arguments)
    assert code == 0
    assert "the same pack was there already" in out
    (data / "optic_models" / "t1_model.yml").unlink()
    code, out, err = models(*arguments)
    assert (code, out) == (2, "")
    assert "--force" in err
    assert models(*arguments, "--force")[0] == 0


@pytest.mark.parametrize("name", ["../up", ".hidden", "a/b"])
def test_import_refuses_what_is_no_name(models, tmp_path, name):
    code, _, err = models("import", "--sct", sct_folder(tmp_path / "sct"), "--name", name)
    assert code == 2
    assert "cannot be the name" in err


def test_import_of_nothing_names_what_it_looks_for(models, tmp_path):
    for folder in (tmp_path, tmp_path / "gone"):
        code, out, err = models("import", "--sct", folder, "--name", "sct")
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
    code, _, err = models("import", "--sct", tmp_path, "--name", "sct")
    assert "_model.yml" in err


def test_import_of_keras_files_asks_for_the_extra(models, tmp_path, monkeypatch):
    (tmp_path / "t2_ctr.h5").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "h5py", None)
    code, _, err = models("import", "--sct", tmp_path, "--name", "sct")
    assert code == 2
    assert 'pip install "fastseg[import]"' in err


def test_import_needs_a_folder_and_a_name(models, tmp_path):
    assert models("import", "--name", "x")[0] == 2
    assert models("import", "--sct", tmp_path)[0] == 2


def test_help_loads_nothing_heavy():
    import subprocess

    code = (
        "import sys; from fastseg.cli import main\n"
        "try: main(['models', '--help'])\n"
        "finally: print(sorted({'numpy', 'onnxruntime', 'onnx', 'h5py'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
