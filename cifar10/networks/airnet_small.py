"""airbench96_faster's small network (Jordan, 2024): `airnet`, narrower."""

from cifar10.networks import airnet

RECIPE = airnet.RECIPE
PUBLISHED = '-'
MEASURED = 'not yet'


def inference(images, num_classes, is_training=False):
  """Returns the logits of `airnet.inference()`."""
  return airnet.inference(images, num_classes, is_training, (32, 64, 64))
