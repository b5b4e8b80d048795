"""airbench96 (Jordan, 2024, arXiv:2404.00498): `airnet`, wider and deeper, with
shortcuts."""

import dataclasses

from cifar10.networks import airnet

RECIPE = dataclasses.replace(
    airnet.RECIPE, epochs=37, batch_size=1024, learning_rate=1.174,
    knots=((0, 0.2), (3.7, 1), (37, 0)), augmentation='reflect_crop_cutout')
PUBLISHED = '96.0%'
MEASURED = '91.5%, 92.3% with test-time augmentation'


def inference(images, num_classes, is_training=False):
  """Returns the logits of `airnet.inference()`."""
  return airnet.inference(images, num_classes, is_training, (128, 384, 512),
                          depth=3, momentum=0.9)
