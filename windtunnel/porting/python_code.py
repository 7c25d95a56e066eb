"""Python source: CUDA names, device strings, backends, packages, variables, tools. One rule a function."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from windtunnel.porting import tables
from windtunnel.porting.finding import Edit, Finding, Level
from windtunnel.porting.source import Source

NAME = "ACCELERATOR"
"""The constant that an edited file holds: ``"cuda"``, ``"musa"``, or ``"cpu"`` without an accelerator."""

CUDA = "torch.cuda"
_DEVICE = re.compile(r"cuda(:\d+)?")
_DEVICE_KEYWORDS = ("device", "device_type", "map_location", "default", "torch_device")
_AUTOCAST = ("torch.cuda.amp.autocast", "torch.cuda.amp.autocast_mode.autocast")
_SCALER = ("torch.cuda.amp.GradScaler", "torch.cuda.amp.grad_scaler.GradScaler")
_GROUPS = ("init_process_group", "new_group")


def findings(path: str, source: Source) -> Iterator[Finding]:
    """Every place of one file, in no order."""
    for node in ast.walk(source.tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from _imports(path, node)
        elif isinstance(node, (ast.Attribute, ast.Name)):
            yield from _names(path, source, node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from _strings(path, source, node)
        elif isinstance(node, ast.JoinedStr):
            yield from _formatted(path, source, node)
        if isinstance(node, ast.Call):
            yield from _calls(path, source, node)


def _imports(path: str, node: ast.Import | ast.ImportFrom) -> Iterator[Finding]:
    if isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
    elif node.module and not node.level:
        modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    else:
        return
    for module in modules:
        known = tables.package(module)
        if known is not None:
            yield Finding(path, node.lineno, f"import {known.name}", known.level, known.instead)
            return


def _names(path: str, source: Source, node: ast.Attribute | ast.Name) -> Iterator[Finding]:
    around = source.parent(node)
    if isinstance(around, ast.Attribute) and source.dotted(around):
        return  # the longer name is the one to look at
    full = source.dotted(node)
    if full in (*_AUTOCAST, *_SCALER):
        yield _mixed_precision(path, source, node, full)
    elif full.startswith(f"{CUDA}."):
        known = tables.cuda_name(full.removeprefix(f"{CUDA}."))
        edit = _renamed(source, node, known.neutral) if known.neutral else None
        yield Finding(path, node.lineno, full, known.level, known.instead, edit)
    elif full == "torch.version.cuda":
        said = "None on MUSA: `torch.version.musa` there; ask for a feature, not a version"
        yield Finding(path, node.lineno, full, Level.EDIT, said)
    elif full.startswith("torch.backends.cuda.") or full.startswith("torch.backends.cudnn."):
        yield Finding(path, node.lineno, full, Level.REDIRECTED, _backend_advice(full))
    elif full.startswith("torch.utils.cpp_extension.") and "CUDA" in full:
        said = "torchada answers with MUSA's and changes the sources' names when it builds"
        yield Finding(path, node.lineno, full, Level.REDIRECTED, said)
    elif isinstance(node, ast.Attribute) and node.attr == "is_cuda" and not full:
        edit = source.replaced(node, f'({source.words(node.value)}.device.type != "cpu")')
        yield Finding(path, node.lineno, ".is_cuda", Level.REDIRECTED, '`.device.type != "cpu"`', edit)


def _backend_advice(full: str) -> str:
    if full.endswith("allow_tf32"):
        return '`torch.set_float32_matmul_precision("high")`; the default differs by version on MUSA'
    if "sdp" in full:
        return "`torch.nn.attention.sdpa_kernel`"
    return "on MUSA the switch is there and does nothing" if "cudnn" in full else ""


def _renamed(source: Source, node: ast.expr, neutral: str) -> Edit | None:
    """The neutral name in its place, where the file imports ``torch`` and the arguments fit."""
    torch = source.local_name("torch")
    around = source.parent(node)
    if not torch or (
        neutral == "torch.Event" and isinstance(around, ast.Call) and around.func is node and around.args
    ):
        return None  # torch.Event takes its options by keyword
    return source.replaced(node, neutral.replace("torch", torch, 1))


def _mixed_precision(path: str, source: Source, node: ast.expr, full: str) -> Finding:
    """``autocast()`` and ``GradScaler()`` of ``torch.cuda.amp``: the general ones take the device first."""
    torch, call = source.local_name("torch"), source.parent(node)
    short = "autocast" if full in _AUTOCAST else "amp.GradScaler"
    said, edit = f"`torch.{short}(device_type, ...)`", None
    if torch and isinstance(call, ast.Call) and call.func is node and (short != "autocast" or not call.args):
        rest = [source.words(argument) for argument in call.args]
        rest += [
            f"{word.arg}={source.words(word.value)}" if word.arg else f"**{source.words(word.value)}"
            for word in call.keywords
        ]
        edit = source.replaced(call, f"{torch}.{short}({', '.join([NAME, *rest])})", needs_name=True)
    return Finding(path, node.lineno, full, Level.REDIRECTED, said, edit)


def _strings(path: str, source: Source, node: ast.Constant) -> Iterator[Finding]:
    value, around = str(node.value), source.parent(node)
    if isinstance(around, (ast.Expr, ast.JoinedStr)):
        return
    known = tables.variable(value)
    if known is not None:
        yield Finding(path, node.lineno, value, known.level, known.instead)
    elif _DEVICE.fullmatch(value):
        yield _device(path, source, node, value)
    elif value == "nccl":
        yield _backend(path, source, node)
    else:
        for tool, instead in tables.tools().items():
            if re.match(rf"(\S*/)?{re.escape(tool)}(\s|$)", value):
                yield Finding(path, node.lineno, tool, Level.EDIT, instead)


def _device(path: str, source: Source, node: ast.Constant, value: str) -> Finding:
    what = f'"{value}"'
    role = _role(source, node)
    if role == "compared":
        compare = source.parent(node)
        edit = _compared(source, compare, node) if value == "cuda" else None
        said = '`!= "cpu"`: on MUSA the type reads `musa`, with torchada too'
        return Finding(path, node.lineno, f"compared with {what}", Level.EDIT, said, edit)
    if role == "other":
        said = "say what is meant by `device.type`, or ask `torch.accelerator.current_accelerator()`"
        return Finding(path, node.lineno, what, Level.EDIT, said)
    number = value.partition(":")[2]
    text = f'f"{{{NAME}}}:{number}"' if number else NAME
    edit = source.replaced(_choice(source, node) or node, text, needs_name=True)
    return Finding(
        path, node.lineno, what, Level.REDIRECTED, "`torch.accelerator.current_accelerator()`", edit
    )


def _choice(source: Source, node: ast.Constant) -> ast.IfExp | None:
    """``"cuda" if torch.cuda.is_available() else "cpu"``, which the constant says by itself."""
    around = source.parent(node)
    if not isinstance(around, ast.IfExp) or around.body is not node or node.value != "cuda":
        return None
    asked = isinstance(around.test, ast.Call) and source.dotted(around.test.func) == f"{CUDA}.is_available"
    plain = isinstance(around.orelse, ast.Constant) and around.orelse.value == "cpu"
    return around if asked and plain else None


def _role(source: Source, node: ast.expr) -> str:
    """Whether a device string names a device, is compared with one, or is something else."""
    inner: ast.AST = node
    around = source.parent(node)
    while isinstance(around, ast.IfExp) and inner is not around.test:
        inner, around = around, source.parent(around)
    if isinstance(around, ast.Compare):
        return "compared" if isinstance(around.ops[0], (ast.Eq, ast.NotEq)) else "other"
    if isinstance(around, ast.keyword):
        return "device" if around.arg in _DEVICE_KEYWORDS else "other"
    if isinstance(around, ast.Call):
        function = around.func
        moves = isinstance(function, ast.Attribute) and function.attr == "to"
        return "device" if moves or source.dotted(function).startswith("torch.") else "other"
    if isinstance(around, (ast.Assign, ast.AnnAssign, ast.Return, ast.arguments, ast.NamedExpr)):
        return "device"
    return "other"


def _compared(source: Source, compare: ast.AST | None, node: ast.expr) -> Edit | None:
    if not isinstance(compare, ast.Compare) or len(compare.ops) != 1 or compare.comparators[0] is not node:
        return None
    left = source.words(compare.left)
    if not (left.endswith(".type") or "device" in left.lower()):
        return None
    operator = "!=" if isinstance(compare.ops[0], ast.Eq) else "=="
    return source.replaced(compare, f'{left} {operator} "cpu"')


def _backend(path: str, source: Source, node: ast.Constant) -> Finding:
    around = source.parent(node)
    call = source.parent(around) if isinstance(around, ast.keyword) else around
    named = isinstance(around, ast.keyword) and around.arg == "backend"
    first = isinstance(call, ast.Call) and call.args[:1] == [node]
    function = source.dotted(call.func) if isinstance(call, ast.Call) else ""
    if function.rpartition(".")[2] in _GROUPS and function.startswith("torch.") and (named or first):
        torch = source.local_name("torch") or "torch"
        text = f"{torch}.distributed.get_default_backend_for_device({NAME})"
        edit = source.replaced(node, text, needs_name=True)
        return Finding(path, node.lineno, '"nccl"', Level.REDIRECTED, "no backend: PyTorch picks", edit)
    said = "the backend reads `mccl` on MUSA; `torch.distributed.get_default_backend_for_device`"
    return Finding(path, node.lineno, '"nccl"', Level.EDIT, said)


def _formatted(path: str, source: Source, node: ast.JoinedStr) -> Iterator[Finding]:
    """``f"cuda:{index}"``."""
    first = node.values[0] if node.values else None
    if not isinstance(first, ast.Constant) or not str(first.value).startswith("cuda:"):
        return
    words = source.words(node)
    edit = None
    if _role(source, node) == "device":
        edit = source.replaced(node, words.replace("cuda:", f"{{{NAME}}}:", 1), needs_name=True)
    said = "`torch.accelerator.current_accelerator()`"
    yield Finding(path, node.lineno, words, Level.REDIRECTED, said, edit)


def _calls(path: str, source: Source, node: ast.Call) -> Iterator[Finding]:
    function = node.func
    if not isinstance(function, ast.Attribute):
        return
    full = source.dotted(function)
    if function.attr == "cuda" and not full:
        yield Finding(path, node.lineno, ".cuda()", Level.REDIRECTED, "`.to(device)`", _moved(source, node))
    elif full.endswith("cpp_extension.load_inline"):
        if any(word.arg == "cuda_sources" for word in node.keywords):
            yield Finding(path, node.lineno, full, Level.PORT, "a kernel for mcc, or plain PyTorch")
    elif function.attr.startswith("new_subgroups") and full.startswith("torch.distributed"):
        said = "torchada leaves its backend untranslated: pass none"
        yield Finding(path, node.lineno, full, Level.EDIT, said)
    elif function.attr in ("inline_asm_elementwise",):
        yield Finding(path, node.lineno, full or function.attr, Level.TIED, "an operation of Triton's own")


def _moved(source: Source, node: ast.Call) -> Edit:
    """``x.cuda(...)`` as ``x.to(...)``: a given device stays, else the accelerator."""
    function = node.func
    assert isinstance(function, ast.Attribute)
    given = [source.words(argument) for argument in node.args]
    given += [f"{word.arg}={source.words(word.value)}" for word in node.keywords if word.arg]
    has_device = bool(node.args) or any(word.arg == "device" for word in node.keywords)
    arguments = given if has_device else [NAME, *given]
    text = f"{source.words(function.value)}.to({', '.join(arguments)})"
    return source.replaced(node, text, needs_name=not has_device)
