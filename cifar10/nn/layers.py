"""Layers, and variables that towers share.

Variables live on the CPU, where the gradients of the towers meet (tutorial:
"Training a Model Using Multiple GPU Cards"). A layer creates its variables in
the current variable scope, as float32, and computes in the type of its
`inputs`: float32, bfloat16 or float16.
"""

import contextlib
import copy
import zlib

import tensorflow.compat.v1 as tf

from cifar10.nn import kernels
from cifar10.nn import summaries


@contextlib.contextmanager
def tower(index, count):
  """Makes the network built in the `with` one of `count` towers, which share
  variables.

  The name scope is tower_{index}. The first tower creates the variables, the
  others reuse them. Without this, a graph has one tower.

  Args:
    index: of the tower, from 0.
    count: number of towers. Each has an equal part of the images of a step, in
      the order of their indices.
  """
  towers = tf.get_collection_ref('towers')
  towers.append((index, count))
  with tf.name_scope(f'tower_{index}'), tf.variable_scope(
      tf.get_variable_scope(), reuse=index > 0):
    yield
  towers.pop()


def variable(name, shape, initializer, trainable=True):
  """Returns a float32 variable.

  Its initial value depends only on the graph's seed and on its full name: not
  on the number of towers or on what was built before it.

  Args:
    name: name within the current variable scope.
    shape: list of ints.
    initializer: a tf.Initializer, or a function of shape and dtype.
    trainable: whether gradients update it.
  """
  if hasattr(initializer, 'seed'):
    full_name = f'{tf.get_variable_scope().name}/{name}'
    initializer = copy.copy(initializer)
    initializer.seed = zlib.crc32(full_name.encode())
  with tf.device('/cpu:0'):
    return tf.get_variable(
        name, shape, tf.float32, initializer, trainable=trainable, collections=[
            tf.GraphKeys.GLOBAL_VARIABLES, tf.GraphKeys.MODEL_VARIABLES])


def conv2d(inputs, kernel_size, channels, weights, bias=None, strides=1,
           padding='SAME'):
  """Convolution, without activation.

  Args:
    inputs: [n, height, width, c].
    kernel_size: side of the square kernel.
    channels: how many feature maps to make.
    weights: initializer of the variable `weights`.
    bias: initial value of the variable `biases`; None: do without it.
    strides: pixels from one place of the kernel to the next.
    padding: 'SAME' or 'VALID'.

  Returns:
    [n, height / strides, width / strides, channels] with padding 'SAME'.
  """
  kernel = variable('weights', [kernel_size, kernel_size, inputs.shape[-1],
                                channels], weights)
  return add_biases(kernels.conv2d(
      inputs, tf.cast(kernel, inputs.dtype), strides, padding), bias)


def dense(inputs, units, weights, bias=0.0):
  """Fully connected layer, without activation.

  Args:
    inputs: [n, ...]; features are all but the first dimension.
    units: how many outputs to make.
    weights: initializer of the variable `weights`.
    bias: initial value of the variable `biases`; None: do without it.

  Returns:
    [n, units].
  """
  features = inputs.shape[1:].num_elements()
  weights = variable('weights', [features, units], weights)
  return add_biases(tf.matmul(tf.reshape(inputs, [-1, features]),
                              tf.cast(weights, inputs.dtype)), bias)


def locally_connected(inputs, kernel_size, channels, weights, bias=0.0):
  """Convolution whose kernel is another one at each place (cuda-convnet's
  `local`), stride 1, zero padding to keep the size, without activation.

  Args:
    inputs: [n, height, width, c].
    kernel_size: side of the square kernels.
    channels: how many feature maps to make.
    weights: initializer of the variable `weights`.
    bias: initial value of the variable `biases`, one for each output.

  Returns:
    [n, height, width, channels].
  """
  _, height, width, depth = inputs.shape.as_list()
  size, before = kernel_size, (kernel_size - 1) // 2
  kernels = variable('weights', [height * width, size**2 * depth, channels],
                     weights)
  # One matrix product a place: [height, width, n, features] x
  # [height, width, features, channels].
  x = tf.pad(inputs, [[0, 0], *[[before, size - 1 - before]] * 2, [0, 0]])
  x = tf.transpose(x, [1, 2, 0, 3])
  # The gradient of tf.slice() takes much less time than that of x[i:, j:].
  patches = tf.concat([tf.slice(x, [i, j, 0, 0], [height, width, -1, -1])
                       for i in range(size) for j in range(size)], 3)
  kernels = tf.reshape(tf.cast(kernels, inputs.dtype),
                       [height, width, size**2 * depth, channels])
  outputs = tf.transpose(tf.matmul(patches, kernels), [2, 0, 1, 3])
  biases = variable('biases', [height, width, channels],
                    tf.constant_initializer(bias))
  return outputs + tf.cast(biases, inputs.dtype)


