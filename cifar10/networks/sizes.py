"""Computes the number of parameters and operations of networks, and checks that
they can take images of a given size."""

import dataclasses
import sys
from typing import NamedTuple

import tensorflow.compat.v1 as tf

from cifar10 import inputs
from cifar10 import networks
from cifar10.data import records
from cifar10.nn import augmentation
from cifar10.util import filesystem
from cifar10.util.errors import UserError

# The tutorial's network learns from images of 96x96, with 14 million weights in
# a layer. With 43 million, for 168x168, its learning rate of 0.1 diverges.
_LARGE = 20_000_000


def input_shape(recipe, record_format):
  """Returns [height, width, channels] of the network's input, for records."""
  f = record_format
  with tf.Graph().as_default():
    images = tf.zeros([1, f.height, f.width, f.depth], tf.uint8)
    preprocess = inputs.preprocessing(recipe, f, 'float32')
    return preprocess(images).shape[1:].as_list()


def check(name, recipe, record_format, augment=None):
  """Raises UserError unless a network and a recipe can take images of a format.

  Prints a line if a layer is so large, as dense layers of large images are,
  that the published learning rate is not likely to suit it.

  Args:
    name: name of the network.
    recipe: the `Recipe`.
    record_format: the `records.Format` of the images.
    augment: function to use in place of the recipe's augmentation, if any. It
      is not called.
  """
  if recipe.selector:
    check(recipe.selector, _without_selector(recipe), record_format, augment)
  f, size = record_format, recipe.crop(record_format)
  with tf.Graph().as_default():
    distort = inputs.distortion(
        recipe, f, 'float32', augment and augmentation.central_crop)
    images = distort(tf.zeros([1, f.height, f.width, f.depth], tf.uint8),
                     augmentation.Seed(tf.zeros([2], tf.int64)))
    try:
      networks.find(name).inference(images, f.num_classes)
    except ValueError as e:
      raise UserError(f'{name} cannot take images of {size}x{size}: '
                      f'{filesystem.reason(e)}') from e
    for variable in tf.trainable_variables():
      if variable.shape.num_elements() > _LARGE:
        print(f'{name}: {variable.op.name} has {variable.shape} weights for '
              f'images of {size}x{size}. Training may need a smaller '
              'learning_rate or crop_size (--recipe), or a network without '
              'such a layer, like resnet32', file=sys.stderr)


def list_networks():
  """Returns a text with the size, recipe and precision of each network."""
  lines = []
  for name, network in networks.NETWORKS.items():
    parameters, inference, _ = size(network)
    lines.append(f'{name}: {parameters:,} parameters, {inference / 1e6:.2f}M '
                 f'multiply-adds an image (convolutions, matrix products)\n'
                 f'  {network.RECIPE.changed()}\n'
                 f'  published: {network.PUBLISHED}; measured: '
                 f'{network.MEASURED}')
  return '\n'.join(lines)


class Size(NamedTuple):
  """The size of a network.

  Multiply-adds are those of convolutions and matrix products for one image,
  including those with padding.
  """
  parameters: int  # Number of trainable parameters.
  inference: int  # Multiply-adds for the logits.
  training: int  # Multiply-adds of a training step for each of its images,
  # selected or not, with the selector's.


def size(network, record_format=records.CIFAR10, recipe=None):
  """Returns the `Size` of a network. The default recipe is the network's own.
  """
  recipe = recipe or network.RECIPE
  shape = input_shape(recipe, record_format)
  with tf.Graph().as_default():
    logits = network.inference(tf.zeros([1, *shape]),
                               record_format.num_classes)
    variables = tf.trainable_variables()
    gradients = tf.gradients(logits, variables)
    parameters = sum(v.shape.num_elements() for v in variables)
    inference = _multiply_adds([logits])
    training = _multiply_adds([logits, *gradients])
  if recipe.selector:
    selector = size(networks.find(recipe.selector), record_format,
                    _without_selector(recipe))
    training = round(recipe.select * training) + selector.training
  return Size(parameters, inference, training)


def _without_selector(recipe):
  return dataclasses.replace(recipe, select=1, selector='')


def _multiply_adds(tensors):
  """Returns the multiply-adds of all operations that `tensors` depend on."""
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
  # One multiply-add for each output value and each kernel value used for it.
  return outputs.num_elements() * kernel[:3].num_elements()
