"""The networks, one file each, found by name. Other packages name theirs in ``restorekit.architectures``."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from restorekit.errors import FOREIGN, ModelError
from restorekit.names import did_you_mean

if TYPE_CHECKING:
    from restorekit.architectures._network import Network

BUILT_IN: Mapping[str, str] = {
    "hat": "restorekit.architectures.hat:HAT",
    "drct": "restorekit.architectures.drct:DRCT",
    "craft": "restorekit.architectures.craft:CRAFT",
    "rgt": "restorekit.architectures.rgt:RGT",
    "dlgsanet": "restorekit.architectures.dlgsanet:DLGSANet",
    "cfsr": "restorekit.architectures.cfsr:CFSR",
    "espcn": "restorekit.architectures.espcn:ESPCN",
    "wavemixsr": "restorekit.architectures.wavemixsr:WaveMixSR",
    "wavemixsr_v2": "restorekit.architectures.wavemixsr:WaveMixSRV2",
    "rlfn": "restorekit.architectures.rlfn:RLFN",
    "drunet": "restorekit.architectures.drunet:DRUNet",
    "drsformer": "restorekit.architectures.drsformer:DRSformer",
    "histoformer": "restorekit.architectures.histoformer:Histoformer",
    "rrformer": "restorekit.architectures.rrformer:RRFormer",
    "retinexformer": "restorekit.architectures.retinexformer:Retinexformer",
    "iagc": "restorekit.architectures.iagc:IAGC",
    "maxim": "restorekit.architectures.maxim:MAXIM",
}
"""Name -> ``module:Class``."""


@cache
def architectures() -> Mapping[str, str]:
    """Built-in networks and those of installed packages, by name; built-ins win."""
    plugins = {point.name: point.value for point in entry_points(group="restorekit.architectures")}
    return {**plugins, **BUILT_IN}


def architecture(name: str) -> type[Network]:
    """The class of a network.

    Raises ModelError when there is none of this name, or its package does not load.
    """
    target = architectures().get(name)
    if target is None:
        hint = did_you_mean(name, architectures()) or f"; there are {', '.join(architectures())}"
        raise ModelError(f"unknown architecture '{name}'{hint}")
    module, _, attribute = target.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ModelError(f"architecture '{name}' ({target}) does not load: {error}; {FOREIGN}") from error
    if not isinstance(found, type):
        raise ModelError(f"architecture '{name}' ({target}) is no class; {FOREIGN}")
    return found


def create(name: str, **config: Any) -> Network:
    """A network with fresh weights; ``config`` has the hyperparameter names of the network's authors.

    Raises ModelError for an unknown architecture or hyperparameter, or values that do not go together.
    """
    cls = architecture(name)
    known = [key for key in inspect.signature(cls.__init__).parameters if key != "self"]
    for key in config:
        if key not in known:
            hint = did_you_mean(key, known) or f"; it has {', '.join(known)}"
            raise ModelError(f"{name} has no hyperparameter '{key}'{hint}")
    try:
        return cls(**config)
    except Exception as error:  # values that do not go together can fail in any way
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(f"{name} cannot be built: {said}") from error
