"""Which processor runs the pixels, and how this process uses memory."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys

import torch
from torch import Tensor

from restorekit.errors import RestorekitError
from restorekit.io.limits import available_memory


def choose(name: str = "auto") -> torch.device:
    """The device called ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    ``auto`` takes a GPU where there is one. Raises RestorekitError for a device this machine lacks.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RestorekitError(f"unknown device '{name}'; use auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RestorekitError(
            f"device '{name}' is not on this machine ({torch.cuda.device_count()} CUDA devices seen); use --device cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise RestorekitError("device 'mps' is not on this machine; use --device cpu")
    return device


def keep_freed_memory() -> None:
    """Let glibc reuse freed blocks instead of returning them to the system each time.

    Strips are allocated and freed thousands of times an image; the page faults would cost two to
    three times the arithmetic. All threads share one pool, since each would keep its own. Does nothing
    on other C libraries.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_trim_threshold, m_mmap_threshold, m_arena_max = -1, -3, -8
        mallopt(m_mmap_threshold, 32 << 20)
        mallopt(m_trim_threshold, 128 << 20)
        mallopt(m_arena_max, 1)


def release_freed_memory() -> None:
    """Give what glibc keeps for reuse back to the system; between groups of strips, before a large image is stored."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        trim(0)


def describe() -> str:
    """The accelerators torch can use, in words."""
    if torch.cuda.is_available():
        return ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    return "Apple GPU" if torch.backends.mps.is_available() else "none seen by torch; the CPU is used"


def unseen_gpu() -> str | None:
    """Why torch does not use the NVIDIA GPU that the driver names, in one line with the cure; None if all is well."""
    program = shutil.which("nvidia-smi")
    if torch.cuda.is_available() or program is None:
        return None
    try:
        told = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if told.returncode != 0 or not told.stdout.startswith("GPU "):
        return None
    name = told.stdout.splitlines()[0].partition(": ")[2].partition(" (UUID")[0]
    if torch.version.cuda is None:
        cure = "install the build for your GPU: https://pytorch.org/get-started/locally"
        return f"{name}: is not used, torch {torch.__version__} is a build for the CPU; {cure}"
    cure = "update the driver, and see that CUDA_VISIBLE_DEVICES does not hide the GPU"
    return f"{name}: is not seen by torch {torch.__version__}, which was built for CUDA {torch.version.cuda}; {cure}"


def free_memory(device: torch.device) -> int | None:
    """Bytes that can be allocated on a device; None where the system does not tell."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + held
    return available_memory()


def has_bfloat16(device: torch.device) -> bool:
    """Whether a GPU computes bfloat16 in hardware."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of main memory on a device; to a GPU without waiting for it."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


OUT_OF_MEMORY = ("out of memory", "not enough memory", "allocate memory", "ALLOC_FAILED")
"""What errors say when memory ran out: of CUDA, of torch on Windows and Linux, of cuDNN and cuBLAS."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the device or here."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)
    )


def release(device: torch.device) -> None:
    """Give cached memory of a device back, after memory ran out."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    release_freed_memory()
