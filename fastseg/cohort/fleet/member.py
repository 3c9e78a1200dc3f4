"""One process of a fleet as its parent sees it: started, spoken to, listened to, ended.

Processes are spawned, never forked: a CUDA driver that was touched before does not outlive a fork. What a
child says is mail of the parent, whose end of the connection only one thread writes to.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from queue import SimpleQueue

from fastseg.cohort.fleet.worker import PARTING, Says, Share, work
from fastseg.cohort.job import Job
from fastseg.cohort.stream.stream import Told
from fastseg.engines.compute import Compute

__all__ = ["Feed", "Log", "Mail", "Member"]

#: What comes from a member or a feed, and from whom. None from either: it has ended.
Mail = SimpleQueue[tuple[object, object]]

# Lines of the log that are remembered, so that all processes together say them once.
_LINES = 256


class Log(logging.Handler):
    """Says what processes say, but for what another one, or the parent itself, has just said.

    It hears the parent as a handler of its log.
    """

    def __init__(self) -> None:
        super().__init__()
        self._said: deque[tuple[object, Says]] = deque(maxlen=_LINES)
        self._saying = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        """Remember what is said here."""
        if not hasattr(record, "process_of_fleet"):
            with self._saying:
                self._said.append((None, Says(record.name, record.levelno, record.getMessage())))

    def say(self, who: object, line: Says) -> None:
        """Log a line of a process; ``who`` tells one from the other."""
        with self._saying:
            if any(said == line and other != who for other, said in self._said):
                return
            self._said.append((who, line))
        logging.getLogger(line.logger).log(line.level, "%s", line.text, extra={"process_of_fleet": who})


class Member:
    """A process of a fleet, from its start to its end.

    Parameters
    ----------
    label : names it for people: a GPU
    compute : what it runs networks on
    share : how it works; its manner's tag is that of no other process
    mail : gets what it sends, and None when it has ended
    log : gets what it logs
    """

    def __init__(self, label: str, compute: Compute, share: Share, mail: Mail, log: Log) -> None:
        self.label, self.tag = label, share.manner.tag
        self._mail, self._log = mail, log
        spawn = multiprocessing.get_context("spawn")
        self._connection, theirs = spawn.Pipe()
        self._process = spawn.Process(
            target=work, args=(theirs, compute, _levels()), name=f"fastseg {label}", daemon=True
        )
        with _parting_signals_held():
            self._process.start()
        # At exit multiprocessing asks its processes to end, which these ignore, and waits for them.
        atexit.register(self._process.kill)
        theirs.close()  # else its end would never be heard
        self.tell(share)
        threading.Thread(target=self._listen, name=label, daemon=True).start()

    def tell(self, message: object) -> None:
        """Send a message; that the process has died meanwhile is heard by mail."""
        with suppress(OSError):
            self._connection.send(message)

    def _listen(self) -> None:
        try:
            while True:
                message = self._connection.recv()
                if isinstance(message, Says):
                    self._log.say(self.label, message)
                else:
                    self._mail.put((self, message))
        except (EOFError, OSError):
            self._mail.put((self, None))

    def join(self, seconds: float) -> str:
        """Wait for the end of the process, then bring it about, whatever it does; gives how it ended."""
        self._process.join(seconds)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        atexit.unregister(self._process.kill)
        code = self._process.exitcode or 0
        if code >= 0:
            return f"ended with exit code {code}"
        with suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
        return f"was killed by signal {-code}"


def _levels() -> dict[str, int]:
    """From which levels on fastseg's loggers say something here."""
    known = logging.root.manager.loggerDict.items()
    own = {
        name: logger.level for name, logger in known if isinstance(logger, logging.Logger) and logger.level
    }
    return {name: level for name, level in own.items() if name.startswith("fastseg.")} | {
        "fastseg": logging.getLogger("fastseg").getEffectiveLevel()
    }


@contextmanager
def _parting_signals_held() -> Iterator[None]:
    """Let a process that starts inside the block hear nothing of a Ctrl-C before it can ignore it."""
    resource_tracker.ensure_running()  # to start it, the first process would let the signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, PARTING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Feed:
    """Takes jobs from their source, which may be slow or never end, a few ahead of need.

    Parameters
    ----------
    jobs : the source; what is told among them comes by mail too
    mail : gets them, None at their end, or what they raise
    ahead : how many may be taken that nobody has asked for yet
    """

    def __init__(self, jobs: Iterable[Job | Told], mail: Mail, ahead: int) -> None:
        self._jobs, self._mail = jobs, mail
        self._room = threading.Semaphore(ahead)
        self._closed = False
        threading.Thread(target=self._run, name="jobs", daemon=True).start()

    def _run(self) -> None:
        try:
            self._room.acquire()
            for each in self._jobs:
                self._mail.put((self, each))
                self._room.acquire()
                if self._closed:
                    return
            self._mail.put((self, None))
        except BaseException as error:  # the thread that takes the outcomes raises it
            self._mail.put((self, error))

    def more(self) -> None:
        """Note that one of them is dealt with."""
        self._room.release()

    def close(self) -> None:
        """Take no more."""
        self._closed = True
        self._room.release()
