# SPDX-License-Identifier: GPL-2.0-only
"""The same code, with a step before each line and a note of what it touches.

    before                              after
    self._notified = True               __step__()
                                        __set__(self, '_notified')._notified = True
    while ticket != self._head:         while __step__() or ticket != __get__(self, '_head'):

    __step__()          a step; returns None
    __get__(x, name)    x.name, and notes that it was read
    __set__(x, name)    x, and notes that its attribute will change
    __items__(x)        x, and notes that its content is read, if it is a container
    __change__(x)       x, and notes that its content changes
    __var__(name, x)    x, and notes that this variable was read; one that functions share
    __assign__(name)    notes that it changes; returns None

R1  Whatever the code does otherwise stays the same; so do the line numbers of its tracebacks.
R2  A line that touches only its function's own variables is no step.
R3  A line is one step: between its parts nobody comes in, unless it calls something that has
    steps of its own.
"""

from __future__ import annotations

import ast
from typing import Any

READING_CALLS = (
    "len", "list", "tuple", "dict", "set", "sorted", "sum", "any", "all", "min", "max", "iter",
    "next", "enumerate", "zip", "bool", "repr",
)  # fmt: skip
CHANGING_CALLS = ("heappush", "heappop", "heapify")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
QUIET = (*FUNCTIONS, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal,
         ast.Pass, ast.Break, ast.Continue, ast.Try)  # fmt: skip


def rewritten(tree: ast.Module, module: str, steps: bool) -> ast.Module:
    """Returns the tree of a module, rewritten.

    steps  False: only note what is touched
    """
    shared = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Global | ast.Nonlocal)
        for name in node.names
    }
    made = _Rewriter(module, shared, steps).visit(tree)
    assert isinstance(made, ast.Module)
    return ast.fix_missing_locations(made)


def _call(name: str, *args: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), list(args), [])


def _touches(node: ast.stmt) -> bool:
    """Whether the head of a statement touches what others may see (R2)."""
    parts: list[ast.AST] = [node]
    if isinstance(node, ast.If | ast.While):
        parts = [node.test]
    elif isinstance(node, ast.For | ast.AsyncFor):
        parts = [node.iter]
    elif isinstance(node, ast.With | ast.AsyncWith):
        parts = list(node.items)
    kinds = (ast.Attribute, ast.Subscript, ast.Call, ast.Await, ast.Yield, ast.Compare, ast.Delete)
    return any(isinstance(each, kinds) for part in parts for each in ast.walk(part)) or (
        isinstance(node, ast.If | ast.While)
    )


class _Rewriter(ast.NodeTransformer):
    def __init__(self, module: str, shared: set[str], steps: bool) -> None:
        self.module = module
        self.shared = shared
        self.steps = steps
        self.depth = 0  # of functions

    # -- statements

    def _function(self, node: Any) -> Any:
        self.depth += 1
        body = node.body
        is_text = isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
        head, rest = (body[:1], body[1:]) if is_text else ([], body)
        node.body = head + self._block(rest)
        if not node.body:
            node.body = [ast.Pass()]
        self.depth -= 1
        return node

    visit_FunctionDef = _function
    visit_AsyncFunctionDef = _function

    def _block(self, body: list[ast.stmt]) -> list[ast.stmt]:
        made: list[ast.stmt] = []
        for statement in body:
            is_step = self.steps and not isinstance(statement, QUIET) and _touches(statement)
            variables = self._assigned(statement)
            new = self.visit(statement)
            if is_step and isinstance(new, ast.While):
                new.test = _at(ast.BoolOp(ast.Or(), [_call("__step__"), new.test]), statement)
            elif is_step:
                made.append(_at(ast.Expr(_call("__step__")), statement))
            for name in variables:
                text = ast.Constant(f"{self.module}:{name}")
                made.append(_at(ast.Expr(_call("__assign__", text)), statement))
            made.append(new)
        return made

    def _assigned(self, node: ast.stmt) -> list[str]:
        if not isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Delete):
            return []
        names = [each for each in ast.walk(node) if isinstance(each, ast.Name)]
        return [each.id for each in names
                if each.id in self.shared and not isinstance(each.ctx, ast.Load)]  # fmt: skip

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if not self.depth:
            return super().generic_visit(node)
        for field, old in ast.iter_fields(node):
            if isinstance(old, list) and old and isinstance(old[0], ast.stmt):
                setattr(node, field, self._block(old))
            elif isinstance(old, list):
                old[:] = [self.visit(each) if isinstance(each, ast.AST) else each for each in old]
            elif isinstance(old, ast.AST):
                setattr(node, field, self.visit(old))
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        if node.value is not None:
            node.value = self.visit(node.value)
        node.target = self.visit(node.target)
        return node

    # -- what is asked for its truth, or gone through

    def _with_test(self, node: Any) -> Any:
        self.generic_visit(node)
        if self.depth:
            node.test = self._items(node.test)
        return node

    visit_If = visit_While = visit_IfExp = visit_Assert = _with_test

    def visit_BoolOp(self, node: ast.BoolOp) -> Any:
        self.generic_visit(node)
        if self.depth:
            node.values = [self._items(value) for value in node.values]
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> Any:
        self.generic_visit(node)
        if self.depth and isinstance(node.op, ast.Not):
            node.operand = self._items(node.operand)
        return node

    def visit_Compare(self, node: ast.Compare) -> Any:
        self.generic_visit(node)
        if self.depth:
            node.comparators = [self._items(each) for each in node.comparators]
            node.left = self._items(node.left)
        return node

    def _with_iter(self, node: Any) -> Any:
        self.generic_visit(node)
        if self.depth:
            node.iter = self._items(node.iter)
        return node

    visit_For = visit_AsyncFor = visit_comprehension = _with_iter

    def visit_Starred(self, node: ast.Starred) -> Any:
        self.generic_visit(node)
        if self.depth and isinstance(node.ctx, ast.Load):
            node.value = self._items(node.value)
        return node

    def _items(self, node: ast.expr) -> Any:
        is_get = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "__get__"
        if is_get or isinstance(node, ast.Name | ast.Subscript):
            return _at(_call("__items__", node), node)
        return node

    # -- what is read and changed

    def visit_Name(self, node: ast.Name) -> Any:
        if self.depth and node.id in self.shared and isinstance(node.ctx, ast.Load):
            return _at(_call("__var__", ast.Constant(f"{self.module}:{node.id}"), node), node)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> Any:
        self.generic_visit(node)
        value = node.value
        is_mangled = node.attr.startswith("__") and not node.attr.endswith("__")
        if not self.depth or is_mangled or (isinstance(value, ast.Call) and _is_super(value)):
            return node
        name = ast.Constant(node.attr)
        if isinstance(node.ctx, ast.Load):
            return _at(_call("__get__", value, name), node)
        node.value = _at(_call("__set__", value, name), node)
        return node

    def visit_Subscript(self, node: ast.Subscript) -> Any:
        self.generic_visit(node)
        if self.depth:
            name = "__items__" if isinstance(node.ctx, ast.Load) else "__change__"
            node.value = _at(_call(name, node.value), node)
        return node

    def visit_Call(self, node: ast.Call) -> Any:
        self.generic_visit(node)
        if self.depth and isinstance(node.func, ast.Name) and node.args:
            if node.func.id in READING_CALLS:
                node.args = [self._items(each) for each in node.args]
            elif node.func.id in CHANGING_CALLS:
                node.args[0] = _at(_call("__change__", node.args[0]), node)
        return node


def _is_super(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Name) and node.func.id == "super"


def _at(new: Any, old: ast.AST) -> Any:
    return ast.copy_location(new, old)
