"""The Python objects that pickles of weights name: those that are made, and those in whose place a blank is made."""

from __future__ import annotations

import pickletools
import re
from typing import IO, Any

import torch

_BUILDERS = (
    "tensor", "tensor_v2", "tensor_v3", "parameter", "parameter_with_state", "sparse_tensor", "qtensor",
    "meta_tensor_no_storage",
)  # fmt: skip

KNOWN = (
    "collections.OrderedDict",
    "collections.Counter",
    "builtins.set",
    "builtins.complex",
    "torch.Size",
    "torch.device",
    "torch.nn.parameter.Parameter",
    "torch.serialization._get_layout",
    *(f"torch._utils._rebuild_{kind}" for kind in _BUILDERS),
)
"""What state dicts and plain values are made of, beside storages and types. torch would make more, and at any size."""

IGNORED = (
    "argparse.Namespace",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib._local.PosixPath",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    *(f"numpy.dtypes.{kind}DType" for kind in ("Float16", "Float32", "Float64", "Int32", "Int64", "Bool")),
    "_codecs.encode",
)
"""Python objects that training programs save beside weights. A blank is made in their place."""

GROWING = ("hex", "base64", "uu", "quopri", "quotedprintable")
"""Encodings of bytes as more bytes, which can be applied again and again; torch encodes where a pickle says so."""


class _Blank:
    """What stands for a Python object of a checkpoint that nobody needs."""

    def __new__(cls, *ignored: Any, **also: Any) -> _Blank:
        return super().__new__(cls)

    def __init__(self, *ignored: Any, **also: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


BLANKS: tuple[type[_Blank], ...] = tuple(
    type(name.rpartition(".")[2], (_Blank,), {"__module__": name.rpartition(".")[0]}) for name in IGNORED
)
"""Under the names that pickles call, which is how torch finds what it may make."""


def stranger(stream: IO[bytes], pickles: int) -> str | None:
    """The first object in so many pickles, one after the other, that is not to be made; None where all may be.

    Nothing is made of them. Raises ValueError, and other errors, for what is no pickle.
    """
    encodes, encoding = False, False
    for _ in range(pickles):
        for opcode, argument, _place in pickletools.genops(stream):
            if opcode.name == "GLOBAL":
                name = str(argument).replace(" ", ".").replace("__builtin__.", "builtins.")
                if not _may_be_made(name):
                    return re.sub(r"[^\w.]", "?", name)[:80]
                encodes |= name == "_codecs.encode"
            elif isinstance(argument, str) and len(argument) < 32:
                encoding |= re.sub(r"[\W_]", "", argument.lower()).removesuffix("codec") in GROWING
    return "_codecs.encode" if encodes and encoding else None


def _may_be_made(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    return (
        name in KNOWN
        or name in IGNORED
        or re.fullmatch(r"torch\.(cuda\.|storage\.)?\w+Storage", name) is not None
        or (module == "torch" and isinstance(getattr(torch, attribute, None), torch.dtype | torch.qscheme))
    )
