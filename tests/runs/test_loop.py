"""Training on one device: in this process, and as a program that is killed."""

import dataclasses
import glob
import json
import os
import re
import signal

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from cifar10 import train
from cifar10.runs import description
from cifar10.runs import sessions
from cifar10.util.errors import UserError
from tests.conftest import flags_of
from tests.conftest import read_checkpoint
from tests.conftest import scalars_of
from tests.conftest import SMALL_RECIPE


def test_what_a_run_leaves_behind(make_run, capsys):
  run = train.train(make_run(max_steps=4, summary_steps=2, checkpoint_steps=2,
                             log_frequency=1))
  assert run.recipe.batch_size == 12 and run.num_examples == 300
  files = set(os.listdir(run.train_dir))
  events = {name for name in files if name.startswith('events')}
  assert len(events) == 1
  assert files - events == {
      '.lock', 'run.json', 'graph.pbtxt', 'checkpoint',
      'model.ckpt-2.index', 'model.ckpt-2.data-00000-of-00001',
      'model.ckpt-4.index', 'model.ckpt-4.data-00000-of-00001'}
  variables = [f'{scope}/{name}' for scope in (
      'conv1', 'conv2', 'local3', 'local4', 'softmax_linear')
      for name in ('weights', 'biases')]
  assert set(read_checkpoint(f'{run.train_dir}/model.ckpt-4')) == {
      *variables, *(f'{v}/ExponentialMovingAverage' for v in variables),
      'global_step', 'cross_entropy/avg', 'total_loss/avg'}

  scalars = scalars_of(run.train_dir)
  assert {step for _, step in scalars} == {0, 2}
  assert {tag for tag, _ in scalars} == {
      'loss/total_loss', 'loss/total_loss/raw', 'loss/cross_entropy',
      'loss/cross_entropy/raw', 'precision/Precision @ 1',
      'training/learning_rate',
      *(f'sparsity/{scope}' for scope in (
          'conv1', 'conv2', 'local3', 'local4', 'softmax_linear')),
      *(f'training/gradient_norm/{name}' for name in variables)}

  lines = [line for line in capsys.readouterr().out.splitlines()
           if 'step' in line and 'loss' in line]
  assert len(lines) == 4
  for i, line in enumerate(lines):
    # The tutorial's format, which scripts look for.
    assert re.match(
        r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}: step %d, loss = \d+\.\d\d '
        r'\(\d+\.\d examples/sec; \d+\.\d{3} sec/batch\)' % i, line)
  assert f"loss = {scalars['loss/total_loss/raw', 0]:.2f} (" in lines[0]


def test_sessions_take_the_gpu_memory_that_they_need():
  config = sessions.config(True, device_count={'CPU': 2})
  assert config.gpu_options.allow_growth and config.allow_soft_placement
  assert config.log_device_placement and config.device_count['CPU'] == 2
  assert not sessions.config().log_device_placement


def test_seeds(make_small_run, tmp_path):
  losses = []
  for seed, directory in ((1, 'a'), (1, 'b'), (2, 'c')):
    run = make_small_run(seed=seed, train_dir=str(tmp_path / directory),
                         max_steps=2, summary_steps=1)
    train.train(run)
    scalars = scalars_of(run.train_dir)
    losses.append([scalars['loss/total_loss/raw', step] for step in range(2)])
  assert losses[0] == losses[1]
  assert losses[0] != losses[2]


def test_hooks_see_each_step_and_can_end_the_training(make_small_run):
  class Stop(tf.train.SessionRunHook):
    calls = 0

    def after_run(self, run_context, run_values):
      self.calls += 1
      if self.calls == 3:
        run_context.request_stop()

  hook = Stop()
  run = train.train(make_small_run(max_steps=100), hooks=[hook])
  assert hook.calls == 3
  assert tf.train.latest_checkpoint(run.train_dir).endswith('model.ckpt-3')


