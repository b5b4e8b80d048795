"""Every network, in every program: towers, resume, evaluation."""

import dataclasses
import functools
import glob
import re
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from cifar10 import eval as eval_lib
from cifar10 import inputs
from cifar10 import model
from cifar10 import multi_gpu_train
from cifar10 import networks
from cifar10 import train
from cifar10.data import datasets
from cifar10.data import directories
from cifar10.data import records
from cifar10.networks import airnet
from cifar10.networks import baseline_cnn
from cifar10.networks import resnet32
from cifar10.networks import sizes
from cifar10.nn import augmentation
from cifar10.nn import layers
from cifar10.nn import optimizers
from cifar10.runs import directory
from cifar10.runs import loop
from cifar10.runs import preparation
from cifar10.runs import trained
from cifar10.util.errors import UserError
from tests import numerics
from tests.conftest import assert_same_checkpoints
from tests.conftest import images_of
from tests.conftest import read_checkpoint
from tests.conftest import rows_of
from tests.conftest import with_batch_size
from tests.programs import run_eval_once

# Parameters and multiply-adds of the logits, counted by hand.
SIZES = {
    'convnet': (1068298,
                24**2 * 75 * 64 + 12**2 * 1600 * 64
                + 2304 * 384 + 384 * 192 + 192 * 10),
    'local': (4864 + 102464 + 36 * (577 * 64 + 577 * 32) + 11530,
              24**2 * 75 * 64 + 12**2 * 1600 * 64
              + 36 * 576 * (64 + 32) + 1152 * 10),
    'softmax': (3073 * 10, 3072 * 10),
    'two_layer_fc': (3073 * 120 + 121 * 10, 3072 * 120 + 120 * 10),
    'baseline_cnn': (28 * 32 + 289 * 64 + 577 * 64 + 1025 * 64 + 65 * 10,
                     30**2 * 27 * 32 + 13**2 * 288 * 64 + 4**2 * 576 * 64
                     + 1024 * 64 + 64 * 10),
    'improved_cnn': (
        28 * 32 + 289 * 32 + 289 * 64 + 577 * 64 + 577 * 128 + 1153 * 128
        + 2049 * 128 + 129 * 10 + 2 * (2 * (32 + 64 + 128) + 128),
        32**2 * 9 * (3 * 32 + 32 * 32) + 16**2 * 9 * (32 * 64 + 64 * 64)
        + 8**2 * 9 * (64 * 128 + 128 * 128) + 2048 * 128 + 1280),
    'resnet32': (
        # Convolutions, shortcuts, two values for each normalized channel, top.
        9 * (3 * 16 + 10 * 16**2 + 16 * 32 + 9 * 32**2 + 32 * 64 + 9 * 64**2)
        + 16 * 32 + 32 * 64
        + 2 * (10 * 16 + 16 + 9 * 32 + 32 + 9 * 64 + 64) + 650,
        32**2 * 9 * (3 * 16 + 10 * 16**2) + 16**2 * (9 * (16 * 32 + 9 * 32**2)
                                                     + 16 * 32)
        + 8**2 * (9 * (32 * 64 + 9 * 64**2) + 32 * 64) + 640),
    'airnet': (
        24 + 9 * (24 * 64 + 64**2 + 64 * 256 + 3 * 256**2)
        + 2 * (64 + 256 + 256) + 2560,
        9 * (31**2 * 24 * 64 + 15**2 * (64**2 + 64 * 256)
             + (2 * 7**2 + 3**2) * 256**2) + 2560),
    'airnet95': (
        24 + 9 * (24 * 128 + 128**2 + 128 * 384 + 3 * 384**2)
        + 2 * (128 + 384 + 384) + 3840,
        9 * (31**2 * 24 * 128 + 15**2 * (128**2 + 128 * 384)
             + (2 * 7**2 + 3**2) * 384**2) + 3840),
    'airnet96': (
        24 + 9 * (24 * 128 + 2 * 128**2 + 128 * 384 + 2 * 384**2 + 384 * 512
                  + 2 * 512**2) + 3 * (128 + 384 + 512) + 5120,
        9 * (31**2 * 24 * 128 + 15**2 * (2 * 128**2 + 128 * 384)
             + 7**2 * (2 * 384**2 + 384 * 512) + 3**2 * 2 * 512**2) + 5120),
    'airnet_small': (
        24 + 9 * (24 * 32 + 32**2 + 32 * 64 + 3 * 64**2)
        + 2 * (32 + 64 + 64) + 640,
        9 * (31**2 * 24 * 32 + 15**2 * (32**2 + 32 * 64)
             + (2 * 7**2 + 3**2) * 64**2) + 640)}
