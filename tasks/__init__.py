"""Stages and everything that runs without Prefect."""

import os

# OpenMP's threads spin while they wait for each other. On a machine with as many threads as cores that is
# worth a few percent while nothing else runs, and costs a factor when anything does: with one other busy
# process on 2 cores, training small_cnn came to less than half the images a second.
# It must be set before torch is imported; a value of your own stays.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
