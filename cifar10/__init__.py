"""TensorFlow's CIFAR-10 tutorial, graph and session, for today's TensorFlow.

Importing the package or any of its modules registers no flag and switches
nothing in TensorFlow: everything is built inside an explicit `tf.Graph()`.
"""

import difflib
import signal
import sys

if sys.argv[:1] == ['-m'] and any(
    argument.startswith('cifar10.') for argument in sys.orig_argv):
  # This is a program, and will import TensorFlow, which takes seconds: until
  # `cli.run()`, Ctrl-C ends it without a traceback.
  if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class UserError(Exception):
  """Something the person running the program can mend.

  Its text is one complete message: the file or flag, what was found and what
  was expected. The programs print it without a traceback and exit with 1.
  """


def look_up(name, table, what):
  """Returns table[name].

  Args:
    name: a name that the user gave.
    table: dict.
    what: what its names are of, for the message.

  Raises:
    UserError: it has no such name; the message suggests the nearest.
  """
  if name not in table:
    near = difflib.get_close_matches(name, table) or table
    raise UserError(f'there is no {what} {name!r}. Did you mean '
                    + ' or '.join(near) + '?')
  return table[name]