# What is added up on the way from the images to a logit.
TERMS = {
    'convnet': 75 + 1600 + 2304 + 384 + 192,
    'local': 75 + 1600 + 576 + 576 + 1152,
    'softmax': 3072,
    'two_layer_fc': 3072 + 120,
    'baseline_cnn': 27 + 288 + 576 + 1024 + 64,
    'improved_cnn': 9 * (3 + 32 + 32 + 64 + 64 + 128) + 2048 + 128,
    'resnet32': 9 * (3 + 11 * 16 + 10 * 32 + 9 * 64) + 64,
    'airnet': 9 * (24 + 64 + 64 + 3 * 256) + 256,
    'airnet95': 9 * (24 + 128 + 128 + 3 * 384) + 384,
    'airnet96': 9 * (24 + 3 * 128 + 3 * 384 + 2 * 512) + 512,
    'airnet_small': 9 * (24 + 32 + 32 + 3 * 64) + 64}
RNG = np.random.default_rng(0)
WITH_BATCH_NORM = ('improved_cnn', 'resnet32', 'airnet_small', 'airnet',
                   'airnet95', 'airnet96')


@pytest.mark.parametrize('name', networks.NETWORKS)
def test_size(name):
  size = sizes.size(networks.NETWORKS[name])
  assert (size.parameters, size.inference) == SIZES[name]
  # Each product has two gradients, but nothing wants that of the images.
  first = {'convnet': 24**2 * 75 * 64, 'local': 24**2 * 75 * 64,
           'softmax': 3072 * 10, 'two_layer_fc': 3072 * 120,
           'baseline_cnn': 30**2 * 27 * 32, 'improved_cnn': 32**2 * 27 * 32,
           'resnet32': 32**2 * 27 * 16,
           # Their biases stand before the first product.
           'airnet_small': 0, 'airnet': 0, 'airnet95': 0,
           'airnet96': 0}[name]
  assert size.training == 3 * size.inference - first


@pytest.mark.numerical
@pytest.mark.parametrize('name', networks.NETWORKS)
def test_any_number_of_images(name):
  network = networks.NETWORKS[name]
  shape = sizes.input_shape(network.RECIPE, records.CIFAR10)
  images = np.random.default_rng(0).normal(size=(3, *shape))
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(1)
    placeholder = tf.placeholder(tf.float32, [None, *shape])
    logits = network.inference(placeholder, 7)
    session.run(tf.global_variables_initializer())
    three, one = (session.run(logits, {placeholder: x})
                  for x in (images, images[:1]))
  assert three.shape == (3, 7)
  numerics.assert_close(three[:1], one, TERMS[name])


@pytest.mark.parametrize('name, dtype', [
    *(pytest.param(name, 'float32', marks=pytest.mark.long) if name in (
        'resnet32', 'airnet', 'airnet95', 'airnet96') else (name, 'float32')
      for name in networks.NETWORKS),
    ('convnet', 'bfloat16'), ('baseline_cnn', 'float16')])
