r"""Trains a network on several devices, synchronously.

    python -m cifar10.multi_gpu_train --num_gpus=2

The images of a step are split over towers, one for each device. A tower
computes the gradients of its part; the CPU, where the variables are, averages
them over the towers and makes one update. It equals the update that one device
makes with all the images (tutorial: "Training a Model Using Multiple GPU
Cards"). Batch normalization and selection are the exceptions: each tower
normalizes its own images, and selects some of them.

With TF_CONFIG in the environment, the same command runs on each host of a
cluster, and trains that many towers on each: see cluster/. Each host has copies
of the variables and makes the same update: see nn/replicas.py.
"""

import dataclasses
import itertools

from absl import flags
import tensorflow.compat.v1 as tf

from cifar10 import cli
from cifar10 import eval as eval_program
from cifar10 import inputs
from cifar10 import model
from cifar10 import networks
from cifar10.cluster import processes
from cifar10.cluster import tf_config
from cifar10.data import datasets
from cifar10.networks import selection
from cifar10.nn import layers
from cifar10.nn import optimizers
from cifar10.nn import replicas
from cifar10.runs import checkpoints
from cifar10.runs import directory
from cifar10.runs import loop
from cifar10.runs import preparation
from cifar10.runs.description import Options
from cifar10.runs.description import Run
from cifar10.util import gpus
from cifar10.util.errors import UserError

FLAGS = flags.FLAGS


def tower_loss(network, recipe, images, labels, num_classes):
  """Computes the losses of one tower, and their gradients.

  Args:
    network: a module of `networks`.
    recipe: the `Recipe`.
    images: [n, height, width, depth] of the type to compute in, the tower's
      part of the batch.
    labels: int32 [n].
    num_classes: number of classes.

  Returns:
    losses: the dict of `model.loss()`, with the selector's loss, if any.
    gradients: the list of `model.gradients()`.
  """
  images, labels, selector_losses = selection.hardest(
      recipe, images, labels, num_classes)
  logits = network.inference(images, num_classes, is_training=True)
  losses = model.loss(logits, labels, recipe.label_smoothing)
  losses.update(selector_losses)
  return losses, model.gradients(losses, images.dtype)


def average_gradients(tower_gradients, hosts, reduce_dtype='float32'):
  """Averages losses and gradients over all towers, which synchronizes them.

  Args:
    tower_gradients: for each host, a list with the losses and the gradients
      that each of its towers computed.
    hosts: for each host, its CPU.
    reduce_dtype: type in which hosts send each other gradients.

  Returns:
    For each host, the averages of losses and gradients.
  """
  count = sum(map(len, tower_gradients))
  with tf.name_scope('average_gradients'):
    sums = []
    for host, towers in zip(hosts, tower_gradients):
      with tf.device(host):
        sums.append(tf.nest.map_structure(
            lambda first, *others: sum(others, first), *towers))
    if reduce_dtype == 'float32':
      return replicas.all_reduce(sums, hosts, count)
    losses, gradients = zip(*sums)
    return [*zip(replicas.all_reduce(losses, hosts, count),
                 replicas.all_reduce(gradients, hosts, count, reduce_dtype))]


def find_devices(num_towers, num_gpus=None, host=''):
  """Returns a device for each tower: GPUs in turn, or the CPU without GPUs.

  Args:
    num_towers: number of towers.
    num_gpus: number of GPUs of the host; None: as many as this machine has.
    host: prefix of the names of its devices.
  """
  if num_gpus is None:
    num_gpus = gpus.count()
  return [f'{host}/gpu:{i % num_gpus}' if num_gpus else f'{host}/cpu:0'
          for i in range(num_towers)]


