"""Packs of networks: folders with ONNX files, SVM coefficients and a pack.toml that says how to use them.

A pack's name is the name of its folder. What pack.toml says is checked when a pack is loaded; a file's
digest is checked when the file is about to be used (`Pack.network`, `read_svm`, `verify_pack`).
"""

from __future__ import annotations

import hashlib
import os
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from fastseg.errors import NetworkError
from fastseg.networks.files import checked, checked_bytes, onnx_shapes, read_svm, shape_problem
from fastseg.networks.network import ANY_CONTRAST, CONTRASTS, Network, Role, SvmModel
from fastseg.networks.pack_entries import network_entry, svm_entry
from fastseg.networks.toml_table import AGAIN, Table

__all__ = [
    "FileCheck",
    "Origin",
    "Pack",
    "PackDetector",
    "checked",
    "find_pack",
    "list_packs",
    "load_pack",
    "pack_digest",
    "read_svm",
    "search_path",
    "user_folder",
    "verify_pack",
]

#: Version of pack.toml's format.
FORMAT = 1

PackDetector = Literal["svm", "cnn"]

# Where pack.toml does not say which detector comes first: SCT's order.
_FIRST_DETECTOR: PackDetector = "svm"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where one file of a pack comes from, and on what terms."""

    source: str
    licence: str


@dataclass(frozen=True, slots=True)
class Pack:
    """A folder of networks.

    Parameters
    ----------
    name : name of the folder
    folder : where it is
    version, licence, source : of the pack as a whole
    networks, svm_models : what it holds; files are not yet checked against their digests
    origins : source and licence of every file, by file name
    centerline : the more reliable of its detectors, which finds the centerline where none is asked for
    """

    name: str
    folder: Path
    version: str
    licence: str
    source: str
    networks: tuple[Network, ...]
    svm_models: tuple[SvmModel, ...]
    origins: Mapping[str, Origin]
    centerline: PackDetector = _FIRST_DETECTOR

    @property
    def card(self) -> Path:
        """The model card: data, licence, what for and what not for."""
        return self.folder / "MODEL_CARD.md"

    @property
    def items(self) -> tuple[Network | SvmModel, ...]:
        """All networks and SVMs, in the order of pack.toml."""
        return (*self.networks, *self.svm_models)

    def has(self, role: Role, contrast: str) -> bool:
        """Whether there is a network for this."""
        return any(n.role is role and contrast in n.contrasts for n in self.networks)

    def has_svm(self, contrast: str) -> bool:
        """Whether there is an SVM for this contrast."""
        return any(m.contrast == contrast for m in self.svm_models)

    def detectors(self, contrast: str) -> tuple[PackDetector, ...]:
        """List the detectors that there are for a contrast, the one to try first first."""
        there: list[PackDetector] = []
        if self.has_svm(contrast):
            there.append("svm")
        if self.has(Role.DETECT_BLOCKS, contrast) or self.has(Role.DETECT_SLICES, contrast):
            there.append("cnn")
        return tuple(sorted(there, key=lambda detector: detector != self.centerline))

    def network(self, role: Role, contrast: str) -> Network:
        """Give the network for a role and contrast, its file checked against its digest.

        Raises
        ------
        NetworkError
            The pack has no such network, or the file is missing or not the one that was packed.
        """
        for network in self.networks:
            if network.role is role and contrast in network.contrasts:
                return checked(network)
        raise NetworkError(self._lacks(role, contrast))

    def svm(self, contrast: str) -> SvmModel:
        """Give the SVM for a contrast, its file checked against its digest; see `network`."""
        for model in self.svm_models:
            if model.contrast == contrast:
                return checked(model)
        raise NetworkError(self._lacks("svm", contrast))

    def _lacks(self, kind: str, contrast: str) -> str:
        held: dict[str, set[str]] = {}
        for network in self.networks:
            held.setdefault(network.role, set()).update(network.contrasts)
        for model in self.svm_models:
            held.setdefault("svm", set()).add(model.contrast)
        what = "SVM" if kind == "svm" else f"{kind} network"
        asked = f"contrast {contrast}"
        if contrast == ANY_CONTRAST:
            asked = "any contrast"
            if kind in held:
                return (
                    f"pack {self.name!r} needs to know the contrast for its {what}: give it with -c, one of "
                    f"{', '.join(_in_order(held[kind]))}, or choose another pack with --models"
                )
        has = "; ".join(f"{each} for {', '.join(_in_order(held[each]))}" for each in sorted(held))
        return (
            f"pack {self.name!r} has no {what} for {asked}; it has {has}: choose another "
            "option, or another pack with --models (`fastseg models list` shows them)"
        )


def search_path() -> tuple[Path, ...]:
    """List the folders that may contain packs: FASTSEG_PACKS, the user's folder, fastseg's own."""
    folders = [_expanded(entry).absolute() for entry in _entries()]
    user = user_folder()
    return (*folders, *([user] if user else []), Path(__file__).absolute().parent)


def user_folder() -> Path | None:
    """Name the user's folder of packs, or None where the user has no home.

    ``$XDG_DATA_HOME/fastseg/packs``, by default in ~/.local/share; on macOS in
    ~/Library/Application Support.
    """
    given = os.environ.get("XDG_DATA_HOME", "")
    if Path(given).is_absolute():  # the XDG specification: a relative path is ignored
        return Path(given) / "fastseg" / "packs"
    try:
        home = Path.home()
    except RuntimeError:
        return None
    data = "Library/Application Support" if sys.platform == "darwin" else ".local/share"
    return home / data / "fastseg" / "packs"


def list_packs() -> list[Pack | NetworkError]:
    """Load every pack on the search path, in its order.

    A pack that cannot be loaded is listed as the error that says why. Where two packs have one name, the
    first is the one that `find_pack` gives.
    """
    found: list[Pack | NetworkError] = []
    for folder in _pack_folders():
        try:
            found.append(load_pack(folder))
        except NetworkError as error:
            found.append(error)
    return found


def find_pack(name_or_folder: str | Path) -> Pack:
    """Load a pack by its name, or by its folder.

    A plain name is looked for on the search path first, and then as a folder.

    Raises
    ------
    NetworkError
        There is no such pack, or it cannot be loaded.

    Examples
    --------
    >>> find_pack("default").name
    'default'
    """
    wanted = str(name_or_folder)
    folders = _pack_folders()
    for folder in folders:
        if folder.name == wanted:
            return load_pack(folder)
    as_folder = _expanded(wanted)
    if wanted and as_folder.is_dir():
        return load_pack(as_folder)
    known = ", ".join(dict.fromkeys(folder.name for folder in folders))
    hint = next(
        (f" (FASTSEG_PACKS names folders that contain packs, and {p} is a pack itself: set its parent)"
         for p in search_path() if (p / "pack.toml").is_file()),
        "",
    )  # fmt: skip
    raise NetworkError(
        f"no pack or folder of networks is called {wanted!r}{hint}: choose one of {known}, "
        "or make one with `fastseg models import`"
    )


def load_pack(folder: str | Path) -> Pack:
    """Read a pack's pack.toml and see that its files are there; digests are checked on use.

    Raises
    ------
    NetworkError
        pack.toml is missing, broken or incomplete, names a file outside the folder, or a file is missing.
    """
    folder = Path(folder).absolute()
    path = folder / "pack.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NetworkError(
            f"{folder} is not a pack of networks, it has no pack.toml: "
            "give a pack's name or folder (`fastseg models list` shows them)"
        ) from error
    except OSError as error:
        raise NetworkError(f"{path}: cannot be read ({error.strerror}): check its permissions") from error
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        reason = " ".join(str(error).split())
        raise NetworkError(f"{path}: not valid TOML ({reason}): {AGAIN}") from error
    top = Table(values, str(path))
    if values.get("format") != FORMAT:
        raise NetworkError(
            f"{path}: its format is {values.get('format')!r} where this fastseg reads {FORMAT}: "
            "import the pack again"
        )
    pack = Pack(
        folder.name,
        folder,
        top.text("version"),
        top.text("licence"),
        top.text("source"),
        tuple(network_entry(table, folder) for table in top.tables("network")),
        tuple(svm_entry(table, folder) for table in top.tables("svm")),
        {
            table.text("file"): Origin(
                table.text("source", top.text("source")), table.text("licence", top.text("licence"))
            )
            for table in (*top.tables("network"), *top.tables("svm"))
        },
        cast(PackDetector, top.choice("centerline", ("svm", "cnn"), _FIRST_DETECTOR)),
    )
    _refuse_ambiguous(pack, path)
    return pack


def pack_digest(pack: Pack) -> str:
    """Give one sha256 for all files of a pack, for records: that of their sorted digests, one a line."""
    digests = sorted({item.sha256 for item in pack.items})
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class FileCheck:
    """What `verify_pack` found out about one file; an empty problem means that it is fine."""

    file: str
    problem: str


def verify_pack(pack: Pack, *, load: bool = True) -> tuple[FileCheck, ...]:
    """Check every file of a pack.

    Parameters
    ----------
    pack : the pack
    load : also load each network with onnxruntime, and compare its input with what pack.toml says

    Returns
    -------
    checks : one for each file, in the order of pack.toml
    """
    checks = []
    for item in pack.items:
        problem = ""
        try:
            if isinstance(item, SvmModel):
                read_svm(item)
            else:
                content = checked_bytes(item)
                if load:
                    problem = shape_problem(item, onnx_shapes(content))
        except NetworkError as error:
            problem = str(error)
        checks.append(FileCheck(item.path.name, problem))
    return tuple(checks)


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # "~somebody" without a home is an ordinary name
        return Path(text)


def _entries() -> list[str]:
    return [entry for entry in os.environ.get("FASTSEG_PACKS", "").split(os.pathsep) if entry.strip()]


def _pack_folders() -> list[Path]:
    """Folders with a pack.toml on the search path, each once; hidden ones are half-made imports."""
    found: dict[Path, Path] = {}
    for root in search_path():
        try:
            folders = sorted(root.iterdir())
        except OSError:  # a folder that is not there, or not ours to read, holds no packs
            continue
        for folder in folders:
            if not folder.name.startswith(".") and (folder / "pack.toml").is_file():
                found.setdefault(folder.resolve(), folder)
    return list(found.values())


def _refuse_ambiguous(pack: Pack, path: Path) -> None:
    if not pack.networks and not pack.svm_models:
        raise NetworkError(f"{path}: it holds no [[network]] and no [[svm]]: {AGAIN}")
    purposes = [(str(n.role), c) for n in pack.networks for c in n.contrasts]
    purposes += [("svm", m.contrast) for m in pack.svm_models]
    for kind, contrast in purposes:
        if purposes.count((kind, contrast)) > 1:
            raise NetworkError(f"{path}: two files are {kind} for contrast {contrast}: keep one of them")


def _in_order(contrasts: Iterable[str]) -> list[str]:
    return sorted(contrasts, key=(*CONTRASTS, ANY_CONTRAST).index)