def test_resumed_equals_uninterrupted(make_run, tmp_path, capsys, name, dtype):
  options = make_run(network=name, batch_size=4, max_steps=3,
                     checkpoint_steps=2, dtype=dtype)
  last = train.train(options).train_dir + '/model.ckpt-3'
  for path in glob.glob(f'{last}.*'):
    shutil.move(path, tmp_path)
  train.train(options)
  assert 'Resuming at step 2 of 3' in capsys.readouterr().out
  assert_same_checkpoints(last, tmp_path / 'model.ckpt-3')


# How many values the smallest layer with a threshold makes of 16 images: ReLU
# or pooling. (softmax has none.)
VALUES = {'softmax': np.inf, 'two_layer_fc': 16 * 120, 'baseline_cnn': 16 * 64,
          'local': 16 * 36 * 32, 'improved_cnn': 16 * 128,
          'airnet_small': 16 * 64, 'resnet32': 16 * 64 * 64}


@pytest.mark.parametrize('name', [name for name in networks.NETWORKS
                                  if name not in ('convnet', *WITH_BATCH_NORM)])
def test_two_towers_equal_one_device(make_run, tmp_path, name):
  start = numerics.Start()
  one = train.train(make_run(network=name, batch_size=16, max_steps=3,
                             train_dir=str(tmp_path / 'one')), hooks=[start])
  two = multi_gpu_train.train(make_run(network=name, batch_size=8, max_steps=3),
                              ['/cpu:0'] * 2)
  assert_same_training(two, one, start)


@pytest.mark.parametrize('name', [
    'improved_cnn', 'airnet_small',
    pytest.param('resnet32', marks=pytest.mark.long)])
def test_two_towers_equal_a_device_that_normalizes_each_half_by_itself(
    make_run, tmp_path, name):
  two = multi_gpu_train.train(make_run(network=name, batch_size=8, max_steps=3),
                              ['/cpu:0'] * 2)
  one, data = preparation.prepare(make_run(
      network=name, batch_size=16, max_steps=3,
      train_dir=str(tmp_path / 'one')))
  network, start = networks.find(name), numerics.Start()
  with directory.open_train_dir(one), tf.Graph().as_default():
    tf.set_random_seed(one.seed)
    images, labels = inputs.distorted_inputs(one, data)
    logits = []
    for i in range(2):
      with layers.tower(i, 2):
        logits.append(network.inference(images[8 * i:8 * (i + 1)], 10,
                                        is_training=True))
    losses = model.loss(tf.concat(logits, 0), labels,
                        one.recipe.label_smoothing)
    gradients = tf.gradients(model.objective(losses),
                             tf.trainable_variables())
    step = model.train(losses, gradients, one.recipe, 16, one.num_examples)
    loop.Loop(step, one, data, [start]).train()
  assert_same_training(two, one, start)


def assert_same_training(found, expected, start):
  name = expected.network
  found, expected = (read_checkpoint(f'{run.train_dir}/model.ckpt-3')
                     for run in (found, expected))
  numerics.assert_same_training(found, expected, start.values, TERMS[name],
                                VALUES[name], steps=3)


def test_evaluation_uses_the_statistics_of_what_was_trained_on(make_run):
  """The checkpoint's mean image is that of the records not held out."""
  run = train.train(make_run(network='softmax', holdout=80, max_steps=2))
  data = datasets.ensure('cifar10', run.data_dir)
  trained_on = images_of(data.train)[:220].astype(np.float64)
  assert run.num_examples == 220
  checkpoint = f'{run.train_dir}/model.ckpt-2'
  values = read_checkpoint(checkpoint)
  numerics.assert_close(values['statistics/mean_image'], trained_on.mean(0),
                        terms=1)

  for eval_data, rows in (('holdout', rows_of(data.train)[220:]),
                          ('test', rows_of(data.test))):
    pixels = records.images(rows) - trained_on.mean(0)
    logits = (pixels.reshape(len(rows), -1) @ values['softmax_linear/weights']
              + values['softmax_linear/biases'])
    result = run_eval_once(checkpoint, run, data, eval_data)
    assert result.num_examples == len(rows)
    assert result.metrics['Precision @ 1'] == pytest.approx(
        (logits.argmax(1) == rows[:, 0]).mean(), abs=0.01)
    odds = np.exp(logits - logits.max(1, keepdims=True))
    # A probability is wrong by no more than the logits are.
    numerics.assert_close(
        result.probabilities, odds / odds.sum(1, keepdims=True),
        TERMS['softmax'], scale=abs(logits).max())
  assert run_eval_once(checkpoint, run, data,
                             'train_eval').num_examples == 220


