"""The workflow that docs/gate.md shows, played: what a pull request brings is judged, and judges nothing."""

from __future__ import annotations

import fnmatch
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from github_jobs import Job, Repository, Runner, git
from guide import all_blocks
from releases import Evidence, Trained, release

from raytrain.release.gate.about import about_bundle
from raytrain.release.gate.approvals import statement_of, write_approval
from raytrain.release.gate.policy import load_policy
from raytrain.release.keys import KeyRing
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.shelf import shelf_of
from raytrain.release.signing import sign
from raytrain.storage.manifest import digest_hex

pytestmark = pytest.mark.slow

SHOWN = "/srv/registry"
WORKFLOW = ".github/workflows/gate.yaml"
POLICY = """
policy: assistants
version: "4"
roles: [{role: reviewer, keys: [ada]}]
targets:
  - {to: production, signed_by: [release], signed_evidence: true, max_age_days: 7, approvals: [{role: reviewer}]}
"""
LAX = """
policy: anything
targets: [{to: production, reports: [], documents: [], max_age_days: null}]
"""
SIGNED = ("decision", "pipeline", "contamination", "safety", "drift", "candidate", "frozen")


@dataclass(frozen=True)
class Site:
    """A repository whose workflow is the guide's, its runner, and the registry that this one can read."""

    repository: Repository
    runner: Runner
    registry: Registry
    ring: KeyRing

    def opened(self, files: Mapping[str, Path | str], number: int = 7, workflow: str | None = None) -> Job:
        """The job that a pull request with these files starts; of the default branch's workflow, as of a
        pull_request_target, or of this one."""
        head = self.repository.pull_request(number, files)
        workflow = workflow or self.repository.read(WORKFLOW)
        (paths,) = yaml.load(workflow, Loader=yaml.BaseLoader)["on"]["pull_request_target"].values()
        changed = git(self.repository.place, "diff", "--name-only", "main", head).splitlines()
        assert any(fnmatch.fnmatch(one, glob) for one in changed for glob in paths), changed
        context = {
            "github.event.pull_request.head.sha": head,
            "github.event.number": str(number),
            "github.repository": "team/assistants",
            "github.token": "token of this job",
            "vars.VERSION": "sums@1.0.0",
        }
        return self.runner.play(workflow, self.repository, context)

    def approve(self) -> None:
        about = about_bundle(self.registry.verified("sums@1.0.0", self.ring).artifact)
        policy = load_policy(self.repository.tree / "releases" / "gate.yaml")
        key = self.ring.signing_key("ada")
        statement = statement_of("sums", about, policy, "production", "reviewer", key, "I read the flips")
        write_approval(shelf_of(self.registry, "sums", "approvals"), statement, key, self.ring)


@pytest.fixture
def site(tmp_path: Path, ring: KeyRing) -> Site:
    ring.generate("ada")
    registry = Registry(tmp_path / "registry")
    release(registry, ring, tmp_path / "bundle", Trained(), "1.0.0")
    (workflow,) = [one.text for one in all_blocks("yaml workflow") if "raytrain promote" in one.text]
    assert SHOWN in workflow
    repository = Repository(tmp_path / "hub")
    files = {
        WORKFLOW: workflow.replace(SHOWN, registry.place),
        "releases/gate.yaml": POLICY,
        "releases/keys/ring.json": ring.folder / "ring.json",
    }
    repository.commit(files, "refs/heads/main")
    return Site(repository, Runner(tmp_path / "runner"), registry, ring)


@pytest.fixture
def reports(evidence: Evidence, ring: KeyRing) -> dict[str, Path | str]:
    """What a pull request brings: everything that is asked, signed."""
    return {"releases/reports": _signed(evidence, ring)}


@pytest.fixture
def failing_reports(evidence: Evidence, ring: KeyRing, tmp_path: Path) -> dict[str, Path | str]:
    """As signed as the others; one of three answers is graver than may be."""
    folder = shutil.copytree(evidence.folder, tmp_path / "failing")
    failing = Evidence(folder)
    failing.write_safety(failed=True)
    return {"releases/reports": _signed(failing, ring)}


def _signed(evidence: Evidence, ring: KeyRing, key: str = "release") -> Path:
    for name in SIGNED:
        sign(evidence.folder / name, ring.signing_key(key))
    return evidence.folder


def everything_in(registry: Registry) -> dict[Path, bytes | None]:
    return {one: one.read_bytes() if one.is_file() else None for one in Path(registry.place).rglob("*")}


