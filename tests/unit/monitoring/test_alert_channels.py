"""Every channel against a real server on this machine, and against servers that misbehave."""

from __future__ import annotations

import email
import email.policy
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alert_receivers import (
    SECRET_PATH,
    Hook,
    an_alert,
    free_port,
    hook,
    mail_room,
    talker,
    write_certificate,
)

from raytrain.errors import ConfigError
from raytrain.monitoring.alerts import asking
from raytrain.monitoring.alerts.channels import email as email_channel
from raytrain.monitoring.alerts.channels.channel import Failure
from raytrain.monitoring.alerts.channels.email import EmailChannel
from raytrain.monitoring.alerts.channels.log import LogChannel
from raytrain.monitoring.alerts.channels.slack import escaped, slack_message
from raytrain.monitoring.alerts.channels.webhook import WebhookChannel
from raytrain.monitoring.alerts.section import EmailSection, LogSection, WebhookSection

pytestmark = pytest.mark.whole

ALERT = an_alert(id="0123456789abcdef", details={"run": "sums-1", "step": "120"})
QUICK_S = 0.5


@pytest.fixture
def received() -> Iterator[Hook]:
    with hook() as found:
        yield found


@pytest.fixture
def post(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Failure | None]:
    """Send ALERT to a URL."""

    def post(url: str, num_repeats: int = 0, **values: Any) -> Failure | None:
        monkeypatch.setenv("TEAM_URL", url)
        section = WebhookSection.model_validate({"name": "team", "url_env": "TEAM_URL", **values})
        return WebhookChannel(section).send(ALERT, num_repeats)

    return post


@pytest.fixture
def mail(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Failure | None]:
    """Send an alert by mail."""
    monkeypatch.setenv("MAIL_PASSWORD", "correct horse")

    def mail(port: int, alert: Any = ALERT, **values: Any) -> Failure | None:
        section = {"name": "mail", "host": "localhost", "port": port, "security": "none",
                   "sender": "raytrain@example.org", "to": ["ada@example.org", "bob@example.org"]}  # fmt: skip
        return EmailChannel(EmailSection.model_validate({**section, **values})).send(alert, 0)

    return mail


# Webhooks


def test_a_program_gets_json_with_everything(received: Hook, post: Callable[..., Any]) -> None:
    assert post(received.url, num_repeats=3) is None
    assert received.bodies == [
        {"version": 1, "source": "raytrain", "id": "0123456789abcdef", "kind": "run_failed", "subject": "sums-1",
         "severity": "critical", "title": "train sums failed", "text": "the loss is no number",
         "details": {"run": "sums-1", "step": "120"}, "time": "1970-01-01T00:16:40+00:00", "repeats": 3}
    ]  # fmt: skip
    assert received.headers[0]["Idempotency-Key"] == ALERT.id
    assert received.headers[0]["Content-Type"].startswith("application/json")


def test_slack_gets_blocks(received: Hook, post: Callable[..., Any]) -> None:
    assert post(received.url, format="slack") is None
    (body,) = received.bodies
    assert body["text"] == "[critical] train sums failed"
    assert [one["type"] for one in body["blocks"]] == ["header", "section", "section", "context"]
    assert body["blocks"][2]["fields"][0] == {"type": "mrkdwn", "text": "*run*\nsums-1"}


def test_slacks_limits_hold_whatever_an_alert_says() -> None:
    details = {f"<{i}>": "&" * 500 for i in range(20)}
    hostile = an_alert(title="<&>" * 66, text="<!channel> & <@U1>\n" * 220, details=details)
    message = slack_message(hostile, 7)
    header, text, fields, more, context = message["blocks"]
    assert len(header["text"]["text"]) <= 150 and len(message["text"]) <= 3_000
    assert len(text["text"]["text"]) <= 3_000 and "<!channel>" not in json.dumps(message)
    assert len(fields["fields"]) == len(more["fields"]) == 10
    assert max(len(one["text"]) for one in fields["fields"]) <= 2_000
    assert "said again 7 times" in context["elements"][0]["text"]
    assert slack_message(an_alert(text="", title=""), 0)["blocks"][0]["text"]["text"] == "run_failed"


