"""No secret in an alert, wherever in it one stood."""

from __future__ import annotations

import json

import pytest
from alert_receivers import an_alert
from planted import key_of

from raytrain.monitoring.alerts.alert import alert_of
from raytrain.monitoring.alerts.redaction import Redactor
from raytrain.monitoring.alerts.spool import raise_alert, spooled

TOKEN = key_of(3)
SECRETS = [
    TOKEN,
    "postgresql://raytrain:Tr0ub4dor&3@db.example.org/records",
    "https://hooks.slack.com/services/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",
    "https://discord.com/api/webhooks/1234567890/abcDEF-ghiJKL_mnoPQR123456789",
    "https://example.org/in/a8Zk39Qm2Lx7Vt5Bn1Wc4R?x=1",
    "api_key = 'q8Wn2Lk9Xv4Bz7Tm1Rc6Yp3D'",
    "password: correcthorse!Battery9",
    "https://store.example/b?sv=1&sig=aGVsbG8lMkZ3b3JsZA%3D%3D",
    "https://s3.example/k?X-Amz-Signature=0f9e8d7c6b5a49382716",
    "https://api.telegram.org/bot123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw",
    "postgresql://ray:pA9/x7Qzk2Lm@db.example.org/records",
    "https://ray:pA9@x7Qzk2Lmw0@registry.example.org/simple",
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("place", ["subject", "title", "text", "key", "value"])
def test_what_looks_like_a_secret_is_taken_out(secret: str, place: str) -> None:
    written = f"connecting with {secret} failed"
    values = {"details": {written: "1"}} if place == "key" else {"details": {"tried": written}}
    alert = Redactor().alert(an_alert(**(values if place in ("key", "value") else {place: written})))
    told = json.dumps(alert.as_dict())
    core = secret.split("//")[-1].split("= ")[-1].split(": ")[-1].strip("'")
    core = (core.rpartition("@")[0] or core)[-12:]
    assert core not in told, told
    assert "secret]" in told or "URL of a webhook" in told


def test_a_name_tells_of_what_stands_behind_it() -> None:
    alert = Redactor().alert(an_alert(details={"password": "correcthorse!Battery9", "step": "120"}))
    assert dict(alert.details) == {"password": "[secret]", "step": "120"}


def test_what_is_known_to_be_a_secret_is_taken_out_whole_although_it_looks_like_none() -> None:
    redactor = Redactor(["open sesame", "sesame", "abc"])
    assert redactor.text("say open sesame, or sesame, abc") == "say [secret], or [secret], abc"


def test_what_people_need_stays() -> None:
    text = (
        "run sums-2026-03-01-1a2b, step 120 of 400: the loss is nan; digest sha256:" + "4f" * 32 + "\n"
        "look: raytrain runs show sums-2026-03-01-1a2b, s3://bucket/models/sums, http://127.0.0.1:8000/ready"
    )
    assert Redactor().text(text) == text


def test_what_cannot_be_searched_is_withheld(monkeypatch: pytest.MonkeyPatch) -> None:
    from raytrain.monitoring.alerts import redaction

    def broken(text: str) -> list[object]:
        raise TimeoutError

    monkeypatch.setattr(redaction, "_detectors", lambda: {"broken": broken})
    alert = Redactor().alert(an_alert(text=f"it is {TOKEN}"))
    assert "withheld" in alert.text and "withheld" in alert.title


def test_an_alert_is_as_long_as_it_may_be_and_can_be_shown() -> None:
    raised = an_alert(
        title="line\none\x1b[31m " + "x" * 500, text="\ud800" + "word " * 5_000, subject="s" * 900,
        details={f"key {i}": "v" * 2_000 for i in range(60)},
    )  # fmt: skip
    alert = Redactor().alert(raised)
    assert len(alert.title) == 200 and alert.title.isprintable()
    assert len(alert.text) == 4_000 and alert.text.encode() and len(alert.subject) == 200
    assert len(alert.details) == 20 and max(map(len, alert.details.values())) == 500


def test_what_is_cut_is_no_half_of_a_secret_that_only_a_channel_knows() -> None:
    known = "correct horse battery staple"
    at_the_edge = "x" * 190 + known
    assert raise_alert(an_alert(title=at_the_edge, subject=at_the_edge, details={"tried": "y" * 490 + known}))
    ((_, raised),) = spooled()
    alert = Redactor([known]).alert(raised)
    told = json.dumps(alert.as_dict())
    assert "correct" not in told and len(alert.title) <= 200 and alert.title.endswith("[secret]")


def test_nothing_secret_is_ever_written_to_the_disk() -> None:
    assert raise_alert(an_alert(text=f"the token {TOKEN} is refused", details={"token": TOKEN}))
    ((place, alert),) = spooled()
    assert TOKEN[4:] not in place.read_text() and place.stat().st_mode & 0o777 == 0o600
    assert alert_of(json.loads(place.read_text())) == alert
