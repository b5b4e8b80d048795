"""What the training programs share: start or resume, the loop, the end.

    run, data = training.prepare(Run(...))
    with training.open_train_dir(run), tf.Graph().as_default():
      images, labels = training.batch(run, data)
      ...
      training.loop(model.train(...), run)
"""

import contextlib
import dataclasses
import datetime
import os
import signal
import sys
import time

import tensorflow.compat.v1 as tf

from cifar10 import checkpoints
from cifar10 import cli
from cifar10 import dataset
from cifar10 import filesystem
from cifar10 import inputs
from cifar10 import networks
from cifar10 import reporting
from cifar10 import run as run_lib
from cifar10 import summaries
from cifar10 import UserError


def prepare(run, augment=None):
  """Makes sure that the data of a run is there, and the run complete.

  Args:
    run: the `Run`.
    augment: a function in place of the recipe's augmentation, if any.

  Returns:
    run: with what was None filled in.
    data: its `directories.Dataset`.

  Raises:
    UserError: the data cannot be had, or the run cannot be, with it.
  """
  published = networks.find(run.network).RECIPE
  recipe = run.recipe or published
  if run.batch_size:
    if recipe.batch_size not in (run.batch_size, published.batch_size):
      raise UserError(f'--batch_size={run.batch_size}: the recipe says '
                      f'batch_size={recipe.batch_size}. Give one of them')
    recipe = dataclasses.replace(recipe, batch_size=run.batch_size)
  if augment:
    recipe = dataclasses.replace(
        recipe, augmentation=inputs.CUSTOM + augment.__name__)
  data = dataset.ensure(run.dataset, run.data_dir, run.data_url)
  num_examples = data.count(data.train) - run.holdout
  if num_examples <= 0:
    raise UserError(f'--holdout={run.holdout}: leaves nothing of '
                    f'{data.count(data.train):,} records to train on')
  if run.input == 'queue' and (run.holdout or recipe.alternating_flip):
    raise UserError('--input=queue: reads whole files, and knows no epochs: '
                    'expected no --holdout and no alternating_flip')
  # Of the images there are: published sizes are for 32x32.
  recipe = dataclasses.replace(recipe, crop_size=recipe.crop(data.format))
  networks.check(run.network, recipe, data.format)
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


@contextlib.contextmanager
def open_train_dir(run, fresh=False):
  """Makes sure that run.train_dir holds this run or nothing, and keeps other
  trainers out of it until the end of the `with`.

  Args:
    run: a prepared `Run`.
    fresh: whether to move an existing run.train_dir aside and start over.

  Raises:
    UserError: it holds something else, another trainer has it, or, in all of
      the `with`, the file system refuses to read or write a file.
  """
  with filesystem.explained(run.train_dir):
    if fresh and os.path.exists(run.train_dir):
      with filesystem.locked(run.train_dir):
        _move_aside(run.train_dir)
    with filesystem.locked(run.train_dir):
      _check_same_run(run)
      checkpoints.remove_unfinished(run.train_dir)
      print(f'Training {run.network} on {run.dataset}, {run.num_examples:,} '
            f'records, in steps of {run.global_batch}, with seed {run.seed}\n'
            f'Recipe: {run.recipe.changed()}', flush=True)
      yield


def _move_aside(train_dir):
  now = datetime.datetime.now().strftime('%Y%m%d-%H%M%S')
  aside = f'{train_dir.rstrip("/")}.{now}'
  os.rename(train_dir, aside)
  print(f'Moved {train_dir} to {aside}')


def _check_same_run(run):
  """Raises UserError if run.train_dir holds anything but this run."""
  old = run_lib.load(run.train_dir)
  ways_out = '--fresh starts over (and moves this directory aside), or choose '\
      'another --train_dir'
  if old is None:
    if checkpoints.find(run.train_dir):
      raise UserError(f'{run.train_dir} holds checkpoints but no run.json, so '
                      f'there is no telling what they are: {ways_out}')
    return
  for name in 'checksum', 'record_format':
    if getattr(old, name) is None:  # Of the time before it was noted.
      old = dataclasses.replace(old, **{name: getattr(run, name)})
  was, wanted = old.identity(), run.identity()
  different = [f'{name} {was.get(name)}, not {wanted.get(name)}'
               for name in {**was, **wanted}
               if was.get(name) != wanted.get(name)]
  if different:
    raise UserError(f'{run.train_dir} holds a run with '
                    + ', '.join(different) + f': {ways_out}')


def _describe(run):
  """Writes run.json, now that the graph shows that the run can be."""
  old = run_lib.load(run.train_dir)
  if old and old.num_towers != run.num_towers and tf.get_collection(
      tf.GraphKeys.UPDATE_OPS):
    raise UserError(
        f'{run.train_dir} holds a run of {old.num_towers} towers, not '
        f'{run.num_towers}: {run.network} normalizes batches, tower by tower')
  run_lib.save(run)