@pytest.mark.parametrize("longest", range(4, 24))
def test_no_escaped_sign_is_cut_in_two(longest: int) -> None:
    told = escaped("a<b>c&d<e>", longest)
    assert len(told) <= longest
    rest = told.removesuffix("…").replace("&amp;", "").replace("&lt;", "").replace("&gt;", "")
    assert set(rest) <= set("abcde")


@pytest.mark.parametrize(
    ("reply", "told", "lasts", "asked_s"),
    [
        ((500, "down", {}), "it answered 500: down", False, None),
        ((503, "", {"Retry-After": "120"}), "it answered 503", False, 120.0),
        (
            (429, "slow", {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}),
            "it answered 429: slow",
            False,
            None,
        ),
        ((404, "no_service", {}), "it answered 404: no_service", True, None),
        ((400, "\x1b[31minvalid\n" + "x" * 5_000, {}), "it answered 400: [31minvalid xxx", True, None),
        ((302, "", {"Location": "http://elsewhere.example.org/"}), "sends elsewhere", True, None),
        ((500, "cut", {"Content-Length": "999"}), "it answered 500", False, None),
        ((500, "no gzip", {"Content-Encoding": "gzip"}), "it answered 500", False, None),
    ],
)
def test_an_answer_that_is_no_yes_is_told_in_words(
    received: Hook, post: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, reply: Any, told: str, lasts: bool,
    asked_s: float | None,
) -> None:  # fmt: skip
    monkeypatch.setattr(asking, "ANSWER_S", QUICK_S)
    received.reply = lambda _: reply
    failure = post(received.url)
    assert told in failure.why and len(failure.why) < 260 and failure.why.isprintable()
    assert (failure.lasts, failure.asked_s) == (lasts, asked_s)
    assert len(received.bodies) == 1


def test_a_yes_whose_body_never_comes_is_a_yes(
    received: Hook, post: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "ANSWER_S", QUICK_S)
    received.reply = lambda _: (200, "o", {"Content-Length": "2"})
    assert post(received.url) is None, "once more would be twice"


def hang(connection: socket.socket) -> None:
    connection.recv(65536)
    time.sleep(3)


def trickle(connection: socket.socket) -> None:
    connection.recv(65536)
    for sign in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 40:
        connection.sendall(bytes([sign]))
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("talk", "told"),
    [
        (hang, "did not answer in time"),
        (trickle, "was not done in 1 s"),
        (lambda one: one.recv(10), "127.0.0.1 cannot be reached"),
        (
            lambda one: (one.recv(65536), one.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")),
            "127.0.0.1 cannot be reached",
        ),
    ],
    ids=["hangs", "trickles", "closes", "speaks something else"],
)
def test_a_server_that_says_nothing_useful_is_left_in_time(
    post: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, talk: Any, told: str
) -> None:
    monkeypatch.setattr(asking, "ANSWER_S", QUICK_S)
    monkeypatch.setattr(asking, "WHOLE_S", 1.0)
    with talker(talk) as port:
        started = time.monotonic()
        failure = post(f"http://127.0.0.1:{port}{SECRET_PATH}")
        assert told in failure.why and not failure.lasts
        assert time.monotonic() - started < 2.5
    assert "notasecret" not in failure.why


def test_nobody_there(post: Callable[..., Any]) -> None:
    failure = post(f"http://127.0.0.1:{free_port()}{SECRET_PATH}")
    assert failure == Failure("127.0.0.1 cannot be reached: Connection refused")
    failure = post(f"https://no-such-host.invalid{SECRET_PATH}")
    assert (
        failure.why.startswith("no-such-host.invalid cannot be reached") and "notasecret" not in failure.why
    )


