"""Every setting: its name, default, bounds, and what it means to a user (contract section 10)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, model_validator

from . import fields as f
from .fields import FieldInfo, Line, ModelName, choice, number, several, switch, text, whole
from .sections import AGENTS, MODEL_WANTS, STRICT, AgentName, EnvNames, Hosts, Lines


class Settings(BaseModel):
    """The settings in force. Types are strict: no text for a number, no number for a yes-or-no."""

    model_config = STRICT

    default_max_cycles: int = whole(
        2, 1, 998, f.BATCH, "Cycles in a batch", "What Start offers first. A cycle takes one or two stories."
    )
    pair_stories: bool = switch(
        True,
        f.BATCH,
        "Two stories in a cycle",
        "Takes the next open story of the same epic along; they share the documents written first.",
    )
    order: Literal["file", "status"] = choice(
        "file",
        {"file": "As in the status file", "status": "Most advanced first"},
        f.BATCH,
        "Order",
        "Most advanced first means in progress, then review, ready for dev, backlog.",
    )
    dirty_tree: Literal["refuse", "allow"] = choice(
        "refuse",
        {"refuse": "Refuse to start", "allow": "Allow"},
        f.BATCH,
        "Working tree not clean",
        "With Allow a batch starts all the same; files that were changed before are never committed.",
    )
    pipeline: Literal["builtin", "bmad"] = choice(
        "builtin",
        {"builtin": "Built in", "bmad": "The project's BMAD workflows"},
        f.BATCH,
        "Pipeline",
        "Whose instructions the agent follows: those that come with Sprint Runner, or the project's own.",
    )
    resume_after_crash: Literal["auto", "ask"] = choice(
        "auto",
        {"auto": "Go on by itself", "ask": "Wait for me"},
        f.BATCH,
        "After a crash",
        "What happens to a batch that a power cut or a killed server broke off. By itself: three times "
        "at most without a new result.",
    )
    default_batch_list_limit: int = whole(
        20, 1, 100, f.BATCH, "Batches on a page", "How many batches the history shows at once."
    )

    budget_usd_per_story: float | None = number(
        None,
        0,
        10**6,
        f.LIMITS,
        "Budget of a story",
        "A story that costs more is blocked.",
        unit="dollars",
        open_low=True,
    )
    budget_usd_per_batch: float | None = number(
        None,
        0,
        10**6,
        f.LIMITS,
        "Budget of a batch",
        "Once this is spent no command starts and the batch ends.",
        unit="dollars",
        open_low=True,
    )
    budget_usd_per_day: float | None = number(
        None,
        0,
        10**6,
        f.LIMITS,
        "Budget of a day",
        "Counts all batches of this project since midnight, local time.",
        unit="dollars",
        open_low=True,
    )
    budget_tokens_per_batch: int | None = whole(
        None,
        0,
        10**12,
        f.LIMITS,
        "Token budget of a batch",
        "For agents that cannot tell what they cost.",
        unit="tokens",
        open_low=True,
    )
    limit_margin_seconds: float = number(
        60,
        0,
        3600,
        f.LIMITS,
        "Margin after a limit",
        "How long after the time a usage limit names the batch wakes up.",
        unit="seconds",
    )
    limit_default_wait_minutes: float = number(
        30,
        0.05,
        600,
        f.LIMITS,
        "Wait for an unnamed limit",
        "How long to sleep when the agent hit a limit but did not say until when.",
        unit="minutes",
    )
    max_limit_wait_hours: int = whole(
        24,
        0,
        336,
        f.LIMITS,
        "Longest limit sleep",
        "A limit that resets later ends the batch instead. A weekly one can take 168 hours.",
        unit="hours",
    )
    max_retries: int = whole(
        5,
        0,
        20,
        f.LIMITS,
        "Retries",
        "How often a command is tried again after a passing trouble, such as an overloaded service.",
    )
    retry_backoff_seconds: float = number(
        30, 0, 3600, f.LIMITS, "Pause before a retry", "Doubles with every further retry.", unit="seconds"
    )

    agent: AgentName = choice(
        "claude",
        dict(zip(AGENTS, ("Claude Code", "Codex", "Gemini", "OpenCode", "Qwen Code"), strict=True)),
        f.WATCH,
        "Agent",
        "The coding agent that does the work. Its program must be on the PATH.",
    )
    model: ModelName | None = text(None, MODEL_WANTS, f.WATCH, "Model", "Without one the agent chooses.")
    cheap_model: ModelName | None = text(
        "haiku",
        MODEL_WANTS,
        f.WATCH,
        "Cheap model",
        "Used for background reviews and late code reviews. Without one they use the same model as all else.",
    )
    command_timeout_minutes: float = number(
        120,
        0.05,
        1440,
        f.WATCH,
        "Longest command",
        "A command that takes longer is stopped; its attempt counts as timed out.",
        unit="minutes",
    )
    silence_timeout_minutes: float = number(
        15,
        0.05,
        240,
        f.WATCH,
        "Silence",
        "A command that says and does nothing for so long is stopped; its work is kept.",
        unit="minutes",
    )
    after_result_grace_seconds: float = number(
        30,
        1,
        600,
        f.WATCH,
        "Grace after the result",
        "How long an agent may take to exit once it has told its result.",
        unit="seconds",
    )
    stop_grace_seconds: float = number(
        10,
        0.2,
        120,
        f.WATCH,
        "Grace on stop",
        "How long an agent may tidy up when asked to end, before it is killed.",
        unit="seconds",
    )
    permission_mode: Literal[
        "bypassPermissions", "acceptEdits", "auto", "default", "manual", "dontAsk", "plan"
    ] = choice(
        "bypassPermissions",
        {
            "bypassPermissions": "Everything is allowed",
            "acceptEdits": "Edits are allowed",
            "auto": "The agent decides",
            "default": "The agent's default",
            "manual": "Everything is asked for",
            "dontAsk": "Refuse instead of asking",
            "plan": "Plan only",
        },
        f.WATCH,
        "Permission mode",
        "What the agent may do without asking; nobody is there to answer at night. As root, where Claude "
        "refuses bypassPermissions, acceptEdits with the common tools is used.",
        editable_over_http=False,
    )
    env_drop: EnvNames = several(
        ("ANTHROPIC_API_KEY",),
        "must be a list of names of environment variables",
        f.WATCH,
        "Variables kept from the agent",
        "The default makes Claude use your subscription; an empty list lets it pay by key.",
        editable_over_http=False,
    )

    max_dev_attempts: int = whole(
        3, 1, 10, f.REVIEWS, "Attempts at dev-story", "A story not developed by then is blocked."
    )
    max_code_review_attempts: int = whole(
        10, 1, 20, f.REVIEWS, "Code reviews of a story", "A story that still has serious findings is blocked."
    )
    haiku_after_review: int = whole(
        2,
        1,
        20,
        f.REVIEWS,
        "Cheap model from review",
        "Code reviews from this one on use the cheap model.",
    )
    no_progress_attempts: int = whole(
        2,
        1,
        10,
        f.REVIEWS,
        "Attempts without progress",
        "So many attempts in a row that change nothing block the story.",
    )
    verify: Lines = several(
        (),
        "must be a list of commands",
        f.REVIEWS,
        "Verify commands",
        "Run by Sprint Runner itself before a story counts as done, for example pytest -q. "
        "Only in sprintrunner.toml, never from the browser.",
        editable_over_http=False,
    )
    verify_timeout_minutes: float = number(
        20,
        0.05,
        600,
        f.REVIEWS,
        "Longest verify command",
        "A verify command that takes longer has failed.",
        unit="minutes",
    )

    project_context_max_age_hours: int = whole(
        24,
        1,
        8760,
        f.CONTEXT,
        "Age of the project context",
        "When project-context.md is older, the agent writes it anew beside the first cycle.",
        unit="hours",
    )
    injection_warning_kb: int = whole(
        100,
        1,
        10_000,
        f.CONTEXT,
        "Warn above",
        "A command given more text than this gets a warning. Not above the next setting.",
        unit="KB",
    )
    injection_error_kb: int = whole(
        150,
        1,
        10_000,
        f.CONTEXT,
        "Shorten above",
        "Above this the least important documents are given as paths; the story always stays.",
        unit="KB",
    )

    commit: Literal["builtin", "agent", "off"] = choice(
        "builtin",
        {"builtin": "By Sprint Runner", "agent": "By the agent", "off": "Not at all"},
        f.FILES,
        "Commit",
        "Who commits the finished stories of a cycle.",
    )
    archive: bool = switch(
        False,
        f.FILES,
        "Archive finished stories",
        "Moves the documents of finished stories to archived-artifacts. BMAD's tools expect them in place.",
    )
    blocked_in_status_file: bool = switch(
        True,
        f.FILES,
        "Write blocked to the status file",
        "Off: a blocked story keeps its status there and is remembered only by Sprint Runner.",
    )

    server_port: int = whole(
        8080,
        1,
        65535,
        f.SERVER,
        "Port",
        "Where the dashboard is served.",
        editable_over_http=False,
        needs_restart=True,
    )
    heartbeat_seconds: float = number(
        15, 1, 60, f.SERVER, "Heartbeat", "The longest silence on a live page's stream.", unit="seconds"
    )
    allowed_hosts: Hosts = several(
        (),
        "must be a list of host names",
        f.SERVER,
        "Allowed hosts",
        "Names under which the dashboard may be reached, beside this machine's own.",
        editable_over_http=False,
        needs_restart=True,
    )
    trusted_proxies: int = whole(
        0,
        0,
        10,
        f.SERVER,
        "Trusted proxies",
        "How many proxies in front of the dashboard are yours.",
        editable_over_http=False,
        needs_restart=True,
    )
    token_file: Line | None = text(
        None,
        "must be the path of a file",
        f.SERVER,
        "Token file",
        "A file that holds the access token, readable by you alone.",
        editable_over_http=False,
        needs_restart=True,
    )

    @model_validator(mode="after")
    def _warning_before_error(self) -> Settings:
        if self.injection_warning_kb > self.injection_error_kb:
            raise ValueError("warning above error")
        return self


def _info(name: str) -> FieldInfo:
    declared = Settings.model_fields[name]
    extra: Any = declared.json_schema_extra
    label, told = declared.title or name, declared.description or ""
    return FieldInfo(name=name, default=declared.default, label=label, help=told, **extra)


#: All settings, grouped as on the form.
FIELDS: tuple[FieldInfo, ...] = tuple(_info(name) for name in Settings.model_fields)
BY_NAME: dict[str, FieldInfo] = {field.name: field for field in FIELDS}
