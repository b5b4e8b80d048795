"""The networks, by the name `--network` takes.

A network is a module with

  inference(images, num_classes, tower=None): [n, height, width, depth] images
    to [n, num_classes] logits, for any n, in the images' type; `tower` is the
    `layers.Tower` in training and None in evaluation;
  RECIPE: the `Recipe` it was published with;
  PUBLISHED and MEASURED: what came of it, there and here, in words.

To add one, write such a module and enter it here.
"""

from typing import NamedTuple

import tensorflow.compat.v1 as tf

from cifar10.data import records
from cifar10 import inputs
from cifar10 import model
from cifar10.networks import airnet
from cifar10.networks import airnet_wide
from cifar10.networks import baseline_cnn
from cifar10.networks import improved_cnn
from cifar10.networks import local
from cifar10.networks import resnet32
from cifar10.networks import softmax
from cifar10.networks import two_layer_fc
from cifar10.nn import augmentation
from cifar10.util.errors import look_up
from cifar10.util.errors import UserError
from cifar10.util import filesystem

NETWORKS = {
    'convnet': model,
    'local': local,
    'softmax': softmax,
    'two_layer_fc': two_layer_fc,
    'baseline_cnn': baseline_cnn,
    'improved_cnn': improved_cnn,
    'resnet32': resnet32,
    'airnet': airnet,
    'airnet_wide': airnet_wide,
}


def find(name):
  """Returns the network of that name; UserError without one."""
  return look_up(name, NETWORKS, 'network')


def input_shape(recipe, record_format):
  """Returns [height, width, channels] of what a recipe makes of images."""
  f = record_format
  with tf.Graph().as_default():
    preprocess = inputs.images_of(recipe, f, augment=tf.identity).preprocess
    return preprocess(
        tf.zeros([1, f.height, f.width, f.depth], tf.uint8)).shape[1:].as_list()


def check(name, recipe, record_format, augment=None):
  """Raises UserError if a network cannot be trained by a recipe on images of
  their size.

  Args:
    name: of the network.
    recipe: the `Recipe`.
    record_format: the `records.Format` of the images.
    augment: a function in place of the recipe's augmentation, if any; it is not
      called.
  """
  f, size = record_format, recipe.crop(record_format)
  with tf.Graph().as_default():
    images = inputs.images_of(
        recipe, f, augment=augment and augmentation.central_crop).distort(
            tf.zeros([1, f.height, f.width, f.depth], tf.uint8),
            augmentation.Seed(tf.zeros([2], tf.int64)))
    try:
      find(name).inference(images, f.num_classes)
    except ValueError as e:
      raise UserError(f'{name} cannot take images of {size}x{size}: '
                      f'{filesystem.reason(e)}') from e


def table():
  """Returns what there is to know of each network, as lines of text."""
  lines = []
  for name, network in NETWORKS.items():
    parameters, inference, _ = size(network)
    lines.append(f'{name}: {parameters:,} parameters, {inference / 1e6:.2f}M '
                 f'multiply-adds an image (convolutions, matrix products)\n'
                 f'  {network.RECIPE.changed()}\n'
                 f'  published: {network.PUBLISHED}; measured: '
                 f'{network.MEASURED}')
  return '\n'.join(lines)


class Size(NamedTuple):
  """How large a network is.

  Multiply-adds are those of convolutions and matrix products, for an image, and
  also where a kernel stands over the zeros around it.
  """
  parameters: int  # Trainable ones.
  inference: int  # Multiply-adds of the logits...
  training: int  # ...and of them and the gradients.


def size(network, record_format=records.CIFAR10, recipe=None):
  """Returns the `Size` of a network, by its own `Recipe` or another one."""
  shape = input_shape(recipe or network.RECIPE, record_format)
  with tf.Graph().as_default():
    logits = network.inference(tf.zeros([1, *shape]),
                               record_format.num_classes)
    variables = tf.trainable_variables()
    gradients = tf.gradients(logits, variables)
    return Size(sum(v.shape.num_elements() for v in variables),
                _multiply_adds([logits]), _multiply_adds([logits, *gradients]))


def _multiply_adds(tensors):
  """Returns the multiply-adds of all operations that `tensors` need."""
  found, waiting = set(), [tensor.op for tensor in tensors]
  while waiting:
    op = waiting.pop()
    if op not in found:
      found.add(op)
      waiting += [tensor.op for tensor in op.inputs]
  return sum(map(_multiply_adds_of, found))


def _multiply_adds_of(op):
  shapes = [tensor.shape for tensor in (*op.inputs, *op.outputs)]
  if op.type == 'Conv2D':
    _, kernel, outputs = shapes
  elif op.type == 'Conv2DBackpropInput':
    _, kernel, outputs, _ = shapes
  elif op.type == 'Conv2DBackpropFilter':
    _, _, outputs, kernel = shapes
  elif op.type in ('MatMul', 'BatchMatMulV2'):
    transposed = op.get_attr(
        'transpose_a' if op.type == 'MatMul' else 'adj_x')
    return shapes[2].num_elements() * shapes[0][-2 if transposed else -1]
  else:
    return 0
  # Each output takes as many as the kernel has values for it.
  return outputs.num_elements() * kernel[:3].num_elements()