def test_a_certificate_is_held_against_the_one_that_is_named(
    tmp_path: Path, post: Callable[..., Any]
) -> None:
    good, other, over = (
        write_certificate(tmp_path),
        write_certificate(tmp_path, host="other.example.org"),
        write_certificate(tmp_path, is_over=True),
    )
    with hook(good) as received:
        assert post(received.url, ca_file=good) is None and received.ids == [ALERT.id]
        unknown = post(received.url)
        assert "no safe connection to 127.0.0.1: its certificate does not hold" in unknown.why
        missing = post(received.url, ca_file=tmp_path / "none.pem")
        assert "certificates cannot be read" in missing.why
        assert len(received.bodies) == 1
    for certificate in (other, over):
        with hook(certificate) as received:
            failure = post(received.url, ca_file=certificate)
            assert "its certificate does not hold" in failure.why and received.bodies == []
    with hook() as plain:
        failure = post(plain.url.replace("http:", "https:"))
        assert "no safe connection" in failure.why or "cannot be reached" in failure.why


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://hooks.example.org/x", "would get it in clear"),
        ("hooks.example.org/x", "is no URL"),
        ("ftp://hooks.example.org/x", "is no URL"),
        ("https://", "is no URL"),
        ("https://h:99999999/x", "is no URL"),
        ("https://h/with space", "is no URL"),
    ],
)
def test_a_url_that_nothing_is_sent_to(post: Callable[..., Any], url: str, told: str) -> None:
    failure = post(url)
    assert told in failure.why and failure.lasts