def train(options, devices=None, fresh=False, hooks=(), augment=None,
          config=None, chief=None) -> Run:
  """Trains to max_steps, from where an earlier call stopped.

  Args:
    options: the `Options`.
    devices: a device for each tower, in place of options.num_towers; several
      towers may share one. None: the GPUs of this machine or of the cluster's
      hosts in turn, or their CPUs.
    fresh: whether to start over, see `directory.open_train_dir()`.
    hooks: tf.train.SessionRunHooks, called around each step.
    augment: function to use in place of the recipe's augmentation, if any; see
      nn/augmentation.py.
    config: tf.ConfigProto of the session; None: `sessions.config()`.
    chief: the `processes.Chief`, if there is a cluster.

  Returns:
    The `Run`.
  """
  if devices:
    options = dataclasses.replace(options, num_towers=len(devices))
  run, data = preparation.prepare(options, augment)
  if chief and run.input == 'queue':
    raise UserError('--input=queue: expected tfdata, of which each host of a '
                    'cluster makes its part')
  with directory.open_train_dir(run, fresh):
    if chief and directory.is_done(run):
      chief = None  # A finished run needs no workers, who may be gone.
    hosts = [processes.Host('', None, data.train)]
    if chief:
      hosts = chief.hosts(data)
    files = {host.device: host.files for host in hosts}
    devices = devices or [device for host in hosts for device in find_devices(
        run.num_towers // len(hosts), host.gpus, host.device)]
    with tf.Graph().as_default(), tf.device(hosts[0].device):
      print('Towers: ' + ', '.join(
          f'tower_{i} on {device}' for i, device in enumerate(devices)),
          flush=True)
      step = build(run, data, devices, augment, files)
      training = loop.Loop(step, run, data, hooks, config)
      if chief:
        chief.train(training.train)
      else:
        training.train()
  return run


def build(run, data, devices, augment=None, files=None):
  """Builds the graph of all towers and the update.

  Args:
    run: the `Run`.
    data: its `directories.Dataset`.
    devices: a device for each tower, those of a host one after the other.
    augment: see `train()`.
    files: dict of the `RecordFiles` to train on, by host, such as
      '/job:worker/task:0'; data.train for those that it lacks.

  Returns:
    The `model.Step`.
  """
  tf.set_random_seed(run.seed)
  network = networks.find(run.network)
  inputs_of_towers = _split_inputs(run, data, devices, augment, files or {})
  hosts = [f'{host}/cpu:0' for host in dict.fromkeys(map(_host_of, devices))]
  towers = [[] for _ in hosts]
  for i, (device, (images, labels)) in enumerate(zip(
      devices, inputs_of_towers)):
    host = hosts.index(f'{_host_of(device)}/cpu:0')
    with tf.device(device), replicas.on(host), layers.tower(i, len(devices)):
      towers[host].append(tower_loss(
          network, run.recipe, images, labels, data.format.num_classes))

  checkpoints.init_from(run)
  averages = average_gradients(towers, hosts, run.reduce_dtype)
  with tf.device('/cpu:0'):
    step = model.train(*averages[0], run.recipe, run.global_batch,
                       run.num_examples, run.dtype)
  if len(hosts) == 1:
    return step
  updates = [step.train_op]
  for number, (_, gradients) in enumerate(averages[1:], 1):
    with tf.device(hosts[number]), replicas.on(number):
      updates.append(_update_copies(run, step, gradients))
  return step._replace(train_op=tf.group(*updates))


def _update_copies(run, step, gradients):
  """Makes the update of a step, which `model.train()` makes, on another host.

  Args:
    run: the `Run`.
    step: the `model.Step`.
    gradients: list with the averages of the gradients.

  Returns:
    The operation.
  """
  recipe, variables = run.recipe, replicas.trainable_variables()
  norms = {}
  with tf.name_scope('gradients'):
    decay = optimizers.weight_decay(recipe, variables)
    gradients = optimizers.with_decay(recipe, gradients, variables, decay)
    if run.dtype == 'float16':
      norms = optimizers.norms(gradients, variables)
  with tf.name_scope('update'):
    update = optimizers.update(recipe, step.learning_rate, gradients, variables,
                               norms)
  if not recipe.lookahead_steps:
    return update
  with tf.name_scope('lookahead'), tf.control_dependencies([update]):
    return optimizers.lookahead(recipe, step.step + 1, run.global_batch,
                                run.num_examples, variables)


def _split_inputs(run, data, devices, augment, files):
  """Returns images and labels for each tower, made on the CPU of its host."""
  parts = []
  for host, towers in itertools.groupby(devices, _host_of):
    count = len(list(towers))
    first = len(parts) * run.recipe.batch_size
    with tf.device(host), tf.device('/cpu:0'):
      images, labels = inputs.distorted_inputs(
          run, data, augment, files.get(host),
          range(first, first + count * run.recipe.batch_size))
      with tf.name_scope('split'):
        parts += zip(tf.split(images, count), tf.split(labels, count))
  return parts


def _host_of(device):
  """Returns the prefix of the names of all devices of a device's host."""
  spec = tf.DeviceSpec.from_string(device)
  return tf.DeviceSpec(job=spec.job, task=spec.task).to_string()


def main():
  options = cli.options_from_flags()
  cluster = tf_config.from_environment()
  if cluster is None:
    run = train(options, find_devices(FLAGS.num_gpus), FLAGS.fresh)
  elif cluster.me == cluster.chief:
    options = dataclasses.replace(
        options, num_towers=FLAGS.num_gpus * (1 + len(cluster.workers)))
    with processes.Chief(cluster, cli.restart) as chief:
      run = train(options, fresh=FLAGS.fresh, chief=chief)
  else:
    processes.serve(cluster, datasets.ensure(
        options.dataset, options.data_dir, options.data_url))
    return
  if FLAGS.eval_at_end:
    eval_program.evaluate_newest(run, FLAGS.tta)


if __name__ == '__main__':
  cli.define(Options)
  cli.define(cli.TrainingFlags, 'recipe', 'batch_size', 'num_gpus', 'fresh',
             'eval_at_end', 'tta')
  cli.run(main)
