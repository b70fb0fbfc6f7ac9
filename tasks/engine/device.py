"""Which device computes, with how many threads and in which precision."""

from __future__ import annotations

import torch

from tasks.core.errors import ExpungeError
from tasks.core.params import Recipe, Runtime


def choose(runtime: Runtime) -> torch.device:
    """Set the thread count and return the device.

    Raises
    ------
    ExpungeError
        If CUDA is asked for and there is none.
    """
    torch.set_num_threads(runtime.threads)
    return resolve(runtime)


def resolve(runtime: Runtime) -> torch.device:
    """Return the device that ``runtime.device`` means on this machine; errors as :func:`choose`."""
    if runtime.device == "cuda" and not torch.cuda.is_available():
        raise ExpungeError(
            "params.yaml: runtime.device is 'cuda', but PyTorch sees no CUDA device; use auto or cpu"
        )
    if runtime.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(runtime.device)


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """Mixed precision for ``amp: auto``: bfloat16 where the device computes in it natively."""
    enabled = recipe.amp == "auto" and computes_bfloat16(device)
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled, cache_enabled=True)


def computes_bfloat16(device: torch.device) -> bool:
    """Whether the device has bfloat16 arithmetic; emulation is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # the only query that torch has
    return bool(supported and supported())


def describe(device: torch.device) -> dict[str, str | int]:
    """What decides the bits of a result beside the seed: device, instruction set, threads."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return {
        "device": name,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "bfloat16": str(computes_bfloat16(device)).lower(),
    }