def test_what_is_held_out_is_not_trained_on(make_run):
  seen = set()

  class Labels(tf.train.SessionRunHook):

    def before_run(self, run_context):
      return tf.train.SessionRunArgs('input/IteratorGetNext:0')

    def after_run(self, run_context, run_values):
      seen.update(image.tobytes() for image in run_values.results)

  # Pixels from 0 to 1, not distorted: each record can be told.
  run = train.train(make_run(network='baseline_cnn', holdout=290, max_steps=9,
                             batch_size=4), hooks=[Labels()])
  data = datasets.ensure('cifar10', run.data_dir)
  expected = np.float32(images_of(data.train)[:10]) / np.float32(255)
  assert seen == {image.tobytes() for image in expected}


def test_holdout_errors(make_run):
  for change, message in (({'holdout': 300}, 'leaves nothing of 300 rec'),
                          ({'holdout': 1, 'input': 'queue'}, 'whole files'),
                          ({'network': 'airnet_small', 'input': 'queue'},
                           'no alternating_flip')):
    with pytest.raises(UserError, match=message):
      train.train(make_run(**change))
  run = train.train(make_run(network='softmax', max_steps=1))
  data = datasets.ensure('cifar10', run.data_dir)
  with pytest.raises(UserError, match='without --holdout'):
    trained.records_of(run, data, 'holdout')
  run = dataclasses.replace(run, holdout=20)
  with pytest.raises(UserError, match='holds 300 training records, but the run '
                     'was trained on 300 and left out 20'):
    trained.records_of(run, data, 'holdout')


def test_a_mistake_in_a_recipe_can_be_mended(make_run):
  recipe = networks.find('softmax').RECIPE
  for wrong in {'optimizer': 'adamw'}, {'schedule': 'x'}, {'crop_size': 99}:
    with pytest.raises(UserError):
      train.train(make_run(network='softmax',
                           recipe=dataclasses.replace(recipe, **wrong)))
  train.train(make_run(network='softmax', max_steps=1))


def test_what_is_decayed():
  """Kernels and matrices of each recipe, no scale or offset but airnet's."""
  for name, network in networks.NETWORKS.items():
    with tf.Graph().as_default():
      network.inference(tf.zeros([1, *sizes.input_shape(
          network.RECIPE, records.CIFAR10)]), 10)
      names = {v.op.name for v in tf.trainable_variables()}
    found = {v for v in names
             if re.fullmatch(network.RECIPE.decayed_variables, v)}
    if name in ('convnet', 'local'):
      assert found == {'local3/weights', 'local4/weights'}
    elif name == 'resnet32':
      assert found == {v for v in names if 'batch_norm' not in v}
      assert len(found) == 1 + 30 + 2 + 2
    elif name == 'two_layer_fc':
      assert found == {'hidden/weights', 'softmax_linear/weights'}
    elif name.startswith('airnet'):
      assert found == names
    else:
      assert network.RECIPE.weight_decay == 0


@pytest.mark.parametrize('batch, epoch, rate', [
    (1024, 0, 0.5), (1024, 49.9, 0.5), (1024, 50, 0.05), (1024, 75, 0.005),
    (1024, 90, 0.0005), (256, 0, 0.125)])
def test_the_learning_rate_of_resnet32(batch, epoch, rate):
  with tf.Graph().as_default(), tf.Session() as session:
    found = session.run(optimizers.learning_rate(
        networks.find('resnet32').RECIPE, tf.constant(int(epoch * 10**6)),
        batch, 10**6))
  assert found == pytest.approx(rate)


