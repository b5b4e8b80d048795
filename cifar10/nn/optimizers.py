"""What a recipe says of the update: schedule, optimizer, weight decay."""

import math
import re

import tensorflow.compat.v1 as tf

from cifar10.util.errors import look_up
from cifar10.util.errors import UserError

OPTIMIZERS = {
    'sgd': lambda recipe, rate: tf.train.GradientDescentOptimizer(rate),
    'momentum': lambda recipe, rate: tf.train.MomentumOptimizer(
        rate, recipe.momentum),
    'nesterov': lambda recipe, rate: tf.train.MomentumOptimizer(
        rate, recipe.momentum, use_nesterov=True),
    'adam': lambda recipe, rate: tf.train.AdamOptimizer(
        rate, recipe.beta1, recipe.beta2, recipe.epsilon)}


def optimizer(recipe, learning_rate):
  """Returns the tf.train.Optimizer that a recipe names."""
  return look_up(recipe.optimizer, OPTIMIZERS, 'optimizer')(
      recipe, learning_rate)


# Schedules: recipe and epochs passed, a float64 scalar, to a factor.


def _exponential(recipe, epochs):
  decays = tf.floor(epochs / recipe.epochs_per_decay)
  return tf.cast(recipe.decay_factor, tf.float64)**decays


def _piecewise(recipe, epochs):
  factor = tf.ones_like(epochs)
  for start, value in recipe.knots:
    factor = tf.where(epochs >= start, tf.fill([], tf.cast(value, tf.float64)),
                      factor)
  return factor


def _linear(recipe, epochs):
  factor = tf.cast(recipe.knots[0][1], tf.float64)
  for (x0, y0), (x1, y1) in zip(recipe.knots, recipe.knots[1:]):
    factor += (y1 - y0) / (x1 - x0) * (tf.clip_by_value(epochs, x0, x1) - x0)
  return factor


def _cosine(recipe, epochs):
  return 0.5 + 0.5 * tf.cos(math.pi * tf.minimum(epochs / recipe.epochs, 1.0))


SCHEDULES = {'constant': lambda recipe, epochs: tf.ones_like(epochs),
             'exponential': _exponential, 'piecewise': _piecewise,
             'linear': _linear, 'cosine': _cosine}


def learning_rate(recipe, images_seen, batch_size, num_examples):
  """Returns the learning rate of a step.

  Args:
    recipe: the `Recipe`.
    images_seen: int64 scalar, images in the steps before this one.
    batch_size: images in a step, over all towers.
    num_examples: images in an epoch.

  Returns:
    float32 scalar.
  """
  schedule = look_up(recipe.schedule, SCHEDULES, 'schedule')
  if recipe.schedule in ('piecewise', 'linear') and not recipe.knots:
    raise UserError(f'schedule {recipe.schedule} needs knots')
  # As float64, an epoch boundary is where it is, not a step later.
  epochs = tf.cast(images_seen, tf.float64) / num_examples
  rate = recipe.learning_rate * schedule(recipe, epochs)
  if recipe.learning_rate_batch:
    rate *= batch_size / recipe.learning_rate_batch
  if recipe.warmup_epochs:
    rate *= tf.minimum(epochs / recipe.warmup_epochs, 1.0)
  return tf.cast(rate, tf.float32)


def scale(recipe, gradients, variables):
  """Returns the gradients, multiplied where the recipe says that variables are
  to learn faster or slower. (Their weight decay stays as it is.)"""
  if recipe.learning_rate_factor == 1:
    return gradients
  chosen = _matching(recipe, 'scaled_variables', variables)
  return [g * recipe.learning_rate_factor if v in chosen else g
          for g, v in zip(gradients, variables)]


def lookahead(recipe, steps, progress):
  """Draws the variables of the network back to their slow average, when it is
  time to (Lookahead; Zhang et al., 2019).

  The average also takes in what else the network goes by in evaluation, such as
  the moving statistics of batch normalization.

  Args:
    recipe: the `Recipe`.
    steps: int64 scalar, how many were made.
    progress: float32 scalar, the part of the training that is done.

  Returns:
    The operation.
  """
  variables = [v for v in tf.get_collection(tf.GraphKeys.MODEL_VARIABLES)
               if not v.op.name.startswith('statistics/')]
  with tf.device('/cpu:0'):
    averages = [tf.get_variable(
        f'{v.op.name}/lookahead', initializer=v.initial_value,
        trainable=False) for v in variables]
  share = 1 - recipe.lookahead_decay * tf.minimum(progress, 1.0)**3

  def draw_back():
    moved = [average.assign_add(share * (v - average))
             for v, average in zip(variables, averages)]
    return tf.group(*[v.assign(average)
                      for v, average in zip(variables, moved)])

  return tf.cond(tf.equal(steps % recipe.lookahead_steps, 0), draw_back,
                 tf.no_op)


def weight_decay(recipe, variables):
  """Returns the L2 loss of the variables to decay, a float32 scalar."""
  if not recipe.weight_decay:
    return tf.constant(0.0)
  return recipe.weight_decay * tf.add_n([
      tf.nn.l2_loss(v)
      for v in _matching(recipe, 'decayed_variables', variables)])


def _matching(recipe, field, variables):
  """Returns the variables whose names the regular expression matches."""
  pattern = getattr(recipe, field)
  found = [v for v in variables if re.fullmatch(pattern, v.op.name)]
  if not found:
    raise UserError(f'recipe: {field}={pattern}: is the name of no variable')
  return found
