"""Checkpoints that are damaged, gone, or not what they should be."""

import errno
import glob
import os
import random
import re
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from cifar10 import train
from cifar10.runs import best
from cifar10.runs import checkpoints
from cifar10.util.errors import UserError
from tests.conftest import assert_same_checkpoints
from tests.conftest import read_checkpoint
from tests.conftest import scalars_of
from tests.conftest import with_batch_size
from tests.programs import run_eval
from tests.programs import run_export
from tests.programs import run_predict

INDEX, DATA = '.index', '.data-00000-of-00001'
STEPS = {'network': 'two_layer_fc', 'batch_size': 4, 'checkpoint_steps': 2,
         'summary_steps': 1}


def rewrite(path, change):
  """Replaces a file by what change() makes of its bytes; None: deletes it."""
  with open(path, 'rb') as f:
    content = change(f.read())
  os.remove(path)
  if content is not None:
    with open(path, 'wb') as f:
      f.write(content)


def flip(content, bit):
  return (int.from_bytes(content, 'big') ^ 1 << bit).to_bytes(
      len(content), 'big')


@pytest.fixture(scope='module')
def whole(data_dir, tmp_path_factory):
  """An uninterrupted run to step 6, and a run that stopped at step 4."""
  directory = tmp_path_factory.mktemp('whole')
  return [train.train(with_batch_size(
      train_dir=str(directory / str(steps)), max_steps=steps,
      data_dir=data_dir, **STEPS)) for steps in (6, 4)]


@pytest.fixture
def stopped(whole, tmp_path):
  """A copy of the directory of the run that stopped at step 4."""
  return shutil.copytree(whole[1].train_dir, tmp_path / 'train')


DAMAGE = {
    'truncated data': (DATA, lambda content: content[:-1], 'is damaged: '),
    'empty data': (DATA, lambda content: b'', 'is damaged: '),
    'a flipped bit in the data': (
        DATA, lambda content: flip(content, 54321), 'is damaged: .*hecksum'),
    'no data': (DATA, lambda content: None, 'is missing'),
    'truncated index': (INDEX, lambda content: content[:-1], 'is damaged: '),
    'a flipped bit in the index': (
        INDEX, lambda content: flip(content, 1000), 'is damaged: '),
    'no index': (INDEX, lambda content: None, 'is missing'),
}


@pytest.mark.parametrize('damage', DAMAGE)
def test_training_and_evaluation_go_on_from_the_newest_sound_checkpoint(
    whole, stopped, make_run, tmp_path, capsys, damage):
  suffix, change, problem = DAMAGE[damage]
  rewrite(f'{stopped}/model.ckpt-4{suffix}', change)
  message = (f'{stopped}/model.ckpt-4{suffix}: {problem}.*'
             r'\. Going on to an earlier checkpoint\n')
  run_eval(str(stopped), str(tmp_path / 'eval'), run_once=True)
  out, err = capsys.readouterr()
  assert '(step 2, ' in out and re.fullmatch(message, err)

  train.train(make_run(train_dir=str(stopped), max_steps=6, **STEPS))
  assert 'Resuming at step 2 of 6' in capsys.readouterr().out
  assert_same_checkpoints(f'{stopped}/model.ckpt-6',
                          f'{whole[0].train_dir}/model.ckpt-6')
  assert scalars_of(str(stopped)) == scalars_of(whole[0].train_dir)


def put_in_shards(path, shards=2):
  """Writes a checkpoint anew, its variables on several devices."""
  values = read_checkpoint(path)
  for file in glob.glob(f'{path}.*'):
    os.remove(file)
  with tf.Graph().as_default(), tf.Session(
      config=tf.ConfigProto(device_count={'CPU': shards})) as session:
    for i, name in enumerate(sorted(values)):
      with tf.device(f'/cpu:{i % shards}'):
        tf.get_variable(name, initializer=values[name])
    session.run(tf.global_variables_initializer())
    tf.train.Saver(sharded=True).save(session, str(path), write_state=False,
                                      write_meta_graph=False)
  assert sorted(glob.glob(f'{path}.data*')) == [
      f'{path}{shard(i, shards)}' for i in range(shards)]


def shard(i, count=2):
  return f'.data-{i:05}-of-{count:05}'


