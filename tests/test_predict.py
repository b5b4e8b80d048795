"""Prediction and export, against evaluation and against each other."""

import dataclasses
import glob
import itertools
import json
import os
import re
import shutil

from ai_edge_litert.interpreter import Interpreter
import numpy as np
from PIL import Image
from PIL import ImageOps
import pytest
import tensorflow as tf2
import tensorflow.compat.v1 as tf
from tensorflow.python.tools import saved_model_cli

import cifar10
from cifar10 import export
from cifar10 import predict
from cifar10 import train
from cifar10.data import datasets
from cifar10.data import records
from cifar10.runs import model_card
from cifar10.runs import report
from cifar10.util.errors import UserError
from tests import numerics
from tests.conftest import images_of
from tests.conftest import with_batch_size
from tests.networks.test_networks import TERMS
from tests.programs import run_eval
from tests.programs import run_eval_once
from tests.programs import run_export
from tests.programs import run_predict
from tests.test_eval import write_2016_checkpoint


@pytest.fixture(scope='module')
def trained(data_dir, tmp_path_factory):
  """A run of 8 steps, whose averages are not its weights."""
  return train.train(with_batch_size(
      32, train_dir=str(tmp_path_factory.mktemp('trained')), data_dir=data_dir,
      max_steps=8))


@pytest.fixture(scope='module')
def pictures(data_dir, tmp_path_factory):
  """The test records as PNG files."""
  directory = tmp_path_factory.mktemp('pictures')
  data = datasets.ensure('cifar10', data_dir)
  paths = []
  for i, pixels in enumerate(images_of(data.test)):
    paths.append(str(directory / f'{i:03}.png'))
    Image.fromarray(pixels).save(paths[-1])
  return paths


@pytest.fixture(scope='module')
def evaluated(trained):
  """What evaluation makes of the test records."""
  return evaluate(trained)


def evaluate(run, **arguments):
  return run_eval_once(
      f'{run.train_dir}/model.ckpt-{run.max_steps}', run,
      datasets.ensure(run.dataset, run.data_dir), **arguments).probabilities


def predicted(paths, *arguments, **more):
  return np.array([row for _, row, _ in run_predict(
      paths, *arguments, **more)])


def test_predictions_are_what_evaluation_computes(trained, pictures, evaluated):
  found = predicted(pictures, trained.train_dir)
  numerics.assert_close(found, evaluated, TERMS['convnet'])
  # So it is the averages: the weights give something else.
  raw = evaluate(trained, use_moving_averages=False)
  assert abs(raw - evaluated).max() > 1e-3


@pytest.mark.parametrize('network', ['softmax', 'improved_cnn'])
def test_other_networks_predict_and_export(make_run, pictures, tmp_path,
                                           network):
  """Statistics, batch normalization, dropout: as in evaluation."""
  run = train.train(make_run(network=network, max_steps=2))
  expected = evaluate(run)[:5]
  numerics.assert_close(predicted(pictures[:5], run.train_dir), expected,
                        TERMS[network])
  directory, _ = run_export(run.train_dir, tmp_path / 'export')
  images = [np.asarray(Image.open(path)) for path in pictures[:5]]
  served = tf2.saved_model.load(str(directory)).signatures['images'](
      images=tf2.constant(np.array(images)))
  numerics.assert_close(served['probabilities'].numpy(), expected,
                        TERMS[network])


def test_the_run_is_read_once(trained, pictures, monkeypatch):
  expected = [values for _, values, _ in run_predict(
      pictures[:2], trained.train_dir)]
  monkeypatch.setattr(predict.trained, 'run_of', None)
  found = run_predict(pictures[:2], trained.train_dir, run=trained)
  for (_, values, _), wanted in zip(found, expected, strict=True):
    np.testing.assert_array_equal(values, wanted)


def test_the_2016_codes_checkpoints_predict(pictures, tmp_path):
  write_2016_checkpoint(tmp_path, 2, np.int64)
  (path, probabilities, reason), = run_predict(pictures[:1], str(tmp_path))
  assert path == pictures[0] and reason is None
  numerics.assert_close(probabilities.sum(), 1, len(probabilities))
  # It is not known what it was trained on, and how.
  directory, _ = run_export(tmp_path, tmp_path / 'export')
  card = (directory / 'MODEL_CARD.md').read_text()
  assert '77 steps' in card and 'seed' not in card and 'epochs,' not in card


