"""Mutations of one named function: replace its body, drop a call, decide a condition, reorder two statements.

Functions, callees and identifiers are found by name in the syntax tree: moved or reformatted lines change nothing, and
a missing name is an error naming the place to correct.
"""
# ruff: noqa: INP001  part of a script: see mutants.py

import ast
from dataclasses import dataclass
from typing import Protocol, TypeVar

T = TypeVar("T")
Function = ast.FunctionDef | ast.AsyncFunctionDef


class MutationError(Exception):
    """The source has no place for a mutation: a function was renamed, removed or rewritten."""


class Mutation(Protocol):
    """A change of one function's syntax tree, in place."""

    def apply(self, function: Function) -> None:
        """Change the function.

        Raises:
            MutationError: the function has no place for the change, or several.
        """
        ...


@dataclass(frozen=True)
class ReplaceBody:
    """Replace the whole body by one statement, for example `pass` or `return 0`."""

    statement: str

    def apply(self, function: Function) -> None:
        """Replace the body of the function."""
        (replacement,) = ast.parse(f"def _():\n    {self.statement}").body
        assert isinstance(replacement, ast.FunctionDef)
        function.body = replacement.body


@dataclass(frozen=True)
class DropCall:
    """Evaluate to None instead of calling `callee`, a function or a method."""

    callee: str

    def apply(self, function: Function) -> None:
        """Replace the only call of `callee` by None."""
        calls = [node for node in ast.walk(function) if _is_call(node, self.callee)]
        _replace_node(function, _single(calls, f"call of {self.callee}", function), ast.Constant(None))


@dataclass(frozen=True)
class Decide:
    """Give a constant value to the comparison or condition that reads `identifier`, a name or an attribute."""

    identifier: str
    value: bool

    def apply(self, function: Function) -> None:
        """Replace the only condition by the value."""
        comparisons: list[ast.expr] = [node for node in ast.walk(function) if isinstance(node, ast.Compare)]
        conditions = [node.test for node in ast.walk(function) if isinstance(node, ast.If)]
        readers = self._select_readers(comparisons) or self._select_readers(conditions)
        condition = _single(readers, f"condition that reads {self.identifier}", function)
        _replace_node(function, condition, ast.Constant(self.value))

    def _select_readers(self, tests: list[ast.expr]) -> list[ast.expr]:
        return [test for test in tests if any(_identifier(node) == self.identifier for node in ast.walk(test))]


@dataclass(frozen=True)
class MoveBefore:
    """Move the statement calling `callee` before the statement of the same block calling `other`."""

    callee: str
    other: str

    def apply(self, function: Function) -> None:
        """Move the statement within the block."""
        blocks: list[list[ast.stmt]] = [
            node.body
            for node in ast.walk(function)
            if isinstance(node, (ast.If, ast.For, ast.While, ast.With, ast.Try))
        ]
        blocks.append(function.body)
        pairs = [
            (block, moved, anchor)
            for block in blocks
            for moved in block
            for anchor in block
            if _calls(moved, self.callee) and _calls(anchor, self.other)
        ]
        block, moved, anchor = _single(pairs, f"block that calls {self.other} and {self.callee}", function)
        block.remove(moved)
        block.insert(block.index(anchor), moved)


def mutate_function(source: str, qualname: str, mutation: Mutation) -> str:
    """Return the source with one function changed; comments are lost.

    Args:
        source: of a module.
        qualname: `function` or `Class.method`.
        mutation: to apply.

    Raises:
        MutationError: the module has no such function, or the function no place for the mutation.
    """
    tree = ast.parse(source)
    mutation.apply(find_function(tree, qualname))
    return ast.unparse(ast.fix_missing_locations(tree)) + "\n"


def find_function(tree: ast.Module, qualname: str) -> Function:
    """Return the definition of `function` or `Class.method`.

    Raises:
        MutationError: the module has no such function.
    """
    body: list[ast.stmt] = tree.body
    *classes, name = qualname.split(".")
    for part in classes:
        body = next((node.body for node in body if isinstance(node, ast.ClassDef) and node.name == part), [])
    for node in body:
        if isinstance(node, Function) and node.name == name:
            return node
    raise MutationError(f"no function {qualname}: it was renamed, moved or removed")


def _single(found: list[T], description: str, function: Function) -> T:
    if len(found) != 1:
        raise MutationError(f"{function.name} has {len(found)} times a {description}; expected once")
    return found[0]


def _identifier(node: ast.AST) -> str:
    """Return the name that a node reads, or an empty string."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _is_call(node: ast.AST, callee: str) -> bool:
    return isinstance(node, ast.Call) and _identifier(node.func) == callee


def _calls(statement: ast.stmt, callee: str) -> bool:
    return isinstance(statement, ast.Expr) and _is_call(statement.value, callee)


def _replace_node(function: Function, old: ast.AST, new: ast.expr) -> None:
    class Replacer(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST:
            return new if node is old else self.generic_visit(node)

    Replacer().visit(function)
