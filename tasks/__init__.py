"""Stages and everything that runs without Prefect."""

import os

# OpenMP's threads spin while they wait for each other. With as many threads as cores that is worth a few
# percent while nothing else runs, and costs a factor when anything does. A bounded spin keeps most of both:
# training small_cnn on 2 cores came to about 97 % of the images a second that unbounded spinning reaches
# alone (1,960 of 2,030), and to 1.5 times as many (820 against 490 to 590) beside one other busy process.
# It must be set before torch is imported; a value of your own stays.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