def test_program(run_program, trained, pictures, evaluated, tmp_path):
  broken = tmp_path / 'broken.jpg'
  broken.write_bytes(b'no picture')
  code, out, err = run_program(
      'predict', f'--checkpoint_dir={trained.train_dir}', '--top_k=2',
      pictures[3], str(broken), os.path.dirname(pictures[0]) + '/00[01].png')
  assert code == 1
  assert f'error: {broken}: Unknown image file format' in err
  assert err.endswith('1 of 4 files could not be read\n')
  assert 'Traceback' not in err
  lines = out.splitlines()
  assert [line.split()[0] for line in lines] == [
      pictures[i] for i in (3, 0, 1)]
  for line, i in zip(lines, (3, 0, 1)):
    best = evaluated[i].argsort()[::-1][:2]
    assert line.split()[1:] == [
        text for c in best for text in (records.CIFAR10_CLASSES[c],
                                        f'{evaluated[i, c]:.1%}')]


def test_json_and_many_files(run_program, trained, pictures, evaluated):
  code, out, err = run_program(
      'predict', f'--checkpoint_dir={trained.train_dir}', '--json',
      '--top_k=99', *pictures * 3, 'gone.png')
  assert code == 1
  lines = [json.loads(line) for line in out.splitlines()]
  assert lines.pop() == {'file': 'gone.png', 'error': 'there is no such file'}
  assert [line['file'] for line in lines] == pictures * 3
  for line, expected in zip(lines, np.tile(evaluated, (3, 1))):
    probabilities = [one['probability'] for one in line['classes']]
    assert probabilities == sorted(probabilities, reverse=True)
    for one in line['classes']:
      assert one['name'] == records.CIFAR10_CLASSES[one['class']]
      assert one['probability'] == pytest.approx(expected[one['class']],
                                                 rel=1e-4, abs=1e-6)
    assert len(probabilities) == 10


@pytest.fixture(scope='module')
def exported(trained, tmp_path_factory):
  directory, checkpoint = run_export(trained.train_dir,
                                        tmp_path_factory.mktemp('export') / 'x')
  assert directory.name == '1'
  # Servers of other users can read it.
  assert directory.stat().st_mode & 0o777 == 0o755
  assert checkpoint == f'{trained.train_dir}/model.ckpt-8'
  return str(directory)


def check_outputs(outputs, expected):
  numerics.assert_close(outputs['probabilities'], expected, TERMS['convnet'])
  # Where two classes are as good as equal, either may win.
  first, second = np.sort(expected)[:, ::-1][:, :2].T
  clear = first - second > 2 * numerics.rounding(TERMS['convnet'])
  assert clear.mean() > 0.9
  assert (outputs['classes'] == expected.argmax(1))[clear].all()
  assert outputs['names'].tolist() == [
      records.CIFAR10_CLASSES[c].encode() for c in outputs['classes']]


def read_bytes(paths):
  contents = []
  for path in paths:
    with open(path, 'rb') as file:
      contents.append(file.read())
  return contents


@pytest.mark.parametrize('count', [1, 7, 130])
def test_exported_to_tensorflow_2(exported, pictures, evaluated, count):
  signatures = tf2.saved_model.load(exported).signatures
  images = np.array([np.asarray(Image.open(path)) for path in pictures[:count]])
  for outputs in (
      signatures['serving_default'](image_bytes=tf2.constant(
          read_bytes(pictures[:count]))),
      signatures['images'](images=tf2.constant(images))):
    check_outputs({name: value.numpy() for name, value in outputs.items()},
                  evaluated[:count])


def test_exported_to_a_plain_session(exported, pictures, evaluated):
  with tf.Session(graph=tf.Graph()) as session:
    signature = tf.saved_model.load(
        session, ['serve'], exported).signature_def['serving_default']
    outputs = session.run(
        {name: info.name for name, info in signature.outputs.items()},
        {signature.inputs['image_bytes'].name: read_bytes(pictures)})
    check_outputs(outputs, evaluated)
    assert not [op for op in session.graph.get_operations()
                if 'Summary' in op.type]


