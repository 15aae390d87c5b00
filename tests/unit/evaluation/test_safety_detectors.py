"""Detectors: what they find of what was put there, what they leave alone, and what every one of them promises."""

from __future__ import annotations

import importlib.util
import itertools
import random
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from raytrain.errors import ConfigError
from raytrain.evaluation.safety import checksums
from raytrain.evaluation.safety.findings import (
    BUILT_IN,
    SEVERITIES,
    Detector,
    Finding,
    build_detectors,
    detector_names,
    redacted,
    scan,
)
from raytrain.evaluation.safety.labelled.examples import (
    Example,
    labelled_examples,
    load_templates,
)
from raytrain.evaluation.safety.labelled.measuring import measure
from raytrain.evaluation.safety.labelled.personal_values import PERSONAL_VALUES
from raytrain.evaluation.safety.labelled.secret_values import SECRET_VALUES
from raytrain.evaluation.safety.patterns import Pattern, PatternDetector

pytestmark = pytest.mark.whole

PACKAGES = {"detect_secrets": "detect_secrets", "presidio": "presidio_analyzer"}
FLOORS = {"secrets": (0.99, 0.98), "personal": (0.97, 0.95)}
ANY = {"secrets": SECRET_VALUES, "personal": PERSONAL_VALUES}


def available(name: str) -> bool:
    return name not in PACKAGES or importlib.util.find_spec(PACKAGES[name]) is not None


# spaCy, which Presidio brings, takes ten seconds to import.
SLOW = pytest.param("presidio", marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=[*BUILT_IN, "detect_secrets", SLOW])
def any_detector(request: pytest.FixtureRequest) -> Detector:
    if not available(request.param):
        pytest.skip(f"{PACKAGES[request.param]} is not installed: the extra `safety`")
    return build_detectors([request.param])[request.param]


@pytest.mark.parametrize("part", ["tuned", "held_out"])
@pytest.mark.parametrize("name", ["secrets", "personal"])
def test_floors(name: Literal["secrets", "personal"], part: Literal["tuned", "held_out"]) -> None:
    examples = labelled_examples(name, part)
    found = measure(build_detectors([name])[name], examples)
    recall, precision = FLOORS[name]
    assert found.num_found / found.num_labels >= recall, found.missed
    assert found.num_right / found.num_findings >= precision, found.wrong
    if part == "tuned":
        assert found.num_labels >= 500 and sum(not one.labels for one in examples) >= 2000


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", ["secrets", "personal"])
def test_floors_hold_for_other_values(name: Literal["secrets", "personal"], seed: int) -> None:
    found = measure(build_detectors([name])[name], labelled_examples(name, "held_out", seed))
    assert found.num_found / found.num_labels >= FLOORS[name][0], found.missed
    assert found.num_right / found.num_findings >= FLOORS[name][1], found.wrong


def test_a_detector_that_finds_nothing_or_everything_is_below_the_floors() -> None:
    """Whether the floors could be missed at all."""
    examples = labelled_examples("secrets", "tuned")
    blind = measure(lambda text: [], examples)
    assert blind.num_found == 0 and blind.num_labels == 600
    everything = measure(lambda text: [Finding("secret", "secret", "low", 0, len(text), "", "all")], examples)
    assert everything.num_found == 0, "of the wrong kind"
    assert everything.precision.high < 0.3


@pytest.mark.parametrize("name", ["secrets", "personal"])
def test_labels_stand_where_the_values_were_put(name: Literal["secrets", "personal"]) -> None:
    for example in labelled_examples(name, "tuned")[:300]:
        before, after = example.template.split("{{value}}")
        (label,) = example.labels
        if "{{" not in before:
            assert example.text[: label.start] == before
        if "{{" not in after:
            assert example.text[label.end :] == after


def test_the_labelled_sets_are_the_same_everywhere_and_their_parts_share_no_template() -> None:
    assert labelled_examples("secrets", "tuned") == labelled_examples("secrets", "tuned")
    assert labelled_examples("secrets", "tuned", 1) != labelled_examples("secrets", "tuned")
    for name in ("secrets", "personal"):
        section = load_templates(name)
        parts: list[set[str]] = []
        for part in ("tuned", "held_out"):
            positives: dict[str, list[str]] = getattr(section.positives, part)
            parts.append(set(sum(positives.values(), getattr(section.negatives, part))))
        assert not (parts[0] & parts[1]) - {"{{dotted_json}}"}, "a template stands in both parts"


