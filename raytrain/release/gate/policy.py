"""A gate's policy: what a version must show before an alias may name it, and who may approve or override."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from raytrain.config.document import Form
from raytrain.config.recipe import build, load_recipe
from raytrain.config.section import Section
from raytrain.errors import ConfigError, NotRegisteredError
from raytrain.evaluation.decision.contract import ContractSection, default_contract, load_contract
from raytrain.release.bundle.parity.section import ExportLimitsSection
from raytrain.storage.manifest import digest_of

POLICY = Form("gate policy", "policy and targets", "jobs/gates/", "docs/gate-reference.md")

Target = Literal["dev", "staging", "production"]
TARGETS: tuple[Target, ...] = get_args(Target)
Report = Literal["pipeline_check", "evaluation", "contamination", "safety", "drift"]
"""Evidence that lies outside of the bundle."""
Document = Literal["export_check", "scan", "sbom", "provenance"]
"""Evidence that lies in the bundle, under its signature."""
REPORTS: tuple[Report, ...] = get_args(Report)
DOCUMENTS: tuple[Document, ...] = get_args(Document)

Name = Annotated[str, Field(min_length=1)]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class RoleSection(Section):
    """Whose signatures speak for a role."""

    role: Name
    """Its name."""
    keys: Annotated[list[Name], Field(min_length=1)]
    """Names of keys in the ring, or at least the first 12 digits of their ids."""


class ApprovalRules(Section):
    """Who must have agreed."""

    role: Name
    """One of `roles`."""
    needed: int = Field(default=1, ge=1)
    """So many of the role's people must have signed; keys of one name are one."""


class TargetSection(Section):
    """What is asked before an alias names a version."""

    to: Target
    """The alias."""
    reports: list[Report] = Field(default_factory=lambda: list(REPORTS))
    """Reports that must be at hand and have passed."""
    documents: list[Document] = Field(default_factory=lambda: list(DOCUMENTS))
    """Documents in the bundle that must name the same trained artifact, and have passed where they judge."""
    export_limits: ExportLimitsSection = ExportLimitsSection()
    """How far the exported model may lie from the trained one, as the export check has measured it."""
    signed_by: list[Name] = Field(default_factory=list)
    """Keys that may have signed the bundle, as in `roles`; empty = any of the ring that was not revoked. A bundle
    without a signature that counts never passes."""
    signed_evidence: bool = False
    """Whether reports must be signed, too, with every evaluation and baseline that a decision is made from: then nobody
    can have written one, or its time, without a key."""
    max_age_days: Annotated[float, Field(gt=0.0)] | None = 30.0
    """So old reports may be, by the time in their manifests; null = any age. A bundle never changes, and has none."""
    baseline: Digest | None = None
    """The frozen baseline that the evaluation must have been compared with; null = any that the promoter chooses."""
    golden: Digest | None = None
    """The golden set that the drift report must be about; null = any."""
    max_lost: Annotated[float, Field(ge=0.0, le=1.0)] = 0.02
    """Share of the golden set's right answers that may be lost: 2 in 100 as 0.02."""
    critical: list[Name] = Field(default_factory=list)
    """Categories of the golden set of which none may be lost; one that it does not have fails the drift report."""
    max_suspects: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Share of a suite's items that the contamination report may suspect: 1 in 100 as 0.01."""
    worst_failure: Literal["none", "low", "medium", "high", "critical"] = "medium"
    """How grave a failure may be that the safety report has, and no graver; secrets in answers never pass."""
    approvals: list[ApprovalRules] = Field(default_factory=list)
    """Who must have signed `raytrain approve`. Until they have, the verdict is ESCALATE."""
    promoted_by: list[Name] = Field(default_factory=list)
    """Roles that may sign the record which lets a version in; empty = any key of the ring that was not revoked."""
    override_by: list[Name] = Field(default_factory=list)
    """Roles that may let a version through that the gate holds; empty = nobody."""

    @model_validator(mode="after")
    def _fits(self) -> TargetSection:
        for key in ("reports", "documents"):
            names = getattr(self, key)
            if len(set(names)) < len(names):
                raise ValueError(f"`{key}` names one twice")
        roles = [one.role for one in self.approvals]
        if len(set(roles)) < len(roles):
            raise ValueError("`approvals` has two rules for one role")
        return self


