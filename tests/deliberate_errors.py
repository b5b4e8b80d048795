r"""Makes deliberate errors in the package, and sees whether a test fails.

    python -m tests.deliberate_errors --seed=1 --count=50

Draws errors at random over all modules, see `errors_at()`. Each is made in a
copy of the repository, of which the test files nearest to the module are then
run (--files=6 at most, for --seconds=1200 each): its own, those that import it
or run it as a program, those that import what imports it. Of each it prints:

    caught by TEST   that test fails, and does not without the error.
    hangs FILE       the tests of that file do not end: caught, too.
    SURVIVED FILES   none fails: a test is missing, or nobody could notice the
                     error. --only=NUMBER --files=99 runs all test files.

The same seed draws the same errors of the same package: --start=NUMBER goes on.
An error can do to files what nobody has thought of: run this in a container.
"""

import argparse
import ast
import collections
import contextlib
import copy
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAIRS = ((ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq),
         (ast.Is, ast.IsNot), (ast.In, ast.NotIn), (ast.Add, ast.Sub),
         (ast.Mult, ast.Div), (ast.FloorDiv, ast.Mod), (ast.And, ast.Or))
OTHER = {**dict(PAIRS), **{b: a for a, b in PAIRS}}


class Error(collections.namedtuple('Error', 'kind path node new')):
  """A text `new` in place of a `node` of the file at `path`."""

  def __str__(self):
    old = ast.unparse(self.node)
    start = max(len(os.path.commonprefix([old, self.new])) - 20, 0)
    return (f'{self.path}:{self.node.lineno}: {self.kind}: '
            f'{old[start:start + 45]!r} -> {self.new[start:start + 45]!r}')

  def applied(self, content):
    """Returns the content of the file with the error."""
    lines, n = content.splitlines(keepends=True), self.node
    start, end = (len(b''.join(lines[:line - 1])) + column for line, column in (
        (n.lineno, n.col_offset), (n.end_lineno, n.end_col_offset)))
    return content[:start] + self.new.encode() + content[end:]


def walk(node):
  """Yields the nodes of a tree but for docstrings, annotations, and f-strings,
  of which it is not known before Python 3.12 where their parts are."""
  yield node
  for name, value in ast.iter_fields(node):
    for child in value if isinstance(value, list) else [value]:
      match child:
        case ast.Expr(value=ast.Constant()) | ast.JoinedStr():
          pass
        case ast.AST() if name not in ('annotation', 'returns'):
          yield from walk(child)


def errors_at(node):
  """Yields what can be wrong at a node: kind, part of it, what to put there."""
  new = copy.deepcopy(node)
  match new:
    case ast.Compare(ops=[op]) if ast.unparse(node.left) != '__name__':
      new.ops = [OTHER[type(op)]()]
      yield 'comparison', node, ast.unparse(new)
    case ast.BinOp(op=op) | ast.BoolOp(op=op) if type(op) in OTHER:
      new.op = OTHER[type(op)]()
      yield 'operator', node, ast.unparse(new)
    case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
      yield 'negated', node.test, f'not ({ast.unparse(test)})'
    case ast.Constant(value=bool(value) | int(value)):
      yield 'constant', node, str(value + 1 if value is not True else False)
    case ast.Constant(value=str(value)) if re.fullmatch(r'\S+', value):
      yield 'string', node, "'other'"  # What has a space in it is for people.
    case ast.Call(args=args, keywords=keywords):
      for i in range(len(keywords)):
        new.keywords = keywords[:i] + keywords[i + 1:]
        yield 'argument left out', node, ast.unparse(new)
      new.keywords, args[:2] = keywords, args[1::-1]
      if ast.unparse(new) != ast.unparse(node):
        yield 'arguments swapped', node, ast.unparse(new)
    case ast.FunctionDef():
      yield from (('early return', part, 'return') for part in node.body[1:])
    case ast.Expr() | ast.Raise() | ast.AugAssign() | ast.Assign(
        targets=[ast.Attribute() | ast.Subscript()]):
      yield 'left out', node, 'pass'


