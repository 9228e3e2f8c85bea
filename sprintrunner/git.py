"""What the engine asks of git: status, snapshots, commits with trailers, keeping and restoring work."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import gitlock
from .errors import GitError

#: No git call may wait for a person or a pager; a hook may take its time.
TIMEOUT_SECONDS = 600
_QUIET = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_PAGER": "cat",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_EDITOR": "true",
    "LC_ALL": "C.UTF-8",
}
#: Variables of an outer git (we may be started from a hook) that would point us at another repository.
_FOREIGN = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY")


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit as the pages show it; ``when`` is in ms, UTC."""

    sha: str
    subject: str
    when: int
    added: int = 0
    removed: int = 0


def _lines(text: str) -> list[str]:
    return [part for part in text.split("\0") if part]


class Git:
    """The repository at ``root``. Every method raises GitError with git's own last line when git refuses."""

    def __init__(self, root: Path, env: Mapping[str, str] | None = None) -> None:
        self.root = root
        base = dict(os.environ if env is None else env)
        self._env = {k: v for k, v in base.items() if k not in _FOREIGN} | _QUIET
        #: The commit that is under way.
        self._long: subprocess.Popen[bytes] | None = None

    def run(
        self, *args: str, stdin: str | bytes = b"", env: Mapping[str, str] | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        """Run one git command in the repository and return its bytes."""
        data = stdin.encode("utf-8", "surrogateescape") if isinstance(stdin, str) else stdin
        try:
            done = subprocess.run(
                ["git", *args],
                cwd=self.root,
                input=data,
                capture_output=True,
                env={**self._env, **(env or {})},
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except FileNotFoundError:
            missing = "git was not found on PATH; install it."
            raise GitError(missing if self.root.is_dir() else f"{self.root} is not there any more.") from None
        except OSError as error:
            raise GitError(f"git {args[0]} could not be started: {error.strerror}.") from None
        except subprocess.TimeoutExpired:
            raise GitError(f"git {args[0]} did not end within {TIMEOUT_SECONDS} s.") from None
        if check and done.returncode:
            raise GitError(f"git {args[0]} failed: {_last_line(done.stderr or done.stdout)}")
        return done

    def text(self, *args: str, stdin: str | bytes = b"", env: Mapping[str, str] | None = None) -> str:
        """The decoded output of one git command, without the last newline."""
        return self.run(*args, stdin=stdin, env=env).stdout.decode("utf-8", "surrogateescape").rstrip("\n")

    def clear_stale_lock(self, needed: bool = False) -> str:
        """Remove an index.lock left by a git that was killed; a sentence on what was found, or empty.

        Waits some seconds for a git at work. ``needed``: GitError when the lock is still there after that.
        """
        folder = Path(self.text("rev-parse", "--absolute-git-dir"))
        lock = folder / "index.lock"
        said = gitlock.clear(lock, self.root, folder)
        if needed and said and lock.exists():
            raise GitError(said)
        return said

    def is_repository(self) -> bool:
        """Whether ``root`` is the top of, or lies in, a work tree."""
        done = self.run("rev-parse", "--is-inside-work-tree", check=False)
        return done.returncode == 0 and done.stdout.strip() == b"true"

    def head(self) -> str | None:
        """The commit HEAD names, or None before the first commit."""
        done = self.run("rev-parse", "--verify", "-q", "HEAD^{commit}", check=False)
        return done.stdout.decode().strip() or None

    def branch(self) -> str | None:
        """The short name of the branch, or None when HEAD is detached."""
        done = self.run("symbolic-ref", "-q", "--short", "HEAD", check=False)
        return done.stdout.decode("utf-8", "replace").strip() or None

    def has_identity(self) -> bool:
        """Whether git can name an author and a committer here."""
        author = self.run("var", "GIT_AUTHOR_IDENT", check=False).returncode
        return author == 0 and self.run("var", "GIT_COMMITTER_IDENT", check=False).returncode == 0

    def dirty(self) -> list[str]:
        """Paths that differ from HEAD, untracked ones included and ignored ones not, relative to the top."""
        prefix = self.text("rev-parse", "--show-prefix")
        out = self.run("status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames").stdout
        paths = [entry[3:] for entry in _lines(out.decode("utf-8", "surrogateescape"))]
        return sorted({p[len(prefix) :] for p in paths if p.startswith(prefix)})

    def snapshot(self) -> str:
        """Write the whole work tree as a tree object through a temporary index; return its id.

        The real index is only read: a person's staged changes stay as they are.
        """
        with tempfile.TemporaryDirectory(prefix="sprintrunner-index-") as folder:
            index = Path(folder) / "index"
            real = Path(self.text("rev-parse", "--absolute-git-dir")) / "index"
            if real.exists():
                shutil.copyfile(real, index)  # its stat cache saves hashing unchanged files
            env = {"GIT_INDEX_FILE": str(index)}
            # What git cannot take (an unreadable file, a repository without a commit) stays out; 1 says so.
            done = self.run("add", "-A", "--ignore-errors", env=env, check=False)
            if done.returncode not in (0, 1):
                raise GitError(f"git add failed: {_last_line(done.stderr)}")
            return self.text("write-tree", env=env)

    def head_tree(self) -> str:
        """The tree of HEAD, or the empty tree before the first commit."""
        done = self.run("rev-parse", "--verify", "-q", "HEAD^{tree}", check=False)
        return done.stdout.decode().strip() or self.text("hash-object", "-t", "tree", "-w", "--stdin")

    def changed(self, before: str, after: str) -> list[str]:
        """Paths below ``root`` that differ between two trees, relative to it."""
        how = ("-r", "-z", "--name-only", "--no-renames", "--relative")
        out = self.run("diff-tree", *how, before, after).stdout
        return _lines(out.decode("utf-8", "surrogateescape"))

    def patch(self, before: str, after: str, paths: Sequence[str] = ()) -> bytes:
        """A binary patch that leads from one tree to the other, limited to ``paths`` when given."""
        listed = ["--", *paths] if paths else []
        return self.run("diff-tree", "-r", "-p", "--binary", "--no-renames", before, after, *listed).stdout

    def keep(self, ref: str, base_tree: str, work_tree: str, message: str) -> str:
        """Keep ``work_tree`` under ``ref`` as a commit upon one of ``base_tree``; return the commit."""
        head = self.head()
        parents = ["-p", head] if head else []
        base = self.text("commit-tree", base_tree, *parents, stdin=f"base of: {message}\n")
        work = self.text("commit-tree", work_tree, "-p", base, stdin=f"{message}\n")
        self.run("update-ref", ref, work)
        return work

    def put_back(self, tree: str, paths: Iterable[str]) -> None:
        """Make ``paths`` in the work tree what they are in ``tree``; a path the tree lacks is removed."""
        wanted = list(paths)
        listed = self.run("ls-tree", "-r", "-z", "--name-only", tree).stdout
        known = set(_lines(listed.decode("utf-8", "surrogateescape")))
        # First what has to go: a new folder may stand where a file has to come back.
        for path in wanted:
            if path not in known:
                _remove(self.root, path)
        with tempfile.TemporaryDirectory(prefix="sprintrunner-index-") as folder:
            env = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
            self.run("read-tree", tree, env=env)
            names = "\0".join(p for p in wanted if p in known)
            self.run("checkout-index", "-f", "-z", "--stdin", stdin=names, env=env)

    def apply(self, patch: bytes) -> None:
        """Apply a patch to the work tree, whole or not at all; GitError names the first conflict."""
        if patch:
            self.run("apply", "--whitespace=nowarn", "-", stdin=patch)

    def commit(self, message: str, paths: Sequence[str], lock_fd: int | None = None) -> str:
        """Commit exactly ``paths`` (nothing else that may be staged); hooks run. Return the commit.

        ``lock_fd`` is inherited by git and its hooks, so that a next life can wait for them.
        """
        names = "\0".join(paths)
        source = ("--pathspec-from-file=-", "--pathspec-file-nul")
        # Ignored files never get here, and -A also records removals.
        self.run("add", "-A", *source, stdin=names)
        try:
            with tempfile.NamedTemporaryFile("w", prefix="sprintrunner-msg-", encoding="utf-8") as handle:
                handle.write(message)
                handle.flush()
                words = ("commit", "--only", "-q", "-F", handle.name, *source)
                self._run_long(words, names.encode("utf-8", "surrogateescape"), lock_fd)
        except OSError as error:
            raise GitError(f"git commit could not be started: {error.strerror or error}.") from None
        return self.head() or ""

    def _run_long(self, words: Sequence[str], data: bytes, lock_fd: int | None) -> None:
        """Run a git command whose hooks may take minutes: ``interrupt`` ends it with all of them."""
        process = subprocess.Popen(
            ["git", *words],
            cwd=self.root,
            env=self._env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=() if lock_fd is None else (lock_fd,),
        )
        self._long = process
        try:
            out, _ = process.communicate(data, TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            _signal_group(process, signal.SIGKILL)
            raise GitError(f"git {words[0]} did not end within {TIMEOUT_SECONDS} s.") from None
        finally:
            self._long = None
        if process.returncode:
            raise GitError(f"git {words[0]} failed: {_last_line(out)}")

    def interrupt(self, grace: float = 1.0) -> None:
        """End a commit that is under way, from any thread; at once, and by force after ``grace`` seconds."""
        process = self._long
        if process is not None:
            _signal_group(process, signal.SIGTERM)  # git removes its lock files
            killer = threading.Timer(grace, _signal_group, (process, signal.SIGKILL))
            killer.daemon = True
            killer.start()

    def commit_empty(self, message: str) -> str:
        """Record ``message`` as a commit without changes upon HEAD, whatever is staged. Return the commit."""
        head = self.head()
        parents = ["-p", head] if head else []
        sha = self.text("commit-tree", self.head_tree(), *parents, stdin=message)
        old = head or "0" * len(sha)
        self.run("update-ref", "-m", "commit: sprint runner", "HEAD", sha, old)
        return sha

    def reachable(self, sha: str) -> bool:
        """Whether HEAD contains the commit."""
        return self.run("merge-base", "--is-ancestor", sha, "HEAD", check=False).returncode == 0

    def find_commit(self, batch_id: int, key: str, since: int = 0) -> str | None:
        """The newest commit reachable from HEAD that carries both of our trailers for this story.

        ``since`` (ms, UTC) leaves older ones out: a retried story has a commit of its first pass.
        """
        wanted = (
            "--fixed-strings",
            "--all-match",
            f"--grep=Sprint-Batch: {batch_id}",
            f"--grep=Sprint-Story: {key}",
        )
        done = self.run("log", "-z", "--format=%H %ct%n%(trailers:only,unfold)", *wanted, check=False)
        for entry in _lines(done.stdout.decode("utf-8", "replace")):
            head, *trailers = entry.splitlines()
            sha, when = head.split()
            fresh = int(when) >= since // 1000
            if fresh and f"Sprint-Batch: {batch_id}" in trailers and f"Sprint-Story: {key}" in trailers:
                return sha
        return None

    def carries_batch(self, sha: str, batch_id: int) -> bool:
        """Whether a commit is one of ours for this batch."""
        done = self.run("show", "--no-patch", "--format=%(trailers:only,unfold)", sha, "--", check=False)
        return f"Sprint-Batch: {batch_id}" in done.stdout.decode("utf-8", "replace").splitlines()

    def commits(self, shas: Sequence[str]) -> list[Commit]:
        """The named commits in the order given; unknown ones are left out."""
        return [found for sha in shas if (found := self._one(sha))]

    def _one(self, sha: str) -> Commit | None:
        done = self.run("show", "--no-patch", "--format=%ct%x00%s", sha, "--", check=False)
        if done.returncode:
            return None
        when, _, subject = done.stdout.decode("utf-8", "replace").strip().partition("\0")
        numbers = (
            self.run("show", "--format=", "--numstat", sha, "--", check=False).stdout.decode().split("\n")
        )
        counts = [line.split("\t")[:2] for line in numbers if "\t" in line]
        added = sum(int(a) for a, _ in counts if a.isdigit())
        removed = sum(int(r) for _, r in counts if r.isdigit())
        return Commit(sha, subject, int(when) * 1000, added, removed)

    def ahead(self) -> int | None:
        """How many commits HEAD is ahead of its upstream, None without one."""
        done = self.run("rev-list", "--count", "@{upstream}..HEAD", check=False)
        return int(done.stdout) if done.returncode == 0 else None


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    # The group outlives its leader while a hook still runs; its id is not given to anyone else until then.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _last_line(data: bytes) -> str:
    lines = [line for line in data.decode("utf-8", "replace").splitlines() if line.strip()]
    if lines[-1:] == ["fatal: adding files failed"]:
        lines.pop()  # the line before names the file
    return lines[-1].strip() if lines else "no message"


def _remove(root: Path, path: str) -> None:
    target = root / path
    target.unlink(missing_ok=True)
    parent = target.parent
    while parent != root and parent.is_dir() and not any(parent.iterdir()):
        parent.rmdir()
        parent = parent.parent
