"""What is wrong with a pack is told with file, place and remedy, and nothing of it is used."""

import os
import pickle

import numpy as np
import pytest

from fastseg.errors import NetworkError
from fastseg.networks.network import Role
from fastseg.networks.packs import load_pack, read_svm, verify_pack
from tests.unit.networks.stand_ins import HEAD, make_pack, one_line, onnx_file, sha256, svm_values


def test_a_changed_file_is_refused_when_it_is_looked_up(tmp_path):
    folder = make_pack(tmp_path / "mine")
    with (folder / "net.onnx").open("ab") as file:
        file.write(b"\0")
    pack = load_pack(folder)
    with pytest.raises(NetworkError, match="sha256") as caught:
        pack.network(Role.SEGMENT_2D, "t2")
    assert str(folder / "net.onnx") in one_line(caught)
    network, svm = verify_pack(pack)
    assert "sha256" in network.problem
    assert not svm.problem


def test_a_file_that_went_away_is_refused_when_it_is_looked_up(tmp_path):
    folder = make_pack(tmp_path / "mine")
    pack = load_pack(folder)
    (folder / "svm.npy").unlink()
    with pytest.raises(NetworkError, match=r"svm\.npy"):
        pack.svm("t1")
    with pytest.raises(NetworkError, match="missing"):
        load_pack(folder)


_NUMBERS = "max_difference = 0, flipped_per_million = 0, dice = 1"


@pytest.mark.parametrize(
    ("network", "problem"),
    [
        ({"file": '"../net.onnx"'}, "own folder"),
        ({"file": '"/etc/passwd"'}, "own folder"),
        ({"file": '"sub/net.onnx"'}, "own folder"),
        ({"file": "'..\\net.onnx'"}, "own folder"),
        ({"file": '".."'}, "own folder"),
        ({"file": '""'}, "own folder"),
        ({"file": "7"}, "'file' is not a text"),
        ({"file": '"gone.onnx"'}, "missing"),
        ({"file": None}, "'file' is missing"),
        ({"sha256": None}, "'sha256' is missing"),
        ({"sha256": '"abc"'}, "64 hexadecimal"),
        ({"sha256": f'"{"A" * 64}"'}, "64 hexadecimal"),
        ({"role": '"segment"'}, "not one of"),
        ({"contrasts": "[]"}, "list of contrasts"),
        ({"contrasts": '["ct"]'}, "list of contrasts"),
        ({"contrasts": '[["t2"]]'}, "list of contrasts"),
        ({"contrasts": '"t2"'}, "list of contrasts"),
        ({"spatial": "[64]"}, "do not go together"),
        ({"spatial": "[64, 64, 48]"}, "do not go together"),
        ({"role": '"segment_3d"'}, "do not go together"),
        ({"spatial": "[64, -1]"}, "list of sizes"),
        ({"spatial": "[64, true]"}, "list of sizes"),
        ({"spatial": "64"}, "list of sizes"),
        ({"layout": '"WHAT"'}, "not one of"),
        ({"layout": '"NCDHW"'}, "do not go together"),
        ({"mean": "nan"}, "finite"),
        ({"mean": "true"}, "not a number"),
        ({"std": "0.0"}, "positive"),
        ({"std": "inf"}, "finite"),
        ({"std": f"1{'0' * 400}"}, "finite"),
        ({"std": None}, "'std' is missing"),
        ({"spatial": "[0, 64]"}, "square crop"),
        ({"spatial": "[64, 48]"}, "square crop"),
        ({"role": '"segment_2d_light"', "spatial": "[0, 0]"}, "square crop"),
        ({"role": '"segment_3d"', "layout": '"NDHWC"', "spatial": "[0, 0, 0]"}, "square crop"),
        ({"contrasts": '["t2", "auto"]'}, "every contrast"),
        ({"macs_millions": "0"}, "'macs_millions' is not positive"),
        ({"macs_millions": '"few"'}, "'macs_millions' is not a number"),
        ({"precision": "3"}, "not a table of tables"),
        ({"precision": "{ fp16 = 0.1 }"}, "not a table of tables"),
        ({"precision": "{ fp8 = {} }"}, "'fp8', which is not one of tf32, fp16, bf16, int8"),
        ({"precision": "{ fp16 = { max_difference = 0.1, dice = 1 } }"}, "precision.fp16: 'flipped_per_mill"),
        ({"precision": "{ bf16 = { max_difference = -1, flipped_per_million = 1, dice = 1 } }"}, "range"),
        ({"precision": "{ bf16 = { max_difference = 1, flipped_per_million = 2e6, dice = 1 } }"}, "range"),
        ({"precision": "{ int8 = { max_difference = 1, flipped_per_million = 1, dice = 1.1 } }"}, "range"),
        ({"acceptance": "3"}, "'acceptance' is not a table"),
        ({"acceptance": "{ dice = 1 }"}, "acceptance: 'flipped_per_million' is missing"),
        ({"acceptance": "{ flipped_per_million = 0, dice = 2 }"}, "acceptance: a number is out of range"),
        ({"engine": "{ name = 'x' }"}, "not written as"),
        ({"engine": "[{ name = 'x' }]"}, r"\[\[engine\]\] 1: 'capability' is missing"),
        ({"engine": f"[{{ name = 'x', capability = 'y', {_NUMBERS}, speed = 0 }}]"}, "out of range"),
        ({"engine": f"[{{ name = '', capability = 'y', {_NUMBERS}, speed = 1 }}]"}, "a text is empty"),
        ({"thresholds": "{ t1 = 0.5 }"}, "every contrast"),
        ({"thresholds": "0.5"}, "every contrast"),
        ({"thresholds": "{ t2 = 1.5 }"}, "between 0 and 1"),
        ({"thresholds": '{ t2 = "0.5" }'}, "not a number"),
    ],
)
def test_a_wrong_entry_is_refused_with_file_place_and_remedy(tmp_path, network, problem):
    folder = make_pack(tmp_path / "mine", network=network)
    with pytest.raises(NetworkError, match=problem) as caught:
        load_pack(folder)
    message = one_line(caught)
    assert str(folder) in message
    assert "import the pack again" in message


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("no toml", "not valid TOML"),
        ("a = " + "[" * 5000, "not valid TOML"),
        ("a = " + "1" * 5000, "not valid TOML"),
        ("", "format"),
        ("format = 2", "format"),
        (HEAD, "holds no"),
        (HEAD.replace("licence", "license"), "'licence' is missing"),
        (HEAD + "network = 3", r"\[\[network\]\]"),
        (HEAD + 'centerline = "viewer"', "'centerline' is 'viewer' and not one of svm, cnn"),
        (HEAD + "centerline = true", "'centerline' is not a text"),
        (HEAD + "svm = [1]", r"\[\[svm\]\]"),
        (HEAD + "[network]\nfile = 1", r"\[\[network\]\]"),
    ],
)
def test_a_broken_pack_toml_is_one_clear_line(tmp_path, text, problem):
    (tmp_path / "pack.toml").write_text(text)
    with pytest.raises(NetworkError, match=problem) as caught:
        load_pack(tmp_path)
    assert str(tmp_path / "pack.toml") in one_line(caught)


