r"""Trains a network on several devices, synchronously.

    python -m cifar10.multi_gpu_train --num_gpus=2

Each step's images are split over the towers, one a device. A tower computes
the gradients of its part; they meet on the CPU, where the variables live, and
are averaged, and one update is made of them: the same that one device makes of
all the images (tutorial: "Training a Model Using Multiple GPU Cards"), unless
the network normalizes batches, which each tower does with its own.

With TF_CONFIG in the environment, the same command runs on each host of a
cluster, and trains that many towers on each: see cluster/.
"""

import dataclasses
import itertools

from absl import flags
import tensorflow.compat.v1 as tf

from cifar10 import cli
from cifar10.cluster import processes
from cifar10.cluster import tf_config
from cifar10.data import datasets
from cifar10 import model
from cifar10 import networks
from cifar10.nn import layers
from cifar10.runs import directory
from cifar10.runs import evaluation
from cifar10.runs import loop
from cifar10.util.errors import UserError

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


def find_devices(num_towers, gpus=None, host=''):
  """Returns a device for each tower: GPUs in turn, or the CPU without any.

  Args:
    num_towers: how many devices.
    gpus: how many GPUs the host has; None: as many as are found here.
    host: what the names of its devices begin with.
  """
  if gpus is None:
    gpus = len(tf.config.list_physical_devices('GPU'))
  return [f'{host}/gpu:{i % gpus}' if gpus else f'{host}/cpu:0'
          for i in range(num_towers)]


def train(run, devices=None, fresh=False, hooks=(), augment=None, config=None,
          chief=None):
  """Trains to run.max_steps, from where an earlier call left off.

  Args:
    run: a `run.Run`; of as many towers as there are devices.
    devices: a device for each tower; several towers may share one. None, with a
      chief: those of its hosts, for run.num_towers.
    fresh: whether to start over, see `directory.open_train_dir()`.
    hooks: further tf.train.SessionRunHooks; begin() is called for each session.
    augment: a function in place of the recipe's augmentation, see
      `inputs.images_of()`.
    config: ConfigProto of the session; default: `loop.session_config()`.
    chief: the `cluster.Chief`, if there is a cluster.

  Returns:
    The `Run`, with what was None filled in.
  """
  if devices:
    run = dataclasses.replace(run, num_towers=len(devices))
  run, data = loop.prepare(run, augment)
  if chief and run.input == 'queue':
    raise UserError('--input=queue: expected tfdata, of which each host of a '
                    'cluster makes its part')
  with directory.open_train_dir(run, fresh):
    files = {}
    if chief and directory.is_done(run):
      chief, devices = None, find_devices(run.num_towers)
    elif chief:
      hosts = chief.hosts(data)
      files = {host.device: host.files for host in hosts}
      devices = [device for host in hosts for device in find_devices(
          run.num_towers // len(hosts), host.gpus, host.device)]
    with tf.Graph().as_default(), tf.device(chief and chief.device):
      print('Towers: ' + ', '.join(
          f'tower_{i} on {device}' for i, device in enumerate(devices)),
          flush=True)
      loop.loop(build(run, data, devices, augment, files), run, hooks,
                    config, chief)
  return run


def build(run, data, devices, augment=None, files=None):
  """Builds the graph of all towers and the update.

  Args:
    run: a prepared `Run`.
    data: its `directories.Dataset`.
    devices: a device for each tower; those of a host stand together.
    augment: see `train()`.
    files: dict, paths of the training records on hosts that have them at other
      places, by what the names of their devices begin with.

  Returns:
    The `model.Step`.
  """
  tf.set_random_seed(run.seed)
  network = networks.find(run.network)
  with tf.device('/cpu:0'):
    step = tf.identity(tf.train.get_or_create_global_step())
    parts = _parts(run, data, devices, loop.distortion(run, data, augment),
                   files or {})

  towers = []
  for i, (device, part) in enumerate(zip(devices, parts)):
    # The first tower creates the variables; the others use the same.
    with tf.device(device), tf.name_scope(f'tower_{i}'), \
        tf.variable_scope(tf.get_variable_scope(), reuse=i > 0):
      towers.append(tower_loss(
          network, run.recipe, *part, data.format.num_classes,
          layers.Tower(step, i, len(devices))))

  loop.initialize(run)
  with tf.device('/cpu:0'):
    tower_losses, tower_gradients = zip(*towers)
    with tf.name_scope('average_losses'):
      losses = {tag: _mean([tower[tag] for tower in tower_losses])
                for tag in tower_losses[0]}
    return model.train(losses, average_gradients(tower_gradients), run.recipe,
                       run.global_batch, run.num_examples, run.dtype)


def _parts(run, data, devices, distort, files):
  """Returns images and labels of each tower, made on its host's CPU."""
  parts = []
  for host, towers in itertools.groupby(devices, _host):
    count = len(list(towers))
    first = len(parts) * run.recipe.batch_size
    # Each host has its own variables for its records.
    scope = f'host_{len(parts)}' if parts else tf.get_variable_scope()
    with tf.device(host), tf.device('/cpu:0'), tf.variable_scope(scope):
      images, labels = loop.batch(
          run, data, distort, files.get(host),
          range(first, first + count * run.recipe.batch_size))
      with tf.name_scope('split'):
        parts += zip(tf.split(images, count), tf.split(labels, count))
  return parts


def _host(device):
  """Returns what the names of all devices of its host begin with."""
  spec = tf.DeviceSpec.from_string(device)
  return tf.DeviceSpec(job=spec.job, task=spec.task).to_string()


def main():
  run = cli.run_from_flags(networks.find(FLAGS.network))
  cluster = tf_config.from_environment()
  if cluster is None:
    run = train(run, find_devices(FLAGS.num_gpus), FLAGS.fresh)
  elif cluster.me == cluster.chief:
    run = dataclasses.replace(
        run, num_towers=FLAGS.num_gpus * (1 + len(cluster.workers)))
    with processes.Chief(cluster) as chief:
      run = train(run, fresh=FLAGS.fresh, chief=chief)
  else:
    processes.serve(cluster, datasets.ensure(run.dataset, run.data_dir,
                                              run.data_url))
    return
  if FLAGS.eval_at_end:
    evaluation.evaluate_newest(run, FLAGS.tta)


if __name__ == '__main__':
  cli.define_training_flags(datasets.DATASETS, networks.NETWORKS)
  cli.define_tower_flag()
  cli.run(main)
