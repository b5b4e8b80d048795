"""airbench96_faster's small network (Jordan, 2024): `airnet`, narrower."""

from cifar10.networks import airnet

RECIPE = airnet.RECIPE
PUBLISHED = '-'
MEASURED = '84.5%, 85.7% with test-time augmentation'


def inference(images, num_classes, is_training=False):
  """Returns the logits of `airnet.inference()`."""
  return airnet.inference(images, num_classes, is_training, (32, 64, 64))
