r"""Evaluates the newest checkpoint of a run, again and again.

    python -m cifar10.eval --checkpoint_dir=/tmp/cifar10_train

Runs beside a training program, on the same machine (`--device=/cpu:0` leaves
the GPUs to the training) or on another one that sees its directory, and ends
after the checkpoint of the last step. It reads the network and the data from
run.json; a directory without it, from the 2016 code, holds the tutorial's
network.
"""

import dataclasses
import time
from typing import NamedTuple, Optional

import numpy as np
import tensorflow.compat.v1 as tf

from cifar10 import cli
from cifar10 import inputs
from cifar10 import model
from cifar10.data import datasets
from cifar10.data.record_files import RecordFiles
from cifar10.nn import augmentation
from cifar10.runs import best
from cifar10.runs import checkpoints
from cifar10.runs import events
from cifar10.runs import hparams
from cifar10.runs import report
from cifar10.runs import sessions
from cifar10.runs import trained
from cifar10.util import console
from cifar10.util import filesystem
from cifar10.util.errors import UserError
from cifar10.util.fields import field


@dataclasses.dataclass(frozen=True)
class Options(trained.Options):
  """What a user chooses for an evaluation; these are the flags of eval."""
  eval_dir: str = field(
      '/tmp/cifar10_eval', nonempty='a directory',
      help='Directory of the event files and of report.json.')
  data_dir: Optional[str] = field(
      None, nonempty='a directory',
      help='Directory of the data. Default: that of the training.')
  eval_data: str = field(
      'test', choices=('test', 'train_eval', 'holdout'), help='Records to '
      'evaluate on. train_eval: those that were trained on; holdout: those '
      'that --holdout kept from the training.')
  num_examples: Optional[int] = field(
      None, minimum=1, help='Number of records to evaluate on, the first. '
      'Default: all.')
  eval_interval_secs: float = field(
      300.0, minimum=0, help='Seconds between evaluations.')
  run_once: bool = field(
      False, help='Evaluate the newest checkpoint, and end.')
  use_moving_averages: bool = field(
      True, help='Evaluate the moving averages of the variables.')
  tta: bool = field(
      False, help='Test-time augmentation: average the logits of the image, '
      'its mirror image, and both shifted by a pixel.')
  report: bool = field(
      False, help='Print a table of the accuracy of each class and what it is '
      'confused with.')
  embeddings: int = field(
      0, minimum=0, help='Number of images whose last hidden layer TensorBoard '
      'shows on the projector page.')
  keep_best: Optional[str] = field(
      None, nonempty='a directory', help='Directory for a copy of the '
      'checkpoint that is best on --eval_data=holdout. It is itself a '
      'checkpoint_dir.')

  def __post_init__(self):
    super().__post_init__()
    checkpoints.check_path(self.checkpoint_dir)
    if self.keep_best:
      best.check(self.keep_best, self.checkpoint_dir)
      if self.eval_data != 'holdout':
        raise UserError('--keep_best: the best one is chosen by records that '
                        'were held out from the training: add '
                        '--eval_data=holdout')


class Result(NamedTuple):
  """The result of an evaluation.

  Attributes:
    checkpoint, step: path of the checkpoint, and number of its training steps.
    num_examples: number of images.
    metrics: means by the names of `model.metrics()`.
    summary: tf.Summary of the metrics, and of one batch.
    files: the `RecordFiles` evaluated on.
    start: index of the first record.
    labels: int32 [num_examples] array.
    probabilities: float32 [num_examples, classes] array.
    features: float32 [embeddings, features] array, the last hidden layer.
  """
  checkpoint: str
  step: int
  num_examples: int
  metrics: dict
  summary: tf.Summary
  files: RecordFiles
  start: int
  labels: np.ndarray
  probabilities: np.ndarray
  features: Optional[np.ndarray] = None


def evaluate(options) -> None:
  """Waits for checkpoints and evaluates each newest one, until that of the last
  step.

  Args:
    options: the `Options`.

  Raises:
    SystemExit: a signal came, see `console.received_signals()`.
    UserError: run_once, and there is no checkpoint; or one cannot be evaluated.
  """
  directory = options.checkpoint_dir
  evaluated, next_time, told = None, 0, False
  with filesystem.explained(options.eval_dir), \
      events.Writer(options.eval_dir) as writer, \
      console.received_signals() as signals:
    while not signals:
      checkpoint, run = checkpoints.newest(directory), trained.run_of(directory)
      is_last = checkpoint and run.max_steps and (
          checkpoints.step_of(checkpoint) >= run.max_steps)
      # --fresh can write other checkpoints under the same names.
      identity = checkpoint and checkpoints.identity(checkpoint)
      is_new = identity not in (None, evaluated)
      if is_new and (is_last or time.monotonic() >= next_time):
        next_time = time.monotonic() + options.eval_interval_secs
        data = datasets.ensure(run.dataset, options.data_dir or run.data_dir)
        try:
          result = evaluate_once(checkpoint, run, data, options)
        except trained.CheckpointGone:
          next_time = 0  # Try the newer one at once.
          continue
        content = report.publish(result, run, options, writer)
        print_result(result, run, options)
        if options.report:
          print(report.table(content), flush=True)
        if options.keep_best:
          best.keep(options.keep_best, checkpoint, run,
                    result.metrics['Precision @ 1'])
        evaluated = identity
      # The last one can have been evaluated before it was the last.
      if evaluated and (is_last or options.run_once):
        hparams.write_results(result, run, options)
        return
      if options.run_once:
        raise UserError(f'{directory}: there is no checkpoint')
      if checkpoint is None and not told:
        print(f'No checkpoint in {directory} yet: waiting', flush=True)
        told = True
      time.sleep(1)


