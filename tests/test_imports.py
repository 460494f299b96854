"""Imports run one way, heavy libraries have one home each, and what is shown first loads fast."""

from __future__ import annotations

import ast
import graphlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import restorekit

PACKAGE = Path(restorekit.__file__).parent

LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "names", "checked", "yaml_syntax", "yaml_model", "state", "planes", "facts", "frame", "bundled"),
    ("color",),
    ("io",),
    ("stage", "strips", "tiling", "execution", "device", "reduction"),
    ("architectures", "inference", "zoo", "stages", "metrics"),
    (
        "registry",
        "delivery",
        "delivery_stream",
        "pipeline",
        "schema",
        "json_schema",
        "edge",
        "engine",
        "testing",
        "testing_networks",
    ),
    (
        "journal",
        "sources",
        "jobs",
        "isolation",
        "runner",
        "evaluate",
        "protocols",
        "restorers",
        "contact_sheet",
        "comparison_view",
        "comparison_page",
        "report",
        "doctor",
        "camera",
        "data",
        "train",
    ),
    ("cli", "web"),
    ("__init__", "__main__"),
)
"""A module imports from its own layer and those above it in this table, never from one below."""

HOMES: dict[str, tuple[str, ...]] = {
    "rawpy": ("io.raw", "io.libraw_demosaic", "io.limits"),
    "lensfunpy": ("io.lensfun",),
    "pillow_heif": ("io.heif",),
    "gradio": ("web",),
    "lpips": ("metrics.lpips",),
    "pycvvdp": ("metrics.cvvdp",),
    "safetensors": ("zoo.checkpoint",),
    "spandrel": ("zoo.community",),
    "lightning": ("train.restoration", "train.fit", "train.keeper"),
    "torchvision": (),
}
"""Libraries that only the named modules import."""


@dataclass(frozen=True)
class Import:
    """One imported module, and whether it is imported only when a function runs or only for type checkers."""

    module: str
    deferred: bool


def tree(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(node: ast.AST, deferred: bool = False) -> Iterator[Import]:
    """All imports below a node by absolute name; of ``from a import b`` the module ``a.b`` where there is one."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, deferred) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            for alias in child.names:
                inner = f"{child.module}.{alias.name}"
                is_module = inner.removeprefix("restorekit.") in FILES
                yield Import(inner if is_module else str(child.module), deferred)
        else:
            typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from imports(child, deferred or typing_only or is_function)


def layer(module: str) -> int:
    top = module.split(".")[0]
    return next(index for index, names in enumerate(LAYERS) if top in names)


def own(imported: Import) -> str | None:
    """The module of ours that an import names, without the leading ``restorekit.``; ``None`` for others."""
    name, _, rest = imported.module.partition(".")
    return None if name != "restorekit" else rest or "__init__"


@pytest.mark.parametrize("module", FILES)
def test_module_has_a_layer(module: str) -> None:
    assert any(module.split(".")[0] in names for names in LAYERS), f"add {module} to LAYERS"


@pytest.mark.parametrize("module", [name for name in FILES if name != "__init__"])
def test_imports_run_one_way(module: str) -> None:
    version = {"from restorekit import __version__"}
    for node in ast.walk(tree(module)):
        if not isinstance(node, ast.Import | ast.ImportFrom) or ast.unparse(node) in version:
            continue
        for imported in imports(ast.Module([node], [])):
            target = own(imported)
            if target is not None:
                assert layer(target) <= layer(module), f"{module} imports {target}, which is of a higher layer"


def test_modules_do_not_need_each_other_to_load() -> None:
    needs = {
        module: {target for found in imports(tree(module)) if not found.deferred and (target := own(found))}
        - {"__init__"}
        for module in FILES
    }
    list(graphlib.TopologicalSorter(needs).static_order())


@pytest.mark.parametrize("library", HOMES)
def test_library_has_one_home(library: str) -> None:
    users = [module for module in FILES if any(i.module.split(".")[0] == library for i in imports(tree(module)))]
    allowed = HOMES[library]
    assert [user for user in users if not user.startswith(allowed or ("nobody",))] == []


def names_cuda(module: str) -> bool:
    """Whether code uses ``something.cuda`` or a device string; texts for people may name it."""
    return any(
        (isinstance(node, ast.Attribute) and node.attr == "cuda")
        or (isinstance(node, ast.Constant) and re.fullmatch(r"cuda(:\d+)?", str(node.value)))
        for node in ast.walk(tree(module))
    )


def test_only_device_names_cuda() -> None:
    assert [module for module in FILES if names_cuda(module)] == ["device"]


def loaded_by(*arguments: str) -> set[str]:
    """Top-level names of all modules that a Python program imports."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPROFILEIMPORTTIME", "COVERAGE_PROCESS_START")
    }
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, cwd=PACKAGE.parent, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def test_import_is_light() -> None:
    assert not loaded_by("-c", "import restorekit") & {"torch", "numpy", "pydantic", "cv2", "rawpy", "typer"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--version",),
        ("run", "--help"),
        ("eval", "--help"),
        ("train", "--help"),
        ("web", "--help"),
        ("pipelines", "list"),
        ("stages", "list"),
        ("models", "list"),
        ("datasets", "list"),
    ],
    ids=" ".join,
)
def test_command_line_answers_without_torch(arguments: tuple[str, ...]) -> None:
    loaded = loaded_by("-m", "restorekit", *arguments)
    assert "restorekit" in loaded
    assert not loaded & {"torch", "numpy", "cv2", "scipy", "rawpy", "imagecodecs"}


def test_public_names_exist() -> None:
    for name in restorekit.__all__:
        assert getattr(restorekit, name) is not None
    assert set(restorekit.__all__) <= set(dir(restorekit))
