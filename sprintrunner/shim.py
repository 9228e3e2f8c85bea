"""The small program between Sprint Runner and one agent: starts it, keeps its output, ends its whole tree.

Run by file path with ``python -I -S``; the parameters come marshalled on stdin, so that no prompt and no
secret stands in an argument list. Only modules that cost nothing to import are used: ``signal`` and ``json``
would double the time to start.
"""

from __future__ import annotations

import marshal
import os
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Iterable, Mapping
    from typing import Any
else:
    import _signal as signal

#: Variable that marks every process of one run.
MARKER = "SPRINTRUNNER_RUN_ID"
#: Bytes on the lifeline, server to shim; after GO any byte means STOP, and the end that the server died.
GO, STOP = b"g", b"s"
#: Bytes on the wake pipe, shim to server: there is new output; the verdict follows up to the end of file.
WAKE, VERDICT = b"o", b"x"

CHUNK = 1 << 16
OUT_KEEP, ERR_KEEP = 1 << 20, 1 << 16
#: Seconds that output may still come once the agent has ended (a stranger may hold its stdout).
DRAIN = 2.0
#: Seconds after the first SIGKILL until whoever is left is reported as a survivor.
SWEEP = 2.0
#: Seconds between two looks at the process table while killing.
ROUND = 0.02
NEVER = float("inf")
PR_SET_CHILD_SUBREAPER = 36
#: Ignored or handled here, or by Python itself; the agent must start with the defaults.
IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
RESTORED = (*IGNORED, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ)


def read_proc(pid: int, name: str) -> bytes:
    """Return the content of ``/proc/<pid>/<name>``; empty when the process is gone or not ours to see."""
    try:
        with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:  # noqa: PTH123 - pathlib is slow
            return file.read() or b""
    except OSError:
        return b""


def stat_of(pid: int) -> list[bytes]:
    """Return the fields of ``/proc/<pid>/stat`` from the state on (proc(5): field n is index n - 3)."""
    # The name in parentheses may itself hold spaces and parentheses.
    return read_proc(pid, "stat").rpartition(b")")[2].split()


def all_pids() -> list[int]:
    """Return the ids of all processes; none where there is no ``/proc``."""
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - pathlib is slow
    except OSError:
        return []


def descendants(root: int) -> list[int]:
    """Return every living or unreaped process below ``root``, parents before children."""
    children: dict[int, list[int]] = {}
    for pid in all_pids():
        fields = stat_of(pid)
        if fields:
            children.setdefault(int(fields[1]), []).append(pid)
    found = list(children.get(root, ()))
    for pid in found:  # grows while it is walked
        found.extend(children.get(pid, ()))
    return found


def marked(run_id: str) -> list[int]:
    """Return the processes whose start environment carries the marker of ``run_id``."""
    needle = b"\0%s=%s\0" % (MARKER.encode(), run_id.encode())
    return [pid for pid in all_pids() if needle in b"\0" + read_proc(pid, "environ") + b"\0"]


def send(pids: Iterable[int], number: int) -> None:
    """Send a signal to each process; those that are gone or not ours are passed over."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


def become_subreaper() -> None:
    """Have orphaned descendants handed to this process (Linux); elsewhere the marker scan must do."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    except (ImportError, AttributeError, OSError):
        return


def quoted(value: object) -> str:
    """Return one verdict value as JSON."""
    if not isinstance(value, str):
        return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))
    text = value.encode("utf-8", "replace").decode()
    return '"' + "".join(f"\\u{ord(c):04x}" if c < " " or c in '"\\' else c for c in text) + '"'


def sentence(error: Exception, program: str) -> str:
    """Return what went wrong, and with which file."""
    if not isinstance(error, OSError):
        return f"{type(error).__name__}: {error}"
    return f"{error.filename or program}: {error.strerror or error}"


