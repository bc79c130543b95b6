"""From a module to a graph, and from a refusal to a line that says where and why."""

from __future__ import annotations

import contextlib
import re
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._decomp import decompositions
from torch.export import ExportedProgram, _trace

from isthmus.core.errors import IsthmusError, SymmetryError, first_line
from isthmus.discover.deciding import Deciding

_TRACING = threading.RLock()  # torch traces one module at a time: what it watches is global to the process


def exported(module: nn.Module, example: tuple[Any, ...], keywords: Mapping[str, Any]) -> ExportedProgram:
    """The module's graph in evaluation mode; the module is left as it was.

    Raises:
        SymmetryError: the module cannot be called or exported; the line names the place in the user's own code.
    """
    scripted = next((path for path, part in module.named_modules() if isinstance(part, torch.jit.ScriptModule)), None)
    if scripted is not None:
        place = f"its part {scripted}" if scripted else type(module).__name__
        raise SymmetryError(
            f"modules must be Python's own to be exported, but {place} was compiled by torch.jit; give the module that"
            " it was made from"
        )
    with _TRACING, evaluating(module), _quiet(), _kept_where_they_are(), _states_as_computed():
        try:
            with Deciding(module):
                return torch.export.export(module, example, dict(keywords), strict=False)
        except Exception as problem:
            if _waits_for_values(str(problem)):
                raise SymmetryError(_refusal(module, problem)) from problem
            first = problem
        try:
            with _as_when_called(), Deciding(module):
                return torch.export.export(module, example, dict(keywords), strict=False)
        except Exception as problem:
            named = problem if _waits_for_values(str(problem)) else first
            raise SymmetryError(_refusal(module, named)) from named


def functional(program: ExportedProgram) -> ExportedProgram:
    """The graph without writes in place."""
    with _TRACING, _quiet(), _states_as_computed():
        return program.run_decompositions({})


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, without fused inference kernels that hide a layer's parts; undone afterwards."""
    modes = {part: part.training for part in module.modules()}
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    module.eval()
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for part, mode in modes.items():
            part.training = mode


@contextlib.contextmanager
def accepting(module: nn.Module, example: tuple[Any, ...], keywords: Mapping[str, Any]) -> Iterator[None]:
    """Where a computation fails because the module refuses its own example (export sees no values), that is said.

    Raises:
        SymmetryError: the module does not take the example; anything else is raised as it is.
    """
    try:
        yield
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as failed:
        if isinstance(failed, IsthmusError | torch.cuda.OutOfMemoryError):
            raise
        try:
            with evaluating(module), torch.no_grad():
                module(*example, **keywords)
        except Exception as problem:
            place = _own_place(problem)
            raise SymmetryError(
                f"{type(module).__name__} must accept the example that it is discovered with, but"
                f"{f' at {place}' if place else ''}: {type(problem).__name__}: {first_line(problem, 200)}; "
                f"{_TOKENS if _asks_for_tokens(str(problem)) else 'give inputs with values that it can take'}"
            ) from problem
        raise


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    import logging

    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        # A refused export prints all of its graph; the refusal is one line here.
        with warnings.catch_warnings(), _replaced(_trace, "print", lambda *_, **__: None):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _as_when_called() -> Iterator[None]:
    """Modules that leave something out while they are compiled (masks that they make for themselves) do it all."""
    with _replaced(torch.compiler, "is_compiling", lambda: False):
        yield


@contextlib.contextmanager
def _kept_where_they_are() -> Iterator[None]:
    """A layer that is moved to the type and device that it has already stays as it is: tracing cannot move it."""
    move = nn.Module.to

    def to(module: nn.Module, *arguments: Any, **keywords: Any) -> nn.Module:
        device, dtype, _, layout = torch._C._nn._parse_to(*arguments, **keywords)  # type: ignore[attr-defined]
        tensors = [*module.parameters(), *module.buffers()]
        same = all(
            (device is None or device == tensor.device)
            and (dtype is None or dtype == tensor.dtype or not tensor.is_floating_point())
            for tensor in tensors
        )
        return module if same and layout is None else move(module, *arguments, **keywords)

    with _replaced(nn.Module, "to", to):
        yield


