"""Evaluation, of this package's checkpoints and of the 2016 code's."""

import dataclasses
import gc
import glob
import os
import re
import shutil
import signal
import types

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from cifar10 import eval as eval_lib
from cifar10 import model
from cifar10 import train
from cifar10.data import datasets
from cifar10.data import records
from cifar10.nn import augmentation
from cifar10.runs import checkpoints
from cifar10.runs import hparams
from cifar10.runs import trained as trained_lib
from cifar10.util.errors import UserError
from tests import numerics
from tests.conftest import flags_of
from tests.conftest import read_checkpoint
from tests.conftest import read_lines_until
from tests.conftest import summaries_of
from tests.conftest import with_batch_size
from tests.programs import run_eval
from tests.programs import run_eval_once
from tests.test_model import SHAPES
from tests.test_model import TERMS


def expected_metrics(checkpoint, path, averages=True):
  """Precision and cross-entropy by NumPy, of logits computed one by one."""
  data = np.fromfile(path, np.uint8).reshape(-1, 3073)
  crops = data[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)[
      :, 4:28, 4:28].astype(np.float64)
  crops -= crops.mean((1, 2, 3), keepdims=True)
  crops /= crops.std((1, 2, 3), keepdims=True)
  reader = tf.train.load_checkpoint(checkpoint)
  with tf.Graph().as_default(), tf.Session() as session:
    logits = model.inference(tf.constant(crops, tf.float32), 10)
    for v in tf.trainable_variables():
      name = v.op.name + '/ExponentialMovingAverage' * averages
      v.load(reader.get_tensor(name), session)
    logits = np.float64(session.run(logits))
  labels = data[:, 0]
  logits -= logits.max(1, keepdims=True)
  log_likelihood = logits - np.log(np.exp(logits).sum(1, keepdims=True))
  return {'Precision @ 1': (logits.argmax(1) == labels).mean(),
          'cross_entropy': -log_likelihood[range(len(labels)), labels].mean()}


@pytest.fixture(scope='module')
def trained(data_dir, tmp_path_factory):
  """A run of 8 steps with checkpoints at 4 and 8."""
  return train.train(with_batch_size(
      32, train_dir=str(tmp_path_factory.mktemp('trained')), data_dir=data_dir,
      max_steps=8, checkpoint_steps=4))


@pytest.fixture
def copy_of_trained(trained, tmp_path):
  """A copy of its directory that a test may spoil."""
  return shutil.copytree(trained.train_dir, tmp_path / 'copy')


def test_large_images_are_evaluated_a_few_at_a_time():
  for (height, width), size in {(32, 32): 250, (64, 64): 250, (224, 224): 20,
                                (4096, 4096): 1}.items():
    assert eval_lib.trained.batch_size(records.Format(height, width)) == size


@pytest.mark.numerical
@pytest.mark.parametrize('averages', [True, False])
@pytest.mark.parametrize('batch_size', [130, 60, 1000])
def test_metrics_equal_numpys_whatever_the_batches(
    trained, monkeypatch, averages, batch_size):
  monkeypatch.setattr(eval_lib.trained, 'batch_size', lambda _: batch_size)
  data = datasets.ensure('cifar10', trained.data_dir)
  checkpoint = f'{trained.train_dir}/model.ckpt-8'
  result = run_eval_once(checkpoint, trained, data,
                         use_moving_averages=averages, embeddings=100)
  assert (result.step, result.num_examples) == (8, 130)
  expected = expected_metrics(checkpoint, data.test.paths[0], averages)
  assert result.metrics['Precision @ 1'] == expected['Precision @ 1']
  numerics.assert_close(result.metrics['cross_entropy'],
                        expected['cross_entropy'], TERMS)
  # What the last layer makes of the embeddings are the logits.
  weights, biases = (
      read_checkpoint(checkpoint)[f'softmax_linear/{name}'
                                  + '/ExponentialMovingAverage' * averages]
      for name in ('weights', 'biases'))
  assert result.features.shape == (100, len(weights))
  odds = np.exp(np.float64(result.features @ weights + biases))
  numerics.assert_close(result.probabilities[:100],
                        odds / odds.sum(1, keepdims=True), TERMS)


