"""Networks of an SCT installation -> a pack: its ONNX files, Keras HDF5 files and OptiC's SVMs.

Constants are those of docs/sct.md, section "Networks". Nothing is downloaded and nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastseg.errors import NetworkError
from fastseg.networks import keras
from fastseg.networks.files import SVM_LENGTH, Shapes, onnx_shapes, shape_problem
from fastseg.networks.network import CONTRASTS, Network, Role, SvmModel
from fastseg.networks.packs import Origin, Pack
from fastseg.networks.store import check_name, store_pack

__all__ = ["ImportReport", "ImportedFile", "git_blob_id", "import_sct", "read_opencv_svm"]

# Thresholds of sct_deepseg_sc, 2D and 3D alike.
_THRESHOLDS = {"t1": 0.15, "t2": 0.7, "t2s": 0.89, "dwi": 0.01}
# Its detector takes p > 0.5 as cord.
_DETECTION_THRESHOLD = 0.5

# Mean and std of the training images, which SCT subtracts and divides by before it runs a network.
_DETECTION_MEAN_STD = {
    "t1": (55.7359, 64.3149),
    "t2": (51.1417, 57.4408),
    "t2s": (68.8591, 71.4659),
    "dwi": (55.744, 45.003),
}
_MEAN_STD_3D = {"t1": (88.5001, 66.275), "t2": (65.8562, 59.7999), "t2s": (87.0212, 64.425)}

# Git blob ids of the files that SCT published: HDF5 from sct-data/deepseg_sc_models, YAML from
# data/optic_models of spinalcordtoolbox at 3b3c5b22d. None are known for the ONNX files.
_BLOB_IDS = {
    "dwi_ctr.h5": "0ba9f4e4d34d537cd1971c3fd093db9af987302f",
    "dwi_sc.h5": "d350785d4a72067084c14ab16e98b49933d5e1cc",
    "t1_ctr.h5": "66f44b450b456bf478c57cbfd61fdf7ccd57d132",
    "t1_sc.h5": "1fb92cef809e3d5c24874b5269b9d2fc1b953d3b",
    "t1_sc_3D.h5": "6b0a0c52b27201134cfeedb94cb4fa4a5eb71d9f",
    "t2_ctr.h5": "8996bfee8cf83b344f784f8fad7b169e03fb0a2b",
    "t2_sc.h5": "6219445276586dae160ef372a3b0b6eedb5fc2ba",
    "t2_sc_3D.h5": "72207a6447716e68b1c8ce412faf6f6c15bb8247",
    "t2s_ctr.h5": "94009922d2584b372d64411fc93046a172bf8eaf",
    "t2s_sc.h5": "f207427a893c11abf7b7db00b3cec440200e5139",
    "t2s_sc_3D.h5": "dfd7a9c34d90a35cc26ad259309567b5f78c00e6",
    "dwi_model.yml": "45b085521a1363977215c3c63192260687fe1791",
    "t1_model.yml": "fa0e043ebd29e2a627544511ce038d6bdda65385",
    "t2_model.yml": "f06ab0f7e6c8236895459ebdd31773dfa659ddb1",
    "t2s_model.yml": "bcb33ccdbd4d614dfed94f8a1489e7814cb48ac5",
}

_FOLDERS = ("deepseg_sc_models", "optic_models")
_ROLES = {"ctr": Role.DETECT_BLOCKS, "sc": Role.SEGMENT_2D, "sc_3D": Role.SEGMENT_3D}
_LICENCES = {".onnx": "not stated upstream", ".h5": "not stated upstream", ".yml": "LGPL-3.0 (SCT)"}

# SCT's largest file has 8 MB (23 MB with the optimizer's state).
_MAX_BYTES = 1 << 28

# What OptiC's HOG is computed with; an SVM trained with other settings would give nonsense.
_HOG = {
    "winSize": (32, 32),
    "blockSize": (8, 8),
    "blockStride": (8, 8),
    "cellSize": (4, 4),
    "nbins": (9,),
    "derivAperture": (1,),
    "histogramNormType": (0,),
    "L2HysThreshold": (0.2,),
    "gammaCorrection": (1,),
    "signedGradient": (1,),
}
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


@dataclass(frozen=True, slots=True)
class ImportedFile:
    """One file that went into the pack.

    Parameters
    ----------
    source : SCT's file
    target : name of the file in the pack
    identity : whether its git blob id is the one of the file that SCT published
    """

    source: Path
    target: str
    identity: str


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did.

    Parameters
    ----------
    pack : the pack as it was stored
    stored : False when the same pack was there already
    imported : the files that went in
    refused : files with a known name that cannot be used, and why
    superseded : files with a known name that were not needed, and why
    unknown : files with other names, which were not looked at
    missing : networks and SVMs of SCT that were not found
    """

    pack: Pack
    stored: bool
    imported: tuple[ImportedFile, ...]
    refused: tuple[tuple[Path, str], ...]
    superseded: tuple[tuple[Path, str], ...]
    unknown: tuple[Path, ...]
    missing: tuple[str, ...]