def test_a_finished_run_stays_as_it_is_and_can_be_prolonged(make_small_run,
                                                            capsys):
  run = train.train(make_small_run(max_steps=2))
  before = read_checkpoint(f'{run.train_dir}/model.ckpt-2')
  train.train(make_small_run(max_steps=2))
  assert 'is at step 2 already' in capsys.readouterr().out
  after = read_checkpoint(f'{run.train_dir}/model.ckpt-2')
  assert all((before[name] == after[name]).all() for name in before)
  train.train(make_small_run(max_steps=3))
  assert 'Resuming at step 2 of 3' in capsys.readouterr().out
  assert read_checkpoint(f'{run.train_dir}/model.ckpt-3')['global_step'] == 3


def test_another_run_is_refused_and_fresh_moves_it_aside(make_small_run,
                                                         tmp_path):
  run = train.train(make_small_run(max_steps=1))
  for change, message in (
      ({'seed': 9}, 'seed 1, not 9'),
      ({'batch_size': 7}, 'global batch 12, not 7'),
      ({'input': 'queue'}, 'input tfdata, not queue'),
      ({'dataset': 'synthetic', 'data_dir': str(tmp_path)},
       'dataset cifar10, not synthetic, .*records 300, not 8000')):
    with pytest.raises(UserError, match=f'{message}.*--fresh'):
      train.train(make_small_run(max_steps=1, **change))
  train.train(make_small_run(max_steps=2, seed=9), fresh=True)
  aside, = glob.glob(f'{run.train_dir}/before-*')
  assert read_checkpoint(f'{aside}/model.ckpt-1')['global_step'] == 1
  assert read_checkpoint(f'{run.train_dir}/model.ckpt-2')['global_step'] == 2


@pytest.mark.parametrize('place', ['.', 'link/'])
def test_fresh_moves_what_the_run_wrote_and_nothing_else(
    make_small_run, monkeypatch, place):
  """Into a directory inside, as train_dir can be where nothing else can be put:
  a mount point, or a link."""
  run = train.train(make_small_run(max_steps=1))
  wrote = set(os.listdir(run.train_dir)) - {'.lock'}
  os.mkdir(f'{run.train_dir}/notes')
  for name in 'notes/mine.txt', 'data_batch_1.bin', 'model.py':
    with open(f'{run.train_dir}/{name}', 'w') as file:
      file.write('mine')
  os.symlink(run.train_dir, f'{run.train_dir}/../link')
  monkeypatch.chdir(run.train_dir if place == '.' else f'{run.train_dir}/..')
  run = make_small_run(max_steps=2, seed=9, train_dir=place)
  train.train(run, fresh=True)
  aside, = glob.glob('before-*', root_dir=place)
  assert set(os.listdir(f'{place}/{aside}')) == wrote
  assert set(os.listdir(place)) > {'notes', 'data_batch_1.bin', 'model.py',
                                   'run.json', 'model.ckpt-2.index'}
  assert os.listdir(f'{place}/notes') == ['mine.txt']
  assert description.load(f'{place}/{aside}').seed == 1
  train.train(run, fresh=True)
  assert len(glob.glob('before-*', root_dir=place)) == 2


def test_fresh_moves_checkpoints_of_any_name(make_small_run, tmp_path):
  (tmp_path / 'train').mkdir()
  others = {'ckpt-1.index', 'ckpt-1.data-00000-of-00001', 'checkpoint'}
  for name in others:
    (tmp_path / 'train' / name).write_text('model_checkpoint_path: "ckpt-1"\n')
  with pytest.raises(UserError, match='holds checkpoints but no run.json'):
    train.train(make_small_run(max_steps=1))
  run = train.train(make_small_run(max_steps=1), fresh=True)
  aside, = glob.glob(f'{run.train_dir}/before-*')
  assert set(os.listdir(aside)) == others
  assert read_checkpoint(f'{run.train_dir}/model.ckpt-1')['global_step'] == 1


