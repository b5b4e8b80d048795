"""What the process of a `conftest.Program` does.

By itself, as the process imports this module, and nothing else of the tests.
"""

import os
import runpy
import sys


def run_main(name, arguments, environment, out, err):
  """Does what `python -m cifar10.NAME ARGUMENTS... >OUT 2>ERR` does, or of what
  is no name, `python -c`."""
  os.environ.update(environment)
  for path, stream in (out, sys.stdout), (err, sys.stderr):
    os.dup2(os.open(path, os.O_WRONLY), stream.fileno())
  sys.argv = [name, *arguments]
  sys.orig_argv = [sys.executable, '-u', '-m', f'cifar10.{name}', *arguments]
  if name.isidentifier():
    runpy.run_module(f'cifar10.{name}', run_name='__main__', alter_sys=True)
  else:
    exec(name, {'__name__': '__main__'})
