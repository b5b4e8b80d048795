"""Records read from files that are mapped into memory."""

import dataclasses
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from cifar10.data import directories
from cifar10.data import record_files
from cifar10.data import records
from cifar10.util.errors import UserError
from tests.conftest import flags_of
from tests.conftest import images_of
from tests.conftest import Program

TINY = records.Format(height=4, width=6, depth=3)
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (10, 4, 6, 3), np.uint8)


@pytest.fixture
def files(tmp_path):
  """Ten records in three files: record i has label i."""
  paths = [tmp_path / f'{name}.bin' for name in 'abc']
  for path, part in zip(paths, (slice(0, 3), slice(3, 4), slice(4, 10))):
    records.write(path, IMAGES[part], np.arange(10)[part], TINY)
  return record_files.find(paths, TINY)


def in_tf_data(files, indices):
  contents, read = files.reader()
  dataset = tf.data.Dataset.from_tensors(np.int64(indices)).flat_map(
      lambda indices: tf.data.Dataset.from_tensors(read(indices, contents())))
  iterator = tf.data.make_initializable_iterator(dataset)
  tf.add_to_collection(tf.GraphKeys.TABLE_INITIALIZERS, iterator.initializer)
  return iterator.get_next()


def in_the_graph(files, indices):
  contents, read = files.reader()
  return read(tf.placeholder_with_default(np.int64(indices), [None]),
              contents())


@pytest.mark.parametrize('where', [in_tf_data, in_the_graph])
@pytest.mark.parametrize('is_mapped', [True, False])
@pytest.mark.parametrize('indices', [range(10), [9, 0, 3, 3, 4, 2], [5], []])
def test_any_records_in_any_order(files, capsys, where, is_mapped, indices):
  files = dataclasses.replace(files, is_mapped=is_mapped)
  indices = np.array(indices, np.int64)
  with tf.Graph().as_default(), tf.Session() as session:
    fetches = where(files, indices)
    session.run([tf.local_variables_initializer(), tf.tables_initializer()])
    images, labels = session.run(fetches)
  assert labels.tolist() == indices.tolist()
  np.testing.assert_array_equal(images, IMAGES[indices])
  np.testing.assert_array_equal(files.read(indices), IMAGES[indices])
  assert ('cannot be mapped into memory, so all 10 records are read into it'
          in capsys.readouterr().out) != is_mapped


