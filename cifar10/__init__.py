"""TensorFlow's CIFAR-10 tutorial, graph and session, for today's TensorFlow.

Importing the package or any of its modules registers no flag and switches
nothing in TensorFlow: everything is built inside an explicit `tf.Graph()`.
"""


class UserError(Exception):
  """Something the person running the program can mend.

  Its text is one complete message: the file or flag, what was found and what
  was expected. The programs print it without a traceback and exit with 1.
  """
