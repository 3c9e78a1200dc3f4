"""The house keeps its form: links, packages, light imports, kernels that stand alone."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fastseg

_CHECKOUT = Path(__file__).resolve().parents[2]
_PYPROJECT = tomllib.loads((_CHECKOUT / "pyproject.toml").read_text())
_HEAVY = ("numba", "scipy", "nibabel", "onnxruntime", "h5py", "onnx", "PIL")
_MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(fastseg.__path__, "fastseg.")
    if not module.name.endswith("__main__")
)


def _heavy_modules_after(code: str) -> list[str]:
    report = f"\nimport sys; print(*[name for name in {_HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code + report], capture_output=True, text=True, check=True, timeout=300
    )
    return done.stdout.splitlines()[-1].split()


@pytest.mark.parametrize("folder", ["kernels", "engines"])
def test_link_into_the_package_is_relative(folder: str) -> None:
    link = _CHECKOUT / "fastseg" / folder
    assert link.is_symlink()
    assert str(link.readlink()) == f"../{folder}"
    assert (link / "__init__.py").is_file()


def test_every_folder_with_code_is_a_package_in_pyproject() -> None:
    outside = {f"fastseg.{folder}": folder for folder in ("kernels", "engines")}
    found = {"fastseg", *outside}
    for name, folder in {"fastseg": "fastseg", **outside}.items():
        for parent, _, files in os.walk(_CHECKOUT / folder):
            if any(file.endswith(".py") for file in files):
                inner = Path(parent).relative_to(_CHECKOUT / folder).parts
                found.add(".".join([name, *inner]))
    assert sorted(_PYPROJECT["tool"]["setuptools"]["packages"]) == sorted(found)


def test_version_is_the_same_everywhere() -> None:
    assert fastseg.__version__ == _PYPROJECT["project"]["version"]
    assert f"\nversion: {fastseg.__version__}\n" in (_CHECKOUT / "CITATION.cff").read_text()


def test_importing_fastseg_is_light() -> None:
    assert _heavy_modules_after("import fastseg, fastseg.cli, fastseg.compilation, fastseg.errors") == []


def test_help_is_light() -> None:
    code = (
        "import contextlib, fastseg.cli\nwith contextlib.suppress(SystemExit): fastseg.cli.main(['--help'])\n"
    )
    assert _heavy_modules_after(code) == []


@pytest.mark.parametrize("name", _MODULES)
def test_public_names_are_there(name: str) -> None:
    """That they are sorted is checked by ruff."""
    module = importlib.import_module(name)
    assert [each for each in getattr(module, "__all__", []) if not hasattr(module, each)] == []


@pytest.mark.parametrize("path", sorted((_CHECKOUT / "kernels").glob("*.py")), ids=lambda path: path.stem)
def test_kernels_import_numpy_and_numba_and_no_compiled_code_of_other_files(path: Path) -> None:
    modules, from_other_files = set(), set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            modules.add(node.module)
            if node.module.startswith("fastseg"):
                assert node.module.startswith("fastseg.kernels")
                from_other_files |= {alias.asname or alias.name for alias in node.names}
    assert {module.split(".")[0] for module in modules} <= {
        "__future__",
        "collections",
        "fastseg",
        "math",
        "numba",
        "numpy",
        "typing",
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and any("jit" in ast.dump(each) for each in node.decorator_list):
            names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
            # numba's cache of a function does not see changes in other files
            assert names & from_other_files == set(), node.name
