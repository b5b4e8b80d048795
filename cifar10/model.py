"""The model: inference(), loss(), gradients() and train().

A training program is these calls in a row (see train.py):

    images, labels = inputs.distorted_inputs(run, data)
    logits = model.inference(images, num_classes, is_training=True)
    losses = model.loss(logits, labels)
    step = model.train(losses, model.gradients(losses), recipe, global_batch,
                       num_examples)

`inference()` is the convolutional network of TensorFlow's CIFAR-10 tutorial,
after cuda-convnet by Alex Krizhevsky; the others are in networks/. The other
functions serve any network.
"""

from typing import NamedTuple

import tensorflow.compat.v1 as tf

from cifar10.nn import kernels
from cifar10.nn import layers
from cifar10.nn import optimizers
from cifar10.nn import replicas
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
SELECTOR = 'selector'  # Variable scope of a selector (networks/selection.py).


def inference(images, num_classes, is_training=False):
  """Builds the tutorial's network: two convolutions, two dense layers, logits.

  Args:
    images: [n, height, width, depth] of the type to compute in; the tutorial's
      are 24x24x3.
    num_classes: number of classes.
    is_training: makes no difference to this network.

  Returns:
    [n, num_classes] logits of that type. Softmax is left to the loss.
  """
  del is_training
  features = convolutions(images)
  initializer = tf.truncated_normal_initializer(stddev=0.04)
  with tf.variable_scope('local3'):
    local3 = tf.nn.relu(layers.dense(features, 384, initializer, bias=0.1))
    layers.activation_summary(local3)

  with tf.variable_scope('local4'):
    local4 = tf.nn.relu(layers.dense(local3, 192, initializer, bias=0.1))
    layers.activation_summary(local4)

  with tf.variable_scope('softmax_linear'):
    logits = layers.dense(
        local4, num_classes, tf.truncated_normal_initializer(stddev=1 / 192.0))
    layers.activation_summary(logits)
  return logits


def convolutions(images):
  """Builds the convolutional part: [n, 24, 24, 3] to [n, 6, 6, 64]."""
  # Max pooling before bias and ReLU gives the same result, and leaves them a
  # quarter of the values.
  initializer = tf.truncated_normal_initializer(stddev=0.05)
  with tf.variable_scope('conv1'):
    pool1 = _max_pool(layers.conv2d(images, 5, 64, initializer), 'pool1')
    pool1 = tf.nn.relu(layers.add_biases(pool1, 0.0))
    layers.activation_summary(pool1)
  norm1 = _local_response_normalization(pool1, 'norm1')

  with tf.variable_scope('conv2'):
    conv2 = tf.nn.relu(layers.conv2d(norm1, 5, 64, initializer, bias=0.1))
    layers.activation_summary(conv2)
  norm2 = _local_response_normalization(conv2, 'norm2')
  return _max_pool(norm2, 'pool2')


def _max_pool(inputs, name):
  return tf.nn.max_pool2d(inputs, ksize=3, strides=2, padding='SAME', name=name)


def _local_response_normalization(inputs, name):
  with tf.name_scope(name):
    return kernels.local_response_normalization(inputs, radius=4, bias=1.0,
                                                alpha=0.001 / 9.0)


def metrics(logits, labels, label_smoothing=0.0):
  """Computes what training and evaluation measure of each image.

  Args:
    logits: [n, classes].
    labels: int32 [n].
    label_smoothing: fraction of each label that is spread over all classes.

  Returns:
    Dict of float32 [n] tensors by name: `cross_entropy` in nats; with label
    smoothing `smoothed_cross_entropy`; and `Precision @ 1`, which is 1.0 where
    the largest logit is the label's. (Among equal logits the first one counts.
    tf.nn.in_top_k counts each of them, so that a network with constant logits
    would have a precision of 100%.)
  """
  logits = tf.cast(logits, tf.float32)
  cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(
      labels=labels, logits=logits)
  correct = tf.equal(tf.argmax(logits, 1, output_type=tf.int32), labels)
  values = {'cross_entropy': cross_entropy,
            'Precision @ 1': tf.cast(correct, tf.float32)}
  if label_smoothing:
    uniform = -tf.reduce_mean(tf.nn.log_softmax(logits), 1)
    values['smoothed_cross_entropy'] = (
        (1 - label_smoothing) * cross_entropy + label_smoothing * uniform)
  return values


def tag(name):
  """Returns the summary tag for a name in `metrics()` or `loss()`. TensorBoard
  groups charts by the part before the slash."""
  group = 'precision' if name.startswith('Precision') else 'loss'
  return f'{group}/{name}'


def loss(logits, labels, label_smoothing=0.0):
  """Computes the losses of a batch, and its precision.

  Weight decay, which depends on no image, is added in `train()`: once, however
  many towers there are.

  Args:
    logits: [n, classes].
    labels: int32 [n].
    label_smoothing: fraction of each label that is spread over all classes.

  Returns:
    Dict of float32 scalars by name: the means of `metrics()`.
  """
  return {name: tf.reduce_mean(values) for name, values in metrics(
      logits, labels, label_smoothing).items()}


def objective(losses):
  """Returns what to minimize, of a dict that `metrics()` or `loss()` returns:
  the cross-entropy, plus a selector's loss, if any."""
  loss = losses.get('smoothed_cross_entropy', losses['cross_entropy'])
  return loss + losses['selector_loss'] if 'selector_loss' in losses else loss