def test_a_checkpoint_in_shards_is_as_good_as_any(whole, stopped, make_run,
                                                  tmp_path, capsys):
  for step in 2, 4:
    put_in_shards(f'{stopped}/model.ckpt-{step}', 3)
  for directory in stopped, whole[1].train_dir:
    run_eval(str(directory), str(tmp_path / 'eval'), run_once=True)
  found, expected = re.findall('precision.*', capsys.readouterr().out)
  assert 'step 4, ' in found and found == expected

  (tmp_path / 'copy').mkdir()
  best._copy(f'{stopped}/model.ckpt-4', tmp_path / 'copy')
  # An index goes first when a trainer deletes a checkpoint.
  os.remove(tmp_path / 'copy' / 'model.ckpt-4.index')
  best._copy(f'{stopped}/model.ckpt-2', tmp_path / 'copy')
  assert sorted(os.listdir(tmp_path / 'copy')) == [
      'checkpoint', *(f'model.ckpt-2{shard(i, 3)}' for i in range(3)),
      'model.ckpt-2.index']
  assert_same_checkpoints(tmp_path / 'copy' / 'model.ckpt-2',
                          f'{whole[1].train_dir}/model.ckpt-2')

  train.train(make_run(train_dir=str(tmp_path / 'other'), max_steps=1,
                       init_from=str(stopped), **STEPS))
  assert (f'Starting from 4 variables of {stopped}/model.ckpt-4'
          in capsys.readouterr().out)

  os.remove(f'{stopped}/model.ckpt-2.index')  # Left of a killed trainer's.
  train.train(make_run(train_dir=str(stopped), max_steps=6, keep_checkpoints=1,
                       **STEPS))
  assert_same_checkpoints(f'{stopped}/model.ckpt-6',
                          f'{whole[0].train_dir}/model.ckpt-6')
  assert sorted(glob.glob('model.ckpt-*', root_dir=stopped)) == [
      f'model.ckpt-6{DATA}', f'model.ckpt-6{INDEX}']


@pytest.mark.parametrize('i', [0, 1])
@pytest.mark.parametrize('change, problem', [
    (lambda content: None, 'FILE: is missing'),
    (lambda content: flip(content, 54321), 'FILE: is damaged: .*hecksum'),
    # Of one that is too short, TensorFlow does not say which it is.
    (lambda content: content[:-1], 'FIRST or SECOND: is damaged: ')])
def test_damage_in_a_shard_is_noticed(stopped, capsys, i, change, problem):
  path = f'{stopped}/model.ckpt-4'
  put_in_shards(path)
  rewrite(path + shard(i), change)
  assert checkpoints.newest(str(stopped)) == f'{stopped}/model.ckpt-2'
  for name, number in ('FILE', i), ('FIRST', 0), ('SECOND', 1):
    problem = problem.replace(name, path + shard(number))
  assert re.match(problem, capsys.readouterr().err)


@pytest.mark.parametrize('name', ['par [1]', 'run*', 'what?', 'back\\slash'])
def test_a_path_that_is_a_pattern_is_refused(stopped, make_run, tmp_path,
                                             name):
  """TensorFlow would not find its checkpoints, or delete those of others."""
  directory = tmp_path / name / 'run'
  shutil.copytree(stopped, directory)
  before = sorted(os.listdir(directory))
  message = re.escape(f'{directory}: expected a path without')
  for work in (
      lambda: train.train(make_run(train_dir=str(directory))),
      lambda: train.train(make_run(train_dir=str(directory)), fresh=True),
      lambda: train.train(make_run(init_from=str(directory),
                                   train_dir=str(tmp_path / 'new'))),
      lambda: train.train(make_run(init_from=f'{directory}/model.ckpt-4',
                                   train_dir=str(tmp_path / 'new'))),
      lambda: run_eval(str(directory), str(tmp_path / 'eval')),
      lambda: run_eval(
          str(stopped), str(tmp_path / 'eval'), eval_data='holdout',
          keep_best=str(directory)),
      lambda: run_export(str(directory), str(tmp_path / 'export')),
      lambda: run_export(str(stopped), str(directory)),
      lambda: next(run_predict(['x.png'], str(directory)))):
    with pytest.raises(UserError, match=message.replace(
        'run:', r'run(/model.ckpt-4)?:')):
      work()
  assert sorted(os.listdir(directory)) == before
  assert not (tmp_path / 'eval').exists()
  assert not os.listdir(tmp_path / 'export')


def test_nor_may_a_relative_path_lead_into_one(make_run, tmp_path, monkeypatch):
  (tmp_path / 'run[12]').mkdir()
  monkeypatch.chdir(tmp_path / 'run[12]')
  with pytest.raises(UserError, match='expected a path without'):
    train.train(make_run(train_dir='.'))
  assert not os.listdir('.')


def test_a_path_with_a_closing_bracket_is_none(make_run, tmp_path):
  run = train.train(make_run(train_dir=str(tmp_path / 'a]'), max_steps=3,
                             keep_checkpoints=1, **STEPS))
  assert checkpoints.newest(run.train_dir).endswith('model.ckpt-3')


STATES = [
    None, b'', b'\xff\xfe\x00junk', b'model_checkpoint_path: "',
    b'model_checkpoint_path: "model.ckpt-99"',
    b'model_checkpoint_path: "/elsewhere/model.ckpt-3"',
    b'model_checkpoint_path: "/elsewhere/model.ckpt-4"']


