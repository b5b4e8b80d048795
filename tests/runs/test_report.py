"""What an evaluation tells, beside precision and cross-entropy."""

import contextlib
import dataclasses
import glob
import io
import json
import os
import re
import shutil

import numpy as np
from PIL import Image
import pytest

from cifar10 import eval as eval_lib
from cifar10 import train
from cifar10.data import datasets
from cifar10.runs import best
from cifar10.runs import checkpoints
from cifar10.runs import description
from cifar10.runs import pictures
from cifar10.runs import report
from cifar10.util import filesystem
from cifar10.util.errors import UserError
from tests.conftest import images_of
from tests.conftest import read_checkpoint
from tests.conftest import SMALL_RECIPE
from tests.conftest import scalars_of
from tests.conftest import summaries_of
from tests.conftest import with_batch_size
from tests.programs import run_eval

LABELS = np.array([0, 0, 0, 0, 1, 1, 3])
PROBABILITIES = np.float32([
    [0.9, 0.1, 0, 0], [0.4, 0.6, 0, 0], [0.8, 0.1, 0.1, 0], [0, 0.2, 0.5, 0.3],
    [0.1, 0.9, 0, 0], [1, 0, 0, 0], [0.5, 0.3, 0.2, 0]])
NAMES = 'cat', 'dog', 'cow', 'emu'


def test_numbers_by_hand():
  found = report.measure(LABELS, PROBABILITIES, NAMES)
  assert found['confusion'] == [[2, 1, 1, 0], [1, 1, 0, 0], [0] * 4,
                                [1, 0, 0, 0]]
  assert found['precision_at_1'] == pytest.approx(3 / 7)
  # The fourth is the last but one, the last one the last.
  assert found['precision_at_3'] == pytest.approx(5 / 7)
  assert found['classes'] == [
      {'name': 'cat', 'examples': 4, 'accuracy': 0.5},
      {'name': 'dog', 'examples': 2, 'accuracy': 0.5},
      {'name': 'cow', 'examples': 0, 'accuracy': None},
      {'name': 'emu', 'examples': 1, 'accuracy': 0.0}]
  # Bins of 1/15: 0.9 twice, both right; 0.8 right; 0.6 wrong; 0.5 twice, wrong;
  # 1.0 wrong.
  assert found['expected_calibration_error'] == pytest.approx(
      (0.2 + 0.2 + 0.6 + 2 * 0.5 + 1) / 7)
  assert json.loads(json.dumps(found)) == found
  # Of classes that are equally probable, the first ones count.
  found = report.measure(np.arange(4), np.full((4, 4), 0.25), NAMES)
  assert (found['precision_at_1'], found['precision_at_3']) == (0.25, 0.75)


def test_calibration_of_certain_and_right_predictions():
  labels = np.arange(10) % 3
  assert report.measure(labels, np.eye(3)[labels], 'abc')[
      'expected_calibration_error'] == 0


def test_a_bin_of_probabilities_takes_in_its_upper_end():
  """3/15 and a little less: of two images in one bin, half are right."""
  probabilities = np.full([2, 10], 0.05)
  probabilities[0, 0], probabilities[1, 0] = 3 / 15, 0.19
  found = report.measure(np.array([0, 1]), probabilities, 'abcdefghij')
  assert found['expected_calibration_error'] == pytest.approx(
      0.5 - (0.2 + 0.19) / 2)


def test_table():
  lines = report.table(
      report.measure(LABELS, PROBABILITIES, NAMES)).splitlines()
  assert lines[1].split() == ['cat', '4', '50.0%', 'dog', '25.0%,', 'cow',
                              '25.0%']
  assert lines[3].split() == ['emu', '1', '0.0%', 'cat', '100.0%']
  assert 'all' in lines[4] and '42.9%' in lines[4] and '71.4%' in lines[4]
  assert lines[-4].split() == ['cat', '2', '1', '1', '0']
  # Names and counts stand in columns of five characters.
  assert lines[-5:] == ['     cat  dog  cow  emu',
                        'cat    2    1    1    0',
                        'dog    1    1    0    0',
                        'cow    0    0    0    0',
                        'emu    1    0    0    0']
  # Of equally frequent mistakes, those of the first classes are told.
  labels = np.repeat(0, 300)
  text = report.table(report.measure(labels, np.eye(300)[::-1],
                                      list(map(str, range(300)))))
  assert text.splitlines()[1].split() == [
      '0', '300', '0.3%', '1', '0.3%,', '2', '0.3%,', '3', '0.3%']
  many = np.arange(300)
  text = report.table(report.measure(many, np.eye(300)[many],
                                      list(map(str, many))))
  assert len(text.splitlines()) == 302