@pytest.mark.numerical
def test_test_time_augmentation(trained, tmp_path, capsys):
  """Equals the weighted mean of the logits of each view by itself."""
  data = datasets.ensure('cifar10', trained.data_dir)
  checkpoint = f'{trained.train_dir}/model.ckpt-8'
  result = run_eval_once(checkpoint, trained, data, num_examples=7,
                         tta=True, embeddings=3)
  assert result.features.shape == (3, 192)
  # They are those of the image itself.
  numerics.assert_close(result.features, run_eval_once(
      checkpoint, trained, data, num_examples=7, embeddings=3).features, TERMS)
  images = data.test.read(range(7))
  with tf.Graph().as_default(), tf.Session() as session:
    views = augmentation.test_views(tf.constant(images))
    logits = tf.log(trained_lib.probabilities(views, trained))
    trained_lib.restore(session, checkpoint, True)
    logits = session.run(logits).reshape(6, 7, 10)
    # Softmax does not mind what is added to all logits of an image.
    expected = session.run(tf.nn.softmax(np.tensordot(
        [0.25, 0.25, 0.125, 0.125, 0.125, 0.125], logits, 1)))
  numerics.assert_close(result.probabilities, expected, TERMS)
  run_eval(trained.train_dir, str(tmp_path), run_once=True, tta=True)
  assert 'cifar10 test, test-time augmentation)' in capsys.readouterr().out


def test_evaluations_leave_nothing_in_memory(trained):
  def evaluate_and_count_graphs():
    run_eval_once(f'{trained.train_dir}/model.ckpt-8', trained,
                  datasets.ensure('cifar10', trained.data_dir),
                  num_examples=1)
    gc.collect()
    return sum(isinstance(thing, tf.Graph) for thing in gc.get_objects())

  assert evaluate_and_count_graphs() == evaluate_and_count_graphs()


def test_num_examples_and_training_records(trained, tmp_path, capsys):
  run_eval(trained.train_dir, str(tmp_path), eval_data='train_eval',
           run_once=True)
  assert '(step 8, 300 examples,' in capsys.readouterr().out
  run_eval(trained.train_dir, str(tmp_path), num_examples=7,
           run_once=True, device='/cpu:0')
  assert '(step 8, 7 examples,' in capsys.readouterr().out


def test_events(trained, tmp_path, capsys):
  run_eval(trained.train_dir, str(tmp_path))
  out = capsys.readouterr().out
  summaries = summaries_of(tmp_path)
  assert {step for _, step in summaries} == {8}
  precision = summaries['precision/Precision @ 1', 8].simple_value
  assert f'precision @ 1 = {precision:.3f} (step 8, 130 examples' in out
  assert summaries['loss/cross_entropy', 8].simple_value > 0
  image = summaries['images/image/0', 8].image
  assert (image.height, image.width, image.colorspace) == (24, 24, 3)


def write_2016_checkpoint(directory, version, step_type, shards=1):
  """Writes what a Saver of all variables of the 2016 graph writes; with two
  shards, that of a MonitoredTrainingSession, one for each device."""
  rng = np.random.default_rng(0)
  with tf.Graph().as_default(), tf.Session(
      config=tf.ConfigProto(device_count={'CPU': shards})) as session:
    values = {'global_step': np.array(77, step_type)}
    for name, shape in SHAPES.items():
      values[name] = np.float32(rng.normal(size=shape) * 0.05)
      values[f'{name}/ExponentialMovingAverage'] = np.float32(
          rng.normal(size=shape) * 0.05)
    variables = []
    for i, (name, value) in enumerate(values.items()):
      with tf.device(f'/cpu:{i % shards}'):
        variables.append(tf.get_variable(name, initializer=value))
    session.run(tf.global_variables_initializer())
    saver = tf.train.Saver(variables, write_version=version,
                           sharded=shards > 1)
    return saver.save(session, f'{directory}/model.ckpt', global_step=77)


@pytest.mark.parametrize('version, shards', [(1, 1), (2, 1), (2, 2)])
@pytest.mark.parametrize('step_type', [np.int32, np.int64])
def test_a_checkpoint_of_the_2016_code(data_dir, tmp_path, capsys, version,
                                       shards, step_type):
  # Written elsewhere, and moved here: its paths are absolute.
  (tmp_path / 'then').mkdir()
  write_2016_checkpoint(tmp_path / 'then', version, step_type, shards)
  os.rename(tmp_path / 'then', tmp_path / 'now')
  tmp_path = tmp_path / 'now'
  checkpoint = str(tmp_path / 'model.ckpt-77')
  assert len(glob.glob(f'{checkpoint}.data-*')) == shards * (version == 2)
  run_eval(str(tmp_path), str(tmp_path / 'eval'), data_dir=data_dir,
           run_once=True)
  expected = expected_metrics(
      checkpoint, f'{data_dir}/cifar-10-batches-bin/test_batch.bin')
  assert (f"precision @ 1 = {expected['Precision @ 1']:.3f} (step 77, 130 "
          f"examples, cross-entropy {expected['cross_entropy']:.3f}"
          in capsys.readouterr().out)


