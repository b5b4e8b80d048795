"""GPUs: the same training, evaluation and prediction as on CPUs.

Where there is no GPU, the tests that are marked `gpu` are skipped. What each of
them does is done on logical CPUs by `pytest -m long tests/test_on_gpus.py`. A
training is a process of its own, because TensorFlow sets up the devices of a
process once.
"""

import functools
import json
import re

import numpy as np
from PIL import Image
import pytest
import tensorflow.compat.v1 as tf
# The kernels that TensorFlow has, also for devices that are not here.
from tensorflow.python.framework import kernels as registry

from cifar10 import multi_gpu_train
from cifar10 import networks
from cifar10.runs import description
from cifar10.runs import preparation
from cifar10.runs import sessions
from tests import numerics
from tests.conftest import assert_same_checkpoints
from tests.conftest import read_checkpoint
from tests.conftest import TEST_GPU
from tests.conftest import with_batch_size
from tests.networks.test_networks import TERMS
from tests.programs import run_predict
from tests.test_dtypes import ROUNDINGS

DEVICES = pytest.mark.parametrize('device', [
    pytest.param('cpu', marks=pytest.mark.long),
    pytest.param('gpu', marks=[pytest.mark.gpu, pytest.mark.skipif(
        not TEST_GPU, reason='TensorFlow finds no GPU here')])])
TYPES = pytest.mark.parametrize('dtype', description.DTYPES)


@pytest.fixture
def environment(device):
  """Environment variables of a program that is to use a device."""
  return {'CUDA_VISIBLE_DEVICES': TEST_GPU if device == 'gpu' else ''}


@pytest.fixture
def finish(start, environment):
  """Runs a program on a device to its end; returns what it wrote to stdout."""
  def run(name, *arguments, **variables):
    program = start(name, *arguments, **environment, **variables)
    assert program.end(600) == 0, program.err
    return program.out

  return run


def check_found(device):
  """Asserts that a device is found: otherwise, TensorFlow takes the CPU."""
  assert 'gpu' not in device or tf.config.list_physical_devices('GPU')


def train_towers(devices, initial, options):
  """Trains on two logical devices of a kind.

  Args:
    devices: a device for each tower.
    initial: path to write the initial values of the variables to.
    options: arguments of `with_batch_size()`.
  """
  check_found(devices[0])
  # Otherwise, GPUs round the factors of float32 products to 11 bits.
  tf.config.experimental.enable_tensor_float_32_execution(False)
  config = sessions.config(device_count={'CPU': 2})
  config.gpu_options.experimental.virtual_devices.add(
      memory_limit_mb=[2048, 2048])
  start = numerics.Start()
  multi_gpu_train.train(with_batch_size(**options), devices, hooks=[start],
                        config=config)
  np.savez(initial, **start.values)


def train_networks(directory, device, options):
  """Trains each network for two steps."""
  check_found(device)
  for network in networks.NETWORKS:
    multi_gpu_train.train(
        with_batch_size(8, train_dir=f'{directory}/{network}', network=network,
                        max_steps=2, **options), [f'/{device}:0'])


def call(function, *arguments):
  """Returns the text of a program that calls a function of this module."""
  return (f'from tests import test_on_gpus; test_on_gpus.{function.__name__}'
          f'(*{arguments!r})')


@functools.lru_cache(maxsize=None)
def has_kernel_on_gpu(op_type, **types):
  """Returns whether an operation has a kernel for GPUs."""
  return any(
      all(types.get(constraint.name, constraint.allowed_values.list.type[0])
          in constraint.allowed_values.list.type
          for constraint in kernel.constraint)
      for kernel in registry.get_registered_kernels_for_op(op_type).kernel
      if kernel.device_type in ('GPU', 'DEFAULT'))


@pytest.mark.skipif(not tf.test.is_built_with_cuda(),
                    reason='this TensorFlow is built without CUDA')
@pytest.mark.parametrize('network, dtype', [
    *(('convnet', dtype) for dtype in description.DTYPES),
    *((network, 'bfloat16')
      for network in ('local', 'improved_cnn', 'airnet_small')),
    *(pytest.param(network, dtype, marks=pytest.mark.long)
      for network in networks.NETWORKS for dtype in description.DTYPES)])
def test_what_is_on_a_gpu_has_a_kernel_there(make_run, network, dtype):
  run, data = preparation.prepare(make_run(network=network, dtype=dtype,
                                           num_towers=2))
  with tf.Graph().as_default() as graph:
    multi_gpu_train.build(run, data, ['/gpu:0', '/gpu:1'])
  placed = [op for op in graph.get_operations() if 'GPU' in op.device]
  assert len(placed) > 50
  assert not has_kernel_on_gpu('HistogramSummary')
  without = [
      (op.name, op.type) for op in placed
      if not has_kernel_on_gpu(op.type, **{
          name: attribute.type for name, attribute in op.node_def.attr.items()
          if attribute.WhichOneof('value') == 'type'})]
  assert not without


