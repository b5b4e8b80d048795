"""What networks are made of: variables on the CPU, and layers.

Towers share one set of variables, so these live on the CPU, beside the place
where the towers' gradients meet (tutorial: "Training a Model Using Multiple GPU
Cards"). Layers make theirs in the current variable scope, as float32, and
compute in the type of their `inputs`: float32, bfloat16 or float16.
"""

from typing import NamedTuple
import zlib

import numpy as np
import tensorflow.compat.v1 as tf

from cifar10.nn import convolution
from cifar10.nn import summaries


class Tower(NamedTuple):
  """The part of a training step that is computed together."""
  step: tf.Tensor  # int64 scalar; the first is 0.
  index: int  # Of the part of the step's images...
  count: int  # ...of so many parts of equal size.


def truncated_normal(stddev):
  """Normal distribution, cut off at two standard deviations."""
  return tf.truncated_normal_initializer(stddev=stddev)


def glorot_uniform():
  """U(-x, x), x = sqrt(6 / (fan-in + fan-out)) (Glorot and Bengio, 2010)."""
  return tf.glorot_uniform_initializer()


def he_normal():
  """Truncated normal of variance 2 / fan-in (He et al., 2015)."""
  return tf.variance_scaling_initializer(2.0, 'fan_in', 'truncated_normal')


def fan_in_uniform():
  """U(-x, x), x = 1 / sqrt(fan-in): what PyTorch's layers start from."""
  return tf.variance_scaling_initializer(1 / 3, 'fan_in', 'uniform')


class dirac:  # Named like the functions above.
  """Kernels whose first outputs are the inputs, as they are (Zagoruyko and
  Komodakis, 2017); the others as of `fan_in_uniform()`."""
  seed = None

  def __call__(self, shape, dtype=tf.float32, partition_info=None):
    del partition_info
    height, width, inputs, outputs = shape
    identity = np.zeros(shape, np.float32)
    same = range(min(inputs, outputs))
    identity[height // 2, width // 2, same, same] = 1
    uniform = fan_in_uniform()
    uniform.seed = self.seed
    return tf.where_v2(np.arange(outputs) < inputs, identity,
                       uniform(shape, dtype))


def variable(name, shape, initializer, trainable=True):
  """Returns a float32 variable.

  Its initial value depends on the graph's seed and on its full name alone: not
  on how many towers there are or on what was built before it.

  Args:
    name: name within the current variable scope.
    shape: list of ints.
    initializer: what the functions above or tf.*_initializer() return.
    trainable: whether training changes it by gradients.
  """
  if hasattr(initializer, 'seed'):
    full_name = f'{tf.get_variable_scope().name}/{name}'
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
  return add_biases(convolution.conv2d(
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
  height, width = inputs.shape[1], inputs.shape[2]
  features = kernel_size**2 * inputs.shape[3]
  kernels = variable('weights', [height * width, features, channels], weights)
  patches = tf.extract_image_patches(
      inputs, [1, kernel_size, kernel_size, 1], [1, 1, 1, 1], [1, 1, 1, 1],
      'SAME')
  # One matrix product a place: [places, n, features] x [places, features, c].
  patches = tf.transpose(
      tf.reshape(patches, [-1, height * width, features]), [1, 0, 2])
  outputs = tf.transpose(
      tf.matmul(patches, tf.cast(kernels, inputs.dtype)), [1, 0, 2])
  outputs = tf.reshape(outputs, [-1, height, width, channels])
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


def batch_norm(inputs, tower, momentum=0.99, epsilon=1e-3, scale=True):
  """Batch normalization (Ioffe and Szegedy, 2015), by the fused op.

  In training each tower normalizes its own images by themselves. The moving
  mean and variance, which evaluation uses, are updated by the first tower
  alone, once a step, through UPDATE_OPS.

  Args:
    inputs: [n, height, width, c] or [n, c].
    tower: the `Tower`; None in evaluation.
    momentum: share of the old value in a moving average.
    epsilon: added to variances.
    scale: whether to learn a factor for each channel; else it is 1.

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
    if tower is None:
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


def dropout(inputs, rate, tower):
  """Sets a part of all values to 0 in training, and scales the others up.

  Which ones, depends on the graph's seed, the scope's name and the step, and
  is drawn for the images of all towers: whatever their number, and however
  often a run was resumed, it is the same. A scope can have one dropout only.

  Args:
    inputs: [n, ...].
    rate: the part to drop, 0 to 1.
    tower: the `Tower`; None in evaluation.

  Returns:
    Tensor of the shape of `inputs`.
  """
  if tower is None:
    return inputs
  shape = tf.shape(inputs)
  scope = tf.get_variable_scope().name
  if (scope, tower.index) in tf.get_collection('dropout'):
    raise ValueError(f'two dropouts in scope {scope!r} would drop the same')
  tf.add_to_collection('dropout', (scope, tower.index))
  seed = tf.stack([tf.constant(tf.get_default_graph().seed or 0, tf.int64)
                   + zlib.crc32(scope.encode()), tower.step])
  draws = tf.random.stateless_uniform(
      tf.concat([tower.count * shape[:1], shape[1:]], 0), seed)
  draws = draws[tower.index * shape[0]:(tower.index + 1) * shape[0]]
  return tf.where_v2(draws < rate, tf.zeros([], inputs.dtype),
                     inputs / (1 - rate))


def activation_summary(activations):
  """Adds a histogram and the sparsity (fraction of zeros) of `activations`.

  Tags carry the name of the variable scope, `conv1/activations` and
  `sparsity/conv1`, whatever tower this is. Only the tower that creates the
  variables adds them: the others, which reuse them, compute the same on other
  images.

  Args:
    activations: float tensor of any shape.
  """
  scope = tf.get_variable_scope()
  if scope.reuse:
    return
  summaries.histogram(f'{scope.name}/activations', activations)
  summaries.scalar(f'sparsity/{scope.name}', tf.nn.zero_fraction(activations))
