r"""Measures how fast this machine trains a network, and what limits the speed.

    python -m cifar10.benchmark --dtype=bfloat16

Measures the input alone, one tower on a constant batch, the complete training
program, evaluation, and the machine's fastest arithmetic. Prints medians and
quartiles over windows of time. Run it on an idle machine.
"""

import contextlib
import dataclasses
import glob
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from typing import Optional

from absl import flags
import tensorflow.compat.v1 as tf

from cifar10 import cli
from cifar10 import eval as eval_program
from cifar10 import inputs
from cifar10 import model
from cifar10 import multi_gpu_train
from cifar10 import networks
from cifar10 import train
from cifar10.networks import sizes
from cifar10.runs import checkpoints
from cifar10.runs import description
from cifar10.runs import preparation
from cifar10.runs import sessions
from cifar10.util import timing
from cifar10.util.errors import UserError
from cifar10.util.fields import field

FLAGS = flags.FLAGS
_MATRIX_SIZE = 4096


def _tell(what):
  print(f'measuring: {what}', file=sys.stderr, flush=True)


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of a benchmark, which are flags of benchmark."""
  windows: int = field(5, minimum=1, help='Windows of time to measure for each '
                       'figure: 2 seconds each, or 100 steps of training.')
  json: bool = field(False, help='Print JSON.')
  trace: Optional[str] = field(
      None, help='File for a trace of one training step, which '
      'chrome://tracing shows.')


@contextlib.contextmanager
def _session():
  """Yields a session with initialized variables of the current graph."""
  with tf.Session(config=sessions.config()) as session:
    session.run(tf.global_variables_initializer())
    session.run([tf.local_variables_initializer(), tf.tables_initializer()])
    yield session


def measure_matrix_product(dtype, device, num_windows):
  """Measures the limit of arithmetic with a large matrix product.

  Returns:
    `timing.Rate` of floating-point operations.
  """
  with tf.Graph().as_default(), tf.device(device):
    matrix = tf.cast(tf.random.normal([_MATRIX_SIZE, _MATRIX_SIZE]), dtype)
    a, b = (tf.get_variable(name, initializer=matrix) for name in 'ab')
    product = tf.matmul(a, b).op
    with _session() as session:
      return timing.repeat(lambda: session.run(product), 2 * _MATRIX_SIZE**3,
                     num_windows)


def measure_input(run, data, num_windows):
  """Returns the `timing.Rate` of images of the input alone."""
  with tf.Graph().as_default():
    batch = [tensor.op for tensor in inputs.distorted_inputs(run, data)]
    with _session() as session:
      return timing.repeat(lambda: session.run(batch), run.global_batch,
                           num_windows)


def measure_constant_batch(run, data, device, num_windows):
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
      _tell(f'training, step {self._steps}')

  @property
  def windows(self):
    images = self._length * self._images
    return [(images, end - start, cpu_end - cpu_start) for (start, cpu_start), (
        end, cpu_end) in zip(self._marks, self._marks[1:])]


def measure_program(run, devices, num_windows, trace=None):
  """Measures the training program with summaries, checkpoints and reports.

  Args:
    run: the `Run`.
    devices: list with a device for each tower.
    num_windows: number of windows to measure, each from summary to summary.
    trace: path for a Chrome trace of an additional step; None: no trace.

  Returns:
    `timing.Rate` of images, and the number of seconds until step 0 was done.
  """
  windows = _Windows(run)
  run = dataclasses.replace(
      run, max_steps=run.summary_steps * (num_windows + 1))

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


def measure_evaluation(run, data, num_windows):
  """Returns the `timing.Rate` of images of evaluation.

  This includes building the graph and restoring the checkpoint.
  """
  checkpoint = checkpoints.newest(run.train_dir)
  options = eval_program.Options()
  return timing.rate_of([
      timing.window(lambda: eval_program.evaluate_once(
          checkpoint, run, data, options).num_examples)
      for _ in range(num_windows)])


def benchmark(options, devices, num_windows=5, trace=None):
  """Runs all measurements.

  Args:
    options: the `description.Options` of a training, whose train_dir must not
      exist.
    devices: list with a device for each tower of the training program.
    num_windows: number of windows of time for each measurement.
    trace: path for a Chrome trace of one step; None: no trace.

  Returns:
    Dict of the results, for JSON.
  """
  options = dataclasses.replace(options, num_towers=len(devices))
  with contextlib.redirect_stdout(None):
    run, data = preparation.prepare(options)

  # First, so that the peak memory is that of the training program.
  whole, first_step_secs = measure_program(run, devices, num_windows, trace)
  memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  _tell('input')
  alone = measure_input(run, data, num_windows)
  _tell('constant batch')
  constant = measure_constant_batch(run, data, devices[0], num_windows)
  _tell('evaluation')
  evaluated = measure_evaluation(run, data, num_windows)
  _tell('matrix products')
  limits = {dtype: measure_matrix_product(dtype, devices[0], num_windows)
            for dtype in dict.fromkeys(('float32', 'bfloat16', run.dtype))}

  rates = {'input alone': alone, 'one tower, constant batch': constant,
           'training program': whole, 'evaluation': evaluated}
  operations = 2 * sizes.size(networks.find(run.network), run.record_format,
                                 run.recipe).training
  return {
      'network': run.network, 'dtype': run.dtype,
      'batch_size': run.recipe.batch_size, 'towers': devices,
      'tensorflow': tf.__version__,
      'images_per_sec': {name: rate._asdict() for name, rate in rates.items()},
      'matrix_product_flops': {
          name: rate._asdict() for name, rate in limits.items()},
      'operations_per_image': operations,
      'fraction_of_limit': (
          operations * whole.median / limits[run.dtype].median),
      'input_share_of_cpu': alone.cpu_seconds / whole.cpu_seconds,
      'input_bound': alone.median < 1.5 * whole.median,
      'first_step_secs': first_step_secs,
      # ru_maxrss is in bytes on macOS, in KiB on Linux.
      'peak_memory_bytes': memory * (1 if sys.platform == 'darwin' else 1024)}


def table(result):
  """Formats the result of `benchmark()` as text."""
  lines = [f"{result['network']}, {result['dtype']}, "
           f"{len(result['towers'])} x {result['batch_size']} images a step, "
           f"on {', '.join(result['towers'])}; TensorFlow "
           f"{result['tensorflow']}",
           '', f"{'images/s':>40}   half the windows"]
  for name, rate in result['images_per_sec'].items():
    lines.append(f"{name:28}{rate['median']:12,.0f}   "
                 f"{rate['low']:,.0f} to {rate['high']:,.0f}")
  lines += ['', f"{'GFLOP/s':>40}"]
  for name, rate in result['matrix_product_flops'].items():
    lines.append(f"{'matrix product, ' + name:28}"
                 f"{rate['median'] / 1e9:12,.0f}   "
                 f"{rate['low'] / 1e9:,.0f} to {rate['high'] / 1e9:,.0f}")
  whole, alone = (result['images_per_sec'][name]['median']
                  for name in ('training program', 'input alone'))
  operations = result['operations_per_image']
  lines.append(f"{'training program':28}{operations * whole / 1e9:12,.0f}   "
               f"{100 * result['fraction_of_limit']:.0f}% of the limit, at "
               f'{operations / 1e6:,.1f} million an image')
  lines += [
      '', f"{'Input' if result['input_bound'] else 'Compute'}-bound: the input "
      f'alone makes {alone / whole:.1f} times what is trained on, and takes '
      f"{100 * result['input_share_of_cpu']:.1f}% of the CPU time.",
      f"Step 0 was done {result['first_step_secs']:.1f} s after the start. "
      f"Peak memory: {result['peak_memory_bytes'] / 1e9:.2f} GB."]
  return '\n'.join(lines)


def main():
  trace = os.path.abspath(FLAGS.trace or '')
  if not os.path.isdir(os.path.dirname(trace)):
    raise UserError(f'--trace={FLAGS.trace}: there is no such directory')
  with tempfile.TemporaryDirectory() as directory:
    result = benchmark(
        dataclasses.replace(cli.options_from_flags(),
                            train_dir=os.path.join(directory, 'train')),
        multi_gpu_train.find_devices(FLAGS.num_gpus), FLAGS.windows,
        FLAGS.trace)
  print(json.dumps(result) if FLAGS.json else table(result))


if __name__ == '__main__':
  cli.define(description.Options, 'data_dir', 'dataset', 'data_url', 'network',
             'dtype')
  cli.define(cli.TrainingFlags, 'recipe', 'batch_size', 'num_gpus')
  cli.define(Options)
  cli.run(main)
