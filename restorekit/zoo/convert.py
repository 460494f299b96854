"""Weights of other frameworks as state dicts of PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from restorekit.errors import ModelError
from restorekit.names import did_you_mean

TARGET = "opt/target/"
"""In front of the names of weights where an optimiser was saved with them, as flax did."""


def convert_state_dict(architecture: str, arrays: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights that an architecture's authors published for another framework, as its state dict here.

    ``arrays`` are numpy arrays or tensors by the authors' names: for ``maxim`` what ``numpy.load`` gives of an
    ``.npz``. What lies beside the weights, such as the state of an optimiser, is left out; no memory is shared.

    Raises ModelError for an architecture whose weights need no conversion, and arrays that are not such weights.
    """
    convert = CONVERTERS.get(architecture)
    if convert is None:
        hint = did_you_mean(architecture, CONVERTERS) or f"; there are {', '.join(CONVERTERS)}"
        raise ModelError(f"no weights of '{architecture}' are of another framework{hint}")
    return convert(arrays)


def is_flax(names: Mapping[str, Any]) -> bool:
    """Whether names are those under which flax saved weights with an optimiser."""
    return any(name.startswith(TARGET) for name in names)


def from_flax(arrays: Mapping[str, Any]) -> dict[str, Tensor]:
    """Layers of flax as PyTorch keeps them, names with ``.`` for ``/``.

    Raises ModelError for arrays that are no weights of dense layers, convolutions in two dimensions or normalisations.
    """
    optimised = is_flax(arrays)
    own = {name.removeprefix(TARGET): arrays[name] for name in arrays if name.startswith(TARGET) or not optimised}
    state = {}
    for name, array in own.items():
        layer, _, kind = name.rpartition("/")
        tensor = _tensor(name, array)
        if kind == "kernel":
            tensor = _kernel(name, layer.rpartition("/")[2], tensor)
        elif kind not in ("bias", "scale") or tensor.ndim != 1:
            raise ModelError(f"{name}: is no kernel, bias or scale of flax; give what the authors' .npz holds")
        state[f"{layer.replace('/', '.')}.{'bias' if kind == 'bias' else 'weight'}"] = tensor.contiguous()
    if not state:
        raise ModelError("there are no weights among these arrays; give what the authors' .npz holds")
    return state


CONVERTERS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Tensor]]] = {"maxim": from_flax}
"""By architecture."""


def _tensor(name: str, array: Any) -> Tensor:
    """A copy of an array."""
    if isinstance(array, Tensor):
        return array.detach().clone()
    try:
        return torch.tensor(np.asarray(array))
    except (TypeError, ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())[:160]
        raise ModelError(f"{name}: is no array of numbers ({said}); give what the authors' .npz holds") from None


def _kernel(name: str, layer: str, kernel: Tensor) -> Tensor:
    """``[in,out]`` as ``[out,in]``, ``[h,w,in,out]`` as ``[out,in,h,w]``.

    A transposed convolution of flax does not mirror its kernel, that of PyTorch does, and has ``[in,out,h,w]``.
    """
    if kernel.ndim == 2:
        return kernel.t()
    if kernel.ndim != 4:
        raise ModelError(f"{name}: a kernel of shape {list(kernel.shape)} is of no layer that is known here")
    if layer.startswith("ConvTranspose"):
        return kernel.permute(2, 3, 0, 1).flip(2, 3)
    return kernel.permute(3, 2, 0, 1)
