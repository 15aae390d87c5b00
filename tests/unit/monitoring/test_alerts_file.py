"""alerts.yaml: what it takes, what it refuses, and that no secret of it is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from raytrain.errors import ConfigError, RefusedError
from raytrain.monitoring.alerts.channels.webhook import WebhookChannel
from raytrain.monitoring.alerts.secret_values import read_secret
from raytrain.monitoring.alerts.section import AlertsSection, load_alerts

SECRET = "https://hooks.slack.com/services/T0AAAA/B0BBBB/ZZZZZZZZZZZZZZZZZZZZZZZZ"
MAIL = "emails: [{{name: mail, host: h, sender: a@b.c, to: [d@e.f]{0}}}]\n"


def loaded(folder: Path, text: str) -> AlertsSection:
    (folder / "alerts.yaml").write_text(text)
    return load_alerts(folder / "alerts.yaml")


def test_without_a_file_there_is_the_log_alone(home: Path) -> None:
    found = load_alerts()
    assert (found.webhooks, found.emails) == ([], []) and found.log.at_least == "info"
    home.mkdir()
    (home / "alerts.yaml").write_text("webhooks: [{name: team, url_env: TEAM, format: slack}]\n")
    assert load_alerts().webhooks[0].format == "slack"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"webhooks: [{{name: team, url: '{SECRET}'}}]\n", "webhooks.0.url: unknown key"),
        (f"webhooks: [{{name: team, url_env: '{SECRET}'}}]\n", "takes the name of an environment variable"),
        (f"webhooks: [{{name: team, url_file: '{SECRET}'}}]\n", "takes the path of a file"),
        (f"webhooks: [{{name: team, url_env: ['{SECRET}']}}]\n", "url_env"),
        (f"webhooks: ['{SECRET}']\n", "takes keys of its own"),
        (f"webhooks: [{{name: '{SECRET}', url_env: A}}]\n", "webhooks.0.name"),
        (MAIL.format(", password: 'hunter2hunter2!'"), "password: unknown key"),
        (
            MAIL.format(", user: u, password_env: 'hunter2hunter2!'"),
            "takes the name of an environment variable",
        ),
    ],
)
def test_a_secret_in_the_file_is_refused_and_not_repeated(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    shown = str(caught.value) + repr(caught.value.__cause__)
    assert told in shown and "alerts.yaml:1" in shown
    assert "ZZZZ" not in shown and "hunter2" not in shown


def test_where_a_secret_is_to_be_kept_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, f"webhooks: [{{name: team, url_env: A, url: '{SECRET}'}}]\n")
    assert "`url_file`" in caught.value.fix and "`url_env`" in caught.value.fix


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("webhoks: []\n", "did you mean `webhooks`"),
        ("webhooks: [{name: team}]\n", "neither `url_env` nor `url_file`"),
        ("webhooks: [{name: team, url_env: A, url_file: B}]\n", "are both named"),
        ("webhooks: [{name: log, url_env: A}]\n", "name of the file's own channel"),
        ("webhooks: [{name: a, url_env: A}, {name: a, url_env: B}]\n", "two channels have one name"),
        ("webhooks: [{name: a, url_env: A, kinds: [drifft]}]\n", "kinds.0"),
        ("webhooks: [{name: a, url_env: A, quiet_hours: {start: 22:00, end: '07:00'}}]\n", "start"),
        (
            "webhooks: [{name: a, url_env: A, quiet_hours: {start: '25:00', end: '07:00'}}]\n",
            "no time of day",
        ),
        ("webhooks: [{name: a, url_env: A, quiet_hours: {start: '07:00', end: '07:00'}}]\n", "are the same"),
        (
            "webhooks: [{name: a, url_env: A, quiet_hours: {start: '22:00', end: '07:00', timezone: Europe/Berln}}]\n",
            "did you mean Europe/Berlin?",
        ),
        (MAIL.format(", user: u"), "neither `password_env` nor `password_file`"),
        (MAIL.format(", password_env: P"), "a password is named, and no `user`"),
        (MAIL.format(", security: none, user: u, password_env: P"), "would send the password in clear"),
        (MAIL.format(", port: 0"), "emails.0.port"),
        ("emails: [{name: m, host: h, sender: 'a b@c', to: [d@e]}]\n", "emails.0.sender"),
        ("retry: {first_s: 100, longest_s: 10}\n", "`first_s` is at most `longest_s`"),
        ("watch: {endpoints: [{name: a, url: 'http://user:pw@h'}]}\n", "watch.endpoints.0.url"),
        ("watch: {month: {currency: EUR}}\n", "neither `money` nor `gpu_hours`"),
    ],
)
def test_what_is_wrong_in_the_file_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    assert told in str(caught.value) and "alerts.yaml" in caught.value.what


def test_a_named_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such alerts file"):
        load_alerts(tmp_path / "nowhere.yaml")


def test_secrets_come_from_variables_and_from_files_of_their_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEAM", f" {SECRET}\n")
    assert read_secret("it", "TEAM", None) == SECRET
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    file.chmod(0o600)
    assert read_secret("it", None, file) == SECRET
    assert read_secret("it", None, None) is None
    file.chmod(0o640)
    with pytest.raises(RefusedError, match="open to others") as refused:
        read_secret("it", None, file)
    assert "ZZZZ" not in str(refused.value) and "640" in refused.value.why
    for env, place in (("NOWHERE", None), (None, tmp_path / "none"), (None, tmp_path)):
        with pytest.raises(ConfigError):
            read_secret("it", env, place)
    monkeypatch.setenv("TEAM", " ")
    with pytest.raises(ConfigError, match="is not there"):
        read_secret("it", "TEAM", None)
    file.write_bytes(b"\xff\xfe")
    file.chmod(0o600)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_secret("it", None, file)


def test_the_parts_of_a_url_are_its_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM", SECRET)
    section = AlertsSection.model_validate({"webhooks": [{"name": "team", "url_env": "TEAM"}]})
    assert WebhookChannel(section.webhooks[0]).secrets() == [SECRET, SECRET.partition(".com")[2]]
