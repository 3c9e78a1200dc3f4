"""fastseg qc serve and open; build is in test_qc_build.py."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from fastseg import serving
from fastseg.cli import Exit
from fastseg.qc.entry import detail_of, row_of
from fastseg.qc.report import Report
from tests.phantom_files import fastseg
from tests.unit.viewer.page_client import hear_ctrl_c

# Far more than anything here takes: only a hang meets it.
_PATIENCE = 300.0
_QUIET = {"SSH_CONNECTION": "", "DISPLAY": ":99", "BROWSER": "true"}


@pytest.fixture
def report(tmp_path: Path) -> Path:
    folder = tmp_path / "out" / "qc"
    with Report(folder) as made:
        mask = tmp_path / "a_seg.nii.gz"
        row = row_of(name="a.nii.gz", mask=mask, dataset="d", contrast="t2", status="no_cord")
        made.add(row, detail_of(image=None, mask=mask, manual=mask), None)
    return folder


class _Served:
    """A server as a user starts it; its address is on stdout."""

    def __init__(self, *words: object, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fastseg", "qc", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | _QUIET | environment,
            preexec_fn=hear_ctrl_c,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        assert select.select([self.process.stdout], [], [], _PATIENCE)[0], "no address"
        self.url = self.process.stdout.readline().strip()
        self.said = ""
        while "Ctrl-C ends it" not in self.said:  # the last that it says
            line = self.process.stderr.readline()
            assert line, f"it ended: {self.said}"
            self.said += line

    def end(self) -> tuple[int, str]:
        """Press Ctrl-C; gives exit code and stderr."""
        self.process.send_signal(signal.SIGINT)
        with self.process:
            code = self.process.wait(_PATIENCE)
            assert self.process.stderr is not None
            return code, self.said + self.process.stderr.read()


def test_report_is_served_until_ctrl_c(report: Path) -> None:
    served = _Served("serve", report)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{20,}/", served.url)
    with urlopen(served.url, timeout=_PATIENCE) as page:
        assert b"fastseg" in page.read()
    with (
        pytest.raises(HTTPError, match="404"),
        urlopen(served.url.rsplit("/", 2)[0] + "/", timeout=_PATIENCE),
    ):
        pass
    code, err = served.end()
    assert code == Exit.OK
    assert "Traceback" not in err
    assert "Ctrl-C ends it" in err
    assert "ssh" not in err


def test_over_ssh_the_tunnel_command_is_printed_and_no_browser_opened(report: Path, tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    served = _Served("open", report, SSH_CONNECTION="10.0.0.1 5 10.0.0.2 22", BROWSER=f"touch {opened}")
    port = served.url.split(":")[2].split("/")[0]
    code, err = served.end()
    assert code == Exit.OK
    assert f"ssh -N -L {port}:127.0.0.1:{port} " in err
    assert not opened.exists()


def test_open_shows_the_address_in_the_browser(report: Path, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {seen}.part && mv {seen}.part {seen}\n')
    browser.chmod(0o755)
    served = _Served("open", report.parent, BROWSER=str(browser))  # the output folder of the report
    until = time.monotonic() + _PATIENCE
    while not seen.exists() and time.monotonic() < until:
        time.sleep(0.05)
    served.end()
    assert seen.read_text() == served.url


def test_open_says_what_to_do_where_no_browser_opens(report: Path) -> None:
    served = _Served("open", report, BROWSER="/nonexistent/browser", PATH="/nonexistent")
    _, err = served.end()
    assert "no browser could be opened; open the address above in one" in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_marks_of_a_read_only_report_are_said_to_stay_in_the_browser(report: Path) -> None:
    report.chmod(0o555)
    served = _Served("serve", report)
    with urlopen(served.url + "served.json", timeout=_PATIENCE) as reply:
        assert b'"marks": false' in reply.read()
    assert "marks are kept in the browser alone" in served.end()[1]


def test_ctrl_c_ends_it_well_also_before_all_is_said(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(url: str) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(serving, "is_remote", lambda: False)
    monkeypatch.setattr(serving, "open_browser", pressed)
    code, out, err = fastseg("qc", "open", report)
    assert (code, err) == (Exit.OK, "fastseg: no longer served\n")
    assert out.startswith("http://127.0.0.1:")


def test_port_can_be_chosen_and_one_that_is_taken_is_a_usage_error(report: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = fastseg("qc", "serve", report, "--port", port)
        assert code == Exit.USAGE
        assert err.startswith(f"fastseg: error: port {port}: cannot be had")
        assert err.count("\n") == 1
    served = _Served("serve", report, "--port", port)
    served.end()
    assert f":{port}/" in served.url


def test_folder_without_a_report_is_told_how_to_get_one(tmp_path: Path) -> None:
    place = tmp_path / "my study"
    for folder in (place, place / "missing"):
        folder.parent.mkdir(exist_ok=True)
        code, out, err = fastseg("qc", "serve", folder)
        assert (code, out) == (Exit.NOTHING_MATCHED, "")
        assert err == f"fastseg: error: {folder}: no QC report there; make one: fastseg qc build '{folder}'\n"


def test_report_of_another_version_is_refused_in_one_line(report: Path) -> None:
    record = report / "report.json"
    record.write_text(record.read_text().replace('"version": 1', '"version": 99'))
    code, _, err = fastseg("qc", "serve", report)
    assert code == Exit.NONE_SUCCEEDED
    assert "layout 99" in err
    assert err.count("\n") == 1


def test_help_of_the_group_names_its_commands_and_stays_light() -> None:
    code = "import sys; from fastseg.cli import main\ntry: main(['qc', '--help'])\nexcept SystemExit: pass\n"
    code += "print(sorted({'numpy', 'PIL', 'nibabel', 'http.server'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=_PATIENCE
    )
    assert all(name in done.stdout for name in ("build", "open", "serve"))
    assert done.stdout.splitlines()[-1] == "[]"
