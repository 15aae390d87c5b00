"""What `ray job submit` starts to evaluate: `raytrain evaluate` with the same words.

    ray job submit --working-dir . -- python jobs/evaluate.py MODEL --suite jobs/suites/tool_calls.yaml

Inside a job Ray names the cluster in RAY_ADDRESS, which is then used.
"""

from __future__ import annotations

import sys

from raytrain.cli.main import run
from raytrain.cluster.head import leave

if __name__ == "__main__":
    leave(run(["evaluate", *sys.argv[1:]]))
