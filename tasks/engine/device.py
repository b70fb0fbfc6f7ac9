"""Which device computes, with how many threads and in which precision."""

from __future__ import annotations

import torch

from tasks.core.errors import ExpungeError
from tasks.core.params import Recipe, Runtime
from tasks.core.processes import place


def choose(runtime: Runtime) -> torch.device:
    """Set the thread count and return the device; processes of one machine share its threads and GPUs.

    Raises
    ------
    ExpungeError
        If CUDA is asked for and there is none, or there are fewer devices than processes.
    """
    torch.set_num_threads(max(1, runtime.threads // place().local_world))
    device = resolve(runtime)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device


def resolve(runtime: Runtime) -> torch.device:
    """Return the device that ``runtime.device`` means on this machine; errors as :func:`choose`."""
    if runtime.device == "cuda" and not torch.cuda.is_available():
        raise ExpungeError(
            "params.yaml: runtime.device is 'cuda', but PyTorch sees no CUDA device; use auto or cpu"
        )
    if runtime.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    here = place()
    if here.world == 1:
        return torch.device("cuda")
    count = torch.cuda.device_count()
    if here.local_world > count:
        raise ExpungeError(
            f"{here.local_world} processes share a training here, but PyTorch sees {count} CUDA devices; "
            "lower runtime.processes in params.yaml, or set runtime.device to cpu"
        )
    return torch.device("cuda", here.local_rank)


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """Mixed precision as the recipe says; ``auto`` is bfloat16 where the device computes in it natively.

    Raises
    ------
    ExpungeError
        If the recipe says float16 and the device is no GPU: PyTorch scales losses on GPUs alone.
    """
    if recipe.amp == "float16" and device.type != "cuda":
        raise ExpungeError(
            f"recipe.amp is 'float16', which needs a CUDA device, and this is {device.type}; "
            "use auto, bfloat16 or off"
        )
    kind = torch.float16 if recipe.amp == "float16" else torch.bfloat16
    enabled = recipe.amp != "off" and (recipe.amp != "auto" or computes_bfloat16(device))
    return torch.autocast(device.type, kind, enabled=enabled, cache_enabled=True)


def computes_bfloat16(device: torch.device) -> bool:
    """Whether the device has bfloat16 arithmetic; emulation is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # the only query that torch has
    return bool(supported and supported())


def describe(device: torch.device) -> dict[str, str | int]:
    """What decides the bits of a result beside the seed: device, instruction set, threads, processes."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return {
        "device": name,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "processes": place().world,
        "bfloat16": str(computes_bfloat16(device)).lower(),
    }