def test_batch_norm_through_training_and_evaluation(make_run):
  """The moving statistics after a step, and what evaluation makes of them."""
  class Images(tf.train.SessionRunHook):

    def before_run(self, run_context):
      return tf.train.SessionRunArgs('input/IteratorGetNext:0')

    def after_run(self, run_context, run_values):
      self.images = run_values.results

  hook = Images()
  run = train.train(make_run(network='improved_cnn', max_steps=1), hooks=[hook])
  checkpoint = f'{run.train_dir}/model.ckpt-1'
  values = read_checkpoint(checkpoint)
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(run.seed)
    with tf.variable_scope('conv1a'):
      x = tf.nn.relu(layers.conv2d(tf.constant(hook.images), 3, 32,
                                   tf.glorot_uniform_initializer(), bias=0.0))
    session.run(tf.global_variables_initializer())
    activations = np.float64(session.run(x))
  n = 12 * 32 * 32  # TensorFlow averages the unbiased estimate.
  numerics.assert_close(values['conv1a/batch_norm/moving_mean'],
                        0.01 * activations.mean((0, 1, 2)), n)
  variances = activations.var((0, 1, 2)) * n / (n - 1)
  numerics.assert_close(values['conv1a/batch_norm/moving_variance'],
                        0.99 + 0.01 * variances, n)

  data = datasets.ensure('cifar10', run.data_dir)
  with tf.Graph().as_default(), tf.Session() as session:
    images = tf.constant(np.float32(images_of(data.test)) / 255)
    logits = networks.find('improved_cnn').inference(images, 10)
    for v in tf.global_variables():
      v.load(values[v.op.name], session)
    logits = session.run(logits)
  labels = rows_of(data.test)[:, 0]
  assert run_eval_once(checkpoint, run, data).metrics[
      'Precision @ 1'] == pytest.approx((logits.argmax(1) == labels).mean())


@pytest.mark.numerical
@pytest.mark.parametrize('name, momentum, epsilon', [
    ('improved_cnn', 0.99, 1e-3), ('resnet32', 0.997, 1e-5),
    ('airnet', 0.6, 1e-12), ('airnet95', 0.6, 1e-12), ('airnet96', 0.9, 1e-12)])
def test_momentum_and_epsilon_of_batch_norm(name, momentum, epsilon):
  network = networks.find(name)
  with tf.Graph().as_default() as graph, tf.Session() as session:
    images = RNG.normal(size=(2, *sizes.input_shape(network.RECIPE,
                                                       records.CIFAR10)))
    tf.train.get_or_create_global_step()
    network.inference(tf.constant(images, tf.float32), 10, is_training=True)
    operations = [op for op in graph.get_operations()
                  if op.type == 'FusedBatchNormV3']
    averages = [v for v in tf.global_variables()
                if v.op.name.endswith('moving_mean')]
    session.run(tf.global_variables_initializer())
    means = session.run([op.outputs[1] for op in operations])
    session.run(tf.get_collection(tf.GraphKeys.UPDATE_OPS))
    found = session.run(averages)
  assert {op.get_attr('epsilon') for op in operations} == {np.float32(epsilon)}
  assert len(operations) == len(averages)
  for average, mean in zip(found, means):
    # It starts at 0. The batch has 2 * 32 * 32 places at most.
    numerics.assert_close(average, (1 - momentum) * mean, 2 * 32 * 32)


def test_towers_that_normalize_batches_stay_as_many(make_run):
  train.train(make_run(network='improved_cnn', batch_size=4, max_steps=1))
  with pytest.raises(UserError, match='holds a run of 1 towers, not 2: improved'
                     '_cnn normalizes'):
    multi_gpu_train.train(make_run(network='improved_cnn', batch_size=2,
                                   max_steps=2), ['/cpu:0'] * 2)


