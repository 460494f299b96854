"""Files of weights: read without running what they hold, taken out of their wrappings, and written as safetensors."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import threading
import warnings
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from restorekit.errors import ModelError
from restorekit.zoo import arrays, convert, pickles

WRAPPERS = ("params_ema", "params-ema", "params", "state_dict", "model_state_dict", "model", "net", "generator", "icnn")
"""Names under which training programs keep a state dict, those with averaged weights first."""

PREFIXES = ("module.", "_orig_mod.", "netG.", "generator.", "model.")
"""What DataParallel, ``torch.compile`` and training programs put before every name."""

GROWTH = 10
"""The most that a file may hold, unpacked, as a multiple of its own length."""

PICKLES = 5
"""So many lie before the values in a file that torch wrote before its version 1.6."""

_ONE_AT_A_TIME = threading.Lock()
"""What torch may unpickle is set for the whole process."""


def read(path: Path) -> dict[str, Tensor]:
    """The state dict in a file of weights, on the CPU: safetensors, what ``torch.save`` wrote, or arrays; by content.

    Averaged weights are preferred where there are both, and those of flax come in the layout of PyTorch. Tensors may be
    mapped from the file. Raises ModelError for a file that is no checkpoint, is cut off, holds no weights or Python
    objects other than plain values, or that would fill the memory with more than it holds.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        said = (error.strerror or str(error)).lower()
        raise ModelError(f"{path}: cannot be read ({said}); check the path and its permissions") from None
    content = _reader(path, head, size)(path)
    state = _without_prefixes(_unwrapped(path, content))
    held = sum(_checked(path, key, tensor).nbytes for key, tensor in state.items())
    if held > GROWTH * size:
        raise ModelError(
            f"{path}: claims {held} bytes of weights in a file of {size}, so it is broken or made to do harm; "
            "get it again from its authors"
        )
    return _of_flax(path, state) if convert.is_flax(state) else {key: tensor.detach() for key, tensor in state.items()}


def metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says about its weights; nothing for other files.

    Raises ModelError for a broken one.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with path.open("rb") as file:
            head = file.read(16)
        if not _is_safetensors(head, path.stat().st_size):
            return {}
        with safe_open(path, framework="pt") as opened:
            return dict(opened.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: {_broken(error)}") from None


def write(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write weights as safetensors; the file is there whole or not at all.

    Raises ModelError where it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        mode = part.stat().st_mode  # of a new file here; the library's own is for the user's eyes only
        save_file(_separate(state), part, metadata={"format": "pt", **metadata})
        part.chmod(mode)
        part.replace(path)
    except (OSError, SafetensorError) as error:
        said = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ModelError(f"{path}: cannot be written ({said}); make room or choose another $RESTOREKIT_HOME") from None
    finally:
        with suppress(OSError):  # where there is no folder there is no file
            part.unlink()


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """The sha256 of names, types, shapes and values, whatever file they lie in."""
    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key].contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _reader(path: Path, head: bytes, size: int) -> Callable[[Path], Any]:
    if head.startswith(b"PK\x03\x04"):
        return _read_arrays if arrays.is_archive(path) else _read_zip
    if _is_safetensors(head, size):
        return _read_safetensors
    if len(head) > 1 and head[0] == 0x80 and head[1] <= 5:
        return _read_pickle
    if not head:
        raise ModelError(f"{path}: is empty; get it again")
    if head.lstrip()[:1] == b"<":
        raise ModelError(
            f"{path}: is a web page, not a file of weights; open the address in a browser and save the file"
        )
    if head.startswith(b"version https://git-lfs"):
        raise ModelError(f"{path}: is a pointer of Git LFS, not the file of weights; run git lfs pull")
    raise ModelError(
        f"{path}: is no file of weights; those are .safetensors, .npz, and PyTorch's .pth, .pt, .ckpt and .bin"
    )


def _is_safetensors(head: bytes, size: int) -> bool:
    return len(head) > 8 and head[8:9] == b"{" and 2 <= struct.unpack("<Q", head[:8])[0] <= 100 << 20 and size > 8


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError, KeyError, ValueError, AttributeError) as error:
        raise ModelError(f"{path}: {_broken(error)}") from None


def _read_arrays(path: Path) -> Any:
    try:
        return arrays.read(path, GROWTH)
    except ModelError:
        raise
    except Exception as error:  # a broken archive can fail in any way
        raise ModelError(f"{path}: {_broken(error)}") from None