def test_a_checkpoint_deleted_while_it_is_read(copy_of_trained, tmp_path,
                                               monkeypatch, capsys):
  state = copy_of_trained / 'checkpoint'
  newer = state.read_text()
  state.write_text('model_checkpoint_path: "model.ckpt-4"\n')
  restore, restored = tf.train.Saver.restore, []

  def slow_restore(saver, session, path):
    restored.append(os.path.basename(path))
    if path.endswith('-4'):
      state.write_text(newer)
      for name in glob.glob(f'{path}.data*'):
        os.remove(name)
    restore(saver, session, path)

  monkeypatch.setattr(tf.train.Saver, 'restore', slow_restore)
  run_eval(str(copy_of_trained), str(tmp_path / 'eval'))
  assert restored == ['model.ckpt-4', 'model.ckpt-8']
  assert '(step 8, ' in capsys.readouterr().out
  assert {step for _, step in summaries_of(tmp_path / 'eval')} == {8}


def test_a_run_that_is_shortened_or_started_afresh(copy_of_trained, trained,
                                                   tmp_path, monkeypatch,
                                                   capsys):
  """Ends at a checkpoint it has seen, and sees a new one of the same name."""
  path = copy_of_trained / 'run.json'
  description = path.read_text()
  path.write_text(description.replace('"max_steps": 8', '"max_steps": 1000'))

  def sleep(_):
    if capsys.readouterr().out.count('(step 8, ') != 1:
      pytest.fail('expected one evaluation before each sleep')
    if 'new' not in state:
      state.add('new')
      for name in glob.glob(f'{copy_of_trained}/model.ckpt-8.*'):
        os.utime(name, (1, 1))
    else:
      path.write_text(description)

  state = set()
  monkeypatch.setattr(eval_lib.time, 'sleep', sleep)
  run_eval(str(copy_of_trained), str(tmp_path / 'eval'),
           eval_interval_secs=0)
  assert capsys.readouterr().out == ''
  assert glob.glob(f'{tmp_path}/eval/hparams-*')


def test_other_evaluations_have_columns_of_their_own():
  """On TensorBoard's HPARAMS page."""
  result = types.SimpleNamespace(
      metrics={'Precision @ 1': 0.5, 'cross_entropy': 1.5})
  found = [[value.tag for value in hparams.results(
      result, eval_lib.Options(**options)).value] for options in (
          {}, {'tta': True}, {'eval_data': 'holdout', 'dtype': 'bfloat16'},
          {'use_moving_averages': False, 'num_examples': 7})]
  assert found == [[f'evaluation/{metric}_{name}' for metric in (
      'precision', 'cross_entropy')] for name in (
          'test', 'test_tta', 'holdout_bfloat16', 'test_raw_first_7')]


def test_errors(copy_of_trained, data_dir, tmp_path):
  eval_dir = str(tmp_path / 'eval')
  with pytest.raises(UserError, match='empty: there is no checkpoint'):
    run_eval(str(tmp_path / 'empty'), eval_dir, run_once=True)

  with pytest.raises(UserError, match='model.ckpt-8: cannot be restored: '
                     'Cannot assign a device'):
    run_eval(str(copy_of_trained), eval_dir,
             device='/job:worker/task:3')
  with pytest.raises(UserError, match='--device=cpu0: expected'):
    run_eval(str(copy_of_trained), eval_dir, device='cpu0')
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='file/eval: Not a directory'):
    run_eval(str(copy_of_trained), str(tmp_path / 'file' / 'eval'))

  # A network with other variables under the same name.
  for path in glob.glob(f'{copy_of_trained}/model.ckpt-8.*'):
    os.remove(path)
  with tf.Graph().as_default(), tf.Session() as session:
    tf.get_variable('conv1/biases/ExponentialMovingAverage', initializer=0.0)
    session.run(tf.global_variables_initializer())
    tf.train.Saver().save(session, f'{copy_of_trained}/model.ckpt', 8)
  with pytest.raises(UserError, match=r'model.ckpt-8: is not of this network: '
                     r'conv1/biases.* \[\], expected \[64\]'):
    run_eval(str(copy_of_trained), eval_dir, run_once=True)


