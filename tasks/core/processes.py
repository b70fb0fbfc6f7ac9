"""Which of the processes that share a training this one is: what ``torchrun`` tells by the environment.

They have one voice. What goes wrong mostly goes wrong in all of them, and the death of one breaks the
others off in the middle of a message: the first line is the one that helps.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tasks.core.errors import ExpungeError

GRACE = 4.0
"""Seconds in which whoever started the processes ends the others once one has failed."""


@dataclass(frozen=True, slots=True)
class Place:
    """A process among those that share a training.

    Attributes
    ----------
    rank, world
        Its number, from 0, and how many they are, on all machines.
    local_rank, local_world
        The same on this machine.
    launched
        Whether ``torchrun``, or what speaks as it does, has started this process.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    launched: bool = False

    @property
    def is_main(self) -> bool:
        """Whether it is the one that writes files and keeps the record."""
        return self.rank == 0


def place() -> Place:
    """Place of this process, by ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK`` and ``LOCAL_WORLD_SIZE``.

    Raises
    ------
    ExpungeError
        If one of them is not a number, or they contradict each other.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return Place()
    rank, world = _number("RANK"), _number("WORLD_SIZE")
    found = Place(rank, world, _number("LOCAL_RANK", rank), _number("LOCAL_WORLD_SIZE", world), launched=True)
    if not (found.rank < found.world and found.local_rank < found.local_world <= found.world):
        raise ExpungeError(
            f"RANK {found.rank} of WORLD_SIZE {found.world}, LOCAL_RANK {found.local_rank} of "
            f"LOCAL_WORLD_SIZE {found.local_world} is impossible; "
            "start the stage by torchrun, or unset these variables"
        )
    return found


def _number(name: str, default: int | None = None) -> int:
    text = os.environ.get(name, "" if default is None else str(default))
    if not (text.isascii() and text.isdigit()):
        raise ExpungeError(
            f"the environment variable {name} is {text!r}, not a number; torchrun sets it, or unset it"
        )
    return int(text)


@contextmanager
def one_voice() -> Iterator[None]:
    """Let the process that failed first say so, while the others wait to be ended.

    The main process speaks at once, unless its error may be the echo of another's end; the others wait
    twice as long as it may take to be ended. A process whose starter is gone ends, too.
    """
    here = place()
    if here.world == 1:
        yield
        return
    threading.Thread(target=_end_with_starter, args=(os.getppid(),), daemon=True).start()
    try:
        yield
    except KeyboardInterrupt:
        if not here.is_main:
            raise SystemExit(130) from None
        raise
    except Exception as error:
        told = isinstance(error, ExpungeError | OSError) and not isinstance(error, ConnectionError)
        if not (here.is_main and told):
            time.sleep(GRACE if here.is_main else 2 * GRACE)  # SIGTERM ends the process here
        raise


def _end_with_starter(starter: int) -> None:
    """Wait until this process has another parent, then end it: nobody would tell it that another has died."""
    while os.getppid() == starter:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)  # Python obeys between two of its own steps, not within a wait for the others
    os._exit(128 + signal.SIGTERM)