class PolicySection(Section):
    """What a gate asks."""

    policy: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
    """Name, in lower case."""
    version: str = "1"
    """Version of the policy; counts in its digest."""
    description: str = ""
    """For people."""
    contract: str | None = None
    """File of the contract that the evaluation must have been decided by, relative to this one; null = the default."""
    roles: list[RoleSection] = Field(default_factory=list)
    """Who is who."""
    targets: Annotated[list[TargetSection], Field(min_length=1)]
    """What each alias asks. One that is not named lets nothing through."""

    @model_validator(mode="after")
    def _fits(self) -> PolicySection:
        names = [one.role for one in self.roles]
        aliases = [one.to for one in self.targets]
        for key, found in (("roles", names), ("targets", aliases)):
            if len(set(found)) < len(found):
                raise ValueError(f"`{key}` has two of one name")
        size = {one.role: len(set(one.keys)) for one in self.roles}
        for target in self.targets:
            for role in [*(one.role for one in target.approvals), *target.promoted_by, *target.override_by]:
                if role not in size:
                    raise ValueError(f"`targets` names the role {role}, which `roles` does not have")
            for one in target.approvals:
                if one.needed > size[one.role]:
                    raise ValueError(
                        f"{one.needed} of {one.role} must approve, and it has {size[one.role]} keys"
                    )
        return self


@dataclass(frozen=True)
class Policy:
    """A policy with its contract."""

    section: PolicySection
    contract: ContractSection

    @property
    def asked(self) -> dict[str, Any]:
        """Everything but what is for people, as YAML can hold it; the contract by its digest."""
        told = self.section.model_dump(mode="json", exclude={"description", "contract"})
        return {**told, "contract": self.contract.digest}

    @property
    def digest(self) -> str:
        return digest_of(self.asked)

    @property
    def title(self) -> str:
        return f"{self.section.policy} {self.section.version}"

    def approvals_of(self, target: TargetSection) -> list[ApprovalRules]:
        """The target's, and those that the contract names where its evaluation is asked for."""
        named = {one.role for one in target.approvals}
        asked = self.contract.approvals if "evaluation" in target.reports else []
        return [*target.approvals, *(ApprovalRules(role=role) for role in asked if role not in named)]

    def target(self, to: str) -> TargetSection:
        """Raises ConfigError where the policy does not speak of it, NotRegisteredError where it is no alias at all."""
        found = next((one for one in self.section.targets if one.to == to), None)
        if found is None:
            error = ConfigError if to in TARGETS else NotRegisteredError
            raise error(
                f"the policy {self.section.policy} lets nothing into {to!r}",
                why=f"its targets are {', '.join(one.to for one in self.section.targets)}",
                fix=f"take one of these, or write what {to} asks under `targets`"
                if to in TARGETS
                else f"name one of {', '.join(TARGETS)}: no other alias is moved by a gate",
            )
        return found

    def keys_of(self, role: str) -> list[str]:
        """Raises ConfigError where there is no such role."""
        found = next((one.keys for one in self.section.roles if one.role == role), None)
        if found is None:
            raise ConfigError(
                f"the policy {self.section.policy} knows no role {role!r}",
                why=f"its roles are {', '.join(one.role for one in self.section.roles) or 'none'}",
                fix="take one of these, or write it under `roles`",
            )
        return found


def is_among(keys: list[str], name: str, key_id: str) -> bool:
    """Whether a policy's list of keys names this one: by its name, or by 12 or more digits of its id."""
    return any(one == name or (len(one) >= 12 and key_id.startswith(one)) for one in keys)


def default_policy() -> Policy:
    """What is asked where no policy is named; jobs/gates/default.yaml says the same."""
    staging = TargetSection(to="staging", reports=["evaluation"], max_age_days=None)
    targets = [TargetSection(to="dev", reports=[], documents=[], max_age_days=None), staging]
    section = PolicySection(policy="default", targets=[*targets, TargetSection(to="production")])
    return Policy(section, default_contract())


def load_policy(path: Path) -> Policy:
    """Read a policy's file and its contract's. Raises ConfigError with file, line and key of each fault."""
    section = build(PolicySection, load_recipe(path, None, form=POLICY))
    contract = (
        default_contract() if section.contract is None else load_contract(path.parent / section.contract)
    )
    unknown = [one for one in contract.approvals if one not in {role.role for role in section.roles}]
    if unknown:
        raise ConfigError(
            f"{path}: the contract {contract.contract} wants the approval of {unknown[0]!r}",
            why=f"the roles of the policy are {', '.join(one.role for one in section.roles) or 'none'}",
            fix="write under `roles` whose keys speak for it",
        )
    return Policy(section, contract)
