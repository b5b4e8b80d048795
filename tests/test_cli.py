"""The programs as a user meets them, beside what the other tests run."""

import importlib.metadata
import json
import os
import pkgutil
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request

import numpy as np
from PIL import Image
import pytest
import tensorflow.compat.v1 as tf

import cifar10
from cifar10 import cli
from tests.conftest import read_lines_until


def test_import_switches_nothing():
  """No flag, no TensorFlow behaviour; and it works beside eager code."""
  code = '''
import pkgutil
import tensorflow as tf
from absl import flags
v1 = tf.compat.v1

def state():
  return (tf.executing_eagerly(), v1.resource_variables_enabled(),
          v1.control_flow_v2_enabled(), v1.logging.get_verbosity(),
          len(v1.get_default_graph().get_operations()), list(flags.FLAGS))

before = state()
import cifar10
names = [m.name for m in pkgutil.walk_packages(cifar10.__path__, 'cifar10.')]
for name in names:
  __import__(name)
assert state() == before, (before, state())
assert len(names) > 10, names

from cifar10 import model
with tf.Graph().as_default(), v1.Session() as session:
  logits = model.inference(tf.zeros([1, 24, 24, 3]), 10)
  session.run(v1.global_variables_initializer())
  assert session.run(logits).shape == (1, 10)
assert tf.constant(1).numpy() == 1
'''
  subprocess.run([sys.executable, '-c', code], check=True, timeout=120)


@pytest.fixture(scope='module')
def small_run(run_program, data_dir, tmp_path_factory):
  """The train_dir of a run of one step."""
  train_dir = str(tmp_path_factory.mktemp('small') / 'train')
  code, _, err = run_program(
      'train', '--network=softmax', f'--train_dir={train_dir}',
      f'--data_dir={data_dir}', '--max_steps=1', '--batch_size=4')
  assert code == 0, err
  return train_dir


