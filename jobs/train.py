"""What `ray job submit` starts to train: `raytrain train` with the same words.

    ray job submit --working-dir . -- python jobs/train.py jobs/gsm8k.yaml scaling.num_workers=4

Inside a job Ray names the cluster in RAY_ADDRESS, which is then used.
"""

from __future__ import annotations

import sys

from raytrain.cli.main import run
from raytrain.cluster.head import leave

if __name__ == "__main__":
    leave(run(["train", *sys.argv[1:]]))
