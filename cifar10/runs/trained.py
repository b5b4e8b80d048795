"""A trained network outside training: its `Run`, its graph, its variables."""

import dataclasses
import os
from typing import Optional

import tensorflow.compat.v1 as tf

from cifar10 import inputs
from cifar10 import model
from cifar10 import networks
from cifar10.data import records
from cifar10.runs import checkpoints
from cifar10.runs import description
from cifar10.util import fields
from cifar10.util import filesystem
from cifar10.util.errors import UserError
from cifar10.util.fields import field


@dataclasses.dataclass(frozen=True)
class Options:
  """What a user chooses for a trained network: flags of eval, predict and
  export."""
  checkpoint_dir: str = field(
      description.Options.train_dir, nonempty='a directory',
      help='The train_dir of the run to use.')
  dtype: Optional[str] = field(
      None, choices=description.DTYPES, help='Type that the network computes '
      'in. Default: that of the training.')
  device: Optional[str] = field(
      None, help='Device to compute on, such as /cpu:0. Default: the GPU, if '
      'there is one.')

  def __post_init__(self):
    fields.check(self, '--{}={}')


class CheckpointGone(Exception):
  """A checkpoint was deleted in favour of a newer one."""


def run_of(checkpoint_dir) -> description.Run:
  """Returns the `Run` in a directory. One without run.json is the 2016 code's,
  which trained the tutorial's network."""
  checkpoints.check_path(checkpoint_dir)
  run = description.load(checkpoint_dir) or description.Run(
      train_dir=checkpoint_dir, dataset='cifar10', recipe=model.RECIPE)
  if run.record_format is None:  # Earlier versions did not note it.
    run = dataclasses.replace(run, record_format=records.CIFAR10)
  return run


def batch_size(record_format):
  """Returns the number of images to compute at a time, on which no result
  depends: 250 of up to 64x64 pixels, fewer if they are larger."""
  pixels = record_format.height * record_format.width
  return max(1, min(250, 250 * 64 * 64 // pixels))


def records_of(run, data, eval_data):
  """Returns the records to evaluate on.

  Args:
    run: the `Run`.
    data: its `directories.Dataset`.
    eval_data: 'test'; 'train_eval', the records that the run was trained on;
      or 'holdout', those that were held out.

  Returns:
    The `RecordFiles`, the index of the first record in them, and of the one
    after the last.

  Raises:
    UserError: the data is not that of the run, or nothing was held out.
  """
  if run.record_format != data.format:
    raise UserError(
        f'{data.directory}: holds {data.format}, but the run '
        f'was trained on {run.record_format}')
  if eval_data == 'test':
    return data.test, 0, len(data.test)
  end = len(data.train)
  start = run.num_examples or end  # Unknown of the 2016 code.
  if end != start + run.holdout:
    raise UserError(
        f'{data.directory} holds {end:,} training records, but '
        f'the run was trained on {start:,} and left out {run.holdout:,}')
  if run.checksum not in (None, data.checksum):
    raise UserError(
        f'{data.directory}: the training records have the '
        f'checksum {data.checksum}, those of the run had {run.checksum}')
  if eval_data == 'train_eval':
    return data.train, 0, start
  if not run.holdout:
    raise UserError('--eval_data=holdout: the run was trained on all records, '
                    'without --holdout')
  return data.train, start, end


def logits(images, run) -> tf.Tensor:
  """Returns the logits of the network of a `Run`, [n, classes], for
  preprocessed images."""
  return networks.find(run.network).inference(
      images, run.record_format.num_classes)


def probabilities(images, run, dtype=None) -> tf.Tensor:
  """Returns the probabilities of the classes, as evaluation computes them.

  Args:
    images: uint8 [n, height, width, depth], of the size of the run's records.
    run: the `Run`.
    dtype: type to compute in; None: that of the training.

  Returns:
    float32 [n, classes].
  """
  preprocess = inputs.preprocessing(run.recipe, run.record_format,
                                    dtype or run.dtype)
  return tf.nn.softmax(tf.cast(logits(preprocess(images), run), tf.float32))


def last_hidden_layer(logits):
  """Returns the input of the last matrix product before logits, [n, features].

  Raises:
    UserError: there is none.
  """
  waiting, seen = [logits.op], set()
  while waiting:  # The nearest operations first.
    op = waiting.pop(0)
    if op.type == 'MatMul':
      return op.inputs[0]
    if op not in seen:
      seen.add(op)
      waiting += [tensor.op for tensor in op.inputs]
  raise UserError('--embeddings: there is no dense layer in this network')


def restore(session, checkpoint, use_moving_averages):
  """Restores all variables of the default graph.

  Args:
    session: tf.Session with that graph.
    checkpoint: path of the checkpoint.
    use_moving_averages: whether to restore the moving averages of trainable
      variables in their place.

  Raises:
    CheckpointGone: the checkpoint was deleted in favour of a newer one.
    UserError: the checkpoint is not of this graph.
  """
  variables = {v.op.name: v for v in tf.global_variables()}
  if use_moving_averages:
    # The decay matters only to training.
    variables = tf.train.ExponentialMovingAverage(0.0).variables_to_restore()
  saver = tf.train.Saver(variables)
  try:
    checkpoints.check_variables(checkpoint, variables)
    saver.restore(session, checkpoint)
  except (tf.errors.OpError, ValueError) as e:
    # Trainers delete old checkpoints once a newer one is on record.
    if checkpoints.newest(os.path.dirname(checkpoint)) != checkpoint:
      raise CheckpointGone(checkpoint) from e
    raise UserError(f'{checkpoint}: cannot be restored: '
                    f'{filesystem.reason(e)}') from e


def restore_newest(session, checkpoint_dir, run) -> str:
  """Restores the newest checkpoint of a run; moving averages if it has them.

  Args:
    session: tf.Session with the graph.
    checkpoint_dir: directory of the checkpoints.
    run: the `Run`.

  Returns:
    The path of the checkpoint.

  Raises:
    UserError: there is no checkpoint, or it is not of this graph.
  """
  while checkpoint := checkpoints.newest(checkpoint_dir):
    try:
      restore(session, checkpoint, run.recipe.moving_average_decay)
      return checkpoint
    except CheckpointGone:
      pass
  raise UserError(f'{checkpoint_dir}: there is no checkpoint')
