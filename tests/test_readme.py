"""What the README says is so."""

import pathlib
import re
import textwrap
import types

import numpy as np
from PIL import Image
import tensorflow.compat.v1 as tf

import cifar10
from cifar10 import multi_gpu_train
from cifar10 import networks
from cifar10 import train
from cifar10.data import synthetic
from cifar10.nn import augmentation
from tests.conftest import assert_same_checkpoints

ROOT = pathlib.Path(__file__).parents[1]
README, NOTES = ((ROOT / name).read_text()
                 for name in ('README.md', 'BUILD_NOTES.md'))
BLOCKS = re.findall(r'```python\n(.*?)```', README + NOTES, re.DOTALL)


def test_the_license_is_there():
  text = (ROOT / 'LICENSE').read_text()
  assert 'Apache License\n' in text and 'END OF TERMS AND CONDITIONS' in text
  assert 'Apache License, version 2.0: see LICENSE' in README.replace('\n', ' ')


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
  code, = (block for block in BLOCKS if 'RECIPE = Recipe(' in block)
  module = types.ModuleType('example')
  exec(code, module.__dict__)
  monkeypatch.setitem(networks.NETWORKS, 'example', module)
  run = train.train(make_run(network='example', max_steps=2))
  assert tf.train.load_variable(run.train_dir, 'hidden/weights').shape == (
      24 * 24 * 3, 100)


def test_the_example_augmentation_trains(make_run):
  code, = (block for block in BLOCKS if block.startswith('def crop_and_turn'))
  names = {'tf': tf, 'augmentation': augmentation}
  exec(code, names)
  images = np.arange(5 * 8 * 8 * 3, dtype=np.uint8).reshape(5, 8, 8, 3)
  with tf.Graph().as_default(), tf.Session() as session:
    seed = augmentation.Seed(tf.constant([1, 4], tf.int64))
    found = session.run(names['crop_and_turn'](tf.constant(images), 8, seed))
  turned = [(image == original[::-1]).all()
            for image, original in zip(found, images)]
  assert 0 < sum(turned) < 5
  assert all((found[i] == images[i]).all() for i in range(5) if not turned[i])
  run = train.train(make_run(network='softmax', max_steps=1),
                    augment=names['crop_and_turn'])
  assert run.recipe.augmentation == 'custom:crop_and_turn'


def test_the_example_hook_stops(monkeypatch, tmp_path, capsys):
  code, = (block for block in BLOCKS if 'StopWhenLearned' in block)
  code = code.replace('< 1.5', '< 9').replace("'/tmp/mine'", repr(
      str(tmp_path / 'mine'))).replace("dataset='synthetic'", (
          f"dataset='synthetic', data_dir={str(tmp_path)!r}"))
  exec(code, {})
  assert 'Step 1 of ' in capsys.readouterr().out


def test_two_towers_on_one_page(make_run, data_dir, tmp_path, capsys):
  """Resumed once, they end where multi_gpu_train does."""
  code, = (block for block in BLOCKS if "DEVICES = '/gpu:0'" in block)
  for pair in (('gpu:0', 'cpu:0'), ('gpu:1', 'cpu:0'), ('=64', '=6'),
               ("'/tmp/two_towers'",
                f"'{tmp_path}/two', data_dir='{data_dir}'")):
    assert code.count(pair[0]) == 1
    code = code.replace(*pair)
  exec(code.replace('=1000', '=2'), {})
  exec(code.replace('=1000', '=4'), {})
  out = capsys.readouterr().out
  assert 'Resuming at step 2 of 4' in out and 'precision @ 1 = ' in out
  run = multi_gpu_train.train(make_run(6, max_steps=4), ['/cpu:0'] * 2)
  assert_same_checkpoints(f'{tmp_path}/two/model.ckpt-4',
                          f'{run.train_dir}/model.ckpt-4')


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
  card = (tmp_path / 'own_model' / '1' / 'MODEL_CARD.md').read_text()
  assert f'- {precision:.1%} of 60 images (own, test) get the ri' in card

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


def test_the_readme_has_less_than_400_lines():
  assert len(README.splitlines()) < 400


def test_quotes_are_in_the_code():
  quotes = [block.partition('\n') for block in BLOCKS
            if block.startswith('# cifar10/')]
  assert len(quotes) >= 5
  for path, _, quote in quotes:
    path = pathlib.Path(cifar10.__file__).parents[1] / path.removeprefix('# ')
    code = path.read_text().splitlines()
    for part in quote.rstrip().split('\n...\n'):
      lines = part.split('\n')
      assert any(
          textwrap.dedent('\n'.join(code[i:i + len(lines)])) == part
          for i in range(len(code))), part


def flags_of(help_text):
  """Returns {name: (default, description)} of the flags in a --help."""
  found = {}
  for name, text in re.findall(
      r'^  --(?:\[no\])?(\w+): (.*?)(?=^  --|^\S|\Z)', help_text,
      re.MULTILINE | re.DOTALL):
    text, _, default = ' '.join(text.split()).partition(" (default: '")
    found[name] = (default.removesuffix("')"), re.sub('; repeat.*', '', text))
  return found


def flag_table(help_texts):
  """Returns the table of flags, made of what --help prints."""
  programs = {}
  for program, text in help_texts.items():
    for name, (default, description) in flags_of(text).items():
      programs.setdefault((name, default, description), []).append(program)
  return [f'| `--{name}` | {", ".join(found)} | {default} | {description} |'
          for (name, default, description), found in programs.items()]


def test_the_table_of_flags_is_what_help_prints(help_texts):
  found = re.findall(r'^\| `--.*', NOTES.split('\n## Flags\n')[1], re.MULTILINE)
  assert found == flag_table(help_texts)
