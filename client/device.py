"""Where training and evaluation run: the processor, or one NVIDIA GPU of the hospital.

Networks are built on the processor, from the study's seed, and moved; what leaves a training or an evaluation
is on the processor again. Images are decoded, augmented and divided into batches on the processor, so that a
GPU sees the same cases in the same order.
"""

import gc
import os
import re
import traceback
from collections.abc import Mapping

import torch
from torch import Tensor

from fedcad.shared.errors import ConfigError, DeviceMemoryError

CPU = torch.device("cpu")
_ASKED = re.compile(r"Tried to allocate ([0-9.]+ \w+)")
_KEY = "site.yaml: device"
_INSTEAD = "Correct this, or set device: cpu"


def open_device(name: str) -> torch.device:
    """Return a site's device, tried with one small sum; a GPU is set to compute as the processor does.

    On a GPU, convolutions are computed in full float32 (torch's default is TF32, with 10 bits of mantissa),
    and of several kernels the repeatable one is taken where torch has one. Both hold for the whole process.

    Args:
        name: ``cpu``, ``cuda`` (the first GPU) or ``cuda:N``.

    Raises:
        ConfigError: This machine has no such device, or it does not work.
    """
    if name == CPU.type:
        return CPU
    device = _find(name)
    # Read by cuBLAS when its first handle is made; without it, its sums may differ from run to run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        torch.ones(2, device=device).sum().item()
    except RuntimeError as error:
        raise ConfigError(
            f"{_KEY}: {name} is there and cannot compute ({type(error).__name__}): its memory may be full, "
            f"or driver or GPU too old for torch {torch.__version__}. {_INSTEAD}"
        ) from error
    return device


def _find(name: str) -> torch.device:
    """Return the device of a name, with its number."""
    device = torch.device(name)
    if torch.version.cuda is None:
        raise ConfigError(
            f"{_KEY}: got {name}; torch {torch.__version__} as installed here is for processors only. "
            "Install torch for CUDA, or set device: cpu"
        )
    if not torch.cuda.is_available():
        raise ConfigError(
            f"{_KEY}: got {name}; torch {torch.__version__} finds no NVIDIA GPU that it can use: none is "
            f"there, or its driver is missing or too old (needed: one for CUDA {torch.version.cuda}), or "
            f"this account or container may not use it. {_INSTEAD}"
        )
    number, count = device.index or 0, torch.cuda.device_count()
    if number >= count:
        raise ConfigError(
            f"{_KEY}: got {name}; this machine has {count} GPU(s), cuda:0 to cuda:{count - 1}. {_INSTEAD}"
        )
    return torch.device(device.type, number)


def moved(tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Return named tensors on a device: the same ones where they are there already.

    A GPU copies them while it works on what came before: from pinned memory, without being waited for.
    """
    if device.type != "cuda":
        return {name: values.to(device) for name, values in tensors.items()}
    return {name: values.pin_memory().to(device, non_blocking=True) for name, values in tensors.items()}


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done what it was asked; times without that are those of the asking."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_device_bytes(device: torch.device) -> int:
    """Return the most memory of a GPU that torch has taken in this process; 0 for the processor."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0


def shortage(error: torch.OutOfMemoryError, device: torch.device) -> DeviceMemoryError:
    """Return what to raise where a GPU's memory did not suffice, after giving back what can be given back.

    Args:
        error: torch's error, caught. Its frames' variables are dropped: they hold the batch.
        device: The GPU.
    """
    traceback.clear_frames(error.__traceback__)
    gc.collect()
    torch.cuda.empty_cache()
    asked = _ASKED.search(str(error))
    return DeviceMemoryError(
        f"the memory of {device} is full{f' (asked for {asked[1]} more)' if asked else ''}. Ask the "
        "coordinator for a smaller training.batch_size in the study, or a smaller model or "
        "preprocessing.size; end other programs that use the GPU; or set device: cpu in site.yaml"
    )
