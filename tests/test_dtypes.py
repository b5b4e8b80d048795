"""--dtype: bfloat16 and float16 compute, float32 remembers."""

import dataclasses

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from cifar10 import augmentation
from cifar10 import dataset
from cifar10 import evaluation
from cifar10 import model
from cifar10 import multi_gpu_train
from cifar10 import networks
from cifar10 import run as run_lib
from cifar10 import train
from cifar10 import UserError
from tests.conftest import assert_same_checkpoints
from tests.conftest import read_checkpoint


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
@pytest.mark.parametrize('name', networks.NETWORKS)
def test_logits_are_those_of_float32_but_for_rounding(name, dtype):
  network = networks.NETWORKS[name]
  side = network.RECIPE.crop_size
  images = np.random.default_rng(0).normal(size=(4, side, side, 3))
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(1)
    logits = []
    for kind in 'float32', dtype:
      with tf.variable_scope('', reuse=kind == dtype):
        logits.append(network.inference(tf.constant(images, kind), 10))
    assert logits[1].dtype == dtype
    session.run(tf.global_variables_initializer())
    expected, found = session.run([logits[0], tf.cast(logits[1], tf.float32)])
  scale = abs(expected).max() or 1
  tolerance = {'bfloat16': 0.05, 'float16': 0.01}[dtype]
  np.testing.assert_allclose(found / scale, expected / scale, atol=tolerance)


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_products_are_of_the_type_and_variables_are_not(make_run, dtype):
  run = make_run(dtype=dtype, max_steps=1)
  class Graph(tf.train.SessionRunHook):
    def begin(self):
      self.graph = tf.get_default_graph()

  hook = Graph()
  train.train(run, hooks=[hook])
  products = [op for op in hook.graph.get_operations()
              if op.type in ('Conv2D', 'MatMul', 'Conv2DBackpropInput',
                             'Conv2DBackpropFilter', 'MaxPool', 'Relu')]
  assert len(products) > 15
  assert {op.outputs[0].dtype for op in products} == {tf.as_dtype(dtype)}
  for name, value in read_checkpoint(f'{run.train_dir}/model.ckpt-1').items():
    assert value.dtype == (np.int64 if name == 'global_step' else np.float32)


@pytest.mark.parametrize('dtype, tolerance', [('bfloat16', 0.05),
                                              ('float16', 0.01)])
def test_steps_are_those_of_float32_but_for_rounding(make_run, tmp_path, dtype,
                                                     tolerance):
  start = train.train(make_run(max_steps=1, train_dir=str(tmp_path / 'start'),
                               recipe=dataclasses.replace(
                                   model.RECIPE, learning_rate=0.0)))
  before = read_checkpoint(f'{start.train_dir}/model.ckpt-1')
  values = [read_checkpoint(train.train(make_run(
      dtype=kind, max_steps=4,
      train_dir=str(tmp_path / kind))).train_dir + '/model.ckpt-4')
            for kind in ('float32', dtype)]
  for name in values[0]:
    if name.endswith('weights'):
      expected, found = (v[name] - before[name] for v in values)
      assert (np.linalg.norm(found - expected)
              < tolerance * np.linalg.norm(expected)), name


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
@pytest.mark.parametrize('name', ['convnet', 'improved_cnn'])
def test_resumed_equals_uninterrupted(make_run, tmp_path, name, dtype):
  whole = train.train(make_run(network=name, batch_size=4, max_steps=3,
                               dtype=dtype, train_dir=str(tmp_path / 'whole')))
  for steps in 2, 3:
    parts = train.train(make_run(network=name, batch_size=4, max_steps=steps,
                                 dtype=dtype))
  assert_same_checkpoints(f'{whole.train_dir}/model.ckpt-3',
                          f'{parts.train_dir}/model.ckpt-3')
  assert run_lib.load(parts.train_dir).dtype == dtype
  with pytest.raises(UserError, match=f'dtype {dtype}, not float32'):
    train.train(make_run(network=name, batch_size=4, max_steps=3))


def test_two_towers_of_bfloat16_equal_one_device_but_for_rounding(make_run,
                                                                  tmp_path):
  one = train.train(make_run(dtype='bfloat16', batch_size=64,
                             train_dir=str(tmp_path / 'one')))
  two = multi_gpu_train.train(make_run(dtype='bfloat16', batch_size=32),
                              ['/cpu:0'] * 2)
  found, expected = (read_checkpoint(f'{run.train_dir}/model.ckpt-5')
                     for run in (two, one))
  for name in expected:
    if name.endswith('weights'):
      # A tower's gradients are rounded before they meet, to 2**-9 of each.
      np.testing.assert_allclose(
          found[name], expected[name], rtol=0,
          atol=1e-3 * abs(expected[name]).max(), err_msg=name)


def test_any_checkpoint_evaluates_in_any_type(make_run):
  run = train.train(make_run(network='baseline_cnn', dtype='bfloat16',
                             max_steps=10))
  data = dataset.ensure('cifar10', run.data_dir)
  checkpoint = f'{run.train_dir}/model.ckpt-10'
  entropies = {dtype: evaluation.evaluate(
      checkpoint, run, data, dtype=dtype).metrics['cross_entropy']
      for dtype in (None, *run_lib.DTYPES)}
  assert entropies[None] == entropies['bfloat16'] != entropies['float32']
  for value in entropies.values():
    assert value == pytest.approx(entropies['float32'], rel=0.01)


def huge(images, size, seed):
  """Images of 60,000 and, in the third batch alone, more than float16 has."""
  images = tf.cast(augmentation.central_crop(images, size), tf.float32)
  return images * tf.where(tf.equal(seed[1], 2), 1e6, 1.0)


@pytest.mark.parametrize('optimizer', ['sgd', 'momentum', 'adam'])
def test_a_step_that_overflows_changes_no_weight_but_counts(
    make_run, capsys, optimizer):
  class Weights(tf.train.SessionRunHook):
    values = []

    def after_run(self, run_context, run_values):
      self.values.append(run_context.session.run(
          {v.op.name: v for v in tf.global_variables()}))

  hook = Weights()
  hook.values = []
  recipe = dataclasses.replace(
      networks.find('improved_cnn').RECIPE, optimizer=optimizer,
      learning_rate=0.01, moving_average_decay=0.5)
  run = make_run(network='improved_cnn', recipe=recipe, dtype='float16',
                 max_steps=5, log_frequency=1)
  train.train(run, hooks=[hook], augment=huge)
  assert [v['global_step'] for v in hook.values] == [1, 2, 3, 4, 5]
  for step in range(1, 5):
    before, after = hook.values[step - 1], hook.values[step]
    same = {name for name in before if (before[name] == after[name]).all()}
    own = {name for name in before if 'Moving' not in name and 'avg' not in name
           and name != 'global_step'}
    if step == 2:
      assert same >= own
    else:
      assert 'conv1a/weights' not in same and 'softmax_linear/weights' not in same
    for name, value in after.items():
      assert np.isfinite(value).all(), name
  assert re_steps(capsys.readouterr().out) == 5


def re_steps(out):
  return sum('loss = ' in line for line in out.splitlines())


def test_overflow_without_end_ends_the_training(make_run):
  def black_hole(images, size, seed):
    return 1e9 * tf.cast(augmentation.central_crop(images, size), tf.float32)

  with pytest.raises(UserError, match='step 99: loss .*not all of this is fin'):
    train.train(make_run(network='baseline_cnn', dtype='float16', max_steps=200,
                         batch_size=2), augment=black_hole)
