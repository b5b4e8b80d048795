"""Selects the images of a step to train on: those with the largest losses in a
small network, the selector, which is trained in the same step.

A recipe with `select` and `selector` turns it on. The loss of a step then has
the selector's in it, and its precision is that of the selected images. This
follows airbench96_faster (Jordan, 2024,
https://github.com/KellerJordan/cifar10-airbench).
"""

import tensorflow.compat.v1 as tf

from cifar10 import model
from cifar10 import networks


def hardest(recipe, images, labels, num_classes):
  """Selects the images of a batch with the largest losses in the selector.

  Minimizing the returned loss trains the selector on the selected images. Its
  variables are in the variable scope `selector`.

  Args:
    recipe: the `Recipe`; without a selector, all images are kept.
    images: [n, height, width, depth] of the type to compute in.
    labels: int32 [n].
    num_classes: number of classes.

  Returns:
    images, labels: round(select * n) of them and at least one, the hardest
      first.
    losses: dict with the float32 scalar `selector_loss`; empty without a
      selector.
  """
  if not recipe.selector:
    return images, labels, {}
  with tf.variable_scope(model.SELECTOR):
    logits = networks.find(recipe.selector).inference(
        images, num_classes, is_training=True)
    losses = model.objective(
        model.metrics(logits, labels, recipe.label_smoothing))
    largest, chosen = tf.math.top_k(
        losses, max(1, round(recipe.select * images.shape[0])))
    return (tf.gather(images, chosen), tf.gather(labels, chosen),
            {'selector_loss': tf.reduce_mean(largest)})
