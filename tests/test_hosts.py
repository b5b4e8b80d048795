"""Training on several hosts: their copies of variables, what they send, and
that they train as one host does. The hosts are servers in this process."""

import collections
import dataclasses
import re
import socket

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from cifar10 import multi_gpu_train
from cifar10 import networks
from cifar10.cluster import processes
from cifar10.cluster import tf_config
from cifar10.nn import augmentation
from cifar10.nn import replicas
from cifar10.runs import preparation
from cifar10.util.errors import UserError
from tests import numerics
from tests.conftest import read_checkpoint
from tests.conftest import SMALL_RECIPE

HOSTS = ['/job:chief/task:0', '/job:worker/task:0', '/job:worker/task:1']


class Chief(processes.Chief):
  """The chief of servers that are there."""

  def __init__(self, server, count):
    self._server, self._count = server, count
    self._cluster = tf_config.Cluster(None, (), None)

  def hosts(self, data):
    # The variables of the test before are still there.
    tf.Session.reset(self._server.target)
    return [processes.Host(host, 0, data.train) for host in HOSTS[:self._count]]


@pytest.fixture(scope='module')
def server():
  """The chief's server, of three."""
  sockets = [socket.create_server(('127.0.0.1', 0)) for _ in HOSTS]
  addresses = [f'127.0.0.1:{s.getsockname()[1]}' for s in sockets]
  for s in sockets:
    s.close()
  cluster = {'chief': addresses[:1], 'worker': addresses[1:]}
  servers = [tf.train.Server(cluster, job, index) for job, index in (
      ('chief', 0), ('worker', 0), ('worker', 1))]
  yield servers[0]


def build(run, data, hosts=HOSTS):
  """Builds the graph of hosts with two towers each; returns it and its step."""
  with tf.Graph().as_default() as graph, tf.device(hosts[0]):
    step = multi_gpu_train.build(run, data, [
        f'{host}/cpu:0' for host in hosts for _ in range(2)])
  return graph, step


def ops_of(step):
  """Returns the operations of a step."""
  found, waiting = set(), [step.train_op] + [t.op for t in (
      step.step, step.learning_rate, *step.losses.values(),
      *step.gradient_norms.values())]
  while waiting:
    op = waiting.pop()
    if op not in found:
      found.add(op)
      waiting += [t.op for t in op.inputs] + list(op.control_inputs)
  return found


@pytest.mark.parametrize('name, optimizer, size, dtype', [
    ('convnet', 'sgd', 1_068_298, 'float32'),
    ('convnet', 'adam', 1_068_298, 'bfloat16'),
    ('airnet_small', None, None, 'float32')])
def test_what_crosses_the_network(make_run, name, optimizer, size, dtype):
  """Parts of one vector; besides, numbers, and that a host is done. Losses have
  a vector of their own if gradients are of another type."""
  recipe = networks.find(name).RECIPE
  run, data = preparation.prepare(make_run(
      network=name, num_towers=6, batch_size=2, reduce_dtype=dtype,
      recipe=dataclasses.replace(
          recipe, optimizer=optimizer or recipe.optimizer)))
  graph, step = build(run, data)
  with graph.as_default():
    trained = sum(v.shape.num_elements() for v in tf.trainable_variables())
  assert trained == (size or trained)
  # A variable's operations are where it is.
  places = {op.name: op.device for op in graph.get_operations()}

  def host(op):
    while op.type == 'ReadVariableOp' and not op.device:
      op = op.inputs[0].op
    return re.sub('/device.*', '', places[op.name])

  sent = collections.defaultdict(set)
  for op in ops_of(step):
    for tensor in op.inputs:
      if host(op) != host(tensor.op) and tensor.dtype != tf.resource:
        sent[host(tensor.op), host(op)].add(
            (tensor.name, tensor.shape, tensor.dtype.name))
    for other in op.control_inputs:
      if host(op) != host(other):
        assert (host(op), op.type) == (HOSTS[0], 'NoOp')
  pairs = {(a, b) for a in HOSTS for b in HOSTS if a != b}
  assert sent.keys() == pairs
  for (source, target_host), tensors in sent.items():
    vectors = [shape for _, shape, of in tensors if shape.rank and of == dtype]
    small = [shape for _, shape, of in tensors if shape.rank and of != dtype]
    numbers = [shape for _, shape, _ in tensors if not shape.rank]
    # A part of the sums of the sender's towers, and the sum of its own part.
    assert len(vectors) == 2
    for shape in vectors:
      assert trained < 3 * shape.num_elements() < trained + 200
    if dtype == 'bfloat16':
      # The sums of losses are for the chief.
      assert small == [[32]] * (2 if target_host == HOSTS[0] else 1)
    else:
      assert not small
    # The learning rate and, for lookahead, the step.
    assert len(numbers) == (0 if source != HOSTS[0] else
                            2 if name == 'airnet_small' else 1)


