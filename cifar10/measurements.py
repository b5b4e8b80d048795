"""Measurements of a training: its input, a step, the program, evaluation, and
the limit of the machine. benchmark.py prints them."""

import contextlib
import dataclasses
import glob
import shutil
import sys
import tempfile
import time

import tensorflow.compat.v1 as tf

from cifar10 import eval as eval_program
from cifar10 import inputs
from cifar10 import model
from cifar10 import multi_gpu_train
from cifar10 import networks
from cifar10 import train
from cifar10.networks import sizes
from cifar10.runs import checkpoints
from cifar10.runs import sessions
from cifar10.util import timing

_MATRIX_SIZE = 4096


def tell(what):
  """Prints what is measured now."""
  print(f'measuring: {what}', file=sys.stderr, flush=True)


@contextlib.contextmanager
def _session():
  """Yields a session with initialized variables of the current graph."""
  initializers = (
      tf.global_variables_initializer(),
      tf.group(tf.local_variables_initializer(), tf.tables_initializer()))
  with tf.Session(config=sessions.config()) as session:
    for initializer in initializers:  # The input starts at global_step.
      session.run(initializer)
    yield session


def matrix_product(dtype, device, num_windows):
  """Measures the limit of arithmetic with a large matrix product.

  Returns:
    `timing.Rate` of floating-point operations.
  """
  with tf.Graph().as_default(), tf.device(device):
    # Of this deviation, products have that of their factors.
    matrix = tf.random.normal([_MATRIX_SIZE, _MATRIX_SIZE], seed=1,
                              stddev=_MATRIX_SIZE**-0.5)
    matrix = tf.cast(matrix, dtype)
    product, factor = (tf.get_variable(name, initializer=matrix)
                       for name in 'ab')
    # On a GPU, one would take no longer than session.run() itself.
    count = 1 if 'cpu' in device.lower() else 32
    for _ in range(count):
      product = tf.matmul(product, factor)
    with _session() as session:
      return timing.repeat(lambda: session.run(product.op),
                           2 * count * _MATRIX_SIZE**3, num_windows)


def input_alone(run, data, num_windows):
  """Returns the `timing.Rate` of images of the input alone."""
  with tf.Graph().as_default():
    batch = [tensor.op for tensor in inputs.distorted_inputs(run, data)]
    with _session() as session:
      return timing.repeat(lambda: session.run(batch), run.global_batch,
                           num_windows)


def constant_batch(run, data, device, num_windows):
  """Returns the `timing.Rate` of images of training steps on one tower.

  The batch is constant, and there are no summaries, checkpoints and reports.
  """
  with tf.Graph().as_default():
    batch = inputs.distorted_inputs(run, data)
    with _session() as session:
      images, labels = session.run(batch)
  with tf.Graph().as_default(), tf.device(device):
    tf.set_random_seed(run.seed)
    tf.train.get_or_create_global_step()
    losses, gradients = multi_gpu_train.tower_loss(
        networks.find(run.network), run.recipe, tf.constant(images),
        tf.constant(labels), data.format.num_classes)
    step = model.train(losses, gradients, run.recipe, run.global_batch,
                       run.num_examples, run.dtype)
    with _session() as session:
      return timing.repeat(lambda: session.run(step), run.global_batch,
                           num_windows)


class _Windows(tf.train.SessionRunHook):
  """Measures windows of `summary_steps` steps, except for the first window."""

  def __init__(self, run):
    self._length, self._images = run.summary_steps, run.global_batch
    self._steps, self._marks, self.first_step = 0, [], None

  def after_run(self, run_context, run_values):
    self._steps += 1
    self.first_step = self.first_step or time.time()
    if self._steps % self._length == 0:
      self._marks.append((time.perf_counter(), time.process_time()))
      tell(f'training, step {self._steps}')

  @property
  def windows(self):
    images = self._length * self._images
    return [(images, end - start, cpu_end - cpu_start) for (start, cpu_start), (
        end, cpu_end) in zip(self._marks, self._marks[1:])]


def program(run, devices, num_windows, trace=None):
  """Measures the training program with summaries and reports. It saves its
  checkpoint after the last window.

  Args:
    run: the `Run`.
    devices: list with a device for each tower.
    num_windows: number of windows to measure, each from summary to summary.
    trace: path for a Chrome trace of an additional step; None: no trace.

  Returns:
    `timing.Rate` of images, and the number of seconds until step 0 was done.
  """
  windows = _Windows(run)
  num_steps = run.summary_steps * (num_windows + 1)
  run = dataclasses.replace(run, max_steps=num_steps,
                            checkpoint_steps=num_steps)

  def go(run, hook):
    with contextlib.redirect_stdout(None):
      if len(devices) == 1:
        return train.train(run, hooks=[hook])
      return multi_gpu_train.train(run, devices, hooks=[hook])

  started = time.time()
  run = go(run, windows)
  if trace:
    # The hook's file writer cannot be created in eager mode.
    with tempfile.TemporaryDirectory() as directory, tf.Graph().as_default():
      # The hook traces its second step.
      profiler = tf.train.ProfilerHook(save_steps=1, output_dir=directory)
      go(dataclasses.replace(run, max_steps=run.max_steps + 2), profiler)
      path, = glob.glob(f'{directory}/timeline-*.json')
      shutil.copyfile(path, trace)
  return timing.rate_of(windows.windows), windows.first_step - started


def evaluation(run, data, num_windows):
  """Returns the `timing.Rate` of images of evaluation.

  This includes building the graph and restoring the checkpoint.
  """
  checkpoint = checkpoints.newest(run.train_dir)
  options = eval_program.Options()
  return timing.rate_of([
      timing.window(lambda: eval_program.evaluate_once(
          checkpoint, run, data, options).num_examples)
      for _ in range(num_windows)])


def operations(run):
  """Returns the floating-point operations of a training step for an image."""
  return 2 * sizes.size(networks.find(run.network), run.record_format,
                        run.recipe).training
