"""The small program between Sprint Runner and one agent: starts it, keeps its output, ends its whole tree.

Run by file path with ``python -I -S``; the parameters come marshalled on stdin, so that no prompt and no
secret stands in an argument list. Only modules that cost nothing to import are used: ``signal`` and ``json``
would double the time to start.
"""

from __future__ import annotations

import errno
import marshal
import os
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Iterable, Mapping
    from typing import Any
else:
    try:
        import _signal as signal
    except ImportError:
        import signal

#: Variable that marks every process of one run.
MARKER = "SPRINTRUNNER_RUN_ID"
#: Bytes on the lifeline, server to shim. Its end of file means that the server died.
GO, STOP = b"g", b"s"
#: Bytes on the wake pipe, shim to server: there is new output; the verdict follows up to the end of file.
WAKE, VERDICT = b"o", b"x"

CHUNK = 1 << 16
OUT_KEEP = 1 << 20
ERR_KEEP = 1 << 16
#: Seconds that output may still come once the agent has ended (a stranger may hold its stdout).
DRAIN = 2.0
#: Seconds after the first SIGKILL until whoever is left is reported as a survivor.
SWEEP = 2.0
#: Seconds between two looks at the process table while killing.
ROUND = 0.02
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


def group_of(pid: int) -> int:
    """Return the process group; 0 when the process is gone."""
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


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
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if not isinstance(value, str):
        return str(value)
    text = value.encode("utf-8", "replace").decode()
    return '"' + "".join(f"\\u{ord(c):04x}" if c < " " or c in '"\\' else c for c in text) + '"'


def sentence(error: OSError, program: str) -> str:
    """Return what went wrong, with the file it is about."""
    about = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else program
    return f"{about}: {os.strerror(error.errno)}" if error.errno else f"{about}: {error}"


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
        self.room -= written
        if written < len(data):
            self.room = 0
            self.tail += data[written:]
            self.trim(2 * self.keep)

    def append(self, data: bytes) -> int:
        """Return how many bytes the disk took; a full one must not stop the agent or its supervision."""
        done = 0
        try:
            while done < len(data):
                done += os.write(self.fd, data[done:])
        except OSError:
            pass
        return done

    def trim(self, most: int) -> None:
        """Forget the oldest bytes of the tail when it is longer than ``most``."""
        if len(self.tail) > most:
            surplus = len(self.tail) - self.keep
            del self.tail[:surplus]
            self.dropped += surplus

    def close(self) -> None:
        """Write the tail, with a line that says what is missing before it."""
        self.trim(self.keep)
        if self.dropped:
            self.skip_partial_line()
            note = f"\n[sprintrunner: {self.dropped} bytes of output left out here]\n"
            self.append(note.encode())
        if self.append(bytes(self.tail)) < len(self.tail):
            self.dropped += len(self.tail)
        os.close(self.fd)

    def skip_partial_line(self) -> None:
        """Begin the tail with a whole line where it holds one."""
        end = self.tail.find(b"\n", 0, -1) + 1
        del self.tail[:end]
        self.dropped += end


