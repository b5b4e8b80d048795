r"""Trains a network on one device.

    python -m cifar10.train --train_dir=/tmp/cifar10_train

The shortest whole example of a TF1 training program: input, network, loss,
gradients, update, loop. See README.md for what to expect of it, and
multi_gpu_train.py for several devices.
"""

import dataclasses

from absl import flags
import tensorflow.compat.v1 as tf

from cifar10 import cli
from cifar10.data import datasets
from cifar10 import model
from cifar10 import networks
from cifar10.nn import layers
from cifar10.runs import directory
from cifar10.runs import evaluation
from cifar10.runs import loop

FLAGS = flags.FLAGS


def train(run, fresh=False, hooks=(), augment=None):
  """Trains to run.max_steps, from where an earlier call left off.

  Args:
    run: a `run.Run`; of one tower, whatever it says.
    fresh: whether to start over, see `directory.open_train_dir()`.
    hooks: further tf.train.SessionRunHooks.
    augment: a function in place of the recipe's augmentation, see
      `inputs.images_of()`.

  Returns:
    The `Run`, with what was None filled in.
  """
  run = dataclasses.replace(run, num_towers=1)
  run, data = loop.prepare(run, augment)
  network = networks.find(run.network)
  with directory.open_train_dir(run, fresh), tf.Graph().as_default():
    tf.set_random_seed(run.seed)
    images, labels = loop.batch(
        run, data, loop.distortion(run, data, augment))
    tower = layers.Tower(
        tf.identity(tf.train.get_or_create_global_step()), index=0, count=1)
    logits = network.inference(images, data.format.num_classes, tower)
    loop.initialize(run)
    losses = model.loss(logits, labels, run.recipe.label_smoothing)
    gradients = model.gradients(losses, run.dtype)
    step = model.train(losses, gradients, run.recipe, run.global_batch,
                       run.num_examples, run.dtype)
    loop.loop(step, run, hooks)
  return run


def main():
  if FLAGS.list_networks:
    print(networks.table())
    return
  run = train(cli.run_from_flags(networks.find(FLAGS.network)), FLAGS.fresh)
  if FLAGS.eval_at_end:
    evaluation.evaluate_newest(run, FLAGS.tta)


if __name__ == '__main__':
  cli.define_training_flags(datasets.DATASETS, networks.NETWORKS)
  flags.DEFINE_bool('list_networks', False, 'List the networks, and end.')
  cli.run(main)