def draw(seed, count):
  """Returns `count` errors, each kind of them as likely as any other."""
  kinds, rng, drawn = collections.defaultdict(list), random.Random(seed), []
  for path in sorted(ROOT.glob('cifar10/**/*.py')):
    for node in walk(ast.parse(path.read_bytes())):
      for kind, part, new in errors_at(node):
        kinds[kind].append(Error(kind, str(path.relative_to(ROOT)), part, new))
  while len(drawn) < count:
    of_kind = kinds[rng.choice(sorted(kinds))]
    drawn.append(of_kind.pop(rng.randrange(len(of_kind))))
  return drawn


def is_test(path):
  return os.path.basename(path).startswith('test_')


def imports():
  """Returns which files of this repository each imports, or runs."""
  paths = {str(path.relative_to(ROOT)) for folder in ('cifar10', 'tests')
           for path in ROOT.glob(f'{folder}/**/*.py')}
  found = {}
  for path in sorted(paths):
    nodes = list(ast.walk(ast.parse((ROOT / path).read_bytes())))
    names = {name for node in nodes if isinstance(node, ast.ImportFrom)
             for alias in node.names
             for name in (node.module, f'{node.module}.{alias.name}')}
    if is_test(path):
      names |= {f'cifar10.{node.value}' for node in nodes
                if isinstance(node, ast.Constant)}
    found[path] = paths & {name.replace('.', '/') + suffix for name in names
                           for suffix in ('.py', '/__init__.py')}
  return found


def nearest_tests(path, graph):
  """Returns the test files that reach a module, the nearest first."""
  distances, waiting = {path: 0}, [path]
  for reached in waiting:
    found = [importer for importer in graph if reached in graph[importer]
             and importer not in distances]
    distances.update(dict.fromkeys(found, distances[reached] + 1))
    waiting += found
  own = {f'test_{part}.py' for part in pathlib.Path(path[:-3]).parts}
  return sorted(filter(is_test, distances), key=lambda test: (
      os.path.basename(test) not in own, distances[test], len(graph[test]),
      test))


def failure(directory, test, seconds):
  """Runs tests in a directory; returns which failed, '' if none did."""
  # A file changed twice in a second looks like what was compiled of it first.
  env = {**os.environ, 'PYTHONPATH': directory, 'PYTHONDONTWRITEBYTECODE': '1'}
  with subprocess.Popen(
      [sys.executable, '-m', 'pytest', '-x', '-n', '0', '-p',
       'no:cacheprovider', test],
      cwd=directory, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
      start_new_session=True, text=True, errors='replace') as process:
    try:
      out, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
      return f'hangs {test}'
    finally:
      with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # With the programs it started.
  found = re.search(r'^(?:FAILED|ERROR) (.*?)(?: - .*)?$', out, re.MULTILINE)
  return f'caught by {found[1] if found else test}' * (process.returncode != 0)


def result(error, tests, seconds):
  """Makes an error in a copy of the repository; returns what comes of it."""
  with tempfile.TemporaryDirectory() as directory:
    shutil.copytree(ROOT, directory, dirs_exist_ok=True,
                    ignore=shutil.ignore_patterns('.*', '__pycache__'))
    path = pathlib.Path(directory, error.path)
    content = path.read_bytes()
    for test in tests:
      path.write_bytes(error.applied(content))
      found = failure(directory, test, seconds)
      path.write_bytes(content)
      if found.startswith('hangs') or found and not failure(
          directory, found.removeprefix('caught by '), seconds):
        return found
  return ' '.join(['SURVIVED', *tests])


def main():
  parser, results = argparse.ArgumentParser(), collections.Counter()
  for name, default in (('seed', 1), ('count', 50), ('start', 1), ('only', 0),
                        ('files', 6), ('seconds', 1200)):
    parser.add_argument(f'--{name}', type=int, default=default)
  options, graph = parser.parse_args(), imports()
  for number, error in enumerate(draw(options.seed, options.count), 1):
    if number >= options.start and options.only in (0, number):
      print(f'{number:3} {error}:', end=' ', flush=True)
      found = result(error, nearest_tests(error.path, graph)[:options.files],
                     options.seconds)
      print(found, flush=True)
      results[found.split()[0]] += 1
  print(', '.join(f'{count} {word}' for word, count in results.items()))


if __name__ == '__main__':
  main()
