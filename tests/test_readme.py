"""What the README says is so."""

import pathlib
import re
import types

from PIL import Image
import tensorflow.compat.v1 as tf

from cifar10.data import synthetic
from cifar10 import networks
from cifar10 import train

README = (pathlib.Path(__file__).parents[1] / 'README.md').read_text()


BLOCKS = re.findall(r'```python\n(.*?)```', README, re.DOTALL)


def test_the_license_is_there():
  text = (pathlib.Path(__file__).parents[1] / 'LICENSE').read_text()
  assert 'Apache License\n' in text and 'END OF TERMS AND CONDITIONS' in text
  assert 'Apache License, version 2.0: see LICENSE' in README


def test_the_example_of_probabilities(make_run, capsys):
  run = train.train(make_run(max_steps=1))
  code, = (block for block in BLOCKS if 'trained.probabilities' in block)
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


def test_own_pictures_to_a_served_model(run_program, tmp_path, monkeypatch,
                                        capsys):
  """The commands of that section, one after the other, and the code."""
  section = README.split('## Your own pictures\n')[1].split('\n## ')[0]
  monkeypatch.chdir(tmp_path)
  images, labels = synthetic.make(1000, seed=3, size=60)
  for i, (image, label) in enumerate(zip(images, labels)):
    # Plain shapes only: a disc, a square, a triangle.
    name = {0: 'circle', 2: 'square', 4: 'triangle'}.get(label)
    if name:
      folder = tmp_path / 'pictures' / name
      folder.mkdir(parents=True, exist_ok=True)
      picture = Image.fromarray(image).resize((48 + i % 40, 48 + i % 30))
      picture.save(folder / f'{len(list(folder.iterdir())):03}.png')

  commands, = re.findall(r'```\n(python -m cifar10.dataset --import_dir.*?)```',
                         section, re.DOTALL)
  output = ''
  for command in commands.replace('\\\n', ' ').replace(
      '/tmp/', f'{tmp_path}/').splitlines():
    python, dash_m, program, *arguments = command.split()
    assert (python, dash_m) == ('python', '-m')
    code, out, err = run_program(program.split('.')[1], *arguments)
    assert code == 0, err
    output += out
  assert ('own: 240 records to train on, 60 to evaluate on, of 48x48 pixels, 3 '
          'classes: circle, square, triangle') in output
  precision = float(re.search(r'precision @ 1 = (\S+)', output).group(1))
  assert precision > 0.8
  predictions = re.findall(r'^pictures/(\w+)/\S+ +(\w+)', output, re.MULTILINE)
  right = sum(label == found for label, found in predictions)
  assert len(predictions) == 300 and right > 240

  for folder in sorted((tmp_path / 'pictures').iterdir()):
    code = next(block for block in BLOCKS if 'saved_model.load' in block)
    exec(code.replace('/tmp/', f'{tmp_path}/').replace('pictures/circle',
                                                       str(folder)), {})
  served = re.findall(r"b'(\w+)'", capsys.readouterr().out)
  assert served == [found for _, found in predictions[::100]]

  code, _, err = run_program(
      'export', f'--checkpoint_dir={tmp_path}/own_train', '--format=tflite',
      f'--export_dir={tmp_path}/own_model')
  assert code == 0, err
  code = next(block for block in BLOCKS if 'ai_edge_litert' in block)
  exec(code.replace('/tmp/', f'{tmp_path}/'), {})
  assert 'probabilities' in capsys.readouterr().out


def test_every_flag_is_in_a_table(help_texts):
  in_tables = re.findall(r'^\| `--(\w+)` \|', README, re.MULTILINE)
  in_help = re.findall(r'^  --(?:\[no\])?(\w+):\s', '\n'.join(
      help_texts.values()), re.MULTILINE)
  assert set(in_tables) == set(in_help)
