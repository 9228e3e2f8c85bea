"""Settings are strict: each layer wins over the one before, and a wrong value is refused by its name."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sprintrunner import agents, settings
from sprintrunner.errors import SettingsInvalid, SettingsStale
from sprintrunner.sprint import Command

NUMBERS = [field for field in settings.FIELDS if field.kind in ("int", "number")]
EDITABLE_NUMBERS = [field for field in NUMBERS if field.editable_over_http]

#: Contract section 10, with the seed's nine of section 7.
DEFAULTS: dict[str, Any] = {
    "project_context_max_age_hours": 24,
    "injection_warning_kb": 100,
    "injection_error_kb": 150,
    "default_max_cycles": 2,
    "max_code_review_attempts": 10,
    "haiku_after_review": 2,
    "server_port": 8080,
    "heartbeat_seconds": 15,
    "default_batch_list_limit": 20,
    "agent": "claude",
    "model": None,
    "cheap_model": "haiku",
    "pipeline": "builtin",
    "order": "file",
    "pair_stories": True,
    "commit": "builtin",
    "archive": False,
    "dirty_tree": "refuse",
    "blocked_in_status_file": True,
    "max_dev_attempts": 3,
    "max_retries": 5,
    "retry_backoff_seconds": 30,
    "command_timeout_minutes": 120,
    "silence_timeout_minutes": 15,
    "after_result_grace_seconds": 30,
    "stop_grace_seconds": 10,
    "no_progress_attempts": 2,
    "limit_margin_seconds": 60,
    "limit_default_wait_minutes": 30,
    "max_limit_wait_hours": 24,
    "resume_after_crash": "auto",
    "budget_usd_per_story": None,
    "budget_usd_per_batch": None,
    "budget_usd_per_day": None,
    "budget_tokens_per_batch": None,
    "permission_mode": "bypassPermissions",
    "verify": (),
    "verify_timeout_minutes": 20,
    "env_drop": ("ANTHROPIC_API_KEY",),
    "allowed_hosts": (),
    "trusted_proxies": 0,
    "token_file": None,
}
BOUNDS = {
    "project_context_max_age_hours": (1, 8760),
    "injection_warning_kb": (1, 10_000),
    "injection_error_kb": (1, 10_000),
    "default_max_cycles": (1, 998),
    "max_code_review_attempts": (1, 20),
    "haiku_after_review": (1, 20),
    "server_port": (1, 65535),
    "heartbeat_seconds": (1, 60),
    "default_batch_list_limit": (1, 100),
    "max_dev_attempts": (1, 10),
    "max_retries": (0, 20),
    "retry_backoff_seconds": (0, 3600),
    "command_timeout_minutes": (0.05, 1440),
    "silence_timeout_minutes": (0.05, 240),
    "after_result_grace_seconds": (1, 600),
    "stop_grace_seconds": (0.2, 120),
    "no_progress_attempts": (1, 10),
    "limit_margin_seconds": (0, 3600),
    "limit_default_wait_minutes": (0.05, 600),
    "max_limit_wait_hours": (0, 336),
    "verify_timeout_minutes": (0.05, 600),
    "budget_usd_per_story": (0, 10**6),
    "budget_usd_per_batch": (0, 10**6),
    "budget_usd_per_day": (0, 10**6),
    "budget_tokens_per_batch": (0, 10**12),
}
NOT_OVER_HTTP = {
    "server_port", "permission_mode", "verify", "env_drop", "allowed_hosts", "trusted_proxies", "token_file",
}  # fmt: skip


class Place:
    """A project and its state folder."""

    def __init__(self, folder: Path) -> None:
        self.root, self.state = folder / "project", folder / "state"
        self.root.mkdir()
        self.state.mkdir()

    @property
    def saved(self) -> Path:
        return self.state / "settings.json"

    def file(self, text: str) -> None:
        (self.root / "sprintrunner.toml").write_text(text, encoding="utf-8")

    def load(
        self, env: Mapping[str, str] | None = None, overrides: Mapping[str, Any] | None = None
    ) -> settings.Layers:
        return settings.load(self.root, self.state, env or {}, overrides or {})

    def save(self, if_match: str | None = None, /, **changes: Any) -> settings.Layers:
        return settings.save(self.root, self.state, changes, if_match, {})

    def refused(self, changes: Mapping[str, Any]) -> dict[str, str]:
        with pytest.raises(SettingsInvalid) as told:
            settings.save(self.root, self.state, changes, None, {})
        assert not self.saved.exists()
        return told.value.fields


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_every_setting_of_the_contract_has_its_default(place: Place) -> None:
    layers = place.load()
    assert layers.values.model_dump() == DEFAULTS
    assert set(layers.sources.values()) == {"default"}


def test_every_number_has_the_bounds_of_the_contract() -> None:
    found = {field.name: field.bounds for field in NUMBERS if field.name != "trusted_proxies"}
    assert found == BOUNDS


def test_every_setting_can_be_shown_on_a_form() -> None:
    for field in settings.FIELDS:
        assert field.label and field.help and field.wants and field.group in settings.GROUPS
        assert field.help.endswith("."), field.name
        if field.kind == "choice":
            assert field.default in field.choices and all(field.choices.values())
    order = [field.group for field in settings.FIELDS]
    assert order == sorted(order, key=settings.GROUPS.index)


def test_what_may_be_set_over_http_is_what_the_contract_says(place: Place) -> None:
    seen = settings.over_http(place.load())
    assert set(DEFAULTS) - set(seen) == NOT_OVER_HTTP
    assert json.loads(json.dumps(seen)) == seen
    assert isinstance(seen["heartbeat_seconds"], int)


@pytest.mark.parametrize("field", EDITABLE_NUMBERS, ids=lambda field: field.name)
@pytest.mark.parametrize("value", [True, "7", [1], {}, float("nan"), float("inf"), 10**13, -1])
def test_garbage_for_a_number_is_refused_with_its_name_and_bounds(
    place: Place, field: settings.FieldInfo, value: Any
) -> None:
    fields = place.refused({field.name: value})
    assert field.bounds is not None
    assert set(fields) == {field.name}
    low, high = (str(int(x)) if float(x).is_integer() else str(x) for x in field.bounds)
    assert low in fields[field.name] and high in fields[field.name]


def test_a_number_too_long_to_be_written_out_is_refused(place: Place) -> None:
    assert "too large" in place.refused({"max_retries": 10**5000})["max_retries"]


@pytest.mark.parametrize("field", EDITABLE_NUMBERS, ids=lambda field: field.name)
def test_null_and_fractions_are_taken_only_where_they_mean_something(
    place: Place, field: settings.FieldInfo
) -> None:
    assert field.bounds is not None
    if not field.optional:
        assert field.name in place.refused({field.name: None})
    if field.kind == "int":
        assert "whole number" in place.refused({field.name: field.bounds[0] + 1.5})[field.name]
    else:
        assert place.save(**{field.name: field.bounds[0] + 0.5}).sources[field.name] == "saved"
    if field.optional:
        place.save(**{field.name: field.bounds[1]})
        assert getattr(place.save(**{field.name: None}).values, field.name) is None


@pytest.mark.parametrize("field", EDITABLE_NUMBERS, ids=lambda field: field.name)
def test_the_bounds_themselves_are_taken_and_what_lies_beyond_is_not(
    place: Place, field: settings.FieldInfo
) -> None:
    assert field.bounds is not None
    low, high = field.bounds
    other = (
        {"injection_warning_kb": 1} if field.name == "injection_error_kb" else {"injection_error_kb": 10_000}
    )
    assert field.name in place.refused({field.name: high + 1})
    if field.open_low:
        assert field.name in place.refused({field.name: low})
    else:
        assert getattr(place.save(**{**other, field.name: low}).values, field.name) == low
    assert getattr(place.save(**{**other, field.name: high}).values, field.name) == high


@pytest.mark.parametrize(
    "name", ["to_dict", "__class__", "__dict__", "model_config", "", "äß", "heartbeat_secs"]
)
def test_an_unknown_name_is_refused(place: Place, name: str) -> None:
    assert "is not a setting" in place.refused({name: 1})[name]


def test_a_misspelt_name_is_answered_with_the_right_one(place: Place) -> None:
    assert "did you mean heartbeat_seconds?" in place.refused({"heartbeat_second": 5})["heartbeat_second"]


@pytest.mark.parametrize("name", [*sorted(NOT_OVER_HTTP), "agents", "commands"])
def test_what_starts_programs_or_opens_doors_is_never_set_over_http(place: Place, name: str) -> None:
    assert "over HTTP" in place.refused({name: DEFAULTS.get(name)})[name]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pair_stories", 1),
        ("pair_stories", "true"),
        ("pair_stories", None),
        ("order", "random"),
        ("order", ["file"]),
        ("commit", None),
        ("agent", "hal"),
        ("agent", None),
        ("model", "--dangerous"),
        ("model", ""),
        ("model", "a b"),
        ("model", "opus\n"),
        ("model", 4),
    ],
)
def test_garbage_for_another_kind_is_refused_by_name(place: Place, name: str, value: Any) -> None:
    assert list(place.refused({name: value})) == [name]


def test_models_are_named_as_the_agents_name_them(place: Place) -> None:
    for name in ("opus", "claude-opus-4.5", "us.anthropic/claude:v1@latest", "sonnet[1m]"):
        assert place.save(model=name).values.model == name


def test_one_bad_value_keeps_the_good_ones_out_and_all_bad_ones_are_named(place: Place) -> None:
    fields = place.refused({"default_max_cycles": 5, "heartbeat_seconds": 0, "nonsense": 1, "verify": []})
    assert set(fields) == {"heartbeat_seconds", "nonsense", "verify"}


def test_the_warning_never_lies_above_the_error(place: Place) -> None:
    assert "injection_error_kb" in place.refused({"injection_warning_kb": 151})["injection_warning_kb"]
    layers = place.save(injection_warning_kb=300, injection_error_kb=300)
    assert layers.values.injection_warning_kb == 300
    with pytest.raises(SettingsInvalid):
        settings.forget(place.root, place.state, "injection_error_kb", {})
    assert place.load().values.injection_error_kb == 300


def test_the_rule_over_two_settings_holds_for_the_layers_together(place: Place) -> None:
    place.file("injection_warning_kb = 400\n")
    assert place.load({"SPRINTRUNNER_INJECTION_ERROR_KB": "500"}).values.injection_warning_kb == 400
    with pytest.raises(SettingsInvalid, match="400 is more than 150"):
        place.load()


def test_each_layer_wins_over_the_one_before(place: Place) -> None:
    name = "default_max_cycles"
    place.file("default_max_cycles = 3\norder = 'status'\n")
    assert (place.load().values.default_max_cycles, place.load().sources[name]) == (3, "file")
    place.save(default_max_cycles=4)
    assert (place.load().values.default_max_cycles, place.load().sources[name]) == (4, "saved")
    env = {"SPRINTRUNNER_DEFAULT_MAX_CYCLES": "5"}
    assert (place.load(env).values.default_max_cycles, place.load(env).sources[name]) == (5, "environment")
    last = place.load(env, {name: 6})
    assert (last.values.default_max_cycles, last.sources[name]) == (6, "command line")
    assert (last.values.order, last.sources["order"], last.sources["commit"]) == ("status", "file", "default")


def test_the_command_line_is_checked_as_well(place: Place) -> None:
    with pytest.raises(SettingsInvalid, match="agent: must be one of"):
        place.load({}, {"agent": "hal"})


def test_the_environment_is_parsed_by_kind(place: Place) -> None:
    layers = place.load(
        {
            "SPRINTRUNNER_SERVER_PORT": " 9000 ",
            "SPRINTRUNNER_STOP_GRACE_SECONDS": "0.5",
            "SPRINTRUNNER_PAIR_STORIES": "Off",
            "SPRINTRUNNER_ARCHIVE": "1",
            "SPRINTRUNNER_VERIFY": '["pytest -q, loudly", "ruff check ."]',
            "SPRINTRUNNER_ALLOWED_HOSTS": "one.example, two.example",
            "SPRINTRUNNER_ENV_DROP": "",
            "SPRINTRUNNER_MODEL": "opus",
            "SPRINTRUNNER_CHEAP_MODEL": "",
            "SPRINTRUNNER_BUDGET_USD_PER_DAY": "12.5",
        }
    ).values
    assert (layers.server_port, layers.stop_grace_seconds, layers.pair_stories) == (9000, 0.5, False)
    assert layers.archive and layers.verify == ("pytest -q, loudly", "ruff check .")
    assert (layers.allowed_hosts, layers.env_drop) == (("one.example", "two.example"), ())
    assert (layers.model, layers.cheap_model, layers.budget_usd_per_day) == ("opus", None, 12.5)


@pytest.mark.parametrize(
    ("variable", "told"),
    [
        ("SPRINTRUNNER_SERVER_PORT", "x"),
        ("SPRINTRUNNER_SERVER_PORT", ""),
        ("SPRINTRUNNER_SERVER_PORT", "80.5"),
        ("SPRINTRUNNER_HEARTBEAT_SECONDS", "nan"),
        ("SPRINTRUNNER_PAIR_STORIES", "maybe"),
        ("SPRINTRUNNER_VERIFY", '["unclosed'),
        ("SPRINTRUNNER_VERIFY", "[1]"),
        ("SPRINTRUNNER_ENV_DROP", "NOT-A-NAME"),
        ("SPRINTRUNNER_MODEL", "-x"),
    ],
)
def test_a_wrong_variable_is_refused_by_its_own_name(place: Place, variable: str, told: str) -> None:
    with pytest.raises(SettingsInvalid, match=variable):
        place.load({variable: told})


def test_other_variables_of_the_prefix_are_not_settings(place: Place) -> None:
    others = ["PROJECT", "STATE_DIR", "TOKEN", "RUN_ID", "BATCH_ID", "COMMAND", "COMMAND_ID", "ATTEMPT"]
    others += ["STORY_KEYS", "EPIC_ID", "ODD"]
    layers = place.load({f"SPRINTRUNNER_{name}": "x" for name in others})
    assert set(layers.sources.values()) == {"default"}


def test_sections_for_agents_and_commands_are_read(place: Place) -> None:
    place.file(
        '[agents.claude]\npath = "/opt/claude"\nargs = ["--verbose"]\n'
        '[commands.dev-story]\nmodel = "opus"\ntimeout_minutes = 90.5\n'
    )
    layers = place.load()
    assert (layers.agents["claude"].path, layers.agents["claude"].args) == ("/opt/claude", ("--verbose",))
    command = layers.commands["dev-story"]
    assert (command.agent, command.model, command.timeout_minutes) == (None, "opus", 90.5)


@pytest.mark.parametrize(
    ("text", "name", "line"),
    [
        ('order = "file"\n\ndefault_max_cycles = 0\n', "default_max_cycles", 3),
        ("# settings\n'default_max_cycles' = true\n", "default_max_cycles", 2),
        ("colour = 'red'\n", "colour", 1),
        ("verify = 'pytest'\n", "verify", 1),
        ("verify = ['']\n", "verify", 1),
        ("\n[agents.hal]\npath = '/x'\n", "agents.hal", 2),
        ("[agents.claude]\nargs = []\npath = 'claude'\n", "agents.claude.path", 3),
        ("[agents.claude]\nenv = {}\n", "agents.claude.env", 2),
        ("[commands.dev-story]\n\ntimeout_minutes = 0\n", "commands.dev-story.timeout_minutes", 3),
        ("[commands.nap]\n", "commands.nap", 1),
        ("agents = 3\n", "agents", 1),
        ("commands.dev-story.agent = 'hal'\n", "commands.dev-story.agent", 1),
    ],
)
def test_a_wrong_line_of_the_file_is_named(place: Place, text: str, name: str, line: int) -> None:
    place.file(text)
    with pytest.raises(SettingsInvalid) as told:
        place.load()
    assert list(told.value.fields) == [name]
    assert f"(line {line})" in told.value.fields[name] and "sprintrunner.toml" in str(told.value)


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (b"order = \n", 1),
        (b"order = 'file'\norder = 'status'\n", 2),
        (b"order = 'file'\n[broken\n", 2),
        (b"verify = [\n'a',\n", 3),
        (b"order = 'file'\n# caf\xe9\n", 2),
    ],
)
def test_a_broken_file_is_an_error_that_names_file_and_line(place: Place, raw: bytes, line: int) -> None:
    (place.root / "sprintrunner.toml").write_bytes(raw)
    with pytest.raises(SettingsInvalid, match=rf"sprintrunner\.toml.*line {line}\b"):
        place.load()


def test_what_is_no_regular_file_is_an_error_and_does_not_hang(place: Place) -> None:
    path = place.root / "sprintrunner.toml"
    os.mkfifo(path)
    with pytest.raises(SettingsInvalid, match="not a regular file"):
        place.load()
    path.unlink()
    path.mkdir()
    with pytest.raises(SettingsInvalid, match="not a regular file"):
        place.load()


@pytest.mark.parametrize(
    "text", ["{", "[]", "null", '{"order": "random"}', '{"verify": ["rm"]}', '{"x": 1}', "[" * 100_000]
)
def test_a_broken_saved_file_is_an_error_that_names_it(place: Place, text: str) -> None:
    place.saved.write_text(text)
    with pytest.raises(SettingsInvalid, match=r"settings\.json"):
        place.load()


def test_saving_takes_part_of_the_settings_and_keeps_the_rest(place: Place) -> None:
    place.save(default_max_cycles=7)
    layers = place.save(order="status")
    assert layers.saved == {"default_max_cycles": 7, "order": "status"} == json.loads(place.saved.read_text())
    assert stat.S_IMODE(place.saved.stat().st_mode) == 0o600


def test_a_form_that_sends_all_fields_saves_only_those_that_changed(place: Place) -> None:
    everything = settings.over_http(place.load())
    layers = place.save(**{**everything, "default_max_cycles": 9})
    assert layers.saved == {"default_max_cycles": 9}


def test_the_second_of_two_open_forms_is_told_of_the_conflict(place: Place) -> None:
    seen = place.load().etag
    fresh = place.save(f'"{seen}"', default_max_cycles=5)
    assert fresh.etag != seen
    with pytest.raises(SettingsStale):
        place.save(f'"{seen}"', default_max_cycles=6)
    assert place.load().values.default_max_cycles == 5
    for form in ("*", "{}", 'W/"{}"', '"other", "{}"'):
        tag = form.replace("{}", fresh.etag)
        fresh = place.save(tag, default_max_cycles=fresh.values.default_max_cycles + 1)


def test_the_etag_changes_with_what_is_saved_even_where_it_is_not_in_force(place: Place) -> None:
    env = {"SPRINTRUNNER_ORDER": "status"}
    before = place.load(env)
    place.save(order="file")
    settings.save(place.root, place.state, {"order": "file", "archive": True}, None, env)
    assert place.load(env).etag != before.etag


def test_forgetting_brings_the_value_below_back(place: Place) -> None:
    place.file("default_max_cycles = 3\n")
    place.save(default_max_cycles=9, archive=True)
    layers = settings.forget(place.root, place.state, "default_max_cycles", {})
    assert (layers.values.default_max_cycles, layers.sources["default_max_cycles"]) == (3, "file")
    assert layers.values.archive is True
    assert settings.forget(place.root, place.state, "order", {}).etag == layers.etag
    with pytest.raises(SettingsInvalid, match="is not a setting"):
        settings.forget(place.root, place.state, "colour", {})


def test_a_state_folder_that_takes_no_file_is_one_sentence(place: Place) -> None:
    place.state.rmdir()
    with pytest.raises(settings.SettingsNotSaved, match="could not be saved"):
        place.save(default_max_cycles=3)


def test_threads_that_save_at_once_lose_nothing(place: Place) -> None:
    names = ["default_max_cycles", "max_retries", "max_dev_attempts", "haiku_after_review"]
    threads = [
        threading.Thread(target=lambda name=name: [place.save(**{name: n}) for n in (7, 8, 9)])
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert place.load().saved == dict.fromkeys(names, 9)


_SAVER = """
import sys
from pathlib import Path
from sprintrunner import settings
root, state = Path(sys.argv[1]), Path(sys.argv[2])
while True:
    for value in (3, 4, 5, 6, 7, 8, 9):
        settings.save(root, state, {"default_max_cycles": value, "max_retries": value}, None, {})
        print(value, flush=True)
