"""The networks, by the name `--network` takes.

A network is a module with

  inference(images, num_classes, tower=None): float32 [n, height, width, depth]
    images to float32 [n, num_classes] logits, for any n; `tower` is the
    `layers.Tower` in training and None in evaluation;
  RECIPE: the `Recipe` it was published with;
  PUBLISHED and MEASURED: what came of it, there and here, in words.

To add one, write such a module and enter it here.
"""

import difflib

import tensorflow.compat.v1 as tf

from cifar10 import model
from cifar10 import UserError
from cifar10.networks import baseline_cnn
from cifar10.networks import improved_cnn
from cifar10.networks import local
from cifar10.networks import resnet32
from cifar10.networks import softmax
from cifar10.networks import two_layer_fc

NETWORKS = {
    'convnet': model,
    'local': local,
    'softmax': softmax,
    'two_layer_fc': two_layer_fc,
    'baseline_cnn': baseline_cnn,
    'improved_cnn': improved_cnn,
    'resnet32': resnet32,
}


def find(name):
  """Returns the network of that name; UserError without one."""
  if name not in NETWORKS:
    near = difflib.get_close_matches(name, NETWORKS) or NETWORKS
    raise UserError(f'there is no network {name!r}. Did you mean '
                    + ' or '.join(near) + '?')
  return NETWORKS[name]


def table():
  """Returns what there is to know of each network, as lines of text."""
  lines = []
  for name, network in NETWORKS.items():
    parameters, products = size(network)
    lines.append(f'{name}: {parameters:,} parameters, {products / 1e6:.2f}M '
                 f'multiply-adds an image (convolutions, matrix products)\n'
                 f'  {network.RECIPE.changed()}\n'
                 f'  published: {network.PUBLISHED}; measured: '
                 f'{network.MEASURED}')
  return '\n'.join(lines)


def size(network, num_classes=10, depth=3):
  """Returns how many trainable parameters a network has, and how many
  multiplications with addition its convolutions and matrix products take for
  an image (places outside of the image, which are zeros, counted too)."""
  side = network.RECIPE.crop_size
  with tf.Graph().as_default() as graph:
    network.inference(tf.zeros([1, side, side, depth]), num_classes)
    parameters = sum(v.shape.num_elements() for v in tf.trainable_variables())
    products = 0
    for op in graph.get_operations():
      if op.type == 'Conv2D':
        kernel = op.inputs[1].shape.as_list()
        products += op.outputs[0].shape.num_elements() * (
            kernel[0] * kernel[1] * kernel[2])
      elif op.type in ('MatMul', 'BatchMatMulV2'):
        products += (op.outputs[0].shape.num_elements()
                     * op.inputs[0].shape.as_list()[-1])
  return parameters, products