def test_an_augmentation_of_ones_own(make_run, tmp_path):
  def black(images, size, seed):
    return 0 * augmentation.central_crop(images, size, seed)

  run = make_run(network='baseline_cnn', max_steps=2)
  trained = train.train(run, augment=black)
  assert trained.recipe.augmentation == 'custom:black'
  with pytest.raises(UserError, match='augmentation custom:black, not none'):
    train.train(run)
  eval_lib.evaluate_newest(trained)
  values = read_checkpoint(f'{run.train_dir}/model.ckpt-2')
  # No light, no gradient: the first kernel is as it was made.
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(1)
    networks.NETWORKS['baseline_cnn'].inference(tf.zeros([1, 32, 32, 3]), 10)
    session.run(tf.global_variables_initializer())
    np.testing.assert_array_equal(
        values['conv1/weights'], session.run(tf.trainable_variables()[0]))


@pytest.mark.parametrize('wrap, name', [
    (functools.partial, 'custom:central_crop'),
    (lambda function: functools.partial(functools.partial(function)),
     'custom:central_crop'),
    (lambda function: Augmentation(), 'custom:Augmentation')])
def test_an_augmentation_needs_no_name(make_run, wrap, name):
  run, _ = preparation.prepare(make_run(), wrap(augmentation.central_crop))
  assert run.recipe.augmentation == name
  with pytest.raises(UserError, match=f'augmentation={name}: is a function'):
    train.train(run)


class Augmentation:

  def __call__(self, images, size, seed):
    return augmentation.central_crop(images, size)


@pytest.mark.parametrize('side, name, changes, message', [
    (1, 'airnet', {}, 'normalization whiten: expected images of 2x2 or more'),
    (5, 'airnet', {}, 'airnet cannot take images of 5x5: Negative'),
    (4, 'softmax', {'augmentation': 'reflect_crop_cutout'},
     'images of 4x4 are too small to add 4 mirrored pixels on each side'),
    (2, 'convnet', {'augmentation': 'reflect_crop'},
     'images of 2x2 are too small to add 2 mirrored pixels on each side')])
def test_images_too_small(side, name, changes, message):
  record_format = records.Format(side, side)
  recipe = dataclasses.replace(networks.find(name).RECIPE, **changes)
  with pytest.raises(UserError, match=message):
    sizes.check(name, recipe, record_format)


@pytest.mark.parametrize('name, side, message', [
    ('convnet', 128, ''), ('resnet32', 128, ''), ('airnet', 64, ''),
    ('convnet', 224, r'convnet: local3/weights has \(112896, 384\) weights for '
     'images of 168x168. Training may need a smaller learning_rate')])
def test_layers_of_large_images_are_told(capsys, name, side, message):
  sizes.check(name, networks.find(name).RECIPE, records.Format(side, side))
  err = capsys.readouterr().err
  assert re.match(message, err) and bool(message) == bool(err)


@pytest.mark.parametrize('name, side, is_refused', [
    ('softmax', 1, False), ('convnet', 2, False), ('airnet', 8, True),
    ('airnet', 9, False), ('baseline_cnn', 17, True),
    ('baseline_cnn', 18, False)])
def test_what_is_not_too_small_trains(name, side, is_refused, tmp_path):
  """And what is too small is refused before anything is written."""
  directory = tmp_path / 'own'
  directory.mkdir()
  record_format = records.Format(side, side)
  directories.write_format(directory, record_format)
  rng = np.random.default_rng(0)
  for file in directories.training_file(1), directories.TEST:
    records.write(directory / file, rng.integers(0, 256, (8, side, side, 3)),
                  np.arange(8), record_format)
  run = with_batch_size(4, network=name, max_steps=1, data_dir=tmp_path,
                        train_dir=tmp_path / 'train')
  if is_refused:
    with pytest.raises(UserError, match=f'{name} cannot take images of '
                       f'{side}x{side}: Negative dimension'):
      train.train(run)
    assert not (tmp_path / 'train').exists()
  else:
    eval_lib.evaluate_newest(train.train(run), tta=True)


