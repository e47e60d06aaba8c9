"""A GPU that is not there: tensors in the processor's memory that torch's functions treat as on cuda:0.

The numbers are the processor's, bit for bit. What is checked is where they are: a function of tensors on two
devices, or NumPy on a tensor of the GPU, raises as on a real one. What C++ does below torch's functions (in
back-propagation) is not seen: it uses tensors that were checked on their way in.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

GPU = torch.device("cuda", 0)
_DEVICE, _IS_CUDA, _GRAD = (getattr(Tensor, name).__get__ for name in ("device", "is_cuda", "grad"))
_SET_DATA, _SET_GRAD = Tensor.data.__set__, Tensor.grad.__set__
_ACROSS = (Tensor.copy_, Tensor.__setitem__, _SET_DATA, torch._has_compatible_shallow_copy_type)
"""Functions that take a value from another device."""
_TO_NUMPY = (Tensor.numpy, Tensor.__array__)


class PretendedGpu(TorchFunctionMode):
    """Remembers which memory is the GPU's.

    Attributes:
        states: Fake states of the GPU's generator that were put in.
        moves: Number of copies from the processor to the GPU.
    """

    def __init__(self) -> None:
        super().__init__()
        # Storages themselves: as long as they are held, no other gets their address.
        self._on: dict[int, torch.UntypedStorage] = {}
        self.states: list[Tensor] = []
        self.moves = 0

    def has(self, tensor: Tensor) -> bool:
        """Whether a tensor is on the GPU."""
        return tensor.untyped_storage()._cdata in self._on

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call one of torch's functions, and say where its results are."""
        kwargs = dict(kwargs or {})
        if func == _DEVICE:
            return GPU if self.has(args[0]) else func(*args)
        if func == _IS_CUDA:
            return self.has(args[0])
        if func in (Tensor.to, Tensor.cpu, Tensor.pin_memory):
            return self._move(func, args[0], args[1:], kwargs)
        device = kwargs.get("device")
        if device is not None and torch.device(device) == GPU:
            kwargs["device"] = "cpu"
        inputs = list(_tensors((args, kwargs)))
        self._check(func, inputs)
        known = {tensor.untyped_storage()._cdata for tensor in inputs}
        result = func(*args, **kwargs)
        is_on = torch.device(device) == GPU if device is not None else any(map(self.has, inputs))
        if is_on:
            for tensor in _tensors(result):
                if self.has(tensor) or tensor.untyped_storage()._cdata not in known:
                    self._put(tensor)
        return result

    def _check(self, func: Callable[..., Any], inputs: list[Tensor]) -> None:
        places = [self.has(tensor) for tensor in inputs]
        if func in _TO_NUMPY and any(places):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if func in _ACROSS:
            return
        if func == Tensor.__getitem__:
            if not places[0] and any(places[1:]):
                raise RuntimeError(f"{func}: an index on the GPU into the processor's memory: two devices")
            return
        # As in torch, a number of the processor may meet tensors of the GPU.
        there = [on for on, tensor in zip(places, inputs, strict=True) if on or tensor.dim() > 0]
        if func == _SET_GRAD:
            there = places
        if any(there) and not all(there):
            raise RuntimeError(
                f"{getattr(func, '__name__', func)}: expected all tensors on one device, found two devices"
            )

    def _move(self, func: Callable[..., Any], tensor: Tensor, args: tuple[Any, ...], kwargs: Any) -> Tensor:
        """Do ``to``, ``cpu`` and ``pin_memory``."""
        was_on, wanted = self.has(tensor), kwargs.pop("device", None)
        if func == Tensor.pin_memory:
            if was_on:
                raise RuntimeError(
                    "cannot pin 'torch.cuda.FloatTensor': only dense CPU tensors can be pinned"
                )
            return tensor.clone()
        rest = []
        for argument in args:
            if isinstance(argument, torch.device | str):
                wanted = argument
            else:
                rest.append(argument)
        if func == Tensor.cpu:
            wanted = "cpu"
        becomes_on = was_on if wanted is None else torch.device(wanted).type == "cuda"
        kwargs.pop("non_blocking", None)
        result = Tensor.to(tensor, *rest, **kwargs) if _says_type(rest, kwargs) else tensor
        if becomes_on != was_on and result is tensor:
            result = tensor.clone()
        if becomes_on:
            self.moves += not was_on
            self._put(result)
        return result

    def _put(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        self._on[storage._cdata] = storage


def _says_type(rest: list[Any], kwargs: dict[str, Any]) -> bool:
    rest[:] = [each for each in rest if isinstance(each, torch.dtype)]
    return bool(rest) or kwargs.get("dtype") is not None


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield all tensors in nested arguments."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


@contextmanager
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedGpu]:
    """Let cuda:0 be there inside the block, its generator in the state 1, 2, 3 ... at each look."""
    gpu, looks = PretendedGpu(), [0]

    def get(device: torch.device) -> Tensor:
        assert device == GPU
        looks[0] += 1
        return torch.full((16,), looks[0], dtype=torch.uint8)

    def put(state: Tensor, device: torch.device) -> None:
        assert device == GPU
        gpu.states.append(state)

    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "get_rng_state", get)
        patch.setattr(torch.cuda, "set_rng_state", put)
        with gpu:
            yield gpu
