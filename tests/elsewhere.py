"""A device that this machine lacks, played by the CPU.

Inside :class:`Elsewhere`, tensors can be moved to ``DEVICE``. The copies are the CPU's
too, but all else is as on a GPU: tensors of both devices do not mix, a tensor that
is made without naming a device is on the CPU, and there is no way to an array but over
the CPU. What a GPU rounds otherwise, or lacks, does not show.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("xpu")

_IS_ELSEWHERE = "_is_elsewhere"
_TO_ARRAYS = {"numpy", "__array__"}
_INDEXED = {"__getitem__", "__setitem__"}


def is_elsewhere(value: object) -> bool:
    return isinstance(value, Tensor) and getattr(value, _IS_ELSEWHERE, False)


def _names_device(value: object) -> bool:
    return isinstance(value, torch.device | str) and str(value) in ("xpu", "cpu")


def _placed(values: Any, elsewhere: bool) -> Any:
    """Return what a function returned, its tensors on one device or the other."""

    def place(value: Any) -> Any:
        if not isinstance(value, Tensor) or is_elsewhere(value) == elsewhere:
            return value
        value = value.view_as(value)  # the argument itself, perhaps
        setattr(value, _IS_ELSEWHERE, elsewhere)
        return value

    return tree_map(place, values)


def _moved_from(own: Tensor, elsewhere: bool) -> Tensor:
    """Return a copy of a tensor that goes to another device, or else itself."""
    if is_elsewhere(own) == elsewhere:
        return own
    copy = own.clone()
    setattr(copy, _IS_ELSEWHERE, elsewhere)
    return copy


def _require_one_device(name: str, tensors: Iterable[Tensor]) -> None:
    # Single numbers on the CPU go with every device.
    there = {is_elsewhere(t) for t in tensors if t.dim() or is_elsewhere(t)}
    if len(there) > 1:
        raise RuntimeError(f"{name}: expected all tensors on one device, found two")


class Elsewhere(TorchFunctionMode):
    """Where tensors may be on ``DEVICE``."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        own = args[0] if args else None
        if func == torch.Tensor.device.__get__:
            return DEVICE if is_elsewhere(own) else func(own)
        if name == "cpu":
            return _placed(_moved_from(own, False), False)
        if name == "to":
            return self._moved(func, args, kwargs)
        if name in _TO_ARRAYS and is_elsewhere(own):
            raise TypeError("a tensor that is elsewhere has no array")
        if "device" in kwargs:
            elsewhere = torch.device(kwargs.pop("device") or "cpu") == DEVICE
            return _placed(func(*args, **kwargs), elsewhere)
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        if name in _INDEXED and is_elsewhere(own):
            # An index may be on the CPU.
            tensors = [own, *(t for t in args[2:] if isinstance(t, Tensor))]
        if name != "copy_":
            _require_one_device(name, tensors)
        found = func(*args, **kwargs)
        if found is own:  # changed in place
            return found
        return _placed(found, any(map(is_elsewhere, tensors)))

    def _moved(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        """Move a tensor to a device or that of a tensor, or change its type alone."""
        elsewhere, words = is_elsewhere(args[0]), []
        for word in [*args[1:], *kwargs.values()]:
            if _names_device(word):
                elsewhere = torch.device(word) == DEVICE
            elif isinstance(word, Tensor):
                elsewhere = is_elsewhere(word)
                words.append(word.dtype)
            else:
                words.append(word)
        own = _moved_from(args[0], elsewhere)
        moved: Tensor = _placed(func(own, *words) if words else own, elsewhere)
        return moved
