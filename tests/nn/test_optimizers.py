"""Schedules and optimizers against NumPy, through whole training steps."""

import math

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from cifar10 import model
from cifar10.nn import layers
from cifar10.nn import optimizers
from cifar10.recipe import Recipe
from cifar10.util.errors import UserError
from tests import numerics

pytestmark = pytest.mark.numerical


def make_recipe(**fields):
  return Recipe(**{'epochs': 10, 'batch_size': 4, 'learning_rate': 0.5,
                   **fields})


KNOTS = ((2, 1.0), (4, 0.1), (8, 0.01))
SCHEDULES = [
    ({}, lambda e: 1),
    ({'schedule': 'exponential', 'epochs_per_decay': 3, 'decay_factor': 0.5},
     lambda e: 0.5**(e // 3)),
    ({'schedule': 'piecewise', 'knots': KNOTS},
     lambda e: [1, 1, 0.1, 0.01][sum(e >= x for x, _ in KNOTS)]),
    ({'schedule': 'linear', 'knots': KNOTS},
     lambda e: np.interp(e, *zip(*KNOTS))),
    ({'schedule': 'cosine'},
     lambda e: (1 + math.cos(math.pi * min(e / 10, 1))) / 2),
    ({'warmup_epochs': 3}, lambda e: min(e / 3, 1)),
    ({'learning_rate_batch': 16}, lambda e: 4 / 16),
    ({'schedule': 'linear', 'knots': KNOTS, 'warmup_epochs': 5,
      'learning_rate_batch': 2},
     lambda e: np.interp(e, *zip(*KNOTS)) * min(e / 5, 1) * 2)]


@pytest.mark.parametrize('fields, factor', SCHEDULES)
def test_schedules(fields, factor):
  # 4 images a step and 12 an epoch: epoch boundaries at each third step.
  with tf.Graph().as_default(), tf.Session() as session:
    images_seen = tf.placeholder(tf.int64, [])
    rate = optimizers.learning_rate(make_recipe(**fields), images_seen, 4, 12)
    found = [session.run(rate, {images_seen: 4 * step}) for step in range(36)]
  expected = [0.5 * factor(step / 3) for step in range(36)]
  # Computed in float64, so each is rounded once to float32.
  numerics.assert_close(found, expected, 1, scale=np.abs(expected) + 1e-16)


def test_a_decay_comes_at_its_epoch():
  """Where float32 could not tell it from the step before."""
  recipe = make_recipe(schedule='piecewise', knots=((0.3, 0.1),))
  with tf.Graph().as_default(), tf.Session() as session:
    images_seen = tf.placeholder(tf.int64, [])
    rate = optimizers.learning_rate(recipe, images_seen, 1, 10**8)
    before, after = (session.run(rate, {images_seen: n})
                     for n in (3 * 10**7 - 1, 3 * 10**7))
  numerics.assert_close(before, 0.5, 1)
  numerics.assert_close(after, 0.05, 1)


class NumpySgd:

  def update(self, w, g, rate, recipe):
    return w - rate * g


class NumpyMomentum:
  velocity = 0

  def update(self, w, g, rate, recipe):
    self.velocity = recipe.momentum * self.velocity + g
    return w - rate * self.velocity


class NumpyNesterov:
  velocity = 0

  def update(self, w, g, rate, recipe):
    self.velocity = recipe.momentum * self.velocity + g
    return w - rate * (g + recipe.momentum * self.velocity)


class NumpyAdam:
  m = v = steps = 0

  def update(self, w, g, rate, recipe):
    self.steps += 1
    self.m = recipe.beta1 * self.m + (1 - recipe.beta1) * g
    self.v = recipe.beta2 * self.v + (1 - recipe.beta2) * g**2
    rate *= (1 - recipe.beta2**self.steps)**0.5 / (
        1 - recipe.beta1**self.steps)
    return w - rate * self.m / (self.v**0.5 + recipe.epsilon)


def test_lookahead():
  """Every second step the variables go to their slow average, which follows
  them the less, the later."""
  recipe = make_recipe(learning_rate=0.5, lookahead_steps=2, epochs=2,
                       lookahead_decay=0.8)
  with tf.Graph().as_default(), tf.Session() as session:
    with tf.variable_scope('layer'):
      weights = layers.variable('weights', [1], tf.ones_initializer())
    losses = {'cross_entropy': weights[0], 'Precision @ 1': tf.constant(0.0)}
    # Six steps are two epochs.
    step = model.train(losses, tf.gradients(weights, [weights]), recipe, 4, 12)
    session.run(tf.global_variables_initializer())
    fast = slow = 1.0
    for n in range(1, 9):
      session.run(step)
      fast -= 0.5
      if n % 2 == 0:
        decay = 0.8 * min(n / 6, 1)**3
        slow = fast = decay * slow + (1 - decay) * fast
      values = session.run({v.op.name: v for v in tf.global_variables()})
      numerics.assert_close(values['layer/weights'], [fast], 2, n, scale=4)
      numerics.assert_close(values['layer/weights/lookahead'], [slow], 2, n,
                            scale=4)


def test_variables_that_learn_faster():
  """Their weight decay stays what it is."""
  recipe = make_recipe(learning_rate=0.5, weight_decay=0.2,
                       decayed_variables='.*', scaled_variables='b',
                       learning_rate_factor=10)
  with tf.Graph().as_default(), tf.Session() as session:
    variables = [tf.get_variable(name, initializer=[1.0]) for name in 'ab']
    losses = {'cross_entropy': tf.add_n(variables)[0],
              'Precision @ 1': tf.constant(0.0)}
    step = model.train(losses, tf.gradients(losses['cross_entropy'], variables),
                       recipe, 4, 12)
    session.run(tf.global_variables_initializer())
    session.run(step)
    a, b = session.run(variables)
  numerics.assert_close(a, [1 - 0.5 * (1 + 0.2)], terms=3)
  numerics.assert_close(b, [1 - 0.5 * (10 + 0.2)], terms=3)


@pytest.mark.parametrize('schedule, factor', SCHEDULES)
@pytest.mark.parametrize('name, numpys', [
    ('sgd', NumpySgd), ('momentum', NumpyMomentum),
    ('nesterov', NumpyNesterov), ('adam', NumpyAdam)])
def test_steps_equal_numpys(name, numpys, schedule, factor):
  recipe = make_recipe(optimizer=name, momentum=0.8, beta1=0.7, beta2=0.9,
                       epsilon=1e-3, learning_rate=0.05, weight_decay=0.2,
                       moving_average_decay=0.6, **schedule)
  rng = np.random.default_rng(0)
  x, labels = rng.normal(size=(4, 5)), rng.integers(0, 3, 4)
  start = np.float32(rng.normal(size=(5, 3)))
  with tf.Graph().as_default(), tf.Session() as session:
    with tf.variable_scope('linear'):
      weights = tf.get_variable('weights', initializer=start)
    losses = model.loss(tf.matmul(tf.constant(x, tf.float32), weights),
                        tf.constant(labels, tf.int32))
    gradients = tf.gradients(losses['cross_entropy'], [weights])
    step = model.train(losses, gradients, recipe, 4, 12)
    session.run(tf.global_variables_initializer())
    found = [session.run([step, weights])[0].losses['total_loss']
             for _ in range(30)]
    final = session.run({v.op.name: v for v in tf.global_variables()})

  optimizer, w, average = numpys(), np.float64(start), np.float64(start)
  # Products of five features, three powers, four images; fifteen weights'
  # squares; and two averages of Adam's.
  terms = 5 + 3 + 4 + 15 + 2
  for n in range(30):
    p = np.exp(x @ w)
    p /= p.sum(1, keepdims=True)
    loss = -np.log(p[range(4), labels]).mean() + 0.1 * (w**2).sum()
    numerics.assert_close(found[n], loss, terms, n + 1)
    gradient = x.T @ (p - np.eye(3)[labels]) / 4 + 0.2 * w
    w = optimizer.update(w, gradient, 0.05 * factor(n / 3), recipe)
    decay = min(0.6, (2 + n) / (11 + n))
    average = decay * average + (1 - decay) * w
  numerics.assert_close(final['linear/weights'], w, terms, 30)
  numerics.assert_close(final['linear/weights/ExponentialMovingAverage'],
                        average, terms, 30)


def test_without_decay_there_are_no_averages():
  with tf.Graph().as_default():
    weights = tf.get_variable('weights', initializer=[[1.0, 2.0]])
    losses = model.loss(tf.constant([[1.0]]) @ weights, tf.constant([0]))
    model.train(losses, tf.gradients(losses['cross_entropy'], [weights]),
                make_recipe(moving_average_decay=0.0), 1, 1)
    assert {v.op.name for v in tf.global_variables()} == {
        'weights', 'global_step', 'cross_entropy/avg', 'total_loss/avg'}


@pytest.mark.parametrize('function, fields, message', [
    ('update', {'optimizer': 'lbfgs'}, "no optimizer 'lbfgs'. Did"),
    ('learning_rate', {'schedule': 'flat'}, "no schedule 'flat'. Did"),
    ('learning_rate', {'schedule': 'linear'}, 'schedule linear needs knots'),
    ('weight_decay', {'weight_decay': 1.0, 'decayed_variables': 'w'},
     'decayed_variables=w: is the name of no variable')])
def test_what_there_is_not(function, fields, message):
  arguments = {'update': [0.1, [], [], {}], 'learning_rate': [0, 1, 1],
               'weight_decay': [[]]}[function]
  with tf.Graph().as_default(), pytest.raises(UserError, match=message):
    getattr(optimizers, function)(make_recipe(**fields), *arguments)
