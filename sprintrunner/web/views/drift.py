"""Where status file, story file, records and git disagree, and what of the work tree would refuse a start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ... import ours
from ...errors import GitError
from ...git import Git
from ...sprint import Entry, EntryKind, StoryStatus, normalise
from ...store import StoryRow
from .reading import Reading

#: A file that changed this long (ms) after its story was settled was changed by somebody else.
_AFTER = 60_000


@dataclass(frozen=True, slots=True)
class Drift:
    """One disagreement. ``repair``: ``story`` sets the story file to ``value``, ``done`` marks it done."""

    key: str
    said: str
    repair: str = ""
    value: str = ""


def drifts(reading: Reading) -> tuple[Drift, ...]:
    """Read all disagreements; none while a batch runs, whose agents are in the middle of changing things."""
    if reading.live:
        return ()
    lost = _lost_commits(reading)
    found = (_of(reading, entry, lost) for entry in reading.entries)
    return tuple(drift for drift in found if drift)


def _of(reading: Reading, entry: Entry, lost: Mapping[str, str]) -> Drift | None:
    record = reading.records.get(entry.key)
    if record and record.commit_sha in lost:
        gone = lost[record.commit_sha or ""]
        return Drift(entry.key, f"Commit {(record.commit_sha or '')[:7]} of it {gone}; the records say done.")
    if record and record.status == StoryStatus.DONE and entry.status is not StoryStatus.DONE:
        commit = f" with commit {record.commit_sha[:7]}" if record.commit_sha else ""
        said = f"The status file says {entry.raw_status}; batch {record.batch_id} recorded done{commit}."
        return Drift(entry.key, said, "done" if entry.status is not None else "")
    return _of_file(reading, entry, record)


def _of_file(reading: Reading, entry: Entry, record: StoryRow | None) -> Drift | None:
    line, changed = reading.lines.get(entry.key, ("", 0))
    told, _ = normalise(line, EntryKind.STORY) if line else (None, None)
    # Only "done" is compared: on the way there the line of a story file is nobody's duty to keep.
    if told is None or entry.status is None or told is entry.status:
        return None
    if StoryStatus.DONE not in (told, entry.status):
        return None
    ours = record is not None and record.status == StoryStatus.DONE
    if ours and record is not None and changed < (record.ended_at or 0) + _AFTER:
        return None  # our own agents left it so; nothing has drifted since
    commit = f" and commit {record.commit_sha[:7]}" if record and record.commit_sha else ""
    said = f"The story file says {line}; the status file{commit} {'say' if commit else 'says'} "
    return Drift(entry.key, said + str(entry.status), "story", str(entry.status))


def _lost_commits(reading: Reading) -> Mapping[str, str]:
    """The recorded commits that HEAD does not contain, with what became of them; asked anew after 5 s."""
    shas = {row.commit_sha for row in reading.records.values() if row.commit_sha and row.status == "done"}
    root, wanted = reading.project.root, tuple(sorted(shas))
    at, known, found = _asked.get(root, (0, (), {}))
    if known != wanted or not at <= reading.now < at + 5000:
        found = _ask_git(Git(root), wanted) if wanted else {}
        _asked[root] = (reading.now, wanted, found)
    return found


#: By root: when git was asked, for which commits, and its answer.
_asked: dict[Path, tuple[int, tuple[str, ...], Mapping[str, str]]] = {}


def _ask_git(git: Git, shas: Sequence[str]) -> Mapping[str, str]:
    listed = "".join(f"{sha}^{{commit}}\n" for sha in shas)
    try:
        answers = git.text("cat-file", "--batch-check=%(objectname)", stdin=listed).splitlines()
        gone = {sha for sha, told in zip(shas, answers, strict=True) if " " in told}
        rest = [sha for sha in shas if sha not in gone]
        away = git.text("rev-list", "--stdin", stdin="".join(f"{sha}\n" for sha in (*rest, "^HEAD")))
    except (GitError, ValueError):
        return {}
    outside = dict.fromkeys(set(away.split()) & set(rest), "is not part of HEAD any more")
    return dict.fromkeys(gone, "does not exist any more") | outside


def foreign_paths(reading: Reading) -> tuple[str, ...]:
    """Changed paths that no batch of ours left as they are now: they may refuse a start."""
    left = reading.batch.left_paths if reading.batch else None
    return ours.foreign(reading.project.root, reading.services.state_dir, reading.dirty, left)