@pytest.mark.parametrize('state', STATES)
def test_a_state_file_that_points_nowhere(stopped, make_run, tmp_path, state):
  rewrite(f'{stopped}/checkpoint', lambda _: state)
  train.train(make_run(train_dir=str(stopped), max_steps=5, **STEPS))
  assert read_checkpoint(f'{stopped}/model.ckpt-5')['global_step'] == 5
  assert tf.train.latest_checkpoint(str(stopped)).endswith('model.ckpt-5')


def test_the_state_file_can_point_back(stopped, make_run, capsys):
  (stopped / 'checkpoint').write_text('model_checkpoint_path: "model.ckpt-2"')
  train.train(make_run(train_dir=str(stopped), max_steps=5, **STEPS))
  assert 'Resuming at step 2 of 5' in capsys.readouterr().out


def test_a_checkpoint_that_goes_while_it_is_read(stopped, monkeypatch, capsys):
  """It is no damage: the trainer went on, and keeps one checkpoint."""
  state = stopped / 'checkpoint'
  later = state.read_text()
  state.write_text('model_checkpoint_path: "model.ckpt-2"')
  load = tf.train.load_checkpoint

  def slow_load(path):
    if path.endswith('-2'):
      os.remove(f'{path}{INDEX}')
      state.write_text(later)
    return load(path)

  monkeypatch.setattr(tf.train, 'load_checkpoint', slow_load)
  assert checkpoints.newest(str(stopped)) == f'{stopped}/model.ckpt-4'
  assert capsys.readouterr().err == ''


def test_a_copied_directory_leaves_the_original_alone(stopped, make_run,
                                                      tmp_path):
  """Though the state file has absolute paths, as other programs write them."""
  tf.train.update_checkpoint_state(str(stopped), f'{stopped}/model.ckpt-4', [
      f'{stopped}/model.ckpt-{step}' for step in (2, 4)])
  copy = shutil.copytree(stopped, tmp_path / 'copy')
  before = set(os.listdir(stopped))
  train.train(make_run(train_dir=str(copy), max_steps=8, keep_checkpoints=2,
                       **STEPS))
  assert set(os.listdir(stopped)) == before
  assert [os.path.basename(path) for path in checkpoints.paths_in(copy)] == [
      'model.ckpt-8', 'model.ckpt-6']


def test_a_slash_at_the_end_and_a_relative_name(whole, stopped, make_run,
                                                monkeypatch, capsys):
  monkeypatch.chdir(stopped.parent)
  rewrite(f'{stopped}/model.ckpt-4{INDEX}', lambda _: None)
  train.train(make_run(train_dir='train/', max_steps=6, keep_checkpoints=1,
                       **STEPS))
  assert capsys.readouterr().err.count('\n') == 1
  assert_same_checkpoints(f'{stopped}/model.ckpt-6',
                          f'{whole[0].train_dir}/model.ckpt-6')
  assert sorted(glob.glob('model.ckpt-*', root_dir=stopped)) == [
      f'model.ckpt-6{DATA}', f'model.ckpt-6{INDEX}']


@pytest.mark.parametrize('state', STATES[1:])
def test_a_state_file_alone(stopped, make_run, state):
  for path in glob.glob(f'{stopped}/model.ckpt-*'):
    os.remove(path)
  rewrite(f'{stopped}/checkpoint', lambda _: state)
  with pytest.raises(UserError, match=f'{stopped}: no checkpoint can be read'):
    train.train(make_run(train_dir=str(stopped), max_steps=5, **STEPS))


def test_a_run_that_was_killed_before_it_saved_anything(stopped, make_run,
                                                        capsys):
  for path in [*glob.glob(f'{stopped}/model.ckpt-*'), f'{stopped}/checkpoint']:
    os.remove(path)
  train.train(make_run(train_dir=str(stopped), max_steps=1, **STEPS))
  assert (f'{stopped} holds no checkpoint of this run yet: starting at step 0'
          in capsys.readouterr().out)


def test_a_directory_that_is_moved_away_while_it_is_trained_in(stopped,
                                                               make_run):
  class Move(tf.train.SessionRunHook):

    def after_run(self, run_context, run_values):
      if stopped.exists():
        os.rename(stopped, f'{stopped} was here')

  with pytest.raises(UserError, match=f'{stopped}: was moved away or deleted'):
    train.train(make_run(train_dir=str(stopped), max_steps=6, **STEPS),
                hooks=[Move()])


