"""Secrets are taken out of text, ordinary text stays, and big text is fast."""

from __future__ import annotations

import io
import json
import logging
import time

import pytest

from sprintrunner.redact import MARK, CleanFormatter, redact, redact_lines, secret_values

# Put together here, so that no scanner takes this file for a leak.
_BODY = "Ab1" * 16
SECRETS = [
    "sk-" + "ant-api03-" + _BODY,
    "sk-" + "proj-" + _BODY,
    "sk-" + _BODY,
    "gh" + "p_" + _BODY[:36],
    "github_" + "pat_" + _BODY,
    "glpat-" + _BODY[:20],
    "AKIA" + "ABCDEFGHIJKLMNOP",
    "xox" + "b-1234567890-" + _BODY,
    "AIza" + _BODY[:35],
    "ya29." + _BODY,
    "eyJ" + _BODY + ".eyJ" + _BODY + "." + _BODY,
]


@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: secret[:8])
def test_known_token_shapes_are_replaced_wherever_they_stand(secret: str) -> None:
    for text in (secret, f"key={secret}, next", json.dumps({"out": f"x {secret}\n"}), f"`{secret}`"):
        assert secret not in redact(text)
        assert MARK in redact(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Bearer abcdefghijkl123", f"Authorization: Bearer {MARK}"),
        ("-H 'x-api-key: abcdefgh12345'", f"-H 'x-api-key: {MARK}'"),
        ("git clone https://me:hunter2@example.org/r.git", f"git clone https://me:{MARK}@example.org/r.git"),
        ("postgres://:p%40ss@db:5432/x", f"postgres://:{MARK}@db:5432/x"),
        ("DB_PASSWORD=correcthorse\nA=1", f"DB_PASSWORD={MARK}\nA=1"),
        ("aws_secret_access_key = " + "a/b+" * 10, f"aws_secret_access_key = {MARK}"),
    ],
)
def test_secrets_in_their_surroundings_leave_the_rest_readable(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize("newline", ["\n", "\\n"])
def test_a_private_key_goes_as_a_whole_and_one_cut_off_as_far_as_it_reaches(newline: str) -> None:
    begin, end = "-----BEGIN RSA " + "PRIVATE KEY-----", "-----END RSA " + "PRIVATE KEY-----"
    body = newline.join(["MIIabc/+" * 8] * 3)
    assert redact(f"a {begin}{newline}{body}{newline}{end} b") == f"a {MARK} b"
    cut = redact(f"a {begin}{newline}{body}")
    assert "MII" not in cut


@pytest.mark.parametrize(
    "text",
    [
        "task-123 sk-learn ask-me-anything-about-it",
        "4-1-sk-translations-of-the-whole-site",
        "see https://example.org:8080/path@v2 and a@b.org",
        "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----",
        "MAX_TOKENS=4096 and token = load()",
        "Basic facts. The bearer of news.",
        "Basic authentication, bearer authentication and Basic Administration",
        "sha256:" + "0a" * 32,
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


def test_values_of_secret_variables_are_found_by_name_and_replaced_also_when_escaped() -> None:
    env = {
        "GITHUB_TOKEN": 'to"ken\\value',
        "MY_API_KEY": "0123456789ab",
        "PATH": "/usr/bin:/bin",
        "SSH_AUTH_SOCK": "/run/agent.sock",
        "MAX_THINKING_TOKENS": "31999999",
        "USE_TOKEN": "true",
        "SHORT_SECRET": "abc",
    }
    values = secret_values(env)
    assert set(values) == {'to"ken\\value', "0123456789ab"}
    text = redact(json.dumps({"a": env["GITHUB_TOKEN"]}) + env["MY_API_KEY"], values)
    assert text == json.dumps({"a": MARK}) + MARK


def test_a_value_inside_a_longer_one_does_not_leave_a_rest() -> None:
    assert redact("x longsecretvalue y", ["longsecret", "longsecretvalue"]) == f"x {MARK} y"


def test_a_value_is_found_in_every_way_a_program_may_write_it() -> None:
    value = 'pass/wörd"word\\end'
    written = [json.dumps({"a": value}), json.dumps({"a": value}, ensure_ascii=False)]
    written += [written[0].replace("/", "\\/"), 'a,"' + value.replace('"', '""') + '"']
    for text in written:
        assert "word" not in redact(text, [value]), text


def test_what_was_cut_through_the_middle_of_a_value_shows_no_part_of_it() -> None:
    value = "correct-horse-battery-staple"
    assert redact(f"running curl -u {value[:19]}…", [value]) == f"running curl -u {MARK}"
    assert redact(f"running curl -u {value[:19]}", [value]) == f"running curl -u {MARK}"
    assert redact(f"{value[9:]} was refused", [value]) == f"{MARK} was refused"
    assert redact("correct-horses are correct", [value]) == "correct-horses are correct"


def test_lines_of_json_are_redacted_as_they_read_and_kept_as_they_are_otherwise() -> None:
    hidden = '{"a": ["\\u0067hp_' + _BODY[:36] + '"], "b\\/c": 1}\n'
    plain = '{"a":   "\\u0061 word", "n": 1e3}\nnot \\u0061 json\n{"cut": "\\u0061'
    text = redact_lines(hidden + plain)
    assert text.endswith(plain)
    assert json.loads(text.splitlines()[0]) == {"a": [MARK], "b/c": 1}


def test_a_log_quotes_no_secret_not_even_in_a_traceback() -> None:
    told = io.StringIO()
    handler = logging.StreamHandler(told)
    handler.setFormatter(CleanFormatter(["a-secret-value"]))
    log = logging.Logger("of a test")
    log.addHandler(handler)
    try:
        raise ValueError("no a-secret-value here")
    except ValueError:
        log.exception("%s failed", SECRETS[0])
    assert "a-secret" not in told.getvalue() and SECRETS[0] not in told.getvalue()
    assert f"ValueError: no {MARK} here" in told.getvalue()


@pytest.mark.parametrize(
    "unit",
    [
        "ordinary words of a transcript, 1 + 1 = 2\n",
        "sk-",
        "://a",
        "A_TOKEN",
        "eyJa",
        "-----BEGIN PRIVATE KEY-----",
        "A",
    ],
)
def test_a_megabyte_takes_a_moment_whatever_it_holds(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    begun = time.perf_counter()
    redact(text, ["some-secret-value"])
    assert time.perf_counter() - begun < 3