@DEVICES
@TYPES
def test_towers_equal_one_device(finish, data_dir, tmp_path, device, dtype):
  checkpoints = []
  for name, count in ('one', 1), ('two', 2):
    options = {'batch_size': 128 // count, 'train_dir': f'{tmp_path}/{name}',
               'data_dir': data_dir, 'max_steps': 5, 'dtype': dtype}
    finish(call(train_towers, [f'/{device}:{i}' for i in range(count)],
                f'{tmp_path}/{name}.npz', options))
    checkpoints.append(read_checkpoint(f'{tmp_path}/{name}/model.ckpt-5'))
  (expected, found), start = checkpoints, np.load(f'{tmp_path}/one.npz')
  if dtype == 'float32':
    numerics.assert_same_training(found, expected, start, TERMS['convnet'],
                                  values=128 * 192, steps=5)
  else:
    numerics.assert_same_training_of_16_bits(found, expected, start,
                                             ROUNDINGS['convnet'], dtype)


@DEVICES
@pytest.mark.parametrize('network, dtype', [
    ('convnet', 'float32'), ('improved_cnn', 'bfloat16')])
def test_resumed_equals_uninterrupted(finish, data_dir, tmp_path, device,
                                      network, dtype):
  def train(name, steps):
    out = finish(
        'multi_gpu_train', f'--network={network}', f'--dtype={dtype}',
        '--num_gpus=2', '--batch_size=8', f'--max_steps={steps}',
        f'--data_dir={data_dir}', f'--train_dir={tmp_path}/{name}',
        TF_DETERMINISTIC_OPS='1')
    assert f'Towers: tower_0 on /{device}:0, tower_1 on /{device}:0' in out

  train('whole', 4)
  train('resumed', 2)
  train('resumed', 4)
  assert_same_checkpoints(*(f'{tmp_path}/{name}/model.ckpt-4'
                            for name in ('whole', 'resumed')))


@DEVICES
@TYPES
def test_every_network_trains(finish, data_dir, tmp_path, device, dtype):
  out = finish(call(train_networks, str(tmp_path), device, {
      'data_dir': data_dir, 'dtype': dtype}))
  assert out.count('Step 2 of 2 is done') == len(networks.NETWORKS)
  assert out.count(f'Towers: tower_0 on /{device}:0\n') == len(
      networks.NETWORKS)


@DEVICES
def test_evaluation_beside_a_training(start, finish, environment, data_dir,
                                      tmp_path, device):
  trainer = start(
      'multi_gpu_train', '--num_gpus=2', '--batch_size=8',
      '--max_steps=9999999', '--checkpoint_steps=20', '--keep_checkpoints=1000',
      f'--data_dir={data_dir}', f'--train_dir={tmp_path}', **environment)
  trainer.expect('step 40')
  assert f'Towers: tower_0 on /{device}:0, tower_1 on /{device}:0' in (
      trainer.out)
  out = finish('eval', '--run_once', f'--data_dir={data_dir}',
               f'--checkpoint_dir={tmp_path}', f'--eval_dir={tmp_path}/eval')
  assert re.search(r'precision @ 1 = 0\.\d+ \(step \d+, 130 examples', out)
  assert trainer.is_alive, trainer.err


def print_probabilities(device, directory, pictures):
  """Prints the probabilities of pictures, by predict.predict() and by an
  exported model, as JSON."""
  check_found(device)
  predicted = [probabilities for _, probabilities, _ in run_predict(
      pictures, f'{directory}/train')]
  images = [np.asarray(Image.open(path)) for path in pictures]
  with tf.Session(graph=tf.Graph(), config=sessions.config()) as session:
    signature = tf.saved_model.load(
        session, ['serve'], f'{directory}/export/1').signature_def['images']
    exported = session.run(signature.outputs['probabilities'].name,
                           {signature.inputs['images'].name: images})
  print(json.dumps([np.array(predicted).tolist(), exported.tolist()]))


@DEVICES
@TYPES
def test_prediction_and_export_equal_those_of_a_cpu(
    start, finish, data_dir, tmp_path, device, dtype):
  finish('multi_gpu_train', '--max_steps=20', f'--dtype={dtype}',
         f'--data_dir={data_dir}', f'--train_dir={tmp_path}/train')
  finish('export', f'--checkpoint_dir={tmp_path}/train',
         f'--export_dir={tmp_path}/export')
  pictures = [f'{tmp_path}/{i}.png' for i in range(3)]
  for path, image in zip(pictures, np.random.default_rng(0).integers(
      0, 256, (3, 32, 32, 3), np.uint8)):
    Image.fromarray(image).save(path)
  found = json.loads(finish(call(
      print_probabilities, device, str(tmp_path), pictures)).splitlines()[-1])
  on_cpu = start(call(print_probabilities, 'cpu', str(tmp_path), pictures),
                 CUDA_VISIBLE_DEVICES='')
  assert on_cpu.end() == 0, on_cpu.err
  expected = json.loads(on_cpu.out.splitlines()[-1])
  # GPUs round the factors of float32 products as float16 does.
  numerics.assert_close(
      found, expected, ROUNDINGS['convnet'],
      dtype='bfloat16' if dtype == 'bfloat16' else 'float16')


@DEVICES
def test_benchmark(finish, data_dir, device):
  found = json.loads(finish('benchmark', '--network=softmax', '--windows=1',
                            '--json', f'--data_dir={data_dir}'))
  assert found['towers'] == [f'/{device}:0']
  assert found['images_per_sec']['training program']['median'] > 0