def evaluate_once(checkpoint, run, data, options) -> Result:
  """Evaluates a checkpoint, on each record once.

  Args:
    checkpoint: path of the checkpoint.
    run: the `Run` that wrote it.
    data: its `directories.Dataset`.
    options: the `Options`.

  Returns:
    The `Result`.

  Raises:
    trained.CheckpointGone: it was deleted in favour of a newer one.
    UserError: it is not of this network.
  """
  files, start, end = trained.records_of(run, data, options.eval_data)
  count = min(options.num_examples or end - start, end - start)
  with tf.Graph().as_default(), sessions.device(options.device), \
      data.unchanged():
    fetches = _build(run, files, start, start + count, options)
    summary = tf.summary.merge_all()
    initialize = tf.group(tf.local_variables_initializer(),
                          tf.tables_initializer())
    with sessions.session(options.device) as session:
      trained.restore(session, checkpoint, options.use_moving_averages
                      and run.recipe.moving_average_decay)
      session.run(initialize)
      # The summary shows the first batch, which counts like the others.
      batch, summary = session.run([fetches, summary])
      batches = [batch]
      progress = console.Progress(count, 'images')
      size = trained.batch_size(files.format)
      for done in range(size, count, size):
        progress.report(done)
        if done >= options.embeddings:  # There are enough.
          fetches.pop('features', None)
        batches.append(session.run(fetches))
      progress.report(count)

  metrics = {name: sum(float(batch['sums'][name]) for batch in batches) / count
             for name in batches[0]['sums']}
  summary = tf.Summary.FromString(summary)
  for name, value in metrics.items():
    summary.value.add(tag=model.tag(name), simple_value=value)
  arrays = {name: np.concatenate([batch[name] for batch in batches
                                  if name in batch])
            for name in batches[0] if name != 'sums'}
  if options.embeddings:
    arrays['features'] = arrays['features'][:options.embeddings]
  return Result(checkpoint, checkpoints.step_of(checkpoint), count, metrics,
                summary, files, start, **arrays)


def _build(run, files, start, end, options):
  """Builds the graph.

  Returns:
    Dict of what to fetch for each batch: `sums` of the metrics, `labels`,
    `probabilities`, and `features` if there are to be embeddings.
  """
  preprocess = inputs.preprocessing(run.recipe, files.format,
                                    options.dtype or run.dtype)
  views = augmentation.test_views if options.tta else tf.identity
  images, labels = inputs.inputs(
      files, lambda images: preprocess(views(images)), start, end,
      trained.batch_size(files.format))
  logits = trained.logits(images, run)
  features = options.embeddings and trained.last_hidden_layer(logits)
  if options.tta:
    logits = augmentation.mean_over_views(tf.cast(logits, tf.float32))
  fetches = {
      'sums': {name: tf.reduce_sum(values)
               for name, values in model.metrics(logits, labels).items()},
      'labels': labels,
      'probabilities': tf.nn.softmax(tf.cast(logits, tf.float32))}
  if options.embeddings:
    # The first of several views is the image itself.
    fetches['features'] = tf.cast(features, tf.float32)[:tf.shape(labels)[0]]
  return fetches


def evaluate_newest(run, tta=False):
  """Evaluates the newest checkpoint of a run, on held-out records if there are
  any: test records should not be used for tuning. Prints the result, and writes
  it into the directory of the run.

  Args:
    run: the `Run`.
    tta: whether to evaluate it with test-time augmentation, too.
  """
  data = datasets.ensure(run.dataset, run.data_dir)
  checkpoint = checkpoints.newest(run.train_dir)
  for augmented in (False, True) if tta else (False,):
    options = Options(checkpoint_dir=run.train_dir, tta=augmented,
                      eval_data='holdout' if run.holdout else 'test')
    result = evaluate_once(checkpoint, run, data, options)
    print_result(result, run, options)
    report.keep(result, run, options)


def print_result(result, run, options):
  """Prints a `Result` on one line."""
  precision, cross_entropy = (
      result.metrics[name] for name in ('Precision @ 1', 'cross_entropy'))
  print(f'{console.timestamp()}: precision @ 1 = {precision:.3f} '
        f'(step {result.step}, {result.num_examples} examples, cross-entropy '
        f'{cross_entropy:.3f}, {run.dataset} {options.eval_data}'
        f'{", test-time augmentation" * options.tta})', flush=True)


def main():
  evaluate(Options(**cli.values_of(Options)))


if __name__ == '__main__':
  cli.define(Options)
  cli.run(main)