def test_confusion_picture():
  picture = pictures.confusion_picture(
      report.measure(LABELS, PROBABILITIES, NAMES))
  pixels = np.asarray(picture).astype(int)
  # The four corners of the matrix: 50% right, nothing, 100% wrong, nothing.
  margin, cell = picture.width - 4 * 44 - 1, 44
  corner = pixels[margin + 5, margin + 5]
  assert corner[1] > corner[0] + 50
  assert (pixels[margin + 5, margin + 3 * cell + 5] == 255).all()
  wrong = pixels[margin + 3 * cell + 5, margin + 5]
  assert wrong[0] > wrong[1] + 150
  assert (pixels[margin + 3 * cell + 5, margin + 3 * cell + 5] == 255).all()
  # Names stand beside it and above.
  assert pixels[margin:, :margin].min() < 100
  assert pixels[:margin, margin:].min() < 100
  for count in 1, 20, 21, 1000:
    labels = np.arange(count)
    picture = pictures.confusion_picture(report.measure(
        labels, np.eye(count, dtype=np.float32), list(map(str, labels))))
    assert max(picture.size) <= 1000
    assert np.asarray(picture)[-5, -5].tolist() == [30, 145, 65]  # Right.


def test_very_many_classes():
  """A matrix of them all would take gigabytes."""
  labels = np.arange(3) + 65000
  probabilities = np.zeros([3, 65536], np.float32)
  probabilities[range(3), labels] = 1
  found = report.measure(labels, probabilities, list(map(str, range(65536))))
  assert found['precision_at_1'] == 1 and found['confusion'] is None
  assert found['classes'][65001] == {'name': '65001', 'examples': 1,
                                     'accuracy': 1}
  assert len(report.table(found).splitlines()) == 5


def test_most_confident_mistakes():
  found = report.most_confident_mistakes(LABELS, PROBABILITIES, 3)
  assert found.tolist() == [5, 1, 3]
  assert report.most_confident_mistakes(LABELS, PROBABILITIES, 99).tolist() == [
      5, 1, 3, 6]
  assert not report.most_confident_mistakes(
      LABELS[:1], PROBABILITIES[:1], 5).size


@pytest.mark.parametrize('shape', [(32, 32, 3), (48, 60, 1), (200, 300, 3)])
def test_mistakes_picture(shape):
  images = np.full((7, *shape), 50, np.uint8)
  images[3] = 200
  picture = np.asarray(pictures.mistakes_picture(images, LABELS, PROBABILITIES,
                                               NAMES))
  assert picture[30, 30].tolist() == [50] * 3
  assert picture[30, 8 + 3 * 112 + 20].tolist() == [200] * 3
  assert picture[-90, 8 + 2 * 112 + 20].tolist() == [50] * 3
  assert picture[-90, 8 + 3 * 112 + 20].tolist() == [255] * 3
  # The last line of text is all there, with a margin below.
  assert (picture[-20:-8] != 255).any() and (picture[-8:] == 255).all()


@pytest.fixture(scope='module')
def trained(data_dir, tmp_path_factory):
  """A run with records held out and three checkpoints."""
  return train.train(with_batch_size(
      32, network='two_layer_fc', recipe=SMALL_RECIPE,
      train_dir=str(tmp_path_factory.mktemp('trained')), data_dir=data_dir,
      max_steps=6, checkpoint_steps=2, holdout=60))


def test_files(trained, tmp_path, run_program):
  code, out, err = run_program(
      'eval', f'--checkpoint_dir={trained.train_dir}', '--run_once',
      f'--eval_dir={tmp_path}', '--report', '--embeddings=40')
  assert code == 0, err
  assert 'examples  accuracy  most often taken for' in out
  description = json.loads((tmp_path / 'report.json').read_text())
  assert description['step'] == 6 and description['examples'] == 130
  assert f"precision @ 1 = {description['precision_at_1']:.3f}" in out
  summaries = summaries_of(tmp_path)
  for tag, key in (('Precision @ 1', 'precision_at_1'),
                   ('Precision @ 3', 'precision_at_3'),
                   ('calibration_error', 'expected_calibration_error')):
    assert summaries[f'precision/{tag}', 6].simple_value == np.float32(
        description[key])
  for tag in 'confusion_matrix', 'mistakes':
    picture = summaries[f'evaluation/{tag}', 6].image
    decoded = Image.open(io.BytesIO(picture.encoded_image_string))
    assert decoded.size == (picture.width, picture.height)

  # The projector's files, of the first 40 records.
  features = np.loadtxt(tmp_path / 'projector' / 'features.tsv')
  assert features.shape == (40, 120)
  rows = (tmp_path / 'projector' / 'labels.tsv').read_text().splitlines()
  assert rows[0] == 'class\tpredicted\trecord' and len(rows) == 41
  data = datasets.ensure('cifar10', trained.data_dir)
  images = images_of(data.test)
  sprite = np.asarray(Image.open(tmp_path / 'projector' / 'thumbnails.png'))
  assert sprite.shape == (7 * 32, 7 * 32, 3)
  np.testing.assert_array_equal(sprite[32:64, 64:96], images[9])
  # The logits are the last matrix product of these features.
  values = read_checkpoint(f'{trained.train_dir}/model.ckpt-6')
  weights, biases = (
      values[f'softmax_linear/{name}/ExponentialMovingAverage']
      for name in ('weights', 'biases'))
  logits = features @ weights + biases
  for row, label in zip(rows[1:], logits.argmax(1)):
    assert row.split('\t')[1] == data.format.class_names[label]
  config = (tmp_path / 'projector_config.pbtxt').read_text()
  assert config.count('single_image_dim: 32') == 2


