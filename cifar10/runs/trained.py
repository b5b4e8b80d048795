"""A trained network, to be used outside training: what it is, its graph, its
variables."""

import dataclasses
import os

import tensorflow.compat.v1 as tf

from cifar10.data import records
from cifar10 import inputs
from cifar10 import model
from cifar10 import networks
from cifar10.runs import checkpoints
from cifar10.runs import description
from cifar10.runs import loop
from cifar10.util.errors import UserError
from cifar10.util import filesystem


class CheckpointGone(Exception):
  """The checkpoint could not be read, and there is a newer one by now."""


def run_of(checkpoint_dir):
  """Returns the `Run` whose checkpoints a directory holds; without run.json,
  they are the 2016 code's, which trained the tutorial's network."""
  checkpoints.check_path(checkpoint_dir)
  run = description.load(checkpoint_dir) or description.Run(dataset='cifar10',
                                                    recipe=model.RECIPE)
  if run.record_format is None:  # Of the time before it was noted.
    run = dataclasses.replace(run, record_format=records.CIFAR10)
  return run


def device(name):
  """Returns tf.device(name), or of None, wherever TensorFlow likes.

  Raises:
    UserError: there is no such device.
  """
  try:
    kind = tf.DeviceSpec.from_string(name or '').device_type
  except ValueError:
    kind = 'unknown'
  if kind not in (None, 'CPU', 'GPU'):
    raise UserError(f'--device={name}: expected a device such as /cpu:0 or '
                    '/gpu:1')
  return tf.device(name)


def session(device_name=None):
  """Returns a tf.Session of the default graph, which leaves the GPUs alone if
  the graph was put on a CPU by `device()`."""
  on_cpu = {'GPU': 0} if 'cpu' in (device_name or '').lower() else {}
  return tf.Session(config=loop.session_config(device_count=on_cpu))


def preprocessing(run, dtype=None):
  """Returns what is done to images before a network sees them.

  Args:
    run: the `Run`.
    dtype: what to compute in; None: what the run was trained in.

  Returns:
    Function of uint8 [n, height, width, depth] images, of the size of the run's
    records, to what `logits()` takes.
  """
  return inputs.images_of(run.recipe, run.record_format,
                          dtype=dtype or run.dtype).preprocess


def logits(images, run):
  """Returns what the network of a `Run` makes of preprocessed images, [n,
  classes] of their type."""
  return networks.find(run.network).inference(
      images, run.record_format.num_classes)


def probabilities(images, run, dtype=None):
  """Returns what a network makes of images, preprocessed as in evaluation.

  Args:
    images: uint8 [n, height, width, depth], of the size of the run's records.
    run, dtype: see `preprocessing()`.

  Returns:
    float32 [n, classes].
  """
  return tf.nn.softmax(tf.cast(
      logits(preprocessing(run, dtype)(images), run), tf.float32))


def last_hidden_layer(logits):
  """Returns what the last matrix product makes logits of, [n, features]."""
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
    use_moving_averages: whether to take the averages of trainable variables.

  Raises:
    CheckpointGone: it was deleted meanwhile, in favour of a newer one.
    UserError: it does not hold what the graph needs.
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


def restore_newest(session, checkpoint_dir, run):
  """Restores the newest checkpoint of a run, its averages if it has them.

  Args:
    session, and what is raised: see `restore()`.
    checkpoint_dir: where the checkpoints are.
    run: the `Run`.

  Returns:
    The path of the checkpoint.
  """
  while checkpoint := checkpoints.newest(checkpoint_dir):
    try:
      restore(session, checkpoint, run.recipe.moving_average_decay)
      return checkpoint
    except CheckpointGone:
      pass
  raise UserError(f'{checkpoint_dir}: there is no checkpoint')
