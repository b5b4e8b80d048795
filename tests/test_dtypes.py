"""--dtype: bfloat16 and float16 compute, float32 remembers."""

import dataclasses

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from cifar10 import inputs
from cifar10 import model
from cifar10 import multi_gpu_train
from cifar10 import networks
from cifar10 import train
from cifar10.data import datasets
from cifar10.data import records
from cifar10.networks import sizes
from cifar10.nn import augmentation
from cifar10.nn import kernels
from cifar10.runs import description
from cifar10.runs import monitor
from cifar10.runs import preparation
from cifar10.util.errors import UserError
from tests import numerics
from tests.conftest import images_of
from tests.conftest import read_checkpoint
from tests.programs import run_eval_once

# How often a value is rounded on the way from the images to the logits: they
# are; each layer rounds its sums, and them with biases; so do normalization,
# dropout, shortcuts and airnet's division.
ROUNDINGS = {
    'convnet': 1 + 5 * 2 + 2, 'local': 1 + 5 * 2 + 2, 'softmax': 1 + 2,
    'two_layer_fc': 1 + 2 * 2, 'baseline_cnn': 1 + 5 * 2,
    'improved_cnn': 1 + 7 * 3 + 1 + 2, 'resnet32': 1 + 31 * 2 + 15 + 2,
    'airnet_small': 1 + 1 + 6 * 2 + 2,
    'airnet': 1 + 1 + 6 * 2 + 2, 'airnet95': 1 + 1 + 6 * 2 + 2,
    'airnet96': 1 + 1 + 9 * 2 + 3 + 2}


@pytest.mark.numerical
@pytest.mark.parametrize('name', networks.NETWORKS)
def test_logits_are_those_of_float32_but_for_rounding(name):
  network = networks.NETWORKS[name]
  images = np.random.default_rng(0).normal(size=(4, *sizes.input_shape(
      network.RECIPE, records.CIFAR10)))
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(1)
    logits = []
    for dtype in description.DTYPES:
      with tf.variable_scope('', reuse=bool(logits)):
        logits.append(network.inference(tf.constant(images, dtype), 10))
      assert logits[-1].dtype == dtype
    session.run(tf.global_variables_initializer())
    expected, bfloat16, float16 = session.run(
        [tf.cast(values, tf.float32) for values in logits])
  numerics.assert_close(bfloat16, expected, ROUNDINGS[name], dtype='bfloat16')
  numerics.assert_close(float16, expected, ROUNDINGS[name], dtype='float16')


@pytest.mark.numerical
@pytest.mark.parametrize('name', ['convnet', 'local'])
def test_gradients_are_those_of_float32_but_for_rounding(data_dir, name):
  """Rounding moves single values over the thresholds of ReLU and pooling; it
  must not make a gradient longer or shorter on the whole."""
  data = datasets.ensure('cifar10', data_dir)
  images = images_of(data.train)[:16]
  network = networks.NETWORKS[name]
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(1)
    preprocess = inputs.preprocessing(network.RECIPE, data.format, 'float32')
    images = preprocess(tf.constant(images))
    labels = tf.range(16) % 10
    gradients = []
    for dtype in description.DTYPES:
      with tf.variable_scope('', reuse=bool(gradients)):
        logits = network.inference(tf.cast(images, dtype), 10)
      gradients.append(model.gradients(model.loss(logits, labels), dtype))
      assert {g.dtype for g in gradients[-1]} == {tf.float32}
    names = [v.op.name for v in tf.trainable_variables()]
    session.run(tf.global_variables_initializer())
    expected, *found = session.run(gradients)
  for dtype, values in zip(description.DTYPES[1:], found):
    part = numerics.rounding(ROUNDINGS[name], dtype)
    for label, a, b in zip(names, values, expected):
      if 'weights' in label:
        numerics.assert_close_in_length(a, b, part, name=label)
        # Along the gradient, what is lost is the part itself.
        assert (a * b).sum() / (b * b).sum() == pytest.approx(1, abs=part), (
            label)


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
@pytest.mark.parametrize('onednn', [True, False])
def test_products_are_of_the_type_and_variables_are_not(
    make_run, monkeypatch, dtype, onednn):
  monkeypatch.setattr(kernels, '_onednn_computes', lambda dtype: onednn)
  run, data = preparation.prepare(make_run(dtype=dtype))
  with tf.Graph().as_default() as graph:
    multi_gpu_train.build(run, data, ['/cpu:0'])
    variables = tf.global_variables()
  convolutions, others = ([
      op.outputs[0].dtype for op in graph.get_operations() if op.type in types]
      for types in (
          ('Conv2D', 'Conv2DBackpropInput', 'Conv2DBackpropFilter'),
          ('MatMul', 'MaxPool', 'Relu')))
  assert len(convolutions) == 6 and len(others) > 9
  assert {*convolutions} == {tf.as_dtype(dtype if onednn else 'float32')}
  assert {*others} == {tf.as_dtype(dtype)}
  assert {(v.dtype.base_dtype, v.op.name == 'global_step') for v in variables
          } == {(tf.float32, False), (tf.int64, True)}


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_a_run_stays_in_its_type(make_run, dtype):
  run = train.train(make_run(network='softmax', max_steps=1, dtype=dtype))
  assert description.load(run.train_dir).dtype == dtype
  with pytest.raises(UserError, match=f'dtype {dtype}, not float32'):
    train.train(make_run(network='softmax', max_steps=2))


