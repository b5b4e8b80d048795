"""What the training programs share: start or resume, the loop, the end.

    run, data = training.prepare(Run(...))
    with directory.open_train_dir(run), tf.Graph().as_default():
      images, labels = training.batch(
          run, data, training.distortion(run, data))
      ...
      training.loop(model.train(...), run)
"""

import contextlib
import dataclasses
import functools
import os
import signal
import time
from typing import NamedTuple

import tensorflow.compat.v1 as tf

from cifar10.cluster import processes
from cifar10.data import datasets
from cifar10 import inputs
from cifar10 import model
from cifar10 import networks
from cifar10.nn import summaries
from cifar10.runs import checkpoints
from cifar10.runs import description
from cifar10.runs import directory
from cifar10.runs import monitor
from cifar10.util import console
from cifar10.util.errors import UserError
from cifar10.util import filesystem


def prepare(run, augment=None):
  """Makes sure that the data of a run is there, and the run complete.

  Args:
    run: the `Run`.
    augment: a function in place of the recipe's augmentation, if any.

  Returns:
    run: with what was None filled in.
    data: its `directories.Dataset`.

  Raises:
    UserError: the data cannot be had, or the run cannot be, with it or in its
      train_dir.
  """
  checkpoints.check_path(run.train_dir)
  published = networks.find(run.network).RECIPE
  recipe = run.recipe or published
  if run.batch_size:
    if recipe.batch_size not in (run.batch_size, published.batch_size):
      raise UserError(f'--batch_size={run.batch_size}: the recipe says '
                      f'batch_size={recipe.batch_size}. Give one of them')
    recipe = dataclasses.replace(recipe, batch_size=run.batch_size)
  if augment:
    recipe = dataclasses.replace(
        recipe, augmentation=inputs.CUSTOM + _name_of(augment))
  data = datasets.ensure(run.dataset, run.data_dir, run.data_url)
  num_examples = data.count(data.train) - run.holdout
  if num_examples <= 0:
    raise UserError(f'--holdout={run.holdout}: leaves nothing of '
                    f'{data.count(data.train):,} records to train on')
  if run.input == 'queue' and (run.holdout or recipe.alternating_flip):
    raise UserError('--input=queue: reads whole files, and knows no epochs: '
                    'expected no --holdout and no alternating_flip')
  # Of the images there are: published sizes are for 32x32.
  recipe = dataclasses.replace(recipe, crop_size=recipe.crop(data.format))
  networks.check(run.network, recipe, data.format, augment)
  run = dataclasses.replace(
      run, recipe=recipe, dataset=data.name, record_format=data.format,
      num_examples=num_examples, checksum=data.checksum,
      data_dir=os.path.abspath(run.data_dir),
      init_from=run.init_from and os.path.abspath(run.init_from))
  if run.global_batch > num_examples:
    raise UserError(
        f'--batch_size={recipe.batch_size}: a step of {run.num_towers} towers '
        f'takes {run.global_batch:,} images; there are {num_examples:,} to '
        'train on')
  if run.max_steps is None:
    run = dataclasses.replace(run, max_steps=recipe.num_steps(
        run.num_examples, run.global_batch))
  return run, data


def _name_of(function):
  while isinstance(function, functools.partial):
    function = function.func
  return getattr(function, '__name__', type(function).__name__)


def initialize(run):
  """Makes variables start from those of run.init_from, unless the run goes on
  already. To be called when the network is built, before `model.train()`."""
  if run.init_from and not checkpoints.find(run.train_dir):
    checkpoints.initialize_from(run.init_from)


def distortion(run, data, augment=None):
  """Returns what is done to images to train on them, see `inputs.Images`.

  Args:
    run: a prepared `Run`.
    data: its `directories.Dataset`.
    augment: a function in place of the recipe's augmentation, see
      `inputs.images_of()`.
  """
  return inputs.images_of(
      run.recipe, data.format,
      lambda: data.read_images(data.train)[:run.num_examples], augment,
      run.dtype).distort


def batch(run, data, distort, files=None, part=None):
  """Returns the images and labels of a step, for all towers together.

  Args:
    run: a prepared `Run`.
    data: its `directories.Dataset`.
    distort: its `distortion()`.
    files: where the training records are on the host that reads them; None:
      where data.train says.
    part: a range, which of a step's images to make; None: all.

  Returns:
    images: [n, crop_size, crop_size, depth] of run.dtype; n is
      run.global_batch or len(part).
    labels: int32 [n].
  """
  if run.input == 'tfdata':
    return inputs.distorted_inputs(
        files or data.train, data.format, distort, run.global_batch, run.seed,
        run.num_examples, run.recipe.alternating_flip, data.count(data.train),
        part)
  min_queue_examples = int(
      run.num_examples * run.min_fraction_of_examples_in_queue)
  print(f'Filling queue with {min_queue_examples} CIFAR images before starting '
        'to train. This will take a few minutes. The order of the images is '
        'not the same again when this run is resumed.', flush=True)
  return inputs.queue_inputs(data.train, data.format, distort,
                             run.global_batch, run.seed, min_queue_examples)


def session_config(log_device_placement=False, **options):
  """Returns a ConfigProto: GPU memory on demand, any device as a fallback."""
  return tf.ConfigProto(
      allow_soft_placement=True, log_device_placement=log_device_placement,
      gpu_options=tf.GPUOptions(allow_growth=True), **options)