MISTAKES = {
    'train': [
        ('--batch_size=0', '--batch_size=0: expected 1 or more'),
        ('--batch_size=-3', '--batch_size=-3: expected 1 or more'),
        ('--batch_size=301', '301 images; there are 300 to train on'),
        ('--batch_size=8 --recipe=batch_size=9', 'Give one of them'),
        ('--max_steps=0', '--max_steps=0: expected 1 or more'),
        ('--max_steps=many', '--max_steps=many: expected an integer'),
        ('--max_steps=99999999999999999999', 'expected an integer'),
        ('--seed=-1', '--seed=-1: expected 0 or more'),
        ('--seed=2147483648', 'expected 2147483647 or less'),
        ('--holdout=-1', '--holdout=-1: expected 0 or more'),
        ('--holdout=300', '--holdout=300: leaves nothing of 300 records'),
        ('--holdout=5 --input=queue', '--input=queue: reads whole files'),
        ('--checkpoint_steps=0', 'expected 1 or more'),
        ('--summary_steps=-1', 'expected 1 or more'),
        ('--log_frequency=0', 'expected 1 or more'),
        ('--keep_checkpoints=0', 'expected 1 or more'),
        ('--keep_checkpoints=3000000000', 'expected 2147483647 or less'),
        ('--min_fraction_of_examples_in_queue=1.5', 'expected 1 or less'),
        ('--min_fraction_of_examples_in_queue=nan', 'expected a finite number'),
        ('--network=convnets', 'Did you mean convnet'),
        ('--dataset=mnist', 'Did you mean cifar10 or cifar100 or'),
        ('--dtype=float8', 'Did you mean float'),
        ('--input=queues', 'Did you mean queue'),
        ('--recipe=learning_rat=1', 'Did you mean learning_rate'),
        ('--recipe=learning_rate=-1', 'learning_rate=-1.0: expected 0 or more'),
        ('--recipe=epochs=0', 'epochs=0.0: expected more than 0'),
        ('--recipe=optimizer=adm', 'Did you mean adam'),
        ('--recipe=schedule=cosin', 'Did you mean cosine'),
        ('--recipe=schedule=linear', 'knots'),
        ('--recipe=augmentation=flips', 'Did you mean'),
        ('--recipe=normalization=none', 'Did you mean'),
        ('--recipe=crop_size=33', 'crop_size'),
        ('--recipe=decayed_variables=(', 'decayed_variables'),
        ('--data_url=http://127.0.0.1:1/x.zip --data_dir=/dev/null/x',
         'Not a directory'),
        ('--data_dir=', '--data_dir=: expected a directory'),
        ('--train_dir=/dev/null/x', '/dev/null/x: Not a directory'),
        ('--train_dir=', '--train_dir=: expected a directory'),
        ('--nobatch', "Unknown command line flag 'nobatch'"),
        ('--data=here', 'Did you mean: data_dir'),
        ('--dataset=own', 'own: is missing. To make it: python -m'),
        ('--init_from=/nowhere', '/nowhere.index: is missing'),
        ('--init_from=', '--init_from=: expected a checkpoint'),
        ('--recipe=crop_size=20.5', 'expected up to 1, or pixels up to 32'),
        ('--network=baseline_cnn --recipe=crop_size=9',
         'baseline_cnn cannot take images of 9x9: Negative dimension'),
        ('--network=airnet --recipe=crop_size=8',
         'airnet cannot take images of 8x8: Negative dimension'),
        ('--recipe=augmentation=custom:x', 'custom:x: is a function that was'),
        ('--recipe=momentum=5', 'momentum=5.0: expected less than 1'),
        ('--recipe=beta1=2', 'beta1=2.0: expected less than 1'),
        ('--recipe=beta2=1', 'beta2=1.0: expected less than 1'),
        ('--recipe=epsilon=0', 'epsilon=0.0: expected more than 0'),
        ('--recipe=label_smoothing=1', 'expected less than 1'),
        ('--recipe=epochs=1,epochs=2', 'epochs is given twice'),
        ('--tta', '--tta: is for the evaluation at the end'),
        ('--train_dir=/tmp/run[12]', r'run\[12\]: expected a path without'),
        ('--train_dir=/tmp/\udcff', r'udcff: expected text in UTF-8'),
        ('False', "unexpected argument 'False'")],
    'multi_gpu_train': [
        ('--num_gpus=0', '--num_gpus=0: '),
        ('--num_gpus=-1', '--num_gpus=-1: '),
        ('--tta', '--tta: is for the evaluation at the end'),
        ('--num_gpus=4 --batch_size=100', '400 images; there are 300')],
    'eval': [
        ('--num_examples=0', '--num_examples=0: '),
        ('--num_examples=-5', '--num_examples=-5: '),
        ('--eval_interval_secs=-1', '--eval_interval_secs=-1: '),
        ('--eval_interval_secs=nan', '=nan: expected a finite number'),
        ('--eval_interval_secs=inf', '=inf: expected a finite number'),
        ('--device=tpu', '--device=tpu: expected a device such as'),
        ('--eval_data=train', 'Did you mean'),
        ('--eval_data=holdout', 'without --holdout'),
        ('--dtype=half', 'Did you mean'),
        ('--device=gpu0', '--device=gpu0: expected a device such as'),
        ('--device=/gpu:0', '--device=/gpu:0: found 0 GPUs'),
        ('--keep_best=', '--keep_best=: expected a directory'),
        ('--checkpoint_dir=/dev/null', '/dev/null: there is no checkpoint'),
        ('--checkpoint_dir=/nowhere --run_once', 'there is no checkpoint'),
        ('--eval_dir=/dev/null/x', '/dev/null/x: Not a directory'),
        ('--data_dir=/dev/null/x', '/dev/null/x: Not a directory'),
        ('--embeddings=-1', '--embeddings=-1: '),
        ('--keep_best=/tmp/x', 'add --eval_data=holdout')],
    'predict': [
        ('', 'expected image files, folders or patterns'),
        ('x.png --top_k=0', '--top_k=0: '),
        ('x.png --device=tpu', '--device=tpu: expected a device such as'),
        ('x.png --dtype=int8', 'Did you mean'),
        ('x.png --device=gpu0', '--device=gpu0: expected a device such as'),
        ('x.png --checkpoint_dir=/nowhere', 'nowhere: there is no checkp')],
    'export': [
        ('--format=onnx', 'Did you mean saved_model or tflite'),
        ('--format=tflite --dtype=float16', 'computes in float32'),
        ('--export_dir=/dev/null/x', '/dev/null/x: Not a directory'),
        ('--checkpoint_dir=/nowhere', '/nowhere: there is no checkpoint')],
    'dataset': [
        ('--import_dir=/nowhere', '/nowhere: No such file'),
        ('--import_csv=/nowhere', '/nowhere: No such file'),
        ('--import_csv=', '--import_csv=: expected a file'),
        ('--import_csv=x --import_dir=y', 'goes with no other import'),
        ('--import_csv=x --dataset=cifar10', 'imports to --dataset=own'),
        ('--import_csv=x --test_fraction=1', '=1: expected less than 1'),
        ('--import_csv=x --test_fraction=nan', '=nan: expected a finite num'),
        ('--import_svhn=x --strict', 'expected no --strict'),
        ('--import_svhn=x --test_fraction=0.1', 'expected no --test_fraction'),
        ('--import_csv=x --image_size=0', '--image_size=0: '),
        ('--dataset=mnist', 'Did you mean cifar10 or cifar100 or'),
        ('--data_url=ftp:x', 'expected a URL that ends in'),
        ('--data_url=http://[x]/cifar-10-binary.tar.gz', 'expected a URL that'),
        ('--data_dir=/dev/null/x', '/dev/null/x: Not a directory')],
    'benchmark': [
        ('--windows=0', '--windows=0: '),
        ('--num_gpus=0', '--num_gpus=0: ')],
}


