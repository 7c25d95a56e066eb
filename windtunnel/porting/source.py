"""A Python file as tree and bytes: where a node lies, what stands around it, which module a name means."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from windtunnel.porting.finding import Edit


class Source:
    """One parsed file. Raises SyntaxError or ValueError where it is no Python."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.data = text.encode()
        self.tree = ast.parse(text)
        self._starts = _line_starts(self.data)
        self._parents = {
            child: parent for parent in ast.walk(self.tree) for child in ast.iter_child_nodes(parent)
        }
        self._modules = dict(_imported(self.tree))

    def parent(self, node: ast.AST) -> ast.AST | None:
        """The node around this one."""
        return self._parents.get(node)

    def dotted(self, node: ast.AST) -> str:
        """The full name of ``a.b.c`` after the imports of the file, as ``torch.cuda.Stream``; empty for others."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self._modules:
            return ""
        return ".".join([self._modules[node.id], *reversed(parts)])

    def local_name(self, module: str) -> str:
        """What the file calls ``module``; empty where it is not imported by itself."""
        return next((name for name, full in self._modules.items() if full == module), "")

    def assigns(self, name: str) -> bool:
        """Whether a line of the file's top level gives ``name`` a value."""
        targets = [
            target for node in self.tree.body if isinstance(node, ast.Assign) for target in node.targets
        ]
        return any(isinstance(target, ast.Name) and target.id == name for target in targets)

    def span(self, node: ast.expr) -> tuple[int, int]:
        """First and last byte of a node."""
        end_line, end_column = node.end_lineno or node.lineno, node.end_col_offset or 0
        return self._starts[node.lineno - 1] + node.col_offset, self._starts[end_line - 1] + end_column

    def words(self, node: ast.expr) -> str:
        """The text of a node."""
        start, end = self.span(node)
        return self.data[start:end].decode()

    def replaced(self, node: ast.expr, text: str, *, needs_name: bool = False) -> Edit:
        """The edit that puts ``text`` in the place of ``node``."""
        return Edit(*self.span(node), text, needs_name)

    def after_imports(self) -> int:
        """The byte at the start of the line after the leading imports, docstring included."""
        last = 0
        for node in self.tree.body:
            if not _leading(node):
                break
            last = node.end_lineno or last
        return self._starts[last] if last < len(self._starts) else len(self.data)


def _leading(node: ast.stmt) -> bool:
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    return isinstance(node, ast.Try) and all(_leading(inner) for inner in node.body)


def _line_starts(data: bytes) -> list[int]:
    starts = [0]
    for line in data.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return starts


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Local names and what they stand for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    yield alias.asname, alias.name
                else:
                    root = alias.name.partition(".")[0]
                    yield root, root
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"
