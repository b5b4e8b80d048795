"""Measures a checkpoint on record files."""

import os
from typing import NamedTuple, Optional

import numpy as np
import tensorflow.compat.v1 as tf

from cifar10.data import datasets
from cifar10 import inputs
from cifar10 import model
from cifar10.nn import augmentation
from cifar10.runs import checkpoints
from cifar10.runs import trained
from cifar10.util import console
from cifar10.util.errors import UserError
from cifar10.util.progress import Progress

_BATCH_SIZE = 250


class Result(NamedTuple):
  """What was measured."""
  step: int  # That the checkpoint was written after.
  num_examples: int
  metrics: dict  # Means by the names of `model.metrics()`.
  summary: tf.Summary  # Them, and pictures and activations of one batch.
  files: tuple  # Paths of the files with the records, of which...
  start: int  # ...this was the first.
  labels: np.ndarray  # int32 [num_examples].
  probabilities: np.ndarray  # float32 [num_examples, classes].
  features: Optional[np.ndarray] = None  # float32 [embeddings, features].


def records_of(run, data, eval_data):
  """Returns which records to evaluate on.

  Args:
    run: the `Run`.
    data: its `directories.Dataset`.
    eval_data: 'test', 'train_eval' for those trained on, or 'holdout'.

  Returns:
    Paths of files, the first record in them, and the one after the last.
  """
  if run.record_format != data.format:
    raise UserError(
        f'{os.path.dirname(data.test[0])}: holds {data.format}, but the run '
        f'was trained on {run.record_format}')
  if eval_data == 'test':
    return data.test, 0, data.count(data.test)
  end = data.count(data.train)
  start = run.num_examples or end  # The 2016 code does not tell.
  if end != start + run.holdout:
    raise UserError(
        f'{os.path.dirname(data.train[0])} holds {end:,} training records, but '
        f'the run was trained on {start:,} and left out {run.holdout:,}')
  if run.checksum not in (None, data.checksum):
    raise UserError(
        f'{os.path.dirname(data.train[0])}: the training records have the '
        f'checksum {data.checksum}, those of the run had {run.checksum}')
  if eval_data == 'train_eval':
    return data.train, 0, start
  if not run.holdout:
    raise UserError('--eval_data=holdout: the run was trained on all records, '
                    'without --holdout')
  return data.train, start, end


def evaluate(checkpoint, run, data, eval_data='test', num_examples=None,
             use_moving_averages=True, device=None, dtype=None, embeddings=0,
             tta=False):
  """Measures a checkpoint on each of some records once.

  Args:
    checkpoint: its path, as `checkpoints.newest()` gives.
    run: the `Run` that wrote it.
    data: its `directories.Dataset`.
    eval_data: 'test', 'train_eval' or 'holdout', see `records_of()`.
    num_examples: measure only so many, the first.
    use_moving_averages: whether to use the averages of the variables.
    device: where to compute; None: the GPU, if there is one.
    dtype: what to compute in; None: what the run was trained in.
    embeddings: of how many images to return the last hidden layer.
    tta: whether to average over the logits of `augmentation.test_views()`.

  Returns:
    The `Result`.

  Raises:
    trained.CheckpointGone: it was deleted, in favour of a newer one.
    UserError: it does not hold what the network needs.
  """
  files, start, end = records_of(run, data, eval_data)
  count = min(num_examples or end - start, end - start)
  with tf.Graph().as_default(), trained.device(device):
    preprocess = trained.preprocessing(run, dtype)
    views = augmentation.test_views if tta else tf.identity
    images, labels = inputs.inputs(
        files, data.format, lambda images: preprocess(views(images)),
        _BATCH_SIZE, start, start + count)
    logits = trained.logits(images, run)
    if tta:
      weights = tf.reshape(augmentation.TEST_VIEW_WEIGHTS, [-1, 1, 1])
      logits = tf.reduce_sum(weights * tf.reshape(
          tf.cast(logits, tf.float32),
          [weights.shape[0], -1, data.format.num_classes]), 0)
    fetches = {
        'sums': {name: tf.reduce_sum(values) for name, values in
                 model.metrics(logits, labels).items()},
        'labels': labels,
        'probabilities': tf.nn.softmax(tf.cast(logits, tf.float32))}
    if embeddings:
      # Of several views, the first is the image as it is.
      fetches['features'] = tf.cast(trained.last_hidden_layer(logits),
                                    tf.float32)[:tf.shape(labels)[0]]
    summaries = tf.summary.merge_all()
    initialize = tf.group(tf.local_variables_initializer(),
                          tf.tables_initializer())

    with trained.session(device) as session:
      trained.restore(
          session, checkpoint,
          use_moving_averages and run.recipe.moving_average_decay)
      session.run(initialize)
      # The summaries are of the first batch, and measure it like the others.
      batch, summary = session.run([fetches, summaries])
      batches = [batch]
      progress = Progress(count, 'images')
      for done in range(_BATCH_SIZE, count, _BATCH_SIZE):
        progress.report(done)
        if done >= embeddings:
          fetches.pop('features', None)
        batches.append(session.run(fetches))

  metrics = {name: sum(float(batch['sums'][name]) for batch in batches) / count
             for name in batches[0]['sums']}
  summary = tf.Summary.FromString(summary)
  for name, value in metrics.items():
    summary.value.add(tag=model.tag(name), simple_value=value)
  arrays = {name: np.concatenate([batch[name] for batch in batches
                                  if name in batch])
            for name in batches[0] if name != 'sums'}
  if embeddings:
    arrays['features'] = arrays['features'][:embeddings]
  return Result(checkpoints.step_of(checkpoint), count, metrics, summary, files,
                start, **arrays)


def evaluate_newest(run, tta=False):
  """Measures and prints what a run has come to, on the test records, or those
  held out, if there are any: tuning should not look at the others.

  Args:
    run: a prepared `Run`.
    tta: whether to measure it with test-time augmentation, too.
  """
  data = datasets.ensure(run.dataset, run.data_dir)
  eval_data = 'holdout' if run.holdout else 'test'
  checkpoint = checkpoints.newest(run.train_dir)
  for augmented in (False, True) if tta else (False,):
    result = evaluate(checkpoint, run, data, eval_data, tta=augmented)
    print_result(result, run, eval_data, augmented)


def print_result(result, run, eval_data, tta=False):
  """Prints a `Result` on one line."""
  precision, cross_entropy = (
      result.metrics[name] for name in ('Precision @ 1', 'cross_entropy'))
  print(f'{console.timestamp()}: precision @ 1 = {precision:.3f} '
        f'(step {result.step}, {result.num_examples} examples, cross-entropy '
        f'{cross_entropy:.3f}, {run.dataset} {eval_data}'
        f'{", test-time augmentation" * tta})', flush=True)
