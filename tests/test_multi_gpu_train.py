"""Towers: the same as one device, whatever their number; and their graph."""

import collections
import re

import pytest
import tensorflow.compat.v1 as tf

from cifar10 import multi_gpu_train
from cifar10 import train
from cifar10.runs import preparation
from cifar10.runs import sessions
from cifar10.util.errors import UserError
from tests import numerics
from tests.conftest import read_checkpoint
from tests.conftest import with_batch_size
from tests.networks.test_networks import TERMS


class Losses(tf.train.SessionRunHook):
  """Keeps the total loss of each step."""

  def begin(self):
    self.values = []

  def before_run(self, run_context):
    return tf.train.SessionRunArgs('losses/total_loss:0')

  def after_run(self, run_context, run_values):
    self.values.append(run_values.results)


def logical_cpus(count):
  return sessions.config(device_count={'CPU': count})


@pytest.fixture(scope='module')
def one(data_dir, tmp_path_factory):
  """A run of five steps on one device, its losses and its initial values."""
  losses, start = Losses(), numerics.Start()
  run = train.train(with_batch_size(
      128, train_dir=str(tmp_path_factory.mktemp('one')), data_dir=data_dir,
      max_steps=5), hooks=[losses, start])
  return run, losses, start


@pytest.mark.numerical
@pytest.mark.parametrize('num_towers', [2, 4])
def test_towers_equal_one_device(one, make_run, num_towers):
  (one, alone, start), together = one, Losses()
  many = multi_gpu_train.train(
      make_run(batch_size=128 // num_towers),
      [f'/cpu:{i}' for i in range(num_towers)], hooks=[together],
      config=logical_cpus(num_towers))
  assert len(alone.values) == 5
  numerics.assert_close(together.values, alone.values, TERMS['convnet'], 5)
  expected = read_checkpoint(f'{one.train_dir}/model.ckpt-5')
  found = read_checkpoint(f'{many.train_dir}/model.ckpt-5')
  numerics.assert_same_training(found, expected, start.values, TERMS['convnet'],
                                values=128 * 192, steps=5)


def test_another_number_of_towers_goes_on(make_small_run, capsys, tmp_path):
  multi_gpu_train.train(make_small_run(batch_size=6, max_steps=1),
                        ['/cpu:0'] * 2)
  run = train.train(make_small_run(batch_size=12, max_steps=2))
  out = capsys.readouterr().out
  assert 'Towers: tower_0 on /cpu:0, tower_1 on /cpu:0' in out
  assert ('Training two_layer_fc on cifar10, 300 records, in steps of 12, with '
          'seed 1') in out
  assert 'Resuming at step 1 of 2' in out
  start = numerics.Start()
  whole = train.train(make_small_run(
      max_steps=2, train_dir=str(tmp_path / 'whole')), hooks=[start])
  found, expected = (read_checkpoint(f'{r.train_dir}/model.ckpt-2')
                     for r in (run, whole))
  numerics.assert_same_training(
      found, expected, start.values, TERMS['two_layer_fc'], values=12 * 120,
      steps=2)


@pytest.fixture
def gpu_graph(make_run):
  """The graph of three towers on two GPUs, which need not be here."""
  run, data = preparation.prepare(make_run(num_towers=3, batch_size=4))
  with tf.Graph().as_default() as graph:
    step = multi_gpu_train.build(run, data, ['/gpu:0', '/gpu:1', '/gpu:0'])
  return graph, step


def test_each_tower_computes_on_its_device(gpu_graph):
  graph, _ = gpu_graph
  convolutions = collections.Counter(
      (op.type, op.device, op.name.split('/')[0])
      for op in graph.get_operations() if op.type.startswith('Conv2D'))
  for i, device in enumerate(['/device:GPU:0', '/device:GPU:1',
                              '/device:GPU:0']):
    tower = f'tower_{i}'
    assert convolutions['Conv2D', device, tower] == 2
    assert convolutions['Conv2DBackpropFilter', device, tower] == 2
    # That for the images is built too, but as nothing needs it, never run.
    assert convolutions['Conv2DBackpropInput', device, tower] == 2
  assert sum(convolutions.values()) == 18


def test_variables_input_averages_and_updates_are_on_the_cpu(gpu_graph):
  graph, _ = gpu_graph
  assert {op.device for op in graph.get_operations()
          if op.name.startswith('average_gradients/')} == {'/device:CPU:0'}
  with graph.as_default():
    assert len(tf.trainable_variables()) == 10
    assert {v.device for v in tf.global_variables()} == {'/device:CPU:0'}
    assert not [v for v in tf.global_variables() if 'tower' in v.name]
  updates = [op for op in graph.get_operations()
             if op.type == 'ResourceApplyGradientDescent']
  assert len(updates) == 10
  iterator, = (op for op in graph.get_operations() if op.type == 'IteratorV2')
  assert iterator.device == '/device:CPU:0'


def test_gradients_meet_before_any_update(gpu_graph):
  """Each update depends on the gradients of all towers."""
  graph, _ = gpu_graph
  for update in graph.get_operations():
    if update.type != 'ResourceApplyGradientDescent':
      continue
    seen, waiting = set(), [update]
    while waiting:
      op = waiting.pop()
      if op not in seen:
        seen.add(op)
        waiting += [t.op for t in op.inputs] + list(op.control_inputs)
    towers = {op.name.split('/')[0] for op in seen
              if 'gradients' in op.name and op.name.startswith('tower_')}
    assert towers == {'tower_0', 'tower_1', 'tower_2'}


def test_weight_decay_counts_once(gpu_graph):
  graph, _ = gpu_graph
  losses = [op.inputs[0].op.inputs[0].op.name
            for op in graph.get_operations()
            if op.type == 'L2Loss' and op.name.startswith('losses/')]
  assert losses == ['local3/weights', 'local4/weights']


def test_summaries_are_made_once_without_a_towers_name(gpu_graph):
  graph, _ = gpu_graph
  with graph.as_default():
    summaries = [tensor.op for tensor in tf.get_collection(
        tf.GraphKeys.SUMMARIES)]
  tags = []
  for op in summaries:
    assert op.device == '/device:CPU:0'
    tags += op.inputs[0].op.get_attr('value').string_val
  tags = [tag.decode() for tag in tags]
  assert len(tags) == len(set(tags))
  assert not [tag for tag in tags if re.search('tower', tag)]
  assert {'images', 'conv1/activations', 'sparsity/conv1', 'conv1/weights',
          'conv1/weights/gradients', 'training/learning_rate',
          'loss/total_loss', 'precision/Precision @ 1'} <= set(tags)


@pytest.mark.parametrize('gpus, devices', [
    (0, ['/cpu:0', '/cpu:0', '/cpu:0']),
    (1, ['/gpu:0', '/gpu:0', '/gpu:0']),
    (2, ['/gpu:0', '/gpu:1', '/gpu:0']),
    (8, ['/gpu:0', '/gpu:1', '/gpu:2'])])
def test_towers_share_the_devices_there_are(monkeypatch, gpus, devices):
  monkeypatch.setattr(tf.config, 'list_physical_devices',
                      lambda kind: ['a GPU'] * gpus if kind == 'GPU' else [])
  assert multi_gpu_train.find_devices(3) == devices
  # Of another host, whatever this one has.
  host = '/job:worker/task:1'
  monkeypatch.undo()
  assert multi_gpu_train.find_devices(3, gpus, host) == [
      f'{host}{device}' for device in devices]


def test_a_cluster_has_no_queues(make_run, tmp_path):
  with pytest.raises(UserError, match='--input=queue: expected tfdata'):
    multi_gpu_train.train(make_run(input='queue'), chief='a chief')
  assert not (tmp_path / 'train').exists()


def test_program(run_program, data_dir, tmp_path):
  train_dir = tmp_path / 'train'
  code, out, err = run_program(
      'multi_gpu_train', '--num_gpus=2', '--batch_size=8', '--max_steps=3',
      '--eval_at_end', '--tta',
      f'--data_dir={data_dir}', f'--train_dir={train_dir}')
  assert code == 0, err
  assert 'Towers: tower_0 on ' in out
  assert 'step 0, loss = ' in out
  for ending in '', ', test-time augmentation':
    assert re.search(r'precision @ 1 = 0\.\d{3} \(step 3, 130 examples, '
                     rf'cross-entropy \d\.\d{{3}}, cifar10 test{ending}\)', out)
  assert (train_dir / 'model.ckpt-3.index').exists()
