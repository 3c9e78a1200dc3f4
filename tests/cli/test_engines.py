"""fastseg engines build, list, check and prune: what they print and how they exit, without a GPU."""

import functools
import importlib.util
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from fastseg.cli import main
from fastseg.engines.cuda.probe import Probe
from fastseg.engines.tensorrt.engine import TensorRt
from fastseg.engines.tensorrt.plans import PlanCache, PlanKey
from fastseg.engines.tensorrt.vendor import vendor_of
from fastseg.errors import EngineUnavailable
from fastseg.networks.network import Role
from tests.engines.fake_cuda import FakeCuda, gpu
from tests.engines.fake_tensorrt import FakeTensorRt
from tests.unit.networks.stand_ins import own_pack

RECORD = {
    "network": "default/segmenter_2d",
    "device": "NVIDIA H200",
    "precision": "fp16",
    "max_difference": 0.00123,
    "flipped": 3,
    "pixels": 65536,
    "dice": 0.99987,
    "seconds": 12.3,
    "bytes": 2_000_000,
    "driver": "580.65",
    "vendor": "tensorrt",
    "version": "10.16.1.11",
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTSEG_ENGINES", str(tmp_path / "engines"))
    return tmp_path / "engines"


@pytest.fixture
def world(monkeypatch):
    """A machine with two GPUs and TensorRT, both fake."""
    cuda = FakeCuda(gpu(0), gpu(1, name="Fake L40", compute_capability=(8, 9)))
    fake = FakeTensorRt(cuda)
    made = functools.partial(TensorRt, vendor=vendor_of(fake.module), open_device=cuda.open_device)
    monkeypatch.setattr("fastseg.engines.tensorrt.engine.TensorRt", made)
    monkeypatch.setattr("fastseg.engines.cuda.probe.probe", lambda: Probe(cuda.gpus, (13, 0), ""))
    monkeypatch.setattr("fastseg.engines.select.problem_of", _problem_of)
    return fake


def _problem_of(engine, compute=None):
    return "openvino is not installed: pip install it" if engine == "openvino" else ""


@pytest.fixture
def pack(tmp_path):
    """Two small networks."""
    return own_pack(tmp_path / "own", svm=False, roles=(Role.SEGMENT_2D, Role.DETECT_SLICES))


@pytest.fixture
def engines(capsys):
    """Run `fastseg engines ...`; gives exit code, stdout and stderr."""

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main(["engines", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return caught.value.code, out, err

    return run


def keep(number, *, size=2_000_000, age=0.0, **facts):
    """Keep a plan that was used so many days ago."""
    plan = PlanCache().store(PlanKey({"number": number}), bytes(size), RECORD | facts)
    for path in (plan.path, plan.path.with_suffix(".json")):
        os.utime(path, (time.time() - age * 86_400,) * 2)
    return plan


def rows(out):
    """Lines of a table, without its head, as cells."""
    return [line.split("\t") for line in out.splitlines() if "\t" in line][1:]


def test_list_shows_what_is_known_of_every_kept_engine(engines, folder):
    plan = keep(0)
    code, out, err = engines("list")
    assert (code, err) == (0, "")
    ((*cells, by, used, digest, problem),) = rows(out)
    assert cells == [
        "default/segmenter_2d",
        "NVIDIA H200",
        "fp16",
        "0.0012",
        "3 of 65536",
        "0.999870",
        "2.0 MB",
        "12.3 s",
    ]
    assert (by, digest, problem) == ("tensorrt 10.16.1.11", plan.digest[:12], "-")
    assert used == time.strftime("%Y-%m-%d %H:%M", time.localtime(plan.path.stat().st_mtime))
    assert out.endswith(f"1 engine, 2.0 MB: {folder}\n")


def test_list_works_where_nothing_was_ever_kept(engines, folder):
    assert engines("list") == (0, f"0 engines, 0.0 MB: {folder}\n", "")
    told = json.loads(engines("list", "--json")[1])
    assert told == {"folder": str(folder), "engines": []}
    assert not folder.exists()


def test_list_as_json_has_records_keys_and_problems(engines):
    damaged = keep(1)
    damaged.path.with_suffix(".json").write_text("{}")
    keep(0, age=-1)
    first, second = json.loads(engines("list", "--json")[1])["engines"]
    assert (first["record"], first["key"], first["problem"]) == (RECORD, {"number": 0}, "")
    assert (second["record"], second["digest"]) == ({}, damaged.digest)
    assert "another version of fastseg" in second["problem"]
    assert "another version of fastseg" in rows(engines("list")[1])[1][-1]


def test_list_draws_a_table_on_a_terminal(engines, monkeypatch):
    keep(0)
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    out = engines("list")[1]
    assert "│ default/segmenter_2d │" in out
    assert out.startswith("┏")


@pytest.mark.parametrize("subcommand", ["list", "check", "prune"])
def test_a_folder_that_others_may_write_is_refused_with_the_remedy(engines, folder, subcommand):
    keep(0)
    folder.chmod(0o777)
    code, out, err = engines(subcommand)
    assert (code, out) == (2, "")
    assert err.startswith(f"fastseg: error: {folder}: may be written by others")
    assert err.count("\n") == 1


def test_prune_removes_what_is_damaged_and_nothing_else_unless_asked(engines, folder):
    keep(0)
    keep(1).path.with_suffix(".json").unlink()
    code, out, err = engines("prune")
    assert (code, err) == (0, "")
    assert out.endswith(f"1 engine removed, 2.0 MB; 1 left: {folder}\n")
    assert "its record is missing" in out
    assert engines("prune") == (0, f"0 engines removed, 0.0 MB; 1 left: {folder}\n", "")


def test_prune_removes_by_age_by_size_and_all(engines, folder):
    for number, age in enumerate((0, 1, 2, 10)):
        keep(number, age=age)
    assert "1 engine removed, 2.0 MB; 3 left" in engines("prune", "--older-than", 5)[1]
    assert "1 engine removed, 2.0 MB; 2 left" in engines("prune", "--limit-gb", 0.0041)[1]
    told = json.loads(engines("prune", "--all", "--json")[1])
    assert [len(told[name]) for name in ("removed", "left")] == [2, 0]
    assert list(folder.iterdir()) == []
    assert engines("prune", "--older-than", -1)[0] == 2


def test_a_bad_size_in_the_environment_is_told_of(engines, monkeypatch):
    monkeypatch.setenv("FASTSEG_ENGINES_GB", "plenty")
    code, _, err = engines("list")
    assert code == 2
    assert "FASTSEG_ENGINES_GB=plenty" in err


def test_build_without_a_gpu_says_what_is_missing_on_one_line(engines, monkeypatch):
    monkeypatch.setattr("fastseg.engines.select.problem_of", lambda *_: "no NVIDIA driver: install it")
    for device in ((), ("--device", "cuda:0,1")):
        assert engines("build", *device) == (2, "", "fastseg: error: no NVIDIA driver: install it\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--device", "cpu"), "engine tensorrt runs on cuda"),
        (("--device", "cuda:0,0"), "named twice"),
        (("--device", "gpu"), "device 'gpu'"),
        (("--precision", "fp8"), "'fp8'"),
        (("--precision", "fp16,auto"), "'auto'"),
        (("--precision", ""), "''"),
        (("--kernel", "4d"), "4d"),
    ],
)
def test_build_refuses_what_it_cannot_mean(engines, arguments, said):
    code, out, err = engines("build", *arguments)
    assert (code, out) == (2, "")
    assert said in err