class Keeper:
    """One output file (0600): its first ``cap - keep`` bytes as they come, its last ``keep`` at the end."""

    def __init__(self, path: str, cap: int, keep: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW
        self.fd = os.open(path, flags, 0o600)
        self.keep = min(keep, cap)
        self.room = cap - self.keep
        self.tail = bytearray()
        self.dropped = 0

    def add(self, data: bytes) -> None:
        """Append while there is room; keep the newest bytes in memory after that."""
        written = self.append(data[: self.room])
        self.room = self.room - written if written == len(data) else 0
        if written < len(data):
            self.tail += data[written:]
            # Seldom and much at a time: each cut moves what is kept.
            if len(self.tail) > 2 * self.keep:
                self.forget(len(self.tail) - self.keep)

    def append(self, data: bytes) -> int:
        """Return how many bytes the disk took; a full one must not stop the agent or its supervision."""
        done = 0
        try:
            while done < len(data):
                done += os.write(self.fd, data[done:])
        except OSError:
            pass
        return done

    def forget(self, count: int) -> None:
        """Drop the oldest bytes of the tail."""
        del self.tail[:count]
        self.dropped += count

    def close(self) -> None:
        """Write the tail, with a line that says what is missing before it."""
        self.forget(max(0, len(self.tail) - self.keep))
        if self.dropped:
            # The tail begins with a whole line where it holds one.
            self.forget(self.tail.find(b"\n", 0, -1) + 1)
            note = f"\n[sprintrunner: {self.dropped} bytes of output left out here]\n"
            self.append(note.encode())
        self.dropped += len(self.tail) - self.append(bytes(self.tail))
        os.close(self.fd)


class Shim:
    """One supervised run, from the go byte to the verdict."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self.told = told
        self.lifeline, self.wake = told["lifeline"], told["wake"]
        self.agent = self.survivors = 0
        self.status: int | None = None
        self.reason = ""
        self.error: str | None = None
        self.deadline = NEVER
        self.keepers: list[Keeper] = []
        self.readers: dict[int, Keeper] = {}
        self.poll = select.poll()
        self.started_at = self.started = 0.0
        # The agent must not hold a copy: then nobody would ever see the other end of the pipe go.
        for fd in (self.lifeline, self.wake):
            os.set_inheritable(fd, False)
        os.set_blocking(self.wake, False)
        self.poll.register(self.lifeline, select.POLLIN)
        self.listen_to_signals()
        become_subreaper()

    def listen_to_signals(self) -> None:
        """Turn SIGCHLD and SIGTERM into bytes on a pipe; a Ctrl-C or hang-up is the server's business."""
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)
        self.signals, writer = os.pipe()
        os.set_blocking(self.signals, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        self.poll.register(self.signals, select.POLLIN)

    def wait_for_go(self) -> bool:
        """Return True at the go byte; False at anything else, and then the agent must never run."""
        while not self.reason:
            for fd, _ in self.poll.poll():
                if fd == self.lifeline:
                    return os.read(self.lifeline, 1) == GO
                self.take_signals()
        return False

    def run(self) -> None:
        """Start the agent, see it through to its end, leave nothing of its tree, write the verdict."""
        self.started_at, self.started = time.time(), time.monotonic()
        try:
            self.start()
            self.attend()
        except Exception as error:  # whatever it is, the tree must still end and the verdict be told
            self.error = sentence(error, self.told["argv"][0])
        self.sweep()
        self.drain()
        self.finish()

    def start(self) -> None:
        """Execute the agent in a process group of its own, with pipes that this process drains."""
        told = self.told
        ends = [os.open(told["stdin"] or os.devnull, os.O_RDONLY)]
        for name, keep in (("out", OUT_KEEP), ("err", ERR_KEEP)):
            self.keepers.append(Keeper(told[f"{name}_path"], told[f"{name}_cap"], keep))
            reader, writer = os.pipe()
            self.readers[reader] = self.keepers[-1]
            self.poll.register(reader, select.POLLIN)
            ends.append(writer)
        try:
            self.agent = self.execute([(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(ends)])
        finally:
            for fd in ends:
                os.close(fd)

    def execute(self, actions: list[tuple[int, int, int]]) -> int:
        """Return the agent's pid. Raises OSError when the program cannot be executed."""
        argv, env = self.told["argv"], self.told["env"]
        # posix_spawnp looks for the program on the caller's PATH, not on that of the new environment.
        os.environ["PATH"] = env.get("PATH", os.defpath)
        # A group, not a session: the session stays the shim's and marks the tree once the shim is gone.
        return os.posix_spawnp(argv[0], argv, env, file_actions=actions, setpgroup=0, setsigdef=RESTORED)

    def attend(self) -> None:
        """Keep output and listen until the agent has ended or its grace is over."""
        while self.status is None and time.monotonic() < self.deadline:
            self.turn(self.deadline)

    def turn(self, until: float) -> None:
        """Wait until that moment at most, and handle what happened."""
        patience = max(0.0, until - time.monotonic()) * 1000 + 1
        for fd, _ in self.poll.poll(None if until == NEVER else patience):
            if fd == self.signals:
                self.take_signals()
            elif fd == self.lifeline:
                self.take_order()
            else:
                self.take_output(fd)

    def take_signals(self) -> None:
        """SIGTERM ends the tree; SIGCHLD lets the dead be reaped."""
        numbers = os.read(self.signals, CHUNK)
        if signal.SIGTERM in numbers:
            self.end("stop")
        self.reap()

    def take_order(self) -> None:
        """A stop byte, or the end of file that the kernel makes when the server dies, whatever killed it."""
        order = os.read(self.lifeline, 1)
        if not order:
            self.poll.unregister(self.lifeline)
        self.end("stop" if order else "lifeline")

    def take_output(self, fd: int) -> None:
        """Move one chunk from the agent's pipe to its file, then wake the server."""
        keeper = self.readers[fd]
        data = os.read(fd, CHUNK)
        if data:
            keeper.add(data)
            self.tell(WAKE)
        else:
            self.poll.unregister(fd)
            os.close(fd)
            del self.readers[fd]

    def tell(self, data: bytes) -> None:
        """Write to the wake pipe; a full one holds wake-ups enough, a broken one has nobody to wake."""
        try:
            os.write(self.wake, data)
        except (BlockingIOError, BrokenPipeError):
            return

    def reap(self) -> bool:
        """Collect the dead; return whether any child, own or handed down, is left."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return True
                if pid == self.agent:
                    self.status = os.waitstatus_to_exitcode(status)
        except ChildProcessError:
            return False

    def tree(self, kin: bool = True) -> list[int]:
        """Return the processes of this run: the family, and by marker those that left it."""
        own = os.getpid()
        family = descendants(own) if kin else []
        return family + [pid for pid in marked(self.told["run_id"]) if pid != own and pid not in family]

    def end(self, reason: str) -> None:
        """Ask the whole tree to end; ``attend`` gives it the grace."""
        self.reap()
        if self.reason or self.status is not None:
            return
        self.reason = reason
        self.deadline = time.monotonic() + self.told["grace"]
        # Each process once, not the group besides: at a second SIGTERM some CLIs skip their clean-up.
        asked = self.tree() if self.agent else []
        send(asked, signal.SIGTERM)
        send(asked, signal.SIGCONT)

    def sweep(self) -> None:
        """Kill and reap until nothing of the tree is left, two seconds at most."""
        limit = time.monotonic() + SWEEP
        while self.agent:
            left = self.tree(self.reap())
            self.survivors = len(left)
            if not left or time.monotonic() > limit:
                return
            send(left, signal.SIGKILL)
            self.turn(time.monotonic() + ROUND)

    def drain(self) -> None:
        """Take what is still in the pipes, up to their end or for two seconds."""
        limit = time.monotonic() + DRAIN
        while self.readers and time.monotonic() < limit:
            self.turn(limit)
        for keeper in self.keepers:
            keeper.close()

    def finish(self) -> None:
        """Leave the verdict on disk, whole or not at all, and tell it."""
        verdict = self.verdict()
        write_whole(self.told["exit_path"], verdict)
        self.tell(VERDICT + verdict)

    def verdict(self) -> bytes:
        """Return the exit verdict as one JSON object."""
        code = self.status
        values = {
            "code": code if code is not None and code >= 0 else None,
            "signal": -code if code is not None and code < 0 else None,
            "ended_by": (self.reason or "itself") if self.agent else "not_started",
            "survivors": self.survivors,
            "truncated": bool(self.keepers and self.keepers[0].dropped),
            "started_at": int(self.started_at * 1000),
            "ended_at": int(time.time() * 1000),
            "seconds": round(time.monotonic() - self.started, 3),
            "error": self.error,
            "err_path": self.told["err_path"],
        }
        return ("{" + ", ".join(f'"{key}": {quoted(value)}' for key, value in values.items()) + "}").encode()


def write_whole(path: str, data: bytes) -> None:
    """Write a file so that a reader, or a crash at any instant, finds all of it or nothing."""
    draft = f"{path}.{os.getpid()}.tmp"
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        if os.write(fd, data) == len(data):
            os.fsync(fd)
            os.replace(draft, path)  # noqa: PTH105 - pathlib is slow
    except OSError:  # a full disk; the pipe still tells a living server
        return


def main() -> None:
    """Run; without the go byte, or with half the parameters, nothing is started and nothing written."""
    parts = iter(lambda: os.read(0, CHUNK), b"")
    shim = Shim(marshal.loads(b"".join(parts)))  # noqa: S302 - written by our own parent
    if shim.wait_for_go():
        shim.run()
    else:
        shim.tell(VERDICT + shim.verdict())


if __name__ == "__main__":
    main()
    # The interpreter's own clean-up would cost the server milliseconds of waiting.
    os._exit(0)
