"""Convolution of 16 bits, and local response normalization, faster on CPUs."""

import functools
import uuid

import tensorflow.compat.v1 as tf

from cifar10.util import gpus

# bfloat16 values in a tile row of the matrix unit (AMX: 16 rows of 64 bytes).
_TILE = 32


def conv2d(inputs, kernel, strides, padding):
  """Computes tf.nn.conv2d(), faster for 16 bits on CPUs.

  Where oneDNN does not compute the type, TensorFlow's own gradients take 2 to
  18 times as long as those of float32, so this convolution is one of float32.

  oneDNN multiplies matrices for each row of an image, and pads short rows with
  zeros to fill a tile of the matrix unit. In bfloat16, this function
  interleaves the columns of several small images, which makes longer rows. A
  dilated kernel sees one image at a time, so the sums are the same. It needs
  the number of images, of which three or more must fit a tile. For 3x3
  images of 512 channels, a convolution and its gradients take less than a third
  of the time.

  Args:
    inputs: [n, height, width, c].
    kernel: [size, size, c, channels], of the same type, on the device to use.
    strides: distance between positions of the kernel, in pixels.
    padding: 'SAME' or 'VALID'.

  Returns:
    [n, height / strides, width / strides, channels] with padding 'SAME', of the
    same type.
  """
  dtype = inputs.dtype
  if dtype.size < 4 and not _is_on_gpu(kernel.op):
    if not _onednn_computes(dtype):
      inputs, kernel = tf.cast(inputs, tf.float32), tf.cast(kernel, tf.float32)
    # Strides and the margins of even kernels would mix images. 'VALID' would
    # not, but was slower.
    elif strides == 1 and kernel.shape[0] % 2 and padding == 'SAME':
      count = _images_in_a_tile(inputs)
      if count > 1:
        return _separate(
            tf.nn.conv2d(_interleave(inputs, count), kernel, 1, 'SAME',
                         dilations=[1, 1, count, 1]), count)
  return tf.cast(tf.nn.conv2d(inputs, kernel, strides, padding), dtype)


def _images_in_a_tile(inputs):
  """Returns the number of images to interleave; it divides the batch size."""
  if inputs.dtype != tf.bfloat16 or not inputs.shape.is_fully_defined():
    return 1
  n, _, width, _ = inputs.shape.as_list()
  count = max(m for m in range(1, max(_TILE // width, 1) + 1) if n % m == 0)
  return count if count > 2 else 1  # Two were not faster than one.


def _interleave(images, count):
  """Interleaves the columns of each `count` images, to make one image."""
  n, height, width, channels = images.shape.as_list()
  images = tf.reshape(images, [n // count, count, height, width, channels])
  return tf.reshape(tf.transpose(images, [0, 2, 3, 1, 4]),
                    [n // count, height, width * count, channels])


def _separate(images, count):
  """Undoes `_interleave()`."""
  n, height, width, channels = images.shape.as_list()
  images = tf.reshape(images, [n, height, width // count, count, channels])
  return tf.reshape(tf.transpose(images, [0, 3, 1, 2, 4]),
                    [n * count, height, width // count, channels])


@functools.cache
def _onednn_computes(dtype):
  """Returns whether oneDNN computes convolutions of a type on this processor.

  TensorFlow decides that, and has no function to ask. But its own kernels do
  not accept dilations in gradients.
  """
  with tf.Graph().as_default(), tf.device('/cpu:0'), tf.Session(
      config=tf.ConfigProto(device_count={'GPU': 0})) as session:
    images, kernel = (tf.zeros(shape, dtype)
                      for shape in ([1, 3, 6, 1], [3, 3, 1, 1]))
    results = tf.nn.conv2d(images, kernel, 1, 'SAME', dilations=[1, 1, 2, 1])
    try:
      session.run(tf.gradients(results, [images, kernel]))
    except tf.errors.OpError:
      return False
  return True


def _is_on_gpu(op):
  device = tf.DeviceSpec.from_string(op.device).device_type
  if device is None:  # TensorFlow chooses the device.
    return gpus.count() > 0
  return device == 'GPU'


def local_response_normalization(inputs, radius, bias, alpha):
  """Divides each value by (bias + alpha * sum of squares)**0.75, with the sum
  over the channels up to `radius` away (Krizhevsky et al., 2012).

  Equivalent to tf.nn.lrn, but on CPUs faster, and also for bfloat16: XLA fuses
  the operations into one loop, with fewer passes over memory. The gradient
  computes the sums again, which takes less time than storing them. On GPUs, it
  is tf.nn.lrn in float32, because XLA needs NVIDIA's ptxas there.

  Args:
    inputs: [n, height, width, channels].
    radius: number of channels on either side to include in the sum.
    bias, alpha: see above.

  Returns:
    Tensor of the shape of `inputs`.
  """
  if _is_on_gpu(inputs.op):
    return tf.cast(tf.nn.lrn(_widen(inputs), radius, bias, alpha, 0.75),
                   inputs.dtype)
  with tf.xla.experimental.jit_scope():
    x = _widen(inputs)
    _, powers = _scales_and_powers(x, radius, bias, alpha)
    outputs = tf.cast(x * powers, inputs.dtype)
  with tf.get_default_graph().gradient_override_map({
      'IdentityN': _lrn_gradient(radius, bias, alpha)}):
    return tf.identity_n([outputs, inputs])[0]


@functools.cache
def _lrn_gradient(radius, bias, alpha):
  """Registers the gradient for tf.identity_n([outputs, inputs]), and returns
  its name for tf.Graph.gradient_override_map().

  It is registered once. tf.custom_gradient registers a function at each call,
  which keeps its graph alive until the process ends.
  """
  name = f'cifar10-{uuid.uuid4()}'

  @tf.RegisterGradient(name)
  def gradient(identity, upstream, _):
    inputs = identity.inputs[1]
    with tf.xla.experimental.jit_scope():
      x, dy = _widen(inputs), _widen(upstream)
      scales, powers = _scales_and_powers(x, radius, bias, alpha)
      sums = _window_sums(dy * x * powers / scales, radius)
      return None, tf.cast(dy * powers - 1.5 * alpha * x * sums, inputs.dtype)

  return name


def _widen(x):
  return tf.cast(x, tf.float32) if x.dtype.size < 4 else x


def _scales_and_powers(x, radius, bias, alpha):
  scales = bias + alpha * _window_sums(tf.square(x), radius)
  return scales, tf.rsqrt(scales * tf.sqrt(scales))  # tf.pow takes longer.


def _window_sums(x, radius):
  x = tf.pad(x, [[0, 0], [0, 0], [0, 0], [radius, radius]])
  return _sums_of_neighbours(x, 2 * radius + 1)


def _sums_of_neighbours(x, count):
  """Sums `count` consecutive values along the last axis: [..., c] to
  [..., c - count + 1]. Takes about 2 log2(count) additions per value."""
  if count == 1:
    return x
  half = count // 2
  halves = _sums_of_neighbours(x, half)
  sums = halves[..., :-half] + halves[..., half:]
  return sums[..., :-1] + x[..., count - 1:] if count % 2 else sums