def test_build_builds_every_network_on_every_gpu_and_shows_its_numbers(engines, world, pack):
    code, out, err = engines("build", "--models", pack)
    assert code == 0, out + err
    table = rows(out)
    assert [(row[0], row[1]) for row in table] == [
        (f"own/{name}", device)
        for device in ("cuda:0 Fake H200", "cuda:1 Fake L40")
        for name in ("detect_slices", "segment_2d")
    ]
    for _, _, precision, difference, flipped, dice, size, built, verdict in table:
        assert (precision, verdict) == ("fp32", "accepted")
        assert float(difference) < 1e-4
        assert flipped.startswith("0 of ")
        assert float(dice) == 1
        assert size.endswith(" MB")
        assert built.endswith(" s")
    assert out.endswith("4 accepted\n")
    assert err.count("fastseg: own/segment_2d in fp32 on cuda:") == 2
    assert len(rows(engines("list")[1])) == 4


def test_build_again_takes_what_is_kept(engines, world, pack):
    engines("build", "--models", pack, "--device", "cuda:1")
    built = world.calls["build"]
    code, out, _ = engines("build", "--models", pack)
    assert code == 0
    assert [row[7] == "cached" for row in rows(out)] == [False] * 2 + [True] * 2
    assert world.calls["build"] == built + 2


def test_build_takes_a_gpu_by_its_number_where_another_is_broken(engines, world, pack, monkeypatch):
    third = gpu(2, name="Fake L40", compute_capability=(8, 9))
    cuda = FakeCuda(gpu(0), gpu(1), third)
    monkeypatch.setattr("fastseg.engines.cuda.probe.probe", lambda: Probe((gpu(0), third), (13, 0), ""))
    made = functools.partial(
        TensorRt, vendor=vendor_of(FakeTensorRt(cuda).module), open_device=cuda.open_device
    )
    monkeypatch.setattr("fastseg.engines.tensorrt.engine.TensorRt", made)
    code, out, err = engines("build", "--models", pack, "--device", "cuda:2")
    assert code == 0, out + err
    assert {row[1] for row in rows(out)} == {"cuda:2 Fake L40"}


def test_build_takes_a_kernel_and_precisions(engines, world, tmp_path):
    pack = own_pack(tmp_path / "own", svm=False)  # also light, and in three dimensions
    arguments = ("--models", pack, "--device", "cuda", "--kernel", "2d", "--precision", "tf32, fp32,tf32")
    code, out, _ = engines("build", *arguments, "--json")
    assert code == 0
    assert [(each["network"], each["precision"], each["device"]) for each in json.loads(out)] == [
        (f"own/{name}", precision, "cuda:0 Fake H200")
        for name in ("detect_slices", "segment_2d")
        for precision in ("tf32", "fp32")
    ]