def import_sct(folder: str | Path, name: str, *, force: bool = False) -> ImportReport:
    """Make a pack from the networks in an SCT data folder, or in any part of it.

    Looked for in the folder itself and in its deepseg_sc_models and optic_models (also with ``sct_`` before
    the name). ONNX is preferred to Keras HDF5 of the same network; any subset makes a pack.

    Parameters
    ----------
    folder : SCT's data folder, or a folder with some of its files
    name : name of the pack
    force : replace another pack of that name

    Raises
    ------
    NetworkError
        Nothing could be imported, the extra for HDF5 is needed and missing, the name is taken or not a
        name, or the pack cannot be written.
    """
    check_name(name)
    folder = Path(folder)
    found, superseded, unknown = _find(folder)
    if any(path.suffix == ".h5" for path in found.values()):
        keras.require_extra()
    usable: list[_Usable] = []
    refused: list[tuple[Path, str]] = []
    for stem, path in found.items():
        try:
            usable.append(_take(stem, path, name))
        except NetworkError as error:
            refused.append((path, str(error)))
    if not usable:
        path, why = refused[0]
        raise NetworkError(f"{path}: {why}; nothing else could be imported: give a folder with whole files")
    pack = Pack(
        name=name,
        folder=Path(name),
        version="1",
        licence="differs between the files, see each",
        source="Spinal Cord Toolbox (SCT), imported by fastseg",
        networks=tuple(item.facts for item in usable if isinstance(item.facts, Network)),
        svm_models=tuple(item.facts for item in usable if isinstance(item.facts, SvmModel)),
        origins={item.facts.path.name: item.origin for item in usable},
    )
    contents = {item.facts.path.name: item.content for item in usable}
    stored, pack = store_pack(pack, contents, _card(pack), force=force)
    return ImportReport(
        pack=pack,
        stored=stored,
        imported=tuple(item.imported for item in usable),
        refused=tuple(refused),
        superseded=tuple(superseded),
        unknown=tuple(unknown),
        missing=tuple(stem for stem in _stems() if stem not in found),
    )


def git_blob_id(content: bytes) -> str:
    """Give the id that git has for a file of this content.

    Examples
    --------
    >>> git_blob_id(b"")
    'e69de29bb2d1d6434b8b29ae775ad8c2e48c5391'
    """
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def read_opencv_svm(content: bytes) -> NDArray[np.float32]:
    """Read the SVM from a HOGDescriptor that OpenCV wrote as YAML.

    Only its list of numbers is read, and the settings of the HOG are compared with OptiC's.

    Returns
    -------
    coefficients : (577,) float32     576 weights in OpenCV's order and the bias

    Raises
    ------
    NetworkError
        There is no list of 577 finite numbers, or the HOG has other settings.
    """
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError as error:
        raise NetworkError("not a YAML file written by OpenCV") from error
    for key, wanted in _HOG.items():
        match = re.search(rf"^\s*{key}:\s*\[?([^\]\n]*)\]?[ \t]*$", text, re.MULTILINE)
        if match and _numbers(match[1], key) != wanted:
            raise NetworkError(f"its HOG has {key} {match[1].strip()}, and OptiC's has other settings")
    lists = re.findall(r"^\s*SVMDetector:\s*\[([^\]]*)\]", text, re.MULTILINE)
    if len(lists) != 1:
        raise NetworkError("it has no list of numbers SVMDetector: [ ... ]")
    with np.errstate(over="ignore"):
        values = np.array(_numbers(lists[0], "SVMDetector"), np.float32)
    if values.shape != (SVM_LENGTH,) or not np.isfinite(values).all():
        raise NetworkError(f"its SVMDetector is not a list of {SVM_LENGTH} finite numbers")
    return values


@dataclass(frozen=True, slots=True)
class _Usable:
    facts: Network | SvmModel
    content: bytes
    origin: Origin
    imported: ImportedFile


def _stems() -> list[str]:
    """Names without suffix of all files that SCT has; there is no 3D network for dwi."""
    stems = [f"{contrast}_{kind}" for kind in _ROLES for contrast in CONTRASTS]
    return [s for s in stems if s != "dwi_sc_3D"] + [f"{contrast}_model" for contrast in CONTRASTS]