@pytest.mark.parametrize('part_bytes', [1, 150, 10000])
@pytest.mark.parametrize('end', [1, 3, 5, 10])
def test_chunks(files, monkeypatch, part_bytes, end):
  monkeypatch.setattr(records, 'PART_BYTES', part_bytes)
  chunks = list(files.chunks(end))
  np.testing.assert_array_equal(np.concatenate(chunks), IMAGES[:end])
  assert max(map(len, chunks)) <= max(part_bytes // 73, 1)


def test_files_that_cannot_be_mapped(files, monkeypatch):
  assert files.is_mapped
  monkeypatch.setattr(record_files.mmap, 'mmap', lambda *_, **__: os.open(
      '/nowhere', os.O_RDONLY))
  assert not record_files.find(files.paths, TINY).is_mapped


# A file of 3 GB, of which nothing is on the disk. The tests run this in a
# process of its own: memory that others gave back would hide what it takes.
MEASURE = '''
import sys
import tensorflow.compat.v1 as tf
from cifar10 import inputs
from cifar10 import model
from cifar10.data import directories
from cifar10.data import record_files
from cifar10.runs import description

def resident(kind):
  with open('/proc/self/status') as file:
    return next(int(line.split()[1]) // 1024 for line in file
                if line.startswith(kind))

record_files._MAPPED_BYTES = 1 << 26
files = record_files.find([sys.argv[1]])
run = description.Run(recipe=model.RECIPE, num_examples=len(files))
with tf.Graph().as_default():
  if sys.argv[2] == 'training':
    batch = inputs.distorted_inputs(
        run, directories.Dataset('own', files, files))
  elif sys.argv[2] == 'evaluation':
    batch = inputs.inputs(files, lambda images: images, 0, len(files), 250)
  else:
    contents, read = files.reader()
    batch = read(tf.random.uniform([128], maxval=len(files), dtype=tf.int64),
                 contents())
  with tf.Session() as session:
    before = resident('VmRSS')
    session.run(tf.global_variables_initializer())
    session.run(tf.tables_initializer())
    for _ in range(100):
      session.run(batch)
    print(resident('VmHWM') - before)
'''


@pytest.mark.parametrize('where', ['training', 'evaluation', 'graph'])
def test_memory_does_not_grow_with_the_files(tmp_path, where):
  with open(tmp_path / 'a.bin', 'wb') as file:
    file.truncate(10**6 * 3073)
  program = Program(MEASURE, str(tmp_path / 'a.bin'), where)
  assert program.end() == 0, program.err
  # Twice 64 MB, and what TensorFlow takes to begin with.
  assert int(program.out) < 400


def test_a_file_that_became_shorter_is_named(files):
  directory = os.path.dirname(files.paths[0])
  for old, new in zip('abc', ('data_batch_1', 'data_batch_2', 'test_batch')):
    os.rename(f'{directory}/{old}.bin', f'{directory}/{new}.bin')
  directories.write_format(pathlib.Path(directory), TINY)
  data = directories.load('own', pathlib.Path(directory))
  os.truncate(data.train.paths[1], 72)
  with tf.Graph().as_default(), tf.Session() as session:
    batch = in_the_graph(data.train, [0])
    with pytest.raises(UserError, match='batch_2.bin: size is 72 bytes, expec'):
      with data.unchanged():
        session.run(batch)


# Truncates the file after it was mapped, before it is read.
BUS_ERROR = '''
import os, pathlib, sys
import tensorflow.compat.v1 as tf
from cifar10.data import record_files
from cifar10.data import verification

path = sys.argv[1]
os.utime(path, (1e9, 1e9))
verification.checksums([pathlib.Path(path)], record_files.records.CIFAR10)
verification.explain_bus_errors()
with tf.Graph().as_default(), tf.Session() as session:
  data = record_files._mapped(path, [100, 3073])
  with tf.control_dependencies([data]):
    shorter = tf.py_func(lambda: os.truncate(path, 3073), [], [])
  with tf.control_dependencies([shorter]):
    row = tf.gather(data, tf.placeholder_with_default([99], [1]))
  session.run(row)
print('not reached')
'''


def test_bus_errors_are_explained(tmp_path):
  path = tmp_path / 'a.bin'
  path.write_bytes(bytes(100 * 3073))
  program = Program(BUS_ERROR, str(path))
  assert program.end() == 1
  assert program.out == ''
  assert program.err.splitlines()[-1] == (
      f'error: {path}: has become shorter while it was read')


def shorten(path):
  os.truncate(path, 3073 * 50)


def replace(path):
  images = images_of(record_files.find([path]))
  records.write(f'{path}.new', 255 - images, np.zeros(len(images), int))
  os.replace(f'{path}.new', path)


@pytest.mark.parametrize('change', [shorten, replace, os.remove])
def test_a_run_whose_records_change_ends_and_saves_no_more(
    make_small_run, start, data_dir, tmp_path, change):
  data = tmp_path / 'data' / 'cifar-10-batches-bin'
  shutil.copytree(f'{data_dir}/cifar-10-batches-bin', data)
  run = make_small_run(data_dir=str(tmp_path / 'data'), max_steps=10**6,
                       log_frequency=1, checkpoint_steps=500,
                       keep_checkpoints=1000)
  program = start('train', *flags_of(run))
  program.expect(' step 3, ')
  change(data / 'data_batch_2.bin')
  saved = set(os.listdir(run.train_dir))
  assert program.end() == 1
  assert program.err.splitlines()[-1].startswith(f'error: {data}')
  assert 'Traceback' not in program.err and 'Fatal' not in program.err
  assert set(os.listdir(run.train_dir)) == saved