def test_no_secret_stands_in_the_repository() -> None:
    """The values are put together when they are wanted; the data files hold none."""
    folder = Path(str(importlib.util.find_spec("raytrain").origin)).parent  # type: ignore[union-attr]
    detector = build_detectors(["secrets"])["secrets"]
    for file in [*folder.rglob("safety/**/*.py"), *folder.rglob("safety/**/*.yaml"), Path(__file__)]:
        found = [one for one in detector(file.read_text(encoding="utf-8")) if one.severity == "critical"]
        assert found == [], file


CONTRACT_TEXTS: dict[str, Callable[[], str]] = {
    "empty": lambda: "",
    "white space": lambda: " \n\t ",
    "half a surrogate pair": lambda: f"mail \ud800 {PERSONAL_VALUES['email'](random.Random(1))} \udfff",
    "nul": lambda: "a\x00b",
    "other scripts": lambda: "пароль 密码 كلمة 🎉",
    "long": lambda: "word " * 4_000,
    "secret": lambda: f'key = "{SECRET_VALUES["github_token"](random.Random(2))}"',
    "personal": lambda: f"card {PERSONAL_VALUES['credit_card'](random.Random(3))}.",
    "many lines": lambda: "\r\n".join(one.text for one in labelled_examples("secrets", "tuned")[:40]),
}


@pytest.mark.parametrize("text", CONTRACT_TEXTS)
def test_every_detector_keeps_the_contract(any_detector: Detector, text: str) -> None:
    content = CONTRACT_TEXTS[text]()
    found = list(any_detector(content))
    assert found == list(any_detector(content)), "pure"
    assert found == sorted(found, key=lambda one: one.start)
    for one in found:
        value = content[one.start : one.end]
        assert value and 0 <= one.start < one.end <= len(content)
        assert one.severity in SEVERITIES and one.family in ("secret", "personal") and one.kind
        assert one.text == redacted(value) and value not in one.text
    if text in ("empty", "white space"):
        assert found == []
    else:
        assert all(left.end <= right.start for left, right in itertools.pairwise(found)), "apart"


