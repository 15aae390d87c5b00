"""What goes to a cluster with a job, held against git itself."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from raytrain.errors import ConfigError
from raytrain.runs.packaging import collect, write_zip

FILES = [
    "jobs/mine.yaml", "jobs/rows.jsonl", "hooks.py", "data/big.bin", "data/keep.txt", "logs/a.log", "logs/deep/b.log",
    "deep/er/local.tmp", "deep/er/kept.tmp", "deep/ignored/x.py", "build/out.o", "src/build/out.o", "notes.md",
]  # fmt: skip
IGNORES = {
    ".gitignore": "*.log\n/build\ndata/*\n!data/keep.txt\n*.jsonl\n# a comment\n",
    "deep/.gitignore": "ignored/\n*.tmp\n",
    "deep/er/.gitignore": "!kept.tmp\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "work"
    for name in FILES:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(name)
    for name, text in IGNORES.items():
        (place / name).write_text(text)
    return place


def test_it_is_what_git_would_keep(folder: Path) -> None:
    subprocess.run(["git", "init", "-q", folder], check=True)
    told = subprocess.run(
        ["git", "-C", folder, "ls-files", "--others", "--exclude-standard"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert list(collect(folder).files) == sorted(told)
    assert "jobs/rows.jsonl" not in told and "deep/er/kept.tmp" in told and "src/build/out.o" in told


def test_what_this_clone_alone_leaves_out_stays(folder: Path) -> None:
    subprocess.run(["git", "init", "-q", folder], check=True)
    (folder / ".git" / "info" / "exclude").write_text("notes.md\n")
    assert "notes.md" not in collect(folder).files and "hooks.py" in collect(folder).files


def test_secrets_and_raytrain_s_own_files_stay_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = [".env", ".env.local", "jobs/key.pem", "data/id_ed25519", "state/keys/demo.json"]
    for name in [*secret, "data/.venv/lib.py", "data/.git/config", "data/environment.txt"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    monkeypatch.setenv("RAYTRAIN_HOME", str(folder / "state"))
    files = collect(folder, [str(folder / "data"), ".env"]).files
    assert "data/environment.txt" in files
    assert [name for name in files if name in secret or ".venv" in name or ".git/" in name] == []


def test_a_folder_within_a_repository_hears_of_the_files_above_it(folder: Path) -> None:
    subprocess.run(["git", "init", "-q", folder], check=True)
    assert sorted(collect(folder / "logs").files) == []
    assert sorted(collect(folder / "deep").files) == [".gitignore", "er/.gitignore", "er/kept.tmp"]


def test_what_the_command_names_goes_along_although_it_is_ignored(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.jsonl").write_text("{}")
    named = ["jobs/mine.yaml", "jobs/rows.jsonl", str(folder / "data"), "train.seed=3", "no such file", "a\0b",
             str(tmp_path / "elsewhere.jsonl"), "../elsewhere.jsonl", ""]  # fmt: skip
    package = collect(folder, named)
    assert {"jobs/rows.jsonl", "data/big.bin"} <= set(package.files)
    assert "logs/a.log" not in package.files
    assert package.outside == [str(tmp_path / "elsewhere.jsonl")] * 2


def test_rayignore_and_what_never_goes(folder: Path) -> None:
    (folder / ".rayignore").write_text("notes.md\n")
    for name in (".git/config", ".venv/lib/x.py", "deep/__pycache__/x.pyc"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    found = set(collect(folder).files)
    assert not found & {"notes.md", ".git/config", ".venv/lib/x.py", "deep/__pycache__/x.pyc"}
    assert "hooks.py" in found


def test_too_large_names_the_largest(folder: Path) -> None:
    with (folder / "model.safetensors").open("wb") as stream:
        stream.truncate(101 * 2**20)
    with pytest.raises(ConfigError) as caught:
        collect(folder)
    assert "is 101.0 MiB, a package has at most 100.0 MiB" in caught.value.what
    assert "model.safetensors 101.0 MiB; " in caught.value.why
    (folder / ".gitignore").write_text("*.safetensors\n")
    assert collect(folder).num_bytes < 1000


def test_the_same_files_make_the_same_package(folder: Path, tmp_path: Path) -> None:
    (folder / "hooks.py").chmod(0o755)
    places = [tmp_path / "one.zip", tmp_path / "two.zip"]
    write_zip(collect(folder), places[0])
    (folder / "hooks.py").touch()
    write_zip(collect(folder), places[1])
    assert places[0].read_bytes() == places[1].read_bytes()
    with zipfile.ZipFile(places[0]) as archive:
        assert archive.testzip() is None
        assert archive.read("notes.md") == b"notes.md"
        assert archive.getinfo("hooks.py").external_attr >> 16 & 0o777 == 0o755
        assert archive.namelist() == list(collect(folder).files)


def test_links(folder: Path, tmp_path: Path) -> None:
    """A link to a file is the file; one to a folder, which may hold anything, is left out."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "rows.txt").write_text("shared")
    (folder / "linked.txt").symlink_to(tmp_path / "shared" / "rows.txt")
    (folder / "linked").symlink_to(tmp_path / "shared")
    (folder / "broken").symlink_to(tmp_path / "nowhere")
    found = collect(folder).files
    assert found["linked.txt"] == len("shared")
    assert not {"linked/rows.txt", "broken"} & set(found)