def test_no_password_of_netrc_goes_along(
    received: Hook, post: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login ada password hunter2\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert post(received.url) is None
    assert "Authorization" not in received.headers[0]


# Mail


def parsed(envelope: Any) -> Any:
    return email.message_from_bytes(envelope.content, policy=email.policy.default)


def test_a_mail_says_everything_and_keeps_its_id(mail: Callable[..., Any]) -> None:
    with mail_room() as room:
        assert mail(room.port) is None and mail(room.port) is None
    first, second = map(parsed, room.mails)
    assert first["Subject"] == "[raytrain critical] train sums failed"
    assert (first["From"], first["To"]) == ("raytrain@example.org", "ada@example.org, bob@example.org")
    assert first["Message-ID"] == second["Message-ID"] == "<0123456789abcdef@example.org>"
    assert first["Auto-Submitted"] == "auto-generated"
    text = first.get_content()
    assert "the loss is no number" in text and "step: 120" in text and "1970-01-01T00:16:40" in text
    assert room.mails[0].rcpt_tos == ["ada@example.org", "bob@example.org"]


def test_no_line_of_an_alert_becomes_a_header(mail: Callable[..., Any]) -> None:
    hostile = an_alert(title="x\r\nBcc: eve@example.org", text="größer als 3 °C\n.\nQUIT\n")
    with mail_room() as room:
        assert mail(room.port, hostile) is None
    (message,) = map(parsed, room.mails)
    assert message["Bcc"] is None and message["Subject"].endswith("x Bcc: eve@example.org")
    assert "größer als 3 °C\n.\nQUIT" in message.get_content().replace("\r\n", "\n")


def test_over_starttls_and_over_tls_with_a_login(tmp_path: Path, mail: Callable[..., Any]) -> None:
    certificate, known = write_certificate(tmp_path), ("ada", "correct horse")
    safe = {"ca_file": certificate, "user": "ada", "password_env": "MAIL_PASSWORD"}
    with mail_room(certificate, login=known) as room:
        assert mail(room.port, security="starttls", **safe) is None
        unknown = mail(room.port, security="starttls", **{**safe, "ca_file": None})
        assert "no safe connection to localhost: its certificate does not hold" in unknown.why
        wrong = mail(room.port, security="starttls", **{**safe, "user": "eve"})
        assert wrong == Failure("localhost does not take the login (535)", lasts=True)
        in_clear = mail(room.port)
        assert "530" in in_clear.why and len(room.mails) == 1
    with mail_room(certificate, is_tls_first=True, login=known) as room:
        assert mail(room.port, security="tls", **safe) is None and len(room.mails) == 1


def test_a_server_without_starttls_gets_nothing_in_clear(mail: Callable[..., Any]) -> None:
    with mail_room() as room:
        failure = mail(room.port, security="starttls", user="ada", password_env="MAIL_PASSWORD")
        assert "nothing was sent in clear" in failure.why and failure.lasts and room.mails == []


def test_tls_asked_of_a_server_that_speaks_none(mail: Callable[..., Any]) -> None:
    with mail_room() as room:
        failure = mail(room.port, security="tls")
        assert "no safe connection" in failure.why and room.mails == []


def test_who_is_refused_and_why(mail: Callable[..., Any]) -> None:
    with mail_room() as room:
        room.refuse = {"bob@example.org": "550 no such person"}
        partly = mail(room.port)
        assert (
            partly.partly and partly.why == "delivered, but not to bob@example.org" and len(room.mails) == 1
        )
        room.refuse["ada@example.org"] = "450 full"
        nobody = mail(room.port)
        assert nobody.why.endswith("ada@example.org (450), bob@example.org (550)") and not nobody.lasts
        room.refuse = {"DATA": "554 no"}
        assert mail(room.port) == Failure("localhost answered 554: no", lasts=True)
        room.refuse = {"DATA": "451 later"}
        assert mail(room.port) == Failure("localhost answered 451: later")
        assert len(room.mails) == 1


@pytest.mark.parametrize(
    ("talk", "told"),
    [
        (lambda one: time.sleep(3), "did not answer in time"),
        (lambda one: None, "ended the conversation"),
        (lambda one: one.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "localhost"),
        (lambda one: one.sendall(b"\xff\xfe\x00" * 3_000 + b"\r\n"), "localhost"),
        (lambda one: one.sendall(b"554 go away\r\n"), "localhost"),
    ],
    ids=["hangs", "closes", "speaks HTTP", "garbage", "refuses"],
)
def test_what_is_no_mail_server_is_left_in_time(
    mail: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, talk: Any, told: str
) -> None:
    monkeypatch.setattr(email_channel, "ANSWER_S", QUICK_S)
    with talker(talk) as port:
        started = time.monotonic()
        failure = mail(port, host="127.0.0.1")
        assert failure is not None and told.replace("localhost", "127.0.0.1") in failure.why, failure
        assert time.monotonic() - started < 2.5


def test_no_mail_server_there(mail: Callable[..., Any]) -> None:
    port = free_port()
    assert mail(port, host="127.0.0.1").why == f"127.0.0.1:{port} cannot be reached: Connection refused"
    assert "cannot be reached" in mail(25, host="no-such-host.invalid").why


def test_a_password_that_is_not_there_is_an_error_of_the_config(
    mail: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MAIL_PASSWORD")
    with pytest.raises(ConfigError, match="the password of mail is not there"):
        mail(1, security="starttls", user="ada", password_env="MAIL_PASSWORD")


# The log


def test_the_log_has_a_line_for_each(tmp_path: Path) -> None:
    channel = LogChannel(LogSection(file=tmp_path / "deep" / "alerts.jsonl"))
    assert channel.send(ALERT, 0) is None and channel.send(an_alert(title="größer\nals"), 2) is None
    first, second = map(json.loads, channel.file.read_text().splitlines())
    assert first["id"] == ALERT.id and second["repeats"] == 2 and second["title"] == "größer\nals"
    assert channel.file.stat().st_mode & 0o777 == 0o600
    failure = LogChannel(LogSection(file=tmp_path)).send(ALERT, 0)
    assert failure is not None and "cannot be written: Is a directory" in failure.why
