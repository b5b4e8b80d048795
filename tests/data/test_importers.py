"""Own pictures to record files."""

import glob
import os
import re
import shutil
import sys

import numpy as np
from PIL import Image
import pytest
import scipy.io
import tensorflow.compat.v1 as tf

from cifar10 import train
from cifar10.data import datasets
from cifar10.data import directories
from cifar10.data import image_files
from cifar10.data import importers
from cifar10.data import records
from cifar10.util.errors import UserError
from tests.conftest import images_of
from tests.conftest import rows_of


def save(path, *color):
  os.makedirs(os.path.dirname(path), exist_ok=True)
  Image.new('RGB', (8, 8), color).save(path)


@pytest.fixture
def pictures(tmp_path):
  """Folders of 10 red, 5 green and 1 blue pictures, each of its own shade."""
  for name, count, channel in ('red', 10, 0), ('green', 5, 1), ('blue', 1, 2):
    for i in range(count):
      color = [0, 0, 0]
      color[channel] = 100 + i
      save(tmp_path / 'pictures' / name / f'{i}.png', *color)
  return tmp_path / 'pictures'


def contents(directory):
  """Returns the format, and (label, color) of the training and test records."""
  data = directories.load('own', directory)
  found = []
  for files in data.train, data.test:
    rows = rows_of(files)
    images = records.images(rows, data.format)
    assert (images == images[:, :1, :1]).all()
    found.append([(label, tuple(color)) for label, color in zip(
        records.labels(rows, data.format).tolist(),
        images[:, 0, 0].tolist())])
  return data.format, *found


def test_folders(pictures, tmp_path):
  importers.import_folders(tmp_path / 'own', pictures, 4, 0.2)
  record_format, train_records, test_records = contents(tmp_path / 'own')
  assert record_format == records.Format(4, 4, class_names=(
      'blue', 'green', 'red'))
  # 2 of 10, 1 of 5, and of a single picture none.
  assert sorted(label for label, _ in test_records) == [1, 2, 2]
  everything = train_records + test_records
  assert sorted(everything) == sorted(
      [(2, (100 + i, 0, 0)) for i in range(10)]
      + [(1, (0, 100 + i, 0)) for i in range(5)] + [(0, (0, 0, 100))])
  # Mixed, as --holdout takes the last.
  labels = [label for label, _ in train_records]
  assert labels != sorted(labels) and labels != sorted(labels, reverse=True)
  # The same again.
  importers.import_folders(tmp_path / 'again', pictures, 4, 0.2)
  for name in glob.glob('*', root_dir=tmp_path / 'own'):
    assert (tmp_path / 'own' / name).read_bytes() == (
        tmp_path / 'again' / name).read_bytes()


def test_folders_that_are_split_already(tmp_path):
  for part, shade in ('train', 1), ('test', 2):
    for name in 'a', 'b':
      save(tmp_path / 'p' / part / name / 'x.png', shade, ord(name), 0)
  importers.import_folders(tmp_path / 'own', tmp_path / 'p', 4, 0.9)
  _, train_records, test_records = contents(tmp_path / 'own')
  assert sorted(train_records) == [(0, (1, 97, 0)), (1, (1, 98, 0))]
  assert sorted(test_records) == [(0, (2, 97, 0)), (1, (2, 98, 0))]


@pytest.mark.parametrize('headline', ['', 'path,label\n'])
@pytest.mark.parametrize('labels, names', [
    (['10', '9', '9', '10'], ('9', '10')), (['b', 'a', 'a', 'b'], ('a', 'b'))])
def test_csv(tmp_path, headline, labels, names):
  for i in range(4):
    save(tmp_path / 'in, here' / f'{i}.png', i, 0, 0)
  list_of_pictures = tmp_path / 'list.csv'
  list_of_pictures.write_text(headline + ''.join(
      f'"in, here/{i}.png", {label}\n' for i, label in enumerate(labels)))
  importers.import_csv(tmp_path / 'own', list_of_pictures, 4, 0.5)
  record_format, train_records, test_records = contents(tmp_path / 'own')
  assert record_format.class_names == names
  assert sorted(train_records + test_records) == sorted(
      (names.index(label), (i, 0, 0)) for i, label in enumerate(labels))
  assert sorted(label for label, _ in test_records) == [0, 1]