@pytest.mark.numerical
def test_two_towers_of_bfloat16_equal_one_device_but_for_rounding(make_run,
                                                                  tmp_path):
  start = numerics.Start()
  one = train.train(make_run(dtype='bfloat16', batch_size=64,
                             train_dir=str(tmp_path / 'one')), hooks=[start])
  two = multi_gpu_train.train(make_run(dtype='bfloat16', batch_size=32),
                              ['/cpu:0'] * 2)
  expected, found = (read_checkpoint(f'{run.train_dir}/model.ckpt-5')
                     for run in (one, two))
  numerics.assert_same_training_of_16_bits(
      found, expected, start.values, ROUNDINGS['convnet'], 'bfloat16')


def test_any_checkpoint_evaluates_in_any_type(make_run):
  run = train.train(make_run(network='baseline_cnn', dtype='bfloat16',
                             max_steps=10))
  data = datasets.ensure('cifar10', run.data_dir)
  checkpoint = f'{run.train_dir}/model.ckpt-10'
  entropies = {dtype: run_eval_once(
      checkpoint, run, data, dtype=dtype).metrics['cross_entropy']
      for dtype in (None, *description.DTYPES)}
  assert entropies[None] == entropies['bfloat16'] != entropies['float32']
  for dtype in description.DTYPES:
    numerics.assert_close(entropies[dtype], entropies['float32'],
                          ROUNDINGS['baseline_cnn'], dtype=dtype)


@pytest.mark.parametrize('name, optimizer', [
    ('improved_cnn', 'momentum'), ('baseline_cnn', 'sgd'),
    ('baseline_cnn', 'adam')])
def test_a_step_that_overflows_changes_no_weight_but_counts(make_run, name,
                                                            optimizer):
  def flash(images, size, seed):
    """The third batch, and no other, is more than float16 can hold."""
    images = tf.cast(augmentation.central_crop(images, size), tf.float32)
    return images * tf.where(tf.equal(seed.value[1], 2), 1e9, 1.0)

  class Variables(tf.train.SessionRunHook):

    def begin(self):
      self.after = []

    def after_run(self, run_context, run_values):
      self.after.append(run_context.session.run(
          {v.op.name: v for v in tf.global_variables()}))

  hook = Variables()
  recipe = dataclasses.replace(
      networks.find(name).RECIPE, optimizer=optimizer, learning_rate=1e-3)
  train.train(make_run(network=name, recipe=recipe, dtype='float16',
                       batch_size=4, max_steps=4, summary_steps=1),
              hooks=[hook], augment=flash)
  assert [values['global_step'] for values in hook.after] == [1, 2, 3, 4]
  for step, (before, after) in enumerate(zip(hook.after, hook.after[1:]), 1):
    changed = {name for name in before
               if not np.array_equal(before[name], after[name])}
    if step == 2:
      # The statistics of what did not overflow may move on.
      assert not [name for name in changed - {'global_step'}
                  if '/moving_' not in name and '/avg' not in name]
    else:
      assert [name for name in changed if name.endswith('/weights')]
    for name, value in after.items():
      assert np.isfinite(value).all(), name


def test_overflows_now_and_then_do_not_end_the_training(capsys):
  run = description.Run(dtype='float16', num_examples=300, max_steps=5,
                        recipe=model.RECIPE, log_frequency=1)
  report = monitor.Monitor(run)
  for number in range(300):
    loss = np.nan if number % 2 else 1.0
    report.step(model.Step(None, number, 0.1, {'total_loss': loss,
                                               'Precision @ 1': 0.5}, {}))
  assert capsys.readouterr().out.count('loss = nan') == 150


def test_overflow_without_end_ends_the_training(make_run):
  def glare(images, size, seed):
    return 1e9 * tf.cast(augmentation.central_crop(images, size), tf.float32)

  with pytest.raises(UserError, match='step 100: loss .*not all of this is'):
    train.train(make_run(network='baseline_cnn', dtype='float16', max_steps=200,
                         batch_size=2), augment=glare)
