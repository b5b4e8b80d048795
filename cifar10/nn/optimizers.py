"""The update, as a recipe describes it: schedule, weight decay, optimizer."""

import math
import re

import tensorflow.compat.v1 as tf

from cifar10.nn import replicas
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


# Gradients are multiplied by it on their way through the network, as float16
# would round the small ones to zero.
_LOSS_SCALE = 1024.0


def scaled_gradients(loss, variables):
  """Returns the gradients of a loss of a network that computes in float16."""
  return [gradient / _LOSS_SCALE
          for gradient in tf.gradients(loss * _LOSS_SCALE, variables)]


def update(recipe, learning_rate, gradients, variables, must_be_finite):
  """Returns the operation that applies gradients by the recipe's optimizer.

  Args:
    recipe: the `Recipe`.
    learning_rate: float32 scalar.
    gradients, variables: lists.
    must_be_finite: dict of scalars; if one of them is not finite when the
      operation runs, nothing is applied.
  """
  optimizer = look_up(recipe.optimizer, OPTIMIZERS, 'optimizer')(
      recipe, learning_rate)

  def apply_gradients():
    return optimizer.apply_gradients(zip(gradients, variables))

  if not must_be_finite:
    return apply_gradients()
  finite = tf.reduce_all(tf.is_finite(list(must_be_finite.values())))
  return tf.cond(finite, apply_gradients, tf.no_op)


def norms(gradients, variables):
  """Returns the L2 norms of gradients, float32 scalars by name of variable."""
  # l2_loss is half the square of the norm, in one pass over memory.
  return {v.op.name: tf.sqrt(2 * tf.nn.l2_loss(g))
          for v, g in zip(variables, gradients)}


# Schedules: functions of the recipe and of the epochs passed, a float64 scalar,
# to the factor of the learning rate.


def _exponential(recipe, epochs):
  decays = tf.floor(epochs / recipe.epochs_per_decay)
  return tf.cast(recipe.decay_factor, tf.float64)**decays


def _piecewise(recipe, epochs):
  factor = tf.ones_like(epochs)
  for start, value in recipe.knots:
    factor = tf.where(epochs >= start, tf.constant(value, tf.float64), factor)
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


def learning_rate(recipe, images_seen, global_batch, num_examples):
  """Returns the learning rate of a step.

  Args:
    recipe: the `Recipe`.
    images_seen: int64 scalar, images in the steps before this one.
    global_batch: images in a step, over all towers.
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
    rate *= global_batch / recipe.learning_rate_batch
  if recipe.warmup_epochs:
    rate *= tf.minimum(epochs / recipe.warmup_epochs, 1.0)
  return tf.cast(rate, tf.float32)


def with_decay(recipe, gradients, variables, decay):
  """Returns the gradients to apply.

  Args:
    recipe: the `Recipe`. Gradients of its scaled_variables are multiplied by
      its learning_rate_factor; their weight decay stays as it is.
    gradients, variables: lists.
    decay: the `weight_decay()` of the variables, whose gradients are added.

  Returns:
    List of tensors.
  """
  if recipe.learning_rate_factor != 1:
    chosen = _matching(recipe, 'scaled_variables', variables)
    gradients = [g * recipe.learning_rate_factor if v in chosen else g
                 for g, v in zip(gradients, variables)]
  return [g if other is None else g + other for g, other in zip(
      gradients, tf.gradients(decay, variables))]


def lookahead(recipe, steps, global_batch, num_examples, variables=None):
  """Sets the variables of the network to their slow average, every
  `lookahead_steps` steps (Lookahead; Zhang et al., 2019).

  Args:
    recipe: the `Recipe`.
    steps: int64 scalar, the number of steps done.
    global_batch: images in a step, over all towers.
    num_examples: images in an epoch.
    variables: list; None: all that evaluation uses, so also the moving
      statistics of batch normalization.

  Returns:
    The operation.
  """
  variables = variables or [
      v for v in tf.get_collection(tf.GraphKeys.MODEL_VARIABLES)
      if not v.op.name.startswith('statistics/')]
  progress = tf.cast(steps * global_batch, tf.float32) / (
      recipe.epochs * num_examples)
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
  found = [v for v in variables
           if re.fullmatch(pattern, replicas.name_of(v))]
  if not found:
    raise UserError(f'recipe: {field}={pattern}: is the name of no variable')
  return found
