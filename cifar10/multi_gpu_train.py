r"""Trains a network on several devices, synchronously.

    python -m cifar10.multi_gpu_train --num_gpus=2

Each step's images are split over the towers, one a device. A tower computes
the gradients of its part; they meet on the CPU, where the variables live, and
are averaged, and one update is made of them: the same that one device makes of
all the images (tutorial: "Training a Model Using Multiple GPU Cards"), unless
the network normalizes batches, which each tower does with its own.
"""

import dataclasses

from absl import flags
import tensorflow.compat.v1 as tf

from cifar10 import cli
from cifar10 import dataset
from cifar10 import evaluation
from cifar10 import layers
from cifar10 import model
from cifar10 import networks
from cifar10 import training

FLAGS = flags.FLAGS


def tower_loss(network, recipe, images, labels, num_classes, tower):
  """Computes the losses of one tower, and their gradients.

  Args:
    network: a module of `networks`.
    recipe: the `Recipe`.
    images: [n, height, width, depth] of the type to compute in, the tower's
      part of the batch.
    labels: int32 [n].
    num_classes: how many classes to tell apart.
    tower: the `layers.Tower`.

  Returns:
    losses: what `model.loss()` returns.
    gradients: what `model.gradients()` does.
  """
  logits = network.inference(images, num_classes, tower)
  losses = model.loss(logits, labels, recipe.label_smoothing)
  return losses, model.gradients(losses, images.dtype)


def average_gradients(tower_gradients):
  """Averages the gradients over all towers, which waits for all of them.

  Args:
    tower_gradients: for each tower, a list of gradients, one for each variable.

  Returns:
    List of tensors, one for each variable.
  """
  with tf.name_scope('average_gradients'):
    return [_mean(gradients) for gradients in zip(*tower_gradients)]


def _mean(tensors):
  return tf.add_n(tensors) / len(tensors)


def find_devices(num_towers):
  """Returns a device for each tower: GPUs in turn, or the CPU without any."""
  gpus = len(tf.config.list_physical_devices('GPU'))
  return [f'/gpu:{i % gpus}' if gpus else '/cpu:0' for i in range(num_towers)]


def train(run, devices, fresh=False, hooks=(), augment=None, config=None):
  """Trains to run.max_steps, from where an earlier call left off.

  Args:
    run: a `run.Run`; of as many towers as there are devices.
    devices: a device for each tower; several towers may share one.
    fresh: whether to move an existing run.train_dir aside and start over.
    hooks: further tf.train.SessionRunHooks.
    augment: a function in place of the recipe's augmentation, see
      `inputs.images_of()`.
    config: ConfigProto of the session; default: `training.session_config()`.

  Returns:
    The `Run`, with what was None filled in.
  """
  run = dataclasses.replace(run, num_towers=len(devices))
  run, data = training.prepare(run, augment)
  with training.open_train_dir(run, fresh), tf.Graph().as_default():
    print('Towers: ' + ', '.join(
        f'tower_{i} on {device}' for i, device in enumerate(devices)),
        flush=True)
    training.loop(build(run, data, devices, augment), run, hooks, config)
  return run


def build(run, data, devices, augment=None):
  """Builds the graph of all towers and the update.

  Args:
    run: a prepared `Run`.
    data: its `directories.Dataset`.
    devices: a device for each tower.
    augment: see `train()`.

  Returns:
    The `model.Step`.
  """
  tf.set_random_seed(run.seed)
  network = networks.find(run.network)
  with tf.device('/cpu:0'):
    step = tf.identity(tf.train.get_or_create_global_step())
    images, labels = training.batch(run, data, augment)
    with tf.name_scope('split'):
      parts = zip(tf.split(images, len(devices)),
                  tf.split(labels, len(devices)))

  towers = []
  for i, (device, part) in enumerate(zip(devices, parts)):
    # The first tower creates the variables; the others use the same.
    with tf.device(device), tf.name_scope(f'tower_{i}'), \
        tf.variable_scope(tf.get_variable_scope(), reuse=i > 0):
      towers.append(tower_loss(
          network, run.recipe, *part, data.format.num_classes,
          layers.Tower(step, i, len(devices))))

  training.initialize(run)
  with tf.device('/cpu:0'):
    tower_losses, tower_gradients = zip(*towers)
    with tf.name_scope('average_losses'):
      losses = {tag: _mean([tower[tag] for tower in tower_losses])
                for tag in tower_losses[0]}
    return model.train(losses, average_gradients(tower_gradients), run.recipe,
                       run.global_batch, run.num_examples, run.dtype)


def main():
  devices = find_devices(FLAGS.num_gpus)
  run = cli.run_from_flags(networks.find(FLAGS.network))
  run = train(run, devices, FLAGS.fresh)
  if FLAGS.eval_at_end:
    evaluation.evaluate_newest(run, FLAGS.tta)


if __name__ == '__main__':
  cli.define_training_flags(dataset.DATASETS, networks.NETWORKS)
  cli.define_tower_flag()
  cli.run(main)
