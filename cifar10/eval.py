r"""Evaluates the newest checkpoint of a run, again and again.

    python -m cifar10.eval --checkpoint_dir=/tmp/cifar10_train

Runs beside a training program, on the same machine (`--device=/cpu:0` leaves
the GPUs to it) or on another one that sees its directory, and ends after the
last step's checkpoint. What was trained on what it reads from run.json; a
directory without it, from the 2016 code, holds the tutorial's network.
"""

import sys
import time

from absl import flags

from cifar10 import checkpoints
from cifar10 import cli
from cifar10 import dataset
from cifar10 import evaluation
from cifar10 import filesystem
from cifar10 import model
from cifar10 import run as run_lib
from cifar10 import summaries
from cifar10 import UserError

FLAGS = flags.FLAGS


def evaluate(checkpoint_dir, eval_dir, data_dir=None, eval_data='test',
             num_examples=None, interval_secs=300, run_once=False,
             use_moving_averages=True, device=None, dtype=None):
  """Evaluates the newest checkpoint, each once, until that of the last step.

  Args:
    checkpoint_dir: train_dir of the run.
    eval_dir: where event files go.
    data_dir: where the data is; default: where the run found it.
    eval_data: 'test', 'train_eval' for the records that were trained on, or
      'holdout' for those that were held out from them.
    num_examples: measure only so many.
    interval_secs: seconds from one evaluation to the next; the last step's
      checkpoint does not wait.
    run_once: whether to evaluate one checkpoint only.
    use_moving_averages: whether to use the averages of the variables.
    device: where to compute; None: the GPU, if there is one.
    dtype: what to compute in; None: what the run was trained in.

  Raises:
    SystemExit: SIGINT or SIGTERM came; the exit code is 128 + its number.
    UserError: run_once, and there is no checkpoint; or it cannot be evaluated.
  """
  evaluated, next_time, told = None, 0, False
  with filesystem.explained(eval_dir), summaries.Writer(eval_dir) as writer, \
      cli.received_signals() as signals:
    while not signals:
      checkpoint = checkpoints.newest(checkpoint_dir)
      run = run_lib.load(checkpoint_dir) or _run_of_2016()
      is_last = checkpoint and run.max_steps and (
          checkpoints.step_of(checkpoint) >= run.max_steps)
      # A run started afresh writes other checkpoints of the same names.
      identity = checkpoint and checkpoints.identity(checkpoint)
      is_new = identity not in (None, evaluated)
      if is_new and (is_last or time.time() >= next_time):
        next_time = time.time() + interval_secs
        data = dataset.ensure(run.dataset, data_dir or run.data_dir)
        try:
          result = evaluation.evaluate(checkpoint, run, data, eval_data,
                                       num_examples, use_moving_averages,
                                       device, dtype)
        except evaluation.CheckpointGone:
          next_time = 0
          continue
        evaluation.print_result(result, run, eval_data)
        writer.summary(result.summary, result.step)
        evaluated = identity
        if run_once:
          return
      elif is_last and not is_new:
        return
      elif run_once:
        raise UserError(f'{checkpoint_dir}: there is no checkpoint')
      else:
        if checkpoint is None and not told:
          print(f'No checkpoint in {checkpoint_dir} yet: waiting', flush=True)
          told = True
        time.sleep(1)
  sys.exit(128 + signals[0])


def _run_of_2016():
  return run_lib.Run(dataset='cifar10', recipe=model.RECIPE)


def main():
  evaluate(FLAGS.checkpoint_dir, FLAGS.eval_dir, FLAGS.data_dir,
           FLAGS.eval_data, FLAGS.num_examples, FLAGS.eval_interval_secs,
           FLAGS.run_once, FLAGS.use_moving_averages, FLAGS.device,
           FLAGS.dtype)


if __name__ == '__main__':
  flags.DEFINE_string('checkpoint_dir', run_lib.Run.train_dir,
                      'The train_dir of the run to evaluate.')
  flags.DEFINE_string('eval_dir', '/tmp/cifar10_eval',
                      'Directory of the event files.')
  flags.DEFINE_string('data_dir', None, 'Directory of the data; default: where '
                      'the run found it.')
  cli.define_choice('eval_data', 'test', ['test', 'train_eval', 'holdout'],
                    'What to evaluate on; train_eval: what was trained on; '
                    'holdout: what --holdout left out of that.')
  flags.DEFINE_integer('num_examples', None, 'Evaluate only so many records; '
                       'default: all.', lower_bound=1)
  flags.DEFINE_float('eval_interval_secs', 300, 'Seconds from one evaluation '
                     'to the next.', lower_bound=0)
  flags.DEFINE_bool('run_once', False,
                    'Evaluate the newest checkpoint, and end.')
  flags.DEFINE_bool('use_moving_averages', True,
                    'Evaluate the moving averages of the variables.')
  flags.DEFINE_string('device', None, 'Where to compute, such as /cpu:0; '
                      'default: the GPU, if there is one.')
  cli.define_choice('dtype', None, run_lib.DTYPES, 'What to compute in; '
                    'default: what the run was trained in.')
  cli.run(main)
