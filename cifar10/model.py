"""The tutorial's network, and what every network is trained with.

`inference()` is the convolutional network of TensorFlow's CIFAR-10 tutorial,
after cuda-convnet by Alex Krizhevsky. `loss()` and `train()` serve any network.
"""

from typing import NamedTuple

import tensorflow.compat.v1 as tf

from cifar10.nn import layers
from cifar10.nn import lrn
from cifar10.nn import optimizers
from cifar10.nn import summaries
from cifar10.recipe import Recipe

# Tutorial: "about 86%" after 60 to 100 thousand steps of 128 images of 50,000;
# 256 epochs are 100,000 such steps.
RECIPE = Recipe(
    epochs=256,
    batch_size=128,
    crop_size=0.75,
    augmentation='crop_and_color',
    learning_rate=0.1,
    schedule='exponential',
    decay_factor=0.1,
    epochs_per_decay=350,
    weight_decay=0.004,
    decayed_variables='local[34]/weights',
    moving_average_decay=0.9999)
PUBLISHED = 'about 86%'
MEASURED = '82.2%'

_FLOAT16_LOSS_SCALE = 1024.0


def inference(images, num_classes, tower=None):
  """The tutorial's network: two convolutions, two dense layers, and logits.

  Args:
    images: [n, height, width, depth] of the type to compute in; the tutorial's
      are 24x24x3.
    num_classes: how many classes to tell apart.
    tower: the `layers.Tower` in training, which makes no difference here.

  Returns:
    [n, num_classes] logits of that type. Softmax is left to the loss.
  """
  del tower
  features = convolutions(images)
  with tf.variable_scope('local3'):
    local3 = tf.nn.relu(layers.dense(
        features, 384, layers.truncated_normal(0.04), bias=0.1))
    layers.activation_summary(local3)

  with tf.variable_scope('local4'):
    local4 = tf.nn.relu(layers.dense(
        local3, 192, layers.truncated_normal(0.04), bias=0.1))
    layers.activation_summary(local4)

  with tf.variable_scope('softmax_linear'):
    logits = layers.dense(local4, num_classes,
                          layers.truncated_normal(1 / 192.0))
    layers.activation_summary(logits)
  return logits


def convolutions(images):
  """The convolutional part: [n, 24, 24, 3] to [n, 6, 6, 64]."""
  # Biases and ReLU change no order, so the largest values can be picked before:
  # a quarter is left for them to work on.
  with tf.variable_scope('conv1'):
    pool1 = _max_pool(layers.conv2d(
        images, 5, 64, layers.truncated_normal(0.05)), 'pool1')
    pool1 = tf.nn.relu(layers.add_biases(pool1, 0.0))
    layers.activation_summary(pool1)
  norm1 = _local_response_normalization(pool1, 'norm1')

  with tf.variable_scope('conv2'):
    conv2 = tf.nn.relu(layers.conv2d(
        norm1, 5, 64, layers.truncated_normal(0.05), bias=0.1))
    layers.activation_summary(conv2)
  norm2 = _local_response_normalization(conv2, 'norm2')
  return _max_pool(norm2, 'pool2')


def _max_pool(inputs, name):
  return tf.nn.max_pool2d(inputs, ksize=3, strides=2, padding='SAME', name=name)


def _local_response_normalization(inputs, name):
  with tf.name_scope(name):
    return lrn.local_response_normalization(inputs, radius=4, bias=1.0,
                                            alpha=0.001 / 9.0)


def metrics(logits, labels):
  """What is measured of each image, in training and in evaluation.

  Args:
    logits: [n, classes].
    labels: int32 [n].

  Returns:
    Dict of float32 [n] tensors by name: `cross_entropy` in nats, and
    `Precision @ 1`, 1.0 where the largest logit is the label's. (The first of
    equal ones decides: tf.nn.in_top_k calls each of them right, so a network
    that tells nothing apart would score 100%.)
  """
  logits = tf.cast(logits, tf.float32)
  cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(
      labels=labels, logits=logits)
  correct = tf.equal(tf.argmax(logits, 1, output_type=tf.int32), labels)
  return {'cross_entropy': cross_entropy,
          'Precision @ 1': tf.cast(correct, tf.float32)}


def tag(name):
  """Returns the summary tag of what is measured, by its name in `metrics()` and
  `loss()`: TensorBoard groups by what stands before the slash."""
  group = 'precision' if name.startswith('Precision') else 'loss'
  return f'{group}/{name}'


def loss(logits, labels, label_smoothing=0.0):
  """Returns the means of `metrics()` over the batch, float32 scalars by name.

  What is to be made small is `objective()` of them: `cross_entropy`, or with
  label smoothing `smoothed_cross_entropy`. The weight decay, which depends on
  no image, is added in `train()`: once, however many towers there are.
  """
  losses = {name: tf.reduce_mean(values)
            for name, values in metrics(logits, labels).items()}
  if label_smoothing:
    uniform = -tf.reduce_mean(tf.nn.log_softmax(tf.cast(logits, tf.float32)))
    losses['smoothed_cross_entropy'] = (
        (1 - label_smoothing) * losses['cross_entropy']
        + label_smoothing * uniform)
  return losses


def objective(losses):
  """Returns what is to be made small of what `loss()` returns."""
  return losses.get('smoothed_cross_entropy', losses['cross_entropy'])


