"""The guide's Python blocks that train, as a reader would run them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bench import Bench
from guide import Block, all_blocks, write_modules


@pytest.mark.thorough
@pytest.mark.parametrize("block", all_blocks("python trains"), ids=str)
def test_a_block_that_trains_runs(block: Block, local: Bench, tiny_llama: Path, rows_file: Path) -> None:
    folder = local.folder / "work"
    shutil.copytree(tiny_llama, folder / "models" / "smollm2")
    shutil.copy(rows_file, folder / "rows.jsonl")
    write_modules(folder)
    script = folder / "block.py"
    script.write_text(block.text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=folder, env=local.child_environment(), capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "sha256:" in done.stdout
