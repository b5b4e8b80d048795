"""What the programs share: flags, and how they end.

Flags are defined by the functions here when a program starts, never at import.
"""

import contextlib
import dataclasses
import datetime
import signal
import sys
import threading

from absl import app
from absl import flags
import tensorflow.compat.v1 as tf

from cifar10 import recipe
from cifar10 import run as run_lib
from cifar10 import UserError
from cifar10.run import Run

FLAGS = flags.FLAGS


def run(main):
  """Parses the flags, calls main(), and exits.

  What the user can mend ends with one message and exit code 1, no traceback.

  Args:
    main: function without arguments.
  """
  def main_with_messages(argv):
    tf.logging.set_verbosity(tf.logging.ERROR)  # absl sets INFO.
    try:
      if argv[1:]:
        raise UserError(f'unexpected argument {argv[1]!r}: flags are written '
                        '--name=value')
      main()
    except UserError as e:
      print(f'error: {e}', file=sys.stderr)
      sys.exit(1)
    except KeyboardInterrupt:
      sys.exit(128 + signal.SIGINT)
  for flag in FLAGS.flags_by_module_dict().get(__name__, ()):
    FLAGS.register_key_flag_for_module(sys.argv[0], flag)  # For --help.
  app.run(main_with_messages)


def define_data_flags(datasets):
  """Defines the flags that say where the data is."""
  flags.DEFINE_string('data_dir', Run.data_dir,
                      'Directory of the data; it is downloaded to there.')
  flags.DEFINE_enum('dataset', Run.dataset, list(datasets),
                    'The data; synthetic is made up, to try things with.')
  flags.DEFINE_multi_string(
      'data_url', [], 'Where to download an archive of the data from (also '
      'file://), instead of the known places; may be repeated.')


def define_network_flags(networks):
  """Defines the flags that say what to train."""
  flags.DEFINE_enum('network', Run.network, list(networks), 'What to train.')
  flags.DEFINE_string('recipe', '', "Changes to the network's recipe, such as "
                      'learning_rate=0.05,epochs=10.')
  flags.DEFINE_integer('batch_size', None, 'Images per tower and step; '
                       "default: the recipe's.", lower_bound=1)
  flags.DEFINE_enum('dtype', Run.dtype, run_lib.DTYPES, 'What the network '
                    'computes in; variables are float32, whichever.')


def define_tower_flag():
  """Defines the flag that says how many towers to train."""
  flags.DEFINE_integer('num_gpus', 1, 'How many towers to train. Those that '
                       'find no GPU of their own share one, or the CPU.',
                       lower_bound=1)


def define_training_flags(datasets, networks):
  """Defines the flags of the training programs."""
  define_data_flags(datasets)
  flags.DEFINE_string('train_dir', Run.train_dir,
                      'Directory of checkpoints and event files; a run that '
                      'it holds is resumed.')
  flags.DEFINE_bool('fresh', False,
                    'Start over: an existing train_dir is moved aside.')
  define_network_flags(networks)
  flags.DEFINE_integer('max_steps', None, 'Step to stop at, counted from the '
                       "first start; default: the recipe's epochs.",
                       lower_bound=1)
  flags.DEFINE_integer('holdout', Run.holdout, 'Records, the last, to leave '
                       'out of the training, for eval --eval_data=holdout.',
                       lower_bound=0)
  flags.DEFINE_integer('seed', Run.seed, 'Of initial weights, the order of the '
                       'images and their distortions.', lower_bound=0,
                       upper_bound=2**31 - 1)
  flags.DEFINE_enum('input', Run.input, ['tfdata', 'queue'],
                    "queue: the tutorial's prefetch queues; a resumed run then "
                    'sees other images than an uninterrupted one.')
  flags.DEFINE_float('min_fraction_of_examples_in_queue',
                     Run.min_fraction_of_examples_in_queue,
                     'How much of an epoch --input=queue holds ready at least.',
                     lower_bound=0, upper_bound=1)
  flags.DEFINE_integer('checkpoint_steps', Run.checkpoint_steps,
                       'Steps from one checkpoint to the next.', lower_bound=1)
  flags.DEFINE_integer('summary_steps', Run.summary_steps,
                       'Steps from one summary to the next.', lower_bound=1)
  flags.DEFINE_integer('log_frequency', Run.log_frequency,
                       'Steps from one line of text to the next.',
                       lower_bound=1)
  flags.DEFINE_integer('keep_checkpoints', Run.keep_checkpoints,
                       'How many of the newest checkpoints to keep.',
                       lower_bound=1)
  flags.DEFINE_bool('log_device_placement', False,
                    'Log which device each operation runs on.')
  flags.DEFINE_bool('eval_at_end', False,
                    'Print the precision on the test records, or those held '
                    'out, at the end.')


def run_from_flags(network):
  """Returns the `Run` that the flags describe, of the `network` they name."""
  values = {field.name: FLAGS[field.name].value
            for field in dataclasses.fields(Run) if field.name in FLAGS}
  return Run(**{**values, 'recipe': recipe.override(network.RECIPE,
                                                    FLAGS.recipe)})


@contextlib.contextmanager
def received_signals():
  """Yields a list that takes in the first SIGINT and SIGTERM, which would
  otherwise end the process."""
  received, before = [], {}

  def receive(number, _):
    received.append(number)
    signal.signal(number, before[number])

  if threading.current_thread() is threading.main_thread():
    for number in signal.SIGINT, signal.SIGTERM:
      before[number] = signal.signal(number, receive)
  try:
    yield received
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def timestamp():
  """Returns the time of day as the tutorial's programs print it."""
  return datetime.datetime.now().isoformat(' ', 'microseconds')


def duration(seconds):
  """Returns '42s', '8m 05s' or '3h 07m'."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours}h {minutes:02}m'
  return f'{minutes}m {seconds:02}s' if minutes else f'{seconds}s'
