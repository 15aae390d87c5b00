"""How long a user waits: for `--help`, for a config error, and from the command to the first optimizer step, in parts.

    python -m benchmarks.startup [--quick] [--recipe jobs/demo.yaml] [--json FILE]

Each repetition is a fresh process with a fresh Ray; the base model has been converted and the rows have been prepared
before, as from the second run on.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.figures import Figure, parser_of, picture, report

ROOT = Path(__file__).parent.parent

FIRST_STEP = """
import json, sys, time
started = float(sys.argv[1])
from pathlib import Path
from raytrain.training.spec import load_spec
spec = load_spec(Path(sys.argv[2]), sys.argv[3:])
parts = {"reading the recipe (imports)": time.time() - started}
before = time.time()
from raytrain.training.trainer import train
parts["importing the trainer"] = time.time() - before
class Watch:
    first = None
    def phase(self, text, seconds):
        if seconds is not None:
            parts[text] = parts.get(text, 0.0) + seconds
    def plan(self, **_):
        self.planned = time.time()
    def metrics(self, global_step, metrics):
        if self.first is None:
            self.first = time.time() - started
            parts["first step"] = metrics["train/step_s"]
    def note(self, text):
        print(text, file=sys.stderr)
    def stop_reason(self):
        return None
watch = Watch()
train(spec, observer=watch, fresh=True)
parts["command to first step"] = watch.first
print(json.dumps(parts))
"""


def seconds_of(command: list[str], environment: dict[str, str], code: int) -> float:
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, check=False, cwd=ROOT)
    seconds = time.perf_counter() - started
    if done.returncode != code:
        raise SystemExit(f"{command} ended with {done.returncode}, not {code}: {done.stderr.decode()[-500:]}")
    return seconds


def main() -> None:
    parser = parser_of(__doc__, "startup", quick="3 repetitions instead of 5")
    parser.add_argument("--recipe", type=Path, default=ROOT / "jobs" / "demo.yaml")
    arguments = parser.parse_args()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    found = []
    with tempfile.TemporaryDirectory() as folder:
        broken = Path(folder) / "broken.yaml"
        broken.write_text("model: {base_model: x}\ndata: {sources: rows.jsonl}\ntrain: {learning_rat: 1}\n")
        raytrain = [sys.executable, "-m", "raytrain"]
        for name, command, code in (
            ("raytrain --help", [*raytrain, "--help"], 0),
            ("a config error", [*raytrain, "train", str(broken)], 2),
        ):
            times = [seconds_of(command, environment, code) for _ in range(10)]
            found.append(Figure(name, statistics.median(times), "s", 0.4, higher_is_better=False))

    runs: list[dict[str, float]] = []
    for repetition in range((3 if arguments.quick else 5) + 1):
        overrides = [
            "train.max_steps=1",
            "train.save_every=0",
            "train.save_every_minutes=",
            "train.eval_every=0",
            "data.val_fraction=0",
        ]
        command = [sys.executable, "-c", FIRST_STEP, str(time.time()), str(arguments.recipe), *overrides]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
        if done.returncode != 0:
            raise SystemExit(done.stderr[-2000:])
        if repetition:  # the first one converts the model and prepares the rows
            runs.append(json.loads(done.stdout.splitlines()[-1]))
    for part in runs[0]:
        values = [run[part] for run in runs]
        found.append(Figure(part, statistics.median(values), "s"))
    spread = [run["command to first step"] for run in runs]
    found.append(Figure("… spread", max(spread) - min(spread), "s"))
    save_picture(runs, arguments.json.with_suffix(".png"))
    report(found, "What a user waits for", arguments.json)


def save_picture(runs: list[dict[str, float]], path: Path) -> None:
    parts = [part for part in runs[0] if part != "command to first step"]
    with picture(path, figsize=(9, 2.2)) as axes:
        left = 0.0
        for part in parts:
            width = statistics.median(run[part] for run in runs)
            axes.barh([0], [width], left=left, label=f"{part}, {width:.1f} s")
            left += width
        axes.set(yticks=[], xlabel="s", title="From the command to the first optimizer step")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.35), ncols=3, fontsize=8)


if __name__ == "__main__":
    main()