@pytest.mark.parametrize('pattern', ['model.ckpt-*', '*.index', '*.data*'])
def test_no_silent_start_over(stopped, make_run, tmp_path, pattern):
  for path in glob.glob(f'{stopped}/{pattern}'):
    os.remove(path)
  before = sorted(os.listdir(stopped))
  for work in (
      lambda: train.train(make_run(train_dir=str(stopped), max_steps=5,
                                   **STEPS)),
      lambda: run_eval(str(stopped), str(tmp_path / 'eval'))):
    with pytest.raises(UserError, match='no checkpoint can be read\n  '
                       r'.*model.ckpt-4.(index|data).*: is missing'):
      work()
  assert sorted(os.listdir(stopped)) == before


def test_another_networks_checkpoint(stopped, make_run, data_dir, tmp_path):
  other = train.train(make_run(network='softmax', batch_size=4, max_steps=4,
                                train_dir=str(tmp_path / 'other')))
  for path in glob.glob(f'{other.train_dir}/model.ckpt-4*'):
    shutil.copy(path, stopped)
  with pytest.raises(UserError, match='model.ckpt-4: is not of this network: '):
    train.train(make_run(train_dir=str(stopped), max_steps=5, **STEPS))
  with pytest.raises(UserError, match='model.ckpt-4: is not of this network: '):
    run_eval(str(stopped), str(tmp_path / 'eval'))


def test_what_a_killed_process_left_half_written_is_removed(stopped, make_run):
  for name in ('model.ckpt-5.data-00000-of-00001.tempstate123',
               'checkpoint.tmp0123', 'run.json.host-7.part',
               'graph.pbtxt.host-7.part'):
    (stopped / name).write_bytes(b'half')
  # What the user keeps is no part of any.
  for name in 'model.ckpt-best.data-00000-of-00001', 'model.ckpt-2.bak.data-0':
    (stopped / name).write_bytes(b'kept')
  before = set(os.listdir(stopped))
  train.train(make_run(train_dir=str(stopped), max_steps=4, **STEPS))
  assert {name for name in before if re.search('tmp|temp|part', name)} == (
      before - set(os.listdir(stopped)))


def test_a_checkpoint_that_may_not_be_read_is_not_passed_over(
    stopped, monkeypatch):
  """Nor is it damaged: the next resumed training would write another."""
  def refuse(path, *arguments):
    raise PermissionError(errno.EACCES, 'Permission denied', path)

  monkeypatch.setattr(checkpoints, 'open', refuse, raising=False)
  for _ in range(2):
    with pytest.raises(UserError, match=r'4\.index: Permission denied$'):
      checkpoints.newest(str(stopped))
  monkeypatch.undo()
  assert checkpoints.newest(str(stopped)) == f'{stopped}/model.ckpt-4'


def test_any_damage_is_noticed_or_does_no_harm(tmp_path, capsys):
  """Flips one bit, and cuts, at every byte of a small checkpoint."""
  with tf.Graph().as_default(), tf.Session() as session:
    for i in range(3):
      tf.get_variable(f'layer{i}/weights', initializer=tf.random.normal([7, 5]))
    session.run(tf.global_variables_initializer())
    saver = tf.train.Saver()
    for step in 1, 2:
      saver.save(session, f'{tmp_path}/model.ckpt', step,
                 write_meta_graph=False)
  path, rng = f'{tmp_path}/model.ckpt-2', random.Random(0)
  expected, noticed = read_checkpoint(path), 0
  for suffix in INDEX, DATA:
    with open(path + suffix, 'rb') as f:
      content = f.read()
    for i in range(len(content)):
      for damaged in flip(content, 8 * i + rng.randrange(8)), content[:i]:
        with open(path + suffix, 'wb') as f:
          f.write(damaged)
        found = checkpoints.newest(str(tmp_path))
        if found == path:
          values = read_checkpoint(path)
          assert values.keys() == expected.keys()
          for name, value in values.items():
            np.testing.assert_array_equal(value, expected[name])
        else:
          assert found.endswith('model.ckpt-1')
          noticed += 1
    with open(path + suffix, 'wb') as f:
      f.write(content)
  assert checkpoints.newest(str(tmp_path)) == path
  # What is not noticed is padding.
  assert noticed > 1000
  assert f'{path}{DATA}: is damaged' in capsys.readouterr().err


def test_a_damaged_checkpoint_does_not_take_the_place_of_another(stopped,
                                                                tmp_path):
  (tmp_path / 'best').mkdir()
  best._copy(f'{stopped}/model.ckpt-2', tmp_path / 'best')
  data = stopped / 'model.ckpt-4.data-00000-of-00001'
  content = bytearray(data.read_bytes())
  content[1000] ^= 1
  data.write_bytes(content)
  with pytest.raises(UserError, match='is damaged'):
    best._copy(f'{stopped}/model.ckpt-4', tmp_path / 'best')
  assert checkpoints.newest(tmp_path / 'best') == (
      f'{tmp_path}/best/model.ckpt-2')