def test_saved_model_cli_runs_it(exported, pictures, evaluated, tmp_path,
                                 monkeypatch):
  images = np.array([np.asarray(Image.open(path)) for path in pictures[:4]])
  np.save(tmp_path / 'images.npy', images)
  monkeypatch.setattr('sys.argv', [
      'saved_model_cli', 'run', f'--dir={exported}', '--tag_set=serve',
      '--signature_def=images', f'--inputs=images={tmp_path}/images.npy',
      f'--outdir={tmp_path}'])
  with pytest.raises(SystemExit) as ended:
    saved_model_cli.main()
  assert not ended.value.code
  numerics.assert_close(np.load(tmp_path / 'probabilities.npy'), evaluated[:4],
                        TERMS['convnet'])


def test_pictures_of_any_size(exported, trained, tmp_path):
  paths = []
  for i, size in enumerate([(20, 50), (400, 300), (33, 32)]):
    pixels = np.random.default_rng(i).integers(0, 256, (*size, 3))
    paths.append(str(tmp_path / f'{i}.png'))
    Image.fromarray(pixels.astype(np.uint8)).save(paths[-1])
  served = tf2.saved_model.load(exported).signatures['serving_default'](
      image_bytes=tf2.constant(read_bytes(paths)))
  numerics.assert_close(served['probabilities'].numpy(),
                        predicted(paths, trained.train_dir), TERMS['convnet'])


@pytest.fixture(scope='module')
def odd_pictures(tmp_path_factory):
  """Pictures that lie, are transparent, or have a palette; and what a person
  sees of them."""
  directory = tmp_path_factory.mktemp('odd')
  pixels = np.random.default_rng(0).integers(0, 100, (32, 32, 4)).astype(
      np.uint8)
  pixels[:10, :20] += 150
  pixels[..., 3] = np.arange(32) // 16 * 255
  image = Image.fromarray(pixels)
  exif = Image.Exif()
  exif[0x112] = 6
  image.save(directory / 'lying.png', exif=exif)
  image.save(directory / 'transparent.png')
  palette = image.convert('RGB').quantize(16)
  palette.save(directory / 'palette.bmp')
  palette.save(directory / 'first.gif', save_all=True, append_images=[
      palette.rotate(180)], transparency=palette.getpixel((5, 5)))
  paths, seen = [], []
  for name in 'lying.png', 'transparent.png', 'palette.bmp', 'first.gif':
    paths.append(str(directory / name))
    shown = ImageOps.exif_transpose(Image.open(paths[-1])).convert('RGBA')
    white = Image.new('RGBA', shown.size, 'white')
    seen.append(f'{paths[-1]}.seen.png')
    Image.alpha_composite(white, shown).convert('RGB').save(seen[-1])
  return paths, seen


def test_pictures_are_what_a_person_sees(exported, trained, odd_pictures):
  paths, seen = odd_pictures
  expected = predicted(seen, trained.train_dir)
  numerics.assert_close(predicted(paths, trained.train_dir), expected,
                        TERMS['convnet'])
  served = tf2.saved_model.load(exported).signatures['serving_default'](
      image_bytes=tf2.constant(read_bytes(paths)))
  numerics.assert_close(served['probabilities'].numpy(), expected,
                        TERMS['convnet'])
  assert min(np.abs(a - b).max()
             for a, b in itertools.combinations(expected, 2)
             ) > 4 * numerics.rounding(TERMS['convnet'])


SERVE = """
import resource, sys
import tensorflow as tf

def peak():
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

def serve(contents):
  try:
    return classify(image_bytes=tf.constant(contents))['classes'].shape
  except tf.errors.InvalidArgumentError as e:
    return next(line for line in e.message.splitlines() if '[is]' in line)

classify = tf.saved_model.load(sys.argv[1]).signatures['serving_default']
small, large = (open(path, 'rb').read() for path in sys.argv[2:])
serve([small] * 10)
before = peak()
print(serve([small] * 3 + [large] * 10))
print(peak() - before)
"""


def test_large_pictures_do_not_take_a_server_down(exported, pictures, tmp_path,
                                                  run_program):
  """Ten at a time, each of which would take 1.2 GB."""
  Image.new('1', (20000, 20000)).save(tmp_path / 'large.png')
  code, out, err = run_program(SERVE, exported, pictures[0],
                               str(tmp_path / 'large.png'))
  assert code == 0, err
  reason, memory = out.splitlines()
  assert reason == ('assertion failed: [is] [20000] [x] [20000] [pixels, '
                    'expected 1 to 100,000,000 in all]')
  assert int(memory) < 150
  with tf.Session(graph=tf.Graph()) as session:
    tf.saved_model.load(session, ['serve'], exported)
    loop, = (op for op in session.graph.get_operations()
             if op.type in ('While', 'StatelessWhile'))
    assert loop.get_attr('parallel_iterations') == 1