def gradients(losses, dtype):
  """Returns the gradients of the `objective()`, float32.

  Args:
    losses: what `loss()` returns.
    dtype: what the network computes in. Of the small gradients of its
      activations float16 would make zeros, so they are scaled up on their way.

  Returns:
    List of tensors, one for each of tf.trainable_variables().
  """
  loss, variables = objective(losses), tf.trainable_variables()
  if dtype != 'float16':
    return tf.gradients(loss, variables)
  return [g / _FLOAT16_LOSS_SCALE
          for g in tf.gradients(loss * _FLOAT16_LOSS_SCALE, variables)]


class Step(NamedTuple):
  """One training step, to be run by `loop.loop()`.

  `step` and all else that is measured are of before the update.
  """
  train_op: tf.Operation  # Updates everything.
  step: tf.Tensor  # int64 scalar; the first is 0.
  learning_rate: tf.Tensor  # float32 scalar.
  losses: dict  # float32 scalars: `total_loss` and what `loss()` returns.
  gradient_norms: dict  # float32 scalars by variable name.


def train(losses, gradients, recipe, batch_size, num_examples,
          dtype='float32'):
  """Adds the update: the recipe's optimizer, then the moving averages.

  Args:
    losses: what `loss()` returns, the mean over all towers.
    gradients: of `objective(losses)`, in the order of
      tf.trainable_variables().
    recipe: the `Recipe`.
    batch_size: images in a step, over all towers.
    num_examples: images in an epoch.
    dtype: what the gradients were computed in. When float16 overflowed and
      they are not finite, the step counts, but changes no weight.

  Returns:
    The `Step`.
  """
  variables = tf.trainable_variables()
  global_step = tf.train.get_or_create_global_step()
  with tf.name_scope('learning_rate'):
    step = tf.identity(global_step)
    learning_rate = optimizers.learning_rate(
        recipe, step * batch_size, batch_size, num_examples)

  with tf.name_scope('losses'):
    decay = optimizers.weight_decay(recipe, variables)
    total_loss = tf.add(objective(losses), decay, name='total_loss')
    losses = {**losses, 'total_loss': total_loss}
    averaged = _average_losses(losses, step)

  with tf.name_scope('gradients'):
    gradients = optimizers.scale(recipe, gradients, variables)
    gradients = [
        g if d is None else g + d
        for g, d in zip(gradients, tf.gradients(decay, variables))]
    # Of a norm, l2_loss is half the square, made in one pass over memory.
    norms = {v.op.name: tf.sqrt(2 * tf.nn.l2_loss(g))
             for v, g in zip(variables, gradients)}

  # The decay reads the variables too: all losses first, then the update.
  with tf.name_scope('update'), tf.control_dependencies(
      list(averaged.values())):
    optimizer = optimizers.optimizer(recipe, learning_rate)

    def update():
      return optimizer.apply_gradients(zip(gradients, variables))

    if dtype == 'float16':
      finite = tf.reduce_all(tf.is_finite(list(norms.values())))
      apply_gradients = tf.cond(finite, update, tf.no_op)
    else:
      apply_gradients = update()
    with tf.control_dependencies([apply_gradients]):
      count_step = global_step.assign_add(1)

  updates = [count_step, *tf.get_collection(tf.GraphKeys.UPDATE_OPS)]
  if recipe.lookahead_steps:
    with tf.name_scope('lookahead'), tf.control_dependencies(updates):
      progress = tf.cast((step + 1) * batch_size, tf.float32) / (
          recipe.epochs * num_examples)
      updates.append(optimizers.lookahead(recipe, step + 1, progress))

  # After the update: otherwise the averages take in the weights of the step
  # before, or of this one, as it happens.
  with tf.name_scope('averages'), tf.control_dependencies(updates):
    if recipe.moving_average_decay:
      averages = tf.train.ExponentialMovingAverage(
          recipe.moving_average_decay, global_step)
      updates.append(averages.apply(variables))
    train_op = tf.group(*updates)

  with tf.name_scope('summaries'), tf.control_dependencies([train_op]):
    summaries.scalar('training/learning_rate', learning_rate)
    for name, value in losses.items():
      if name in averaged:
        summaries.scalar(f'{tag(name)}/raw', value)
      summaries.scalar(tag(name), averaged.get(name, value))
    for name, norm in norms.items():
      summaries.scalar(f'training/gradient_norm/{name}', norm)
    summaries.filters(f'filters/{variables[0].op.name}',
                      variables[0].read_value())
    for variable, gradient in zip(variables, gradients):
      summaries.histogram(variable.op.name, variable.read_value())
      summaries.histogram(f'{variable.op.name}/gradients', gradient)

  return Step(train_op, step, learning_rate, losses, norms)


def _average_losses(losses, step):
  """Averages the losses over the steps, with decay 0.9.

  Args:
    losses: float32 scalars by name.
    step: int64 scalar, how often they were averaged before.

  Returns:
    The averages of all that is a loss, by name, computed when all losses are.
  """
  # They start at 0, which is divided out: its weight is 0.9**steps. What is not
  # finite (an overflow of float16) is left out.
  weight = 1 - 0.9 ** (tf.cast(step, tf.float32) + 1)
  averages = {}
  with tf.device('/cpu:0'), tf.control_dependencies(list(losses.values())):
    for name in 'cross_entropy', 'total_loss':
      average = tf.get_variable(f'{name}/avg', [], tf.float32,
                                tf.zeros_initializer(), trainable=False)
      value = tf.where(tf.is_finite(losses[name]), losses[name], average)
      averages[name] = average.assign(0.9 * average + 0.1 * value) / weight
  return averages