def test_an_unknown_name():
  with pytest.raises(UserError, match="no network 'resnet23'. .* resnet32"):
    networks.find('resnet23')


def test_list(run_program):
  code, out, _ = run_program('train', '--list_networks')
  assert code == 0
  assert ('convnet: 1,068,298 parameters, 18.47M multiply-adds an image '
          '(convolutions, matrix products)\n'
          '  epochs=256,batch_size=128,learning_rate=0.1,') in out
  assert all(f'\n{name}: ' in '\n' + out for name in networks.NETWORKS)


def test_recipe_flag(run_program, data_dir, tmp_path):
  arguments = ['train', '--network=softmax', f'--data_dir={data_dir}',
               f'--train_dir={tmp_path}/run']
  code, out, err = run_program(*arguments,
                               '--recipe=learning_rate=0.25,epochs=0.5')
  assert code == 0, err
  assert 'Recipe: epochs=0.5,batch_size=100,learning_rate=0.25,' in out
  assert 'Step 2 of 2 is done' in out
  code, _, err = run_program(*arguments)
  assert code == 1
  assert 'learning_rate 0.25, not 0.005' in err
  code, _, err = run_program(*arguments, '--recipe=learningrate=1')
  assert code == 1
  assert "no recipe field 'learningrate'. Did you mean learning_" in err


def session_run(session, fetches):
  session.run(tf.global_variables_initializer())
  return session.run(fetches)


@pytest.mark.numerical
@pytest.mark.parametrize('inputs, outputs', [(3, 5), (5, 3)])
def test_dirac_kernels_pass_their_inputs_on(inputs, outputs):
  images = np.float32(RNG.normal(size=(2, 6, 6, inputs)))
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(1)
    found = session_run(session, layers.conv2d(
        tf.constant(images), 3, outputs, airnet.Dirac()))
    kernel = session.run(tf.trainable_variables()[0])
  same = min(inputs, outputs)
  numerics.assert_close(found[..., :same], images[..., :same], 9 * inputs)
  others = kernel[..., inputs:]
  limit = (9 * inputs)**-0.5
  assert np.all(abs(others) <= limit)
  assert not others.size or others.std() > limit / 3


def test_dirac_kernels_are_not_stored_in_the_graph():
  with tf.Graph().as_default() as graph:
    airnet.Dirac()([3, 3, 64, 64])
  assert graph.as_graph_def().ByteSize() < 3 * 3 * 64 * 64 * 4


@pytest.mark.numerical
@pytest.mark.parametrize('depth, times', [(2, 1), (3, 2), (4, 2)])
def test_shortcuts_of_airnets_blocks(depth, times):
  """A new block's convolutions after the first pass its result on; from three
  on, it is added once more."""
  images = np.float32(RNG.normal(size=(2, 8, 8, 5)))
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(1)
    with tf.variable_scope('block'):
      block = airnet._block(tf.constant(images), 7, depth, False, 0.6)
    with tf.variable_scope('block/conv1', reuse=True):
      first = tf.nn.relu(tf.nn.max_pool2d(layers.conv2d(
          tf.constant(images), 3, 7, airnet.Dirac()), 2, 2, 'VALID'))
    found, expected = session_run(session, [block, first])
  assert found.shape == (2, 4, 4, 7)
  assert expected.any()
  numerics.assert_close(found, times * expected, depth * 9 * 7)


@pytest.mark.parametrize('initializer, deviation, limit', [
    (baseline_cnn._GLOROT, (2 / 500)**0.5, (6 / 500)**0.5),
    (resnet32._HE, (2 / 200)**0.5, 2 * (2 / 200)**0.5 / 0.8796),
    (airnet._fan_in_uniform(), (1 / 600)**0.5, (1 / 200)**0.5)])
def test_initializers(initializer, deviation, limit):
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(1)
    v = layers.variable('v', [200, 300], initializer)
    values = session_run(session, v)
  np.testing.assert_allclose(values.std(), deviation, rtol=0.02)
  assert abs(values).max() <= limit * 1.0001
