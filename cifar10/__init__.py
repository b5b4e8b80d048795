"""TensorFlow's CIFAR-10 tutorial, graph and session, for today's TensorFlow.

Importing the package or any of its modules registers no flag and switches
nothing in TensorFlow: everything is built inside an explicit `tf.Graph()`.
"""

import signal
import sys

from cifar10.util.errors import UserError

__all__ = ['UserError']

if sys.argv[:1] == ['-m'] and any(
    argument.startswith('cifar10.') for argument in sys.orig_argv):
  # This is a program, and will import TensorFlow, which takes seconds: until
  # `cli.run()`, Ctrl-C ends it without a traceback.
  if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