def test_one_host_has_no_copies(make_run):
  run, data = preparation.prepare(make_run(num_towers=2, batch_size=2))
  graph, _ = build(run, data, [''])
  with graph.as_default():
    assert not tf.local_variables()
    assert replicas.differing() == {}
  assert not [op for op in graph.get_operations()
              if op.type in ('Unpack', 'Fingerprint') or 'host_' in op.name]


@pytest.mark.parametrize('sizes, dtype', [
    ([(3, 5), (), (700,)], 'float32'), ([(2,)], 'float32'),
    ([(1000, 7), (16,), ()], 'float32'), ([(1000, 7), ()], 'bfloat16')])
def test_all_reduce(sizes, dtype):
  rng = np.random.default_rng(1)
  values = [[rng.normal(size=size).astype(np.float32) for size in sizes]
            for _ in range(3)]
  hosts = [f'/cpu:{i}' for i in range(3)]
  with tf.Graph().as_default(), tf.Session(config=tf.ConfigProto(
      device_count={'CPU': 3})) as session:
    found = session.run(replicas.all_reduce(
        [list(map(tf.constant, own)) for own in values], hosts, 5, dtype))
  assert len(found) == 3
  for result in found:
    for i, size in enumerate(sizes):
      terms = [v[i] for v in values]
      assert result[i].shape == size
      numerics.assert_close(result[i], np.float64(sum(terms)) / 5, 4,
                            dtype=dtype, scale=np.abs(terms).max())
      np.testing.assert_array_equal(result[i], found[0][i])


def test_sums_of_bfloat16_are_float32():
  """In bfloat16, whose numbers after 1 are 2**-7 apart, each sum would be 1."""
  hosts = [f'/cpu:{i}' for i in range(3)]
  with tf.Graph().as_default(), tf.Session(config=tf.ConfigProto(
      device_count={'CPU': 3})) as session:
    found = session.run(replicas.all_reduce(
        [[tf.constant([value])] for value in (1.0, 2**-8, 2**-8)], hosts, 1,
        'bfloat16'))
  np.testing.assert_array_equal(found, np.full([3, 1, 1], 1 + 2**-7))


def flash(images, size, seed):
  """The second batch, and no other, is more than float16 can hold."""
  images = tf.cast(augmentation.central_crop(images, size), tf.float32)
  return images * tf.where(tf.equal(seed.value[1], 1), 1e9, 1.0)


def recipe_of(name, **changes):
  return dataclasses.replace(networks.find(name).RECIPE, **changes)


CASES = {
    'moving averages': {'network': 'two_layer_fc', 'recipe': SMALL_RECIPE},
    'Adam': {'network': 'two_layer_fc', 'recipe': dataclasses.replace(
        SMALL_RECIPE, optimizer='adam')},
    'dropout and batch normalization': {
        'network': 'improved_cnn', 'recipe': recipe_of(
            'improved_cnn', optimizer='momentum', learning_rate=1e-4)},
    'lookahead, scaled variables, whitening and selection': {
        'network': 'airnet_small', 'recipe': recipe_of(
            'airnet_small', lookahead_steps=2, select=0.5,
            selector='airnet_small')},
    'holdout': {'network': 'two_layer_fc', 'recipe': SMALL_RECIPE,
                'holdout': 100}}


def train(options, server, hosts, **arguments):
  """Trains six towers on 1 to 3 hosts; returns the last checkpoint. Nothing may
  be placed where it cannot be."""
  multi_gpu_train.train(
      dataclasses.replace(options, num_towers=6),
      chief=Chief(server, hosts) if hosts > 1 else None,
      devices=None if hosts > 1 else ['/cpu:0'] * 6, config=tf.ConfigProto(),
      **arguments)
  return read_checkpoint(f'{options.train_dir}/model.ckpt-{options.max_steps}')