def test_no_detector_speaks_to_the_network(any_detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found in a model's output is sent nowhere, not even to be verified."""
    asked: list[object] = []

    def refuse(*arguments: object, **named: object) -> None:
        asked.append(arguments)
        raise OSError("no network")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in ("secret", "personal", "many lines"):
        any_detector(CONTRACT_TEXTS[name]())
    assert asked == []


def test_every_detector_finds_its_own(any_detector: Detector) -> None:
    name = "secrets" if any(any_detector(CONTRACT_TEXTS["secret"]())) else "personal"
    assert any(any_detector(CONTRACT_TEXTS["secret" if name == "secrets" else "personal"]()))


def test_detectors_by_name() -> None:
    assert {*BUILT_IN, *PACKAGES} <= set(detector_names())
    with pytest.raises(ConfigError, match="secrets"):
        build_detectors(["secretz"])


def test_a_detector_that_raises_is_told_of_and_the_others_go_on() -> None:
    def broken(text: str) -> list[Finding]:
        raise ValueError("no")

    text = CONTRACT_TEXTS["secret"]()
    found = scan(text, {"broken": broken, **build_detectors(["secrets"])})
    assert found.failures == ("broken: ValueError: no",)
    assert [one.kind for one in found.findings] == ["github_token"]


def test_a_scan_ends_in_time() -> None:
    # Each a follows each other's end: the search would take years.
    slow = PatternDetector("slow", "secret", [Pattern("slow", "low", r"(a|a)+$")], longest_s=0.2)
    started = time.monotonic()
    found = scan("a" * 60 + "b", {"slow": slow})
    assert time.monotonic() - started < 5
    assert "TimeoutError" in found.failures[0] and found.findings == ()


def test_checks_count_for_the_time_and_many_findings_are_told_apart_quickly() -> None:
    def lasting(_: object) -> bool:
        time.sleep(0.01)
        return False

    slow = PatternDetector("slow", "secret", [Pattern("slow", "low", "a", lasting)], longest_s=0.1)
    found = scan("a" * 500, {"slow": slow})
    assert "TimeoutError" in found.failures[0]
    # Each finding held against each other would take minutes; a busy machine may take more than the usual two seconds.
    many = PatternDetector("many", "secret", [Pattern(one, "low", one) for one in "ab"], longest_s=20.0)
    assert len(many("ab" * 15_000)) == 30_000


@pytest.mark.parametrize(
    "text", ["sk-" * 20_000, "token " + " " * 50_000, "a." * 50_000 + "@", "1 " * 50_000, "password=" * 5_000]
)
def test_hostile_texts_are_read_in_time(text: str) -> None:
    assert scan(text, build_detectors()).failures == ()


def test_a_value_is_never_told() -> None:
    for draw in [*SECRET_VALUES.values(), *PERSONAL_VALUES.values()]:
        value = draw(random.Random(5))
        shown = redacted(value)
        assert value[5:] not in shown and len(shown.split("…")[0]) <= 4


@pytest.mark.parametrize(
    ("check", "right"),
    [
        (checksums.is_iban, "GB82WEST12345698765432"),
        (checksums.is_iban, "DE89370400440532013000"),
        (checksums.is_card_number, "4111111111111111"),
        (checksums.is_card_number, "378282246310005"),
        (checksums.is_card_number, "6759649826438453"),
        (checksums.is_vat_number, "DE136695976"),
        (checksums.is_vat_number, "ATU13585627"),
        (checksums.is_vat_number, "BE0428759497"),
        (checksums.is_vat_number, "FR83404833048"),
        (checksums.is_vat_number, "IT00743110157"),
        (checksums.is_vat_number, "NL004495445B01"),
        (checksums.is_vat_number, "PL8567346215"),
        (checksums.is_passport_line, "L898902C36UTO7408122F1204159ZE184226B<<<<<10"),
        (checksums.is_social_security_number, "512345678"),
    ],
)
def test_checksums_hold_for_numbers_published_as_right(check: Callable[[str], bool], right: str) -> None:
    assert check(right)
    wrong = [right[:5] + str((int(right[5]) + 1) % 10) + right[6:]] if right[5].isdigit() else []
    assert not any(map(check, wrong)) or check is checksums.is_social_security_number


@pytest.mark.parametrize("area", ["000", "666", "900", "987"])
def test_social_security_numbers_that_were_never_issued(area: str) -> None:
    assert not checksums.is_social_security_number(area + "345678")


def test_placeholders_are_no_secrets() -> None:
    detector = build_detectors(["secrets"])["secrets"]
    for value in (
        "<password>",
        "${TOKEN}",
        "changeme",
        "x" * 40,
        "your-secret-key-goes-here-123",
        "********",
    ):
        assert detector(f"password: {value}") == [] and detector(f"api_key={value}") == [], value


@pytest.mark.parametrize(
    "text",
    [
        "password: Summer2024", "password = 'Welcome2023'", "passwort: Qwertz1234", "pwd=Abcdef12;",
        "redis:" + "//:p4ssw0rd@host:6379", "Authorization: Basic dXNlcjpwYXNzd29yZDEyMw==",
        '"Authorization": "Basic YWRtaW46aHVudGVyMg=="',
    ],
)  # fmt: skip
def test_passwords_that_people_choose(text: str) -> None:
    (found,) = build_detectors(["secrets"])["secrets"](text)
    assert found.family == "secret"


@pytest.mark.parametrize(
    "text",
    [
        "password: Password", "password = Example2024", "password=PasswordField", "redis://:@host:6379",
        "redis://:password@host", "Authorization: Basic dXNlcjpwYXNzd29yZA==", "Authorization: Basic abcdefgh",
        "basic authorization: basic understanding of it",
    ],
)  # fmt: skip
def test_what_is_no_password(text: str) -> None:
    assert build_detectors(["secrets"])["secrets"](text) == []


def test_keys_with_headers_in_one_line_and_cut_off() -> None:
    detector = build_detectors(["secrets"])["secrets"]
    body = "\n".join(SECRET_VALUES["private_key"](random.Random(1)).split("\n")[1:-1])
    begin, end = "-----BEGIN {} PRIVATE" + " KEY-----", "-----END {} PRIVATE" + " KEY-----"
    headers = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0A1B\n\n"
    gnupg = begin.format("PGP").replace("KEY-", "KEY BLOCK-") + "\nVersion: GnuPG v2.0 (GNU/Linux)\n\n" + body
    whole = f"{begin.format('RSA')}\n{headers}{body}\n{end.format('RSA')}"
    for text in (whole, whole.replace("\n", "\\n"), gnupg, f"{begin.format('EC')}\n{body[:90]}"):
        (found,) = detector(text)
        assert (found.kind, found.start, found.end) == ("private_key", 0, len(text)), text


def test_every_example_of_documentation_is_left_alone() -> None:
    detector = build_detectors(["personal"])["personal"]
    texts = [
        "jane@example.com",
        "192.0.2.7",
        "2001:db8::1",
        "(212) 555-0142",
        "4242 4242 4242 4242",
        "078-05-1120",
    ]
    assert [one for text in texts for one in detector(text)] == []


def test_an_example_without_labels_is_harmless() -> None:
    assert Example("no", (), "no").labels == ()
