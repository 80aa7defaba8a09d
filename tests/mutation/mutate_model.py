"""The mutation score of the model: change one thing in it, and see whether anything notices.

    PYTHONPATH=. python tests/mutation/mutate_model.py [MODULE ...] [--workers 2] [--sample N]

Each mutant is one change in a story or in what an event does: a comparison turned, a condition
negated, a number one more, a step left out. It is run in a process of its own and judged by the
digests of tests/data/digests.tsv, and beside that by the checks alone. Run by hand: some minutes.
SURVIVORS.md says of each mutant that is left why that is no hole.
"""

import argparse
import ast
import copy
import importlib.abc
import importlib.machinery
import json
import os
import random
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("rings", "messaging", "mitigation", "long_messages", "multicast")
PATIENCE_S = 40  # a mutant that does not end is noticed too
TURNED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
SWAPPED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Mod: ast.FloorDiv}


def places(tree: ast.Module) -> list[tuple[ast.AST, str]]:
    """Every node in a function that can be changed, with how."""
    found = []
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef) or function.name.startswith("__"):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Compare) and type(node.ops[0]) in TURNED:
                found.append((node, "turn"))
            elif isinstance(node, ast.BoolOp):
                found.append((node, "and/or"))
            elif isinstance(node, ast.BinOp) and type(node.op) in SWAPPED:
                found.append((node, "swap"))
            elif isinstance(node, ast.Constant) and type(node.value) is int:
                found.append((node, "one more"))
            elif isinstance(node, ast.If | ast.While):
                found.append((node, "negate"))
            elif isinstance(node, ast.Return) and isinstance(node.value, ast.Constant):
                if type(node.value.value) is bool:
                    found.append((node, "other answer"))
            if isinstance(node, ast.Expr | ast.Assign | ast.AugAssign | ast.Delete):
                said = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
                if not said:  # a docstring is no step
                    found.append((node, "leave out"))
    unique = {(id(node), how): (node, how) for node, how in found}
    return list(unique.values())


def change(node: ast.AST, how: str) -> None:
    if how == "turn":
        node.ops[0] = TURNED[type(node.ops[0])]()
    elif how == "and/or":
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    elif how == "swap":
        node.op = SWAPPED[type(node.op)]()
    elif how == "one more":
        node.value += 1
    elif how == "negate":
        node.test = ast.UnaryOp(ast.Not(), node.test)
    elif how == "other answer":
        node.value.value = not node.value.value


class LeaveOut(ast.NodeTransformer):
    def __init__(self, target: ast.AST) -> None:
        self.target = target

    def visit(self, node):
        if node is self.target:
            wait = isinstance(node, ast.Expr) and isinstance(node.value, ast.Yield)
            empty = "(yield __import__('popcorn_edu').Delay(0))" if wait else "pass"
            return ast.copy_location(ast.parse(empty).body[0], node)
        return self.generic_visit(node)


def mutant(source: str, number: int) -> tuple[ast.Module, str]:
    """The changed module, and what was changed."""
    tree = ast.parse(source)
    node, how = places(tree)[number]
    before = ast.unparse(node).splitlines()[0]
    told = f"line {node.lineno}: {how}: {before}"
    if how == "leave out":
        tree = LeaveOut(node).visit(tree)
    else:
        change(node, how)
    return ast.fix_missing_locations(tree), told


class Instead(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads one module from a changed tree."""

    def __init__(self, name: str, tree: ast.Module, path: Path) -> None:
        self.name, self.tree, self.path = name, tree, path

    def find_spec(self, name, path=None, target=None):
        if name == self.name:
            return importlib.machinery.ModuleSpec(name, self, origin=str(self.path))
        return None

    def exec_module(self, module):
        module.__file__ = str(self.path)
        exec(compile(self.tree, str(self.path), "exec"), module.__dict__)


def judge(module: str, number: int) -> str:
    """In a process of its own: "digest", "error" or "survived", and whether a check saw it."""
    path = ROOT / "popcorn_edu" / "model" / f"{module}.py"
    tree, _ = mutant(path.read_text(encoding="utf-8"), number)
    sys.meta_path.insert(0, Instead(f"popcorn_edu.model.{module}", tree, path))
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    try:
        import test_digests

        from popcorn_edu import scenarios
        from popcorn_edu.model import flat
        from popcorn_edu.readers import checks

        table, by, seen = test_digests.table(), "survived", False
        coded = ("Popcorn", "generation G1")
        sound = {name for name in table if not name.startswith(coded)}
        with flat.played_by("stories"):
            for name, (scenario, arguments) in test_digests.runs().items():
                if test_digests.digest(name) != table[name]:
                    by = "digest"
                    expected = name in sound and scenario == "fan_in" and "fault" not in arguments
                    if expected and checks.all(scenarios.run(scenario, **arguments)):
                        seen = True
                        break
        return json.dumps([by, seen])
    except BaseException as error:
        return json.dumps(["error", True, f"{type(error).__name__}: {error}"[:100]])


def in_a_process(module: str, number: int) -> list:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        signal.alarm(PATIENCE_S)
        os.write(writer, judge(module, number).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else ["hangs", True]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", default=MODULES)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sample", type=int, help="only so many, drawn at random")
    args = parser.parse_args()
    todo = []
    for module in args.modules:
        source = (ROOT / "popcorn_edu" / "model" / f"{module}.py").read_text(encoding="utf-8")
        count = len(places(ast.parse(copy.copy(source))))
        todo += [(module, n, mutant(source, n)[1]) for n in range(count)]
    if args.sample:
        todo = random.Random(0).sample(todo, min(args.sample, len(todo)))
    with ThreadPoolExecutor(args.workers) as pool:
        answers = list(pool.map(lambda one: in_a_process(*one[:2]), todo))
    left = [one for one, answer in zip(todo, answers, strict=True) if answer[0] == "survived"]
    seen = sum(answer[1] for answer in answers)
    for module, number, told in left:
        print(f"survived: {module}.py #{number} {told}")
    for module in args.modules:
        mine = [a[0] for one, a in zip(todo, answers, strict=True) if one[0] == module]
        if mine:
            killed = len(mine) - mine.count("survived")
            print(
                f"{module}.py: {killed} of {len(mine)} noticed ({100 * killed / len(mine):.0f} %)"
            )
    total = len(todo)
    print(f"all: {total - len(left)} of {total} noticed ({100 * (1 - len(left) / total):.1f} %)")
    print(f"by errors and checks alone: {seen} of {total} ({100 * seen / total:.1f} %)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
