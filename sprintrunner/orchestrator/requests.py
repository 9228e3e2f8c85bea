"""The requests of people and agents, each checked and answered in the orchestrator's thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from .. import agents, budget, ours, pipelines, status_file, tasklog
from ..errors import Conflict, NotFound, Refused, StoreUnavailable
from ..events import EventType
from ..sprint import BatchState, BatchStatus, Command, CommandStatus, StatusClass, StoryStatus
from ..store import BatchRow, CommandRow
from ..workflow import STORY_COMMANDS
from .house import Batch, House
from .ownership import allowed_dirt, detached_ref, has_moved, is_ours

if TYPE_CHECKING:
    from .core import Orchestrator

MAX_CYCLES = 998
MAX_STORIES = 5000
Answer = dict[str, Any]


def _keys(given: Any) -> list[str] | None:
    """The asked stories, each once; None for all."""
    listed = given if isinstance(given, list | tuple) else [given] if given else []
    if len(listed) > MAX_STORIES or not all(isinstance(key, str) for key in listed):
        raise Refused("stories must be a list of story keys.")
    return list(dict.fromkeys(listed)) or None


class Requests:
    """One method per action; each returns the answer or raises the Refused family."""

    def __init__(self, orchestrator: Orchestrator) -> None:
        self.orchestrator = orchestrator
        self.house: House = orchestrator.house
        self.store = orchestrator.house.store
        self._starting = asyncio.Lock()
        self._closed = False
        #: A stop that arrived while a start was being checked.
        self._early_stop: str | None = None
        self._actions: Mapping[str, Callable[[Mapping[str, Any]], Awaitable[Answer]]] = {
            "start": self.start,
            "stop": self.stop,
            "resume": self.resume,
            "retry": self.retry,
            "done": self.done,
            "skip": self.skip,
            "stop_command": self.stop_command,
            "log": self.log,
            "status": self.status,
            "visited": self.visited,
        }

    async def answer(self, action: str, arguments: Mapping[str, Any]) -> Answer:
        """Carry out one request."""
        handler = self._actions.get(action)
        if handler is None:
            raise Refused(f"There is no action {action!r}.")
        try:
            return await handler(arguments)
        except StoreUnavailable as error:
            if self.batch is not None:
                self.batch.distrust(error)
            raise

    @property
    def batch(self) -> Batch | None:
        """The live batch."""
        return self.orchestrator.batch

    async def close(self) -> None:
        """Let no start begin any more; one that is under way is waited for, so that its batch is seen."""
        self._closed = True
        await self._starting.acquire()

    def _free(self) -> None:
        if self._closed:
            raise Conflict("Sprint Runner is stopping.")
        if self.batch is not None or self.store.live_batch() is not None:
            raise Conflict("A batch is already running for this project.")
        if self._starting.locked():
            raise Conflict("A batch is already being started for this project.")

    @contextlib.asynccontextmanager
    async def _beginning(self) -> AsyncIterator[None]:
        """One start at a time; a stop that arrives during its checks holds for the batch it begins."""
        self._free()
        async with self._starting:
            self._early_stop = None
            yield
            self._stop_at_once()

    def _stop_at_once(self) -> None:
        if self._early_stop is not None and self.batch is not None:
            self.batch.ask_stop(self._early_stop)

    async def start(self, arguments: Mapping[str, Any]) -> Answer:
        """Start a batch; checks come first and say in one sentence why not (workflow 0)."""
        size = arguments.get("batch_size")
        if size is not None and (type(size) is not int or not 1 <= size <= MAX_CYCLES):
            raise Refused(f"batch_size must be a whole number from 1 to {MAX_CYCLES}, or all.")
        keys = _keys(arguments.get("stories"))
        async with self._beginning():
            columns = await self.orchestrator.off(self._checked, keys)
            batch_id = self._open_batch(size, keys, columns)
            self.orchestrator.launch(batch_id)
        return {"status": "started", "batch_id": batch_id, "batch_size": "all" if size is None else size}

    def _checked(self, keys: list[str] | None) -> dict[str, Any]:
        """What the batch row needs, or a refusal; runs outside the orchestrator's thread."""
        house = self.house
        found = status_file.read(house.project.status_path, house.project.root)
        if found.refusal:
            raise Refused(found.refusal)
        known = {entry.key for entry in found.stories}
        unknown = [key for key in keys or () if key not in known]
        if unknown:
            raise Refused(f"There is no story {unknown[0]} in {house.project.status_path.name}.")
        if not house.git.is_repository():
            raise Refused(f"{house.project.root} is not a git repository; run git init and commit once.")
        layers = house.layers()
        values, adapter = layers.values, self._agent(layers.values.agent)
        others = {own.agent for own in layers.commands.values() if own.agent} - {values.agent}
        for used in (adapter, *map(self._agent, sorted(others))):
            if budget.needs_cost(values) and not used.tells_cost:
                raise Refused(
                    f"{used.name} cannot tell its cost; remove the dollar budgets or choose another agent."
                )
        if values.commit == "builtin" and not house.git.has_identity():
            raise Refused("git has no name and e-mail here; set user.name and user.email.")
        pipeline = pipelines.choose(house.project, values.pipeline)
        # An agent that refuses to work beside changes would refuse story after story.
        policy = "refuse" if pipeline.wants_clean_tree else values.dirty_tree
        foreign = allowed_dirt(house, self.store.latest_batch(), policy)
        return {
            "agent": adapter.name,
            "base_head": house.git.head(),
            "branch": house.git.branch(),
            "dirty_paths": foreign,
        }

    def _agent(self, name: str) -> agents.Adapter:
        adapter = agents.by_name(name)
        program = agents.find_program(adapter, self.house.layers().agents.get(name), self.house.env)
        capabilities = self.orchestrator.probe(program)
        objection = capabilities.trouble or adapter.objection(capabilities)
        if objection:
            raise Refused(objection)
        return adapter

    def _open_batch(self, size: int | None, keys: list[str] | None, columns: dict[str, Any]) -> int:
        with self.store.transaction() as tx:
            batch_id = tx.insert_batch(
                started_at=self.store.now(),
                max_cycles=size,
                cycles_completed=0,
                status=BatchStatus.RUNNING,
                state=BatchState.STARTING,
                requested=keys,
                **columns,
            )
            tx.append(
                EventType.BATCH_START,
                {"batch_id": batch_id, "max_cycles": size, "agent": columns.get("agent")},
                batch_id=batch_id,
            )
            if columns.get("branch") is None:
                kept = detached_ref(batch_id)
                warning = f"HEAD is detached: the commits of this batch are on no branch; {kept} keeps them."
                tx.append(
                    EventType.BATCH_WARNING, {"batch_id": batch_id, "warning": warning}, batch_id=batch_id
                )
        return batch_id

    async def stop(self, arguments: Mapping[str, Any]) -> Answer:
        """Stop now or after the story; may be asked again."""
        how = "after_story" if arguments.get("after_story") else "now"
        if self.batch is not None:
            self.batch.ask_stop(how)
        elif self._starting.locked():
            self._early_stop = how
        else:
            raise Conflict("Nothing is running.")
        return {"status": "stopping"}

    async def resume(self, arguments: Mapping[str, Any]) -> Answer:
        """Continue the newest interrupted batch, or end a usage-limit sleep now."""
        batch = self.batch
        if batch is not None:
            # By this, not by its state: one that stops after its story may sleep on its way there.
            if self._row(batch).resumes_at is None:
                raise Conflict("The batch is running; there is nothing to resume.")
            batch.wake_event.set()
            return {"status": "started", "batch_id": batch.id}
        latest = self.store.latest_batch()
        if latest is None or latest.status != BatchStatus.INTERRUPTED:
            raise Conflict("There is no interrupted batch to continue.")
        async with self._beginning():
            await self.orchestrator.off(self._unmoved, latest)
            await self.orchestrator.reopen(latest, "Resumed by a person.", by_person=True)
        return {"status": "started", "batch_id": latest.id}

    def _unmoved(self, row: BatchRow) -> None:
        """A person who moved HEAD or the branch meanwhile has taken over: the batch waits and says so."""
        moved = has_moved(self.house.git, row)
        if moved:
            raise Conflict(moved)

    def _row(self, batch: Batch) -> BatchRow:
        row = self.store.batch(batch.id)
        assert row is not None
        return row

    def _running(self, key: str) -> CommandRow | None:
        return next((row for row in self.store.running_commands() if key in row.story_keys.split(",")), None)

    def _entry(self, key: str) -> Any:
        found = status_file.read(self.house.project.status_path, self.house.project.root)
        entry = found.entry(key)
        if entry is None or entry.kind != "story":
            raise NotFound(f"There is no story {key}.")
        return entry

    async def retry(self, arguments: Mapping[str, Any]) -> Answer:
        """Let a story go on at a phase: next in the running batch, else in a batch of its own."""
        key, phase = str(arguments.get("key", "")), arguments.get("phase")
        if phase is not None and phase not in STORY_COMMANDS:
            raise Refused(f"phase must be one of {', '.join(STORY_COMMANDS)}.")
        entry = await self.orchestrator.off(self._entry, key)
        if entry.status is None and entry.status_class in (StatusClass.HELD, StatusClass.DROPPED):
            raise Conflict(f"{key} is {entry.raw_status}; change that in the status file first.")
        if not entry.startable:
            raise Conflict(f"{key} has a key that is never started.")
        if self._running(key):
            raise Conflict(f"A command of {key} is running.")
        batch = self.batch
        if batch is not None:
            self._queue(batch, key, phase)
            return {"status": "queued", "batch_id": batch.id}
        async with self._beginning():
            columns = await self.orchestrator.off(self._checked, [key])
            batch_id = self._open_batch(1, [key], columns)
            self.orchestrator.launch(batch_id, retry=(key, phase))
        return {"status": "started", "batch_id": batch_id}

    @staticmethod
    def _queue(batch: Batch, key: str, phase: str | None) -> None:
        if batch.stop_asked:
            raise Conflict("The batch is stopping; retry when it has ended.")
        active = batch.stories.get(key)
        if active is not None and active.status not in (StoryStatus.DONE, StoryStatus.BLOCKED):
            raise Conflict(f"{key} is being worked on.")
        batch.retries.add(key, phase)

    async def done(self, arguments: Mapping[str, Any]) -> Answer:
        """A person says that the story is done."""
        key = str(arguments.get("key", ""))
        entry = await self.orchestrator.off(self._entry, key)
        house = self.house
        clean = await self.orchestrator.off(is_ours, house, house.project.status_path)
        # After what took its time: the batch may have come to the story meanwhile.
        if self._running(key):
            raise Conflict(f"A command of {key} is running.")
        if self.batch is not None and key in self.batch.working:
            raise Conflict(f"{key} is being worked on; stop the batch first.")
        await self.orchestrator.off(
            status_file.write, house.project.status_path, key, "done", root=house.project.root, force=True
        )
        row = self.store.latest_record(key)
        payload = {
            "story_key": key,
            "old_status": str(row.status if row else entry.raw_status),
            "new_status": "done",
            "epic_id": entry.epic,
            "reason": "marked by a person",
        }
        with self.store.transaction() as tx:
            if row is not None:
                evidence = {**(row.evidence or {}), "marked": "marked by a person"}
                tx.update_story(
                    row.id, status=StoryStatus.DONE, ended_at=self.store.now(), reason=None, evidence=evidence
                )
            tx.append(
                EventType.STORY_STATUS,
                payload,
                batch_id=row.batch_id if row else None,
                story_id=row.id if row else None,
            )
        if self.batch is not None and key in self.batch.stories:
            self.batch.stories[key].status = StoryStatus.DONE
        if self.batch is None and clean:
            root, path = house.project.root, house.project.status_path
            await self.orchestrator.off(ours.remember, root, house.state_dir, path)
        return {"status": "done", "story_key": key}

    async def visited(self, arguments: Mapping[str, Any]) -> Answer:
        """An agent sent a request to the dashboard: counted, and said at 1, 10, 100 … of them."""
        batch = self.batch
        if batch is not None:
            batch.seen.visits += 1
            if batch.seen.visits == 10 ** (len(str(batch.seen.visits)) - 1):
                by, what = str(arguments.get("by", "")), str(arguments.get("what", ""))
                batch.warn(f"The agent of {by} sent {what} to this dashboard ({batch.seen.visits} so far).")
        return {"status": "counted"}

    async def skip(self, arguments: Mapping[str, Any]) -> Answer:
        """A person has seen it: the story stays blocked and asks no more."""
        key = str(arguments.get("key", ""))
        await self.orchestrator.off(self._entry, key)
        row = self.store.latest_record(key)
        if row is None or row.status != StoryStatus.BLOCKED:
            raise Conflict(f"{key} is not blocked.")
        with self.store.transaction() as tx:
            tx.update_story(row.id, acknowledged=1)
            tx.append(
                EventType.STORY_STATUS,
                {
                    "story_key": key,
                    "old_status": "blocked",
                    "new_status": "blocked",
                    "epic_id": row.epic_id,
                    "acknowledged": True,
                },
                batch_id=row.batch_id,
                story_id=row.id,
            )
        return {"status": "blocked", "acknowledged": True, "story_key": key}

    async def stop_command(self, arguments: Mapping[str, Any]) -> Answer:
        """End the tree of one command."""
        number = arguments.get("id")
        row = self.store.command(number) if type(number) is int else None
        if row is None:
            raise NotFound("There is no such command.")
        tree = self.batch.trees.get(row.id) if self.batch else None
        if row.status != CommandStatus.RUNNING or tree is None:
            raise Conflict("That command is not running.")
        tree.stop("stop")
        return {"status": "stopping", "id": row.id}

    async def log(self, arguments: Mapping[str, Any]) -> Answer:
        """Record a task that an agent of this batch reports (contract section 6)."""
        report = tasklog.check(dict(arguments))
        run_id = str(arguments.get("run_id", ""))
        row = next((r for r in self.store.running_commands() if run_id and r.run_id == run_id), None)
        if row is None or self.batch is None:
            raise Refused("The report is not from a command that is running now; nothing was recorded.")
        now = self.store.now()
        clean = self.house.clean
        message = clean(report.message) or f"{report.task_id} {report.status}"
        with self.store.transaction() as tx:
            tx.update_command(row.id, current_task=clean(report.task_id))
            tx.append(
                EventType.COMMAND_PROGRESS,
                {
                    "story_key": row.story_keys or report.story_id,
                    "command": report.command if report.command in list(Command) else row.command,
                    "task_id": clean(report.task_id),
                    "message": message,
                    "status": report.status,
                    "epic_id": report.epic_id,
                    "reported_story": report.story_id,
                    "metrics": self.house.clean_json(report.metrics),
                },
                batch_id=row.batch_id,
                story_id=row.story_id,
                command_id=row.id,
            )
        return {"timestamp": now}

    async def status(self, arguments: Mapping[str, Any]) -> Answer:
        """What runs now, the answer of ``/api/orchestrator/status``."""
        row = self.store.live_batch()
        if row is None:
            idle: Answer = {"status": "idle", "batch_id": None, "cycles_completed": 0, "max_cycles": None}
            return idle | {"current_stories": []}
        keys = [k for r in self.store.running_commands() for k in r.story_keys.split(",") if k]
        answer: Answer = {
            "status": str(row.state),
            "batch_id": row.id,
            "cycles_completed": row.cycles_completed,
            "max_cycles": row.max_cycles,
            "current_stories": list(dict.fromkeys(keys)),
        }
        return answer | ({"resumes_at": row.resumes_at} if row.state == BatchState.WAITING else {})
