"""The networks, by the name `--network` takes.

A network is a module with

  inference(images, num_classes): float32 [n, height, width, depth] images to
    float32 [n, num_classes] logits, for any n;
  RECIPE: the `Recipe` it was published with.

To add one, write such a module and enter it here.
"""

from cifar10 import model

NETWORKS = {
    'convnet': model,
}
