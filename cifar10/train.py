r"""Trains a network on one device.

    python -m cifar10.train --train_dir=/tmp/cifar10_train

The shortest whole example of a training program: input, network, loss,
gradients, update, loop. README.md walks through it; multi_gpu_train.py is the
same for several devices.
"""

import dataclasses

from absl import flags
import tensorflow.compat.v1 as tf

from cifar10 import cli
from cifar10 import eval as eval_program
from cifar10 import inputs
from cifar10 import model
from cifar10 import networks
from cifar10.networks import selection
from cifar10.networks import sizes
from cifar10.runs import checkpoints
from cifar10.runs import directory
from cifar10.runs import loop
from cifar10.runs import preparation
from cifar10.runs.description import Options
from cifar10.runs.description import Run
from cifar10.util import gpus

FLAGS = flags.FLAGS


def train(options, fresh=False, hooks=(), augment=None) -> Run:
  """Trains to max_steps, from where an earlier call stopped.

  Args:
    options: the `Options`; num_towers is ignored.
    fresh: whether to start over, see `directory.open_train_dir()`.
    hooks: tf.train.SessionRunHooks, called around each step.
    augment: function to use in place of the recipe's augmentation, if any; see
      nn/augmentation.py.

  Returns:
    The `Run`.

  Raises:
    UserError: the data cannot be had, or the options do not fit it or the
      run in train_dir.
  """
  run, data = preparation.prepare(
      dataclasses.replace(options, num_towers=1), augment)
  network, num_classes = networks.find(run.network), data.format.num_classes
  with directory.open_train_dir(run, fresh), tf.Graph().as_default():
    tf.set_random_seed(run.seed)
    images, labels = inputs.distorted_inputs(run, data, augment)
    images, labels, selector_losses = selection.hardest(
        run.recipe, images, labels, num_classes)
    logits = network.inference(images, num_classes, is_training=True)
    checkpoints.init_from(run)
    losses = model.loss(logits, labels, run.recipe.label_smoothing)
    losses.update(selector_losses)
    gradients = model.gradients(losses, run.dtype)
    step = model.train(losses, gradients, run.recipe, run.global_batch,
                       run.num_examples, run.dtype)
    loop.Loop(step, run, data, hooks).train()
  return run


def main():
  if FLAGS.list_networks:
    print(sizes.list_networks())
    return
  options = cli.options_from_flags()
  gpus.count()  # Tells why there is none.
  run = train(options, FLAGS.fresh)
  if FLAGS.eval_at_end:
    eval_program.evaluate_newest(run, FLAGS.tta)


if __name__ == '__main__':
  cli.define(Options)
  cli.define(cli.TrainingFlags, 'recipe', 'batch_size', 'fresh', 'eval_at_end',
             'tta', 'list_networks')
  cli.run(main)