WRONG_SHAPES = [(2, 64, 64, 3), (1, 200, 200, 3), (4, 32, 32, 1),
                (2, 16, 64, 3), (32, 32, 3)]


def test_images_of_another_size_are_refused(exported):
  """Some have as many values as two or four images, some hold one."""
  classify = tf2.saved_model.load(exported).signatures['images']
  for shape in WRONG_SHAPES:
    shown = str(list(shape)).replace(' ', '')
    with pytest.raises(tf.errors.InvalidArgumentError, match=re.escape(
        f'Shape of tensor images {shown} is not compatible with expected shape '
        '[?,32,32,3]')):
      classify(images=tf2.zeros(shape, tf2.uint8))
  with tf.Session(graph=tf.Graph()) as session:
    signature = tf.saved_model.load(
        session, ['serve'], exported).signature_def['images']
    for shape in WRONG_SHAPES:
      with pytest.raises(ValueError, match=r'shape \(None, 32, 32, 3\)'):
        session.run(signature.outputs['classes'].name, {
            signature.inputs['images'].name: np.zeros(shape, np.uint8)})


@pytest.fixture(scope='module')
def tflite(trained, tmp_path_factory):
  path = tmp_path_factory.mktemp('tflite')
  directory, _ = run_export(trained.train_dir, path, 'tflite')
  assert directory == path / 'tflite' / '1'
  assert sorted(os.listdir(directory)) == ['MODEL_CARD.md', 'model.tflite']
  return Interpreter(str(directory / 'model.tflite'))


def test_tflite_refuses_images_of_another_size(tflite):
  assert tflite.get_signature_runner('images')(images=np.zeros(
      [2, 32, 32, 3], np.uint8))['classes'].shape == (2,)
  # None of them needs TensorFlow's own operations.
  assert not [op['op_name'] for op in tflite._get_ops_details()
              if op['op_name'].startswith(('Flex', 'CUSTOM'))]
  for shape in WRONG_SHAPES:
    with pytest.raises(RuntimeError, match='CONCATENATION'):
      tflite.get_signature_runner('images')(images=np.zeros(shape, np.uint8))


def test_tflite(tflite, pictures, evaluated):
  classify = tflite.get_signature_runner('images')
  images = np.array([np.asarray(Image.open(path)) for path in pictures])
  check_outputs(classify(images=images), evaluated)


def test_tflite_of_weights_that_are_not_shared(data_dir, pictures, tmp_path):
  run = train.train(with_batch_size(
      8, network='local', train_dir=str(tmp_path / 'train'), data_dir=data_dir,
      max_steps=2))
  directory, _ = run_export(run.train_dir, tmp_path, 'tflite')
  images = np.array([np.asarray(Image.open(path)) for path in pictures[:5]])
  outputs = Interpreter(str(directory / 'model.tflite')).get_signature_runner(
      'images')(images=images)
  numerics.assert_close(outputs['probabilities'], evaluate(run)[:5],
                        TERMS['local'])


def test_versions(trained, tmp_path, monkeypatch):
  (tmp_path / '7').mkdir()
  (tmp_path / 'notes').mkdir()
  directory, _ = run_export(trained.train_dir, tmp_path)
  assert directory == tmp_path / '8'
  with pytest.raises(UserError, match='--dtype=bfloat16: --format=tflite'):
    run_export(trained.train_dir, tmp_path, 'tflite', 'bfloat16')
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='file: File exists'):
    run_export(trained.train_dir, tmp_path / 'file')
  with pytest.raises(UserError, match='there is no checkpoint'):
    run_export(tmp_path / 'nothing', tmp_path)

  # Nothing that could be taken for a version is there before it is complete.
  def save(builder):
    numbered.append([name for name in os.listdir(tmp_path) if name.isdecimal()])
    raise OSError(28, 'No space left on device', 'x')

  numbered = []
  monkeypatch.setattr(tf.saved_model.Builder, 'save', save)
  with pytest.raises(UserError, match='x: No space left'):
    run_export(trained.train_dir, tmp_path)
  assert sorted(numbered[0]) == ['7', '8']
  assert sorted(os.listdir(tmp_path)) == ['7', '8', 'file', 'notes']