def gate_of(job: Job) -> tuple[int | None, str]:
    return job.steps["gate"].code, (job.comment or "").partition("\n")[0]


def check_without_verdict(job: Job) -> None:
    """It is red, and its comment says so, not what the verdict of another job was."""
    assert not job.is_green and job.steps["checklist"].code == 0, job.steps
    assert job.comment is not None and "GO" not in job.comment and "no verdict" in job.comment.lower()


def test_the_check_turns_green_once_it_is_approved(site: Site, reports: Mapping[str, Path | str]) -> None:
    held = site.opened(reports)
    assert gate_of(held) == (5, "# ESCALATE: sums 1.0.0 to production"), held.steps
    assert held.codes == [0] * (len(held.codes) - 2) + [5, 0]
    site.approve()
    before = everything_in(site.registry)
    job = site.opened(reports)
    assert job.is_green, job.steps
    assert gate_of(job) == (0, "# GO: sums 1.0.0 to production")
    assert job.gh == ["pr", "comment", "7", "--body-file", "checklist.md", "--repo", "team/assistants"]
    assert job.token == "token of this job" and "policy assistants 4" in str(job.comment)
    assert everything_in(site.registry) == before, "it was a dry run"
    assert sorted(one.name for one in (site.runner.workspace / "base" / "releases" / "keys").iterdir()) == [
        "ring.json"
    ]


def test_no_go_fails_the_check_and_says_why(site: Site, failing_reports: Mapping[str, Path | str]) -> None:
    site.approve()
    job = site.opened(failing_reports)
    assert gate_of(job) == (5, "# NO-GO: sums 1.0.0 to production"), job.steps
    assert not job.is_green and "1 of 3 critical" in str(job.comment)


def test_what_a_pull_request_brings_beside_its_reports_changes_nothing(
    site: Site, failing_reports: Mapping[str, Path | str], tmp_path: Path
) -> None:
    """A policy and a workflow that ask nothing, a ring with a key of its own, and checklists that say GO."""
    site.approve()
    own = KeyRing(shutil.copytree(site.ring.folder, tmp_path / "own keys"))
    own.generate("mallory")
    theirs: dict[str, Path | str] = {
        "releases/gate.yaml": LAX,
        "releases/keys/ring.json": own.folder / "ring.json",
        WORKFLOW: site.repository.read(WORKFLOW).replace("base/releases", "change/releases"),
        "checklist.md": "# GO: sums 1.0.0 to production\n",
        "releases/reports/checklist.md": "# GO: sums 1.0.0 to production\n",
    }
    job = site.opened({**failing_reports, **theirs})
    assert gate_of(job) == (5, "# NO-GO: sums 1.0.0 to production"), job.steps
    assert "policy assistants 4" in str(job.comment) and "1 of 3 critical" in str(job.comment)
    asked = site.opened({**failing_reports, **theirs}, workflow=str(theirs[WORKFLOW]))
    assert gate_of(asked) == (0, "# GO: sums 1.0.0 to production"), "they would let anything in"
    failing = Evidence(Path(str(failing_reports["releases/reports"])))
    failing.write_safety()
    _signed(failing, own, "mallory")
    foreign = site.opened({**failing_reports, **theirs}, number=8)
    assert foreign.steps["gate"].code == 5 and "nobody here knows" in foreign.steps["gate"].said
    check_without_verdict(foreign)


def test_a_registry_that_was_tampered_with_is_not_asked(
    site: Site, reports: Mapping[str, Path | str]
) -> None:
    site.approve()
    assert site.opened(reports).is_green
    digest = digest_hex(site.registry.find("sums@1.0.0").digest)
    weights = Path(site.registry.store.bundle_place("sums", digest)) / "adapter/adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    job = site.opened(reports, number=8)
    audited = job.steps["the registry is as it was written"]
    assert audited.code == 5 and "adapter_model.safetensors" in audited.said
    assert job.steps["gate"].code is None
    check_without_verdict(job)


def test_where_there_is_no_verdict_the_comment_is_not_that_of_the_job_before(
    site: Site, reports: Mapping[str, Path | str]
) -> None:
    """A team's own runner keeps its folder from job to job."""
    site.approve()
    assert site.opened(reports).is_green
    job = site.opened({"releases/reports/README.md": "None yet.\n"}, number=8)
    assert job.steps["gate"].code == 2 and "is no evidence" in job.steps["gate"].said
    check_without_verdict(job)
