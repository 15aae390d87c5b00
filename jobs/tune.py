"""What `ray job submit` starts to search for the best values of a recipe: `raytrain tune` with the same words.

    ray job submit --working-dir . -- python jobs/tune.py jobs/demo_search.yaml search.num_trials=8

Inside a job Ray names the cluster in RAY_ADDRESS, which is then used.
"""

from __future__ import annotations

import sys

from raytrain.cli.main import run
from raytrain.cluster.head import leave

if __name__ == "__main__":
    leave(run(["tune", *sys.argv[1:]]))
