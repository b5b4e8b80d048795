"""What the libraries make of arguments that flags give, beside other tests."""

import glob
import inspect
import re

import numpy as np
from PIL import Image
import pytest
import scipy.io
import tensorflow as tf2
import tensorflow.compat.v1 as tf

from cifar10 import benchmark
from cifar10 import inputs
from cifar10 import measurements
from cifar10 import multi_gpu_train
from cifar10 import train
from cifar10.data import directories
from cifar10.data import importers
from cifar10.runs import preparation
from cifar10.util import timing
from cifar10.util.errors import UserError
from tests import numerics
from tests.programs import run_export
from tests.programs import run_predict
from tests.test_dtypes import ROUNDINGS


def test_the_queue_holds_the_fraction_of_an_epoch(make_run, capsys):
  run, data = preparation.prepare(make_run(
      input='queue', min_fraction_of_examples_in_queue=0.2))
  with tf.Graph().as_default() as graph:
    inputs.distorted_inputs(run, data)
    queue, = (op for op in graph.get_operations()
              if op.type == 'RandomShuffleQueueV2')
  assert 'Filling queue with 60 CIFAR images' in capsys.readouterr().out
  assert queue.get_attr('min_after_dequeue') == 60
  assert queue.get_attr('capacity') == 60 + 3 * 12


def test_where_operations_run_is_told_if_asked_for(run_program, data_dir,
                                                   tmp_path):
  for flag, is_told in ('--log_device_placement', True), ('', False):
    code, out, err = run_program(
        'train', '--network=softmax', '--max_steps=1', '--batch_size=4',
        f'--data_dir={data_dir}', f'--train_dir={tmp_path}/{is_told}',
        *flag.split())
    assert code == 0, err
    assert bool(re.search(r'MatMul: \(MatMul\): /job:\S+/device:', out)
                ) == is_told


def test_training_downloads_from_where_it_is_told(make_run, tmp_path):
  with pytest.raises(UserError, match='ftp:here: expected a URL that ends in'):
    preparation.prepare(make_run(data_dir=str(tmp_path), data_url=['ftp:here']))

  # It can hold a password, so it is not in the description of the run.
  run, _ = preparation.prepare(make_run(data_url='https://x/cifar10.tar?key'))
  assert run.data_url == ()


def test_towers_start_afresh_if_asked_to(make_run):
  for seed, fresh in (1, False), (2, True):
    run = multi_gpu_train.train(
        make_run(network='softmax', max_steps=1, seed=seed), ['/cpu:0'], fresh)
  aside, = glob.glob(f'{run.train_dir}/before-*')
  assert 'model.ckpt-1.index' in glob.glob('*.index', root_dir=aside)


def test_predictions_and_exports_are_of_the_type_asked_for(make_small_run,
                                                           tmp_path):
  run = train.train(make_small_run(max_steps=1))
  pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
  path = str(tmp_path / 'x.png')
  Image.fromarray(pixels).save(path)
  own, float32, bfloat16 = (
      next(run_predict([path], run.train_dir, dtype=dtype))[1]
      for dtype in (None, 'float32', 'bfloat16'))
  np.testing.assert_array_equal(own, float32)
  gap = abs(bfloat16 - float32).max()
  assert gap > 0
  numerics.assert_close(bfloat16, float32, ROUNDINGS['two_layer_fc'],
                        dtype='bfloat16')
  for dtype, expected in (None, float32), ('bfloat16', bfloat16):
    directory, _ = run_export(run.train_dir, tmp_path / 'x', dtype=dtype)
    found = tf2.saved_model.load(str(directory)).signatures['images'](
        images=tf2.constant(pixels[np.newaxis]))['probabilities']
    assert abs(found.numpy()[0] - expected).max() < 0.1 * gap

  with pytest.raises(UserError, match='--device=gpu0: expected'):
    next(run_predict([path], run.train_dir, device='gpu0'))


def test_size_fraction_and_strictness_of_other_imports(tmp_path):
  """As those of folders, in test_importers.py."""
  names = [f'{i}.png' for i in range(20)]
  for i, name in enumerate(names):
    Image.new('RGB', (8, 8), (i, 0, 0)).save(tmp_path / name)
  (tmp_path / 'list.csv').write_text(''.join(
      f'{name},{i % 2}\n' for i, name in enumerate(names)))
  importers.import_csv(tmp_path / 'own', tmp_path / 'list.csv', 5, 0.3)
  data = directories.load('own', tmp_path / 'own')
  assert (data.format.height, data.format.width) == (5, 5)
  assert (len(data.train), len(data.test)) == (14, 6)
  (tmp_path / names[3]).write_bytes(b'')
  with pytest.raises(UserError, match='3.png'):
    importers.import_csv(tmp_path / 'new', tmp_path / 'list.csv', 5, 0.3, True)

  for part in 'train', 'test':
    scipy.io.savemat(tmp_path / f'{part}_32x32.mat', {
        'X': np.zeros((32, 32, 3, 2), np.uint8), 'y': np.uint8([[1], [2]])})
  importers.import_svhn(tmp_path / 'svhn', tmp_path, 16, 0.3)
  data = directories.load('own', tmp_path / 'svhn')
  assert (data.format.height, data.format.width) == (16, 16)

  for images in (np.zeros((32, 32, 3, 2)), np.zeros((32, 32, 4, 2), np.uint8)):
    scipy.io.savemat(tmp_path / 'test_32x32.mat', {
        'X': images, 'y': np.uint8([[1], [2]])})
    with pytest.raises(UserError, match='t_32x32.mat: is not a file of crop'):
      importers.import_svhn(tmp_path / 'other', tmp_path, 16, 0.3)


def test_the_benchmark_measures_so_many_windows(make_run, monkeypatch):
  asked = []

  def measure(name, result):
    signature = inspect.signature(getattr(measurements, name))

    def measuring(*args):
      asked.append((name, signature.bind(*args).arguments['num_windows']))
      return result

    monkeypatch.setattr(measurements, name, measuring)

  rate = timing.Rate(1.0, 1.0, 1.0, 1.0)
  measure('program', (rate, 1.0))
  for what in 'input_alone', 'constant_batch', 'evaluation', 'matrix_product':
    measure(what, rate)
  benchmark.benchmark(make_run(network='softmax'), ['/cpu:0'], 7)
  assert asked == [(what, 7) for what in (
      'program', 'input_alone', 'constant_batch', 'evaluation',
      'matrix_product', 'matrix_product')]