def test_a_pack_toml_that_is_no_text_is_one_clear_line(tmp_path):
    (tmp_path / "pack.toml").write_bytes(b"\xff\xfe\0")
    with pytest.raises(NetworkError, match="not valid TOML"):
        load_pack(tmp_path)
    (tmp_path / "pack.toml").unlink()
    (tmp_path / "pack.toml").mkdir()
    with pytest.raises(NetworkError, match="cannot be read"):
        load_pack(tmp_path)


def test_two_files_for_the_same_purpose_are_refused(tmp_path):
    folder = make_pack(tmp_path / "mine")
    text = (folder / "pack.toml").read_text()
    entry = text[text.index("[[network]]") : text.index("[[svm]]")]
    (folder / "pack.toml").write_text(text + entry)
    with pytest.raises(NetworkError, match="two files are segment_2d for contrast t2"):
        load_pack(folder)


class Boom:
    def __reduce__(self):
        return (os.abort, ())


def evil_svms():
    values = svm_values()
    return {
        "pickle": lambda f: f.write(pickle.dumps(Boom())),
        "pickled array": lambda f: np.save(f, np.array([Boom()] * 577, object), allow_pickle=True),
        "archive": lambda f: np.savez(f, values),
        "wrong length": lambda f: np.save(f, values[:576]),
        "two axes": lambda f: np.save(f, values[None]),
        "float64": lambda f: np.save(f, values.astype(np.float64)),
        "not finite": lambda f: np.save(f, np.where(np.arange(577) == 5, np.nan, values)),
        "not finite float32": lambda f: np.save(f, np.full(577, np.inf, np.float32)),
        "text": lambda f: f.write(b"1 2 3"),
        "empty": lambda f: None,
        "large": lambda f: np.save(f, np.zeros(100_000, np.float32)),
        "truncated": lambda f: f.write(b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', "),
    }


@pytest.mark.parametrize("kind", evil_svms())
def test_an_svm_that_is_not_577_finite_float32_is_refused_and_never_unpickled(tmp_path, kind):
    folder = make_pack(tmp_path / "mine")
    before = sha256(folder / "svm.npy")
    with (folder / "svm.npy").open("wb") as file:
        evil_svms()[kind](file)
    toml = folder / "pack.toml"
    toml.write_text(toml.read_text().replace(before, sha256(folder / "svm.npy")))
    with pytest.raises(NetworkError, match="577 float32") as caught:
        read_svm(load_pack(folder).svm("t1"))
    assert "import the pack again" in one_line(caught)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"no network", "onnxruntime cannot load"),
        (onnx_file((64, 64, 1))[:-20], "onnxruntime cannot load"),
        (onnx_file((1, 64, 64)), "its input is"),
    ],
)
def test_verify_finds_a_network_that_does_not_load_or_fit(tmp_path, content, problem):
    folder = make_pack(tmp_path / "mine")
    before = sha256(folder / "net.onnx")
    (folder / "net.onnx").write_bytes(content)
    toml = folder / "pack.toml"
    toml.write_text(toml.read_text().replace(before, sha256(folder / "net.onnx")))
    network, _ = verify_pack(load_pack(folder))
    assert problem in network.problem
    assert "\n" not in network.problem
    assert not any(check.problem for check in verify_pack(load_pack(folder), load=False))
