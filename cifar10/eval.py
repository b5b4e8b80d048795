r"""Evaluates the newest checkpoint of a run, again and again.

    python -m cifar10.eval --checkpoint_dir=/tmp/cifar10_train

Runs beside a training program, on the same machine (`--device=/cpu:0` leaves
the GPUs to it) or on another one that sees its directory, and ends after the
last step's checkpoint. What was trained on what it reads from run.json; a
directory without it, from the 2016 code, holds the tutorial's network.
"""

import dataclasses
import json
import os
import time

from absl import flags
import numpy as np

from cifar10 import cli
from cifar10.data import datasets
from cifar10 import model
from cifar10.nn import summaries
from cifar10.runs import checkpoints
from cifar10.runs import description
from cifar10.runs import evaluation
from cifar10.runs import projector
from cifar10.runs import report
from cifar10.runs import trained
from cifar10.util import console
from cifar10.util.errors import UserError
from cifar10.util import filesystem

FLAGS = flags.FLAGS
_MISTAKES = 24  # How many to show.


def evaluate(checkpoint_dir, eval_dir, data_dir=None, eval_data='test',
             num_examples=None, interval_secs=300, run_once=False,
             use_moving_averages=True, device=None, dtype=None,
             print_report=False, embeddings=0, keep_best=None, tta=False):
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
    print_report: whether to print a table, too.
    embeddings: of how many images to show the last hidden layer in TensorBoard.
    keep_best: directory to copy the checkpoint to that is the best so far on
      the records that were held out.
    tta: whether to average over flipped and shifted images.

  Raises:
    SystemExit: a signal came, see `console.received_signals()`.
    UserError: run_once, and there is no checkpoint; or it cannot be evaluated.
  """
  checkpoints.check_path(checkpoint_dir)
  if keep_best:
    checkpoints.check_path(keep_best)
    if eval_data != 'holdout':
      raise UserError('--keep_best: the best one is chosen by records that '
                      'were held out from the training: add '
                      '--eval_data=holdout')
    if os.path.realpath(keep_best) == os.path.realpath(checkpoint_dir):
      raise UserError(f'--keep_best={keep_best}: is the directory of the run, '
                      'which keeps its own checkpoints: expected another one')
  evaluated, next_time, told = None, 0, False
  with filesystem.explained(eval_dir), summaries.Writer(eval_dir) as writer, \
      console.received_signals() as signals:
    while not signals:
      checkpoint = checkpoints.newest(checkpoint_dir)
      run = trained.run_of(checkpoint_dir)
      is_last = checkpoint and run.max_steps and (
          checkpoints.step_of(checkpoint) >= run.max_steps)
      # A run started afresh writes other checkpoints of the same names.
      identity = checkpoint and checkpoints.identity(checkpoint)
      is_new = identity not in (None, evaluated)
      if is_new and (is_last or time.monotonic() >= next_time):
        next_time = time.monotonic() + interval_secs
        data = datasets.ensure(run.dataset, data_dir or run.data_dir)
        try:
          result = evaluation.evaluate(checkpoint, run, data, eval_data,
                                       num_examples, use_moving_averages,
                                       device, dtype, embeddings, tta)
        except trained.CheckpointGone:
          next_time = 0
          continue
        description = publish(result, data, eval_dir, writer)
        evaluation.print_result(result, run, eval_data, tta)
        if print_report:
          print(report.table(description), flush=True)
        if keep_best:
          _keep_best(keep_best, checkpoint, run, result)
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


def publish(result, data, eval_dir, writer):
  """Writes all there is to know of a result to a directory: report.json, event
  files with pictures, and what TensorBoard's projector shows.

  Args:
    result: the `evaluation.Result`.
    data: the `directories.Dataset`.
    eval_dir: the directory.
    writer: its `summaries.Writer`.

  Returns:
    What `report.describe()` does.
  """
  names = data.format.class_names
  description = {'step': result.step, **report.describe(
      result.labels, result.probabilities, names)}
  for tag, key in (
      (model.tag('Precision @ 3'), 'precision_at_3'),
      ('precision/calibration_error', 'expected_calibration_error')):
    result.summary.value.add(tag=tag, simple_value=description[key])
  pictures = {}
  if description['confusion']:
    pictures['confusion_matrix'] = report.confusion_picture(description)
  worst = report.most_confident_mistakes(result.labels, result.probabilities,
                                         _MISTAKES)
  if worst.size:
    pictures['mistakes'] = report.mistakes_picture(
        data.pick(result.files, result.start + worst), result.labels[worst],
        result.probabilities[worst], names)
  for tag, picture in pictures.items():
    summaries.add_picture(result.summary, f'evaluation/{tag}',
                          report.png(picture), *picture.size)
  writer.summary(result.summary, result.step)
  filesystem.write_text(os.path.join(eval_dir, 'report.json'),
                        json.dumps(description))
  if result.features is not None:
    count = len(result.features)
    projector.write(
        eval_dir, result.features,
        data.pick(result.files, result.start + np.arange(count)),
        result.labels[:count], result.probabilities[:count].argmax(1), names)
  return description


def _keep_best(directory, checkpoint, run, result):
  """Copies the checkpoint if it is more precise than the one there.

  Raises:
    UserError: there is something else, or another process is at work there.
  """
  path = os.path.join(directory, 'best.json')
  with filesystem.locked(directory):
    kept, best = checkpoints.find(directory), description.load(directory)
    if (kept or best) and not os.path.exists(path):
      raise UserError(f'--keep_best={directory}: holds other checkpoints')
    if best and best.identity() != run.identity():
      raise UserError(f'--keep_best={directory}: holds the best of another run')
    # Of each that was the best, as the next may be half copied when this ends.
    precisions = {}
    if os.path.exists(path):
      try:
        precisions = dict(json.loads(filesystem.read_text(path)))
        kept_precision = precisions[str(checkpoints.step_of(kept[0]))]
        if best and kept_precision >= result.metrics['Precision @ 1']:
          return
      except (IndexError, KeyError):
        pass  # It ended before there was one.
      except (TypeError, ValueError) as e:
        raise UserError(f'{path}: is no table of precisions: {e}') from e
    precisions[str(result.step)] = result.metrics['Precision @ 1']
    # It is as far as it is, so that nobody waits for the rest of it.
    run = dataclasses.replace(run, train_dir=directory, max_steps=result.step)
    filesystem.write_text(path, json.dumps(precisions))
    if best is None:
      description.save(run)
    try:
      checkpoints.copy(checkpoint, directory)
    except FileNotFoundError:
      return  # The trainer has deleted it in favour of a newer one.
    description.save(run)
  print(f'The best so far: copied to {directory}', flush=True)


def main():
  evaluate(FLAGS.checkpoint_dir, FLAGS.eval_dir, FLAGS.data_dir,
           FLAGS.eval_data, FLAGS.num_examples, FLAGS.eval_interval_secs,
           FLAGS.run_once, FLAGS.use_moving_averages, FLAGS.device,
           FLAGS.dtype, FLAGS.report, FLAGS.embeddings, FLAGS.keep_best,
           FLAGS.tta)


if __name__ == '__main__':
  cli.define_checkpoint_flags('evaluate')
  cli.define_device_flag()
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
  flags.DEFINE_bool('report', False, 'Print a table, too: what each class was '
                    'taken for. It is in EVAL_DIR/report.json anyway.')
  cli.define_tta_flag()
  flags.DEFINE_integer('embeddings', 0, 'Show the last hidden layer of so many '
                       "images in TensorBoard's projector.", lower_bound=0)
  flags.DEFINE_string('keep_best', None, 'Directory to copy the checkpoint to '
                      'that is the best on --eval_data=holdout; evaluate and '
                      'export it by --checkpoint_dir.')
  cli.run(main)
