"""Writes a pack: whole or not at all, also when two imports run at once."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from fastseg.errors import NetworkError
from fastseg.networks.network import Network, SvmModel
from fastseg.networks.pack_toml import pack_toml
from fastseg.networks.packs import Pack, load_pack, search_path, user_folder, verify_pack

__all__ = ["check_name", "store_pack"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
# Others may store the same name at the same time; each turn means that one of them was faster.
_TURNS = 50


def check_name(name: str) -> None:
    """Refuse what cannot be the name of a pack's folder.

    Raises
    ------
    NetworkError
        The name has a path separator, a leading dot, or other unusual characters.

    Examples
    --------
    >>> check_name("sct-7.3")
    """
    if not _NAME.fullmatch(name):
        raise NetworkError(
            f"{name!r} cannot be the name of a pack: use letters, digits, '-', '_' and '.', "
            "and no dot at the start"
        )


def store_pack(pack: Pack, contents: Mapping[str, bytes], card: str, *, force: bool) -> tuple[bool, Pack]:
    """Write a pack into the first folder of FASTSEG_PACKS, else into the user's folder of packs.

    It is built in a hidden folder beside its place and then renamed, so nobody sees half a pack.

    Parameters
    ----------
    pack : what pack.toml shall say; its folder is not used
    contents : bytes of every file, by name
    card : text of MODEL_CARD.md
    force : replace another pack of this name

    Returns
    -------
    stored : False when the same pack was there already
    pack : the pack in its place

    Raises
    ------
    NetworkError
        The name is taken by something else, or the folder cannot be written.
    """
    check_name(pack.name)
    root = _root()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{pack.name}.", dir=root) as workshop:
            # A folder made by mkdir has the user's usual permissions; mkdtemp's is closed to others.
            built = Path(workshop) / pack.name
            built.mkdir()
            toml = pack_toml(pack).encode()
            for name, content in {**contents, "MODEL_CARD.md": card.encode(), "pack.toml": toml}.items():
                with (built / name).open("xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            whole = load_pack(built)
            with _one_at_a_time(root):
                stored = _publish(built, root / pack.name, pack, force=force)
    except OSError as error:
        raise NetworkError(
            f"the pack cannot be written into {root} ({error.strerror}): "
            "name a folder that you may write to in FASTSEG_PACKS"
        ) from error
    return stored, _moved(whole, root / pack.name)


def _moved(pack: Pack, folder: Path) -> Pack:
    return replace(
        pack,
        folder=folder,
        networks=tuple(replace(network, path=folder / network.path.name) for network in pack.networks),
        svm_models=tuple(replace(model, path=folder / model.path.name) for model in pack.svm_models),
    )


def _root() -> Path:
    first, *others = search_path()
    if not others and user_folder() is None:
        raise NetworkError("there is no folder for packs, because the user has no home: set FASTSEG_PACKS")
    return first


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Imports into one folder take turns; the lock dies with its process."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _publish(built: Path, target: Path, pack: Pack, *, force: bool) -> bool:
    for turn in range(_TURNS):
        if not os.path.lexists(target) or _is_empty(target):
            try:
                built.rename(target)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                continue
            return True
        if _is_same(target, pack):
            return False
        _refuse_unless_replaceable(target, force=force)
        aside = built.parent / f"replaced{turn}"
        with contextlib.suppress(FileNotFoundError):
            target.rename(aside)
        try:
            built.rename(target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                continue
            if os.path.lexists(aside):
                aside.rename(target)
            raise
        return True
    raise NetworkError(f"{target} is being changed by others: try again")


def _refuse_unless_replaceable(target: Path, *, force: bool) -> None:
    if not os.path.lexists(target):  # just moved away by somebody else
        return
    if not (target / "pack.toml").is_file():
        raise NetworkError(f"{target} is there and is no pack of networks: choose another --name")
    if not force:
        raise NetworkError(
            f"another pack is called {target.name!r} ({target}): choose another --name, "
            "or replace it with --force"
        )


def _is_same(target: Path, pack: Pack) -> bool:
    """Whether the same files, used in the same way, are there and undamaged."""
    try:
        there = load_pack(target)
    except NetworkError:
        return False
    damaged = any(check.problem for check in verify_pack(there, load=False))
    return not damaged and _without_folders(there) == _without_folders(pack)


def _without_folders(pack: Pack) -> tuple[str, list[Network | SvmModel]]:
    return pack.centerline, [replace(item, path=Path(item.path.name)) for item in pack.items]


def _is_empty(target: Path) -> bool:
    try:
        return target.is_dir() and not target.is_symlink() and not any(target.iterdir())
    except FileNotFoundError:  # just moved away by somebody else
        return False
