"""Type stubs of TensorRT, made from the bindings that are installed, and mypy against them.

NVIDIA publishes no stubs, and its licence does not let anybody else do so: they are made when they are
needed, and never committed. They are those of the module `tensorrt`, whichever of its kinds they were made
from, which is how the code names its types; without them mypy takes all of it for Any.
"""

from __future__ import annotations

import argparse
import ast
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[2]

# The extension modules with all there is.
_BINDINGS = ("tensorrt_bindings.tensorrt", "tensorrt_rtx_bindings.tensorrt_rtx")

_STUBGEN = "from mypy.stubgen import main; main()"

# Where the vendor gives nothing when it fails, which its signatures do not say.
_MAY_BE_NONE = (
    "build_serialized_network|create_builder_config|create_execution_context|create_network"
    "|create_optimization_profile|create_timing_cache|deserialize_cuda_engine|get_timing_cache"
)

# What inspection does not see, as pattern and replacement; every one has to be found.
_CORRECTIONS = {
    # Names like bool and int8 would stand for themselves instead of for Python's types.
    r"(?m)^[a-z0-9]+: DataType\n": "",
    # A sequence by its behaviour, made from any other.
    r"(?m)^class Dims:\n": "class Dims:\n    def __iter__(self) -> collections.abc.Iterator[int]: ...\n",
    r": Dims(?=[,) ])": ": Dims | collections.abc.Sequence[int]",
    # A buffer.
    r"(?m)^class IHostMemory:\n": (
        "class IHostMemory:\n    def __buffer__(self, flags: int, /) -> memoryview: ...\n"
    ),
    # Its class has only the name of C++ in the docstring.
    r"(?m)def get_error\(.*$": "def get_error(self, index: typing.SupportsInt) -> ParserError: ...",
    rf"(def (?:{_MAY_BE_NONE})\(.*) -> (\w+): \.\.\.": r"\1 -> \2 | None: ...",
}


def main() -> int:
    """Make stubs, or make them and check the code against them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="keep the stubs, as FOLDER/tensorrt")
    parser.add_argument("--check", action="store_true", help="run mypy on fastseg.engines.tensorrt")
    parser.add_argument("files", nargs="*", type=Path, help="more to check, with --check")
    options = parser.parse_args()
    if options.out is None and not options.check:
        parser.error("choose --out, --check, or both")
    found = _installed()
    if found is None:
        print("skipped: no bindings of TensorRT are installed (extra [gpu-ci])")
        return 0
    with tempfile.TemporaryDirectory(prefix="fastseg-stubs-") as scratch:
        folder = options.out or Path(scratch)
        classes = make_stubs(found, folder)
        if options.check:
            done = _mypy(folder, Path(scratch) / "mypy.toml", options.files)
            if done.returncode:
                print(done.stdout, end="")
                return 1
    (distribution,) = importlib.metadata.packages_distributions()[found.partition(".")[0]]
    print(f"{distribution} {importlib.metadata.version(distribution)}, {classes} classes")
    return 0


def make_stubs(module: str, folder: Path) -> int:
    """Write the stubs of a module as those of `tensorrt`; give the number of classes.

    Parameters
    ----------
    module : a name of `_BINDINGS`
    """
    with tempfile.TemporaryDirectory(prefix="fastseg-stubs-") as scratch:
        arguments = ["--quiet", "--inspect-mode", "--module", module, "--output", scratch]
        # Compiled, mypy.stubgen is no module that -m takes.
        subprocess.run([sys.executable, "-c", _STUBGEN, *arguments], check=True)
        text = (Path(scratch) / f"{module.replace('.', '/')}.pyi").read_text()
    text = text.replace(f"{module}.", "")
    for pattern, replacement in _CORRECTIONS.items():
        text, count = re.subn(pattern, replacement, text)
        if not count:
            raise SystemExit(f"error: {module} has no {pattern}: change the corrections in {__file__}")
    text = "\n".join(_with_defaults(line) for line in text.splitlines())
    text += "\n\n__version__: str\n"
    (folder / "tensorrt").mkdir(parents=True, exist_ok=True)
    (folder / "tensorrt" / "__init__.pyi").write_text(text)
    return sum(isinstance(node, ast.ClassDef) for node in ast.parse(text).body)


def _installed() -> str | None:
    for module in _BINDINGS:
        if importlib.util.find_spec(module.partition(".")[0]) is not None:
            return module
    return None


def _with_defaults(line: str) -> str:
    """Give arguments a default that come after one with a default, as C++ allows and Python does not."""
    signature = re.fullmatch(r"(\s*def \w+\()(.*)(\) -> .*)", line)
    if signature is None:
        return line
    try:
        ast.parse(line.strip())
    except SyntaxError:
        arguments = re.split(r", (?![^\[]*\])", signature[2])
        first = next(k for k, each in enumerate(arguments) if "=" in each)
        arguments[first:] = [each if "=" in each else f"{each} = ..." for each in arguments[first:]]
        return signature[1] + ", ".join(arguments) + signature[3]
    return line


def _mypy(stubs: Path, config: Path, files: list[Path]) -> subprocess.CompletedProcess[str]:
    """Run mypy as ever, but with the stubs, and only on the code that uses them."""
    settings = tomllib.loads((_CHECKOUT / "pyproject.toml").read_text())["tool"]["mypy"]
    overrides = [
        each | {"module": [name for name in each["module"] if not name.startswith("tensorrt")]}
        for each in settings.pop("overrides")
    ]
    # What inspection makes is not strict itself, and the rest of fastseg has its own check.
    overrides.append({"module": ["tensorrt"], "ignore_errors": True})
    settings["follow_imports"] = "silent"
    for unwanted in ("packages", "exclude"):
        settings.pop(unwanted)
    lines = ["[tool.mypy]", *map(_line, settings.items())]
    for each in overrides:
        lines += ["[[tool.mypy.overrides]]", *map(_line, each.items())]
    config.write_text("\n".join(lines))
    code = sorted((_CHECKOUT / "fastseg" / "engines" / "tensorrt").glob("*.py"))
    targets = [str(each) for each in (*code, *(each.resolve() for each in files))]
    cache = _CHECKOUT / ".mypy_cache" / "tensorrt"
    return subprocess.run(
        [sys.executable, "-m", "mypy", f"--config-file={config}", f"--cache-dir={cache}", *targets],
        cwd=_CHECKOUT,
        env=os.environ | {"MYPYPATH": str(stubs.resolve())},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def _line(item: tuple[str, object]) -> str:
    """Write a setting as TOML: booleans, strings and lists of strings."""
    name, value = item
    return f"{name} = {str(value).lower() if isinstance(value, bool) else value!r}"


if __name__ == "__main__":
    sys.exit(main())