def test_records_of_another_kind(trained, data_dir, tmp_path):
  """Of the same names, but not what the network was trained for."""
  shutil.copytree(data_dir, tmp_path / 'data')
  names = tmp_path / 'data' / 'cifar-10-batches-bin' / 'batches.meta.txt'
  names.write_text(names.read_text().replace('bird', 'bee'))
  with pytest.raises(UserError, match="'bee', .* but the run was trained on"):
    run_eval(trained.train_dir, str(tmp_path / 'eval'),
             data_dir=str(tmp_path / 'data'), run_once=True)


def test_training_records_that_changed(trained, data_dir, tmp_path):
  shutil.copytree(data_dir, tmp_path / 'data')
  path = tmp_path / 'data' / 'cifar-10-batches-bin' / 'data_batch_2.bin'
  content = bytearray(path.read_bytes())
  content[12345] ^= 1
  path.write_bytes(content)
  with pytest.raises(UserError, match='the training records have the checksum'):
    run_eval(trained.train_dir, str(tmp_path / 'eval'),
             data_dir=str(tmp_path / 'data'), run_once=True,
             eval_data='train_eval')


@pytest.mark.parametrize('name, step', [
    ('/a/model.ckpt-0', 0), ('model.ckpt-12345', 12345), ('/b-7/x-1-22', 22)])
def test_step_of(name, step):
  assert checkpoints.step_of(name) == step


def test_a_name_without_a_step():
  with pytest.raises(UserError, match='final: expected .* -STEP'):
    checkpoints.step_of('/a-1/final')


def test_beside_a_trainer(start, make_small_run, tmp_path):
  """Waits for the first checkpoint, takes each once, ends after the last."""
  run = make_small_run(batch_size=4, max_steps=10**6, checkpoint_steps=100,
                       keep_checkpoints=1)
  evaluator = start('eval', f'--checkpoint_dir={run.train_dir}',
                    f'--eval_dir={tmp_path}/eval', '--eval_interval_secs=0')
  evaluator.expect('No checkpoint in')
  trainer = start('train', *flags_of(run))
  evaluator.expect('precision @ 1 = ')
  trainer.send(signal.SIGTERM)
  assert trainer.end() == 128 + signal.SIGTERM, trainer.err
  stopped = int(re.search(r'saved at step (\d+)', trainer.out).group(1))
  run = dataclasses.replace(run, max_steps=stopped + 250)
  trainer = start('train', *flags_of(run))
  assert trainer.end() == 0, trainer.err
  assert evaluator.end() == 0, evaluator.err
  assert 'Traceback' not in evaluator.err
  steps = [int(step) for step in re.findall(r'\(step (\d+), 130 examples',
                                            evaluator.out)]
  assert steps == sorted(set(steps))
  assert len(steps) > 1 and steps[-1] == run.max_steps
  assert {step for step in steps if step % run.checkpoint_steps} <= {
      stopped, run.max_steps}
  assert {step for _, step in summaries_of(tmp_path / 'eval')} == set(steps)


@pytest.mark.long
def test_beside_a_trainer_for_long(spawn, make_run, tmp_path):
  """A few hundred checkpoints, of which one is kept; and what was measured is
  what another run of the same seed is worth after as many steps."""
  run = make_run(train_dir=str(tmp_path / 'train'), batch_size=4,
                 max_steps=10**6, checkpoint_steps=50, keep_checkpoints=1)
  trainer = spawn('train', *flags_of(run))
  evaluator = spawn('eval', f'--checkpoint_dir={run.train_dir}',
                    f'--eval_dir={tmp_path}/eval', '--eval_interval_secs=0')
  steps = []
  for _ in range(300):
    line = read_lines_until(evaluator, '(step ')
    steps.append(int(re.search(r'\(step (\d+), ', line).group(1)))
  for process in trainer, evaluator:
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143 and 'Traceback' not in err, err
  assert steps == sorted(set(steps))
  assert not [step for step in steps if step % 50]

  measured = summaries_of(tmp_path / 'eval')
  for step in steps[::15]:
    other = train.train(make_run(train_dir=str(tmp_path / 'other'),
                                 batch_size=4, max_steps=step,
                                 keep_checkpoints=1))
    result = run_eval_once(f'{other.train_dir}/model.ckpt-{step}', other,
                           datasets.ensure('cifar10', other.data_dir))
    for tag, value in result.metrics.items():
      assert measured[model.tag(tag), step].simple_value == np.float32(value)
  print(f'\n{len(steps)} evaluations, to step {steps[-1]}')