def test_model_cards(trained, tmp_path, capsys):
  """A card has the precision of the checkpoint that was exported, if there is
  one, and no other."""
  eval_dir = str(tmp_path / 'eval')

  def card(format='saved_model'):
    directory, _ = run_export(trained.train_dir, tmp_path / 'model', format,
                              eval_dir=eval_dir)
    return (directory / 'MODEL_CARD.md').read_text()

  without = card()
  assert 'No evaluation of this checkpoint was found' in without
  for line in (
      '# convnet, trained on cifar10', 'convnet, 1,068,298 parameters',
      'cifar10, 300 records: images of 32x32 pixels, in color',
      '8 steps of 32 images, 0.9 epochs, with seed 1', 'batch_size=32',
      '| weights | moving averages', f'cifar10 {cifar10.__version__}',
      '- input `image_bytes`, string [n]: encoded',
      '- input `images`, uint8 [n, 32, 32, 3]:',
      '- output `probabilities`, float32 [n, 10]:', '    9 truck\n'):
    assert line in without
  run_eval(trained.train_dir, eval_dir, run_once=True)
  precision = float(re.search(r'precision @ 1 = (\S+)',
                              capsys.readouterr().out).group(1))
  percent = f'{precision:.1%}'
  assert f'{percent} of 130 images (cifar10, test)' in card()
  found = card('tflite')
  assert percent in found and 'serving_default' not in found

  # Evaluations of something else than what is exported.
  path = tmp_path / 'eval' / 'report.json'
  content, text = json.loads(path.read_text()), path.read_text()
  places = [tmp_path, path.parent]
  checkpoint = f'{trained.train_dir}/model.ckpt-8'
  assert report.find(checkpoint, 'float32', places) == [content]
  assert not report.find(checkpoint, 'bfloat16', places)
  for file in glob.glob(f'{checkpoint}.*'):
    shutil.copy(file, tmp_path)
  assert report.find(f'{tmp_path}/model.ckpt-8', 'float32', places) == [content]
  other = train.train(dataclasses.replace(
      trained, train_dir=str(tmp_path / 'other'), seed=2, max_steps=8))
  assert not report.find(f'{other.train_dir}/model.ckpt-8', 'float32', places)
  for name, value in (
      ('tta', True), ('use_moving_averages', False), ('checkpoint', None),
      ('precision_at_1', 'high'), ('cross_entropy', None)):
    path.write_text(json.dumps({**content, name: value}))
    assert not report.find(checkpoint, 'float32', places)
  path.write_text(json.dumps({**content, 'checkpoint': None}))
  assert not report.find(f'{tmp_path}/gone', 'float32', places)
  for damaged in text[:-9], '[1]', '[' * 100000, '':
    path.write_text(damaged)
    assert not report.find(checkpoint, 'float32', places)


def test_cards_of_many_classes_and_odd_texts(trained):
  """A list of classes is short, and a recipe stays in its cell."""
  classes = tuple(f'class {i}' for i in range(201))
  run = dataclasses.replace(
      trained, recipe=dataclasses.replace(
          trained.recipe, decayed_variables='a|b'),
      record_format=records.Format(
          8, 9, depth=1, class_names=classes))
  card = model_card.text(run, f'{trained.train_dir}/model.ckpt-8', {}, [],
                         export.Options())
  assert r'decayed_variables=a\|b' in card
  assert '8x9 pixels, gray' in card
  assert '201 names' in card and 'class 7' not in card


def test_export_program(run_program, trained, tmp_path):
  code, out, err = run_program(
      'export', f'--checkpoint_dir={trained.train_dir}',
      f'--export_dir={tmp_path}', '--dtype=bfloat16')
  assert code == 0, err
  assert f'model.ckpt-8 was exported to {tmp_path}/1' in out
  np.testing.assert_allclose(
      tf2.saved_model.load(f'{tmp_path}/1').signatures['images'](
          images=tf2.zeros([1, 32, 32, 3], tf2.uint8))[
              'probabilities'].numpy().sum(), 1, rtol=1e-5)