def test_the_evaluation_at_the_end_is_kept(trained, tmp_path, capsys):
  """In train_dir, for the HPARAMS page and the model card."""
  eval_lib.evaluate_newest(trained, tta=True)
  precisions = re.findall(r'precision @ 1 = (\S+)', capsys.readouterr().out)
  summaries = summaries_of(trained.train_dir)
  for tag, precision in zip(('holdout', 'holdout_tta'), precisions,
                            strict=True):
    assert precision == '{:.3f}'.format(
        summaries[f'evaluation/precision_{tag}', 6].simple_value)
  found, = report.find(f'{trained.train_dir}/model.ckpt-6', 'float32',
                       [trained.train_dir])
  assert (found['eval_data'], found['examples']) == ('holdout', 60)
  assert f"{found['precision_at_1']:.3f}" == precisions[0]
  # TensorBoard drops what is as late as the start of a training. The command
  # given once more starts none.
  train.train(trained)
  assert ('evaluation/precision_holdout', 6) in scalars_of(trained.train_dir)

  for name in ('checkpoint', 'dtype', 'precision_at_1', 'examples', 'dataset',
               'eval_data'):
    filesystem.write_text(tmp_path / 'report.json',
                          json.dumps({**found, name: []}))
    assert not report.find(f'{trained.train_dir}/model.ckpt-6', 'float32',
                           [tmp_path])


def test_projector_reads_it(trained, tmp_path):
  from tensorboard.plugins.projector import projector_config_pb2
  from google.protobuf import text_format
  run_eval(trained.train_dir, str(tmp_path), run_once=True,
           embeddings=1000)
  config = text_format.Parse(
      (tmp_path / 'projector_config.pbtxt').read_text(),
      projector_config_pb2.ProjectorConfig())
  embedding, = config.embeddings
  for path in (embedding.tensor_path, embedding.metadata_path,
               embedding.sprite.image_path):
    assert (tmp_path / path).exists()
  assert len((tmp_path / embedding.tensor_path).read_text().splitlines()) == 130


def test_the_mistakes_are_those_of_the_records_evaluated(trained, tmp_path,
                                                         monkeypatch):
  """Of held-out records, which start in the middle of a file."""
  shown = []
  monkeypatch.setattr(pictures, 'mistakes_picture', lambda images, labels, *_: (
      shown.append((images, labels)) or Image.new('RGB', (1, 1))))
  run_eval(trained.train_dir, str(tmp_path), eval_data='holdout',
           run_once=True, embeddings=3)
  (images, labels), = shown
  rows = (tmp_path / 'projector' / 'labels.tsv').read_text().splitlines()
  assert [row.split('\t')[2] for row in rows] == [
      'record', '240', '241', '242']
  data = datasets.ensure('cifar10', trained.data_dir)
  held_out = images_of(data.train)[240:]
  for image in images:
    assert (held_out == image).all((1, 2, 3)).any()
  assert len(labels) == 24


