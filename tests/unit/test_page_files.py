"""What the pages are written in: they have no build step that would translate it for older browsers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import fastseg

_PAGES = sorted(
    path for path in Path(fastseg.__file__).parent.glob("*/page/*") if path.suffix in (".js", ".css", ".html")
)


@pytest.mark.parametrize("path", _PAGES, ids=lambda path: f"{path.parts[-3]}-{path.name}")
@pytest.mark.parametrize(
    "pattern",
    [
        r"\(\?<[=!]",  # a regular expression that looks behind: all of the script would be refused
        r"@media[^{]*[<>]",  # ranges of widths
        r"\bstatic\s*\{",
        r"\.(findLast|toSorted|toReversed|toSpliced|groupBy|withResolvers)\(",
        r"\b(DecompressionStream|CompressionStream|OffscreenCanvas)\b",
        r"^\s*&[^&]",  # nested rules
    ],
    ids=["lookbehind", "media ranges", "static blocks", "new methods", "new classes", "nested rules"],
)
def test_pages_need_nothing_that_safari_16_and_firefox_115_lack(path: Path, pattern: str) -> None:
    assert not re.search(pattern, path.read_text(), re.MULTILINE)
