"""How the package is laid out: what imports what, and how long it is."""

import ast
import pathlib

import pytest

import cifar10

PACKAGE = pathlib.Path(cifar10.__file__).parent
READING_PATH = ('train', 'inputs', 'model', 'runs.loop', 'multi_gpu_train',
                'eval')
# The floors of the house. A module imports from lower floors, and from its own
# folder; of rooms on the same floor, only programs import others.
FLOORS = (('util',), ('data', 'nn', 'cluster'), ('recipe',),
          ('inputs', 'model'), ('networks',), ('runs',), ('cli',),
          ('train', 'multi_gpu_train', 'eval', 'predict', 'export', 'dataset'),
          ('measurements',), ('benchmark',))
AMONG_PROGRAMS = {'train': {'eval'}, 'multi_gpu_train': {'eval'}}
PATHS = {'.'.join(path.relative_to(PACKAGE).with_suffix('').parts
                  ).removesuffix('.__init__'): path
         for path in PACKAGE.glob('**/*.py') if path != PACKAGE / '__init__.py'}


def imports_of(name):
  """Returns the modules that a module imports, anywhere in its text."""
  found = set()
  for node in ast.walk(ast.parse(PATHS[name].read_text())):
    assert not (isinstance(node, ast.Import) and any(
        alias.name.startswith('cifar10') for alias in node.names)), name
    if isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{name}: relative import'
      package, _, module = node.module.partition('.')
      if package == 'cifar10':
        for alias in node.names:
          if alias.name == '__version__':
            continue
          inner = f'{module}.{alias.name}'.lstrip('.')
          found.add(inner if inner in PATHS else module)
  return found


GRAPH = {name: imports_of(name) for name in PATHS}


def room(name):
  return name.partition('.')[0]


def floor(name):
  number, = (i for i, rooms in enumerate(FLOORS) if room(name) in rooms)
  return number


def test_imports_go_down_only():
  for name, imported in GRAPH.items():
    for other in imported:
      if room(other) in AMONG_PROGRAMS.get(name, ()):
        continue
      assert floor(other) < floor(name) or room(other) == room(name), (
          f'{name} imports {other}')


def test_there_are_no_circles():
  """Importing one module after the other, each after what it imports."""
  waiting, done = {**GRAPH}, set()
  while waiting:
    free = {name for name, imported in waiting.items() if imported <= done}
    assert free, f'a circle is among {sorted(waiting)}'
    done |= free
    for name in free:
      del waiting[name]


@pytest.mark.parametrize('name', PATHS)
def test_a_module_has_at_most_300_lines(name):
  assert len(PATHS[name].read_text().splitlines()) <= 300


def test_the_reading_path_is_as_long_as_the_tutorial():
  lines = {name: len(PATHS[name].read_text().splitlines())
           for name in READING_PATH}
  assert sum(lines.values()) <= 1350, lines


def test_prediction_loads_no_more_than_it_needs(run_program):
  script = '''
import sys
import cifar10.export
import cifar10.predict
print(*sys.modules)
'''
  code, out, err = run_program(script)
  assert code == 0, err
  loaded = out.split()
  assert 'cifar10.runs.trained' in loaded
  for name in ('cluster.processes', 'cluster.tf_config', 'data.download',
               'data.importers', 'runs.loop', 'multi_gpu_train'):
    assert f'cifar10.{name}' not in loaded
    assert name in PATHS