def initialize(run):
  """Makes variables start from those of run.init_from, unless the run goes on
  already. To be called when the network is built, before `model.train()`."""
  if run.init_from and not checkpoints.find(run.train_dir):
    checkpoints.initialize_from(run.init_from)


def batch(run, data, augment=None):
  """Returns the images and labels of a step, for all towers together.

  Args:
    run: a prepared `Run`.
    data: its `directories.Dataset`.
    augment: a function in place of the recipe's augmentation, see
      `inputs.images_of()`.

  Returns:
    images: [run.global_batch, crop_size, crop_size, depth] of run.dtype.
    labels: int32 [run.global_batch].
  """
  distort = inputs.images_of(
      run.recipe, data.format,
      lambda: data.read_images(data.train)[:run.num_examples], augment,
      run.dtype).distort
  if run.input == 'tfdata':
    return inputs.distorted_inputs(data.train, data.format, distort,
                                   run.global_batch, run.seed, run.num_examples,
                                   run.recipe.alternating_flip)
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


def loop(step, run, hooks=(), config=None):
  """Trains from the newest checkpoint, or the start, to run.max_steps.

  To be called in `open_train_dir()`, inside the graph, and last: the graph is
  finalized.

  Args:
    step: the `model.Step` to repeat.
    run: a prepared `Run`.
    hooks: further tf.train.SessionRunHooks, around each step's session.run().
    config: ConfigProto of the session; default: `session_config()`.

  Raises:
    UserError: the loss, a gradient or a weight is not finite; or there are
      checkpoints, but none that can be read, or is of this graph.
    SystemExit: SIGINT or SIGTERM came. The step was finished and saved; the
      exit code is 128 + the signal's number.
  """
  started = time.time()
  checkpoint = checkpoints.newest(run.train_dir)
  if checkpoint:
    checkpoints.check_variables(
        checkpoint, {v.op.name: v for v in tf.global_variables()})
    checkpoints.adopt(checkpoint)
  elif os.path.exists(run_lib.path(run.train_dir)):
    print(f'{run.train_dir} holds no checkpoint of this run yet: starting at '
          'step 0.')
  _describe(run)
  global_step = tf.train.get_or_create_global_step()
  summary_op = tf.summary.merge_all()
  with tf.name_scope('finite'):
    finite = tf.reduce_all([
        tf.reduce_all(tf.is_finite(v)) for v in tf.global_variables()
        if v.dtype.base_dtype.is_floating])
  saver = tf.train.Saver(max_to_keep=run.keep_checkpoints,
                         save_relative_paths=True)
  creator = tf.train.ChiefSessionCreator(
      tf.train.Scaffold(saver=saver), checkpoint_dir=run.train_dir,
      config=config or session_config(run.log_device_placement))

  # Explained inside the session, which takes some exceptions for the end.
  with cli.received_signals() as signals, \
      tf.train.MonitoredSession(creator, hooks) as session, \
      filesystem.explained(run.train_dir), \
      summaries.Writer(run.train_dir) as writer:

    def run_without_hooks(fetches):
      return session.run_step_fn(
          lambda step_context: step_context.session.run(fetches))

    def save(number):
      """Saves what `number` steps have made of the variables."""
      if not run_without_hooks(finite):
        report.not_finite('after it, a weight is not finite')
      if not os.path.exists(run_lib.path(run.train_dir)):
        raise UserError(f'{run.train_dir}: was moved away or deleted')
      session.run_step_fn(lambda step_context: _save(
          saver, step_context.session, run, number))

    report = reporting.Reporter(run)
    tf.train.write_graph(tf.get_default_graph(), run.train_dir, 'graph.pbtxt')
    writer.graph(step.train_op)
    number = saved = int(run_without_hooks(global_step))
    writer.start(number)
    writer.text('run', f'```json\n{run_lib.describe(run)}\n```', number)
    if number >= run.max_steps:
      print(f'{run.train_dir} is at step {number} already.')
    elif number:
      print(f'Resuming at step {number} of {run.max_steps}.', flush=True)

    while number < run.max_steps and not signals and not session.should_stop():
      # Summaries ride on the step: a run of their own would cost a batch.
      due = number % run.summary_steps == 0
      values, summary = session.run([step, summary_op if due else []])
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

  took = cli.duration(time.time() - started)
  if signals:
    print(f'{signal.Signals(signals[0]).name}: stopped '
          f'{"and saved " if number else ""}at step {number} of '
          f'{run.max_steps}, after {took}. The same command, without --fresh, '
          'goes on from there.', flush=True)
    sys.exit(128 + signals[0])
  print(f'Step {number} of {run.max_steps} is done, after {took}. To see it: '
        f'tensorboard --logdir={run.train_dir}', flush=True)


def _save(saver, session, run, number):
  # Explained here, as the session would take some exceptions for its own.
  with filesystem.explained(run.train_dir):
    # Without a copy of the graph: that is in graph.pbtxt, once.
    saver.save(session, os.path.join(run.train_dir, 'model.ckpt'), number,
               write_meta_graph=False)
