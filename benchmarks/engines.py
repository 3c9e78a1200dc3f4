"""Time the engines of this machine's CPU on the built-in networks, one thread.

    python -m benchmarks.engines [--case NAME]... [--repetitions N] [--out FILE]

Each network runs on inputs of the phantom: 64 crops, a block of 48 slices, 16 whole slices. The reference
engine comes first; after it the other engines, and the vendors' own calls with so many images at a time.
`floor_seconds` is what the multiplications and additions take at the rate of a large matrix product on one
core, in the same run.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.inputs import Inputs
from benchmarks.runner import Case, Commands, main
from fastseg.engines.acceptance import compare, fixed_inputs
from fastseg.engines.base import Engine
from fastseg.engines.machine import capability
from fastseg.engines.onnxruntime_cpu import OnnxRuntimeCpu
from fastseg.engines.openvino_cpu import OpenVinoCpu, bf16_runs, import_openvino
from fastseg.errors import EngineUnavailable
from fastseg.networks.network import Network, Role
from fastseg.networks.packs import find_pack

_Batch = NDArray[np.float32]

_CROPS, _SLICES, _DEPTH = 64, 16, 48
_AT_A_TIME = (64, 16, 4)
# Rows of the square matrices whose product gives the rate of one core: larger than the caches.
_MATRIX = 1536

# Processes of `opened`: what a first answer takes, from nothing.
_OPEN = """
import numpy as np
from fastseg.networks.network import Role
from fastseg.networks.packs import find_pack
network = find_pack("default").network(Role.SEGMENT_2D, "t2")
"""
_ASK = """
from fastseg.engines.{module} import {name}
with {name}(network) as engine:
    engine.infer(np.zeros((55, 1, 64, 64), np.float32))
"""


def network_case(role: Role, _: Inputs) -> Case:
    """One network in every engine that this CPU has."""
    network = find_pack("default").network(role, "t2")
    batch, items = _batch(network)
    stack = ExitStack()  # left to the end of the process
    engines: dict[str, Engine] = {"onnxruntime fp32": OnnxRuntimeCpu(network)}
    try:
        import_openvino()
    except EngineUnavailable as error:
        print(error, file=sys.stderr)
    else:
        engines["openvino fp32"] = OpenVinoCpu(network)
        if bf16_runs():
            engines["openvino bf16"] = OpenVinoCpu(network, precision="bf16")
    contenders: dict[str, Callable[[], object]] = {
        name: partial(stack.enter_context(engine).infer, batch) for name, engine in engines.items()
    }
    expected = engines["onnxruntime fp32"].infer(batch)
    facts: dict[str, object] = {
        "input": f"phantom, {' x '.join(map(str, batch.shape))}",
        "capability": capability(),
        "openvino": _version("openvino"),
    }
    for name, engine in engines.items():
        if engine is not engines["onnxruntime fp32"]:
            found = compare(network, [engine.infer(batch)], [expected])
            facts[f"largest_difference, {name}"] = found.max_difference
            facts[f"flipped_pixels, {name}"] = found.flipped
    if role in (Role.SEGMENT_2D, Role.SEGMENT_2D_LIGHT):
        contenders |= _vendors(network, batch, [name.split()[1] for name in engines if "openvino" in name])
    assert network.macs_millions is not None
    rate = _gflop_per_second()
    gflop = 2 * network.macs_millions * items / 1e3
    facts |= {"gflop": round(gflop, 2), "core_gflop_per_second": round(rate, 1)}
    facts["floor_seconds"] = round(gflop / rate, 6)
    return Case(f"{network.path.stem}, {facts['input'][9:]}", batch.size, contenders, facts)


def opened(_: Inputs) -> Commands:
    """Whole processes: import, load, and the first 55 crops; memory."""
    scripts = {
        "onnxruntime fp32": _OPEN + _ASK.format(module="onnxruntime_cpu", name="OnnxRuntimeCpu"),
        "openvino fp32": _OPEN + _ASK.format(module="openvino_cpu", name="OpenVinoCpu"),
        "neither": _OPEN,
    }
    commands = {label: [sys.executable, "-c", script] for label, script in scripts.items()}
    return Commands("a process that asks about 55 crops", commands, facts={"openvino": _version("openvino")})


def _batch(network: Network) -> tuple[_Batch, int]:
    """Inputs, and how many items of `Network.macs_millions` they are."""
    first, *others = fixed_inputs(network)
    if network.role is Role.SEGMENT_3D:
        block = np.concatenate(list(first), axis=-1)[None, ..., :_DEPTH]
        return np.ascontiguousarray(block), _DEPTH
    if network.role is Role.DETECT_SLICES:
        (slices,) = others
        batch = np.resize(slices, (_SLICES, *slices.shape[1:]))
        # A network's cost is counted on slices of 144 x 144.
        return batch, round(_SLICES * batch[0].size / 144**2)
    return first[:_CROPS], _CROPS


def _vendors(network: Network, batch: _Batch, precisions: list[str]) -> dict[str, Callable[[], object]]:
    """The vendors' own calls, with more or fewer images at a time than our engines give them."""
    calls: dict[str, Callable[[_Batch], object]] = {"onnxruntime's call, fp32": _onnxruntime(network)}
    calls |= {f"openvino's request, {each}": _openvino(network, each) for each in precisions}

    def all_of(call: Callable[[_Batch], object], n: int) -> None:
        for k in range(0, len(batch), n):
            call(batch[k : k + n])

    return {
        f"{name}, {n} at a time": partial(all_of, call, n) for name, call in calls.items() for n in _AT_A_TIME
    }


def _onnxruntime(network: Network) -> Callable[[_Batch], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(network.path), options, ["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda part: session.run(None, {name: part})


def _openvino(network: Network, precision: str) -> Callable[[_Batch], object]:
    hint = {"fp32": "f32"}.get(precision, precision)
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": hint,
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
    }
    core = import_openvino().Core()
    request = core.compile_model(str(network.path), "CPU", settings).create_infer_request()
    return lambda part: request.infer([part])


def _gflop_per_second() -> float:
    """Rate of one core in a large product of float32 matrices, the best of five."""
    a = np.random.default_rng(0).random((_MATRIX, _MATRIX), np.float32)
    a @ a
    seconds = []
    for _ in range(5):
        started = time.process_time()
        a @ a
        seconds.append(time.process_time() - started)
    return 2 * _MATRIX**3 / min(seconds) / 1e9


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


CASES: dict[str, Callable[[Inputs], Case | Commands]] = {
    "engines-2d": partial(network_case, Role.SEGMENT_2D),
    "engines-2d-light": partial(network_case, Role.SEGMENT_2D_LIGHT),
    "engines-3d": partial(network_case, Role.SEGMENT_3D),
    "engines-detector": partial(network_case, Role.DETECT_SLICES),
    "engines-opened": opened,
}


if __name__ == "__main__":
    main(CASES, __doc__, "benchmarks.engines")
