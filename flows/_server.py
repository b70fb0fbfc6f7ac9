"""The temporary server of a flow that is run as a command."""

from __future__ import annotations

import signal
import sys

from prefect.client.orchestration import get_client


def start_server() -> Exception | None:
    """Start the temporary server if it is needed; return what is wrong with the server, if anything.

    Whatever ends this process from outside shall stop the stage, be recorded, and stop the server, in
    this order. But a terminal sends Ctrl-C, and its own closing, to the server as well, and a flow
    whose server is gone waits for minutes. So the server starts with these signals blocked.
    """
    ended_by = [signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        ended_by.append(signal.SIGHUP)
    for number in ended_by:
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    from_terminal = {signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, from_terminal)
    try:
        with get_client(sync_client=True) as client:
            return client.api_healthcheck()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, from_terminal)
