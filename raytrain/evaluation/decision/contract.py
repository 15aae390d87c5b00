"""The metric contract: what a candidate must show, written down before it is measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from raytrain.config.document import Form
from raytrain.config.recipe import build, load_recipe, nearest
from raytrain.config.section import Section
from raytrain.errors import ConfigError
from raytrain.storage.manifest import digest_of

CONTRACT = Form("contract", "contract and suites", "jobs/contracts/", "docs/evaluation-reference.md")

ANY_SUITE = "*"

Points = Annotated[float, Field(ge=0.0, lt=1.0)]


class SuiteRules(Section):
    """What is asked of one suite."""

    suite: Annotated[str, Field(min_length=1)]
    """Its name; "*" stands for every suite of the baseline that has no rules of its own."""
    metric: str | None = None
    """What is compared (score, acc, acc_norm, byte_probability); null = the first of the suite's kind."""
    weight: float | None = Field(default=None, gt=0.0)
    """Its weight in the gain over all suites; null in every suite = each item weighs the same."""
    min_gain: Points | None = 0.02
    """The gain seen must be at least this, 2 points as 0.02; null = it need not gain."""
    max_loss: Annotated[float, Field(gt=0.0, lt=1.0)] | None = 0.01
    """A loss of this size must be ruled out, 1 point as 0.01; null = it may lose."""
    min_resolved: int | None = Field(default=None, ge=1)
    """Items won less items lost must be at least this, for suites of code; null = not asked."""
    required: bool = True
    """Whether both must have been evaluated on it; false = judged where they were."""


class OverallSection(Section):
    """What is asked of all suites together, and how sure one must be."""

    min_gain: Points = 0.03
    """The gain seen over all suites must be at least this: 3 points as 0.03."""
    margin: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.01
    """Equivalent = surely less apart than this."""
    level: Annotated[float, Field(gt=0.0, le=0.2)] = 0.05
    """Chance of a false alarm that each test may have, both sides together."""
    correction: Literal["holm", "benjamini_hochberg", "none"] = "holm"
    """For several candidates, and for the words about several suites."""
    min_power: Annotated[float, Field(ge=0.5, lt=1.0)] | None = 0.8
    """Chance with which items must see a gain of `min_gain`, or of `margin` where that is more; null = not asked."""

    @property
    def sought(self) -> float:
        """The smallest gain that anybody cares for."""
        return max(self.min_gain, self.margin)


class ConditionsSection(Section):
    """In what the two evaluations may differ."""

    allow: list[str] = Field(default_factory=list)
    """Names of differences: template, or a key of the evaluations' settings (dtype, batch_size, device). What suites
    ask may never differ."""


class LimitsSection(Section):
    """What the candidate may cost. null = not asked."""

    p50_latency_ms: float | None = Field(default=None, gt=0.0)
    """Half of the items must be answered in this time."""
    p95_latency_ms: float | None = Field(default=None, gt=0.0)
    """19 of 20 items must be answered in this time."""
    max_rss_mb: float | None = Field(default=None, gt=0.0)
    """Most memory that the evaluating process may have held, in 10^6 bytes."""
    max_failed_items: Annotated[float, Field(ge=0.0, le=1.0)] | None = 0.01
    """Share of a suite's items that may have no score, of either model: 1 in 100 as 0.01. They count as 0."""


class ContractSection(Section):
    """What a candidate must show to follow a baseline."""

    contract: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
    """Name, in lower case."""
    version: str = "1"
    """Version of the contract; counts in its digest."""
    description: str = ""
    """For people."""
    suites: list[SuiteRules]
    """What is asked of each suite. A suite that is not named, where there is no "*", is not judged."""
    overall: OverallSection = OverallSection()
    """What is asked of all together."""
    conditions: ConditionsSection = ConditionsSection()
    """In what the evaluations may differ."""
    limits: LimitsSection = LimitsSection()
    """What the candidate may cost."""
    approvals: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)
    """Who must sign, by name or role. A decision lists them as pending."""

    @model_validator(mode="after")
    def _fits(self) -> ContractSection:
        names = [one.suite for one in self.suites]
        if not names:
            raise ValueError(
                '`suites` is empty, so nothing would be asked; write - suite: "*" for all of them'
            )
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"`suites` has two rules for {', '.join(twice)}")
        if len({one.weight is None for one in self.suites}) > 1:
            raise ValueError("`suites`: give every suite a `weight`, or none")
        return self

    @property
    def asked(self) -> dict[str, Any]:
        """Everything but what is for people, as YAML can hold it."""
        return self.model_dump(mode="json", exclude={"description"})

    @property
    def digest(self) -> str:
        return digest_of(self.asked)


def default_contract() -> ContractSection:
    """What is asked where no contract is named; jobs/contracts/default.yaml says the same."""
    return ContractSection(contract="default", suites=[SuiteRules(suite=ANY_SUITE)])


def load_contract(path: Path, overrides: list[str] | None = None) -> ContractSection:
    """Read a contract's file. Raises ConfigError with file, line and key of each fault."""
    return build(ContractSection, load_recipe(path, overrides, form=CONTRACT))


def rules_by_suite(
    contract: ContractSection, baseline: Iterable[str], candidates: Iterable[Iterable[str]]
) -> Mapping[str, SuiteRules]:
    """The rules of every suite that is to be judged, by its name.

    A suite that is not required and that someone lacks is left out. Raises ConfigError where nobody has a required
    suite, or nothing is left.
    """
    of_baseline = list(baseline)
    of_candidates = [set(one) for one in candidates]
    known = set(of_baseline).union(*of_candidates)
    found: dict[str, SuiteRules] = {}
    for rules in contract.suites:
        names = [rules.suite]
        if rules.suite == ANY_SUITE:
            named = {one.suite for one in contract.suites}
            names = [name for name in of_baseline if name not in named]
        for name in names:
            if name not in known and rules.required:
                raise _unknown_suite(contract, name, known)
            if rules.required or all(name in one for one in [set(of_baseline), *of_candidates]):
                found[name] = rules
    if not found:
        raise ConfigError(
            f"contract {contract.contract}: no suite is left to judge",
            why=f"it names {', '.join(one.suite for one in contract.suites)}; evaluated were "
            f"{', '.join(sorted(known)) or 'none'}",
            fix='name these in the contract, or write - suite: "*"',
        )
    return found


def _unknown_suite(contract: ContractSection, name: str, known: set[str]) -> ConfigError:
    near = nearest(name, sorted(known))
    return ConfigError(
        f"contract {contract.contract}: nobody was evaluated on a suite `{name}`",
        why=f"evaluated were {', '.join(sorted(known)) or 'none'}",
        fix=f"did you mean `{near}`?" if near else f"evaluate both on {name}, or take it out of the contract",
    )
