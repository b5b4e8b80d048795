"""The programs as a user meets them, beside what the other tests run."""

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

from cifar10 import cli


@pytest.mark.parametrize('seconds, text', [
    (0.4, '0s'), (42, '42s'), (485, '8m 05s'), (3599.9, '1h 00m'),
    (11220, '3h 07m')])
def test_duration(seconds, text):
  assert cli.duration(seconds) == text


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
  subprocess.run([sys.executable, '-c', code], check=True)


@pytest.mark.parametrize('program, flag, message', [
    ('train', '--batch_size=0', 'batch_size'),
    ('train', '--max_steps=many', 'max_steps'),
    ('train', '--network=convnets', 'convnet'),
    ('train', '--data=here', "Did you mean"),
    ('multi_gpu_train', '--num_gpus=0', 'num_gpus'),
    ('eval', '--eval_data=train', 'test|train_eval'),
    ('eval', 'False', "unexpected argument 'False'"),
    ('dataset', '--dataset=mnist', 'cifar10|synthetic')])
def test_bad_flags(run_program, program, flag, message):
  code, out, err = run_program(program, flag)
  assert code == 1
  assert message in err + out
  assert 'Traceback' not in err


def test_interrupted_while_waiting(start, tmp_path):
  process = start('eval', f'--checkpoint_dir={tmp_path}',
                  f'--eval_dir={tmp_path}/eval')
  assert 'waiting' in process.stdout.readline()
  process.send_signal(signal.SIGINT)
  _, err = process.communicate(timeout=60)
  assert process.returncode == 130
  assert 'Traceback' not in err


def test_help(help_texts):
  for program, text in help_texts.items():
    assert f'python -m cifar10.{program}' in text
    assert '--data_dir' in text


def get(url):
  with urllib.request.urlopen(url, timeout=10) as response:
    return response.read().decode()


def test_tensorboard_shows_a_run(run_program, data_dir, tmp_path):
  code, _, err = run_program(
      'multi_gpu_train', '--num_gpus=2', '--batch_size=4', '--max_steps=3',
      '--summary_steps=1', f'--data_dir={data_dir}',
      f'--train_dir={tmp_path}/train')
  assert code == 0, err
  code, _, err = run_program('eval', f'--checkpoint_dir={tmp_path}/train',
                             f'--eval_dir={tmp_path}/eval')
  assert code == 0, err

  with subprocess.Popen(
      [sys.executable, '-m', 'tensorboard.main', f'--logdir={tmp_path}',
       '--port=0', '--load_fast=false'], stderr=subprocess.PIPE,
      text=True) as process:
    try:
      lines = iter(process.stderr.readline, '')
      address = next(filter(None, (
          re.search(r'http://\S+:\d+/', line) for line in lines)))
      plugins = address.group() + 'data/plugin/'
      # It loads while it serves.
      for _ in range(60):
        scalars = json.loads(get(plugins + 'scalars/tags'))
        if scalars.keys() == {'train', 'eval'} and all(
            'cross_entropy' in tags for tags in scalars.values()):
          break
        time.sleep(0.5)
      assert {'cross_entropy', 'Precision @ 1'} == (
          scalars['eval'].keys() & {'cross_entropy', 'Precision @ 1'})
      assert {'cross_entropy', 'Precision @ 1', 'total_loss',
              'learning_rate'} <= scalars['train'].keys()
      images = json.loads(get(plugins + 'images/tags'))
      assert images.keys() == {'train', 'eval'}
      histograms = json.loads(get(plugins + 'histograms/tags'))
      assert {'conv1/weights', 'conv1/weights/gradients',
              'conv1/activations'} <= histograms['train'].keys()
      graph = get(plugins + 'graphs/graph?run=train')
      assert '"tower_1/conv1/Conv2D"' in graph
      points = json.loads(get(
          plugins + 'scalars/scalars?run=train&tag=total_loss'))
      assert [step for _, step, _ in points] == [0, 1, 2]
    finally:
      process.kill()