def add_biases(inputs, bias):
  """Adds a variable `biases`, one for each channel.

  Args:
    inputs: [n, ..., channels].
    bias: its initial value; None: there is none to add.

  Returns:
    Tensor of the shape of `inputs`.
  """
  if bias is None:
    return inputs
  biases = variable('biases', [inputs.shape[-1]], tf.constant_initializer(bias))
  return tf.nn.bias_add(inputs, tf.cast(biases, inputs.dtype))


def batch_norm(inputs, is_training, momentum=0.99, epsilon=1e-3, scale=True):
  """Batch normalization (Ioffe and Szegedy, 2015), by the fused op.

  A variable scope can have one. In training, each tower normalizes with the
  statistics of its own images. Only the first tower updates the moving mean and
  variance, which evaluation uses: once a step, through UPDATE_OPS.

  Args:
    inputs: [n, height, width, c] or [n, c].
    is_training: whether to use the statistics of these images, and not the
      moving ones.
    momentum: weight of the old value in a moving average.
    epsilon: added to variances.
    scale: whether to learn a factor for each channel; otherwise it is 1.

  Returns:
    Tensor of the shape of `inputs`.
  """
  channels = inputs.shape[-1]
  ones, zeros = tf.ones_initializer(), tf.zeros_initializer()
  with tf.variable_scope('batch_norm') as scope:
    scale = (variable('scale', [channels], ones) if scale
             else tf.ones([channels]))
    offset = variable('offset', [channels], zeros)
    moving_mean = variable('moving_mean', [channels], zeros, trainable=False)
    moving_variance = variable('moving_variance', [channels], ones,
                               trainable=False)
    images = inputs
    if inputs.shape.rank == 2:
      images = tf.reshape(inputs, [-1, 1, 1, channels])
    if not is_training:
      outputs, _, _ = tf.nn.fused_batch_norm(
          images, scale, offset, moving_mean, moving_variance, epsilon,
          is_training=False)
    else:
      outputs, mean, variance = tf.nn.fused_batch_norm(
          images, scale, offset, epsilon=epsilon)
      if not scope.reuse:
        for average, value in ((moving_mean, mean),
                               (moving_variance, variance)):
          if inputs.dtype == tf.float16:  # It may have overflowed.
            value = tf.where(tf.is_finite(value), value, average)
          tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, average.assign_sub(
              (1 - momentum) * (average - value)))
  if inputs.shape.rank == 2:
    return tf.reshape(outputs, [-1, channels])
  return outputs


def dropout(inputs, rate, is_training):
  """Sets random values to 0 in training, and scales the others up.

  The choice depends on the graph's seed, the scope's name and the global step.
  It is drawn for the images of all towers, so that neither the number of towers
  nor interruptions change it. A scope can have only one dropout.

  Args:
    inputs: [n, ...].
    rate: fraction of values to drop, 0 to 1.
    is_training: whether to drop values.

  Returns:
    Tensor of the shape of `inputs`.

  Raises:
    ValueError: the scope has a dropout already, or the graph no global step.
  """
  if not is_training:
    return inputs
  index, count = (tf.get_collection('towers') or [(0, 1)])[-1]
  shape = tf.shape(inputs)
  scope = tf.get_variable_scope().name
  if (scope, index) in tf.get_collection('dropout'):
    raise ValueError(f'two dropouts in scope {scope!r} would drop the same')
  tf.add_to_collection('dropout', (scope, index))
  seed = tf.stack([tf.constant(tf.get_default_graph().seed or 0, tf.int64)
                   + zlib.crc32(scope.encode()), _step()])
  draws = tf.random.stateless_uniform(
      tf.concat([count * shape[:1], shape[1:]], 0), seed)
  draws = draws[index * shape[0]:(index + 1) * shape[0]]
  return tf.where_v2(draws < rate, tf.zeros([], inputs.dtype),
                     inputs / (1 - rate))


def _step():
  """Returns the global step before the update, int64 scalar; it is read once in
  a graph, on the CPU."""
  steps = tf.get_collection_ref('step before the update')
  if not steps:
    with tf.device('/cpu:0'):
      steps.append(tf.identity(tf.train.get_global_step()))
  return steps[0]


def activation_summary(activations):
  """Adds a histogram and the sparsity (fraction of zeros) of `activations`.

  Tags have the name of the variable scope, `conv1/activations` and
  `sparsity/conv1`, in any tower. Only the first tower adds them: the others
  compute the same on other images.

  Args:
    activations: float tensor of any shape.
  """
  scope = tf.get_variable_scope()
  if scope.reuse:
    return
  summaries.histogram(f'{scope.name}/activations', activations)
  summaries.scalar(f'sparsity/{scope.name}', tf.nn.zero_fraction(activations))
