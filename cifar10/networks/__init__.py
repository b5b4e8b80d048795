"""The networks, by the name `--network` takes.

A network is a module with

  inference(images, num_classes): float32 [n, height, width, depth] images to
    float32 [n, num_classes] logits, for any n;
  RECIPE: the `Recipe` it was published with.

To add one, write such a module and enter it here.
"""

from cifar10 import model
from cifar10 import UserError

NETWORKS = {
    'convnet': model,
}


def find(name):
  """Returns the network of that name; UserError without one."""
  if name not in NETWORKS:
    raise UserError(f'there is no network {name}, only ' + ', '.join(NETWORKS))
  return NETWORKS[name]
