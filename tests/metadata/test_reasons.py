"""Every reason that the sources name is explained, and every one that is explained is named there."""

from __future__ import annotations

import ast
import pathlib
from collections import defaultdict
from collections.abc import Iterator

from metadata.reasons import FILES, REASONS

ROOT = pathlib.Path(__file__).resolve().parents[2]
#: What reasons are assigned to, beside arguments of that name: variables, and tables of them.
TARGETS = {"reason", "REASONS", "RULES"}


def constants(node: ast.AST | None) -> Iterator[str]:
    """The strings that an expression may give, also those in a table; what ``{}`` puts into one is ``*``."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in node.values)
    elif isinstance(node, ast.IfExp):
        yield from (*constants(node.body), *constants(node.orelse))
    elif isinstance(node, ast.BoolOp | ast.Dict):
        yield from (reason for value in node.values for reason in constants(value))
    elif isinstance(node, ast.Tuple):
        yield from (reason for element in node.elts for reason in constants(element))


def place_of_reason(function: ast.FunctionDef) -> int | None:
    """Which of a function's arguments is called ``reason``."""
    names = [argument.arg for argument in function.args.args if argument.arg not in ("self", "cls")]
    return names.index("reason") if "reason" in names else None


def takers_of(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Functions and classes that take a reason, and at which place."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and (place := place_of_reason(node)) is not None:
            yield node.name, place
        for method in node.body if isinstance(node, ast.ClassDef) else []:
            if isinstance(method, ast.FunctionDef) and method.name == "__init__" and (place := place_of_reason(method)) is not None:
                yield node.name, place


def expressions(tree: ast.AST, takers: dict[str, int]) -> Iterator[ast.AST | None]:
    """What is given as a reason somewhere in a file."""
    givers = {"reason"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in takers:
                yield from node.args[takers[name] : takers[name] + 1]
                yield from (keyword.value for keyword in node.keywords if keyword.arg == "reason")
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        if TARGETS & {getattr(target, "id", "") for target in targets} and node.value:
            yield node.value
            givers |= {getattr(call.func, "id", "") for call in ast.walk(node.value) if isinstance(call, ast.Call)}
        if isinstance(node, ast.For) and isinstance(node.target, ast.Tuple) and isinstance(node.iter, ast.Tuple):
            names = [getattr(target, "id", "") for target in node.target.elts]
            yield from (row.elts[names.index("reason")] for row in node.iter.elts if "reason" in names and isinstance(row, ast.Tuple))
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef) and function.name in givers:
            yield from (node.value for node in ast.walk(function) if isinstance(node, ast.Return))


def reasons_of_the_sources() -> dict[str, set[str]]:
    """Reason → the files that name it."""
    files = [file for room in ("metadata", "balancing", "pipelines") for file in sorted((ROOT / room).glob("*.py"))]
    trees = {str(file.relative_to(ROOT)): ast.parse(file.read_text(encoding="utf-8")) for file in files if file.name != "reasons.py"}
    takers = {name: place for tree in trees.values() for name, place in takers_of(tree) if name != "__init__"}
    assert {"drop", "dead_letter", "damaged"} <= takers.keys()
    found = defaultdict(set)
    for name, tree in trees.items():
        for expression in expressions(tree, takers):
            for reason in filter(None, constants(expression)):
                found[reason].add(name)
    for status in ("1", "2", "3", "4", "5"):
        found[f"http_{status}xx"] |= found["http_*xx"]
    del found["http_*xx"]
    return found


def test_every_reason_is_explained_and_none_that_there_is_not() -> None:
    found = reasons_of_the_sources()
    explained = {*FILES, *(reason for of in REASONS.values() for reason in of)}
    assert {reason: files for reason, files in found.items() if reason not in explained} == {}
    assert explained - found.keys() == set()
    assert len(found) > 90


def test_every_explanation_is_a_sentence() -> None:
    for of in (*REASONS.values(), FILES):
        for reason, says in of.items():
            assert says[0].isupper(), reason
            assert says.endswith("."), reason
            assert len(says) < 120, reason