@contextlib.contextmanager
def _states_as_computed() -> Iterator[None]:
    """The last states of an LSTM have the shapes of the first: before 2.13 torch gives them an axis too many.

    Reference: https://github.com/pytorch/pytorch/issues/151200.
    """
    layer = decompositions.one_layer_lstm

    def fitted(inputs: Tensor, first: Sequence[Tensor], *rest: Any, **more: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        output, last = layer(inputs, first, *rest, **more)
        return output, tuple(now.reshape(before.shape) for now, before in zip(last, first, strict=True))

    with _replaced(decompositions, "one_layer_lstm", fitted):
        yield


@contextlib.contextmanager
def _replaced(holder: Any, name: str, made: Any) -> Iterator[None]:
    """Another object under a name for a while."""
    missing = object()
    before = vars(holder).get(name, missing)
    setattr(holder, name, made)
    try:
        yield
    finally:
        if before is missing:
            delattr(holder, name)
        else:
            setattr(holder, name, before)


def _refusal(module: nn.Module, problem: Exception) -> str:
    name = type(module).__name__
    place = _own_place(problem)
    text = str(problem).strip()
    reason = next((line.strip() for line in text.splitlines() if line.strip()), type(problem).__name__)
    reason = re.sub(r"\s+", " ", reason)[:200].rstrip(".")
    where = f" at {place}" if place else ""
    return f"{name} must be exportable by torch.export, but{where}: {type(problem).__name__}: {reason}; {_advice(text)}"


def _waits_for_values(text: str) -> bool:
    """Whether an export stopped at a branch that depends on values."""
    return "data-dependent" in text.lower() or "unbacked" in text.lower() or "GuardOnDataDependent" in text


_TOKENS = "give whole numbers (token numbers) as its example; --tokens in the shell"


def _asks_for_tokens(text: str) -> bool:
    """Whether an embedding got real numbers; which torch is used decides whether the export or the call says so."""
    return "Long, Int" in text


def _advice(text: str) -> str:
    if _waits_for_values(text):
        return "write that branch without looking at values (torch.where, torch.cond), or discover the part around it"
    if _asks_for_tokens(text):
        return _TOKENS
    if "NoneType" in text:
        return "give the optional inputs (masks) too, in example (a tuple) and keywords"
    if "shape" in text or "size" in text or "mat1" in text:
        return "give an example input of the shape that the module takes"
    if "argument" in text or "signature" in text or "positional" in text:
        return "give all inputs in example (a tuple) and keywords"
    return "rewrite that line with tensor operations only, or discover the part of the module around it"


def _own_place(problem: BaseException) -> str:
    """The innermost line that is not PyTorch's, from the traceback or from the message."""
    frames = traceback.extract_tb(problem.__traceback__)
    for frame in reversed(frames):
        if is_own(frame.filename):
            return f"{frame.filename}:{frame.lineno}"
    found = [(file, line) for file, line in re.findall(r'File "([^"]+)", line (\d+)', str(problem)) if is_own(file)]
    return f"{found[-1][0]}:{found[-1][1]}" if found else ""


def is_own(file: str) -> bool:
    """Whether a file is the user's: neither PyTorch nor this package nor Python's own machinery."""
    inside = ("/torch/", "/isthmus/discover/", "/contextlib.py", "/functools.py", "<frozen", "<string>", "<eval")
    return not any(part in file for part in inside)


def place_of(node: torch.fx.Node) -> str:
    """The user's file and line that made a node."""
    trace = node.meta.get("stack_trace") or ""
    found = [(file, line) for file, line in re.findall(r'File "([^"]+)", line (\d+)', trace) if is_own(file)]
    if found:
        return f"{found[-1][0]}:{found[-1][1]}"
    stack = node.meta.get("nn_module_stack") or {}
    names = [entry[0] for entry in stack.values() if isinstance(entry, tuple) and entry[0]]
    return names[-1] if names else ""