@pytest.mark.parametrize('program, flags, message', [
    (program, flags, message) for program, mistakes in MISTAKES.items()
    for flags, message in mistakes])
def test_mistakes(run_program, data_dir, small_run, tmp_path, program, flags,
                  message):
  """Each ends with a short message and exit code 1, and leaves nothing."""
  defaults = {
      'eval': [f'--checkpoint_dir={small_run}', '--run_once',
               f'--eval_dir={tmp_path}/eval'],
      'dataset': [f'--data_dir={tmp_path}'],
      'predict': [f'--checkpoint_dir={small_run}'],
      'export': [f'--checkpoint_dir={small_run}', f'--export_dir={tmp_path}/x'],
      'benchmark': [f'--data_dir={data_dir}']}.get(program, [
          f'--data_dir={data_dir}', f'--train_dir={tmp_path}/train'])
  code, _, err = run_program(program, *defaults, *flags.split())
  assert code == 1
  assert re.search(message, err), err
  assert err.startswith('error: ') and err.count('\n') < 12
  assert len(err) < 1000
  assert {path.name for path in tmp_path.glob('train/*')} <= {'.lock'}


def test_imports_need_a_directory_of_their_own(run_program, tmp_path):
  """All other commands would find them in the default one."""
  code, _, err = run_program('dataset', f'--import_dir={tmp_path}')
  assert (code, err) == (1, 'error: --import_dir: expected '
                         '--data_dir=DIRECTORY, to import to\n')


def test_evaluation_of_an_empty_file(run_program, data_dir, small_run,
                                     tmp_path):
  shutil.copytree(data_dir, tmp_path / 'data')
  path = tmp_path / 'data' / 'cifar-10-batches-bin' / 'test_batch.bin'
  path.write_bytes(b'')
  code, _, err = run_program(
      'eval', f'--checkpoint_dir={small_run}', f'--eval_dir={tmp_path}/eval',
      f'--data_dir={tmp_path}/data')
  assert code == 1
  assert err == (f'error: {path}: size is 0 bytes, expected a positive '
                 'multiple of the record size, 3073\n')


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_waiting(start, tmp_path, number):
  program = start('eval', f'--checkpoint_dir={tmp_path}',
                  f'--eval_dir={tmp_path}/eval')
  program.expect('waiting')
  program.send(number)
  assert program.end() == 128 + number
  assert 'Traceback' not in program.err


def test_help(help_texts):
  for program, text in help_texts.items():
    assert f'python -m cifar10.{program}' in text
    assert '--data_dir' in text or '--checkpoint_dir' in text


def test_a_program_that_starts_again_keeps_its_checkpoints(monkeypatch):
  """However often it does."""
  calls = []
  monkeypatch.setattr(os, 'execv', lambda *call: calls.append(call))
  first = ['python', '-m', 'cifar10.multi_gpu_train', '--fresh', '--seed=2']
  for arguments in first, [*first, '--nofresh']:
    monkeypatch.setattr(sys, 'orig_argv', arguments)
    cli.restart()
  assert calls == 2 * [
      (sys.executable, [sys.executable, *first[1:], '--nofresh'])]


@pytest.mark.parametrize('output, code', [('> /dev/full', 1), ('| true', 141)])
def test_predictions_that_are_lost_are_no_success(small_run, tmp_path, output,
                                                  code):
  path = tmp_path / 'x.png'
  Image.new('RGB', (32, 32)).save(path)
  command = (f'{sys.executable} -m cifar10.predict {path} '
             f'--checkpoint_dir={small_run}')
  result = subprocess.run(
      ['bash', '-c', f'{command} {output}; exit ${{PIPESTATUS[0]}}'],
      stderr=subprocess.PIPE, text=True, timeout=120)
  assert result.returncode == code
  assert 'Traceback' not in result.stderr


def test_version(run_program):
  """It is that of the package that is installed."""
  code, out, _ = run_program('predict', '--version')
  assert code == 0
  assert out.startswith(f"cifar10 {importlib.metadata.version('cifar10')}, "
                        f'tensorflow {tf.__version__}, ')


