"""What the README says is so."""

import pathlib
import re
import types

import tensorflow.compat.v1 as tf

from cifar10 import networks
from cifar10 import train

README = (pathlib.Path(__file__).parents[1] / 'README.md').read_text()


BLOCKS = re.findall(r'```python\n(.*?)```', README, re.DOTALL)


def test_the_example_of_probabilities(make_run, capsys):
  run = train.train(make_run(max_steps=1))
  code, = (block for block in BLOCKS if 'softmax(logits)' in block)
  exec(code.replace('/tmp/cifar10_train', run.train_dir), {})
  rows = re.findall(r'\[+([^\[\]]+)\]', capsys.readouterr().out)
  assert len(rows) >= 5
  for row in rows[-5:]:
    probabilities = list(map(float, row.split()))
    assert len(probabilities) == 10
    assert abs(sum(probabilities) - 1) < 0.01


def test_the_example_network_trains(make_run, monkeypatch):
  code, = (block for block in BLOCKS if block.startswith('"""'))
  module = types.ModuleType('example')
  exec(code, module.__dict__)
  monkeypatch.setitem(networks.NETWORKS, 'example', module)
  run = train.train(make_run(network='example', max_steps=2))
  assert tf.train.load_variable(run.train_dir, 'hidden/weights').shape == (
      24 * 24 * 3, 100)


def test_the_example_hook_stops(monkeypatch, tmp_path, capsys):
  code, = (block for block in BLOCKS if 'StopWhenLearned' in block)
  code = code.replace('< 1.5', '< 9').replace("'/tmp/mine'", repr(
      str(tmp_path / 'mine'))).replace("dataset='synthetic'", (
          f"dataset='synthetic', data_dir={str(tmp_path)!r}"))
  exec(code, {})
  assert 'Step 1 of ' in capsys.readouterr().out


def test_every_flag_is_in_a_table(help_texts):
  in_tables = re.findall(r'^\| `--(\w+)` \|', README, re.MULTILINE)
  in_help = re.findall(r'^  --(?:\[no\])?(\w+):\s', '\n'.join(
      help_texts.values()), re.MULTILINE)
  assert set(in_tables) == set(in_help)