class Shim:
    """One supervised run, from the go byte to the verdict."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self.told = told
        self.lifeline: int = told["lifeline"]
        self.wake: int = told["wake"]
        self.agent = 0
        self.status: int | None = None
        self.reason = ""
        self.error: str | None = None
        self.deadline: float | None = None
        self.survivors = 0
        self.keepers: list[Keeper] = []
        self.readers: dict[int, Keeper] = {}
        self.poll = select.poll()
        self.started_at = self.started = 0.0
        self.hold_descriptors()
        self.listen_to_signals()
        become_subreaper()

    def hold_descriptors(self) -> None:
        """Keep both pipes out of the agent: with a copy of them nobody would ever see the other end go."""
        for fd in (self.lifeline, self.wake):
            os.set_inheritable(fd, False)
        os.set_blocking(self.wake, False)
        self.poll.register(self.lifeline, select.POLLIN)

    def listen_to_signals(self) -> None:
        """Turn SIGCHLD and SIGTERM into bytes on a pipe; a Ctrl-C or hang-up is the server's business."""
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
        except OSError as error:
            self.error = sentence(error, self.told["argv"][0])
        except Exception as error:  # whatever it is, the tree must still end and the verdict be told
            self.error = f"{type(error).__name__}: {error}"[:1000]
        finally:
            self.sweep()
            self.drain()
            self.finish()

    def start(self) -> None:
        """Execute the agent in a process group of its own, with pipes that this process drains."""
        told = self.told
        outs = [(told["out_path"], told["out_cap"], OUT_KEEP), (told["err_path"], told["err_cap"], ERR_KEEP)]
        stdin = os.open(told["stdin"] or os.devnull, os.O_RDONLY)
        actions = [(os.POSIX_SPAWN_DUP2, stdin, 0)]
        ends = [stdin]
        for target, (path, cap, keep) in enumerate(outs, start=1):
            self.keepers.append(Keeper(path, cap, keep))
            reader, writer = os.pipe()
            self.readers[reader] = self.keepers[-1]
            self.poll.register(reader, select.POLLIN)
            actions.append((os.POSIX_SPAWN_DUP2, writer, target))
            ends.append(writer)
        try:
            self.agent = self.execute(actions)
        finally:
            for fd in ends:
                os.close(fd)

    def execute(self, actions: list[tuple[int, int, int]]) -> int:
        """Return the agent's pid. Raises OSError when the program cannot be executed."""
        env: dict[str, str] = self.told["env"]
        # posix_spawnp looks for the program on the caller's PATH, not on that of the new environment.
        os.environ["PATH"] = env.get("PATH", os.defpath)
        argv = self.told["argv"]
        # A group, not a session: the session stays the shim's and marks the tree once the shim is gone.
        return os.posix_spawnp(
            argv[0], argv, env, file_actions=actions, setpgroup=0, setsigmask=(), setsigdef=RESTORED
        )

    def attend(self) -> None:
        """Keep output and listen until the agent has ended or its grace is over."""
        while self.status is None:
            patience = None if self.deadline is None else self.deadline - time.monotonic()
            if patience is not None and patience <= 0:
                return
            self.turn(patience)

    def turn(self, patience: float | None) -> None:
        """Wait at most ``patience`` seconds (None: for ever) and handle what happened."""
        for fd, _ in self.poll.poll(None if patience is None else patience * 1000 + 1):
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
            self.end("lifeline")
        elif order == STOP:
            self.end("stop")

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
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EPIPE):
                raise

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
        if self.agent:
            self.ask_to_end()

    def ask_to_end(self) -> None:
        """SIGTERM each process once (a second makes some CLIs skip their clean-up), then wake the stopped."""
        others = [pid for pid in self.tree() if group_of(pid) != self.agent]
        for number in (signal.SIGTERM, signal.SIGCONT):
            send([-self.agent, *others], number)

    def sweep(self) -> None:
        """Kill and reap until nothing of the tree is left, two seconds at most."""
        limit = time.monotonic() + SWEEP
        while self.agent:
            left = self.tree(self.reap())
            self.survivors = len(left)
            if not left or time.monotonic() > limit:
                return
            send(left, signal.SIGKILL)
            self.turn(ROUND)

    def drain(self) -> None:
        """Take what is still in the pipes, up to their end or for two seconds."""
        limit = time.monotonic() + DRAIN
        while self.readers and time.monotonic() < limit:
            self.turn(limit - time.monotonic())
        for keeper in self.keepers:
            keeper.close()

    def finish(self) -> None:
        """Leave the verdict on disk, whole or not at all, and tell it."""
        verdict = self.verdict()
        try:
            write_whole(self.told["exit_path"], verdict)
        except OSError as error:  # a full disk; the pipe still tells a living server
            self.error = self.error or sentence(error, "verdict")
            verdict = self.verdict()
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
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(draft, path)  # noqa: PTH105 - pathlib is slow


def read_parameters() -> Mapping[str, Any]:
    """Read the parameters from stdin; raises EOFError or ValueError when the server died midway."""
    parts = iter(lambda: os.read(0, CHUNK), b"")
    told: Mapping[str, Any] = marshal.loads(b"".join(parts))  # noqa: S302 - our own parent wrote it
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return told


def main() -> None:
    """Run; without the go byte nothing is started and nothing written."""
    shim = Shim(read_parameters())
    if shim.wait_for_go():
        shim.run()
    else:
        shim.tell(VERDICT + shim.verdict())


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    # The interpreter's own clean-up would cost the server milliseconds of waiting.
    os._exit(0)
