"""Which report a folder holds: ``report.json`` is made once, and says it for good."""

from __future__ import annotations

import datetime
import json
import os
import uuid
from pathlib import Path
from typing import Any

from fastseg.errors import OutputError
from fastseg.qc.journal import temporary

__all__ = ["VERSION", "identify", "identity"]

#: Of the layout of a report's folder.
VERSION = 1


def identify(folder: Path) -> None:
    """Make report.json where there is none, so that of several processes one makes it; check it otherwise.

    Raises
    ------
    OutputError
        The folder holds something else, or a report of another version.
    OSError
        It cannot be written.
    """
    path = folder / "report.json"
    if not path.exists():
        if (folder / "index.html").exists():
            raise OutputError(f"{folder}: holds an index.html that is not fastseg's; choose another folder")
        made = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        part = temporary(folder)
        part.write_text(json.dumps({"version": VERSION, "uuid": str(uuid.uuid4()), "made": made}) + "\n")
        try:
            os.link(part, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            if not path.exists():
                part.replace(path)
        part.unlink(missing_ok=True)
    identity(folder)


def identity(folder: Path) -> dict[str, Any]:
    """What report.json says: ``version``, ``uuid``, and when it was ``made``.

    Raises
    ------
    OutputError
        It is no report, or one of another version.
    """
    path = folder / "report.json"
    try:
        record = json.loads(path.read_bytes())
        said = {"version": record["version"], "uuid": str(record["uuid"]), "made": str(record["made"])}
    except FileNotFoundError as error:
        raise OutputError(f"{folder}: is no report, it has no report.json; make one with --qc") from error
    except OSError as error:
        raise OutputError(f"{path}: cannot be read ({error.strerror}); mend its permissions") from error
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise OutputError(f"{path}: is not fastseg's; remove it, or choose another folder") from error
    if said["version"] != VERSION:
        raise OutputError(
            f"{folder}: is a report of layout {str(said['version'])[:20]}, and this fastseg makes layout "
            f"{VERSION}; choose another folder, or use the fastseg that made it"
        )
    return said