def gradients(losses, dtype='float32'):
  """Computes the gradients of the `objective()`.

  Args:
    losses: the dict that `loss()` returns, with a selector's, if any.
    dtype: type that the network computes in.

  Returns:
    List of float32 tensors, one for each of tf.trainable_variables(). On
    another host than the first, they are gradients of its copies.
  """
  loss, variables = objective(losses), replicas.trainable_variables()
  if dtype == 'float16':
    return optimizers.scaled_gradients(loss, variables)
  return tf.gradients(loss, variables)


class Step(NamedTuple):
  """One training step, for `loop.Loop`. Tensors have their values from before
  the update.

  Attributes:
    train_op: updates everything.
    step: int64 scalar, the number of steps before this one.
    learning_rate: float32 scalar.
    losses: dict of float32 scalars by name: those of `loss()`, with the
      precision, and `total_loss`, the objective plus the weight decay.
    gradient_norms: dict of float32 scalars by name of the variable.
  """
  train_op: tf.Operation
  step: tf.Tensor
  learning_rate: tf.Tensor
  losses: dict
  gradient_norms: dict


def train(losses, gradients, recipe, global_batch, num_examples,
          dtype='float32'):
  """Adds the update to the graph: weight decay, optimizer, moving averages.

  Args:
    losses: the losses of a step, averaged over all towers.
    gradients: gradients of `objective(losses)`, in the order of
      tf.trainable_variables().
    recipe: the `Recipe`.
    global_batch: images in a step, over all towers.
    num_examples: images in an epoch.
    dtype: type that the gradients were computed in. If gradients overflow
      float16, the step does not apply them.

  Returns:
    The `Step`.
  """
  variables = tf.trainable_variables()
  global_step = tf.train.get_or_create_global_step()
  with tf.name_scope('learning_rate'):
    step = tf.identity(global_step)
    learning_rate = optimizers.learning_rate(
        recipe, step * global_batch, global_batch, num_examples)

  with tf.name_scope('losses'):
    decay = optimizers.weight_decay(recipe, variables)
    total_loss = tf.add(objective(losses), decay, name='total_loss')
    losses = {**losses, 'total_loss': total_loss}
    averaged_losses = _average_losses(losses, step)

  with tf.name_scope('gradients'):
    gradients = optimizers.with_decay(recipe, gradients, variables, decay)
    norms = optimizers.norms(gradients, variables)

  # Losses and weight decay read the variables, so they come before the update.
  with tf.name_scope('update'), tf.control_dependencies(
      list(averaged_losses.values())):
    update = optimizers.update(recipe, learning_rate, gradients, variables,
                               norms if dtype == 'float16' else {})
    with tf.control_dependencies([update]):
      updates = [global_step.assign_add(1)]
  # Those of batch normalization.
  updates += tf.get_collection(tf.GraphKeys.UPDATE_OPS)

  if recipe.lookahead_steps:
    with tf.name_scope('lookahead'), tf.control_dependencies(updates):
      updates.append(optimizers.lookahead(
          recipe, step + 1, global_batch, num_examples))

  # The averages take in the weights after the update.
  with tf.name_scope('averages'), tf.control_dependencies(updates):
    if recipe.moving_average_decay:
      averages = tf.train.ExponentialMovingAverage(
          recipe.moving_average_decay, global_step)
      updates.append(averages.apply(variables))
    train_op = tf.group(*updates)

  with tf.name_scope('summaries'), tf.control_dependencies([train_op]):
    summaries.scalar('training/learning_rate', learning_rate)
    _summarize_losses(losses, averaged_losses)
    first = next(
        v for v in variables if not v.op.name.startswith(f'{SELECTOR}/'))
    summaries.filters(f'filters/{first.op.name}', first.read_value())
    summaries.variables(variables, gradients, norms)
  return Step(train_op, step, learning_rate, losses, norms)


def _average_losses(losses, step):
  """Averages the losses over the steps, with decay 0.9.

  Args:
    losses: float32 scalars by name.
    step: int64 scalar, the number of steps before this one.

  Returns:
    Averages of the cross-entropy and the total loss by name, computed after all
    losses: the update waits for them.
  """
  # The averages start at 0. Dividing by 1 - 0.9**steps corrects for that, as in
  # Adam. Values that are not finite (overflows of float16) change nothing; if
  # the first steps had such values, the average is too low for a while.
  weight = 1 - 0.9 ** (tf.cast(step, tf.float32) + 1)
  averages = {}
  with tf.device('/cpu:0'), tf.control_dependencies(list(losses.values())):
    for name in 'cross_entropy', 'total_loss':
      average = tf.get_variable(f'{name}/avg', [], tf.float32,
                                tf.zeros_initializer(), trainable=False)
      value = tf.where(tf.is_finite(losses[name]), losses[name], average)
      averages[name] = average.assign(0.9 * average + 0.1 * value) / weight
  return averages


def _summarize_losses(losses, averaged_losses):
  for name, value in losses.items():
    if name in averaged_losses:
      summaries.scalar(f'{tag(name)}/raw', value)
    summaries.scalar(tag(name), averaged_losses.get(name, value))
