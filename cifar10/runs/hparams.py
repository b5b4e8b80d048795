"""Hyperparameters and results of runs, for TensorBoard's HPARAMS page.

The page has a row for each run. Its columns are the hyperparameters, first
those that differ, and the last values of the scalars, in the order of their
tags. Of a tag that several directories have, it shows the mean: so the results
of an evaluation, whose tags are those of the training, are written with tags,
and into a directory, of their own.
"""

import hashlib
import os

import tensorflow.compat.v1 as tf
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams import summary
from tensorboard.plugins.hparams import summary_v2

from cifar10.runs import events


def start(run):
  """Returns a tf.Summary of the hyperparameters of a `Run`: what the same run
  has when it is resumed, as the page keeps what it reads first."""
  values = {name: getattr(run, name) for name in (
      'network', 'dataset', 'init_from', 'dtype', 'seed', 'global_batch')}
  values.update(vars(run.recipe))
  del values['batch_size']
  values = {name: value if isinstance(value, (bool, int, float, str)) else
            str(value) if value else '' for name, value in values.items()}
  return _convert(summary_v2.hparams_pb(values, trial_id=_row(run)))


def end():
  """Returns a tf.Summary that tells that the training is done."""
  return _convert(summary.session_end_pb(api_pb2.STATUS_SUCCESS))


def results(result, options):
  """Returns a tf.Summary of the results of an evaluation.

  Args:
    result: the `eval.Result`.
    options: the `eval.Options`. Tags have what is not their default.
  """
  what = '_'.join(filter(None, [
      options.eval_data, options.tta and 'tta',
      not options.use_moving_averages and 'raw',
      options.num_examples and f'first_{options.num_examples}',
      options.dtype]))
  return tf.Summary(value=[
      tf.Summary.Value(tag=f'evaluation/{tag}_{what}',
                       simple_value=result.metrics[name])
      for tag, name in (('precision', 'Precision @ 1'),
                        ('cross_entropy', 'cross_entropy'))])


def write_results(result, run, options):
  """Writes the results of an evaluation into a directory in its eval_dir, for
  each run another.

  Args:
    result: the `eval.Result`.
    run: the `Run` that was evaluated.
    options: the `eval.Options`.

  Raises:
    OSError or tf.errors.OpError: it cannot be written.
  """
  digest = hashlib.sha256(_row(run).encode()).hexdigest()
  with events.Writer(os.path.join(
      options.eval_dir, f'hparams-{digest[:16]}')) as writer:
    writer.summary(start(run), result.step)
    writer.summary(results(result, options), result.step)


def _row(run):
  """Returns the name of a row. Where the page finds the same, it shows one."""
  return f'{run.train_dir} {run.digest()}'


def _convert(message):
  """Converts TensorBoard's class of a message to TensorFlow's."""
  return tf.Summary.FromString(message.SerializeToString())