def test_fresh_leaves_a_directory_without_a_run_alone(make_small_run, tmp_path):
  train_dir = tmp_path / 'train'
  (train_dir / 'cifar-10-batches-bin').mkdir(parents=True)
  (train_dir / 'events.out.tfevents.1.other').write_bytes(b'')
  before = set(os.listdir(train_dir))
  train.train(make_small_run(max_steps=1), fresh=True)
  assert set(os.listdir(train_dir)) > before
  assert not list(train_dir.glob('before-*'))


def test_a_run_that_did_not_note_the_checksum_goes_on(make_small_run):
  run = train.train(make_small_run(max_steps=1))
  description.save(dataclasses.replace(run, checksum=None))
  train.train(make_small_run(max_steps=2))
  assert description.load(run.train_dir) == dataclasses.replace(
      run, max_steps=2)


def test_checkpoints_without_a_description_are_not_touched(make_small_run):
  run = train.train(make_small_run(max_steps=1))
  os.remove(f'{run.train_dir}/run.json')
  with pytest.raises(UserError, match='checkpoints but no run.json'):
    train.train(make_small_run(max_steps=2))


def test_a_new_run_needs_a_directory_it_can_make(make_small_run, tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='file/train: Not a directory'):
    train.train(make_small_run(train_dir=str(tmp_path / 'file' / 'train')))


def test_a_loss_that_is_not_finite_ends_the_training(make_small_run):
  run = make_small_run(max_steps=50, checkpoint_steps=1, keep_checkpoints=50,
                 recipe=dataclasses.replace(SMALL_RECIPE, learning_rate=1e4))
  with pytest.raises(UserError) as error:
    train.train(run)
  message = str(error.value)
  for part in ('loss ', 'learning rate 10000', 'largest gradient norms ',
               '/weights), ', 'last finite loss '):
    assert part in message
  checkpoints = glob.glob(f'{run.train_dir}/*.index')
  assert checkpoints
  for path in checkpoints:
    for name, value in read_checkpoint(path[:-len('.index')]).items():
      assert np.isfinite(value).all(), (path, name)


def test_weights_that_are_not_finite_are_not_saved(make_small_run):
  class Overflow(tf.train.SessionRunHook):

    def begin(self):
      biases, = (v for v in tf.trainable_variables()
                 if v.op.name == 'hidden/biases')
      self.overflow = biases.assign(biases * np.inf)

    def after_run(self, run_context, run_values):
      run_context.session.run(self.overflow)

  with pytest.raises(UserError, match='step 0: loss 2.*learning rate 0.001, '
                     'largest gradient norms .*a weight is not finite'):
    train.train(make_small_run(max_steps=1), hooks=[Overflow()])
  assert not glob.glob(f'{make_small_run().train_dir}/model*')


def test_the_tutorials_queues_train_too(make_run, capsys):
  # Its dropout needs the step, which the queues do not.
  train.train(make_run(input='queue', max_steps=2, network='improved_cnn'))
  assert ('Filling queue with 120 CIFAR images before starting to train.'
          in capsys.readouterr().out)


@pytest.mark.parametrize('number, code', [
    (signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_save_before_the_end(make_small_run, start, number, code):
  run = make_small_run(max_steps=100000, log_frequency=1)
  program = start('train', *flags_of(run))
  program.expect(' step 3, ')
  program.send(number)
  assert program.end() == code
  assert 'Traceback' not in program.err
  last = program.out.splitlines()[-1]
  assert last.startswith(f'{signal.Signals(number).name}: stopped and saved')
  assert 'The same command, without --fresh, goes on from there.' in last
  checkpoint = tf.train.latest_checkpoint(run.train_dir)
  assert f'at step {checkpoint.rpartition("-")[2]} of 100000' in last


def test_run_json_describes_the_run(make_run):
  run = train.train(make_run(max_steps=1))
  with open(f'{run.train_dir}/run.json') as f:
    written = json.load(f)['run']
  assert written['dataset'] == 'cifar10'
  assert written['recipe']['learning_rate'] == 0.1
