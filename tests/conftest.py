from __future__ import annotations

import signal

# A shell without job control starts background jobs with Ctrl-C ignored, and their children inherit that.
# The tests that interrupt a process would then wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)