def _read_zip(path: Path) -> Any:
    return _read_torch(path, _examine_archive, mmap=True)


def _read_pickle(path: Path) -> Any:
    return _read_torch(path, _examine_pickles, mmap=False)


def _read_torch(path: Path, examine: Callable[[Path], None], mmap: bool) -> Any:
    try:
        examine(path)
        with _ONE_AT_A_TIME, torch.serialization.safe_globals(list(pickles.BLANKS)), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(str(path), map_location="cpu", weights_only=True, mmap=mmap)
    except ModelError:
        raise
    except Exception as error:  # a broken pickle can fail in any way
        unsafe = "Weights only load failed" in str(error)
        raise ModelError(f"{path}: {_unsafe('Python objects') if unsafe else _broken(error)}") from None


def _examine_archive(path: Path) -> None:
    """Raises ModelError for an archive that torch shall not open."""
    with zipfile.ZipFile(path) as archive:
        held = sum(entry.file_size for entry in archive.infolist())
        names = {entry.filename.rpartition("/")[2] for entry in archive.infolist()}
        if "data.pkl" not in names:
            raise ModelError(f"{path}: is an archive, not a file of weights; unpack it")
        if "constants.pkl" in names:
            raise ModelError(f"{path}: is a TorchScript program, not weights; save the model's state_dict() instead")
        if held > GROWTH * path.stat().st_size:
            raise ModelError(
                f"{path}: unpacks to {held} bytes, so it is broken or made to do harm; get it again from its authors"
            )
        for entry in archive.infolist():
            if entry.filename.rpartition("/")[2] == "data.pkl":
                _examine(path, io.BytesIO(archive.read(entry)), 1)


def _examine_pickles(path: Path) -> None:
    """Raises ModelError for pickles that torch shall not load."""
    with path.open("rb") as file:
        _examine(path, file, PICKLES)


def _examine(path: Path, content: IO[bytes], count: int) -> None:
    if (named := pickles.stranger(content, count)) is not None:
        raise ModelError(f"{path}: {_unsafe(f'the Python object {named}')}")


def _unsafe(what: str) -> str:
    return f"holds {what}, which may run a program; not opened. Save its state_dict() alone where you trust it"


def _broken(error: Exception) -> str:
    first = " ".join(str(error).split()).partition(". ")[0] or type(error).__name__
    return f"is cut off or broken ({first[:160]}); get it again"


def _unwrapped(path: Path, content: Any) -> dict[str, Tensor]:
    """The mapping of names to tensors inside the wrappings of a checkpoint."""
    while isinstance(content, Mapping):
        inner = next((content[name] for name in WRAPPERS if _holds_weights(content.get(name))), None)
        own = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
        if inner is None and not own:
            others = [value for value in content.values() if _holds_weights(value)]
            inner = others[0] if len(others) == 1 else None
        if inner is None and own:
            return own
        content = inner
    raise ModelError(f"{path}: holds no weights; a checkpoint is a mapping of names to tensors")


def _holds_weights(value: Any, depth: int = 3) -> bool:
    """Whether a value is a mapping with named tensors in it, or in a mapping inside."""
    if depth == 0 or not isinstance(value, Mapping):
        return False
    return any(
        isinstance(key, str) and (isinstance(inner, Tensor) or _holds_weights(inner, depth - 1))
        for key, inner in value.items()
    )


def _without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without what wrappers put before all of them. A Sequential called ``model`` keeps its name."""
    while True:
        names = [key for key in state if key != "n_averaged"]
        shared = next((start for start in PREFIXES if names and all(key.startswith(start) for key in names)), None)
        if shared is None or (shared == "model." and any(key[len(shared) :][:1].isdigit() for key in names)):
            return state
        state = {key[len(shared) :]: state[key] for key in names}


def _of_flax(path: Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Layers of flax as PyTorch keeps them."""
    try:
        return convert.from_flax(state)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def _checked(path: Path, key: str, tensor: Tensor) -> Tensor:
    dense = tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not dense or tensor.is_quantized or tensor.is_complex():
        raise ModelError(f"{path}: {key} is no plain tensor (sparse, quantised or complex); save the weights as floats")
    return tensor


def _separate(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that share no memory, which safetensors refuses."""
    seen: set[int] = set()
    result = {}
    for key, tensor in state.items():
        place = tensor.untyped_storage().data_ptr()
        result[key] = tensor.clone(memory_format=torch.contiguous_format) if place in seen else tensor.contiguous()
        seen.add(place)
    return result