@pytest.mark.parametrize('text, message', [
    ('a.png\n', "list.csv: line 1: 'a.png', expected PATH,LABEL"),
    ('a.png,1\n\nb.png,2,3', "list.csv: line 3: 'b.png,2,3', expected"),
    ('"a\n",1\nb', "list.csv: line 3: 'b', expected"),
    ('a.png,', "line 1: 'a.png,', expected"),
    ('', 'list.csv: has no pictures to train on'),
    ('a,1\n' * 3 + '"' + 'x' * 200000, 'is no list of PATH,LABEL: field lar'),
    ('gone.png,1\ngone2.png,1', 'no picture could be read to train on')])
def test_lists_that_are_none(tmp_path, text, message):
  (tmp_path / 'list.csv').write_text(text)
  with pytest.raises(UserError, match=message):
    importers.import_csv(tmp_path / 'own', tmp_path / 'list.csv', 4, 0.5)
  assert not [name for name in os.listdir(tmp_path) if 'own' in name]


def test_a_header_that_is_a_folder_and_numbers_that_are_equal(tmp_path, capsys):
  """The order of classes is that of the numbers, then that of the texts."""
  labels = ['10', '2', '02', '1_0'] * 2
  for i in range(8):
    save(tmp_path / 'image' / f'{i}.png', i, 0, 0)
  (tmp_path / 'list.csv').write_text('\nimage,label\n' + ''.join(
      f'image/{i}.png,{label}\n' for i, label in enumerate(labels)))
  importers.import_csv(tmp_path / 'own', tmp_path / 'list.csv', 4, 0.5)
  record_format, train_records, test_records = contents(tmp_path / 'own')
  assert record_format.class_names == ('02', '2', '10', '1_0')
  assert len(train_records + test_records) == 8
  assert 'list.csv: header line: image,label\n' in capsys.readouterr().err


def test_csv_as_spreadsheets_write_it(tmp_path):
  for i in range(4):
    save(tmp_path / f'{i}.png', i, 0, 0)
  (tmp_path / 'list.csv').write_bytes(
      b'\xef\xbb\xbf0.png,a\r\n1.png,a\r\n"2.png","b\xe2\x80\xa8"\r\n'
      b'3.png,b\r\n')
  importers.import_csv(tmp_path / 'own', tmp_path / 'list.csv', 4, 0.5)
  record_format, train_records, test_records = contents(tmp_path / 'own')
  assert record_format.class_names == ('a', 'b')
  assert sorted(color[0] for _, color in train_records + test_records) == [
      0, 1, 2, 3]


def test_folders_that_are_no_classes(tmp_path, capsys):
  for folder in 'train/a', 'valid/a', 'test/a':
    save(tmp_path / 'p' / folder / 'x.png', 1, 0, 0)
  with pytest.raises(UserError, match='folders test, train, valid. Expected'):
    importers.import_folders(tmp_path / 'own', tmp_path / 'p', 4, 0.5)
  for i in range(3):
    save(tmp_path / 'q' / 'a' / f'{i}.png', i, 0, 0)
  (tmp_path / 'q' / 'a' / 'x.webp').write_bytes(b'')
  importers.import_folders(tmp_path / 'own', tmp_path / 'q', 4, 0.5)
  assert 'q: 1 files are not pictures in folders' in capsys.readouterr().err
  for name in 'a\nb', 'a\tb', '\udcff':
    save(tmp_path / repr(name) / name / '0.png', 1, 0, 0)
    save(tmp_path / repr(name) / name / '1.png', 2, 0, 0)
    with pytest.raises(UserError, match='expected the name of a class'):
      importers.import_folders(tmp_path / 'new', tmp_path / repr(name), 4, 0.5)


