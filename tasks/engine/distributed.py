"""Several processes that share a training: one a GPU, or a few on the CPU.

Each holds the whole model and takes its part of every step's images; gradients are averaged over all
(``DistributedDataParallel``). Outside :func:`joined` a process is alone, and nothing here does anything.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tasks.core.errors import ExpungeError
from tasks.core.params import Runtime
from tasks.core.processes import place

T = TypeVar("T")

PATIENCE = timedelta(hours=12)
"""How long the others wait for the main process, which evaluates and writes alone."""


def rank() -> int:
    """Return the number of this process, 0 if it is alone."""
    return int(dist.get_rank()) if _together() else 0


def world() -> int:
    """Return how many processes there are."""
    return int(dist.get_world_size()) if _together() else 1


def is_main() -> bool:
    """Whether this is the process that evaluates, writes and records."""
    return rank() == 0


def _together() -> bool:
    return bool(dist.is_available() and dist.is_initialized())


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Bring the processes together that ``torchrun`` started, over NCCL or, on the CPU, gloo.

    Raises
    ------
    ConnectionError
        If another process has ended meanwhile.
    """
    if place().world == 1:
        yield
        return
    gpu = device if device.type == "cuda" else None
    try:
        dist.init_process_group("nccl" if gpu else "gloo", timeout=PATIENCE, device_id=gpu)
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            what = "another process of this training has ended; run it again to resume after the last epoch"
            raise ConnectionError(errno.ECONNRESET, what) from error
        raise
    # after an error the others are to wait until this process has said what is wrong
    dist.destroy_process_group()


def add_up(*tensors: torch.Tensor) -> None:
    """Replace each tensor by its sum over all processes."""
    if _together():
        for tensor in tensors:
            dist.all_reduce(tensor)


def from_main(value: T) -> T:
    """Value that the main process has."""
    if not _together():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def require_same(value: str, what: str) -> None:
    """See that all processes have the same value.

    Raises
    ------
    ExpungeError
        If this one has another than the main process; in all of them.
    """
    if not _together():
        return
    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value)
    for number, other in enumerate(values):
        if other != values[0]:
            raise ExpungeError(
                f"process {number} has another {what} than process 0; "
                "all machines need the same checkout, params.yaml and data"
            )


def replica(model: nn.Module, device: torch.device) -> nn.Module:
    """Wrap the model so that its gradients are averaged over all processes; a single one takes it as it is.

    On GPUs batch norm takes its statistics over all processes' batches (``SyncBatchNorm``). On the CPU,
    where PyTorch has none, each process normalises by its own, and keeps the running ones of process 0.
    """
    if not _together():
        return model
    if device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")  # no error, it says
    # find_unused_parameters: also for the bits. Without it gradients are regrouped after the first step, and
    # a training that resumes would add up those of three or more processes in another order.
    gpus = [device] if device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=gpus, find_unused_parameters=True)


def averaged(model: nn.Module, *, now: bool) -> AbstractContextManager[Any]:
    """Forward and backward pass that average the gradients ``now``, or let them add up until then."""
    return nullcontext() if now or not isinstance(model, DistributedDataParallel) else model.no_sync()


def launch(stage: str, runtime: Runtime) -> int:
    """Run ``python -m tasks.<stage>`` in ``runtime.processes`` processes of this machine, by ``torchrun``.

    Returns
    -------
    status
        0, or that of the process that failed first, which has said why.

    Raises
    ------
    ChildProcessError
        If a process was killed and could say nothing.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    logging.disable()  # the process that fails says why
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # each would warn that it looks for unused weights
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, runtime.threads // runtime.processes)))
    arguments = ["--standalone", f"--nproc-per-node={runtime.processes}", "-m", f"tasks.{stage}"]
    try:
        run(parse_args(arguments))  # type: ignore[no-untyped-call]
    except SignalException as error:
        return 128 + int(error.sigval)
    except ChildFailedError as error:
        number, failure = error.get_first_failure()
        if failure.exitcode < 0:
            ended = f"process {number} of the training was ended by {signal.Signals(-failure.exitcode).name}"
            raise ChildProcessError(errno.ECHILD, ended) from None
        return int(failure.exitcode)
    return 0
