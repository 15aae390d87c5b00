"""Jobs of a GitHub Actions workflow, played on this machine: git and the commands are real, `gh` only keeps what it is
given."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
_NO_SETTINGS = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
_AUTHOR = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
_RAYTRAIN = f"""#!/bin/sh
exec '{sys.executable}' -P -m raytrain "$@"
"""
_GH = """#!/bin/sh
printf '%s\\n' "$@" > "$GH_KEPT/arguments" && printf '%s' "$GH_TOKEN" > "$GH_KEPT/token"
while [ $# -gt 0 ]; do
    if [ "$1" = --body-file ]; then cp "$2" "$GH_KEPT/comment.md" || exit 1; fi
    shift
done
"""


def git(folder: Path, *words: str) -> str:
    """What it prints, without the line's end."""
    command = ["git", "-C", str(folder), *_AUTHOR, *words]
    environment = {**os.environ, **_NO_SETTINGS}
    return subprocess.run(command, check=True, env=environment, capture_output=True, text=True).stdout.strip()


class Repository:
    """As it lies at GitHub, with a default branch `main`; written to from a working tree of somebody's."""

    def __init__(self, folder: Path) -> None:
        self.tree, self.place = folder / "tree", folder / "repository.git"
        for one, words in ((self.tree, ()), (self.place, ("--bare",))):
            one.mkdir(parents=True)
            git(one, "init", "--quiet", "--initial-branch", "main", *words)

    def commit(self, files: Mapping[str, Path | str], ref: str) -> str:
        """Its id. Files by their paths, of a text or a copy of what lies there; folders are copied whole."""
        for name, content in files.items():
            place = self.tree / name
            place.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                place.write_text(content)
            elif content.is_dir():
                shutil.copytree(content, place, dirs_exist_ok=True)
            else:
                shutil.copyfile(content, place)
        git(self.tree, "add", "--all", "--force")
        git(self.tree, "commit", "--quiet", "--message", ref)
        git(self.tree, "push", "--quiet", "--force", str(self.place), f"HEAD:{ref}")
        return git(self.tree, "rev-parse", "HEAD")

    def pull_request(self, number: int, files: Mapping[str, Path | str]) -> str:
        """Of one commit upon the default branch; its head's id. Whoever works in the tree next begins there again."""
        head = self.commit(files, f"refs/pull/{number}/head")
        git(self.tree, "reset", "--quiet", "--hard", "HEAD~1")
        return head

    def read(self, path: str) -> str:
        """A file of the default branch."""
        return git(self.place, "show", f"main:{path}") + "\n"


@dataclass(frozen=True)
class Step:
    code: int | None
    """None where it was not run."""
    said: str = ""


@dataclass
class Job:
    """How one went."""

    steps: dict[str, Step] = field(default_factory=dict)
    comment: str | None = None
    """What `gh` was given to post; None where it was not."""
    gh: Sequence[str] = ()
    token: str = ""

    @property
    def codes(self) -> list[int | None]:
        return [one.code for one in self.steps.values()]

    @property
    def is_green(self) -> bool:
        return all(one.code == 0 for one in self.steps.values())


@dataclass(frozen=True)
class Runner:
    """A team's own: what a job leaves in its working folder is there when the next one begins."""

    folder: Path

    def play(self, workflow: str, repository: Repository, context: Mapping[str, str]) -> Job:
        """The only job of a workflow. context: what expressions stand for; AssertionError where one is not there, or a
        step asks for what is not known here."""
        (asked,) = yaml.load(workflow, Loader=yaml.BaseLoader)["jobs"].values()
        self.workspace.mkdir(parents=True, exist_ok=True)
        kept = self.folder / "kept"
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir()
        self._put_on_path()
        job = Job()
        for number, raw in enumerate(asked["steps"]):
            step = _filled(raw, context)
            goes_on = all(one.code in (0, None) for one in job.steps.values())
            assert step.get("if") in (None, "always()"), step
            if not goes_on and "if" not in step:
                done = Step(None)
            elif "uses" in step:
                assert step["uses"].startswith("actions/checkout@"), step
                self._check_out(repository, **step["with"])
                done = Step(0)
            else:
                done = self._run(step, kept)
            job.steps[step.get("name", str(number))] = done
        if (kept / "comment.md").exists():
            job.comment = (kept / "comment.md").read_text()
            job.gh = (kept / "arguments").read_text().splitlines()
            job.token = (kept / "token").read_text()
        return job

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    def _put_on_path(self) -> None:
        (self.folder / "bin").mkdir(exist_ok=True)
        for name, script in (("raytrain", _RAYTRAIN), ("gh", _GH)):
            place = self.folder / "bin" / name
            place.write_text(script)
            place.chmod(0o755)

    def _check_out(self, repository: Repository, path: str, ref: str = "main", **more: str) -> None:
        assert more.keys() <= {"persist-credentials"}, more
        place = self.workspace / path
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        git(place, "init", "--quiet")
        git(place, "fetch", "--quiet", "--depth", "1", repository.place.as_uri(), ref)
        git(place, "checkout", "--quiet", "FETCH_HEAD")

    def _run(self, step: Mapping[str, Any], kept: Path) -> Step:
        script = self.folder / "script.sh"
        script.write_text(step["run"])
        environment = {
            **os.environ,
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "RAYTRAIN_HOME": str(self.folder / "home"),
            "GH_KEPT": str(kept),
            **step.get("env", {}),
        }
        command = ["bash", "-e", str(script)]
        done = subprocess.run(
            command,
            cwd=self.workspace,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return Step(done.returncode, done.stdout)


def _filled(value: Any, context: Mapping[str, str]) -> Any:
    """With what each expression stands for."""
    if isinstance(value, dict):
        return {key: _filled(one, context) for key, one in value.items()}
    for one in _EXPRESSION.findall(value):
        assert one in context, f"nothing is known of the expression {one}"
    return _EXPRESSION.sub(lambda found: context[found[1]], value)