def _find(folder: Path) -> tuple[dict[str, Path], list[tuple[Path, str]], list[Path]]:
    """Find SCT's files by name: the one to use for each stem, those not needed and why, and all others."""
    if not folder.is_dir():
        raise NetworkError(f"{folder} is not a folder: give SCT's data folder, or a part of it")
    stems = _stems()
    candidates: dict[str, list[Path]] = {}
    superseded: list[tuple[Path, str]] = []
    unknown: list[Path] = []
    try:
        for path in _files(folder):
            suffixes = (".yml",) if path.stem.endswith("_model") else (".onnx", ".h5")
            if path.stem in stems and path.suffix in suffixes:
                candidates.setdefault(path.stem, []).append(path)
            else:
                unknown.append(path)
    except OSError as error:
        raise NetworkError(f"{folder} cannot be read ({error.strerror}): check its permissions") from error
    found = {}
    for stem in (stem for stem in stems if stem in candidates):
        first, *others = sorted(candidates[stem], key=lambda path: path.suffix != ".onnx")
        found[stem] = first
        for other in others:
            if other.suffix != first.suffix:
                superseded.append((other, f"{first.name} is used instead"))
            elif _read(other) == _read(first):
                superseded.append((other, f"the same as {first}"))
            else:
                raise NetworkError(f"{first} and {other} differ: give the folder that has the right one")
    if not found:
        raise NetworkError(
            f"{folder} has no networks of SCT: looked in it, and in its deepseg_sc_models and optic_models, "
            "for {t1,t2,t2s,dwi}_{ctr,sc,sc_3D}.{onnx,h5} and {t1,t2,t2s,dwi}_model.yml"
        )
    return found, superseded, unknown


def _files(folder: Path) -> Iterator[Path]:
    parts = [folder / f"{prefix}{part}" for part in _FOLDERS for prefix in ("", "sct_")]
    for place in (folder, *(part for part in parts if part.is_dir())):
        yield from sorted(path for path in place.iterdir() if path.is_file())


def _take(stem: str, path: Path, pack: str) -> _Usable:
    contrast, _, kind = stem.partition("_")
    original = _read(path)
    facts: Network | SvmModel
    if kind == "model":
        content = _npy(read_opencv_svm(original))
        facts = SvmModel(Path(f"{contrast}_svm.npy"), _sha256(content), contrast, pack)
    else:
        content = keras.convert(original) if path.suffix == ".h5" else original
        facts = _fitted(_network(contrast, kind, _sha256(content), pack), onnx_shapes(content))
    blob, known = git_blob_id(original), _BLOB_IDS.get(path.name)
    licence = _LICENCES[path.suffix]
    if known is None:
        identity = "not verified: no id of SCT's file is known"
    elif blob == known:
        identity = "identical to SCT's original"
    else:
        identity, licence = "not a known original", "not known"
    source = f"{path.name} from an SCT folder, git blob {blob} ({identity})"
    if path.suffix != ".onnx":
        source += ", converted by fastseg"
    return _Usable(
        facts,
        content,
        Origin(source, licence),
        ImportedFile(path, facts.path.name, identity),
    )


def _network(contrast: str, kind: str, sha256: str, pack: str) -> Network:
    """What SCT's own code knows about a network; its 2D files are channels-last, its 3D files are not."""
    role = _ROLES[kind]
    spatial: tuple[int, ...] = (64, 64)
    mean, std, threshold = 0.0, 1.0, _THRESHOLDS[contrast]
    if role is Role.DETECT_BLOCKS:
        spatial, threshold = (80, 80), _DETECTION_THRESHOLD
        mean, std = _DETECTION_MEAN_STD[contrast]
    elif role is Role.SEGMENT_3D:
        spatial = (96, 96, 48) if contrast == "t2s" else (64, 64, 48)
        mean, std = _MEAN_STD_3D[contrast]
    return Network(
        path=Path(f"{contrast}_{kind}.onnx"),
        sha256=sha256,
        role=role,
        contrasts=(contrast,),
        spatial=spatial,
        channels_last=role is not Role.SEGMENT_3D,
        mean=mean,
        std=std,
        thresholds={contrast: threshold},
        pack=pack,
    )


def _fitted(network: Network, shapes: Shapes) -> Network:
    """Take the layout from the file where it is the other one."""
    problem = shape_problem(network, shapes)
    if not problem:
        return network
    other = replace(network, channels_last=not network.channels_last)
    if shape_problem(other, shapes):
        raise NetworkError(problem)
    return other


def _numbers(text: str, key: str) -> tuple[float, ...]:
    words = [word.strip() for word in text.split(",")]
    if not all(_NUMBER.fullmatch(word) for word in words):
        raise NetworkError(f"its {key} holds something that is no finite number")
    return tuple(float(word) for word in words)


def _npy(values: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise NetworkError(f"{path} is far larger than any network of SCT: check the file")
        return path.read_bytes()
    except OSError as error:
        raise NetworkError(f"{path} cannot be read ({error.strerror}): check its permissions") from error


def _card(pack: Pack) -> str:
    rows = "\n".join(
        f"| {name} | {origin.source} | {origin.licence} |" for name, origin in pack.origins.items()
    )
    return f"""# {pack.name}

Networks of the Spinal Cord Toolbox (SCT), brought here from an installation of it by `fastseg models import`.
SCT's `sct_deepseg_sc` is described by Gros et al. 2019 (NeuroImage 184:901-915), OptiC by Gros et al. 2018
(Medical Image Analysis 44:215-227). Research software, not a medical device.

| file | source | licence |
|---|---|---|
{rows}

A licence that is not stated does not let you pass the files on.
"""
