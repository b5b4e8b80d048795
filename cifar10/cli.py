"""Flags, and how programs start and end.

A flag is a field of a dataclass, which has its type, default, bounds and
description. Flags are defined when a program starts, never at import.
"""

import dataclasses
import os
import signal
import sys
from typing import Optional

from absl import app
from absl import flags
import tensorflow.compat.v1 as tf

from cifar10 import networks
from cifar10 import recipe
from cifar10.data import verification
from cifar10.runs import description
from cifar10.runs.description import Options
from cifar10.util import console
from cifar10.util import fields
from cifar10.util import filesystem
from cifar10.util.errors import UserError
from cifar10.util.fields import field

FLAGS = flags.FLAGS


def run(main, with_arguments=False):
  """Parses the flags, calls main(), and exits.

  A `UserError` ends the program with one message and exit code 1, without a
  traceback.

  Args:
    main: function without arguments, or...
    with_arguments: ...of the list of arguments that are not flags.
  """
  def main_with_messages(argv):
    tf.logging.set_verbosity(tf.logging.ERROR)  # absl sets INFO.
    verification.explain_bus_errors()  # absl sets another handler.
    if FLAGS.version:
      print(*(f'{name} {version}'
              for name, version in description.versions().items()), sep=', ')
      return
    try:
      if argv[1:] and not with_arguments:
        raise UserError(f'unexpected argument {argv[1]!r}: flags are written '
                        '--name=value')
      with filesystem.explained('input or output'):
        if with_arguments:
          main(argv[1:])
        else:
          main()
    except UserError as e:
      _fail(e)
    except KeyboardInterrupt:
      sys.exit(128 + signal.SIGINT)
    if not console.is_complete():
      sys.exit(1)

  console.raise_signals()
  console.prepare_streams()
  flags.DEFINE_bool('version', False, 'Print the versions of this package and '
                    'of what it runs on, and end.', module_name=sys.argv[0])
  app.run(main_with_messages, flags_parser=_parse_flags)


def _parse_flags(arguments):
  try:
    return FLAGS(arguments)
  except flags.Error as e:
    return _fail(f'{str(e).removeprefix("flag ")} (--help lists the flags)')


def restart():
  """Starts this program once more, in place of this process, not --fresh."""
  arguments = [a for a in sys.orig_argv[1:] if a != '--nofresh']
  os.execv(sys.executable, [sys.executable, *arguments, '--nofresh'])


def _fail(message):
  print(f'error: {message}', file=sys.stderr)
  sys.exit(1)


class _Parser(flags.ArgumentParser):
  """Parses the value of a dataclass field, and checks it."""

  def __init__(self, declared):
    self._declared = declared

  def parse(self, argument):
    value = argument
    if isinstance(argument, str):
      value = fields.parse(self._declared, argument)
    if wanted := fields.expected(self._declared, value):
      raise ValueError(f'expected {wanted}')
    return value

  def flag_type(self):
    return fields.kind(self._declared).__name__


def define(dataclass, *names):
  """Defines flags for the fields of a dataclass that have a description.

  Args:
    dataclass: the class.
    *names: the fields; without any, all of them.
  """
  for declared in dataclasses.fields(dataclass):
    text, choices = (declared.metadata.get(key) for key in ('help', 'choices'))
    if not text or names and declared.name not in names:
      continue
    if choices:
      text = f"{text} One of: {', '.join(choices)}."
    # --help of a program lists the flags of the module that was started.
    arguments = {'name': declared.name, 'default': declared.default,
                 'help': text, 'module_name': sys.argv[0]}
    kind = fields.kind(declared)
    if kind is bool:
      flags.DEFINE_bool(**arguments)
    elif kind is tuple:
      flags.DEFINE_multi_string(**arguments)
    else:
      flags.DEFINE(_Parser(declared), **arguments)


def values_of(dataclass):
  """Returns the values of the flags that are fields of a dataclass, by name."""
  return {declared.name: FLAGS[declared.name].value
          for declared in dataclasses.fields(dataclass)
          if declared.name in FLAGS}


@dataclasses.dataclass(frozen=True)
class TrainingFlags:
  """Flags of the training programs beside `Options`."""
  recipe: str = field('', help="Changes to the network's hyperparameters, such "
                      'as learning_rate=0.05,epochs=10.')
  batch_size: Optional[int] = field(
      None, minimum=1, help='Images per tower and step. Default: the '
      "recipe's.")
  num_gpus: int = field(
      1, minimum=1, help='Number of towers, on each host of a cluster. Towers '
      'without a GPU of their own share one, or the CPU.')
  fresh: bool = field(False, help='Start over: move the files of a run in '
                      'train_dir into a directory inside it.')
  list_networks: bool = field(False, help='List the networks with their sizes, '
                              'recipes and results, and end.')
  eval_at_end: bool = field(
      False, help='At the end, print the precision on the test records, or on '
      'the held-out records if there are any.')
  tta: bool = field(False, help='With eval_at_end: also print the precision '
                    'with test-time augmentation, see eval.')


def options_from_flags():
  """Returns the `Options` of a training that the flags describe.

  Raises:
    UserError: flags contradict each other, or a value is invalid.
  """
  if 'tta' in FLAGS and FLAGS.tta and not FLAGS.eval_at_end:
    raise UserError('--tta: is for the evaluation at the end: add '
                    '--eval_at_end')
  published = networks.find(FLAGS.network).RECIPE
  changed = recipe.override(published, FLAGS.recipe)
  if batch_size := FLAGS.batch_size:
    if changed.batch_size not in (batch_size, published.batch_size):
      raise UserError(f'--batch_size={batch_size}: the recipe says '
                      f'batch_size={changed.batch_size}. Give one of them')
    changed = dataclasses.replace(changed, batch_size=batch_size)
  return Options(**{**values_of(Options), 'recipe': changed})