def loop(step, run, hooks=(), config=None, chief=None):
  """Trains from the newest checkpoint, or the start, to run.max_steps.

  To be called in `directory.open_train_dir()`, inside the graph, and last: the
  graph is finalized.

  Args:
    step: the `model.Step` to repeat.
    run: a prepared `Run`.
    hooks: further tf.train.SessionRunHooks, around each step's session.run();
      begin() is called for each session, of which there are several when
      workers are lost.
    config: ConfigProto of the session; default: `session_config()`.
    chief: the `processes.Chief`, if the graph is spread over a cluster. When
      workers are lost, training goes on from the newest checkpoint once they
      are back.

  Raises:
    UserError: the loss, a gradient or a weight is not finite; or there are
      checkpoints, but none that can be read, or is of this graph.
    SystemExit: a signal came, see `console.received_signals()`. The step was
      finished and saved.
  """
  started = time.time()
  checkpoint = _adopt_newest_checkpoint(run)
  if checkpoint is None and os.path.exists(description.path(run.train_dir)):
    print(f'{run.train_dir} holds no checkpoint of this run yet: starting at '
          'step 0.')
  directory.describe(run)
  ops = _Ops(
      step, tf.summary.merge_all(), _finite(),
      tf.train.Scaffold(saver=tf.train.Saver(
          max_to_keep=run.keep_checkpoints, save_relative_paths=True)))
  tf.train.write_graph(tf.get_default_graph(), run.train_dir, 'graph.pbtxt')
  config = config or session_config(run.log_device_placement)
  with console.received_signals() as signals:
    while True:
      try:
        number = _train(ops, run, hooks, config, chief, signals)
        break
      except processes.Lost as e:
        processes.say(f'lost {e}')
      chief.wait(signals)
      checkpoint = _adopt_newest_checkpoint(run)
      if signals:
        number = checkpoints.step_of(checkpoint) if checkpoint else 0
        break
    took = console.duration(time.time() - started)
    if signals:
      print(f'{signal.Signals(signals[0]).name}: stopped '
            f'{"and saved " if number else ""}at step {number} of '
            f'{run.max_steps}, after {took}. The same command, without '
            '--fresh, goes on from there.', flush=True)
    else:
      print(f'Step {number} of {run.max_steps} is done, after {took}. To see '
            f'it: tensorboard --logdir={run.train_dir}', flush=True)


class _Ops(NamedTuple):
  """What the training loop runs."""
  step: model.Step
  summary: tf.Tensor
  finite: tf.Tensor  # Whether all variables are.
  scaffold: tf.train.Scaffold


def _finite():
  with tf.name_scope('finite'):
    return tf.reduce_all([
        tf.reduce_all(tf.is_finite(v)) for v in tf.global_variables()
        if v.dtype.base_dtype.is_floating])


def _adopt_newest_checkpoint(run):
  """Returns the checkpoint that sessions will start from, None without one."""
  checkpoint = checkpoints.newest(run.train_dir)
  if checkpoint:
    checkpoints.check_variables(
        checkpoint, {v.op.name: v for v in tf.global_variables()})
    checkpoints.adopt(checkpoint)
  return checkpoint


def _train(ops, run, hooks, config, chief, signals):
  """Trains in one session, until the end or a signal; returns the step.

  Raises:
    processes.Lost: before that, workers ended.
  """
  watching = chief.watching if chief else contextlib.nullcontext
  # Explained inside the session, which takes some exceptions for the end.
  with watching(), tf.train.SingularMonitoredSession(
      hooks, ops.scaffold, chief.target if chief else '', config,
      run.train_dir) as session, \
      filesystem.explained(run.train_dir), watching(), \
      summaries.Writer(run.train_dir) as writer:

    def run_without_hooks(fetches):
      return session.run_step_fn(
          lambda step_context: step_context.session.run(fetches))

    def save(number):
      """Saves what `number` steps have made of the variables."""
      if not run_without_hooks(ops.finite):
        report.not_finite('after it, a weight is not finite')
      if not os.path.exists(description.path(run.train_dir)):
        raise UserError(f'{run.train_dir}: was moved away or deleted')
      session.run_step_fn(lambda step_context: _save(
          ops.scaffold.saver, step_context.session, run, number))

    report = monitor.Reporter(run)
    writer.graph(ops.step.train_op)
    number = saved = int(run_without_hooks(tf.train.get_global_step()))
    writer.start(number)
    writer.text('run', f'```json\n{description.describe(run)}\n```', number)
    if number >= run.max_steps:
      print(f'{run.train_dir} is at step {number} already.')
    elif number:
      print(f'Resuming at step {number} of {run.max_steps}.', flush=True)

    while number < run.max_steps and not signals and not session.should_stop():
      # Summaries ride on the step: a run of their own would cost a batch.
      due = number % run.summary_steps == 0
      values, summary = session.run([ops.step, ops.summary if due else []])
      report.step(values)
      if due:
        summary = tf.Summary.FromString(summary)
        if speed := report.examples_per_sec(number):
          summary.value.add(tag='training/examples_per_sec', simple_value=speed)
        writer.summary(summary, number)
      number = int(values.step) + 1
      if number % run.checkpoint_steps == 0:
        save(number)
        saved = number
    if number > saved:
      save(number)
  return number


def _save(saver, session, run, number):
  # Explained here, as the session would take some exceptions for its own.
  with filesystem.explained(run.train_dir):
    # Without a copy of the graph: that is in graph.pbtxt, once.
    saver.save(session, os.path.join(run.train_dir, 'model.ckpt'), number,
               write_meta_graph=False)
