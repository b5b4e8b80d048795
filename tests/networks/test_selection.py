"""Selection of the images that are hard for a small network."""

import dataclasses
import glob
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from cifar10 import model
from cifar10 import multi_gpu_train
from cifar10 import networks
from cifar10 import train
from cifar10.networks import selection
from cifar10.networks import sizes
from cifar10.nn import layers
from cifar10.recipe import override
from cifar10.recipe import Recipe
from cifar10.util.errors import UserError
from tests import numerics
from tests.conftest import assert_same_checkpoints
from tests.conftest import events_of
from tests.conftest import read_checkpoint

RECIPE = Recipe(epochs=1, batch_size=8, learning_rate=0.1, momentum=0.9,
                optimizer='momentum', select=0.4, selector='two_layer_fc',
                label_smoothing=0.2)
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(8, 3, 3, 2)).astype(np.float32)
LABELS = RNG.integers(0, 10, 8).astype(np.int32)


def test_the_images_with_the_largest_losses_are_kept():
  with tf.Graph().as_default():
    recipe = dataclasses.replace(RECIPE, selector='softmax')
    kept = selection.hardest(recipe, tf.constant(IMAGES), tf.constant(LABELS),
                             10)
    weights, biases = tf.trainable_variables()
    assert weights.op.name == 'selector/softmax_linear/weights'
    values = RNG.normal(size=(18, 10)).astype(np.float32)
    with tf.Session() as session:
      session.run([weights.assign(values), biases.initializer])
      images, labels, losses = session.run(kept)
  logits = IMAGES.reshape(8, 18).astype(np.float64) @ values
  log_softmax = logits - np.log(np.exp(logits).sum(1, keepdims=True))
  losses_of_images = -log_softmax[np.arange(8), LABELS]
  smoothed = 0.8 * losses_of_images - 0.2 * log_softmax.mean(1)
  chosen = np.argsort(-smoothed)[:3]  # round(0.4 * 8)
  assert list(chosen) != list(np.argsort(-losses_of_images)[:3])
  np.testing.assert_array_equal(images, IMAGES[chosen])
  np.testing.assert_array_equal(labels, LABELS[chosen])
  numerics.assert_close(losses.pop('selector_loss'), smoothed[chosen].mean(),
                        18 + 10)
  assert not losses


@pytest.mark.parametrize('select, selector, count', [
    (0.4, 'softmax', 3), (0.01, 'softmax', 1), (1, '', 8)])
def test_how_many_are_kept(select, selector, count):
  with tf.Graph().as_default():
    images, labels, losses = selection.hardest(
        dataclasses.replace(RECIPE, select=select, selector=selector),
        tf.constant(IMAGES), tf.constant(LABELS), 10)
    assert images.shape[0] == labels.shape[0] == count
    assert bool(losses) == bool(tf.trainable_variables()) == bool(selector)


def graph(recipe, images, labels):
  """Returns losses and gradients by name of variable, in a new session."""
  with tf.Graph().as_default():
    tf.set_random_seed(1)
    losses, gradients = multi_gpu_train.tower_loss(
        networks.find('two_layer_fc'), recipe, tf.constant(images),
        tf.constant(labels), 10)
    names = [v.op.name for v in tf.trainable_variables()]
    with tf.Session() as session:
      session.run(tf.global_variables_initializer())
      losses, gradients = session.run([losses, gradients])
  return losses, dict(zip(names, gradients))


def test_both_networks_learn_from_what_is_kept():
  """Each has the gradients that it would have alone, of these images."""
  with tf.Graph().as_default():
    tf.set_random_seed(1)
    kept = selection.hardest(RECIPE, tf.constant(IMAGES), tf.constant(LABELS),
                             10)
    loss = kept[2]['selector_loss']
    variables = tf.trainable_variables()
    alone = tf.gradients(loss, variables)
    with tf.Session() as session:
      session.run(tf.global_variables_initializer())
      images, labels, losses = session.run(kept)
      alone = session.run({v.op.name: g for v, g in zip(variables, alone)})
  unselected = dataclasses.replace(RECIPE, select=1, selector='')
  losses_alone, gradients = graph(unselected, images, labels)
  found_losses, found = graph(RECIPE, IMAGES, LABELS)
  for name, value in {**losses_alone, **losses}.items():
    numerics.assert_close(found_losses[name], value, 18 + 120 + 10, name=name)
  assert found.keys() == {*gradients, *alone} and len(found) == 8
  for name, value in {**gradients, **alone}.items():
    numerics.assert_close(found[name], value, 18 + 120 + 10 + 8, name=name)