def test_keep_best(trained, make_small_run, tmp_path, monkeypatch, capsys):
  best_dir = tmp_path / 'best'
  precisions = {2: 0.3, 4: 0.5, 6: 0.4}

  def evaluate(checkpoint, *arguments):
    result = real(checkpoint, *arguments)
    result.metrics['Precision @ 1'] = precisions[result.step]
    return result

  real = eval_lib.evaluate_once
  monkeypatch.setattr(eval_lib, 'evaluate_once', evaluate)
  for step in 2, 4, 6:
    monkeypatch.setattr(
        checkpoints, 'newest',
        lambda _, step=step: f'{trained.train_dir}/model.ckpt-{step}')
    run_eval(trained.train_dir, str(tmp_path / 'eval'),
             eval_data='holdout', run_once=True, keep_best=str(best_dir))
  monkeypatch.undo()
  assert capsys.readouterr().out.count('The best so far') == 2
  assert set(glob.glob('*ckpt*', root_dir=best_dir)) == {
      'model.ckpt-4.index', 'model.ckpt-4.data-00000-of-00001'}
  assert json.loads((best_dir / 'best.json').read_text()) == {
      '2': 0.3, '4': 0.5}
  # It evaluates as what it is a copy of.
  run_eval(str(best_dir), str(tmp_path / 'eval2'), eval_data='holdout')
  copied = capsys.readouterr().out.split('precision')[1]
  expected = real(
      f'{trained.train_dir}/model.ckpt-4', trained, datasets.ensure(
          'cifar10', trained.data_dir), eval_lib.Options(eval_data='holdout'))
  assert f"@ 1 = {expected.metrics['Precision @ 1']:.3f} (step 4" in copied

  # A checkpoint that the trainer deletes before it is copied takes the place of
  # none; nor does it if this is interrupted, whatever is then found next.
  def delete_and_copy(path, directory):
    os.remove(shutil.copytree(trained.train_dir, tmp_path / 'gone')
              / 'model.ckpt-6.data-00000-of-00001')
    copy(str(tmp_path / 'gone' / 'model.ckpt-6'), directory)

  def be_interrupted(path, directory):
    raise KeyboardInterrupt

  copy = best._copy
  monkeypatch.setattr(eval_lib, 'evaluate_once', evaluate)
  for precisions[6], happens, error in (
      (0.9, delete_and_copy, ()), (0.9, be_interrupted, KeyboardInterrupt),
      (0.45, copy, ())):
    monkeypatch.setattr(best, '_copy', happens)
    with contextlib.suppress(error):
      run_eval(trained.train_dir, str(tmp_path / 'eval'),
               eval_data='holdout', run_once=True,
               keep_best=str(best_dir))
    assert checkpoints.newest(best_dir) == f'{best_dir}/model.ckpt-4'
    assert ('model.ckpt-6: the best so far, but the trainer deleted it' in
            capsys.readouterr().err) == (happens == delete_and_copy)
  monkeypatch.undo()

  other = train.train(make_small_run(train_dir=str(tmp_path / 'other'), seed=2,
                                     max_steps=1, holdout=60))
  with pytest.raises(UserError, match='holds the best of another run'):
    run_eval(other.train_dir, str(tmp_path / 'eval'),
             eval_data='holdout', run_once=True, keep_best=str(best_dir))
  (best_dir / 'best.json').write_text('[1]')
  with pytest.raises(UserError, match='best.json: is no table of precisions'):
    run_eval(trained.train_dir, str(tmp_path / 'eval'),
             eval_data='holdout', run_once=True, keep_best=str(best_dir))
  with pytest.raises(UserError, match='first: holds other checkpoints'):
    shutil.copytree(trained.train_dir, tmp_path / 'first')
    os.remove(tmp_path / 'first' / 'run.json')
    run_eval(trained.train_dir, str(tmp_path / 'eval'),
             eval_data='holdout', run_once=True,
             keep_best=str(tmp_path / 'first'))
  with pytest.raises(UserError, match='is the directory of the run'):
    run_eval(trained.train_dir, str(tmp_path / 'eval'),
             eval_data='holdout', run_once=True,
             keep_best=f'{trained.train_dir}/')
  # The directory of a trainer that has not saved anything yet.
  description.save(dataclasses.replace(
      trained, train_dir=str(tmp_path / 'first')))
  for path in glob.glob(f'{tmp_path}/first/*ckpt*'):
    os.remove(path)
  with pytest.raises(UserError, match='first: holds other checkpoints'):
    run_eval(trained.train_dir, str(tmp_path / 'eval'),
             eval_data='holdout', run_once=True,
             keep_best=str(tmp_path / 'first'))
  (best_dir / 'best.json').write_text('{}')
  with filesystem.locked(best_dir), pytest.raises(
      UserError, match=f'{best_dir}: process {os.getpid()} .* is at work'):
    run_eval(trained.train_dir, str(tmp_path / 'eval'),
             eval_data='holdout', run_once=True, keep_best=str(best_dir))
  with pytest.raises(UserError, match='add --eval_data=holdout'):
    run_eval(other.train_dir, str(tmp_path / 'eval'),
             keep_best=str(best_dir))
