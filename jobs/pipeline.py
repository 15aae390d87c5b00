"""What `ray job submit` starts to take a recipe from its rows to a decision: `raytrain run` with the same words.

    ray job submit --working-dir . -- python jobs/pipeline.py jobs/demo.yaml

Inside a job Ray names the cluster in RAY_ADDRESS, which is then used.
"""

from __future__ import annotations

import sys

from raytrain.cli.main import run
from raytrain.cluster.head import leave

if __name__ == "__main__":
    leave(run(["run", *sys.argv[1:]]))