def test_build_shows_refused_engines_with_their_numbers_and_exits_with_3_or_4(engines, world, pack):
    arguments = ("build", "--models", pack, "--device", "cuda:0", "--precision")
    engines(*arguments, "fp32")
    world.distort = lambda answer: 1 - answer
    code, out, _ = engines(*arguments, "fp32,tf32")
    assert code == 3  # what was built before is not measured again under the same driver
    refused = [row for row in rows(out) if row[2] == "tf32"]
    for row in refused:
        assert f"they differ by {row[3]} " in row[8]
        assert row[5:8] == ["0.000000", "-", "-"]
        assert row[8].startswith("refused: ")
        assert "Dice 0.00000 " in row[8]
    assert out.endswith("2 accepted, 2 refused\n")
    code, out, _ = engines(*arguments, "tf32", "--json")
    assert code == 4
    assert {each["verdict"] for each in json.loads(out)} == {"refused"}
    assert len(PlanCache().entries()) == 2


def test_build_goes_on_after_a_network_that_does_not_fit(engines, world, pack):
    world.fail("create_execution_context", "Cuda Runtime (out of memory)", times=1)
    code, out, _ = engines("build", "--models", pack, "--device", "cuda:0")
    assert code == 3
    assert [row[8].partition(":")[0] for row in rows(out)] == ["failed", "accepted"]


def test_build_says_once_what_is_missing_for_all(engines, world, pack, monkeypatch):
    def open_device(number):
        raise EngineUnavailable("the NVIDIA driver is too old: update it")

    made = functools.partial(TensorRt, vendor=vendor_of(world.module), open_device=open_device)
    monkeypatch.setattr("fastseg.engines.tensorrt.engine.TensorRt", made)
    code, out, err = engines("build", "--models", pack)
    assert (code, out) == (2, "")
    assert err.endswith("fastseg: error: the NVIDIA driver is too old: update it\n")


def test_check_runs_kept_engines_again_and_says_what_it_could_not_check(engines, world, pack):
    engines("build", "--models", pack, "--device", "cuda:0")
    keep(0)
    code, out, _ = engines("check", "--models", pack)
    assert code == 0
    table = rows(out)
    assert [row[8].partition(":")[0] for row in table] == ["accepted"] * 2 + ["not checked"]
    assert {row[1] for row in table[:2]} == {"cuda:0 Fake H200"}
    assert "of another GPU" in table[2][8]
    assert out.endswith("2 accepted, 1 not checked\n")
    assert world.calls["build"] == 2


def test_check_refuses_kept_engines_that_no_longer_give_the_references_answers(engines, world, pack):
    engines("build", "--models", pack, "--device", "cuda:0")
    world.distort = lambda answer: np.full_like(answer, np.nan)
    code, out, _ = engines("check", "--models", pack, "--json")
    assert code == 4
    for each in json.loads(out):
        assert (each["verdict"], each["max_difference"], each["dice"]) == ("refused", None, 0.0)


def test_check_tells_of_plans_that_do_not_load_and_of_damaged_ones(engines, world, pack):
    engines("build", "--models", pack, "--device", "cuda:0")
    entry = PlanCache().entries()[0]
    content = bytearray(entry.path.read_bytes())
    content[0] ^= 1
    entry.path.write_bytes(bytes(content))
    world.fail("deserialize", "version tag does not match")
    code, out, _ = engines("check", "--models", pack)
    assert code == 4
    verdicts = sorted(row[8] for row in rows(out))
    assert verdicts[0] == "not checked: it was damaged, and has been removed"
    assert verdicts[1].startswith("refused: TensorRT does not load the plan")


def test_check_without_a_gpu_holds_the_engines_of_the_cpu_against_the_reference(engines, pack):
    if importlib.util.find_spec("openvino") is None:  # looked for, not imported: its import has to be ours
        pytest.skip("the extra [cpu-fast] is not installed")
    keep(0)
    code, out, err = engines("check", "--models", pack)
    assert code == 0, out + err
    table = rows(out)
    assert table[0][8].startswith("not checked: ")
    fp32 = [row for row in table if row[2] == "fp32"]
    assert [row[0] for row in fp32] == [f"own/{name}" for name in ("detect_slices", "segment_2d")]
    for row in fp32:
        assert row[1] == "cpu, openvino"
        assert (row[4][:5], row[6], row[7], row[8]) == ("0 of ", "-", "-", "accepted")
    bf16 = [row[8].partition(":")[0] for row in table if row[2] == "bf16"]
    assert len(bf16) == 2
    assert set(bf16) <= {"accepted", "not checked"}


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from fastseg.cli import main\n"
        "try: main(['engines', 'build', '--help'])\n"
        "finally: print(sorted({'numpy', 'onnxruntime', 'onnx', 'tensorrt', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