"""


def test_kill_9_during_a_save_leaves_the_old_values_or_the_new_ones_all_of_them(place: Place) -> None:
    for round_number in range(5):
        child = subprocess.Popen(
            [sys.executable, "-c", _SAVER, str(place.root), str(place.state)], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        for _ in range(5 + 7 * round_number):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        values = place.load().values
        assert values.default_max_cycles == values.max_retries != 2
        # Whoever died in the middle does not keep the next one from saving.
        place.save(default_max_cycles=2, max_retries=5)


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
_NAMES = st.sampled_from([field.name for field in settings.FIELDS]) | st.text()


@hypothesis_settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=st.dictionaries(_NAMES, _ANYTHING, max_size=4))
def test_any_json_is_saved_whole_or_refused_by_name(place: Place, changes: dict[str, Any]) -> None:
    place.saved.unlink(missing_ok=True)
    try:
        layers = settings.save(place.root, place.state, changes, None, {})
    except SettingsInvalid as refused:
        assert refused.fields and set(refused.fields) <= {*changes, "injection_warning_kb"}
        assert not place.saved.exists()
        return
    for name, value in changes.items():
        assert settings.over_http(layers)[name] == value
    assert place.load() == layers


@hypothesis_settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(raw=st.binary(max_size=60), name=st.sampled_from(["sprintrunner.toml", "settings.json"]))
def test_any_bytes_in_a_file_are_read_or_refused_in_a_sentence(place: Place, raw: bytes, name: str) -> None:
    path = (place.root if name.endswith("toml") else place.state) / name
    path.write_bytes(raw)
    try:
        place.load()
    except SettingsInvalid as refused:
        assert name in str(refused)
    finally:
        path.unlink()


def test_the_names_of_commands_and_agents_are_those_of_their_modules() -> None:
    assert tuple(Command) == settings.COMMANDS
    assert set(agents.NAMES) == set(settings.AGENTS)
