"""Selection: trains a network on the images of a step that are hard for it to
learn, as a small network that is trained beside it tells.

A recipe with `select` and `selector` turns it on. The loss of a step then has
the selector's in it, and the precision is that of the selected images. It
follows airbench96_faster (Jordan, 2024,
https://github.com/KellerJordan/cifar10-airbench).
"""

import tensorflow.compat.v1 as tf

from cifar10 import model
from cifar10 import networks


def hardest(recipe, images, labels, num_classes):
  """Selects the images of a batch with the largest losses in the selector.

  The selector is trained on the same images, if its loss is minimized too.

  Args:
    recipe: the `Recipe`; without a selector, all images are kept.
    images: [n, height, width, depth] of the type to compute in.
    labels: int32 [n].
    num_classes: number of classes.

  Returns:
    images, labels: round(select * n) of them, the hardest first.
    losses: dict with the float32 scalar `selector_loss`; empty without a
      selector.
  """
  if not recipe.selector:
    return images, labels, {}
  count = max(1, round(recipe.select * images.shape[0]))
  with tf.variable_scope('selector'):
    logits = networks.find(recipe.selector).inference(
        images, num_classes, is_training=True)
    losses = model.metrics(logits, labels)['cross_entropy']
    _, chosen = tf.math.top_k(losses, count)
    images, labels, logits = (
        tf.gather(values, chosen) for values in (images, labels, logits))
    loss = model.objective(model.loss(logits, labels, recipe.label_smoothing))
  return images, labels, {'selector_loss': loss}
