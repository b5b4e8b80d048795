"""Starting from another run's variables."""

import dataclasses
import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from cifar10 import multi_gpu_train
from cifar10 import train
from cifar10.data import importers
from cifar10.util.errors import UserError
from tests import numerics
from tests.conftest import read_checkpoint
from tests.data.test_importers import save


@pytest.fixture
def own_data(tmp_path):
  """Records of three classes."""
  for name, color in ('a', 50), ('b', 150), ('c', 250):
    for i in range(10):
      save(tmp_path / 'pictures' / name / f'{i}.png', color, i, 0)
  (tmp_path / 'data').mkdir()
  importers.import_folders(tmp_path / 'data' / 'own', tmp_path / 'pictures', 32,
                           0.2)
  return str(tmp_path / 'data')


@pytest.mark.parametrize('network, name, towers', [
    ('convnet', 'conv1/weights', 2),
    ('improved_cnn', 'conv1a/batch_norm/moving_variance', 1)])
def test_to_other_classes(make_run, own_data, tmp_path, capsys, network, name,
                          towers):
  first = train.train(make_run(train_dir=str(tmp_path / 'first'), max_steps=3,
                               network=network))
  capsys.readouterr()
  # With a learning rate of 0, what a step leaves is what it started from.
  run = make_run(
      data_dir=own_data, network=network, max_steps=1, batch_size=4,
      recipe=dataclasses.replace(first.recipe, learning_rate=0, batch_size=4),
      init_from=first.train_dir)
  run = (train.train(run) if towers == 1
         else multi_gpu_train.train(run, ['/cpu:0'] * 2))
  out = capsys.readouterr().out
  assert f'variables of {first.train_dir}/model.ckpt-3, but not soft' in out
  assert 'softmax_linear/biases [3] (there: [10])' in out
  before = read_checkpoint(f'{first.train_dir}/model.ckpt-3')
  after = read_checkpoint(f'{run.train_dir}/model.ckpt-1')
  assert after['global_step'] == 1
  same = {key for key in after if key in before and np.array_equal(
      after[key], before[key])}
  trainable = {key for key in before if key.endswith(('weights', 'scale'))}
  assert trainable - same == {'softmax_linear/weights'}
  if network == 'convnet':
    # The averages start there too, from the weights.
    average = after[f'{name}/ExponentialMovingAverage']
    numerics.assert_close(average, before[name], 1)
  else:
    # A step takes it 1% of the way to the variance of another batch; without
    # the start, it would be that far from 1.
    assert abs(after[name] - before[name]).max() < (
        abs(after[name] - 1).max())


def test_a_run_that_goes_on_starts_from_itself(make_run, tmp_path, capsys):
  first = train.train(make_run(train_dir=str(tmp_path / 'first'), max_steps=2,
                               network='softmax'))
  run = make_run(max_steps=2, network='softmax',
                 init_from=f'{first.train_dir}/model.ckpt-2.index')
  train.train(run)
  assert (f'variables of {first.train_dir}/model.ckpt-2\n'
          in capsys.readouterr().out)
  (tmp_path / 'first').rename(tmp_path / 'gone')
  capsys.readouterr()
  train.train(make_run(max_steps=4, network='softmax',
                       init_from=run.init_from))
  assert 'Resuming at step 2 of 4' in capsys.readouterr().out
  with pytest.raises(UserError, match='init_from .*model.ckpt-2, not None'):
    train.train(make_run(max_steps=5, network='softmax'))


def test_statistics_are_the_runs_own(make_run, own_data, tmp_path):
  first = train.train(make_run(train_dir=str(tmp_path / 'first'), max_steps=1,
                               network='softmax'))
  run = make_run(max_steps=1, network='softmax', data_dir=own_data,
                 batch_size=4)
  with pytest.raises(UserError, match='has none of the variables: softmax_lin'):
    train.train(make_run(max_steps=1, network='softmax', data_dir=own_data,
                         batch_size=4, init_from=first.train_dir))
  train.train(run)
  second = train.train(make_run(
      train_dir=str(tmp_path / 'second'), max_steps=1, network='softmax',
      data_dir=own_data, batch_size=4, init_from=run.train_dir))
  mean = read_checkpoint(f'{second.train_dir}/model.ckpt-1')[
      'statistics/mean_image']
  assert mean[0, 0, 2] == 0 and 100 < mean[0, 0, 0] < 200


@pytest.mark.parametrize('what, message', [
    ('nothing', 'nothing.index: is missing'),
    ('', 'there is no checkpoint'),
    ('model.ckpt-1', r'model.ckpt-1.index: is damaged')])
def test_what_is_no_checkpoint(make_run, tmp_path, what, message):
  (tmp_path / 'empty').mkdir()
  for name in 'index', 'data-00000-of-00001':
    (tmp_path / f'model.ckpt-1.{name}').write_bytes(b'junk')
  with pytest.raises(UserError, match=message):
    train.train(make_run(init_from=str(tmp_path / (what or 'empty'))))
  assert tf.train.latest_checkpoint(make_run().train_dir) is None


@pytest.mark.parametrize('source, message', [
    ('', 'is in --train_dir'), ('/model.ckpt-1', 'is in --train_dir'),
    ('/../other', 'other.index: is missing')])
def test_fresh_does_not_move_away_what_it_starts_from(make_run, source,
                                                      message):
  run = train.train(make_run(max_steps=1, network='softmax'))
  before = sorted(os.listdir(run.train_dir))
  with pytest.raises(UserError, match=message):
    train.train(make_run(max_steps=1, network='softmax',
                         init_from=run.train_dir + source), fresh=True)
  assert sorted(os.listdir(run.train_dir)) == before
