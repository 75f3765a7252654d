"""All small changes of a module's source that a test should notice: one Mutant each."""

from __future__ import annotations

import ast
import copy
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
}  # fmt: skip
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}  # fmt: skip
CALLS = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list", "reversed": "list"}


@dataclass(frozen=True)
class Mutant:
    """One change. place: the function it is in; `text` says what was changed into what."""

    line: int
    place: str
    text: str
    source: Callable[[], str] = field(compare=False)


def mutants(source: str) -> Iterator[Mutant]:
    """Every mutant of a module, in the order of its source."""
    tree = ast.parse(source)
    for number, (node, place) in enumerate(_places(tree)):
        for before, after, change in _changes(node):
            make = functools.partial(_changed, tree, number, change)
            yield Mutant(getattr(node, "lineno", 0), place, f"{before} → {after}", make)


def _changed(tree: ast.Module, number: int, change: _Change) -> str:
    copied = copy.deepcopy(tree)
    change(next(node for at, (node, _) in enumerate(_places(copied)) if at == number))
    return ast.unparse(ast.fix_missing_locations(copied))


def _places(tree: ast.AST, place: str = "") -> Iterator[tuple[ast.AST, str]]:
    """All nodes but type annotations and messages for people, and the name of the function each is in."""
    for child in ast.iter_child_nodes(tree):
        inner = place
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            inner = f"{place}.{child.name}".lstrip(".")
        if isinstance(child, ast.arg | ast.JoinedStr) or (
            isinstance(child, ast.AnnAssign) and not isinstance(child.target, ast.Name)
        ):
            continue
        if child is getattr(tree, "returns", None) or child is getattr(tree, "annotation", None):
            continue
        yield child, inner
        yield from _places(child, inner)


def _changes(node: ast.AST) -> Iterator[tuple[str, str, _Change]]:
    match node:
        case ast.If(test=test) | ast.IfExp(test=test):
            yield f"if {_text(test)}", "if True", _Set("test", ast.Constant(True))
            yield f"if {_text(test)}", "if False", _Set("test", ast.Constant(False))
        case ast.Compare(ops=ops):
            for at, op in enumerate(ops):
                for other in COMPARISONS[type(op)]:
                    new = copy.deepcopy(node)
                    new.ops[at] = other()
                    yield _text(node), _text(new), _Item("ops", at, other())
        case ast.BoolOp(op=op, values=values):
            swapped: ast.boolop = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield _text(node), _text(ast.BoolOp(swapped, values)), _Set("op", swapped)
            for at, value in enumerate(values):
                yield _text(node), f"… without {_text(value)}", _Drop("values", at)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield _text(node), _text(operand), _Set("operand", _negated(operand))
        case ast.BinOp(op=op) if type(op) in OPERATORS:
            new_op = OPERATORS[type(op)]()
            yield _text(node), _text(ast.BinOp(node.left, new_op, node.right)), _Set("op", new_op)
        case ast.AugAssign(op=op) if type(op) in OPERATORS:
            new_op = OPERATORS[type(op)]()
            yield _text(node), _text(ast.AugAssign(node.target, new_op, node.value)), _Set("op", new_op)
        case ast.Constant(value=bool(value)):
            yield _text(node), str(not value), _Set("value", not value)
        case ast.Constant(value=int(value)):
            yield _text(node), str(value + 1), _Set("value", value + 1)
            yield _text(node), str(value - 1), _Set("value", value - 1)
        case ast.Call(func=ast.Name(id=name)) if name in CALLS:
            yield f"{name}({_text(node)[len(name) + 1 :]}", CALLS[name], _Set("func", ast.Name(CALLS[name], ast.Load()))
        case ast.Raise(exc=ast.Call(args=[ast.Constant(value=str(code)), *_])):
            yield code, "another code", _Code()
        case ast.Expr(value=ast.Call()) | ast.Assign(targets=[ast.Attribute() | ast.Subscript(), *_]):
            yield _text(node), "nothing", _Nothing()
        case ast.Delete() | ast.Continue() | ast.Break():
            yield _text(node), "nothing", _Nothing()


class _Change:
    """What is done to a node of the copied tree."""

    def __call__(self, node: ast.AST) -> None:
        raise NotImplementedError


@dataclass
class _Set(_Change):
    field: str
    value: object

    def __call__(self, node: ast.AST) -> None:
        setattr(node, self.field, copy.deepcopy(self.value))


@dataclass
class _Item(_Change):
    field: str
    at: int
    value: object

    def __call__(self, node: ast.AST) -> None:
        getattr(node, self.field)[self.at] = self.value


@dataclass
class _Drop(_Change):
    field: str
    at: int

    def __call__(self, node: ast.AST) -> None:
        del getattr(node, self.field)[self.at]


class _Code(_Change):
    def __call__(self, node: ast.AST) -> None:
        assert isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
        code = node.exc.args[0]
        assert isinstance(code, ast.Constant)
        code.value = "length" if code.value != "length" else "field"


class _Nothing(_Change):
    """The statement stays in its place and does nothing."""

    def __call__(self, node: ast.AST) -> None:
        node.__class__ = ast.Pass
        for name in vars(node).keys() - {"lineno", "col_offset", "end_lineno", "end_col_offset"}:
            delattr(node, name)


def _negated(operand: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), copy.deepcopy(operand))


def _text(node: ast.AST) -> str:
    """The code, shortened for a table."""
    text = " ".join(ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).split())
    return text if len(text) <= 110 else text[:107] + "…"
