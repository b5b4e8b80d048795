"""The networks, by the name that `--network` takes.

A network is a module with

  inference(images, num_classes, is_training=False): returns [n, num_classes]
    logits of [n, height, width, depth] images, for any n and of their dtype;
  RECIPE: the `Recipe` with which the network was published;
  PUBLISHED: its published precision, as text;
  MEASURED: its precision as measured with this package, as text.

To add a network, write a module and enter it in NETWORKS.
"""

from cifar10 import model
from cifar10.networks import airnet
from cifar10.networks import airnet95
from cifar10.networks import airnet96
from cifar10.networks import airnet_small
from cifar10.networks import baseline_cnn
from cifar10.networks import improved_cnn
from cifar10.networks import local
from cifar10.networks import resnet32
from cifar10.networks import softmax
from cifar10.networks import two_layer_fc
from cifar10.util.errors import look_up

NETWORKS = {
    'convnet': model,
    'local': local,
    'softmax': softmax,
    'two_layer_fc': two_layer_fc,
    'baseline_cnn': baseline_cnn,
    'improved_cnn': improved_cnn,
    'resnet32': resnet32,
    'airnet_small': airnet_small,
    'airnet': airnet,
    'airnet95': airnet95,
    'airnet96': airnet96,
}


def find(name):
  """Returns the network with a name, or raises UserError."""
  return look_up(name, NETWORKS, 'network')