def test_more_than_256_classes(tmp_path):
  for i in range(258):
    for blue in 0, 1:
      save(tmp_path / f'{i}.{blue}.png', i // 2, i % 2, blue)
  (tmp_path / 'list.csv').write_text(''.join(
      f'{i}.0.png,{i}\n{i}.1.png,{i}\n' for i in range(258)))
  importers.import_csv(tmp_path / 'own', tmp_path / 'list.csv', 4, 0.5)
  record_format, train_records, test_records = contents(tmp_path / 'own')
  assert record_format.label_bytes == 2
  assert record_format.class_names == tuple(map(str, range(258)))
  for found in train_records, test_records:
    assert sorted((label, color[:2]) for label, color in found) == [
        (i, (i // 2, i % 2)) for i in range(258)]


def test_broken_pictures(pictures, tmp_path, capfd):
  (pictures / 'green' / 'broken.png').write_bytes(b'no picture')
  importers.import_folders(tmp_path / 'own', pictures, 4, 0.2)
  err = capfd.readouterr().err
  assert f'left out: {pictures}/green/broken.png: Unknown image file' in err
  assert '1 of 17 pictures were left out' in err
  assert sum(map(len, contents(tmp_path / 'own')[1:])) == 16
  with pytest.raises(UserError, match='green/broken.png: Unknown image file'):
    importers.import_folders(tmp_path / 'strict', pictures, 4, 0.2, strict=True)
  assert sorted(os.listdir(tmp_path)) == ['own', 'pictures']


def test_files_are_of_bounded_size(pictures, tmp_path, monkeypatch):
  monkeypatch.setattr(importers, '_FILE_BYTES', 200)
  monkeypatch.setattr(importers, '_CHUNK_BYTES', 49)
  importers.import_folders(tmp_path / 'own', pictures, 4, 0.2)
  data = directories.load('own', tmp_path / 'own')
  # 49 bytes a record, 2 a chunk: a new file after 6.
  assert data.train.counts == (6, 6, 1)
  # The other 3 are test records. No two pictures have the same color.
  assert len({image.tobytes() for image in images_of(data.train)}) == 13


def test_the_same_picture_is_kept_once(tmp_path, capfd):
  """By path, by link, and by content."""
  for i in range(5):
    save(tmp_path / f'{i}.png', i, 0, 0)
  (tmp_path / 'link.png').symlink_to('1.png')
  shutil.copy(tmp_path / '2.png', tmp_path / 'copy.png')
  (tmp_path / 'list.csv').write_text(
      ''.join(f'{name}.png,a\n' for name in (
          *range(5), *range(5), 'link', 'copy', './3')))
  importers.import_csv(tmp_path / 'own', tmp_path / 'list.csv', 4, 0.4)
  _, train_records, test_records = contents(tmp_path / 'own')
  assert len(train_records) == 3 and len(test_records) == 2
  assert sorted(train_records + test_records) == [
      (0, (i, 0, 0)) for i in range(5)]
  assert 'left out: 8 pictures that repeat others\n' in capfd.readouterr().err


def test_contradictions(tmp_path, capfd):
  """The same picture with two labels is named, and left out or refused."""
  for i in range(6):
    save(tmp_path / 'p' / 'ab'[i % 2] / f'{i}.png', i, 0, 0)
  shutil.copy(tmp_path / 'p' / 'a' / '2.png', tmp_path / 'p' / 'b' / 'x.png')
  (tmp_path / 'p' / 'b' / 'y.png').symlink_to('../a/2.png')
  importers.import_folders(tmp_path / 'own', tmp_path / 'p', 4, 0.5)
  _, train_records, test_records = contents(tmp_path / 'own')
  assert sorted(train_records + test_records) == sorted(
      (i % 2, (i, 0, 0)) for i in (0, 1, 3, 4, 5))
  message = (f'the same picture with different labels: {tmp_path}/p/a/2.png '
             f'(a), {tmp_path}/p/b/x.png (b), {tmp_path}/p/b/y.png (b)')
  assert f'left out: {message}\n' in capfd.readouterr().err
  with pytest.raises(UserError, match=re.escape(message)):
    importers.import_folders(tmp_path / 'strict', tmp_path / 'p', 4, 0.5, True)
  # Broken files of no bytes are the same, but no picture.
  for name in 'a', 'b':
    (tmp_path / 'p' / name / 'empty.png').write_bytes(b'')
  importers.import_folders(tmp_path / 'again', tmp_path / 'p', 4, 0.5)
  assert capfd.readouterr().err.count('empty.png: Input is empty') == 2


def test_no_picture_is_in_both_parts(tmp_path, capfd):
  for i in range(4):
    save(tmp_path / 'p' / 'train' / 'a' / f'{i}.png', i, 0, 0)
  save(tmp_path / 'p' / 'test' / 'a' / 'same.png', 2, 0, 0)
  (tmp_path / 'p' / 'test' / 'a' / '3.png').symlink_to(
      tmp_path / 'p' / 'train' / 'a' / '3.png')
  importers.import_folders(tmp_path / 'own', tmp_path / 'p', 4, 0.5)
  _, train_records, test_records = contents(tmp_path / 'own')
  assert sorted(train_records) == [(0, (0, 0, 0)), (0, (1, 0, 0))]
  assert sorted(test_records) == [(0, (2, 0, 0)), (0, (3, 0, 0))]
  assert ('left out: 2 pictures to train on that are to test on too\n'
          in capfd.readouterr().err)


def test_classes_without_pictures_are_named(tmp_path, capfd):
  """To test on, as there is one only, or it is broken; or to train on."""
  for name, count in ('one', 1), ('two', 2):
    for i in range(count):
      save(tmp_path / 'p' / name / f'{i}.png', count, i, 0)
  importers.import_folders(tmp_path / 'own', tmp_path / 'p', 4, 0.5)
  err = capfd.readouterr().err
  assert err.endswith('no picture to test on: one\n') and 'train on' not in err
  for folder, shade in ('train/a', 1), ('test/a', 2), ('train/b', 3), (
      'test/c', 4):
    save(tmp_path / 'q' / folder / '0.png', shade, 0, 0)
  (tmp_path / 'q' / 'test' / 'b').mkdir()
  (tmp_path / 'q' / 'test' / 'b' / '0.png').write_bytes(b'?')
  importers.import_folders(tmp_path / 'split', tmp_path / 'q', 4, 0.5)
  err = capfd.readouterr().err
  assert err.endswith('no picture to train on: c\nno picture to test on: b\n')


def test_hidden_files_and_links(tmp_path, capfd):
  """Links are followed, to classes and in them, and round in circles."""
  for i in range(3):
    save(tmp_path / 'elsewhere' / f'{i}.png', 1, i, 0)
    save(tmp_path / 'p' / 'a' / f'{i}.png', 0, i, 0)
    save(tmp_path / 'p' / 'a' / '.ipynb_checkpoints' / f'{i}.png', 9, i, 0)
    save(tmp_path / 'deep' / 'er' / f'{i}.png', 2, i, 0)
  (tmp_path / 'p' / 'a' / '.DS_Store').write_bytes(b'')
  (tmp_path / 'p' / '.hidden').write_bytes(b'')
  (tmp_path / 'p' / 'a' / 'notes.txt').write_bytes(b'')
  (tmp_path / 'p' / 'readme').write_bytes(b'')
  (tmp_path / 'p' / 'b').symlink_to(tmp_path / 'elsewhere')
  (tmp_path / 'p' / 'a' / 'more').symlink_to(tmp_path / 'deep')
  (tmp_path / 'deep' / 'er' / 'up').symlink_to(tmp_path / 'deep')
  importers.import_folders(tmp_path / 'own', tmp_path / 'p', 4, 0.4)
  record_format, train_records, test_records = contents(tmp_path / 'own')
  assert record_format.class_names == ('a', 'b')
  assert sorted(train_records + test_records) == sorted(
      (label, (red, i, 0)) for label, red in ((0, 0), (0, 2), (1, 1))
      for i in range(3))
  assert f'{tmp_path}/p: 2 files are not pictures' in capfd.readouterr().err
  assert len(image_files.expand([str(tmp_path / 'p')])) == 9


def test_svhn(tmp_path):
  """Digits as published: 10 stands for 0, the last axis counts."""
  digits = np.random.default_rng(0).integers(
      0, 256, (32, 32, 3, 7)).astype(np.uint8)
  labels = np.uint8([[1], [9], [10], [2], [5], [10], [3]])
  for name, part in ('train', slice(0, 5)), ('test', slice(5, 7)):
    scipy.io.savemat(tmp_path / f'{name}_32x32.mat', {
        'X': digits[..., part], 'y': labels[part]})
  importers.import_svhn(tmp_path / 'own', tmp_path, 32)
  data = directories.load('own', tmp_path / 'own')
  assert data.format.class_names == tuple('0123456789')
  rows = rows_of(data.train)
  assert records.labels(rows).tolist() == [1, 9, 0, 2, 5]
  np.testing.assert_array_equal(records.images(rows),
                                digits[..., :5].transpose(3, 0, 1, 2))
  assert records.labels(rows_of(data.test)).tolist() == [0, 3]

  (tmp_path / 'test_32x32.mat').write_bytes(b'MATLAB?')
  with pytest.raises(UserError, match='test_32x32.mat: is not a file of crop'):
    importers.import_svhn(tmp_path / 'again', tmp_path, 16)
  (tmp_path / 'train_32x32.mat').unlink()
  with pytest.raises(UserError, match='train_32x32.mat: No such file'):
    importers.import_svhn(tmp_path / 'again', tmp_path, 16)
  assert not (tmp_path / 'again.part').exists()


def test_svhn_without_scipy(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'scipy', None)
  monkeypatch.setitem(sys.modules, 'scipy.io', None)
  with pytest.raises(UserError, match=r"pip install '.\[svhn\]'"):
    importers.import_svhn(tmp_path / 'own', tmp_path, 32)


def test_own_records_are_found_and_kept(run_program, pictures, tmp_path):
  arguments = (f'--import_dir={pictures}', f'--data_dir={tmp_path}/data',
               '--image_size=9')
  code, out, err = run_program('dataset', *arguments)
  assert code == 0, err
  assert ('own: 13 records to train on, 3 to evaluate on, of 9x9 pixels, 3 '
          'classes: blue, green, red') in out
  code, _, err = run_program('dataset', *arguments)
  assert code == 1 and 'own: is there already. Move it away' in err
  data = datasets.ensure(None, tmp_path / 'data')
  assert data.name == 'own' and data.format.height == 9
  with pytest.raises(UserError, match='own: is missing. To make it: python -m'):
    datasets.ensure('own', tmp_path)


@pytest.mark.parametrize('name, text, message', [
    ('format.json', '{"height": 0}', 'height=0: expected 1 or more'),
    ('format.json', '{"hight": 9}', "unexpected keyword argument 'hight'"),
    ('format.json', '[]', 'is no JSON object: expected an object'),
    ('format.json', '{', 'is no JSON object'),
    ('format.json', '[' * 100000, 'is no JSON object'),
    ('batches.meta.txt', 'a\n\nb', "'': expected the name of a class")])
def test_a_description_that_is_none(pictures, tmp_path, name, text, message):
  importers.import_folders(tmp_path / 'own', pictures, 4, 0.2)
  (tmp_path / 'own' / 'checksums.txt').unlink()
  (tmp_path / 'own' / name).write_text(text)
  with pytest.raises(UserError, match=f'{tmp_path}/own.*{message}'):
    datasets.ensure(None, tmp_path)


def test_cifar100(make_run, tmp_path):
  """Two label bytes, of which the second counts."""
  extracted = tmp_path / 'cifar-100-binary'
  extracted.mkdir()
  rng = np.random.default_rng(0)
  for name, count in ('train.bin', 20), ('test.bin', 5):
    rows = rng.integers(0, 256, (count, 3074)).astype(np.uint8)
    rows[:, 0] = 255  # No class: not to be looked at.
    rows[:, 1] = rng.integers(0, 100, count)
    (extracted / name).write_bytes(rows.tobytes())
  with pytest.raises(UserError, match='100-binary: has no file of class names'):
    datasets.ensure('cifar100', tmp_path)
  names = [f'fine{i}' for i in range(100)]
  (extracted / 'fine_label_names.txt').write_text('\n'.join(names) + '\n')
  (extracted / 'coarse_label_names.txt').write_text('coarse\n' * 20)
  data = datasets.ensure('cifar100', tmp_path)
  assert data.format == records.Format(skipped_bytes=1,
                                       class_names=tuple(names))
  assert records.labels(rows_of(data.test),
                        data.format).tolist() == rows[:, 1].tolist()
  shutil.rmtree(extracted)
  run = train.train(make_run(data_dir=str(tmp_path), dataset='cifar100',
                             max_steps=1))
  assert run.record_format == data.format
  assert tf.train.load_variable(
      run.train_dir, 'softmax_linear/biases').shape == (100,)
