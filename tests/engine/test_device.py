from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tasks.core.errors import ExpungeError
from tasks.core.params import Runtime
from tasks.engine import device as devices
from tasks.engine.training import fit
from tests import tiny

no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@no_cuda
def test_cuda_on_a_machine_without_it_is_refused_with_the_key() -> None:
    with pytest.raises(ExpungeError) as caught:
        devices.choose(Runtime(device="cuda"))
    assert str(caught.value) == (
        "params.yaml: runtime.device is 'cuda', but PyTorch sees no CUDA device; use auto or cpu"
    )


@no_cuda
def test_auto_falls_back_to_the_cpu() -> None:
    assert devices.choose(Runtime(device="auto")) == torch.device("cpu")


@pytest.mark.parametrize("threads", [1, 2])
def test_the_thread_count_is_set_and_described(threads: int) -> None:
    chosen = devices.choose(Runtime(device="cpu", threads=threads))
    assert torch.get_num_threads() == threads
    described = devices.describe(chosen)
    assert described["device"] == "CPU"
    assert described["threads"] == threads
    assert described["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert described["bfloat16"] in {"true", "false"}


def test_bfloat16_is_used_anywhere_if_it_is_asked_for() -> None:
    with devices.autocast(tiny.recipe(amp="bfloat16"), torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_float16_is_refused_on_the_cpu_before_any_step() -> None:
    with pytest.raises(ExpungeError) as caught:
        fit(tiny.model(), tiny.noise(50), tiny.recipe(amp="float16"), seed=0)
    assert str(caught.value) == (
        "recipe.amp is 'float16', which needs a CUDA device, and this is cpu; use auto, bfloat16 or off"
    )


def test_processes_of_one_machine_share_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    described = devices.describe(devices.choose(Runtime(device="cpu", threads=4)))
    assert (described["threads"], described["processes"]) == (2, 4)


def test_mixed_precision_is_on_only_if_asked_for_and_native() -> None:
    cpu = torch.device("cpu")
    for amp, expected in (("off", torch.float32), ("auto", torch.bfloat16)):
        native = devices.computes_bfloat16(cpu)
        with devices.autocast(tiny.recipe(amp=amp), cpu):
            product = torch.ones(2, 2) @ torch.ones(2, 2)
        assert product.dtype == (expected if native else torch.float32)
