"""Who runs a command and how: agent, program, model, session, limits, all decided at its start."""

from __future__ import annotations

import secrets
import uuid
from dataclasses import dataclass

from .. import agents
from ..agents import Adapter, Call, Capabilities
from ..errors import Refused
from ..process import Limits, Spec
from ..settings import Layers
from ..sprint import CommandStatus
from ..store import CommandRow
from .house import Batch
from .orders import Order, Papers, environment
from .records import transcript_name

#: Ends after which the agent's own session can go on where it was.
_CUT_OFF = (CommandStatus.INTERRUPTED, CommandStatus.LIMITED, CommandStatus.TIMED_OUT)
#: A run that ended well but without the verdict that was asked for; uncounted where it is asked again.
UNANSWERED = "schema_not_met"


@dataclass(frozen=True)
class Plan:
    """One spawn: ``resume`` is the attempt whose agent session goes on, None for a new session."""

    layers: Layers
    adapter: Adapter
    program: str
    model: str | None
    attempt: int
    run_id: str
    session: str
    resume: CommandRow | None


def make_plan(batch: Batch, order: Order, attempt: int, *, fresh: bool) -> Plan:
    """Decide for one spawn; raises AgentMissing, Refused where the agent cannot be used."""
    layers = batch.layers()
    own = layers.commands.get(str(order.command))
    name = (own.agent if own and own.agent else None) or layers.values.agent
    adapter = agents.by_name(name)
    program = agents.find_program(adapter, layers.agents.get(name), batch.house.env)
    adapter = _held_to(adapter, _capabilities(batch, program))
    model = own.model if own and own.model else None
    if model is None:
        model = layers.values.cheap_model if order.cheap else layers.values.model
    resume = None if fresh else resumable(batch, order, adapter)
    session = resume.session_id if resume and resume.session_id else str(uuid.uuid4())
    return Plan(layers, adapter, program, model, attempt, secrets.token_urlsafe(24), session, resume)


def _capabilities(batch: Batch, program: str) -> Capabilities:
    """Asked once for each batch and program: an update during the night changes nothing."""
    if program not in batch.probed:
        batch.probed[program] = agents.probe(program, batch.house.env)
    return batch.probed[program]


def _held_to(adapter: Adapter, capabilities: Capabilities) -> Adapter:
    objection = capabilities.trouble or adapter.objection(capabilities)
    if objection:
        raise Refused(objection)
    return adapter.with_capabilities(capabilities)


def resumable(batch: Batch, order: Order, adapter: Adapter) -> CommandRow | None:
    """The attempt before, when it was cut off or gave no answer, and its session had begun and can go on."""
    if not adapter.resumes or not order.stories:
        return None
    same = [
        row
        for row in batch.house.store.commands(batch.id)
        if row.command == order.command
        and row.story_keys == order.keys
        and row.background == order.background
        and row.started_at >= order.stories[0].since
    ]
    last = max(same, key=lambda row: row.id, default=None)
    unanswered = last and last.outcome == UNANSWERED and not last.counted
    begun = last and last.session_id and (last.last_action or last.cost_usd is not None)
    cut_off = last and (last.status in _CUT_OFF or unanswered)
    usable = last and begun and cut_off and last.agent == adapter.name
    return last if usable else None


def call_for(batch: Batch, order: Order, plan: Plan, papers: Papers, budget_usd: float | None) -> Call:
    """What the adapter turns into a command line."""
    own = plan.layers.agents.get(plan.adapter.name)
    return Call(
        command=str(order.command),
        prompt_path=papers.prompt,
        context_path=papers.context,
        schema=papers.schema,
        schema_path=papers.schema_file,
        model=plan.model,
        session_id=plan.session,
        resume=plan.session if plan.resume else None,
        permission_mode=plan.layers.values.permission_mode,
        max_budget_usd=budget_usd,
        extra_args=tuple(own.args) if own else (),
    )


def spec_for(batch: Batch, order: Order, plan: Plan, papers: Papers, command_id: int, call: Call) -> Spec:
    """The run as the process supervisor needs it."""
    env = environment(
        batch,
        order,
        command_id=command_id,
        attempt=plan.attempt,
        run_id=plan.run_id,
        adapter=plan.adapter,
        values=plan.layers.values,
    )
    return Spec(
        argv=plan.adapter.argv(plan.program, call),
        cwd=batch.house.project.root,
        env=env,
        run_id=plan.run_id,
        stdin_path=papers.prompt,
        out_path=batch.house.state_dir / "transcripts" / transcript_name(command_id),
        err_path=papers.prompt.with_name("stderr.txt"),
        exit_path=papers.exit,
        lock_fd=batch.house.lock_fd,
    )


def limits_for(order: Order, plan: Plan) -> Limits:
    """The watchdogs of one command."""
    values = plan.layers.values
    own = plan.layers.commands.get(str(order.command))
    minutes = own.timeout_minutes if own and own.timeout_minutes else values.command_timeout_minutes
    return Limits(
        wall=minutes * 60,
        idle=values.silence_timeout_minutes * 60,
        after_result=values.after_result_grace_seconds,
        grace=values.stop_grace_seconds,
    )
