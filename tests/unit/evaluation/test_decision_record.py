"""The decision as an artifact: whole, the same every time, and harmless to look at."""

from __future__ import annotations

import html
import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from evaluations import evaluation_of, records_with, two_models

from raytrain.config.document import parse_document
from raytrain.config.recipe import build
from raytrain.evaluation.decision.contract import ContractSection, default_contract
from raytrain.evaluation.decision.decide import Comparison, decide
from raytrain.evaluation.decision.headline import evidence
from raytrain.evaluation.decision.markdown import render_markdown
from raytrain.evaluation.decision.marked_text import as_html, marked
from raytrain.evaluation.decision.page import render_page
from raytrain.evaluation.decision.page_flips import MOST_FLIPS
from raytrain.evaluation.decision.record import record_of, write_decision
from raytrain.storage.artifact import open_artifact
from raytrain.storage.location import Location

pytestmark = pytest.mark.whole

Compared = Callable[..., Comparison]
HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)></pre></details>"
    "<!-- <style>body{display:none}</style> &amp; \"'` ]]> javascript:alert(3)"
)


@pytest.fixture
def compared(tmp_path: Path) -> Compared:
    """Two models on a suite of so many items; the candidate writes `text` after each answer."""

    def found(num_items: int = 60, *, text: str = "", name: str = "candidate", **more: Any) -> Comparison:
        before, after = two_models(num_items, 0.5, 0.6)
        baseline = evaluation_of(tmp_path / "base", {"sums": records_with(before)})
        candidate = evaluation_of(
            tmp_path / "candidate", {"sums": records_with(after, text=text)}, reference=name
        )
        return decide(more.get("contract") or default_contract(), baseline, [candidate])

    return found


@pytest.mark.slow
def test_the_same_inputs_give_the_same_digest(compared: Compared, tmp_path: Path) -> None:
    first = write_decision(Location.parse(str(tmp_path / "one")), compared())
    time.sleep(1.1)
    second = write_decision(Location.parse(str(tmp_path / "two")), compared())
    assert first.digest == second.digest
    assert {file: one.sha256 for file, one in first.manifest.files.items()} == {
        file: one.sha256 for file, one in second.manifest.files.items()
    }


@pytest.mark.slow
def test_what_a_contract_tells_people_is_in_no_digest(compared: Compared, tmp_path: Path) -> None:
    told = [default_contract().model_copy(update={"description": text}) for text in ("", "for people")]
    first, second = (
        write_decision(Location.parse(str(tmp_path / str(i))), compared(contract=one))
        for i, one in enumerate(told)
    )
    assert told[0].digest == told[1].digest
    assert first.digest == second.digest
    assert second.manifest.provenance["config"]["description"] == "for people"


def test_what_lies_in_the_artifact(compared: Compared, tmp_path: Path) -> None:
    found = compared()
    write_decision(Location.parse(str(tmp_path / "decision")), found)
    artifact = open_artifact(Location.parse(str(tmp_path / "decision")), kind="decision")
    assert set(artifact.manifest.files) == {
        "decision.json", "decision.md", "decision.html", "contract.yaml", "flips.parquet",
    }  # fmt: skip
    assert artifact.manifest.parents == {
        "baseline": found.baseline.evaluation.artifact.digest,
        "candidate": found.decisions[0].candidate.evaluation.artifact.digest,
    }
    record = json.loads((artifact.path / "decision.json").read_text())
    assert record["contract"]["digest"] == default_contract().digest
    (decision,) = record["decisions"]
    assert decision["verdict"]["word"] in ("better", "worse", "equivalent", "cannot tell")
    assert {"name", "rule", "value", "limit", "status", "why"} <= decision["gates"][0].keys()
    written = parse_document((artifact.path / "contract.yaml").read_text(), "contract.yaml")
    assert build(ContractSection, written).digest == default_contract().digest