def test_resumed_equals_uninterrupted(make_run, tmp_path, capsys):
  def go():
    return multi_gpu_train.train(make_run(
        network='two_layer_fc', batch_size=8, max_steps=3, checkpoint_steps=2,
        dtype='bfloat16', recipe=override(networks.find('airnet_small').RECIPE,
                        'select=0.5,selector=airnet_small,lookahead_steps=2')),
        ['/cpu:0'] * 2)

  last = go().train_dir + '/model.ckpt-3'
  assert {'selector/logits/weights',
          'selector/block1/conv1/batch_norm/moving_mean/lookahead'
          } < read_checkpoint(last).keys()
  for path in glob.glob(f'{last}.*'):
    shutil.move(path, tmp_path)
  go()
  assert 'Resuming at step 2 of 3' in capsys.readouterr().out
  assert_same_checkpoints(last, tmp_path / 'model.ckpt-3')


def test_pictures_of_filters_are_those_of_the_network(make_run):
  run = train.train(make_run(network='two_layer_fc', recipe=RECIPE,
                             max_steps=1))
  tags = {tag for _, tag, _ in events_of(run.train_dir)}
  assert {'filters/hidden/weights/image', 'loss/selector_loss',
          'selector/hidden/activations'} <= tags
  assert 'filters/selector/hidden/weights/image' not in tags


def test_one_tower_equals_one_device(make_run, tmp_path):
  options = make_run(network='two_layer_fc', recipe=RECIPE, max_steps=2)
  one = train.train(dataclasses.replace(options,
                                        train_dir=str(tmp_path / 'one')))
  tower = multi_gpu_train.train(options, ['/cpu:0'])
  assert_same_checkpoints(*(f'{run.train_dir}/model.ckpt-2'
                            for run in (one, tower)))


def test_each_tower_selects_of_its_images():
  """Two towers have the losses of a device that selects of each half."""
  halves = [graph(RECIPE, IMAGES[part], LABELS[part])
            for part in (slice(0, 4), slice(4, 8))]
  with tf.Graph().as_default():
    tf.set_random_seed(1)
    towers = []
    for i in range(2):
      with layers.tower(i, 2):
        towers.append(multi_gpu_train.tower_loss(
            networks.find('two_layer_fc'), RECIPE,
            tf.constant(IMAGES[4 * i:4 * i + 4]),
            tf.constant(LABELS[4 * i:4 * i + 4]), 10))
    (losses, gradients), = multi_gpu_train.average_gradients(
        [towers], ['/cpu:0'])
    names = [v.op.name for v in tf.trainable_variables()]
    with tf.Session() as session:
      session.run(tf.global_variables_initializer())
      losses, gradients = session.run([losses, dict(zip(names, gradients))])
  for found, expected in ((losses, [half[0] for half in halves]),
                          (gradients, [half[1] for half in halves])):
    for name, value in found.items():
      mean = (expected[0][name] + expected[1][name]) / 2
      numerics.assert_close(value, mean, 18 + 120 + 10 + 8,
                            scale=max(abs(np.array(
                                [e[name] for e in expected])).max(), 1e-30),
                            name=name)


def test_towers_that_select_stay_as_many(make_run):
  def options(batch_size):
    return make_run(batch_size, network='two_layer_fc', max_steps=1,
                    recipe=RECIPE)

  train.train(options(4))
  with pytest.raises(UserError, match='holds a run of 1 towers, not 2: '
                     'two_layer_fc selects images'):
    multi_gpu_train.train(options(2), ['/cpu:0'] * 2)


def test_operations_of_a_step_with_selection():
  network = networks.find('airnet96')
  recipe = override(network.RECIPE, 'select=0.5,selector=airnet_small')
  whole, small, selected = (
      sizes.size(networks.find(name), recipe=recipe).training
      for name, recipe in (('airnet96', None), ('airnet_small', None),
                           ('airnet96', recipe)))
  assert selected == whole / 2 + small
  # Published: 3.1e15 for 45 epochs of 50,000 images.
  assert 2 * selected * 45 * 50_000 == pytest.approx(3.1e15, rel=0.1)


@pytest.mark.parametrize('changes, message', [
    ('select=0.5', "selector='': expected a selector"),
    ('selector=softmax', 'and none otherwise'),
    ('select=0,selector=softmax', 'select'),
    ('select=0.5,selector=softmx', 'softmax')])
def test_errors(make_run, changes, message):
  with pytest.raises(UserError, match=message):
    train.train(make_run(recipe=override(model.RECIPE, changes)))
