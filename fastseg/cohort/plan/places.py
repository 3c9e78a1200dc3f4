"""Where outputs really lie: that no two are one file, none is an input, and that they can be written.

Of 100,000 volumes, so folders are looked at once each, and files not at all.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fastseg.errors import OptionError, OutputError
from fastseg.outputs import Kind, Outputs

__all__ = ["Claims", "Folders"]


@dataclass(frozen=True, slots=True)
class _Place:
    """A folder: where it really is, and the nearest of it and those above it that exists."""

    real: Path
    standing: Path


class Folders:
    """Where folders really are: each is looked at once, however many files it is asked for."""

    def __init__(self) -> None:
        self._places: dict[Path, _Place] = {}
        self._links: dict[Path, dict[str, str]] = {}
        self._writable: set[Path] = set()
        self._reals: dict[str, str] = {}

    def real(self, folder: Path) -> Path:
        """Absolute path of a folder, which need not exist, without symbolic links.

        Examples
        --------
        >>> Folders().real(Path("/no/such/../folder")).as_posix()
        '/no/folder'
        """
        return self._look(folder).real

    def real_file(self, path: str) -> str:
        """Absolute path of a file, which need not exist, without symbolic links."""
        above, name = os.path.split(path)
        if name in ("", ".", "..") or os.path.islink(path):  # noqa: PTH114  of 100,000 strings
            return os.path.realpath(path)
        if above not in self._reals:
            self._reals[above] = str(self.real(Path(above))).rstrip(os.sep)
        return f"{self._reals[above]}{os.sep}{name}"

    def links(self, folder: Path) -> dict[str, str]:
        """Symbolic links in a folder by name, with the real paths of what they lead to."""
        place = self._look(folder)
        if place.real not in self._links:
            found: dict[str, str] = {}
            if place.real == place.standing:
                # Where this fails, nothing can be written either, and check_writable says so.
                with suppress(OSError), os.scandir(place.real) as entries:
                    found = {each.name: os.path.realpath(each.path) for each in entries if each.is_symlink()}
            self._links[place.real] = found
        return self._links[place.real]

    def check_writable(self, folder: Path) -> None:
        """Refuse a folder that cannot be made or written, before time is spent; nothing is made yet.

        Raises
        ------
        OutputError
            A file or a dangling link is in the way, or the permission is missing.
        """
        standing = self._look(folder).standing
        if standing in self._writable:
            return
        if standing.is_symlink():
            raise OutputError(f"{standing}: is a link that leads nowhere; choose another output folder")
        if not standing.is_dir():
            raise OutputError(f"{standing}: is a file where a folder is needed; choose another output folder")
        if not os.access(standing, os.W_OK | os.X_OK):
            raise OutputError(f"{standing}: no permission to write there; choose another output folder")
        self._writable.add(standing)

    def _look(self, folder: Path) -> _Place:
        place = self._places.get(folder)
        if place is None:
            # Only what really is there tells where x/.. leads.
            absolute = folder.resolve() if ".." in folder.parts else folder.absolute()
            place = self._places[folder] = self._look_at(absolute)
        return place

    def _look_at(self, absolute: Path) -> _Place:
        place = self._places.get(absolute)
        if place is None:
            above = absolute.parent
            if above == absolute:
                place = _Place(absolute, absolute)
            else:
                place = self._below(self._look_at(above), absolute.name)
            self._places[absolute] = place
        return place

    def _below(self, parent: _Place, name: str) -> _Place:
        path = parent.real / name
        if parent.real != parent.standing:
            return _Place(path, parent.standing)
        try:
            mode = path.lstat().st_mode
        except OSError:
            return _Place(path, parent.standing)
        if not stat.S_ISLNK(mode):
            return _Place(path, path)
        real = Path(os.path.realpath(path))  # Path.resolve raises on a loop of links
        return _Place(real, real if real.exists() and not real.is_symlink() else path)


class Claims:
    """What is read and what will be written, so that nothing is written twice or over an input.

    Parameters
    ----------
    kinds : of outputs that will be written
    folders : those that are known already
    inputs : real paths of files that are read
    """

    def __init__(self, kinds: Sequence[Kind], folders: Folders, inputs: Iterable[str] = ()) -> None:
        self._kinds = kinds
        self._folders = folders
        self._inputs = set(inputs)
        self._writers: dict[str, str] = {}
        # By names without case: on some file systems that is all that counts.
        self._folded = {path.casefold(): path for path in self._inputs}
        self._folder: Path | None = None
        self._real = ""
        self._links: dict[str, str] = {}

    def read(self, real: str) -> None:
        """Say that a file is read, by its real path."""
        self._inputs.add(real)
        self._folded.setdefault(real.casefold(), real)

    def write(self, label: str, outputs: Outputs) -> None:
        """Say that outputs will be written.

        Parameters
        ----------
        label : what the user calls the input
        outputs : its own; all of the kinds that are written, or none, are taken as claimed

        Raises
        ------
        OptionError
            Another input writes one of them, or one of them is an input.
        """
        if outputs.folder is not self._folder:  # volumes of a folder come one after the other
            self._folder = outputs.folder
            self._real = str(self._folders.real(outputs.folder)).rstrip(os.sep)
            self._links = self._folders.links(outputs.folder)
        paths = []
        for name in outputs.names(self._kinds):
            path = self._links.get(name) or f"{self._real}{os.sep}{name}"
            known = self._same_file(path)
            if known in self._inputs:
                raise OptionError(
                    f"{outputs.folder / name} is an input and would be overwritten: choose another -o"
                )
            if known is not None:
                raise OptionError(
                    f"{self._writers[known]} and {label} would both write {outputs.folder / name}: "
                    "run them with different -o"
                )
            paths.append(path)
        for path in paths:
            self._writers[path] = label
            self._folded.setdefault(path.casefold(), path)

    def _same_file(self, path: str) -> str | None:
        """Path by which this file is known already, as an input or an output."""
        if path in self._inputs or path in self._writers:
            return path
        twin = self._folded.get(path.casefold())
        return twin if twin is not None and _is_one_file(Path(path), Path(twin)) else None


def _is_one_file(path: Path, twin: Path) -> bool:
    """Whether two paths that differ in case are one, or would be if they existed."""
    if os.path.lexists(path) or os.path.lexists(twin):
        return path.exists() and twin.exists() and path.samefile(twin)
    folder = next(above for above in path.parents if above.is_dir())
    with suppress(OSError):
        # What exists tells: under the other spelling it is there too, or it is not.
        for known in (*folder.iterdir(), folder):
            if known.name.swapcase() != known.name:
                other = known.with_name(known.name.swapcase())
                return other.exists() and other.samefile(known)
    return False