def test_the_public_names_are_there():
  names = re.findall(r'^    cifar10\.(\S+)', cifar10.__doc__, re.MULTILINE)
  assert len(names) > 10
  for name in names:
    pkgutil.resolve_name(f'cifar10.{name}')


def get(url, data=None):
  request = urllib.request.Request(
      url, data and json.dumps(data).encode(),
      {'Content-Type': 'application/json'})
  with urllib.request.urlopen(request, timeout=10) as response:
    return response.read().decode()


def test_tensorboard_shows_a_run(run_program, data_dir, tmp_path):
  for steps in 2, 3:
    code, _, err = run_program(
        'multi_gpu_train', '--num_gpus=2', '--batch_size=4',
        '--summary_steps=1', f'--max_steps={steps}', f'--data_dir={data_dir}',
        f'--train_dir={tmp_path}/train')
    assert code == 0, err
  code, _, err = run_program('eval', f'--checkpoint_dir={tmp_path}/train',
                             f'--eval_dir={tmp_path}/eval',
                             '--embeddings=20')
  assert code == 0, err

  with subprocess.Popen(
      [sys.executable, '-m', 'tensorboard.main', f'--logdir={tmp_path}',
       '--port=0', '--load_fast=false'], stderr=subprocess.PIPE,
      text=True) as process:
    try:
      address = re.search(r'http://\S+:\d+/', read_lines_until(
          process, 'http://', 'stderr'))
      plugins = address.group() + 'data/plugin/'
      # It loads while it serves.
      for _ in range(60):
        scalars = json.loads(get(plugins + 'scalars/tags'))
        if len(scalars) == 3 and all(scalars.values()):
          break
        time.sleep(0.5)
      results, = scalars.keys() - {'train', 'eval'}
      assert results.startswith('eval/hparams-')
      shared = {'loss/cross_entropy', 'precision/Precision @ 1'}
      assert shared <= scalars['eval'].keys()
      assert {*shared, 'loss/total_loss', 'training/learning_rate',
              'training/examples_per_sec', 'sparsity/conv1',
              'training/gradient_norm/conv1/weights'} <= scalars['train'].keys()
      images = json.loads(get(plugins + 'images/tags'))
      assert {'images/image/0', 'filters/conv1/weights/image'} <= images[
          'train'].keys()
      assert {'evaluation/confusion_matrix', 'evaluation/mistakes'} <= images[
          'eval'].keys()
      assert json.loads(get(plugins + 'text/tags'))['train'] == ['run']
      assert 'eval' in get(plugins + 'projector/runs')
      assert 'features.tsv' in get(plugins + 'projector/info?run=eval')
      assert '\t19\n' in get(
          plugins + 'projector/metadata?run=eval&name=last%20hidden%20layer')
      histograms = json.loads(get(plugins + 'histograms/tags'))
      assert {'conv1/weights', 'conv1/weights/gradients',
              'conv1/activations'} <= histograms['train'].keys()
      graph = get(plugins + 'graphs/graph?run=train')
      assert '"tower_1/conv1/Conv2D"' in graph
      points = json.loads(get(
          plugins + 'scalars/scalars?run=train&tag=loss/total_loss'))
      assert [step for _, step, _ in points] == [0, 1, 2]

      # The run is one row of the HPARAMS page: training and evaluation.
      row, = json.loads(get(plugins + 'hparams/session_groups', {
          'experimentName': '', 'startIndex': 0, 'sliceSize': 9,
          'allowedStatuses': ['STATUS_UNKNOWN', 'STATUS_SUCCESS']}))[
              'sessionGroups']
      assert {session['name']: session['status']
              for session in row['sessions']} == {
                  'train': 'STATUS_SUCCESS', results: 'STATUS_UNKNOWN'}
      assert row['hparams']['network'] == 'convnet'
      assert row['hparams']['learning_rate'] == 0.1
      assert row['hparams']['global_batch'] == 8
      assert row['hparams']['knots'] == ''
      report = json.loads((tmp_path / 'eval' / 'report.json').read_text())
      metrics = {metric['name']['tag']: metric['value']
                 for metric in row['metricValues']}
      assert metrics['evaluation/precision_test'] == np.float32(
          report['precision_at_1'])
      assert metrics['evaluation/cross_entropy_test'] == np.float32(
          report['cross_entropy'])
      assert metrics['loss/total_loss'] == points[-1][2]
    finally:
      process.kill()
    log = process.stderr.read()
    assert 'warn' not in log.lower() and 'more than one graph' not in log, log
