r"""Measures how fast this machine trains a network, and what limits the speed.

    python -m cifar10.benchmark --dtype=bfloat16

Measures the input alone, one tower on a constant batch, the complete training
program, evaluation, and the machine's fastest arithmetic. Prints medians and
quartiles over windows of time. With --all, measures a step of every network
instead. Run it on an idle machine.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import resource
import sys
import tempfile
from typing import Optional

from absl import flags
import tensorflow.compat.v1 as tf

from cifar10 import cli
from cifar10 import measurements
from cifar10 import multi_gpu_train
from cifar10 import networks
from cifar10.runs import description
from cifar10.runs import preparation
from cifar10.util.errors import UserError
from cifar10.util.fields import field

FLAGS = flags.FLAGS
_FLAGS_OF_COMPARE = 'data_dir', 'dataset', 'data_url', 'windows', 'all', 'json'


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of a benchmark, which are flags of benchmark."""
  windows: int = field(5, minimum=1, help='Windows of time to measure for each '
                       'figure: 2 seconds each, or 100 steps of training.')
  all: bool = field(False, help='Compare the training steps of all networks by '
                    'their own recipes, on a constant batch, in float32 and '
                    'bfloat16, with the limit of the machine.')
  json: bool = field(False, help='Print JSON.')
  trace: Optional[str] = field(
      None, help='File for a trace of one training step, which '
      'chrome://tracing shows.')


def _prepare(options):
  with contextlib.redirect_stdout(None):
    return preparation.prepare(options)


def compare(options, device, num_windows):
  """Measures a step of every network in float32 and bfloat16, on a constant
  batch.

  Args:
    options: the `description.Options` of a training, whose network and recipe
      are ignored.
    device: the device to measure.
    num_windows: number of windows of time for each measurement.

  Returns:
    List of dicts, for JSON.
  """
  prepared = [
      _prepare(dataclasses.replace(options, network=network, recipe=None))
      for network in networks.NETWORKS]
  measurements.tell('matrix products')
  limits = {
      dtype: measurements.matrix_product(dtype, device, num_windows).median
      for dtype in ('float32', 'bfloat16')}
  results = []
  for (run, data), dtype in itertools.product(prepared, limits):
    run = dataclasses.replace(run, dtype=dtype)
    measurements.tell(f'{run.network}, {dtype}')
    rate = measurements.constant_batch(run, data, device, num_windows).median
    flops, limit = rate * measurements.operations(run), limits[dtype]
    results.append({
        'network': run.network, 'dtype': dtype,
        'batch_size': run.recipe.batch_size, 'images_per_sec': rate,
        'flops': flops, 'limit': limit, 'fraction_of_limit': flops / limit})
  return results


def comparison_table(results):
  """Formats the results of `compare()` as text."""
  limits = {r['dtype']: f"{r['dtype']} {r['limit'] / 1e9:,.0f} GFLOP/s"
            for r in results}
  return '\n'.join(
      ['network       type      images a step    images/s     GFLOP/s'] + [
          f"{r['network']:14}{r['dtype']:10}{r['batch_size']:13}"
          f"{r['images_per_sec']:12,.0f}{r['flops'] / 1e9:12,.0f}"
          f"{100 * r['fraction_of_limit']:5.0f}% of the limit"
          for r in results] + [
              f'The limit is that of a matrix product: '
              f'{", ".join(limits.values())}. Convolutions can pass it. '
              f'TensorFlow {tf.__version__}.'])


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
  run, data = _prepare(dataclasses.replace(options, num_towers=len(devices)))
  # First, so that the peak memory is that of the training program.
  whole, first_step_secs = measurements.program(run, devices, num_windows,
                                                trace)
  memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  measurements.tell('input')
  alone = measurements.input_alone(run, data, num_windows)
  measurements.tell('constant batch')
  constant = measurements.constant_batch(
      dataclasses.replace(run, num_towers=1), data, devices[0], num_windows)
  measurements.tell('evaluation')
  evaluated = measurements.evaluation(run, data, num_windows)
  measurements.tell('matrix products')
  limits = {dtype: measurements.matrix_product(dtype, devices[0], num_windows)
            for dtype in dict.fromkeys(('float32', 'bfloat16', run.dtype))}

  rates = {'input alone': alone, 'one tower, constant batch': constant,
           'training program': whole, 'evaluation': evaluated}
  operations = measurements.operations(run)
  return {
      'network': run.network, 'dtype': run.dtype,
      'batch_size': run.recipe.batch_size, 'towers': devices,
      'tensorflow': tf.__version__,
      'images_per_sec': {name: rate._asdict() for name, rate in rates.items()},
      'matrix_product_flops': {
          name: rate._asdict() for name, rate in limits.items()},
      'operations_per_image': operations,
      'fraction_of_limit': (
          operations * whole.median
          / (limits[run.dtype].median * len(set(devices)))),
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
  if FLAGS.trace and not os.path.isdir(
      os.path.dirname(os.path.abspath(FLAGS.trace))):
    raise UserError(f'--trace={FLAGS.trace}: there is no such directory')
  ignored = [f'--{flag.name}'
             for flag in FLAGS.get_key_flags_for_module(sys.argv[0])
             if flag.name not in _FLAGS_OF_COMPARE
             and flag.value != flag.default]
  if FLAGS.all and ignored:
    raise UserError(f'--all: expected no {" and no ".join(ignored)}')
  options = cli.options_from_flags()
  devices = multi_gpu_train.find_devices(FLAGS.num_gpus)
  with tempfile.TemporaryDirectory() as directory:
    options = dataclasses.replace(
        options, train_dir=os.path.join(directory, 'train'))
    if FLAGS.all:
      result = compare(options, devices[0], FLAGS.windows)
    else:
      result = benchmark(options, devices, FLAGS.windows, FLAGS.trace)
  text = comparison_table if FLAGS.all else table
  print(json.dumps(result) if FLAGS.json else text(result))


if __name__ == '__main__':
  cli.define(description.Options, 'data_dir', 'dataset', 'data_url', 'network',
             'dtype')
  cli.define(cli.TrainingFlags, 'recipe', 'batch_size', 'num_gpus')
  cli.define(Options)
  cli.run(main)
