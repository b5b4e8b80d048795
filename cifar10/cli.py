"""What the programs share: flags, and how they end.

Flags are defined by the functions here when a program starts, never at import.
"""

import dataclasses
import math
import signal
import sys

from absl import app
from absl import flags
import tensorflow.compat.v1 as tf

from cifar10 import recipe
from cifar10.runs.description import DTYPES
from cifar10.runs.description import Run
from cifar10.util import console
from cifar10.util.errors import look_up
from cifar10.util.errors import UserError
from cifar10.util import fields
from cifar10.util import filesystem

FLAGS = flags.FLAGS


def run(main, with_arguments=False):
  """Parses the flags, calls main(), and exits.

  What the user can mend ends with one message and exit code 1, no traceback.

  Args:
    main: function without arguments, or...
    with_arguments: ...that takes the list of those that are no flags.
  """
  def main_with_messages(argv):
    tf.logging.set_verbosity(tf.logging.ERROR)  # absl sets INFO.
    try:
      if argv[1:] and not with_arguments:
        raise UserError(f'unexpected argument {argv[1]!r}: flags are written '
                        '--name=value')
      for name in FLAGS:
        _check_flag(FLAGS[name])
      with filesystem.explained('input or output'):
        main(*[argv[1:]] * with_arguments)
    except UserError as e:
      _fail(e)
    except KeyboardInterrupt:
      sys.exit(128 + signal.SIGINT)
    if not console.is_complete():
      sys.exit(1)

  console.raise_signals()
  console.prepare_streams()
  for flag in FLAGS.flags_by_module_dict().get(__name__, ()):
    FLAGS.register_key_flag_for_module(sys.argv[0], flag)  # For --help.
  app.run(main_with_messages, flags_parser=_parse_flags)


def _check_flag(flag):
  """Raises UserError for values that flags of their type never take."""
  value, expected = flag.value, None
  if flag.name.endswith('_dir') and flag.present and not value:
    expected = 'a directory'
  elif isinstance(value, float) and not math.isfinite(value):
    expected = 'a finite number'
  elif isinstance(value, str) and not fields.is_utf8(value):
    expected = 'text in UTF-8'
  if expected:
    raise UserError(f'--{flag.name}={value}: expected {expected}')


def _parse_flags(arguments):
  try:
    return FLAGS(arguments)
  except flags.Error as e:
    return _fail(f'{e} (--help lists the flags)')


def _fail(message):
  print(f'error: {message}', file=sys.stderr)
  sys.exit(1)


class _Choice(flags.EnumParser):
  """Takes one of some names, and suggests the nearest to what is none."""

  def parse(self, argument):
    try:
      return look_up(argument, {n: n for n in self.enum_values}, 'choice')
    except UserError as e:
      raise ValueError(str(e)) from None


def define_choice(name, default, choices, text):
  """Defines a flag that takes one of some names."""
  flags.DEFINE(_Choice(list(choices)), name, default,
               f"<{'|'.join(choices)}>: {text}",
               serializer=flags.ArgumentSerializer())


def _define(name, text, choices=None):
  """Defines the flag of a field of `Run`, which itself checks the value."""
  declared, = (f for f in dataclasses.fields(Run) if f.name == name)
  choices = choices or declared.metadata.get('choices')
  if choices:
    define_choice(name, declared.default, choices, text)
  else:
    define = {bool: flags.DEFINE_bool, int: flags.DEFINE_integer,
              float: flags.DEFINE_float, str: flags.DEFINE_string}
    define[fields.kind(declared)](name, declared.default, text)


def define_data_flags(datasets):
  """Defines the flags that say where the data is."""
  _define('data_dir', 'Directory of the data; it is downloaded to there.')
  _define('dataset', 'The data; default: own, where data_dir has such, else '
          'cifar10. synthetic is made up, to try things with.', datasets)
  flags.DEFINE_multi_string(
      'data_url', [], 'Where to download an archive of the data from (also '
      'file://), instead of the known places; may be repeated.')


def define_network_flags(networks):
  """Defines the flags that say what to train."""
  _define('network', 'What to train.', networks)
  flags.DEFINE_string('recipe', '', "Changes to the network's recipe, such as "
                      'learning_rate=0.05,epochs=10.')
  _define('batch_size', "Images per tower and step; default: the recipe's.")
  _define('dtype', 'What the network computes in; variables are float32, '
          'whichever.')


def define_tower_flag():
  """Defines the flag that says how many towers to train."""
  flags.DEFINE_integer('num_gpus', 1, 'How many towers to train; in a cluster, '
                       'on each host. Those that find no GPU of their own '
                       'share one, or the CPU.', lower_bound=1)


def define_training_flags(datasets, networks):
  """Defines the flags of the training programs."""
  define_data_flags(datasets)
  _define('train_dir', 'Directory of checkpoints and event files; a run that '
          'it holds is resumed.')
  flags.DEFINE_bool('fresh', False,
                    'Start over: a run in train_dir is moved into a directory '
                    'inside.')
  define_network_flags(networks)
  _define('init_from', 'Checkpoint, or train_dir of another run, to start '
          'from: from its variables of the same names and shapes.')
  _define('max_steps', 'Step to stop at, counted from the first start; '
          "default: the recipe's epochs.")
  _define('holdout', 'Records, the last, to leave out of the training, for '
          'eval --eval_data=holdout.')
  _define('seed', 'Of initial weights, the order of the images and their '
          'distortions.')
  _define('input', "queue: the tutorial's prefetch queues; a resumed run then "
          'sees other images than an uninterrupted one.')
  _define('min_fraction_of_examples_in_queue',
          'How much of an epoch --input=queue holds ready at least.')
  _define('checkpoint_steps', 'Steps from one checkpoint to the next.')
  _define('summary_steps', 'Steps from one summary to the next.')
  _define('log_frequency', 'Steps from one line of text to the next.')
  _define('keep_checkpoints', 'How many of the newest checkpoints to keep.')
  _define('log_device_placement', 'Log which device each operation runs on.')
  flags.DEFINE_bool('eval_at_end', False,
                    'Print the precision on the test records, or those held '
                    'out, at the end.')
  define_tta_flag()


def define_checkpoint_flags(purpose):
  """Defines the flags of the programs that use a trained network."""
  flags.DEFINE_string('checkpoint_dir', Run.train_dir,
                      f'The train_dir of the run to {purpose}.')
  define_choice('dtype', None, DTYPES, 'What to compute in; default: what the '
                'run was trained in.')


def define_tta_flag():
  """Defines the flag that asks for test-time augmentation."""
  flags.DEFINE_bool('tta', False, 'Test-time augmentation: evaluate the mean '
                    'over the image, its mirror image, and both shifted by a '
                    'pixel; --eval_at_end then prints both figures.')


def define_device_flag():
  """Defines the flag that says where to compute."""
  flags.DEFINE_string('device', None, 'Where to compute, such as /cpu:0; '
                      'default: the GPU, if there is one.')


def run_from_flags(network):
  """Returns the `Run` that the flags describe, of the `network` they name.

  Raises:
    UserError: they describe none that there can be.
  """
  if 'tta' in FLAGS and FLAGS.tta and not FLAGS.eval_at_end:
    raise UserError('--tta: is for the evaluation at the end: add '
                    '--eval_at_end')
  values = {field.name: FLAGS[field.name].value
            for field in dataclasses.fields(Run) if field.name in FLAGS}
  return Run(**{**values, 'recipe': recipe.override(network.RECIPE,
                                                    FLAGS.recipe)})