def test_every_flip_lies_beside_the_page_whole(compared: Compared, tmp_path: Path) -> None:
    found = compared(text="x" * 5_000)
    artifact = write_decision(Location.parse(str(tmp_path / "decision")), found)
    pairs = found.decisions[0].suites[0].comparison.pairs
    rows = pq.read_table(artifact.path / "flips.parquet").to_pylist()
    assert len(rows) == pairs.num_won + pairs.num_lost
    assert all(len(row["candidate_output"]) > 5_000 for row in rows)
    changes = [row["candidate_score"] - row["baseline_score"] for row in rows]
    assert changes == sorted(changes), "losses come first"


class Tags(HTMLParser):
    """Every tag of a page with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def tags(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(page)
    return parser.found


def test_nothing_that_a_model_writes_becomes_a_tag(compared: Compared) -> None:
    found = tags(render_page(compared(text=HOSTILE, name=f"model {HOSTILE}")))
    assert [tag for tag, _ in found].count("script") == 1
    assert [tag for tag, _ in found].count("style") == 1
    assert not {"img", "iframe", "link", "object", "form"} & {tag for tag, _ in found}
    assert not [name for _, given in found for name in given if name.startswith("on") or name == "style"]


def test_the_page_asks_nothing_of_anyone_and_runs_its_one_script_only(compared: Compared) -> None:
    page = render_page(compared(text=HOSTILE))
    found = tags(page)
    (policy,) = [given["content"] for tag, given in found if given.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert len(re.findall(r"'sha256-[A-Za-z0-9+/=]{44}'", policy)) == 2
    assert not [given for _, given in found if {"src", "href", "action", "srcset"} & given.keys()]
    assert "url(" not in page.partition("</style>")[0]
    assert "@import" not in page.partition("</style>")[0]


def test_a_model_named_like_markup_breaks_no_table_of_the_markdown(
    compared: Compared, tmp_path: Path
) -> None:
    artifact = write_decision(
        Location.parse(str(tmp_path / "d")),
        compared(name="a | b <b>\n# x", text="\n```\n# no heading\n\x1b[2J"),
    )
    text = (artifact.path / "decision.md").read_text()
    assert "\x1b" not in text
    assert text.startswith("# a \\| b \\<b\\> \\# x against base")
    assert not [line for line in text.splitlines() if line.startswith(("```", "# no heading"))]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\ud800b", "a\\u{d800}b"),
        ("a\u202eb", "a\\u{202e}b"),
        ("a\x1b[31mb\x00", "a\\u{1b}[31mb\\u{0}"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("<&>", "&lt;&amp;&gt;"),
    ],
)
def test_what_shows_nothing_is_written_out(text: str, shown: str) -> None:
    assert as_html(text) == shown


def test_half_characters_in_outputs_reach_every_file(compared: Compared, tmp_path: Path) -> None:
    found = compared()
    (decision,) = found.decisions
    suite = decision.suites[0].comparison
    broken = tuple(replace(one, output=f"{one.output}\udc80") for one in suite.candidate)
    odd = replace(
        found,
        decisions=(
            replace(
                decision,
                suites=(replace(decision.suites[0], comparison=replace(suite, candidate=broken)),),
            ),
        ),
    )
    artifact = write_decision(Location.parse(str(tmp_path / "decision")), odd)
    assert "\\u{dc80}" in (artifact.path / "decision.html").read_text(encoding="utf-8")
    assert "\\udc80" in pq.read_table(artifact.path / "flips.parquet")["candidate_output"][0].as_py()


def test_names_of_categories_show_what_is_in_them(tmp_path: Path) -> None:
    """Also in plots: a name could turn round the letters beside it, and read as another."""
    before, after = two_models(60, 0.5, 0.6)
    baseline, candidate = (
        evaluation_of(
            tmp_path / name,
            {"sums": [replace(one, category="abc\u202edef") for one in records_with(scores)]},
        )
        for name, scores in (("base", before), ("candidate", after))
    )
    found = decide(default_contract(), baseline, [candidate])
    for text in (render_page(found), render_markdown(found)):
        assert "\u202e" not in text
        assert "202e}def" in text


def test_one_item_is_told_as_one(tmp_path: Path) -> None:
    baseline, candidate = (
        evaluation_of(tmp_path / name, {"sums": records_with([score])})
        for name, score in (("base", 0.0), ("candidate", 1.0))
    )
    found = decide(default_contract(), baseline, [candidate])
    assert "over 1 item of 1 suite," in evidence(found.decisions[0])
    page = render_page(found)
    assert "1 item won, 0 lost" in page
    assert not re.search(r"\b1 (items|suites|gates)\b", page)


def test_what_differs_is_marked() -> None:
    before, after = marked("the sum is 12 <b>", "the sum is 21 <b>")
    assert before == "the sum is <del>12 </del>&lt;b&gt;"
    assert after == "the sum is <ins>21 </ins>&lt;b&gt;"
    assert marked("alpha beta", "gamma delta") == ("alpha beta", "gamma delta")
    long = " ".join(str(i) for i in range(2_000))
    assert marked(long, long + " x") == (long, long + " x")


@pytest.mark.slow
def test_ten_thousand_flips_make_a_page_that_opens(tmp_path: Path) -> None:
    """Each output is 3,000 characters that all must be escaped."""
    text = "<" * 3_000
    baseline = evaluation_of(tmp_path / "base", {"sums": records_with([0.0] * 10_000, text=text)})
    candidate = evaluation_of(tmp_path / "candidate", {"sums": records_with([1.0] * 10_000, text=text)})
    began = time.perf_counter()
    page = render_page(decide(default_contract(), baseline, [candidate]))
    assert time.perf_counter() - began < 30
    assert len(page) < 8_000_000
    assert page.count('data-kind="won"') == MOST_FLIPS
    assert "200 are shown, from every suite in turn; all 10,000 lie beside this page" in page
    assert "characters left out" in page


def test_long_outputs_are_folded_and_their_ends_kept(compared: Compared) -> None:
    page = html.unescape(render_page(compared(text="x" * 3_000 + "THE END")))
    assert "THE END" in page
    assert "characters left out" in page


def test_approvals_are_pending(compared: Compared) -> None:
    asked = default_contract().model_copy(update={"approvals": ["evaluation lead"]})
    found = compared(contract=asked)
    assert record_of(found)["approvals"] == [{"who": "evaluation lead", "state": "pending"}]
    assert "evaluation lead <span" in render_page(found)


def test_an_endless_interval_is_null_in_json(tmp_path: Path) -> None:
    """One group, of scores without a bound, has no spread that anyone could know."""
    baseline = evaluation_of(tmp_path / "base", {"sums": records_with([1.0] * 10, group_size=10)})
    candidate = evaluation_of(tmp_path / "candidate", {"sums": records_with([2.0] * 10, group_size=10)})
    found = decide(default_contract(), baseline, [candidate])
    artifact = write_decision(Location.parse(str(tmp_path / "decision")), found)
    record = json.loads((artifact.path / "decision.json").read_text(), parse_constant=pytest.fail)
    assert record["decisions"][0]["verdict"]["interval"]["low"] is None
    assert record["decisions"][0]["verdict"]["word"] == "cannot tell"


@pytest.mark.slow
def test_several_candidates_stand_on_one_page(tmp_path: Path) -> None:
    before, after = two_models(400, 0.5, 0.8)
    baseline = evaluation_of(tmp_path / "base", {"sums": records_with(before)})
    candidates = [
        evaluation_of(tmp_path / name, {"sums": records_with(scores)})
        for name, scores in (("one", before[::-1]), ("two", after))
    ]
    artifact = write_decision(
        Location.parse(str(tmp_path / "decision")), decide(default_contract(), baseline, candidates)
    )
    assert {"flips_1.parquet", "flips_2.parquet"} <= set(artifact.manifest.files)
    assert set(artifact.manifest.parents) == {"baseline", "candidate_1", "candidate_2"}
    page = (artifact.path / "decision.html").read_text()
    assert "<h1>Promote two</h1>" in page
    assert page.count('<section class="candidate">') == 2
    assert yaml.safe_load((artifact.path / "contract.yaml").read_text())["contract"] == "default"
