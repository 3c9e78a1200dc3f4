"""One table of pack.toml, read key by key, with errors that say where and what."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from fastseg.errors import NetworkError
from fastseg.networks.network import ANY_CONTRAST, CONTRASTS

__all__ = ["AGAIN", "Table"]

#: The remedy for whatever is wrong in a pack.toml.
AGAIN = "correct it, or import the pack again"


class Table:
    """One table of pack.toml; ``where`` names it in errors.

    Every method raises NetworkError when a key is missing or its value is not what it should be.
    """

    def __init__(self, values: Mapping[str, object], where: str) -> None:
        self._values = values
        self._where = where

    def error(self, problem: str) -> NetworkError:
        """Make the error for this table."""
        return NetworkError(f"{self._where}: {problem}: {AGAIN}")

    def text(self, key: str, default: str | None = None) -> str:
        """Read a text."""
        value = self._values.get(key, default) if default is not None else self._get(key)
        if not isinstance(value, str):
            raise self.error(f"{key!r} is not a text")
        return value

    def choice(self, key: str, allowed: tuple[str, ...], default: str | None = None) -> str:
        """Read one of some texts."""
        value = self.text(key, default)
        if value not in allowed:
            raise self.error(f"{key!r} is {value!r} and not one of {', '.join(allowed)}")
        return value

    def number(self, key: str) -> float:
        """Read a finite number."""
        return self._number(key, self._get(key))

    def number_or_none(self, key: str) -> float | None:
        """Read a finite number that may be missing."""
        return self.number(key) if key in self._values else None

    def sizes(self, key: str) -> tuple[int, ...]:
        """Read a list of sizes; 0 stands for any."""
        value = self._get(key)
        if not isinstance(value, list) or not all(type(n) is int and 0 <= n <= 4096 for n in value):
            raise self.error(f"{key!r} is not a list of sizes")
        return tuple(value)

    def contrasts(self, key: str) -> tuple[str, ...]:
        """Read a list of contrasts, at least one; ``auto`` stands for one that is not given."""
        value, known = self._get(key), (*CONTRASTS, ANY_CONTRAST)
        if not isinstance(value, list) or not value or not all(c in known for c in value):
            raise self.error(f"{key!r} is not a list of contrasts ({', '.join(known)})")
        return tuple(dict.fromkeys(value))

    def thresholds(self, contrasts: tuple[str, ...]) -> dict[str, float]:
        """Read the threshold of every contrast."""
        value = self._get("thresholds")
        if not isinstance(value, dict) or any(c not in value for c in contrasts):
            raise self.error("'thresholds' does not give a number for every contrast")
        result = {c: self._number("thresholds", value[c]) for c in contrasts}
        if not all(0 <= number <= 1 for number in result.values()):
            raise self.error("a threshold is not between 0 and 1")
        return result

    def sha256(self) -> str:
        """Read a digest."""
        value = self.text("sha256")
        if len(value) != 64 or not set(value) <= set("0123456789abcdef"):
            raise self.error("'sha256' is not 64 hexadecimal digits in lower case")
        return value

    def file(self, folder: Path) -> Path:
        """Read the name of a file of the pack's own folder, and see that it is there.

        A link is followed: what it leads to still has to have the right digest.
        """
        value = self.text("file")
        if not value or value.startswith(".") or any(c in value for c in "/\\:\0"):
            raise self.error(f"'file' is {value!r} and not the name of a file in the pack's own folder")
        path = folder / value
        if not path.is_file():
            raise NetworkError(f"{path} is missing, though pack.toml names it: import the pack again")
        return path

    def tables(self, key: str) -> list[Table]:
        """Read an array of tables, which may be missing."""
        value = self._values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.error(f"{key!r} is not written as [[{key}]]")
        return [Table(item, f"{self._where}: [[{key}]] {i + 1}") for i, item in enumerate(value)]

    def table_or_none(self, key: str) -> Table | None:
        """Read a table inside this one, which may be missing."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.error(f"{key!r} is not a table")
        return Table(value, f"{self._where}: {key}")

    def named(self, key: str, allowed: tuple[str, ...]) -> dict[str, Table]:
        """Read tables inside a table, by name; it may be missing."""
        value = self._values.get(key, {})
        if not isinstance(value, dict) or not all(isinstance(item, dict) for item in value.values()):
            raise self.error(f"{key!r} is not a table of tables")
        unknown = [name for name in value if name not in allowed]
        if unknown:
            raise self.error(f"{key!r} has {unknown[0]!r}, which is not one of {', '.join(allowed)}")
        return {name: Table(item, f"{self._where}: {key}.{name}") for name, item in value.items()}

    def _get(self, key: str) -> object:
        if key not in self._values:
            raise self.error(f"{key!r} is missing")
        return self._values[key]

    def _number(self, key: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(f"{key!r} is not a number")
        # TOML's integers have no largest one; abs() compares without converting.
        if not abs(value) <= sys.float_info.max:
            raise self.error(f"{key!r} is not a finite number")
        return float(value)