def assert_same(found, expected, start, steps, values):
  """Compares trainings whose gradients of six towers are added up in another
  order. `values` is the number of values of the smallest layer."""
  numerics.assert_same_training(found, expected, start.values, 6, values, steps)


@pytest.mark.parametrize('case', CASES)
def test_hosts_equal_one(server, make_run, tmp_path, case):
  """The copies are compared, bit for bit, before each checkpoint."""
  options = make_run(batch_size=2, max_steps=4, checkpoint_steps=1,
                     **CASES[case])
  start = numerics.Start()
  expected = train(dataclasses.replace(
      options, train_dir=str(tmp_path / 'one')), server, 1, hooks=[start])
  found = train(options, server, 3)
  # airnet_small's last layer has 64 values, of one image of each tower.
  assert_same(found, expected, start, 4,
              6 * 64 if 'selection' in case else 12 * 120)


def test_hosts_skip_a_step_that_overflows(server, make_run, tmp_path):
  options = make_run(network='baseline_cnn', dtype='float16', batch_size=2,
                     max_steps=3, checkpoint_steps=1)
  start = numerics.Start()
  expected = train(dataclasses.replace(
      options, train_dir=str(tmp_path / 'one')), server, 1, hooks=[start],
                   augment=flash)
  found = train(options, server, 3, augment=flash)
  assert_same(found, expected, start, 3, 12 * 64)
  one, two, three = (read_checkpoint(f'{options.train_dir}/model.ckpt-{i}')
                     for i in (1, 2, 3))
  assert (one['dense/weights'] == two['dense/weights']).all()
  assert (two['dense/weights'] != three['dense/weights']).any()


def test_gradients_in_bfloat16(server, make_small_run, tmp_path):
  """A step is wrong by what bfloat16 rounds, and by no more."""
  options = make_small_run(batch_size=2, max_steps=1)
  start = numerics.Start()
  ends = [train(dataclasses.replace(
      options, reduce_dtype=dtype, train_dir=str(tmp_path / dtype)), server, 3,
                hooks=[start]) for dtype in ('float32', 'bfloat16')]
  for name, values in ends[0].items():
    moved, expected = (end[name] - start.values[name] for end in ends[::-1])
    if name in ('global_step', 'cross_entropy/avg', 'total_loss/avg'):
      assert moved == expected
    else:
      assert (moved != expected).any(), name
      numerics.assert_close(moved, expected, 4, dtype='bfloat16', name=name)


def test_another_number_of_hosts_goes_on(server, make_small_run, tmp_path):
  """From the variables of another run."""
  first = make_small_run(max_steps=1, train_dir=str(tmp_path / 'first'))
  multi_gpu_train.train(first)
  options = make_small_run(batch_size=2, max_steps=6, seed=2,
                           init_from=first.train_dir)
  start = numerics.Start()
  expected = train(dataclasses.replace(
      options, train_dir=str(tmp_path / 'one')), server, 1, hooks=[start])
  for steps, hosts in (2, 3), (4, 1), (5, 2), (6, 3):
    found = train(dataclasses.replace(options, max_steps=steps), server, hosts)
  assert_same(found, expected, start, 6, 12 * 120)


class Spoil(tf.train.SessionRunHook):
  """Changes the last bit of a value of a copy."""

  def begin(self):
    copy, = (v for v in tf.local_variables()
             if v.op.name == 'host_2/hidden/biases/Adam')
    values = copy.read_value()
    bits = tf.bitcast(values, tf.int32) ^ tf.one_hot(
        3, values.shape[0], dtype=tf.int32)
    self._spoil = copy.assign(tf.bitcast(bits, tf.float32)).op

  def after_run(self, run_context, run_values):
    run_context.session.run(self._spoil)


def test_a_copy_that_differs_ends_the_training(server, make_small_run,
                                               tmp_path):
  options = make_small_run(batch_size=2, max_steps=1,
                           recipe=CASES['Adam']['recipe'])
  with pytest.raises(UserError, match=(
      'step 0: after it, copies of the variables differ from those of the '
      'chief on /job:worker/task:1/device:CPU:0$')):
    train(options, server, 3, hooks=[Spoil()])
  assert not list(tmp_path.glob('train/model.ckpt*'))
